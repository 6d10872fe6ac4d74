-- UPDATE and DELETE without the key, and RETURNING.
CREATE TABLE t (k int, id int, v text, PRIMARY KEY (k, id));
--@ router: SELECT create_distributed_table('t', 'k')
--@ setup
INSERT INTO t VALUES (1, 1, 'a'), (1, 2, 'b'), (2, 1, 'c'), (3, 1, 'd'), (4, 1, 'e'), (5, 1, NULL);
UPDATE t SET v = v || '!' WHERE id = 1;
UPDATE t SET v = 'n' WHERE v IS NULL RETURNING k, id, v;
UPDATE t SET v = upper(v) RETURNING *;
UPDATE t SET v = 'x' WHERE id = 77;
UPDATE t SET v = 'x' WHERE id = 77 RETURNING k;
UPDATE t SET id = 3 WHERE k = 1 AND id = 1 RETURNING k, id;
UPDATE t SET id = 2 WHERE k = 1 AND id = 3;
UPDATE t SET v = DEFAULT WHERE k = 2;
UPDATE t SET (id, v) = (9, 'nine') WHERE k = 2;
UPDATE t AS x SET v = 'alias' WHERE x.k = 3;
UPDATE t SET v = (SELECT max(v) FROM t WHERE k = 4) WHERE k = 4;
SELECT * FROM t ORDER BY k, id;
UPDATE t SET k = 10 WHERE k = 1;
DELETE FROM t WHERE id = 2 RETURNING *;
DELETE FROM t WHERE k IN (3, 4) RETURNING k;
DELETE FROM t WHERE id = 77;
SELECT * FROM t ORDER BY k, id;
UPDATE nothing SET v = 1;
UPDATE t SET nothing = 1 WHERE k = 1;
UPDATE t SET v = 1 / 0 WHERE k = 1;
UPDATE t SET id = 1 / (id - id);
DELETE FROM t WHERE nothing = 1;
WITH gone AS (DELETE FROM t WHERE k = 5 RETURNING *) SELECT k, id FROM gone;
--@ bind: bound|1
UPDATE t SET v = $1 WHERE k = $2;
--@ bind: all
UPDATE t SET v = $1;
SELECT * FROM t ORDER BY k, id;
TRUNCATE t;
SELECT * FROM t;
-- ONLY.
UPDATE ONLY t SET v = 'only' WHERE k = 2 RETURNING k, id, v;
UPDATE ONLY t AS x SET v = v || '.' RETURNING x.k, x.id, x.v;
UPDATE ONLY public.t SET v = o.v FROM t o WHERE o.k = t.k + 1 AND t.id = 1 AND o.id = 1;
--@ refused 0A000
UPDATE ONLY public.t SET v = o.v FROM ONLY t o WHERE o.k = t.k + 1 AND t.id = 1;
DELETE FROM ONLY t WHERE id = 2 RETURNING k;
SELECT * FROM t ORDER BY k, id;
