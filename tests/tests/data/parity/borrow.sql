-- Statements that need rows of several shards together: PostgreSQL runs them over copies.
CREATE TYPE feeling AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, country text, since date, mood feeling, tags text[], moods feeling[]);
CREATE TABLE orders (customer_id int, id int, amount numeric(10, 2), note text, at timestamptz, info jsonb, PRIMARY KEY (customer_id, id));
CREATE TABLE items (id int PRIMARY KEY, order_id int, product int, quantity int, price float8);
CREATE TABLE countries (code text PRIMARY KEY, title text);
CREATE TABLE plain (id int PRIMARY KEY, word text);
--@ router: SELECT create_distributed_table('customers', 'id')
--@ router: SELECT create_distributed_table('orders', 'customer_id')
--@ router: SELECT create_distributed_table('items', 'id')
--@ router: SELECT create_reference_table('countries')
INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France'), ('pl', 'Poland'), ('xx', NULL);
INSERT INTO plain VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, NULL);
INSERT INTO customers VALUES (1, 'Ada', 'de', '2020-01-01', 'ok', '{a,b}', '{ok,sad}'), (2, 'Bob', 'fr', '2021-02-03', 'sad', NULL, NULL), (3, 'Cyd', 'pl', NULL, 'happy', '{}', '{happy}'), (4, 'Dan', NULL, '2020-05-05', NULL, '{c}', '{}'), (5, 'Eve', 'de', '2019-12-31', 'ok', '{"x y","z,\"q\""}', '{NULL,ok}'), (6, 'Fay', 'xx', '2020-01-01', 'ok', NULL, NULL);
INSERT INTO orders VALUES (1, 1, 10.50, 'first', '2024-01-01 10:00+00', '{"a": 1}'), (1, 2, 20, NULL, '2024-01-02 10:00+00', '{"a": 2}'), (2, 3, 5.25, 'bob', '2024-02-01 10:00+00', NULL), (3, 4, 100, 'cyd', '2024-02-02 10:00+00', '[]'), (3, 5, NULL, 'none', NULL, 'null'), (5, 6, 7.75, 'eve', '2024-03-01 10:00+00', '"s"'), (5, 7, 7.75, 'eve2', '2024-03-01 11:00+00', '{}'), (9, 8, 1, 'orphan', '2024-03-02 10:00+00', '{"b": [1, 2]}');
INSERT INTO items VALUES (1, 1, 100, 2, 1.5), (2, 1, 101, 1, 2.25), (3, 3, 100, 5, 0.1), (4, 4, 102, 1, 1e10), (5, 6, 100, 1, 'NaN'), (6, 6, 103, 3, 3.3), (7, 8, 101, 2, 1), (8, NULL, 104, 1, NULL);
-- Joins on other columns than the keys.
SELECT o.id, i.id, i.price FROM orders o JOIN items i ON i.order_id = o.id ORDER BY i.id;
SELECT o.note, sum(i.quantity) FROM orders o LEFT JOIN items i ON i.order_id = o.id GROUP BY o.note ORDER BY o.note NULLS FIRST;
SELECT c.name, o.id, i.product FROM customers c JOIN orders o ON o.customer_id = c.id JOIN items i ON i.order_id = o.id ORDER BY 1, 2, 3;
SELECT a.id, b.id FROM items a JOIN items b ON a.product = b.product AND a.id < b.id ORDER BY 1, 2;
SELECT c.name, i.id FROM customers c FULL JOIN items i ON i.quantity = c.id ORDER BY 1 NULLS LAST, 2 NULLS LAST;
SELECT k.title, c.name FROM countries k LEFT JOIN customers c ON c.country = k.code ORDER BY k.code, c.name;
SELECT c.name FROM customers c RIGHT JOIN countries k ON c.country = k.code WHERE c.id IS NULL;
SELECT c.name, p.word FROM customers c JOIN plain p ON p.id = c.id ORDER BY c.id;
SELECT p.word, o.id FROM plain p LEFT JOIN orders o ON o.customer_id = p.id ORDER BY p.id, o.id;
-- In binary, arrays carry OIDs of their own in each database.
--@ modes: simple text
SELECT * FROM customers c CROSS JOIN plain p ORDER BY c.id, p.id LIMIT 3;
SELECT * FROM orders NATURAL JOIN items ORDER BY id;
SELECT id, note, price FROM orders JOIN items USING (id) ORDER BY id;
SELECT c.name, x.id, x.amount FROM customers c, LATERAL (SELECT o.id, o.amount FROM orders o WHERE o.customer_id <> c.id ORDER BY o.id LIMIT 1) x ORDER BY c.id;
SELECT c.name, x.total FROM customers c LEFT JOIN LATERAL (SELECT sum(amount) AS total FROM orders o WHERE o.customer_id = c.id) x ON true ORDER BY c.id;
-- Subqueries.
SELECT name FROM customers WHERE id IN (SELECT customer_id FROM orders WHERE amount > 6) ORDER BY id;
SELECT name FROM customers WHERE id NOT IN (SELECT customer_id FROM orders) ORDER BY id;
SELECT name FROM customers c WHERE EXISTS (SELECT 1 FROM items i WHERE i.product = 100 + c.id) ORDER BY id;
SELECT name FROM customers c WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id) ORDER BY id;
SELECT name, (SELECT count(*) FROM items i WHERE i.quantity = c.id) FROM customers c ORDER BY id;
SELECT (SELECT count(*) FROM orders), (SELECT max(price) FROM items WHERE price < 100);
SELECT EXISTS (SELECT 1 FROM orders WHERE note = 'cyd');
SELECT amount FROM orders WHERE amount > ALL (SELECT price::numeric FROM items WHERE price < 50) ORDER BY 1;
SELECT avg(total) FROM (SELECT customer_id, sum(amount) AS total FROM orders GROUP BY customer_id) t;
SELECT t.country, t.n FROM (SELECT country, count(*) n FROM customers GROUP BY country) t WHERE t.n > 1;
-- Common table expressions.
WITH big AS (SELECT * FROM orders WHERE amount >= 10) SELECT customer_id, count(*) FROM big GROUP BY 1 ORDER BY 1;
WITH t (a, b) AS (SELECT id, name FROM customers), u AS MATERIALIZED (SELECT * FROM items) SELECT a, b, quantity FROM t JOIN u ON u.quantity = t.a ORDER BY 1, u.id;
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 4) SELECT n, name FROM r JOIN customers c ON c.id = n ORDER BY 1;
WITH RECURSIVE walk AS (SELECT id, order_id FROM items WHERE id = 7 UNION SELECT i.id, i.order_id FROM items i JOIN walk w ON i.id = w.order_id - 1) SELECT * FROM walk ORDER BY id;
WITH orders AS (SELECT 1 AS id) SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.id + 1 JOIN items i ON i.id = c.id;
-- Set operations.
SELECT id FROM customers UNION SELECT order_id FROM items ORDER BY 1 NULLS LAST;
SELECT id FROM customers INTERSECT SELECT quantity FROM items ORDER BY 1;
SELECT id FROM items EXCEPT ALL SELECT id FROM customers ORDER BY 1;
(SELECT name FROM customers ORDER BY id LIMIT 2) UNION ALL (SELECT note FROM orders ORDER BY id DESC LIMIT 2);
SELECT id FROM orders WHERE customer_id = 1 UNION ALL SELECT id FROM orders WHERE customer_id = 3 ORDER BY 1;
-- Windows.
SELECT id, amount, rank() OVER (ORDER BY amount DESC NULLS LAST), sum(amount) OVER (PARTITION BY note ORDER BY id) FROM orders ORDER BY id;
SELECT count(*) OVER (), row_number() OVER w, lag(id) OVER w FROM items WINDOW w AS (ORDER BY price, id) ORDER BY 2;
-- Grouping and aggregates.
SELECT country, mood, count(*) FROM customers GROUP BY ROLLUP (country, mood) ORDER BY 1 NULLS LAST, 2 NULLS LAST, 3;
SELECT country, count(*), grouping(country) FROM customers GROUP BY GROUPING SETS ((country), ()) ORDER BY 1 NULLS LAST, 3;
SELECT product, sum(quantity) FROM items GROUP BY CUBE (product) ORDER BY 1 NULLS LAST;
SELECT string_agg(name, ',' ORDER BY name DESC) FROM customers;
SELECT array_agg(id ORDER BY id), json_agg(amount ORDER BY id), jsonb_object_agg(id, note) FROM orders;
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY amount), mode() WITHIN GROUP (ORDER BY customer_id) FROM orders;
SELECT count(DISTINCT customer_id), count(DISTINCT note) FILTER (WHERE amount > 6), stddev(amount), variance(quantity) FROM orders JOIN items ON items.order_id = orders.id;
SELECT count(DISTINCT country), sum(DISTINCT amount) FROM customers JOIN orders ON orders.customer_id = customers.id;
SELECT bit_or(quantity), every(quantity > 0), regr_count(price, quantity) FROM items WHERE price < 100;
SELECT DISTINCT ON (country) country, name FROM customers ORDER BY country NULLS FIRST, name DESC;
SELECT amount FROM orders ORDER BY amount NULLS LAST FETCH FIRST 3 ROWS WITH TIES;
SELECT country, count(*) FROM customers GROUP BY country HAVING count(*) > (SELECT count(*) FROM items WHERE product = 100) - 2 ORDER BY 1;
-- A primary key stands for the other columns.
SELECT c.name, c.country, count(i.id) FROM customers c LEFT JOIN items i ON i.product = 100 + c.id GROUP BY c.id ORDER BY c.id;
SELECT o.note, o.amount, sum(i.quantity) FROM orders o JOIN items i ON i.order_id = o.id GROUP BY o.customer_id, o.id ORDER BY o.id;
SELECT o.note, count(*) FROM orders o JOIN items i ON i.order_id = o.id GROUP BY o.id;
-- Whole rows, types with OIDs of their own, names.
--@ modes: simple text
SELECT c FROM customers c JOIN items i ON i.id = c.id WHERE i.quantity = 1 ORDER BY c.id;
--@ modes: simple text
SELECT c FROM customers c JOIN items i ON i.product = 100 + c.id WHERE i.quantity = 1 ORDER BY c.id;
SELECT row_to_json(o) FROM orders o JOIN items i ON i.order_id = o.id ORDER BY i.id;
--@ modes: simple text
SELECT c.mood, c.moods, c.tags, i.id FROM customers c JOIN items i ON i.product = 100 + c.id ORDER BY i.id;
SELECT mood, count(*) OVER (PARTITION BY mood) FROM customers ORDER BY id;
-- Columns with the name of their schema.
SELECT "orders".id, public.customers.name FROM public.orders, customers WHERE "orders".note = lower(customers.name) ORDER BY 1;
SELECT public.orders.id FROM public.orders JOIN items ON items.order_id = public.orders.id;
SELECT public . orders . id, public.items.* FROM public.orders JOIN items ON "public"."items".order_id = public.orders.id ORDER BY public.items.id;
SELECT public.plain.word, public.customers.name FROM customers JOIN plain ON public.plain.id = public.customers.id ORDER BY 2;
SELECT (SELECT max(public.items.id) FROM items WHERE items.order_id = public.orders.id) FROM orders ORDER BY public.orders.id, 1;
SELECT public.orders.id FROM public.orders AS o JOIN items ON items.order_id = o.id;
SELECT public.orders.nothing FROM public.orders JOIN items ON items.order_id = public.orders.id;
--@ refused 0A000
WITH orders AS (SELECT 1 AS id) SELECT public.orders.id FROM public.orders JOIN items ON items.order_id = public.orders.id;
--@ refused 0A000
SELECT (SELECT public.customers.id FROM (SELECT 9 AS id) AS customers) FROM public.customers JOIN items ON items.product = 100 + public.customers.id;
SELECT count(*) FROM (TABLE orders UNION ALL TABLE orders) t;
SELECT info->>'a', i.id FROM orders o JOIN items i ON i.order_id = o.id ORDER BY i.id;
SELECT i.id * 2, count(*) FROM items i JOIN orders o ON o.id = i.order_id GROUP BY i.id * 2 ORDER BY 1;
--@ refused 0A000
SELECT o.ctid FROM orders o JOIN items i ON i.order_id = o.id;
--@ refused 0A000
SELECT o.id FROM orders o JOIN items i ON i.order_id = o.id FOR UPDATE;
-- Errors have their place in the client's own text.
SELECT o.nope FROM orders o JOIN items i ON i.order_id = o.id;
SELECT id FROM orders o JOIN items i ON i.order_id = o.id;
SELECT o.id, count(*) FROM orders o JOIN items i ON i.order_id = o.id;
SELECT sum(1 / (i.quantity - 1)) FROM orders o JOIN items i ON i.order_id = o.id;
-- Conditions that are decided on the shards.
SELECT o.id FROM orders o JOIN items i ON i.order_id = o.id WHERE o.amount > 6 AND i.quantity IN (1, 2) AND (o.note LIKE 'f%' OR o.note IS NULL) ORDER BY 1;
SELECT c.name, i.id FROM customers c LEFT JOIN items i ON i.quantity = c.id WHERE i.id IS NULL AND c.country = 'de' ORDER BY 1;
SELECT o.id FROM orders o JOIN items i ON i.order_id = o.id WHERE o.customer_id IN (1, 5) ORDER BY 1, i.id;
SELECT o.id FROM orders o JOIN items i ON i.order_id = o.id WHERE o.customer_id = 1 AND i.price BETWEEN 1 AND 2;
SELECT o.id FROM orders o JOIN items i ON i.order_id = o.id WHERE o.customer_id = NULL;
-- Parameters.
--@ bind: 6|100
SELECT o.id, i.id FROM orders o JOIN items i ON i.order_id = o.id WHERE o.amount > $1 AND i.product = $2 ORDER BY 1, 2;
--@ bind: 1
SELECT o.id FROM orders o JOIN items i ON i.order_id = o.id WHERE o.customer_id = $1 ORDER BY i.id;
--@ bind: {1,3}
SELECT o.id FROM orders o JOIN items i ON i.order_id = o.id WHERE o.customer_id = ANY ($1) ORDER BY i.id;
--@ bind: NULL
SELECT count(*) FROM orders o JOIN items i ON i.order_id = o.id AND o.note = $1;
-- Conditions on one table, with parameters: they are asked of its shards where the values can be.
--@ bind: 5.25
SELECT o.id, i.id FROM orders o JOIN items i ON i.order_id = o.id WHERE o.amount > $1 ORDER BY i.id;
--@ bind: 2020-01-01
SELECT c.name, i.id FROM customers c JOIN items i ON i.product = 100 + c.id WHERE c.since >= $1 ORDER BY i.id;
--@ bind: de|fr
SELECT c.name, i.id FROM customers c JOIN items i ON i.product = 100 + c.id WHERE c.country IN ($1, $2) ORDER BY i.id;
--@ bind: %a%
SELECT c.name, i.id FROM customers c JOIN items i ON i.product = 100 + c.id WHERE c.name LIKE $1 ORDER BY i.id;
--@ bind: 2
SELECT c.name, i.id FROM customers c LEFT JOIN items i ON i.product = 100 + c.id AND i.quantity >= $1 ORDER BY 1, 2;
--@ bind: 1
SELECT c.name, i.id FROM customers c JOIN items i ON i.product = 100 + c.id WHERE i.quantity >= $1 AND c.id >= $1 ORDER BY i.id;
--@ bind: 5000000000
SELECT count(*) FROM orders o JOIN items i ON i.order_id = o.id WHERE i.quantity < $1::bigint AND o.customer_id < $1;
--@ bind: it's an \ odd "note"
SELECT count(*) FROM orders o JOIN items i ON i.order_id = o.id WHERE o.note <> $1;
--@ bind: NULL
SELECT count(*) FROM orders o JOIN items i ON i.order_id = o.id WHERE o.note = $1;
--@ bind: NULL
SELECT count(*) FROM orders o JOIN items i ON i.order_id = o.id WHERE $1::int IS NULL AND i.quantity > 0;
--@ bind: happy
SELECT c.name, i.id FROM customers c JOIN items i ON i.product = 100 + c.id WHERE c.mood::text < $1 ORDER BY i.id;
--@ bind: 1|3
SELECT count(*) FROM orders o JOIN items i ON i.order_id = o.id WHERE i.quantity BETWEEN $1 AND $2;
--@ bind: 2
SELECT o.note, (SELECT count(*) FROM items i WHERE i.order_id = o.id AND i.quantity < $1) FROM orders o ORDER BY o.id;
-- In a transaction: its own changes are seen.
BEGIN;
UPDATE orders SET note = 'changed' WHERE customer_id = 1;
INSERT INTO items VALUES (20, 2, 100, 1, 1);
SELECT o.note, i.id FROM orders o JOIN items i ON i.order_id = o.id ORDER BY i.id;
ROLLBACK;
SELECT o.note, i.id FROM orders o JOIN items i ON i.order_id = o.id ORDER BY i.id;
BEGIN;
INSERT INTO plain VALUES (9, 'nine');
--@ refused 0A000
SELECT o.id FROM orders o JOIN plain p ON p.id = o.id;
ROLLBACK;
-- Whoever may read some columns only, and asks for no others.
GRANT USAGE ON SCHEMA public TO pg_checkpoint;
GRANT SELECT ON customers TO pg_checkpoint;
GRANT SELECT (id, quantity) ON items TO pg_checkpoint;
SET ROLE pg_checkpoint;
SELECT count(*) FROM (SELECT * FROM customers) c WHERE id IN (SELECT quantity FROM items);
SELECT count(*) FROM customers c JOIN items i ON i.product = c.id;
SELECT count(*) FROM (SELECT * FROM items) i JOIN customers c ON c.id = i.quantity;
RESET ROLE;
