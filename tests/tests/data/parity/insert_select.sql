-- INSERT of rows that no shard can make by itself.
CREATE TABLE s (k int PRIMARY KEY, other int, v text, amount numeric);
CREATE TABLE t (k int, v text DEFAULT 'dflt', n int, UNIQUE (k, v));
CREATE TABLE big (id bigserial PRIMARY KEY, k int, v varchar(5), at date DEFAULT '2025-01-01');
CREATE TABLE r (id int PRIMARY KEY, v text, luck float8 DEFAULT random());
CREATE TABLE h (id serial, k int, v text);
--@ router: SELECT create_distributed_table('s', 'k')
--@ router: SELECT create_distributed_table('t', 'k')
--@ router: SELECT create_distributed_table('big', 'id')
--@ router: SELECT create_reference_table('r')
INSERT INTO s SELECT g, g * 7 % 20, 'v' || g, g / 3.0 FROM generate_series(1, 40) g;
SELECT count(*), sum(k), sum(other), max(amount) FROM s;
INSERT INTO t (k, v, n) SELECT other, v, k FROM s;
INSERT INTO t (k, v) SELECT k + 100, 'plus' FROM s WHERE k < 4 RETURNING k, v, n;
INSERT INTO t (k) SELECT k + 200 FROM s ORDER BY amount DESC LIMIT 3;
INSERT INTO t SELECT other, v, 1 FROM s WHERE k <= 3 ON CONFLICT DO NOTHING;
INSERT INTO t SELECT other, v, 1 FROM s WHERE k <= 3 ON CONFLICT (k, v) DO UPDATE SET n = excluded.n + t.n RETURNING *;
INSERT INTO t AS x (k, v) SELECT 500, 'once' UNION ALL SELECT 500, 'once' ON CONFLICT (k, v) DO UPDATE SET n = 1;
INSERT INTO t (k, v) SELECT 1, 'v3';
INSERT INTO t (k, v, n) SELECT count(*), 'count', sum(k) FROM s RETURNING *;
INSERT INTO t (k, v) SELECT a.k, b.v FROM s a JOIN s b ON a.other = b.k WHERE a.k > 30;
INSERT INTO t (k, v) SELECT 300 + row_number() OVER (ORDER BY amount), v FROM s WHERE k < 6;
INSERT INTO t (k, v) (SELECT 400, 'a') UNION (SELECT 401, 'b') RETURNING k;
INSERT INTO t (k, v) VALUES (1 + 600, upper('x')), (601 * 2, 'y') RETURNING *;
INSERT INTO t (k, v) VALUES ((SELECT max(k) FROM s) + 700, 'sub'), (701, (SELECT v FROM s WHERE k = 2)) RETURNING *;
INSERT INTO t (k, n) SELECT k, k FROM s WHERE false RETURNING *;
INSERT INTO t (k, n) SELECT k, k FROM s WHERE k = 999;
INSERT INTO t (k, v) SELECT 1.5, 'rounded' RETURNING *;
INSERT INTO t (k, v) SELECT 'abc', 'not a number';
INSERT INTO t (k, v) SELECT 1, 2, 3, 4;
INSERT INTO t (k, nope) SELECT 1, 2;
INSERT INTO t (k, v) SELECT k, missing FROM s;
INSERT INTO t SELECT * FROM unnest(ARRAY[800, 801, 802], ARRAY['a', 'b', NULL], ARRAY[1, NULL, 3]) RETURNING *;
--@ bind: 5|bound
INSERT INTO t (k, v, n) SELECT k + 900, $2, $1 FROM s WHERE k <= $1 RETURNING *;
--@ bind: {950,951}|{x,y}
INSERT INTO t (k, v) SELECT * FROM unnest($1::int[], $2::text[]) RETURNING *;
INSERT INTO t (k, v) TABLE r;
SELECT count(*), sum(k), sum(n), count(v) FROM t;
SELECT * FROM t ORDER BY k, v, n;
-- Numbers and defaults of the table that is filled.
INSERT INTO big (k, v) SELECT k, v FROM s WHERE k <= 5 ORDER BY k;
SELECT * FROM big ORDER BY id;
INSERT INTO big (k, v) SELECT k, v || v FROM s WHERE k > 30;
INSERT INTO big (k) SELECT k FROM s WHERE k > 30;
INSERT INTO big (k, at) VALUES (1, current_date), (2, DEFAULT) RETURNING k, at = current_date;
INSERT INTO big (id, k) SELECT nextval('big_id_seq'), k FROM s WHERE k = 3 RETURNING k;
SELECT count(*), count(DISTINCT id), min(id), max(at) IS NOT NULL FROM big;
SELECT k, v, at FROM big WHERE k <= 40 AND v IS NOT NULL ORDER BY k, v;
-- Reference tables.
INSERT INTO r (id, v) SELECT k, v FROM s WHERE k <= 5;
INSERT INTO r (id, v) SELECT k, 'again' FROM s WHERE k <= 2 ON CONFLICT (id) DO UPDATE SET v = excluded.v RETURNING id, v;
INSERT INTO r VALUES (10, now()::date::text || 'x', 0.5) RETURNING id, luck;
INSERT INTO r (id, v) SELECT id + 20, v FROM r WHERE id < 3 RETURNING id, v;
INSERT INTO r (id, v) SELECT 1, 'double';
SELECT id, v, luck BETWEEN 0 AND 1 FROM r WHERE id <> 10 ORDER BY id;
SELECT count(DISTINCT luck) FROM r WHERE id < 6;
-- Tables at home.
INSERT INTO h (k, v) SELECT k, v FROM s WHERE k <= 4 ORDER BY k;
INSERT INTO h (k) SELECT count(*) FROM s RETURNING id, k, v;
INSERT INTO h SELECT 50, other, 'x' FROM s WHERE k = 1 RETURNING *;
INSERT INTO h (k, v) SELECT k, v FROM s WHERE k = (SELECT max(k) FROM t WHERE k < 10);
SELECT * FROM h ORDER BY id, k;
-- In a transaction, its own changes count.
BEGIN;
INSERT INTO s VALUES (1000, 1000, 'own', 1);
INSERT INTO t (k, v) SELECT other + 1, v FROM s WHERE k = 1000 RETURNING *;
ROLLBACK;
SELECT count(*) FROM t WHERE k = 1001;
BEGIN;
INSERT INTO t (k, v) SELECT k + 2000, v FROM s;
SELECT count(*) FROM t WHERE k > 2000;
INSERT INTO t (k, v) SELECT 1, 'v3';
COMMIT;
SELECT count(*) FROM t WHERE k > 2000;
-- Subqueries of ON CONFLICT and RETURNING that every shard can answer.
DELETE FROM r;
INSERT INTO r VALUES (1, 'one', 0), (2, 'two', 0);
INSERT INTO s (k, v) VALUES (901, 'x') RETURNING k, (SELECT v FROM r WHERE id = 2);
INSERT INTO s (k, v) VALUES (902, 'x'), (903, 'y'), (904, 'z') RETURNING k, (SELECT count(*) FROM r);
INSERT INTO s (k, v) VALUES (902, 'a'), (903, 'b'), (905, 'c') ON CONFLICT (k) DO UPDATE SET v = excluded.v || (SELECT max(v) FROM r WHERE r.id <> s.k), other = (SELECT 7) RETURNING k, v, other;
INSERT INTO s (k, v) SELECT k + 3, v FROM s WHERE k > 900 ON CONFLICT (k) DO UPDATE SET v = (SELECT min(v) FROM r) RETURNING k, v, (SELECT v FROM r WHERE r.id = s.k - 900);
INSERT INTO s (k, v) VALUES (906, 'n') ON CONFLICT (k) DO UPDATE SET v = 'no' WHERE EXISTS (SELECT FROM r WHERE id = 77);
--@ bind: 910|two
INSERT INTO s (k, v) VALUES ($1, 'p') RETURNING (SELECT id FROM r WHERE v = $2);
--@ refused 0A000
INSERT INTO s (k, v) VALUES (911, 'x') RETURNING (SELECT count(*) FROM s);
--@ refused 0A000
INSERT INTO s (k, v) VALUES (911, 'x') ON CONFLICT (k) DO UPDATE SET v = (SELECT max(v) FROM t);
--@ refused 0A000
INSERT INTO s (k, v) VALUES (911, 'x') RETURNING (SELECT count(*) FROM h);
SELECT k, v, other FROM s WHERE k > 900 ORDER BY k;
