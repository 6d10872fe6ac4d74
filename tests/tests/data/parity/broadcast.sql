-- Joins on other columns than the keys: small tables go to the shards of the others. With
-- query.broadcast_max = 0 (the binary mode here) the same runs over copies on the home shard.
CREATE TABLE shops (id int PRIMARY KEY, city text, code char(4), rate numeric(6, 3), label varchar(10), opened timestamptz(0), info jsonb);
CREATE TABLE sales (id bigint PRIMARY KEY, shop int, item int, amount numeric(10, 2), day date, note text);
CREATE TABLE sale_lines (sale_id bigint, line int, product int, pieces int, PRIMARY KEY (sale_id, line));
CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL, kind text, weight float8, tags text[]);
CREATE TABLE kinds (kind text PRIMARY KEY, title text);
CREATE TABLE nothing (id int PRIMARY KEY, x int);
--@ router: SELECT create_distributed_table('shops', 'id')
--@ router: SELECT create_distributed_table('sales', 'id')
--@ router: SELECT create_distributed_table('sale_lines', 'sale_id', colocate_with => 'sales')
--@ router: SELECT create_distributed_table('products', 'id')
--@ router: SELECT create_distributed_table('nothing', 'id')
--@ router: SELECT create_reference_table('kinds')
INSERT INTO kinds VALUES ('a', 'Apples'), ('b', 'Bread'), ('z', NULL);
INSERT INTO shops SELECT g, CASE WHEN g % 4 = 0 THEN NULL ELSE 'city ' || g % 3 END, 'c' || g % 5, g / 7.0, 'label ' || g, '2024-01-01 00:00+00'::timestamptz + g * interval '1 hour', CASE WHEN g % 2 = 0 THEN json_build_object('n', g)::jsonb END FROM generate_series(1, 12) g;
INSERT INTO sales SELECT g, CASE WHEN g % 9 = 0 THEN NULL ELSE g % 15 END, g % 7, g * 1.25, date '2024-01-01' + g % 40, CASE WHEN g % 5 = 0 THEN NULL ELSE 'note ' || g END FROM generate_series(1, 120) g;
INSERT INTO sale_lines SELECT s, l, (s * 3 + l) % 11, s % 4 + l FROM generate_series(1, 120) s, generate_series(1, 3) l WHERE (s + l) % 3 <> 0;
INSERT INTO products SELECT g, 'product ' || g, substr('abz', g % 4, 1), g * 0.5, CASE WHEN g % 2 = 0 THEN ARRAY['x', 'y'] END FROM generate_series(1, 10) g;
-- Inner joins, with conditions in WHERE and in ON.
SELECT s.id, h.city FROM sales s JOIN shops h ON h.id = s.shop WHERE s.id < 20 ORDER BY s.id;
SELECT s.id, h.city FROM sales s JOIN shops h ON h.id = s.shop AND h.city = 'city 1' ORDER BY s.id LIMIT 7;
SELECT count(*), sum(s.amount), avg(h.rate), min(h.code), max(h.label) FROM sales s, shops h WHERE h.id = s.shop AND h.rate > 0.5 AND s.amount < 100;
SELECT h.city, count(*), sum(s.amount) FROM sales s JOIN shops h ON h.id = s.shop GROUP BY h.city ORDER BY 1;
SELECT h.city, count(*) FROM sales s JOIN shops h ON h.id = s.shop GROUP BY h.city HAVING count(*) > 25 ORDER BY 2 DESC, 1;
SELECT h.id, h.city, h.rate, count(*) FROM sales s JOIN shops h ON h.id = s.shop GROUP BY h.id ORDER BY h.id;
SELECT h.id, h.city, count(*) FROM shops h JOIN sales s ON h.id = s.item GROUP BY h.id ORDER BY h.id;
SELECT DISTINCT h.city, s.item FROM sales s JOIN shops h ON h.id = s.shop ORDER BY 1 NULLS FIRST, 2;
SELECT DISTINCT ON (h.city) h.city, s.id FROM sales s JOIN shops h ON h.id = s.shop ORDER BY h.city, s.id DESC;
SELECT s.id FROM sales s JOIN shops h ON h.id = s.shop ORDER BY h.rate DESC, s.id FETCH FIRST 3 ROWS WITH TIES;
SELECT s.*, h.* FROM sales s JOIN shops h ON h.id = s.shop ORDER BY s.id LIMIT 4;
SELECT h.*, s.* FROM shops h JOIN sales s ON h.id = s.shop ORDER BY s.id LIMIT 4;
SELECT * FROM sales JOIN shops USING (id) ORDER BY id;
SELECT id, item FROM sales NATURAL JOIN (SELECT 1) one ORDER BY id LIMIT 2;
SELECT h.code, h.rate, h.label, h.opened, h.info, h.info->'n' FROM sales s JOIN shops h ON h.id = s.shop WHERE s.id IN (4, 8, 19) ORDER BY s.id;
SELECT h.code || '|', length(h.code), pg_typeof(h.rate), pg_typeof(h.code), pg_typeof(h.opened) FROM sales s JOIN shops h ON h.id = s.shop WHERE s.id = 4;
SELECT p.name, p.tags FROM products p JOIN sales s ON s.item = p.id WHERE s.id < 9 ORDER BY s.id;
SELECT a.id, b.id FROM sales a JOIN sales b ON b.id = a.item AND b.amount > 5 WHERE a.id < 30 ORDER BY 1, 2;
SELECT a.id, b.id, c.id FROM shops a JOIN shops b ON a.code = b.code AND a.id < b.id JOIN shops c ON c.code = b.code AND b.id < c.id ORDER BY 1, 2, 3;
SELECT count(*) FROM shops a, products b;
SELECT h.city, p.kind, k.title, sum(s.amount) FROM sales s JOIN shops h ON h.id = s.shop JOIN products p ON p.id = s.item LEFT JOIN kinds k USING (kind) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT p.name, sum(l.pieces) FROM sales s JOIN sale_lines l ON l.sale_id = s.id JOIN products p ON p.id = l.product WHERE s.day < '2024-01-20' GROUP BY p.name ORDER BY 2 DESC, 1;
SELECT s.id, sum(l.pieces * p.weight) FROM sales s JOIN sale_lines l ON l.sale_id = s.id JOIN products p ON p.id = l.product GROUP BY s.id ORDER BY 2 DESC, 1 LIMIT 5;
SELECT s.id, p.name FROM sales s JOIN products p ON p.id = s.item WHERE s.id = 5 OR s.id = 6 ORDER BY 1;
SELECT s.id, p.name FROM sales s JOIN products p ON p.id = s.item WHERE s.id = 5;
SELECT s.id, p.name FROM sales s JOIN products p ON p.id = s.item WHERE p.id = 5 ORDER BY 1;
SELECT s.id FROM sales s JOIN products p ON p.id = s.item WHERE p.weight + 1 > 3.5 AND 1 = 1 ORDER BY 1 LIMIT 3;
SELECT s.id FROM sales s JOIN products p ON p.id = s.item WHERE 1 = 2;
SELECT count(*) FROM sales s JOIN products p ON p.id = s.item WHERE false;
-- What is filled with NULLs may be copied, and what is kept may not.
SELECT s.id, h.city FROM sales s LEFT JOIN shops h ON h.id = s.shop AND h.rate < 1 WHERE s.id < 12 ORDER BY s.id;
SELECT s.id, h.city FROM sales s LEFT JOIN shops h ON h.id = s.shop AND s.amount > 10 WHERE s.id < 12 ORDER BY s.id;
SELECT s.id FROM sales s LEFT JOIN shops h ON h.id = s.shop WHERE h.id IS NULL ORDER BY s.id;
SELECT s.id FROM sales s LEFT JOIN shops h ON h.id = s.shop AND h.city IS NULL WHERE h.id IS NULL AND s.id < 20 ORDER BY s.id;
SELECT h.id, count(s.id) FROM shops h LEFT JOIN sales s ON s.shop = h.id GROUP BY h.id ORDER BY h.id;
SELECT h.id, count(s.id) FROM sales s RIGHT JOIN shops h ON s.shop = h.id AND s.id > 60 GROUP BY h.id ORDER BY h.id;
SELECT count(*), count(s.id), count(h.id) FROM sales s FULL JOIN shops h ON s.shop = h.id;
SELECT count(*), count(x.id) FROM nothing x RIGHT JOIN sales s ON x.id = s.shop;
SELECT s.id, p.name, h.city FROM sales s LEFT JOIN (products p JOIN shops h ON h.id = p.id AND h.rate > 0.3) ON p.id = s.item WHERE s.id < 10 ORDER BY s.id;
SELECT s.id, p.name, h.city FROM sales s LEFT JOIN (products p LEFT JOIN shops h ON h.id = p.id AND h.rate > 0.9) ON p.id = s.item AND h.city IS NULL WHERE s.id < 10 ORDER BY s.id;
SELECT h.id, s.id FROM shops h LEFT JOIN sales s ON s.id = h.id AND s.amount > 3 LEFT JOIN products p ON p.id = s.item ORDER BY 1, 2;
-- Subqueries on other tables.
SELECT id FROM sales WHERE shop IN (SELECT id FROM shops WHERE city = 'city 2') ORDER BY id;
SELECT id FROM sales WHERE shop NOT IN (SELECT id FROM shops WHERE city = 'city 2') ORDER BY id;
SELECT id FROM sales WHERE item NOT IN (SELECT x FROM nothing) ORDER BY id LIMIT 5;
SELECT id FROM shops WHERE id NOT IN (SELECT shop FROM sales) ORDER BY id;
SELECT id FROM shops WHERE id NOT IN (SELECT shop FROM sales WHERE shop IS NOT NULL) ORDER BY id;
SELECT id FROM sales s WHERE EXISTS (SELECT 1 FROM shops h WHERE h.id = s.shop AND h.rate > 1) ORDER BY id LIMIT 6;
SELECT id FROM sales s WHERE NOT EXISTS (SELECT 1 FROM shops h WHERE h.id = s.shop AND h.rate > 1) ORDER BY id LIMIT 6;
SELECT id FROM sales s WHERE s.amount > (SELECT avg(weight) * 20 FROM products) ORDER BY id LIMIT 6;
SELECT id FROM sales s WHERE s.amount > (SELECT sum(p.weight) * 10 FROM products p WHERE p.id > s.item) ORDER BY id;
SELECT id FROM sales s WHERE s.item = ANY (SELECT p.id FROM products p WHERE p.kind = 'a') OR s.id < 3 ORDER BY id;
SELECT count(*) FROM sales s WHERE (s.shop, s.item) IN (SELECT h.id, h.id - 1 FROM shops h);
SELECT sum(amount) FROM sales WHERE amount < ALL (SELECT weight * 10 FROM products WHERE id > 5);
SELECT s.item, count(*) FROM sales s WHERE EXISTS (SELECT 1 FROM products p WHERE p.id = s.item) GROUP BY s.item ORDER BY 1;
SELECT s.item, count(*) FROM sales s GROUP BY s.item HAVING count(*) > (SELECT count(*) + 5 FROM shops) ORDER BY 1;
SELECT id, (SELECT name FROM products p WHERE p.id = s.item) FROM sales s WHERE id < 9 ORDER BY id;
SELECT id FROM sales ORDER BY (SELECT max(weight) FROM products WHERE products.id <= sales.item) NULLS FIRST, id LIMIT 5;
SELECT s.id, x.n FROM sales s, LATERAL (SELECT count(*) AS n FROM products p WHERE p.id < s.item) x WHERE s.id < 6 ORDER BY 1;
SELECT id FROM sales s WHERE item = (SELECT p.id FROM products p WHERE p.id = s.item LIMIT 1) AND id < 12 ORDER BY id;
SELECT id FROM sales s WHERE EXISTS (SELECT 1 FROM shops h JOIN products p ON p.id = h.id WHERE h.id = s.shop AND p.kind = 'b') ORDER BY id;
-- Subqueries of the same key run where the row outside is.
SELECT s.id FROM sales s WHERE EXISTS (SELECT 1 FROM sale_lines l WHERE l.sale_id = s.id AND l.pieces > 4) ORDER BY s.id;
SELECT s.id FROM sales s WHERE NOT EXISTS (SELECT 1 FROM sale_lines l WHERE l.sale_id = s.id AND l.line = 1) ORDER BY s.id;
SELECT count(*), sum(amount) FROM sales s WHERE NOT EXISTS (SELECT 1 FROM sale_lines l WHERE l.sale_id = s.id AND l.line = 2);
SELECT s.id FROM sales s WHERE s.id IN (SELECT sale_id FROM sale_lines WHERE pieces = 5) ORDER BY s.id DESC LIMIT 5;
SELECT s.id FROM sales s WHERE s.id IN (SELECT l.sale_id AS x FROM sale_lines l GROUP BY l.sale_id HAVING sum(l.pieces) > 9) ORDER BY s.id;
SELECT s.id FROM sales s WHERE s.id IN (SELECT l.sale_id FROM sale_lines l GROUP BY l.sale_id, l.product HAVING count(*) > 0 ORDER BY 1 LIMIT 3) ORDER BY s.id;
SELECT s.id FROM sales s WHERE s.id NOT IN (SELECT sale_id FROM sale_lines WHERE line = 1) ORDER BY s.id LIMIT 5;
SELECT s.id FROM sales s WHERE s.amount * 4 > (SELECT sum(pieces) * 10 FROM sale_lines l WHERE l.sale_id = s.id) ORDER BY s.id LIMIT 5;
SELECT s.item, count(*) FROM sales s WHERE s.id IN (SELECT sale_id FROM sale_lines WHERE product = 3) GROUP BY s.item ORDER BY 1;
SELECT count(*) FROM sales s, sale_lines l WHERE NOT EXISTS (SELECT 1 FROM sale_lines m WHERE m.sale_id = s.id AND m.sale_id = l.sale_id);
SELECT count(*) FROM sales s JOIN sale_lines l ON l.sale_id = s.id WHERE NOT EXISTS (SELECT 1 FROM sale_lines m WHERE m.sale_id = s.id AND m.line > l.line);
SELECT s.id FROM sales s WHERE s.id = 7 AND EXISTS (SELECT 1 FROM sale_lines l WHERE l.sale_id = s.id);
SELECT s.id FROM sales s WHERE s.id IN (7, 8, 9) AND s.id IN (SELECT sale_id FROM sale_lines WHERE line = 3) ORDER BY 1;
SELECT x.id, count(*) FROM kinds k JOIN sales x ON k.kind = 'a' WHERE EXISTS (SELECT 1 FROM sale_lines x WHERE x.sale_id = x.line) GROUP BY x.id ORDER BY 1 LIMIT 2;
SELECT s.id FROM sales s JOIN shops h ON h.id = s.shop WHERE EXISTS (SELECT 1 FROM sale_lines l WHERE l.sale_id = s.id AND l.pieces > 5) AND h.city IS NOT NULL ORDER BY s.id;
-- Parameters.
--@ bind: 30|city 1
--@ modes: text binary
SELECT s.id, h.city FROM sales s JOIN shops h ON h.id = s.shop WHERE s.id < $1 AND h.city = $2 ORDER BY s.id;
--@ bind: city 1|3
--@ modes: text binary
SELECT h.city, count(*), sum(s.amount) FROM sales s JOIN shops h ON h.id = s.shop AND h.city <> $1 GROUP BY h.city HAVING count(*) > $2 ORDER BY 1;
--@ bind: 5
--@ modes: text binary
SELECT s.id, $1::int + 1 FROM sales s JOIN shops h ON h.id = s.shop WHERE h.rate > 0.1 ORDER BY s.id LIMIT $1;
-- What cannot go this way.
SELECT count(h), count(h.*) FROM sales s JOIN shops h ON h.id = s.shop;
SELECT s.id, h FROM sales s JOIN shops h ON h.id = s.shop WHERE s.id < 5 ORDER BY s.id;
SELECT s.id FROM sales s JOIN products p ON p.id = s.item AND p.tags = '{x,y}' ORDER BY s.id LIMIT 4;
SELECT count(*) FROM sales s WHERE s.item < (SELECT p.id FROM products p ORDER BY p.weight DESC LIMIT 1);
SELECT count(*) > 0 FROM sales s JOIN shops h ON h.id = s.shop AND random() >= 0;
SELECT count(*) FROM (SELECT s.id FROM sales s JOIN shops h ON h.id = s.shop) x;
SELECT h.city, percentile_cont(0.5) WITHIN GROUP (ORDER BY s.amount) FROM sales s JOIN shops h ON h.id = s.shop GROUP BY h.city ORDER BY 1;
SELECT s.id, rank() OVER (ORDER BY h.rate, s.id) FROM sales s JOIN shops h ON h.id = s.shop WHERE s.id < 9 ORDER BY s.id;
-- Errors, and the transaction's own rows.
SELECT sum(1 / (s.id - 4)) FROM sales s JOIN shops h ON h.id = s.shop;
SELECT s.id FROM sales s JOIN shops h ON h.id = s.nothing;
BEGIN;
INSERT INTO shops (id, city) VALUES (100, 'own');
UPDATE sales SET shop = 100 WHERE id IN (1, 2, 3, 4);
SELECT s.id, h.city FROM sales s JOIN shops h ON h.id = s.shop WHERE h.id > 11 ORDER BY s.id;
SELECT h.id, h.city, count(*) FROM shops h JOIN sales s ON h.id = s.shop GROUP BY h.id ORDER BY h.id DESC LIMIT 2;
DECLARE c CURSOR FOR SELECT s.id FROM sales s JOIN shops h ON h.id = s.shop WHERE h.id > 11 ORDER BY s.id;
FETCH 3 FROM c;
CLOSE c;
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*), sum(h.rate) FROM sales s JOIN shops h ON h.id = s.shop;
SELECT sum(1 / (s.id - 4)) FROM sales s JOIN shops h ON h.id = s.shop;
SELECT 1;
ROLLBACK;
SELECT count(*) FROM sales s JOIN shops h ON h.id = s.shop WHERE h.id > 11;
