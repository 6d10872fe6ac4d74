-- Forms that the parser does not know, and functions of all kinds over several shards.
CREATE TABLE t (k int PRIMARY KEY, g int, v numeric, s text, at timestamptz);
CREATE TABLE u (id int PRIMARY KEY, k int, w int);
CREATE TABLE h (a int, b text);
--@ router: SELECT create_distributed_table('t', 'k')
--@ router: SELECT create_distributed_table('u', 'id')
INSERT INTO t SELECT i, i % 5, i * 1.5, ' s' || i % 7 || ' ', '2024-01-01 00:00+00'::timestamptz + i * interval '1 hour' FROM generate_series(1, 60) i;
INSERT INTO u SELECT i, i % 20, i * 2 FROM generate_series(1, 40) i;
INSERT INTO h SELECT i, 'h' || i FROM generate_series(1, 10) i;
-- Windows.
SELECT k, sum(v) OVER (ORDER BY k ROWS BETWEEN 2 PRECEDING AND 2 FOLLOWING EXCLUDE CURRENT ROW) FROM t ORDER BY k;
SELECT k, sum(v) OVER (PARTITION BY g ORDER BY k GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE GROUP) FROM t ORDER BY k;
SELECT k, count(*) OVER (ORDER BY g RANGE BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES) FROM t ORDER BY k;
SELECT k, count(*) OVER (ORDER BY g RANGE BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE NO OTHERS) FROM t ORDER BY k;
-- TRIM in all its forms, VARIADIC, records, TABLE and VALUES in set operations.
SELECT k, '<' || trim(trailing from s) || '>', trim(from s), trim(both from s), trim(leading from s) FROM t ORDER BY k;
SELECT trim(both 's ' from s), count(*) FROM t GROUP BY 1 ORDER BY 1;
SELECT k, concat(VARIADIC ARRAY[s, g::text]) FROM t ORDER BY k LIMIT 5;
SELECT k, format('%s/%s', VARIADIC ARRAY[s, g::text]) FROM t ORDER BY k LIMIT 5;
SELECT t.k, r.a FROM t, json_to_record('{"a": 7}') AS r(a int) ORDER BY 1 LIMIT 3;
VALUES (1, 2, 3), (3, 4 + 4, 5) UNION ALL TABLE u ORDER BY 1, 2, 3;
SELECT id, k, w FROM u EXCEPT TABLE u;
WITH x AS (TABLE u) SELECT count(*), sum(w) FROM x;
SELECT count(*) FROM (TABLE t) AS q;
-- Built-in functions that are seldom used.
SELECT date_bin('6 hours', at, '2024-01-01 00:00+00'), count(*) FROM t GROUP BY 1 ORDER BY 1;
SELECT k, float8(v), int4(v), text(k) FROM t ORDER BY float8(v) DESC LIMIT 4;
SELECT k, to_tsvector('simple', s) FROM t ORDER BY k LIMIT 4;
SELECT count(*) FROM t WHERE to_tsvector('simple', s) @@ to_tsquery('simple', 's3');
SELECT gcd(k, 12), lcm(max(k), 3), count(*) FROM t GROUP BY 1 ORDER BY 1;
SELECT make_timestamptz(2024, 1, g + 1, 0, 0, 0, 'UTC'), count(*) FROM t GROUP BY 1 ORDER BY 1;
SELECT int4range(k, k + 2) FROM t WHERE int4range(k, k + 2) && int4range(10, 12) ORDER BY 1;
-- Functions of users.
CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION looked_up(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT b FROM h WHERE a = $1';
CREATE FUNCTION unsure(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1';
CREATE FUNCTION pairs(int) RETURNS SETOF int LANGUAGE sql IMMUTABLE AS 'SELECT generate_series(1, $1)';
CREATE FUNCTION longest(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT CASE WHEN length($2) > length(coalesce($1, '''')) THEN $2 ELSE $1 END';
CREATE AGGREGATE total(numeric) (SFUNC = numeric_add, STYPE = numeric, INITCOND = '0');
CREATE AGGREGATE longest_of(text ORDER BY text) (SFUNC = longest, STYPE = text, INITCOND = '');
CREATE AGGREGATE longest_one(text) (SFUNC = longest, STYPE = text, INITCOND = '');
SELECT doubled(g), count(*) FROM t GROUP BY 1 ORDER BY 1;
SELECT k, doubled(k) FROM t ORDER BY doubled(g), k LIMIT 7;
SELECT doubled(g) AS d, sum(v) FROM t GROUP BY doubled(g) HAVING doubled(g) > 2 ORDER BY d;
SELECT total(v) FROM t;
SELECT g, total(v), longest_one(s ORDER BY k) FROM t GROUP BY g ORDER BY g;
SELECT k, total(v) OVER (PARTITION BY g ORDER BY k) FROM t ORDER BY k;
SELECT k, looked_up(g) FROM t ORDER BY k;
SELECT looked_up(g), count(*) FROM t GROUP BY 1 ORDER BY 1;
SELECT k, looked_up(k) FROM t WHERE looked_up(k) IS NOT NULL AND k = ANY (ARRAY[1, 2, 3, 20]) ORDER BY k;
SELECT k, pairs(2) FROM t WHERE k < 4 ORDER BY 1, 2;
SELECT t.k, p FROM t, pairs(t.g) AS p ORDER BY 1, 2;
SELECT looked_up(u.k), t.g FROM t JOIN u ON u.k = t.k ORDER BY 1, 2, t.k, u.id;
SELECT public.doubled(k) FROM t ORDER BY 1 DESC LIMIT 3;
SELECT k, unsure(k) FROM t WHERE k = 3;
--@ refused 0A000
SELECT k, unsure(k) FROM t ORDER BY k;
INSERT INTO u SELECT k + 100, doubled(k), g FROM t;
SELECT count(*), sum(k) FROM u;
-- A function that says that it reads, and calls one that writes.
CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO h VALUES (0, ''written''); SELECT 1';
CREATE FUNCTION says_it_reads() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN writes(); END';
--@ refused 25006
SELECT k, says_it_reads() FROM t WHERE k < 3 ORDER BY says_it_reads(), k;
--@ refused 25006
EXPLAIN ANALYZE SELECT k, says_it_reads() FROM t WHERE k < 3 ORDER BY says_it_reads(), k;
-- In a transaction that has changed the home shard's tables, a function must not see them as they were.
BEGIN;
UPDATE h SET b = upper(b);
--@ refused 0A000
SELECT k, looked_up(g) FROM t ORDER BY k;
ROLLBACK;
-- Strings that are queries.
--@ refused 0A000
SELECT query_to_xml('SELECT count(*) FROM t', false, false, '');
--@ refused 0A000
SELECT table_to_xml('t', false, false, '');
--@ refused 0A000
SELECT * FROM ts_stat('SELECT to_tsvector(s) FROM t');
-- RETURNING * where rows of other shards are read.
CREATE TABLE hh (a int, b text);
INSERT INTO hh SELECT i, 'x' FROM generate_series(1, 5) i;
UPDATE hh SET b = 'y' FROM u WHERE hh.a = u.w AND u.id < 100 RETURNING *;
UPDATE t SET s = 'z' FROM u WHERE t.k = u.w AND u.id < 100 RETURNING *;
UPDATE t SET s = 'zz' FROM u WHERE t.k = u.w AND u.id < 100 RETURNING u.*;
DELETE FROM hh USING u WHERE hh.a = u.w AND u.id < 100 RETURNING *;
SELECT * FROM hh ORDER BY a;
