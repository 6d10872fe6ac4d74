-- Values of many types, through merging and through one shard.
CREATE TYPE color AS ENUM ('red', 'green', 'blue');
CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE t (k int PRIMARY KEY, b boolean, c char(5), d date, ts timestamp, tz timestamptz, tm time, iv interval, n numeric, f float8, r real, j json, jb jsonb, u uuid, by bytea, a int[], ta text[], i inet, m money, p point, rg int4range, bt bit(3), x xml);
CREATE TABLE e (k int PRIMARY KEY, c color, p pair, q positive, ca color[]);
--@ router: SELECT create_distributed_table('t', 'k')
--@ router: SELECT create_distributed_table('e', 'k')
SET timezone = 'UTC';
INSERT INTO t VALUES (1, true, 'abc', '2024-02-29', '2024-02-29 12:00', '2024-02-29 12:00+01', '12:34:56', '1 month 2 days', 1.10, 0.1, 0.2, '{"a": 1}', '{"b": [1, 2]}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '\xdeadbeef', '{1,2,NULL}', '{"a b",c}', '10.0.0.1/8', 12.5, '(1,2)', '[1,5)', B'101', '<a/>');
INSERT INTO t (k) VALUES (2);
INSERT INTO t VALUES (3, false, 'de', 'infinity', '-infinity', 'infinity', '00:00', '-1 year', 'NaN', 'Infinity', '-0', 'null', 'null', NULL, '', '{}', '{}', '::1', -1, '(0,0)', 'empty', B'000', '<b/>');
SELECT * FROM t WHERE k = 1;
SELECT * FROM t WHERE k = 3;
SELECT k, b, c, d, ts, tz, tm, iv FROM t ORDER BY k;
SELECT k, n, f, r FROM t ORDER BY k;
SELECT k, jb, u, by FROM t ORDER BY k;
SELECT k, j FROM t;
SELECT k, a, ta FROM t;
SELECT k, a, ta FROM t ORDER BY k;
SELECT a, count(*) FROM t GROUP BY a ORDER BY a;
SELECT max(ta), min(a) FROM t;
SELECT k, i, m, bt FROM t ORDER BY k;
SELECT k, rg FROM t ORDER BY k;
SELECT k, p FROM t;
SELECT max(d), min(ts), max(tz), max(n), max(f), min(iv), max(tm) FROM t;
SELECT sum(n), sum(f), sum(r), sum(iv), sum(m) FROM t;
SELECT avg(iv) FROM t;
SELECT b, count(*) FROM t GROUP BY b ORDER BY b;
SELECT n, count(*) FROM t GROUP BY n ORDER BY n;
SELECT c, length(c), c || '|' FROM t ORDER BY k;
SELECT jb, count(*) FROM t GROUP BY jb ORDER BY jb;
SELECT k FROM t ORDER BY n DESC NULLS LAST, k;
SELECT k FROM t ORDER BY f NULLS FIRST, k;
SELECT k FROM t ORDER BY by, k;
SELECT k FROM t ORDER BY u, k;
SELECT k FROM t WHERE jb @> '{"b": [1]}';
SELECT k FROM t WHERE a @> ARRAY[1];
SELECT k FROM t WHERE d > '2024-01-01' ORDER BY k;
SELECT k FROM t WHERE c = 'abc';
INSERT INTO e VALUES (1, 'red', '(1,a)', 5, '{red,blue}');
INSERT INTO e VALUES (2, 'blue', ROW(2, 'b'), 6, NULL);
INSERT INTO e VALUES (3, 'green', NULL, -1, NULL);
INSERT INTO e VALUES (4, 'pink', NULL, 1, NULL);
SELECT k, c::text, q FROM e ORDER BY k;
SELECT k FROM e WHERE c = 'blue';
SELECT k FROM e ORDER BY c;
SELECT max(c)::text FROM e;
SELECT (p).x, (p).y FROM e WHERE k = 1;
SELECT k, (p).x FROM e ORDER BY k;
SELECT k, p FROM e ORDER BY k;
SELECT p FROM e ORDER BY p NULLS FIRST, k;
-- In binary the element type's oid is a part of the value, and each database has its own.
--@ modes: simple text
SELECT k, ca FROM e ORDER BY k;
SELECT ca::text FROM e WHERE k = 1;
SELECT c::text, count(*) FROM e GROUP BY c ORDER BY c;
--@ bind: 1|t|2024-02-29|1.10|{"b": [1, 2]}
SELECT k FROM t WHERE k = $1 AND b = $2 AND d = $3 AND n = $4 AND jb = $5;
--@ bind: 1.1
SELECT k FROM t WHERE n = $1;
DROP TABLE e;
DROP TYPE color, pair;
DROP DOMAIN positive;
CREATE TABLE bk (k boolean PRIMARY KEY, v int);
--@ router: SELECT create_distributed_table('bk', 'k')
INSERT INTO bk VALUES (true, 1);
INSERT INTO bk VALUES ('no', 2);
INSERT INTO bk VALUES ('t', 3);
SELECT * FROM bk WHERE k;
SELECT * FROM bk WHERE NOT k;
SELECT * FROM bk WHERE k = 'on';
SELECT * FROM bk WHERE k IS TRUE;
SELECT * FROM bk ORDER BY k;
