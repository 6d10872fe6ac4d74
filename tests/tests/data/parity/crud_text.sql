-- Rows by a text key, with the characters that break careless quoting.
CREATE TABLE t (k text PRIMARY KEY, v int);
--@ router: SELECT create_distributed_table('t', 'k')
INSERT INTO t VALUES ('a', 1);
INSERT INTO t VALUES ('', 2);
INSERT INTO t VALUES ('it''s', 3);
INSERT INTO t VALUES (E'tab\there', 4);
INSERT INTO t VALUES ($$dollar$$, 5);
INSERT INTO t VALUES ('back\slash', 6);
INSERT INTO t VALUES ('żółw', 7);
INSERT INTO t VALUES ('a ', 8);
INSERT INTO t VALUES ('con' || 'cat', 9);
SELECT * FROM t WHERE k = 'a';
SELECT * FROM t WHERE k = '';
SELECT * FROM t WHERE k = 'it''s';
SELECT * FROM t WHERE k = E'it\'s';
SELECT * FROM t WHERE k = E'tab\there';
SELECT * FROM t WHERE k = $x$dollar$x$;
SELECT * FROM t WHERE k = 'back\slash';
SELECT * FROM t WHERE k = 'żółw';
SELECT * FROM t WHERE k = U&'\017C\00F3\0142w';
SELECT * FROM t WHERE k = 'a ';
SELECT * FROM t WHERE k = 'a'::text;
SELECT * FROM t WHERE k = 'a'::varchar;
SELECT * FROM t WHERE k = 'concat';
SELECT * FROM t WHERE lower(k) = 'a';
SELECT * FROM t WHERE k LIKE 'a%';
SELECT v FROM t WHERE k = 'a' -- a comment; with a semicolon
;
SELECT /* a comment with k = 'b' */ v FROM t WHERE k = 'a';
UPDATE t SET v = v * 10 WHERE k = 'it''s' RETURNING *;
SELECT k, v FROM t ORDER BY v;
SELECT k FROM t ORDER BY k;
--@ bind: żółw
SELECT v FROM t WHERE k = $1;
--@ bind:  |
SELECT v FROM t WHERE k = $1 OR k = $2;
--@ bind: new|10
INSERT INTO t VALUES ($1, $2) RETURNING k, v;
--@ bind: new
DELETE FROM t WHERE k = $1;
CREATE TABLE c (k varchar(5) PRIMARY KEY, v int);
--@ router: SELECT create_distributed_table('c', 'k')
INSERT INTO c VALUES ('short', 1);
INSERT INTO c VALUES ('too long', 1);
-- PostgreSQL cuts the blanks that do not fit, and so changes the key.
--@ refused 0A000
INSERT INTO c VALUES ('pad      ', 1);
INSERT INTO c VALUES ('pad  ', 2);
SELECT * FROM c WHERE k = 'pad  ';
