-- Errors reach the client as from one server.
CREATE TABLE t (k int PRIMARY KEY, v text NOT NULL, n int CHECK (n > 0), u int);
--@ router: SELECT create_distributed_table('t', 'k')
--@ setup
INSERT INTO t VALUES (1, 'a', 1, 1), (2, 'b', 2, 2), (3, 'c', 3, 3);
INSERT INTO t VALUES (1, 'a', 1, 1);
INSERT INTO t VALUES (5, NULL, 1, 1);
INSERT INTO t VALUES (5, 'x', -1, 1);
INSERT INTO t VALUES ('five', 'x', 1, 1);
INSERT INTO t VALUES (5, 'x', 'one', 1);
INSERT INTO t VALUES (3000000000, 'x', 1, 1);
UPDATE t SET v = NULL WHERE k = 1;
UPDATE t SET v = CASE WHEN k = 2 THEN NULL ELSE v END;
UPDATE t SET n = 0 WHERE k = 2;
SELEC 1;
SELECT FROM WHERE;
--@ known-difference: refused before PostgreSQL can say what is wrong
SELECT * FROM t WHERE;
--@ known-difference: refused before PostgreSQL can say what is wrong
SELECT * FROM t WHERE k = ;
SELECT 1 +;
SELECT * FROM nothing;
SELECT * FROM nothing.t;
SELECT nothing FROM t;
SELECT nothing FROM t WHERE k = 1;
SELECT t.nothing FROM t WHERE k = 1;
SELECT x.k FROM t WHERE k = 1;
SELECT k FROM t AS a, t AS b WHERE a.k = 1 AND b.k = 1;
SELECT 1 / 0;
SELECT 1 / 0 FROM t WHERE k = 1;
SELECT n / (n - n) FROM t;
--@ known-difference: rows that PostgreSQL sends before the error are not sent
SELECT k / (n - 2) FROM t ORDER BY k;
SELECT 'abc'::int;
SELECT v::int FROM t WHERE k = 1;
SELECT v::int FROM t WHERE v = 'b';
SELECT v + 1 FROM t WHERE k = 1;
SELECT v + 1 FROM t;
SELECT nofunction(k) FROM t WHERE k = 1;
--@ known-difference: refused before PostgreSQL can say what is wrong
SELECT nofunction(k) FROM t;
SELECT sum(v) FROM t;
--@ known-difference: refused before PostgreSQL can say what is wrong
SELECT k, count(*) FROM t;
--@ known-difference: refused before PostgreSQL can say what is wrong
SELECT k FROM t GROUP BY v;
SELECT v FROM t WHERE k = 'x';
SELECT * FROM t WHERE v;
SELECT * FROM t WHERE v = 1;
--@ known-difference: refused before PostgreSQL can say what is wrong
SELECT * FROM t LIMIT -1;
SELECT * FROM t WHERE k = 1 LIMIT -1;
--@ known-difference: refused before PostgreSQL can say what is wrong
SELECT * FROM t ORDER BY 9;
SELECT count(*) FROM t WHERE count(*) > 1;
SELECT (SELECT k FROM t WHERE n > 0 AND k = 1), (SELECT 1 UNION ALL SELECT 2);
SELECT 2147483647 + 1;
SELECT k + 2147483647 FROM t WHERE k = 1;
SELECT k + 2147483647 FROM t;
SELECT $1;
SELECT * FROM t WHERE k = $1;
CREATE TABLE t (k int);
DROP TABLE nothing;
--@ known-difference: notices of DDL on all shards are lost
DROP TABLE IF EXISTS nothing;
ALTER TABLE nothing ADD x int;
ALTER TABLE t ADD v int;
CREATE INDEX i ON t (nothing);
--@ known-difference: the message names SAVEPOINT instead of RELEASE SAVEPOINT
RELEASE x;
EXECUTE nothing;
DEALLOCATE nothing;
SET nothing = 1;
--@ known-difference[text binary]: a description of columns is sent before the error
SHOW nothing;
SET work_mem = 'abc';
FETCH 1 FROM nothing;
CLOSE nothing;
TRUNCATE nothing;
SELECT 'after all of this' AS alive;
