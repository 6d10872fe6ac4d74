-- Integers of all widths and spellings.
CREATE TABLE t (k bigint PRIMARY KEY, v text);
--@ router: SELECT create_distributed_table('t', 'k')
INSERT INTO t VALUES (1, 'one');
INSERT INTO t VALUES (9223372036854775807, 'max');
INSERT INTO t VALUES (-9223372036854775808, 'min');
INSERT INTO t VALUES (9223372036854775808, 'too large');
INSERT INTO t VALUES (1.4, 'rounds to one');
INSERT INTO t VALUES (2.6, 'rounds to three');
INSERT INTO t VALUES (1e1, 'ten');
INSERT INTO t VALUES (' 5 ', 'spaces');
INSERT INTO t VALUES ('1.5', 'no integer');
SELECT * FROM t WHERE k = 3;
SELECT * FROM t WHERE k = 10;
SELECT * FROM t WHERE k = 1e1;
SELECT * FROM t WHERE k = 5;
SELECT * FROM t WHERE k = 1.0;
SELECT * FROM t WHERE k = 1.5;
SELECT * FROM t WHERE k = 9223372036854775807;
SELECT * FROM t WHERE k = -9223372036854775808;
SELECT * FROM t WHERE k = 9223372036854775808;
SELECT * FROM t WHERE k = 1::smallint;
SELECT * FROM t WHERE k = '007'::int - 6;
SELECT * FROM t WHERE k = 1::text::bigint;
SELECT * FROM t WHERE k::text = '1';
SELECT * FROM t WHERE k = true;
SELECT * FROM t WHERE k = 'abc';
--@ bind: 10
SELECT * FROM t WHERE k = $1;
--@ bind: 10
SELECT * FROM t WHERE k = $1::smallint;
--@ bind: 9.6
SELECT * FROM t WHERE k = $1::numeric::int;
--@ bind: abc
SELECT * FROM t WHERE k = $1;
--@ bind: NULL
SELECT * FROM t WHERE k = $1;
SELECT * FROM t ORDER BY k;
CREATE TABLE s (k smallint, v int);
--@ router: SELECT create_distributed_table('s', 'k')
--@ setup
INSERT INTO s VALUES (1, 1), (2, 2), (32767, 3);
INSERT INTO s VALUES (32768, 4);
SELECT * FROM s WHERE k = 40000;
SELECT * FROM s WHERE k = 2;
SELECT t.v, s.v FROM t JOIN s ON t.k = s.k ORDER BY 1;
