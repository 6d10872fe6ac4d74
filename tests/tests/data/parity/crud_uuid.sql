-- Rows by a uuid key, in all of its spellings.
CREATE TABLE t (k uuid PRIMARY KEY, v text);
--@ router: SELECT create_distributed_table('t', 'k')
INSERT INTO t VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'a');
INSERT INTO t VALUES ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A12', 'b');
INSERT INTO t VALUES ('{a0eebc999c0b4ef8bb6d6bb9bd380a13}', 'c');
SELECT * FROM t WHERE k = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11';
SELECT * FROM t WHERE k = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11';
SELECT * FROM t WHERE k = '{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a12}';
SELECT * FROM t WHERE k = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13'::uuid;
SELECT * FROM t WHERE k = 'not a uuid';
INSERT INTO t VALUES ('not a uuid', 'd');
INSERT INTO t VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'again');
--@ bind: a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12
SELECT v FROM t WHERE k = $1;
--@ bind: nonsense
SELECT v FROM t WHERE k = $1;
SELECT * FROM t ORDER BY k;
UPDATE t SET v = 'z' WHERE k = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13';
DELETE FROM t WHERE k = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12' RETURNING v;
SELECT count(*) FROM t;
