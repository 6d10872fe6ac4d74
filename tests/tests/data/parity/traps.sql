-- Statements that are wrong when they are run on each shard and glued together.
CREATE TABLE a (k int PRIMARY KEY, v int, s text);
CREATE TABLE b (k int PRIMARY KEY, v int);
CREATE TABLE ref (id int PRIMARY KEY, name text);
CREATE TABLE none (k int PRIMARY KEY, v int);
--@ router: SELECT create_distributed_table('a', 'k')
--@ router: SELECT create_distributed_table('b', 'k', colocate_with => 'a')
--@ router: SELECT create_distributed_table('none', 'k', colocate_with => 'a')
--@ router: SELECT create_reference_table('ref')
--@ setup
INSERT INTO a VALUES (1, 10, 'x'), (2, 20, 'y'), (3, NULL, 'z'), (4, 40, NULL), (5, 50, 'x'), (6, 10, 'y');
--@ setup
INSERT INTO b VALUES (1, 1), (2, NULL), (7, 7), (8, 10);
--@ setup
INSERT INTO ref VALUES (10, 'ten'), (20, 'twenty'), (99, 'nothing');
SELECT r.name, a.k FROM ref r LEFT JOIN a ON a.v = r.id ORDER BY 1, 2;
SELECT a.k, r.name FROM a RIGHT JOIN ref r ON a.v = r.id ORDER BY 2, 1;
SELECT a.k, r.name FROM a LEFT JOIN ref r ON a.v = r.id ORDER BY 1;
SELECT a.k, r.name FROM a LEFT JOIN ref r ON true ORDER BY 1, 2;
SELECT r.name, n.k FROM ref r LEFT JOIN none n ON true ORDER BY 1;
SELECT count(*) FROM ref;
SELECT count(*) FROM ref, a;
SELECT count(*) FROM ref r1, ref r2;
SELECT r.name FROM ref r WHERE NOT EXISTS (SELECT 1 FROM a WHERE a.v = r.id);
SELECT r.name FROM ref r WHERE EXISTS (SELECT 1 FROM a WHERE a.v = r.id) ORDER BY 1;
SELECT r.name FROM ref r WHERE r.id IN (SELECT v FROM a) ORDER BY 1;
SELECT r.name FROM ref r WHERE r.id NOT IN (SELECT v FROM a);
SELECT a.k FROM a WHERE a.v IN (SELECT id FROM ref) ORDER BY 1;
SELECT a.k FROM a WHERE a.v NOT IN (SELECT id FROM ref) ORDER BY 1;
SELECT a.k FROM a WHERE a.k NOT IN (SELECT k FROM b) ORDER BY 1;
SELECT a.k FROM a WHERE a.v = (SELECT max(v) FROM a);
SELECT a.k, (SELECT count(*) FROM b) FROM a ORDER BY 1;
SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b);
SELECT EXISTS (SELECT 1 FROM a WHERE v = 40);
SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM a WHERE v = 40);
SELECT count(*) FROM (SELECT DISTINCT v FROM a) x;
SELECT count(*) FROM (SELECT v FROM a GROUP BY v) x;
SELECT max(c) FROM (SELECT v, count(*) AS c FROM a GROUP BY v) x;
SELECT * FROM (SELECT k FROM a ORDER BY k LIMIT 2) x;
SELECT * FROM (SELECT count(*) AS c FROM a) x;
SELECT k FROM a ORDER BY s, v LIMIT 1;
SELECT s FROM a GROUP BY s ORDER BY max(v) DESC NULLS LAST LIMIT 1;
SELECT s, count(*) FROM a GROUP BY s HAVING max(v) > 10 ORDER BY s;
SELECT s FROM a ORDER BY v DESC NULLS LAST LIMIT 2;
SELECT * FROM a ORDER BY v LIMIT 1;
SELECT DISTINCT s FROM a ORDER BY s LIMIT 2 OFFSET 1;
SELECT a.k, b.v FROM a LEFT JOIN b USING (k) ORDER BY k;
SELECT a.k, b.v FROM a LEFT JOIN b ON a.k = b.k AND b.v IS NOT NULL ORDER BY a.k;
SELECT a.k FROM a LEFT JOIN b USING (k) WHERE b.k IS NULL ORDER BY 1;
SELECT count(*), count(b.k) FROM a LEFT JOIN b USING (k);
SELECT * FROM a NATURAL JOIN b;
SELECT a.k FROM a JOIN b ON a.k = b.k + 0 ORDER BY 1;
SELECT a.k FROM a JOIN b ON a.k = b.k OR a.v = b.v ORDER BY 1;
SELECT a.k FROM a, b WHERE a.k = b.k AND a.k < 3 ORDER BY 1;
SELECT a.k, b.k FROM a, b WHERE a.k = 1 AND b.k = 7;
SELECT a.k, b.k FROM a, b WHERE a.k = 1 AND b.k = 1;
SELECT count(*) FROM a UNION ALL SELECT count(*) FROM b;
SELECT k FROM a WHERE k = 1 UNION SELECT k FROM b WHERE k = 1;
SELECT k FROM a WHERE k = 1 UNION SELECT k FROM b WHERE k = 7 ORDER BY 1;
SELECT k FROM a INTERSECT SELECT k FROM b ORDER BY 1;
SELECT k FROM a EXCEPT SELECT k FROM b ORDER BY 1;
SELECT sum(v) OVER () FROM a WHERE k = 1;
SELECT k, rank() OVER (ORDER BY v) FROM a ORDER BY k;
SELECT k, lag(v) OVER (PARTITION BY k ORDER BY v) FROM a ORDER BY k;
SELECT s, v, count(*) FROM a GROUP BY GROUPING SETS ((s), (v), ()) ORDER BY 1, 2;
SELECT s, sum(v) FROM a GROUP BY ROLLUP (s) ORDER BY 1, 2;
SELECT array_agg(k ORDER BY k) FROM a;
SELECT string_agg(s, ',' ORDER BY k) FROM a;
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY v) FROM a;
SELECT stddev(v) FROM a;
SELECT json_agg(k) FROM a WHERE k = 1;
WITH x AS (SELECT k FROM a) SELECT count(*) FROM x;
WITH x AS (SELECT v, count(*) AS c FROM a GROUP BY v) SELECT max(c) FROM x;
WITH x AS (SELECT k FROM a WHERE k = 1) SELECT count(*) FROM x, b WHERE b.k = 1;
WITH RECURSIVE r AS (SELECT 1 AS k UNION ALL SELECT r.k + 1 FROM r JOIN a ON a.k = r.k) SELECT count(*) FROM r;
UPDATE a SET v = (SELECT count(*) FROM b) WHERE k = 1;
UPDATE a SET v = b.v FROM b WHERE a.k = b.k;
UPDATE a SET v = r.id FROM ref r WHERE a.v = r.id;
DELETE FROM a WHERE v = (SELECT min(v) FROM a);
DELETE FROM a USING b WHERE a.k = b.k AND b.v IS NULL;
INSERT INTO b SELECT k, v FROM a WHERE k = 5;
INSERT INTO b SELECT k, v FROM a ON CONFLICT DO NOTHING;
--@ known-difference: refused before PostgreSQL can say what is wrong
INSERT INTO b SELECT v, k FROM a;
INSERT INTO b SELECT max(k) + 100, 1 FROM a;
SELECT * FROM a ORDER BY k;
SELECT * FROM b ORDER BY k;
SELECT count(*) FROM (SELECT now() FROM a GROUP BY 1) x;
SELECT count(DISTINCT now()) FROM a;
SELECT k FROM a WHERE random() < 2 ORDER BY k;
SELECT nextval('pg_catalog.nothing') FROM a;
