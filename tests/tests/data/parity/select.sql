-- What a client asks that has little to do with shards.
CREATE TABLE t (k int PRIMARY KEY, v text);
--@ router: SELECT create_distributed_table('t', 'k')
--@ setup
INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL);
SELECT 1;
SELECT 1 AS a, 'x' AS b, NULL AS c, true AS d, 1.5 AS e, ARRAY[1, 2] AS f, '{"a":1}'::json AS g;
SELECT;
VALUES (1, 'a'), (2, 'b');
SELECT * FROM generate_series(1, 3);
SELECT * FROM (VALUES (1, 'x'), (2, 'y')) AS v (a, b) ORDER BY a;
SELECT current_database() = current_database();
SELECT version() IS NOT NULL;
SELECT relname FROM pg_class WHERE relname = 't';
SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 't' ORDER BY ordinal_position;
SELECT 't'::regclass::text;
SELECT k, v, v IS NULL, coalesce(v, 'none'), length(v) FROM t ORDER BY k;
SELECT k, CASE k WHEN 1 THEN 'one' ELSE 'more' END FROM t ORDER BY k;
SELECT k::text || v FROM t ORDER BY k;
SELECT (k, v) FROM t WHERE k = 1;
SELECT ROW(k, v) = ROW(1, 'a') FROM t WHERE k = 1;
SELECT array_length(ARRAY[k], 1) FROM t;
SELECT k FROM t WHERE v ~ '^[a-b]$' ORDER BY k;
SELECT k FROM t WHERE v SIMILAR TO 'a|b' ORDER BY k;
SELECT k FROM t WHERE (v = 'a') IS NOT TRUE ORDER BY k;
SELECT k FROM t WHERE v IS DISTINCT FROM 'a' ORDER BY k;
SELECT k FROM t WHERE k <> ALL (ARRAY[1, 2]);
SELECT k FROM t WHERE NOT k = 1 ORDER BY k;
SELECT k FROM t WHERE k = 1 OR v = 'b' ORDER BY k;
SELECT k FROM t WHERE (k = 1 AND v = 'a') OR (k = 2 AND v = 'b') ORDER BY k;
SELECT k FROM t WHERE k = (SELECT 2);
SELECT k FROM t WHERE k = (SELECT 1 + 1) ORDER BY k;
SELECT 'k = 1' FROM t WHERE k = 2;
SELECT k FROM t WHERE k = 1 FOR UPDATE;
SELECT k FROM t WHERE k = 1 FOR NO KEY UPDATE;
SELECT k FROM t WHERE k = 1 FOR KEY SHARE;
SELECT k FROM t WHERE k = 1 FOR SHARE SKIP LOCKED;
SELECT k FROM t ORDER BY k FOR UPDATE;
TABLE t;
SELECT ALL k FROM t WHERE k = 1;
SELECT DISTINCT v FROM t WHERE k = 1;
SELECT "k" FROM "t" WHERE "k" = 1;
select K from T where K = 1;
--@ refused 0A000
SELECT k FROM ONLY t WHERE k = 1;
--@ refused 0A000
SELECT k FROM t TABLESAMPLE SYSTEM (100) WHERE k = 1;
--@ refused 0A000
SELECT x.y FROM t AS x (y, z) WHERE x.y = 2;
--@ refused 0A000
SELECT * FROM t AS x (y, z) ORDER BY y;
SELECT t.k, s.g FROM t, generate_series(1, 2) AS s (g) WHERE t.k = 1 ORDER BY 2;
SELECT t.k, s.g FROM t, generate_series(1, 2) AS s (g) ORDER BY 1, 2;
SELECT t.k, l.x FROM t, LATERAL (SELECT t.k * 2 AS x) l ORDER BY 1;
SELECT 1 WHERE EXISTS (SELECT 1 FROM t WHERE k = 1);
WITH x AS (SELECT 1 AS a) SELECT * FROM x;
WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n;
SELECT count(*) FROM t t1 JOIN t t2 ON t1.k = t2.k;
SELECT now() = now(), now() - now();
SELECT pg_backend_pid() > 0;
LISTEN channel;
UNLISTEN channel;
NOTIFY channel;
LOCK TABLE t;
LOCK TABLE t; SELECT 1;
BEGIN;
LOCK TABLE t IN SHARE MODE;
COMMIT;
BEGIN;
DECLARE c CURSOR FOR SELECT k FROM t WHERE k = 1;
ROLLBACK;
DO $$ BEGIN PERFORM 1; END $$;
--@ known-difference: the plan says which shards it is for
EXPLAIN (COSTS off) SELECT 1;
