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
-- What a write returns.
COPY (UPDATE t SET n = n + 1 WHERE k < 8 RETURNING k, v, n) TO STDOUT;
COPY (UPDATE t SET n = 0 WHERE k = 3 RETURNING k AS "a b", n) TO STDOUT (FORMAT csv, HEADER);
COPY (UPDATE t SET n = 0 WHERE k IN (3, 4, 333) RETURNING k AS "a b", n) TO STDOUT (FORMAT csv, HEADER);
COPY (UPDATE t SET n = 0 WHERE v = 'nobody' RETURNING k AS "a b", n) TO STDOUT (FORMAT csv, HEADER);
COPY (DELETE FROM t WHERE v LIKE 's%' RETURNING v) TO STDOUT CSV FORCE QUOTE *;
COPY (INSERT INTO t VALUES (201, 'a b', 1), (202, NULL, NULL), (203, 'c', 3) RETURNING *) TO STDOUT (DELIMITER '|', NULL 'nix');
COPY (INSERT INTO t VALUES (204, 'four', 4) RETURNING v, k) TO STDOUT;
COPY (INSERT INTO t SELECT k + 300, v, n FROM t WHERE k > 200 RETURNING k, v AS "v w") TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE ("v w"));
COPY (INSERT INTO t VALUES (201, 'a b', 1), (205, 'new', 5) ON CONFLICT (k) DO UPDATE SET v = 'again' RETURNING k, v) TO STDOUT;
COPY (INSERT INTO r VALUES (50, 'fifty') RETURNING *) TO STDOUT;
COPY (UPDATE r SET v = v || '!' RETURNING id, v) TO STDOUT;
COPY (WITH gone AS (DELETE FROM t WHERE k > 500 RETURNING k) SELECT count(*) FROM gone) TO STDOUT;
COPY (WITH few AS (SELECT 2 AS k) UPDATE t SET v = 'few' FROM few WHERE t.k > 200 RETURNING t.k, few.k) TO STDOUT;
COPY (DELETE FROM t USING t o WHERE o.k = t.k + 1 AND t.k > 202 RETURNING t.k, o.v) TO STDOUT;
COPY (UPDATE t SET n = 1) TO STDOUT;
COPY (INSERT INTO t SELECT k + 900, v, n FROM t) TO STDOUT;
COPY (UPDATE t SET n = 1 / (k - 5) WHERE k + 0 = 5 RETURNING k) TO STDOUT;
COPY (UPDATE t SET nothing = 1 RETURNING k) TO STDOUT;
COPY (INSERT INTO t VALUES (2, 'dup', 1), (206, 'x', 1) RETURNING *) TO STDOUT;
BEGIN;
COPY (DELETE FROM t RETURNING k) TO STDOUT;
SELECT count(*) FROM t;
ROLLBACK;
SELECT * FROM t ORDER BY k;
SELECT * FROM r ORDER BY id;
