-- PREPARE, EXECUTE and bound parameters.
CREATE TABLE t (k int PRIMARY KEY, v text, d date, j jsonb, a int[]);
--@ router: SELECT create_distributed_table('t', 'k')
PREPARE ins (int, text) AS INSERT INTO t (k, v) VALUES ($1, $2);
EXECUTE ins (1, 'one');
EXECUTE ins (2, 'two');
EXECUTE ins (1, 'again');
PREPARE get AS SELECT v FROM t WHERE k = $1;
EXECUTE get (1);
EXECUTE get ('2');
EXECUTE get (3);
EXECUTE get;
PREPARE get AS SELECT 1;
PREPARE total AS SELECT count(*), max(v) FROM t;
EXECUTE total;
PREPARE up (text) AS UPDATE t SET v = v || $1;
EXECUTE up ('!');
SELECT * FROM t ORDER BY k;
DEALLOCATE get;
EXECUTE get (1);
DEALLOCATE ALL;
EXECUTE total;
--@ bind: 10|bound
INSERT INTO t (k, v) VALUES ($1, $2);
--@ bind: 11|2024-02-29|{"a": [1, 2]}|{1,2,NULL}
INSERT INTO t (k, d, j, a) VALUES ($1, $2, $3, $4) RETURNING *;
--@ bind: 11
SELECT * FROM t WHERE k = $1;
--@ bind: 11
SELECT d + $1 AS later, j -> 'a', a[1], j ->> 'a' FROM t WHERE k = 11;
--@ bind: 1|2
SELECT v FROM t WHERE k IN ($1, $2);
--@ bind: {1,2}
SELECT k FROM t WHERE k = ANY ($1) ORDER BY k;
--@ bind: 5
SELECT $1::int + 1 AS six, pg_typeof($1);
--@ bind: bound
SELECT k FROM t WHERE v = $1;
--@ bind: 1|x
SELECT v FROM t WHERE k = $1 AND v <> $2;
--@ bind: 1
SELECT v FROM t WHERE k = $1 + 0;
--@ bind: 1
SELECT v FROM t WHERE $1 = k;
--@ bind: 1|1
SELECT v FROM t WHERE k = $1 AND k = $2;
--@ bind: 1|2
SELECT v FROM t WHERE k = $1 AND k = $2;
--@ bind: x
SELECT v FROM t WHERE k = $1;
--@ bind: 1
SELECT v FROM t WHERE k = $2;
--@ bind: 2024-01-01
SELECT k FROM t WHERE d > $1;
--@ bind: 1
DELETE FROM t WHERE k = $1 RETURNING k, v;
SELECT count(*) FROM t;
-- Statements whose columns a change of the schema has changed.
PREPARE all_of AS SELECT * FROM t ORDER BY k;
PREPARE one_of AS SELECT * FROM t WHERE k = $1;
PREPARE some_of AS SELECT k, v FROM t ORDER BY k;
PREPARE made AS UPDATE t SET v = v WHERE k = $1 RETURNING *;
ALTER TABLE t ADD COLUMN late int;
EXECUTE all_of;
EXECUTE one_of (2);
EXECUTE one_of (3);
EXECUTE made (2);
EXECUTE some_of;
EXECUTE all_of;
ALTER TABLE t DROP COLUMN late;
EXECUTE all_of;
EXECUTE one_of (2);
BEGIN;
ALTER TABLE t ALTER v TYPE varchar(50);
EXECUTE all_of;
ROLLBACK;
EXECUTE all_of;
BEGIN;
ALTER TABLE t RENAME v TO w;
EXECUTE all_of;
ROLLBACK;
EXECUTE some_of;
DEALLOCATE ALL;
