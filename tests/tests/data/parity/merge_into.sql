-- MERGE on one shard, and on every shard by itself.
CREATE TABLE t (k int PRIMARY KEY, v text, n int DEFAULT 0);
CREATE TABLE s (k int PRIMARY KEY, v text);
CREATE TABLE far (id int PRIMARY KEY, k int, v text);
CREATE TABLE ref (k int PRIMARY KEY, v text);
CREATE TABLE plain (k int, v text);
--@ router: SELECT create_distributed_table('t', 'k')
--@ router: SELECT create_distributed_table('s', 'k', colocate_with => 't')
--@ router: SELECT create_distributed_table('far', 'id')
--@ router: SELECT create_reference_table('ref')
--@ setup
INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd');
INSERT INTO s VALUES (2, 'B'), (3, 'C'), (5, 'E'), (6, 'F'), (7, 'G');
INSERT INTO ref VALUES (1, 'r1'), (4, 'r4'), (9, 'r9');
INSERT INTO plain VALUES (1, 'p');
INSERT INTO far VALUES (1, 1, 'far');
MERGE INTO t USING s ON t.k = s.k WHEN MATCHED THEN UPDATE SET v = s.v, n = n + 1 WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v);
SELECT * FROM t ORDER BY k;
MERGE INTO t AS x USING s AS y ON x.k = y.k WHEN MATCHED AND y.k = 2 THEN DELETE WHEN MATCHED THEN DO NOTHING;
SELECT * FROM t ORDER BY k;
MERGE INTO t USING ref ON t.k = ref.k WHEN MATCHED THEN UPDATE SET v = ref.v;
SELECT * FROM t ORDER BY k;
-- One key.
MERGE INTO t USING (SELECT 8 AS k, 'one'::text AS v) AS s ON t.k = 8 WHEN MATCHED THEN UPDATE SET v = s.v, n = n + 1 WHEN NOT MATCHED THEN INSERT (k, v) VALUES (8, s.v);
MERGE INTO t USING (SELECT 8 AS k, 'two'::text AS v) AS s ON t.k = 8 WHEN MATCHED THEN UPDATE SET v = s.v, n = n + 1 WHEN NOT MATCHED THEN INSERT (k, v) VALUES (8, s.v);
SELECT * FROM t WHERE k = 8;
--@ bind: 9|new
MERGE INTO t USING (SELECT 1) AS s ON t.k = $1 WHEN MATCHED THEN UPDATE SET v = $2 WHEN NOT MATCHED THEN INSERT (k, v, n) VALUES ($1, $2, 5);
SELECT * FROM t WHERE k = 9;
MERGE INTO t USING ref ON t.k = 9 AND ref.k = 9 WHEN MATCHED THEN DELETE;
SELECT * FROM t ORDER BY k;
--@ bind: NULL|of null
MERGE INTO t USING (SELECT 1) AS s ON t.k = $1 WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (k, v) VALUES (33, $2);
MERGE INTO t USING (SELECT 1) AS s ON t.k = NULL WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (k, v) VALUES (34, 'none');
--@ bind: NULL|x
MERGE INTO t USING (SELECT 1) AS s ON t.k = $1 WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND false THEN INSERT (k, v) VALUES (35, $2);
SELECT * FROM t WHERE k IN (33, 34);
-- Two source rows for one.
MERGE INTO t USING (VALUES ('x'), ('y')) AS s (v) ON t.k = 1 WHEN MATCHED THEN UPDATE SET v = s.v;
MERGE INTO t USING s ON t.k = s.k WHEN MATCHED THEN UPDATE SET nothing = 1;
-- The THEN of a CASE is not the clause's own.
MERGE INTO t USING s ON t.k = s.k WHEN MATCHED AND CASE WHEN s.k = 3 THEN true ELSE false END THEN UPDATE SET v = CASE WHEN s.k = 3 THEN 'three' END WHEN NOT MATCHED AND CASE s.k WHEN 2 THEN true ELSE false END THEN INSERT (k, v) VALUES (s.k, 'two');
SELECT * FROM t ORDER BY k;
--@ refused 0A000
MERGE INTO t USING s ON t.k = s.k WHEN NOT MATCHED AND CASE WHEN true THEN true ELSE false END THEN INSERT (k, v) VALUES (s.k + 100, 'elsewhere');
MERGE INTO t USING s ON t.k = s.k AND CASE WHEN s.k = 3 THEN true END OR true WHEN MATCHED THEN DO NOTHING;
-- A match could be on another shard.
MERGE INTO t USING far ON t.k = far.k WHEN MATCHED THEN UPDATE SET v = far.v;
MERGE INTO t USING ref ON t.k = ref.k WHEN NOT MATCHED THEN INSERT (k, v) VALUES (ref.k, ref.v);
SELECT * FROM t ORDER BY k;
--@ refused 0A000
MERGE INTO t USING s ON t.k = s.k WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k + 1, s.v);
MERGE INTO t USING s ON t.v = s.v WHEN MATCHED THEN DELETE;
SELECT * FROM t ORDER BY k;
--@ refused 0A000
MERGE INTO t USING s ON t.k = s.k WHEN MATCHED THEN UPDATE SET k = 3;
MERGE INTO t USING plain ON t.k = plain.k WHEN MATCHED THEN UPDATE SET v = plain.v;
SELECT * FROM t ORDER BY k;
MERGE INTO plain USING t ON t.k = plain.k WHEN MATCHED THEN UPDATE SET v = t.v WHEN NOT MATCHED AND t.k < 4 THEN INSERT (k, v) VALUES (t.k, t.v);
SELECT * FROM plain ORDER BY k, v;
-- Reference and home tables.
MERGE INTO ref USING (VALUES (1, 'one'), (10, 'ten')) AS s (k, v) ON ref.k = s.k WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.k, s.v);
SELECT * FROM ref ORDER BY k;
MERGE INTO plain USING ref ON plain.k = ref.k WHEN MATCHED THEN UPDATE SET v = ref.v WHEN NOT MATCHED THEN INSERT VALUES (ref.k, ref.v);
SELECT * FROM plain ORDER BY k;
BEGIN;
MERGE INTO t USING s ON t.k = s.k WHEN MATCHED THEN DELETE;
SELECT count(*) FROM t;
ROLLBACK;
SELECT * FROM t ORDER BY k;
-- A join as the source.
BEGIN;
MERGE INTO t USING s JOIN ref r ON r.k = s.k OR r.k = 1 ON t.k = s.k AND s.k > 2 WHEN MATCHED THEN UPDATE SET v = r.v || s.v;
SELECT * FROM t ORDER BY k;
MERGE INTO t AS x USING s AS a LEFT JOIN s AS b ON b.k = a.k AND b.k > 5 JOIN ref r ON r.k = 1 ON x.k = a.k WHEN MATCHED THEN UPDATE SET v = coalesce(b.v, 'none') WHEN NOT MATCHED THEN INSERT (k, v) VALUES (a.k, b.v);
SELECT * FROM t ORDER BY k;
MERGE INTO ONLY t USING s ON t.k = s.k WHEN MATCHED THEN DELETE;
SELECT * FROM t ORDER BY k;
ROLLBACK;
--@ refused 0A000
MERGE INTO t USING far JOIN plain ON far.k = plain.k ON t.k = far.k WHEN MATCHED THEN DELETE;
