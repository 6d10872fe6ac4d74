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
--@ known-difference: WRONG ANSWER: a function's body sees the home shard's rows only
SELECT rows_of_t();
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
--@ known-difference: sequences are per shard: a serial that is not the key repeats
SELECT count(DISTINCT id) FROM ids WHERE k IN (1, 2, 3, 4);
--@ known-difference: WRONG ANSWER: identity values repeat on other shards
SELECT count(*) FROM ids WHERE id = 1;
CREATE TABLE auto (id serial PRIMARY KEY, v text);
--@ router: SELECT create_distributed_table('auto', 'id')
--@ refused 0A000
INSERT INTO auto (v) VALUES ('a') RETURNING id;
--@ refused 0A000
INSERT INTO auto (v) VALUES ('b') RETURNING id;
--@ refused 0A000
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
