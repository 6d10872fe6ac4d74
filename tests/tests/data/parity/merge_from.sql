-- MERGE whose source rows are on other shards than the rows that they match.
CREATE TABLE stock (item int PRIMARY KEY, name text, amount numeric DEFAULT 0, tags text[]);
CREATE TABLE deliveries (id bigint PRIMARY KEY, item int, amount numeric, tags text[], at date);
CREATE TABLE names (name text PRIMARY KEY, item bigint);
CREATE TABLE short (code varchar(4) PRIMARY KEY, n int);
CREATE TABLE kinds (item int PRIMARY KEY, label text);
CREATE TABLE notes (item int, note text);
CREATE TABLE loose (item int, n int);
--@ router: SELECT create_distributed_table('stock', 'item')
--@ router: SELECT create_distributed_table('deliveries', 'id')
--@ router: SELECT create_distributed_table('names', 'name')
--@ router: SELECT create_distributed_table('short', 'code')
--@ router: SELECT create_distributed_table('loose', 'item')
--@ router: SELECT create_reference_table('kinds')
--@ setup
INSERT INTO stock VALUES (1, 'one', 10, '{a,"b c"}'), (2, 'two', 20, NULL), (3, 'it''s', 30, '{}'), (4, 'fo"ur', 40, '{NULL,"\\"}');
INSERT INTO deliveries VALUES (1, 2, 5, '{x}', '2024-01-31'), (2, 3, 7.50, NULL, NULL), (3, 7, 1, '{y,"z\\"}', '2024-02-29'), (4, 8, NULL, '{}', NULL), (5, NULL, 3, NULL, NULL);
INSERT INTO names VALUES ('one', 1), ('seven', 7), ('huge', 9999999999), ('none', NULL);
INSERT INTO kinds VALUES (1, 'first'), (9, 'ninth');
INSERT INTO notes VALUES (1, 'n1'), (2, 'n2'), (11, 'n11');
MERGE INTO stock s USING deliveries d ON s.item = d.item WHEN MATCHED THEN UPDATE SET amount = s.amount + d.amount, tags = d.tags WHEN NOT MATCHED AND d.item IS NOT NULL THEN INSERT (item, name, amount, tags) VALUES (d.item, 'new', d.amount, d.tags);
SELECT * FROM stock ORDER BY item;
-- A row without a key finds nothing, and is none.
MERGE INTO stock s USING deliveries d ON s.item = d.item WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN INSERT (item, name) VALUES (d.item, 'lost');
MERGE INTO stock s USING deliveries d ON d.item = s.item WHEN NOT MATCHED THEN DO NOTHING WHEN MATCHED AND d.amount > 5 THEN DELETE;
SELECT * FROM stock ORDER BY item;
-- Rows of expressions, functions, subqueries, home and reference tables.
MERGE INTO stock USING (VALUES (1, 'uno'), (5, 'cinco'), (6, 'seis')) AS v (k, name) ON item = k WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT (item, name) VALUES (k, v.name);
MERGE INTO stock USING generate_series(5, 12) AS g (k) ON stock.item = g.k WHEN MATCHED THEN UPDATE SET amount = amount + 100 WHEN NOT MATCHED AND g.k % 2 = 0 THEN INSERT (item, name) VALUES (g.k, 'g' || g.k) WHEN NOT MATCHED THEN DO NOTHING;
SELECT * FROM stock ORDER BY item;
MERGE INTO stock s USING (SELECT item, sum(amount) AS total, count(*) AS n FROM deliveries GROUP BY item HAVING count(*) > 0) d ON s.item = d.item WHEN MATCHED AND d.total > 4 THEN UPDATE SET amount = d.total, name = s.name || d.n WHEN MATCHED THEN DELETE;
MERGE INTO stock s USING notes n ON s.item = n.item WHEN MATCHED THEN UPDATE SET name = n.note WHEN NOT MATCHED THEN INSERT (item, name) VALUES (n.item, n.note);
MERGE INTO stock s USING kinds ON s.item = kinds.item WHEN MATCHED THEN UPDATE SET name = label WHEN NOT MATCHED THEN INSERT (item, name) VALUES (kinds.item, label);
MERGE INTO stock s USING (SELECT d.item, n.name FROM deliveries d JOIN names n ON n.item = d.item) x ON s.item = x.item WHEN MATCHED THEN UPDATE SET name = x.name WHEN NOT MATCHED THEN INSERT (item, name) VALUES (x.item, x.name);
SELECT * FROM stock ORDER BY item;
-- Not joined on the key: every shard looks.
MERGE INTO stock s USING names n ON s.name = n.name WHEN MATCHED THEN UPDATE SET amount = -1;
MERGE INTO stock s USING deliveries d ON s.amount < d.amount AND d.id = 1 WHEN MATCHED THEN DELETE;
SELECT * FROM stock ORDER BY item;
-- Two rows for one.
MERGE INTO stock s USING (SELECT 1 AS k UNION ALL SELECT 1) d ON s.item = d.k WHEN MATCHED THEN UPDATE SET amount = 0;
MERGE INTO stock s USING (SELECT 77 AS k UNION ALL SELECT 77) d ON s.item = d.k WHEN NOT MATCHED THEN INSERT (item) VALUES (d.k);
-- Keys of another type: a number that is too large finds nothing, and cannot become one.
MERGE INTO stock s USING names n ON s.item = n.item WHEN MATCHED THEN UPDATE SET name = 'by ' || n.name WHEN NOT MATCHED AND n.item < 100 THEN INSERT (item, name) VALUES (n.item, n.name);
MERGE INTO stock s USING names n ON s.item = n.item WHEN NOT MATCHED AND n.item IS NOT NULL THEN INSERT (item) VALUES (n.item);
MERGE INTO stock s USING (SELECT 3.0 AS k, 'exact' AS name) n ON s.item = n.k WHEN MATCHED THEN UPDATE SET name = n.name;
--@ refused 0A000
MERGE INTO stock s USING (SELECT 3.0 AS k) n ON s.item = n.k WHEN NOT MATCHED THEN INSERT (item) VALUES (n.k);
--@ refused 0A000
MERGE INTO short s USING (SELECT 'ab  '::text AS code) n ON s.code = n.code WHEN NOT MATCHED THEN INSERT (code, n) VALUES (n.code, 1);
MERGE INTO short s USING (SELECT 'ab'::varchar(4) AS code) n ON s.code = n.code WHEN NOT MATCHED THEN INSERT (code, n) VALUES (n.code, 1);
MERGE INTO names s USING (SELECT 'it''s "quoted" \ back'::varchar AS code) n ON s.name = n.code WHEN NOT MATCHED THEN INSERT VALUES (n.code, 1) WHEN MATCHED THEN DELETE;
SELECT * FROM short;
SELECT * FROM names ORDER BY name;
-- A table whose key may be NULL takes no such row here.
MERGE INTO loose l USING (VALUES (1, 1), (2, 2)) AS v (item, n) ON l.item = v.item WHEN NOT MATCHED THEN INSERT VALUES (v.item, v.n);
--@ refused 23502
MERGE INTO loose l USING deliveries d ON l.item = d.item WHEN NOT MATCHED THEN INSERT (item) VALUES (d.item);
SELECT * FROM loose ORDER BY item;
-- WITH before it.
WITH d AS (SELECT item, max(amount) AS most FROM deliveries GROUP BY item), e AS (SELECT * FROM d WHERE most IS NOT NULL) MERGE INTO stock s USING e ON s.item = e.item WHEN MATCHED THEN UPDATE SET amount = most WHEN NOT MATCHED AND e.item IS NOT NULL THEN INSERT (item, amount) VALUES (e.item, most);
WITH v (k) AS (VALUES (1), (2)) MERGE INTO stock s USING v ON s.item = v.k WHEN MATCHED THEN UPDATE SET name = 'with';
SELECT * FROM stock ORDER BY item;
-- Parameters, wherever they stand.
--@ bind: 4|bound|21
MERGE INTO stock s USING (SELECT item, $2::text AS note FROM deliveries WHERE id < $1::int AND item IS NOT NULL) d ON s.item = d.item WHEN MATCHED THEN UPDATE SET name = d.note, amount = $3::int WHEN NOT MATCHED THEN INSERT (item, name, amount) VALUES (d.item, d.note, $3::int);
--@ bind: 8
MERGE INTO stock s USING deliveries d ON s.item = d.item AND d.item = $1 WHEN MATCHED THEN DELETE;
SELECT * FROM stock ORDER BY item;
-- Reference and home tables as targets.
MERGE INTO kinds USING stock ON kinds.item = stock.item WHEN MATCHED THEN UPDATE SET label = stock.name WHEN NOT MATCHED AND stock.item < 4 THEN INSERT VALUES (stock.item, stock.name);
SELECT * FROM kinds ORDER BY item;
MERGE INTO notes USING (SELECT item, count(*) AS n FROM deliveries GROUP BY item) d ON notes.item = d.item WHEN MATCHED THEN UPDATE SET note = note || d.n WHEN NOT MATCHED THEN INSERT VALUES (d.item, 'none');
SELECT * FROM notes ORDER BY item, note;
-- In a transaction, with its own changes seen.
BEGIN;
UPDATE deliveries SET item = 12 WHERE id = 5;
MERGE INTO stock s USING deliveries d ON s.item = d.item WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN INSERT (item, name) VALUES (d.item, 'inside');
SAVEPOINT a;
MERGE INTO stock s USING deliveries d ON s.item = d.item WHEN MATCHED THEN DELETE;
SELECT count(*) FROM stock;
ROLLBACK TO a;
SELECT * FROM stock ORDER BY item;
COMMIT;
SELECT * FROM stock ORDER BY item;
-- An empty source.
MERGE INTO stock s USING (SELECT * FROM deliveries WHERE id > 100) d ON s.item = d.item WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (item) VALUES (d.item);
-- What cannot be right is refused.
--@ refused 0A000
MERGE INTO stock s USING deliveries d ON s.item = d.item WHEN MATCHED AND EXISTS (SELECT 1 FROM names n WHERE n.item = d.item) THEN DELETE;
--@ refused 0A000
MERGE INTO stock s USING deliveries d JOIN names n ON n.item = d.item ON s.item = d.item WHEN MATCHED THEN DELETE;
--@ refused 0A000
MERGE INTO stock s USING deliveries d ON s.name = d.amount::text WHEN NOT MATCHED THEN INSERT (item) VALUES (d.item);
--@ refused 0A000
MERGE INTO stock s USING deliveries d ON s.item = d.item WHEN NOT MATCHED THEN INSERT (item) VALUES (d.id);
--@ refused 0A000
MERGE INTO stock s USING deliveries d ON s.item = d.item OR d.id = 1 WHEN NOT MATCHED THEN INSERT (item) VALUES (d.item);
SELECT * FROM stock ORDER BY item;
-- New rows that leave their numbers out.
CREATE TABLE numbered (id bigserial, k int, v text, other int GENERATED ALWAYS AS IDENTITY (START WITH 100), PRIMARY KEY (k, id));
CREATE TABLE feed (k int PRIMARY KEY, v text);
--@ router: SELECT create_distributed_table('numbered', 'k')
--@ router: SELECT create_distributed_table('feed', 'k', colocate_with => 'numbered')
INSERT INTO feed SELECT g, 'f' || g FROM generate_series(1, 20) AS g;
MERGE INTO numbered n USING feed f ON n.k = f.k WHEN MATCHED THEN UPDATE SET v = f.v WHEN NOT MATCHED AND f.k > 10 THEN INSERT (k, v) VALUES (f.k, f.v) WHEN NOT MATCHED AND f.k > 5 THEN INSERT VALUES (DEFAULT, f.k, 'six') WHEN NOT MATCHED THEN INSERT (v, k, other) OVERRIDING SYSTEM VALUE VALUES (f.v, f.k, DEFAULT);
SELECT count(*), count(DISTINCT id), count(DISTINCT other), min(other) FROM numbered;
SELECT k, v FROM numbered ORDER BY k;
MERGE INTO numbered n USING (VALUES (20, 'again'), (21, 'new')) AS f (k, v) ON n.k = f.k WHEN MATCHED THEN UPDATE SET v = f.v WHEN NOT MATCHED THEN INSERT (id, k, v) VALUES (DEFAULT, f.k, f.v);
MERGE INTO numbered n USING (SELECT 22 AS k) AS f ON n.k = f.k WHEN NOT MATCHED THEN INSERT (id, k) VALUES (7000, f.k);
MERGE INTO numbered n USING (SELECT 22 AS k) AS f ON n.k = f.k WHEN NOT MATCHED THEN INSERT (other, k) VALUES (1, f.k);
SELECT count(*), count(DISTINCT id), count(DISTINCT other), max(id) FROM numbered;
SELECT k, v FROM numbered WHERE k >= 20 ORDER BY k;
MERGE INTO numbered n USING (SELECT 1) AS f ON n.k = 23 WHEN NOT MATCHED THEN INSERT (other, k) OVERRIDING SYSTEM VALUE VALUES (1, 23);
