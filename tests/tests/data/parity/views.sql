-- Views, functions and defaults.
CREATE TABLE t (k int PRIMARY KEY, v text, at timestamptz DEFAULT now(), n int GENERATED ALWAYS AS (k * 2) STORED);
CREATE TABLE home (a int);
--@ router: SELECT create_distributed_table('t', 'k')
--@ setup
INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd');
INSERT INTO home VALUES (1), (2);
SELECT k, n, at IS NOT NULL FROM t ORDER BY k;
CREATE VIEW vt AS SELECT k, v FROM t;
SELECT * FROM vt ORDER BY k;
SELECT * FROM vt WHERE k = 1;
SELECT count(*) FROM vt;
UPDATE vt SET v = 'changed' WHERE k = 1;
INSERT INTO vt VALUES (9, 'through the view');
INSERT INTO vt VALUES (10, 'x'), (11, 'y'), (12, 'z') RETURNING k;
--@ refused 0A000
INSERT INTO vt (v) VALUES ('without a key');
SELECT k, v FROM t WHERE k IN (1, 9, 11) ORDER BY k;
DELETE FROM vt WHERE k > 8;
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
-- Views over distributed tables.
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL, land text);
CREATE TABLE items (tenant int, id int, price numeric, note text, PRIMARY KEY (tenant, id));
CREATE TABLE lands (code text PRIMARY KEY, name text);
CREATE TABLE rates (code text, rate numeric);
--@ router: SELECT create_distributed_table('tenants', 'id')
--@ router: SELECT create_distributed_table('items', 'tenant', colocate_with => 'tenants')
--@ router: SELECT create_reference_table('lands')
INSERT INTO lands VALUES ('za', 'South Africa'), ('de', 'Germany');
INSERT INTO rates VALUES ('za', 18.5), ('de', 1);
INSERT INTO tenants SELECT g, 'tenant ' || g, CASE WHEN g % 2 = 0 THEN 'za' WHEN g % 3 = 0 THEN 'de' END FROM generate_series(1, 12) g;
INSERT INTO items SELECT t, i, t * 10 + i, CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END FROM generate_series(1, 12) t, generate_series(1, 5) i;
-- Some columns and rows of one table.
CREATE VIEW dear (owner, number, price) AS SELECT tenant, id, price FROM items WHERE price > 50;
SELECT * FROM dear WHERE owner = 7;
SELECT * FROM dear WHERE owner = 1;
SELECT * FROM dear WHERE owner IN (6, 7) ORDER BY owner, number;
--@ bind: 7
SELECT * FROM dear WHERE owner = $1 ORDER BY number;
--@ bind: {5,6}
SELECT count(*) FROM dear WHERE owner = ANY ($1::int[]);
SELECT * FROM dear;
SELECT count(*), sum(price), avg(price), min(owner) FROM dear;
SELECT owner, max(price) FROM dear GROUP BY owner ORDER BY owner;
SELECT price, count(*) FROM dear GROUP BY price HAVING count(*) > 1 ORDER BY price;
SELECT DISTINCT owner FROM dear ORDER BY owner DESC LIMIT 3;
SELECT d.owner, t.name FROM dear d JOIN tenants t ON t.id = d.owner WHERE t.land = 'za' ORDER BY d.owner, d.number;
SELECT d.owner, t.name, d.number FROM dear d, tenants t WHERE t.id = d.number AND d.owner = 12 ORDER BY 3;
SELECT d.owner, t.name, d.number FROM dear d, tenants t WHERE t.id = d.number ORDER BY 1, 3;
SELECT owner, number, rank() OVER (ORDER BY price DESC) FROM dear ORDER BY price DESC, owner, number LIMIT 5;
SELECT name FROM tenants WHERE id IN (SELECT owner FROM dear WHERE price > 120) ORDER BY name;
SELECT name, (SELECT count(*) FROM dear d WHERE d.owner = tenants.id) FROM tenants ORDER BY name;
WITH x AS (SELECT owner FROM dear WHERE price > 100) SELECT count(*) FROM x;
SELECT owner FROM dear UNION SELECT id FROM tenants ORDER BY 1;
TABLE dear;
SELECT nothing FROM dear;
SELECT * FROM dear WHERE owner = 'x';
SELECT number, price FROM dear WHERE owner = 8 FOR UPDATE;
-- One that does not show the key.
CREATE VIEW notes AS SELECT note, price FROM items;
SELECT note, count(*), sum(price) FROM notes GROUP BY note ORDER BY note;
SELECT n.note, t.name FROM notes n JOIN tenants t ON t.id = n.price - 50 ORDER BY 2, 1;
-- A view of a view.
CREATE VIEW dearest AS SELECT owner AS who, price FROM dear WHERE price > 100;
SELECT * FROM dearest WHERE who = 11;
SELECT who, sum(price) FROM dearest GROUP BY who ORDER BY who;
-- Joins on the key, with tables that every shard has, and with one that none but the home shard has.
CREATE VIEW named AS SELECT i.tenant, t.name, l.name AS land, i.price FROM items i JOIN tenants t ON t.id = i.tenant LEFT JOIN lands l ON l.code = t.land;
SELECT * FROM named WHERE tenant = 3 ORDER BY price;
SELECT land, count(*), sum(price) FROM named GROUP BY land ORDER BY land;
CREATE VIEW all_tenants AS SELECT t.id, count(i.id) AS items FROM tenants t LEFT JOIN items i ON i.tenant = t.id AND i.price > 60 GROUP BY t.id;
SELECT * FROM all_tenants WHERE id = 2;
SELECT items, count(*) FROM all_tenants GROUP BY items ORDER BY items;
CREATE VIEW rated AS SELECT t.id, t.name, r.rate FROM tenants t JOIN rates r ON r.code = t.land;
SELECT * FROM rated ORDER BY id;
SELECT rate FROM rated WHERE id = 2;
-- Rows that are made of those of several shards.
CREATE VIEW per_note AS SELECT note, count(*) AS items, sum(price) AS total FROM items GROUP BY note;
SELECT * FROM per_note ORDER BY note;
SELECT total FROM per_note WHERE note = 'odd';
SELECT p.total, t.name FROM per_note p JOIN tenants t ON t.id = p.items - 20 ORDER BY 2;
SELECT count(*) FROM per_note WHERE items > 100;
--@ bind: even
SELECT items FROM per_note WHERE note = $1;
SELECT x.* FROM per_note x, per_note y WHERE x.total < y.total ORDER BY 1;
TABLE per_note ORDER BY 1;
-- Aliases of its columns, and columns with the name of its schema.
SELECT * FROM per_note AS p (a, b) ORDER BY a, b;
SELECT a, sum(c) FROM per_note p (a, b, c) GROUP BY a ORDER BY a;
SELECT p.a, items FROM per_note p (a) ORDER BY p.a;
SELECT note FROM per_note p (a) ORDER BY a;
SELECT * FROM per_note AS p (a, b, c, d);
SELECT public.per_note.total FROM public.per_note ORDER BY public.per_note.note, 1;
SELECT public.per_note.*, a.items FROM per_note JOIN per_note a ON a.note = public.per_note.note ORDER BY 1, 2, 3;
SELECT public.per_note.total FROM per_note AS x;
SELECT x.*, i.id FROM per_note AS x (n) JOIN items i ON i.note = x.n ORDER BY i.id, 1;
CREATE VIEW over_per_note AS SELECT note, total / items AS mean FROM per_note WHERE items > 1;
SELECT note, round(mean, 2) FROM over_per_note ORDER BY note;
CREATE VIEW total AS SELECT count(*) AS items, sum(price) AS total FROM items;
SELECT * FROM total;
CREATE VIEW lands_used AS SELECT DISTINCT land FROM tenants;
SELECT land FROM lands_used ORDER BY land;
CREATE VIEW top AS SELECT tenant, id, price FROM items ORDER BY price DESC, id LIMIT 4;
SELECT array_agg(price) FROM top;
SELECT * FROM top WHERE tenant = 12 ORDER BY id;
CREATE VIEW ranked AS SELECT tenant, id, row_number() OVER (ORDER BY price DESC, id) AS n FROM items;
SELECT * FROM ranked WHERE n <= 3 ORDER BY n;
SELECT n FROM ranked WHERE tenant = 5 AND id = 1;
CREATE VIEW either AS SELECT id FROM tenants UNION SELECT id FROM items;
SELECT count(*) FROM either;
CREATE RECURSIVE VIEW chain (id) AS SELECT 1 UNION ALL SELECT t.id FROM chain c JOIN tenants t ON t.id = c.id + 1;
SELECT max(id) FROM chain;
CREATE VIEW few AS SELECT id FROM tenants WHERE id > (SELECT avg(id) FROM tenants);
SELECT * FROM few ORDER BY id;
-- Those where the key is a part of what is put together.
CREATE VIEW per_tenant AS SELECT tenant, count(*) AS items, sum(price) AS total FROM items GROUP BY tenant;
SELECT * FROM per_tenant WHERE tenant = 4;
SELECT sum(items), max(total) FROM per_tenant;
SELECT t.name, p.total FROM per_tenant p JOIN tenants t ON t.id = p.tenant WHERE p.total > 500 ORDER BY t.name;
CREATE VIEW last_items AS SELECT DISTINCT ON (tenant) tenant, id, price FROM items ORDER BY tenant, price DESC;
SELECT * FROM last_items WHERE tenant = 9;
SELECT * FROM last_items ORDER BY price;
SELECT array_agg(tenant) FROM last_items;
CREATE VIEW numbered AS SELECT tenant, id, row_number() OVER (PARTITION BY tenant ORDER BY price DESC) AS n FROM items;
SELECT * FROM numbered WHERE tenant = 2 ORDER BY n;
SELECT sum(id) FROM numbered WHERE n = 1;
CREATE VIEW everything AS SELECT id AS key, name AS what FROM tenants UNION ALL SELECT tenant, note FROM items;
SELECT * FROM everything WHERE key = 6 ORDER BY what;
SELECT what, count(*) FROM everything GROUP BY what HAVING count(*) > 1 ORDER BY what;
-- A view whose rows have an order keeps it.
CREATE VIEW sorted AS SELECT id, name FROM tenants ORDER BY name DESC;
SELECT string_agg(name, ',') FROM sorted;
SELECT id FROM sorted LIMIT 1;
SELECT array_agg(id) FROM (SELECT id FROM sorted LIMIT 3) x;
-- Writes.
UPDATE dear SET price = price + 1000 WHERE owner = 8 AND number = 1 RETURNING *;
UPDATE dear SET price = price - 1000 WHERE price > 1000;
--@ refused 0A000
UPDATE dear SET owner = 1 WHERE owner = 2;
UPDATE dearest SET price = 1 WHERE who = 12;
SELECT count(*), sum(price) FROM items;
DELETE FROM dearest WHERE who = 11;
DELETE FROM dear WHERE number = 5;
DELETE FROM dear d USING tenants t WHERE t.id = d.owner AND t.name = 'tenant 9';
SELECT count(*), sum(price) FROM items;
UPDATE per_tenant SET total = 0 WHERE tenant = 1;
DELETE FROM named WHERE tenant = 1;
INSERT INTO per_note VALUES ('x', 1, 1);
DELETE FROM total;
UPDATE tenants SET land = 'xx' WHERE id IN (SELECT owner FROM dear);
UPDATE tenants SET land = 'yy' WHERE id = 6 AND EXISTS (SELECT FROM dear WHERE owner = 6);
SELECT id, land FROM tenants ORDER BY id;
CREATE VIEW cheap AS SELECT tenant, id, price FROM items WHERE price < 20 WITH CHECK OPTION;
UPDATE cheap SET price = 30 WHERE tenant = 1 AND id = 1;
UPDATE cheap SET price = 3 WHERE tenant = 1 AND id = 1 RETURNING price;
INSERT INTO tenants SELECT 200 + items, note, 'pn' FROM per_note;
INSERT INTO rates SELECT note, items FROM per_note;
INSERT INTO tenants SELECT id + 300, 'sorted ' || name, 'so' FROM (SELECT * FROM sorted LIMIT 2) x;
SELECT id, name FROM tenants WHERE id > 200 ORDER BY id;
DELETE FROM tenants WHERE land IN ('pn', 'so');
UPDATE tenants SET land = 'za' WHERE id IN (SELECT count(*) FROM dear WHERE owner = 1);
INSERT INTO rates SELECT what, 1 FROM everything WHERE key = 3 AND what LIKE 'tenant%';
SELECT code FROM rates ORDER BY code;
INSERT INTO tenants SELECT tenant + 100, 'copy ' || total, NULL FROM per_tenant WHERE tenant < 4;
SELECT count(*) FROM tenants;
-- Changes of views.
CREATE OR REPLACE VIEW dear (owner, number, price, note) AS SELECT tenant, id, price, note FROM items WHERE price < 40;
SELECT count(*), min(note) FROM dear;
SELECT * FROM dear WHERE owner = 2 ORDER BY number;
CREATE OR REPLACE VIEW dear AS SELECT 1 AS other;
BEGIN;
ALTER TABLE items RENAME COLUMN note TO remark;
ALTER VIEW dear RENAME TO bargains;
SELECT note FROM bargains WHERE owner = 1 AND number = 1;
SELECT count(*) FROM bargains;
ROLLBACK;
SELECT count(*) FROM dear;
ALTER VIEW dear RENAME COLUMN owner TO holder;
SELECT holder FROM dear WHERE holder = 2 AND number = 1;
ALTER TABLE items DROP COLUMN note;
DROP VIEW dear;
DROP VIEW dear CASCADE;
SELECT * FROM dearest;
SELECT count(*) FROM dear;
CREATE MATERIALIZED VIEW kept AS SELECT a FROM home;
SELECT count(*) FROM kept;
DROP MATERIALIZED VIEW kept;
--@ refused 0A000
CREATE MATERIALIZED VIEW kept AS SELECT id FROM tenants;
CREATE TABLE later (k int PRIMARY KEY);
CREATE MATERIALIZED VIEW kept AS SELECT k FROM later;
--@ router: SELECT create_distributed_table('later', 'k')
--@ refused 0A000
SELECT * FROM kept;
--@ refused 0A000
REFRESH MATERIALIZED VIEW kept;
DROP MATERIALIZED VIEW kept;
-- Functions in a view.
CREATE FUNCTION half(n numeric) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT n / 2';
CREATE FUNCTION moved(n int) RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN n; END';
CREATE VIEW halves AS SELECT tenant, half(price) AS half FROM items;
SELECT round(half, 1) FROM halves WHERE tenant = 3 ORDER BY half;
SELECT round(sum(half), 1) FROM halves;
CREATE VIEW half_notes AS SELECT note, half(sum(price)) AS half FROM items GROUP BY note;
SELECT note, round(half, 1) FROM half_notes ORDER BY note;
CREATE VIEW moving AS SELECT moved(tenant) AS tenant FROM items;
--@ refused 0A000
SELECT count(*) FROM moving;
DROP FUNCTION moved(int) CASCADE;
DROP FUNCTION half(numeric) CASCADE;
--@ refused 0A000
CREATE TEMP VIEW passing AS SELECT id FROM tenants;
-- What PostgreSQL's catalogs say of views.
SELECT table_name, is_updatable FROM information_schema.views WHERE table_schema = 'public' ORDER BY table_name;
SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'named' ORDER BY ordinal_position;
SELECT pg_get_viewdef('per_tenant'::regclass);
CREATE SCHEMA "Odd one";
CREATE VIEW "Odd one"."A view" AS SELECT id AS "The key", name FROM tenants;
SELECT * FROM "Odd one"."A view" WHERE "The key" = 3;
SELECT count("A view"."The key") FROM "Odd one"."A view";
CREATE VIEW "Odd one".tenants AS SELECT land, count(*) AS n FROM public.tenants GROUP BY land;
SET search_path = "Odd one", public;
SELECT sum(n) FROM tenants;
SELECT name FROM "A view" WHERE "The key" = 3;
RESET search_path;
DROP SCHEMA "Odd one" CASCADE;
SELECT 'checks' AS what;
-- Clauses that only views' queries have, as PostgreSQL prints them.
CREATE TABLE clauses (id int PRIMARY KEY, x int, n text);
--@ router: SELECT create_distributed_table('clauses', 'id')
INSERT INTO clauses SELECT g, g % 3, 'n' || g FROM generate_series(1, 10) g;
CREATE VIEW tied AS SELECT id, x FROM clauses ORDER BY x FETCH FIRST 2 ROWS WITH TIES;
SELECT * FROM tied ORDER BY id;
SELECT t.id, c.n FROM tied t JOIN clauses c USING (id) WHERE c.n <> 'n3' ORDER BY 1;
CREATE VIEW hidden AS WITH clauses AS (SELECT * FROM clauses WHERE x = 1) SELECT * FROM clauses;
SELECT * FROM hidden ORDER BY id;
SELECT count(*), sum(h.x) FROM hidden h JOIN clauses c ON c.x = h.id;
CREATE VIEW sampled AS SELECT * FROM clauses TABLESAMPLE bernoulli (100);
SELECT count(*) FROM sampled;
SELECT id FROM clauses WHERE id IN (SELECT id FROM clauses WHERE x > 0 ORDER BY x FETCH FIRST 1 ROW WITH TIES) ORDER BY id;
