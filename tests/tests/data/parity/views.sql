-- Views, functions and defaults.
CREATE TABLE t (k int PRIMARY KEY, v text, at timestamptz DEFAULT now(), n int GENERATED ALWAYS AS (k * 2) STORED);
CREATE TABLE home (a int);
--@ router: SELECT create_distributed_table('t', 'k')
--@ setup
INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd');
INSERT INTO home VALUES (1), (2);
SELECT k, n, at IS NOT NULL FROM t ORDER BY k;
CREATE VIEW vt AS SELECT k, v FROM t;
--@ refused 0A000
SELECT * FROM vt ORDER BY k;
--@ refused 0A000
SELECT * FROM vt WHERE k = 1;
--@ refused 0A000
SELECT count(*) FROM vt;
--@ refused 0A000
UPDATE vt SET v = 'changed' WHERE k = 1;
--@ refused 0A000
INSERT INTO vt VALUES (9, 'through the view');
CREATE VIEW vh AS SELECT a FROM home;
SELECT * FROM vh ORDER BY a;
INSERT INTO vh VALUES (3);
SELECT count(*) FROM home;
CREATE FUNCTION plus_one(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i + 1';
SELECT plus_one(1);
SELECT plus_one(k) FROM t WHERE k = 1;
SELECT v FROM t WHERE k = plus_one(1);
CREATE FUNCTION rows_of_t() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM t';
--@ refused 0A000
SELECT rows_of_t();
--@ refused 0A000
SELECT k FROM t WHERE k = 1 AND rows_of_t() > 1;
CREATE FUNCTION twice_the_rows() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN 2 * rows_of_t(); END';
--@ refused 0A000
SELECT twice_the_rows();
CREATE VIEW counted AS SELECT twice_the_rows() AS n;
--@ refused 0A000
SELECT n FROM counted;
CREATE PROCEDURE empty_t() LANGUAGE sql AS 'DELETE FROM t';
--@ refused 0A000
CALL empty_t();
CREATE FUNCTION sum_of_home() RETURNS bigint LANGUAGE sql AS 'SELECT sum(a) FROM home';
SELECT sum_of_home();
DROP VIEW counted;
DROP PROCEDURE empty_t();
DROP FUNCTION twice_the_rows();
DROP FUNCTION sum_of_home();
DROP FUNCTION plus_one(int);
DROP FUNCTION rows_of_t();
CREATE TABLE s (id serial PRIMARY KEY, v text);
INSERT INTO s (v) VALUES ('a') RETURNING id;
BEGIN;
INSERT INTO s (v) VALUES ('b'), ('c') RETURNING id;
SELECT currval('s_id_seq');
SELECT lastval();
COMMIT;
SELECT * FROM s ORDER BY id;
CREATE TABLE ids (k int PRIMARY KEY, id bigint GENERATED ALWAYS AS IDENTITY, v text);
--@ router: SELECT create_distributed_table('ids', 'k')
INSERT INTO ids (k, v) VALUES (1, 'a');
INSERT INTO ids (k, v) VALUES (2, 'b');
INSERT INTO ids (k, v) VALUES (3, 'c');
INSERT INTO ids (k, v) VALUES (4, 'd');
SELECT count(DISTINCT id) FROM ids WHERE k IN (1, 2, 3, 4);
SELECT count(*) FROM ids WHERE id = 1;
CREATE TABLE auto (id serial PRIMARY KEY, v text);
--@ router: SELECT create_distributed_table('auto', 'id')
INSERT INTO auto (v) VALUES ('a') RETURNING id;
INSERT INTO auto (v) VALUES ('b') RETURNING id;
INSERT INTO auto VALUES (DEFAULT, 'c') RETURNING id;
SELECT id, v FROM auto ORDER BY id;
CREATE TABLE parent (k int, id int, PRIMARY KEY (k, id));
CREATE TABLE child (k int, id int, parent_id int, PRIMARY KEY (k, id), FOREIGN KEY (k, parent_id) REFERENCES parent (k, id) ON DELETE CASCADE);
--@ router: SELECT create_distributed_table('parent', 'k')
--@ router: SELECT create_distributed_table('child', 'k', colocate_with => 'parent')
INSERT INTO parent VALUES (1, 1);
INSERT INTO child VALUES (1, 1, 1);
INSERT INTO child VALUES (1, 2, 99);
DELETE FROM parent WHERE k = 1;
SELECT count(*) FROM child;
CREATE TABLE u (k int PRIMARY KEY, other int UNIQUE);
SELECT 'checks' AS what;
