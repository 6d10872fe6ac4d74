-- INSERT in its forms.
CREATE TABLE t (k int PRIMARY KEY, v text DEFAULT 'dflt', n int);
CREATE TABLE r (id int PRIMARY KEY, v text);
--@ router: SELECT create_distributed_table('t', 'k')
--@ router: SELECT create_reference_table('r')
INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'd', 4), (5, 'e', 5);
INSERT INTO t (k, n) VALUES (6, 6), (7, NULL);
INSERT INTO t (n, k) VALUES (80, 8), (90, 9), (100, 10);
INSERT INTO t VALUES (11, DEFAULT, DEFAULT), (12, NULL, 12);
SELECT * FROM t ORDER BY k;
INSERT INTO t VALUES (20, 'x', 1), (21, 'y', 2) RETURNING k, v;
INSERT INTO t VALUES (22, 'z', 1) RETURNING *;
INSERT INTO t VALUES (23, 'z', 1) RETURNING k * 2 AS double, v;
INSERT INTO t VALUES (30, 'x', 1), (1, 'again', 2), (31, 'y', 3);
SELECT count(*) FROM t WHERE k >= 30;
INSERT INTO t VALUES (1, 'again', 1) ON CONFLICT DO NOTHING;
INSERT INTO t VALUES (1, 'upserted', 1) ON CONFLICT (k) DO UPDATE SET v = excluded.v;
INSERT INTO t VALUES (1, 'up', 1), (2, 'up', 1), (40, 'new', 1) ON CONFLICT (k) DO UPDATE SET v = excluded.v || t.k;
INSERT INTO t VALUES (1, 'up', 1), (2, 'up', 1), (41, 'new', 1) ON CONFLICT DO NOTHING RETURNING k;
SELECT * FROM t ORDER BY k;
--@ known-difference: refused before PostgreSQL can say what is wrong
INSERT INTO t (v) VALUES ('no key');
--@ known-difference: the router's own words for a key that is NULL
INSERT INTO t VALUES (NULL, 'null key');
INSERT INTO t VALUES (50, 'x'), (51);
INSERT INTO t VALUES (50, 'x', 1, 2);
INSERT INTO t (k, nope) VALUES (50, 1);
--@ known-difference: refused before PostgreSQL can say what is wrong
INSERT INTO t DEFAULT VALUES;
INSERT INTO r VALUES (1, 'a'), (2, 'b');
INSERT INTO r VALUES (1, 'again');
INSERT INTO r VALUES (3, 'c') RETURNING *;
INSERT INTO r SELECT g, 'g' || g FROM generate_series(10, 12) g;
SELECT * FROM r ORDER BY id;
INSERT INTO t VALUES (60, (SELECT v FROM r WHERE id = 1), 1);
SELECT * FROM t WHERE k = 60;
--@ bind: 70|bound|NULL
INSERT INTO t VALUES ($1, $2, $3);
--@ bind: 71|72
INSERT INTO t (k) VALUES ($1), ($2);
SELECT * FROM t WHERE k >= 60 ORDER BY k;
INSERT INTO t SELECT g, 'series', g FROM generate_series(100, 120) g;
SELECT count(*), sum(k), min(v) FROM t WHERE k >= 100;
