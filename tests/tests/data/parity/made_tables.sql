-- Tables made from queries over several shards, and temporary tables beside distributed ones.
CREATE TABLE t (k int PRIMARY KEY, g int, v numeric(8, 2), s varchar(20));
CREATE TABLE h (a int, b text);
--@ router: SELECT create_distributed_table('t', 'k')
INSERT INTO t SELECT i, i % 5, i * 1.25, 's' || i FROM generate_series(1, 60) i;
INSERT INTO h SELECT i, 'h' || i FROM generate_series(1, 10) i;
-- CREATE TABLE AS.
CREATE TABLE a AS SELECT k, g, v FROM t WHERE k < 20;
SELECT * FROM a ORDER BY k;
CREATE TABLE b (key, total) AS SELECT g, sum(v) FROM t GROUP BY g WITH DATA;
SELECT * FROM b ORDER BY key;
CREATE UNLOGGED TABLE c AS WITH x AS (SELECT g, max(s) AS s FROM t GROUP BY g) SELECT x.*, h.b FROM x JOIN h ON h.a = x.g;
SELECT * FROM c ORDER BY g;
CREATE TABLE d AS SELECT * FROM t WITH NO DATA;
SELECT * FROM d;
CREATE TABLE e AS SELECT * FROM t WHERE k = 3;
SELECT * FROM e;
CREATE TABLE f AS TABLE t;
SELECT count(*), sum(v) FROM f;
CREATE TABLE a AS SELECT k FROM t;
CREATE TABLE z AS SELECT k, nothing FROM t;
CREATE TABLE z AS SELECT k / 0 AS k FROM t;
SELECT * FROM z;
CREATE TABLE IF NOT EXISTS a AS SELECT k FROM t;
CREATE TABLE IF NOT EXISTS public.a AS SELECT k + 1 AS more FROM t;
CREATE TABLE IF NOT EXISTS a AS SELECT nothing FROM t;
CREATE TABLE IF NOT EXISTS a2 AS SELECT k, s FROM t WHERE k < 9;
CREATE TABLE IF NOT EXISTS public.a3 AS SELECT count(*) AS n FROM t WITH DATA;
CREATE TEMP TABLE IF NOT EXISTS a4 AS SELECT max(k) AS n FROM t;
CREATE TEMP TABLE IF NOT EXISTS a4 AS SELECT min(k) AS n FROM t;
SELECT * FROM a2 ORDER BY k;
SELECT a3.n, a4.n FROM a3, a4;
BEGIN;
CREATE TABLE IF NOT EXISTS a5 AS SELECT k FROM t WHERE k < 4;
CREATE TABLE IF NOT EXISTS a5 AS SELECT k FROM t;
SELECT count(*) FROM a5;
ROLLBACK;
DROP TABLE a4;
SELECT count(*) FROM a;
SELECT k, rank() OVER (ORDER BY v DESC) AS place INTO r FROM t WHERE g = 1;
SELECT * FROM r ORDER BY place;
SELECT k, s INTO UNLOGGED TABLE r2 FROM t ORDER BY k LIMIT 3;
SELECT * FROM r2 ORDER BY k;
-- In a transaction, and rolled back.
BEGIN;
CREATE TABLE q AS SELECT g, count(*) AS n FROM t GROUP BY g;
INSERT INTO q SELECT 9, count(*) FROM t;
SELECT * FROM q ORDER BY g;
ROLLBACK;
SELECT * FROM q;
BEGIN;
CREATE TABLE q AS SELECT g, count(*) AS n FROM t GROUP BY g;
COMMIT;
SELECT * FROM q ORDER BY g;
-- Temporary ones.
CREATE TEMP TABLE ta AS SELECT k, g FROM t WHERE k % 2 = 0;
SELECT count(*), sum(k) FROM ta;
SELECT k, s INTO TEMP tb FROM t WHERE g = 2;
SELECT * FROM tb ORDER BY k;
CREATE TEMP TABLE tc (n int, label text DEFAULT 'made', PRIMARY KEY (n));
INSERT INTO tc (n) SELECT k FROM t WHERE k BETWEEN 5 AND 9;
INSERT INTO tc SELECT k, s FROM t WHERE k BETWEEN 8 AND 12 ON CONFLICT (n) DO UPDATE SET label = excluded.label RETURNING *;
SELECT * FROM tc ORDER BY n;
INSERT INTO pg_temp.tc SELECT 100 + k, s FROM t WHERE k = 1 RETURNING n, label;
-- Joined with distributed tables.
SELECT t.k, tc.label FROM t JOIN tc ON tc.n = t.k ORDER BY 1;
SELECT t.k, x.label FROM t LEFT JOIN tc AS x ON x.n = t.k WHERE t.k < 8 ORDER BY 1;
SELECT g, count(*) FROM t WHERE k IN (SELECT n FROM tc) GROUP BY g ORDER BY g;
SELECT count(*) FROM t, pg_temp.tc AS tc WHERE tc.n > t.k;
SELECT tc.n, (SELECT count(*) FROM t WHERE t.k < tc.n) FROM tc ORDER BY 1;
SELECT t.k, h.b, tc.label FROM t JOIN h ON h.a = t.k JOIN tc ON tc.n = t.k ORDER BY 1;
SELECT k FROM t EXCEPT SELECT n FROM tc ORDER BY 1 LIMIT 5;
WITH few AS (SELECT * FROM tc WHERE n < 8) SELECT few.n, t.v FROM few JOIN t ON t.k = few.n ORDER BY 1;
SELECT * FROM t WHERE k = 7 AND EXISTS (SELECT FROM tc WHERE n = t.k);
INSERT INTO t SELECT n + 1000, 7, 1, label FROM tc WHERE n < 7;
INSERT INTO t SELECT tc.n + 2000, t.g, t.v, tc.label FROM tc JOIN t ON t.k = tc.n WHERE tc.n < 7;
SELECT * FROM t WHERE k > 1000 ORDER BY k;
UPDATE t SET s = tc.label FROM tc WHERE tc.n = t.k AND t.k < 9;
DELETE FROM t USING tc WHERE t.k = tc.n + 1000;
SELECT k, s FROM t WHERE k < 9 OR k > 1000 ORDER BY k;
BEGIN;
INSERT INTO tc VALUES (20, 'open');
SELECT t.k, tc.label FROM t JOIN tc ON tc.n = t.k WHERE tc.n > 9 ORDER BY 1;
ROLLBACK;
CREATE TEMP VIEW tv AS SELECT n, upper(label) AS label FROM tc;
SELECT t.k, tv.label FROM t JOIN tv ON tv.n = t.k WHERE t.k < 7 ORDER BY 1;
BEGIN;
CREATE TEMP TABLE td ON COMMIT DROP AS SELECT k FROM t WHERE k < 4;
SELECT count(*) FROM td JOIN t USING (k);
COMMIT;
SELECT * FROM td;
-- The new table must not hide what its query reads.
--@ refused 0A000
CREATE TEMP TABLE t AS SELECT * FROM t;
CREATE TEMP TABLE t AS SELECT k, g AS t FROM public.t WHERE k < 9;
SELECT count(*), sum(k) FROM t;
DROP TABLE pg_temp.t;
--@ refused 0A000
SELECT k INTO TEMP t FROM t;
-- MERGE reads the session's own, too.
MERGE INTO t USING tc ON t.k = tc.n WHEN MATCHED THEN UPDATE SET s = tc.label;
SELECT k, s FROM t WHERE k < 13 ORDER BY k;
MERGE INTO t USING (SELECT tc.n, u.g FROM tc JOIN t u ON u.k = tc.n) AS x ON t.k = x.n WHEN MATCHED THEN UPDATE SET g = x.g + 1;
SELECT k, g FROM t WHERE k < 13 ORDER BY k;
CREATE TEMP TABLE te (id serial, k int);
--@ refused 0A000
INSERT INTO te (k) SELECT k FROM t;
DISCARD TEMP;
SELECT * FROM tc;
-- Of prepared statements, whose arguments become a part of the query.
PREPARE of_all(int, text) AS SELECT k, $2 || '-' || k AS label, $1 AS n FROM t WHERE k < $1;
CREATE TABLE mx AS EXECUTE of_all(4, 'it''s');
SELECT * FROM mx ORDER BY k;
SELECT pg_typeof(n), pg_typeof(label) FROM mx LIMIT 1;
CREATE TABLE my (a, b) AS EXECUTE of_all(2 + 1, NULL) WITH NO DATA;
SELECT * FROM my;
CREATE TABLE mx AS EXECUTE of_all(4, 'x');
CREATE TABLE mz AS EXECUTE of_all(4);
CREATE TABLE mz AS EXECUTE of_none(4);
PREPARE of_none AS VALUES (1, 'one $1'), (2, 'two') -- with a comment
;
CREATE TEMP TABLE mz AS EXECUTE of_none WITH DATA;
CREATE TABLE IF NOT EXISTS mx AS EXECUTE of_none;
SELECT * FROM mz ORDER BY 1;
PREPARE of_write AS INSERT INTO mx VALUES (9, 'nine', 9) RETURNING k;
CREATE TABLE mw AS EXECUTE of_write;
BEGIN;
CREATE TABLE mw AS EXECUTE of_none;
SELECT count(*) FROM mw;
ROLLBACK;
SELECT count(*) FROM mw;
DEALLOCATE ALL;
DROP TABLE mz;
DROP TABLE mx, my;
