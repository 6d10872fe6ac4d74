-- Joins of co-located and reference tables.
CREATE TABLE customers (id int PRIMARY KEY, name text, country text);
CREATE TABLE orders (customer_id int, id int, total numeric, PRIMARY KEY (customer_id, id));
CREATE TABLE countries (code text PRIMARY KEY, name text);
CREATE TABLE notes (id int, note text);
--@ router: SELECT create_distributed_table('customers', 'id')
--@ router: SELECT create_distributed_table('orders', 'customer_id', colocate_with => 'customers')
--@ router: SELECT create_reference_table('countries')
--@ setup
INSERT INTO countries VALUES ('de', 'Germany'), ('pl', 'Poland'), ('jp', 'Japan');
--@ setup
INSERT INTO customers VALUES (1, 'Ada', 'de'), (2, 'Bob', 'pl'), (3, 'Cyd', NULL), (4, 'Dan', 'xx'), (5, 'Eve', 'de');
--@ setup
INSERT INTO orders VALUES (1, 1, 10), (1, 2, 20), (2, 1, 5.5), (4, 1, NULL), (6, 1, 100);
--@ setup
INSERT INTO notes VALUES (1, 'on the home shard'), (2, 'also');
SELECT * FROM countries ORDER BY code;
SELECT * FROM countries WHERE code = 'pl';
SELECT c.name, o.id, o.total FROM customers c JOIN orders o ON o.customer_id = c.id WHERE c.id = 1 ORDER BY o.id;
SELECT c.name, o.id, o.total FROM customers c, orders o WHERE o.customer_id = c.id AND o.customer_id = 2;
SELECT c.name, o.id FROM customers c JOIN orders o ON o.customer_id = c.id ORDER BY 1, 2;
SELECT c.name, o.id FROM customers c LEFT JOIN orders o ON o.customer_id = c.id ORDER BY 1, 2;
SELECT c.name, o.id FROM customers c RIGHT JOIN orders o ON o.customer_id = c.id ORDER BY 2, 1;
SELECT c.name, o.id FROM customers c FULL JOIN orders o ON o.customer_id = c.id ORDER BY 1, 2;
SELECT c.name, k.name FROM customers c JOIN countries k ON k.code = c.country ORDER BY 1;
SELECT c.name, k.name FROM customers c LEFT JOIN countries k ON k.code = c.country ORDER BY 1;
SELECT c.name, k.name FROM customers c JOIN countries k ON k.code = c.country WHERE c.id = 5;
SELECT c.name, k.name, o.total FROM customers c JOIN countries k ON k.code = c.country JOIN orders o ON o.customer_id = c.id ORDER BY 1, 3;
SELECT name, (SELECT count(*) FROM orders o WHERE o.customer_id = c.id) FROM customers c WHERE c.id = 1;
SELECT name FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id) ORDER BY name;
SELECT name FROM customers c WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id) ORDER BY name;
SELECT c.name, sum(o.total) FROM customers c JOIN orders o ON o.customer_id = c.id GROUP BY c.name ORDER BY c.name;
SELECT k.name, count(*) FROM customers c JOIN countries k ON k.code = c.country GROUP BY k.name ORDER BY 1;
SELECT * FROM customers c JOIN orders o USING (id) WHERE c.id = 1 AND o.customer_id = 1;
SELECT * FROM notes ORDER BY id;
SELECT n.note, k.name FROM notes n CROSS JOIN countries k ORDER BY 1, 2;
SELECT count(*) FROM countries k LEFT JOIN notes n ON n.note = k.name;
WITH big AS (SELECT * FROM orders WHERE customer_id = 1) SELECT count(*), sum(total) FROM big;
WITH c AS (SELECT id FROM customers WHERE id = 2) SELECT * FROM orders o, c WHERE o.customer_id = 2 AND c.id = 2;
SELECT * FROM (SELECT id, name FROM customers WHERE id = 3) x;
SELECT a.name, b.name FROM customers a JOIN customers b ON a.id = b.id WHERE a.id = 1;
SELECT k.name, c.name FROM countries k LEFT JOIN customers c ON k.code = c.country;
SELECT c.name, o.id FROM customers c JOIN orders o ON o.id = c.id;
SELECT n.note, c.name FROM notes n JOIN customers c ON n.id = c.id;
UPDATE countries SET name = upper(name) WHERE code = 'de';
SELECT name FROM countries ORDER BY code;
DELETE FROM countries WHERE code = 'jp' RETURNING *;
UPDATE orders SET total = 0 FROM customers c WHERE orders.customer_id = c.id AND c.id = 1 AND orders.customer_id = 1;
DELETE FROM orders USING customers c WHERE orders.customer_id = c.id AND c.id = 2;
SELECT * FROM orders ORDER BY customer_id, id;
