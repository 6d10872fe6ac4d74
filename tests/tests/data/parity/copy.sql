-- COPY.
CREATE TABLE t (k int PRIMARY KEY, v text, n numeric);
CREATE TABLE home (a int, b text);
CREATE TABLE r (id int PRIMARY KEY, v text);
--@ router: SELECT create_distributed_table('t', 'k')
--@ router: SELECT create_reference_table('r')
COPY t FROM STDIN;
1	one	1.5
2	\N	\N
3	tab\there	3
4	back\\slash	-4
5		5
\.
SELECT * FROM t ORDER BY k;
COPY t (v, k) FROM STDIN;
six	6
seven	7
\.
SELECT * FROM t WHERE k > 5 ORDER BY k;
COPY t FROM STDIN;
8	eight	8
1	again	1
\.
SELECT count(*) FROM t;
COPY t FROM STDIN;
9	nine
\.
COPY t FROM STDIN;
nine	nine	9
\.
COPY t FROM STDIN;
\N	nine	9
\.
COPY t FROM STDIN;
\.
COPY nothing FROM STDIN;
1
\.
COPY t (nothing) FROM STDIN;
1
\.
SELECT count(*) FROM t;
COPY home FROM STDIN WITH (FORMAT csv);
1,"a, b"
2,
\.
SELECT * FROM home ORDER BY a;
COPY home TO STDOUT;
COPY (SELECT a FROM home ORDER BY a) TO STDOUT WITH CSV HEADER;
COPY r FROM STDIN;
1	a
2	b
\.
SELECT * FROM r ORDER BY id;
BEGIN;
COPY t FROM STDIN;
20	x	1
21	y	2
22	z	3
\.
SELECT count(*) FROM t;
ROLLBACK;
SELECT count(*) FROM t;
COPY t FROM STDIN WITH (DELIMITER '|', NULL 'nil');
30|a|nil
31|nil|1
\.
SELECT * FROM t WHERE k >= 30 ORDER BY k;
COPY t TO STDOUT;
--@ known-difference: the error has no position
COPY t TO STDOUT WITH (FORMAT nonsense);
COPY (SELECT k, v FROM t WHERE k = 1) TO STDOUT;
-- Rows of several shards, sorted, limited, added up or joined.
COPY (SELECT k, v FROM t ORDER BY k DESC LIMIT 4) TO STDOUT;
COPY (SELECT count(*), max(v) FROM t) TO STDOUT WITH (FORMAT csv, HEADER);
COPY (SELECT a.k, b.v FROM t a JOIN t b ON b.k = a.k + 1 ORDER BY a.k) TO STDOUT CSV FORCE QUOTE v;
COPY (SELECT nothing FROM t ORDER BY k) TO STDOUT;
BEGIN;
INSERT INTO t (k, v) VALUES (70, 'own');
COPY (SELECT k, v FROM t WHERE k > 60 ORDER BY k) TO STDOUT;
COPY (SELECT sum(1 / (k - 70)) FROM t) TO STDOUT;
ROLLBACK;
