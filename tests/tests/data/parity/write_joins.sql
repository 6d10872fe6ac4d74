-- UPDATE and DELETE that read rows of other shards.
CREATE TABLE t (k int PRIMARY KEY, o int, v text, n numeric, f float8);
CREATE TABLE s (k text PRIMARY KEY, o int, v text, tags text[]);
CREATE TABLE r (id int PRIMARY KEY, v text);
CREATE TABLE h (id int, v text);
--@ router: SELECT create_distributed_table('t', 'k')
--@ router: SELECT create_distributed_table('s', 'k')
--@ router: SELECT create_reference_table('r')
INSERT INTO t SELECT g, g % 10, 'v' || g, g / 7.0, g / 7.0 FROM generate_series(1, 40) g;
INSERT INTO s SELECT 'k' || g, g * 3 % 10, 'quote " back \ comma, (paren) {brace} ''single'' ' || g, ARRAY['a', NULL, 'b,"c'] FROM generate_series(1, 10) g;
INSERT INTO r SELECT g, 'r' || g FROM generate_series(1, 5) g;
INSERT INTO h SELECT g, 'h' || g FROM generate_series(1, 5) g;
UPDATE t SET v = s.v FROM s WHERE t.o = s.o AND s.k = 'k3';
UPDATE t SET v = x.v || x.o FROM s AS x WHERE t.o = x.o AND x.o > 5 RETURNING t.k, t.v, x.tags;
UPDATE t SET n = (SELECT count(*) FROM s WHERE s.o = t.o);
UPDATE t SET n = (SELECT max(b.n) FROM t b WHERE b.o = t.o) + 1 WHERE k < 10;
UPDATE t SET v = 'pinned ' || (SELECT max(v) FROM s) WHERE k = 5 RETURNING *;
UPDATE t SET v = 'in' WHERE o IN (SELECT o FROM s WHERE o < 4) RETURNING k;
UPDATE t SET v = 'not in' WHERE o NOT IN (SELECT o FROM s WHERE o < 4) AND k > 30;
UPDATE t SET v = 'exists' WHERE EXISTS (SELECT FROM t b WHERE b.k = t.o AND b.k <> t.k);
UPDATE t SET v = 'own key' WHERE k IN (SELECT k FROM t WHERE o = 3);
UPDATE t SET f = b.f FROM t b WHERE b.k = t.k + 1;
UPDATE t SET v = r.v FROM r, s WHERE r.id = t.o AND s.o = r.id RETURNING t.k, t.v;
UPDATE t SET (v, n) = (SELECT s.v, s.o FROM s WHERE s.o = t.o) WHERE k < 5;
--@ bind: 3|bound
UPDATE t SET v = $2 FROM s WHERE s.o = t.o AND s.o = $1 RETURNING t.k;
SELECT * FROM t ORDER BY k;
DELETE FROM t USING s WHERE t.o = s.o AND s.k = 'k1' RETURNING t.k, s.v;
DELETE FROM t WHERE n > (SELECT avg(n) FROM t) AND k > 20;
DELETE FROM t WHERE o IN (SELECT o FROM s WHERE k = 'nothing');
--@ bind: 2
DELETE FROM t WHERE k NOT IN (SELECT k FROM t ORDER BY k DESC LIMIT 20) AND k > $1 RETURNING k;
SELECT * FROM t ORDER BY k;
UPDATE s SET v = t.v FROM t WHERE t.k = s.o;
DELETE FROM s WHERE EXISTS (SELECT FROM t WHERE t.k = s.o AND t.o = 2);
SELECT * FROM s ORDER BY k;
-- Reference tables and tables at home.
UPDATE r SET v = (SELECT max(v) FROM t) WHERE id = 2;
UPDATE r SET v = t.v FROM t WHERE t.k = r.id AND t.k = 3;
DELETE FROM r WHERE id IN (SELECT k FROM t WHERE k = 4) RETURNING *;
SELECT * FROM r ORDER BY id;
UPDATE h SET v = t.v FROM t WHERE t.k = h.id RETURNING h.id;
DELETE FROM h WHERE id > (SELECT count(*) FROM t WHERE k < 4);
SELECT * FROM h ORDER BY id;
-- Mistakes are PostgreSQL's.
UPDATE t SET v = s.nope FROM s WHERE s.o = t.o;
UPDATE t SET v = (SELECT v FROM s) WHERE k = 1;
DELETE FROM t USING nowhere WHERE t.o = nowhere.o;
UPDATE t SET v = h.v FROM h WHERE h.id = t.k;
SELECT * FROM t ORDER BY k;
DELETE FROM t USING h AS other WHERE other.id = t.k AND other.v IS NULL;
UPDATE t SET v = 'home' WHERE k IN (SELECT id FROM h) AND k NOT IN (SELECT o FROM s);
UPDATE t SET v = h.v || c.relname FROM h, pg_class c WHERE h.id = t.k AND t.k = 2 AND c.relname = 'h' RETURNING t.k, t.v, h.id;
BEGIN;
INSERT INTO h VALUES (3, 'inside');
UPDATE t SET v = h.v FROM h WHERE h.id = t.k AND h.v = 'inside';
SELECT * FROM t ORDER BY k;
ROLLBACK;
--@ refused 0A000
UPDATE t SET v = s.ctid::text FROM s WHERE s.o = t.o;
BEGIN;
INSERT INTO s VALUES ('own', 100, 'own row');
UPDATE t SET v = s.v FROM s WHERE s.o = t.k + 94 RETURNING t.k, t.v;
ROLLBACK;
SELECT * FROM t ORDER BY k;
