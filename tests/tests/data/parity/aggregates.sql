-- Aggregates and grouping over all shards.
CREATE TABLE t (k int PRIMARY KEY, g text, n int, b bigint, x numeric, f float8, d date, o boolean);
CREATE TABLE empty (k int PRIMARY KEY, n int);
--@ router: SELECT create_distributed_table('t', 'k')
--@ router: SELECT create_distributed_table('empty', 'k')
--@ setup
INSERT INTO t VALUES (1, 'a', 1, 10, 1.10, 0.5, '2024-01-01', true), (2, 'a', 2, 20, 2.25, 1.5, '2024-01-02', false), (3, 'b', 3, 30, 3.333, 2.5, '2024-01-03', NULL), (4, 'b', NULL, 40, NULL, NULL, NULL, true), (5, NULL, 5, NULL, 5, 4.5, '2024-01-05', true), (6, 'c', 5, 50, 0, 0, '2023-12-31', false);
SELECT count(*) FROM t;
SELECT count(n) FROM t;
SELECT count(DISTINCT n) FROM t;
SELECT count(DISTINCT g), count(*) FROM t;
SELECT sum(n), sum(b), sum(x), sum(f) FROM t;
SELECT min(n), max(n), min(g), max(g), min(d), max(d), min(x) FROM t;
SELECT avg(n), avg(b), avg(x), avg(f) FROM t;
SELECT avg(k) FROM t WHERE k IN (1, 2, 4);
SELECT bool_and(o), bool_or(o), every(o) FROM t;
SELECT bit_and(k), bit_or(k) FROM t;
SELECT count(*) AS n, sum(n) total FROM t WHERE k > 2;
SELECT sum(n) + 1, sum(n) * 2 - count(*), -max(k), coalesce(max(n), 0) FROM t;
SELECT sum(n) / count(n) FROM t;
SELECT count(*) > 5 FROM t;
SELECT 'total: ' || count(*) FROM t;
SELECT count(*) FILTER (WHERE n > 1) FROM t;
SELECT sum(n) FILTER (WHERE g = 'a'), count(*) FROM t;
SELECT g, count(*) FROM t GROUP BY g ORDER BY g;
SELECT g, count(*) FROM t GROUP BY g ORDER BY g DESC NULLS LAST;
SELECT g, count(*), sum(n), avg(n), min(x), max(f) FROM t GROUP BY g ORDER BY 1;
SELECT count(*), g FROM t GROUP BY g ORDER BY 1 DESC, 2;
SELECT g FROM t GROUP BY g;
SELECT g, count(*) FROM t GROUP BY 1;
SELECT g, o, count(*) FROM t GROUP BY g, o;
SELECT g, count(*) AS c FROM t GROUP BY g HAVING count(*) > 1 ORDER BY g;
SELECT g FROM t GROUP BY g HAVING sum(n) > 2;
SELECT g, count(*) FROM t GROUP BY g ORDER BY count(*), g LIMIT 2;
SELECT n % 2, count(*) FROM t GROUP BY n % 2;
SELECT n % 2 AS odd, count(*) FROM t GROUP BY odd ORDER BY odd;
SELECT upper(g), sum(n) FROM t GROUP BY upper(g) ORDER BY 1;
SELECT k, count(*) FROM t GROUP BY k ORDER BY k;
SELECT k, g, count(*) FROM t GROUP BY k, g ORDER BY k;
SELECT DISTINCT g FROM t;
SELECT DISTINCT g FROM t ORDER BY g;
SELECT DISTINCT g, n FROM t ORDER BY g, n;
SELECT DISTINCT n % 2 FROM t;
SELECT DISTINCT count(*) FROM t GROUP BY g;
SELECT sum(DISTINCT n) FROM t;
SELECT count(*), sum(n), min(n), max(n), avg(n), bool_and(n > 0) FROM empty;
SELECT n, count(*) FROM empty GROUP BY n;
SELECT DISTINCT n FROM empty;
SELECT coalesce(sum(n), 0) FROM empty;
SELECT count(*) FROM empty HAVING count(*) > 0;
SELECT count(*) FROM t HAVING count(*) > 0;
SELECT 1 FROM t HAVING true;
SELECT count(*) FROM t WHERE false;
SELECT sum(n) FROM t WHERE k = 1;
SELECT g, sum(n) FROM t WHERE k = 1 GROUP BY g;
SELECT count(*) FROM t WHERE k IN (1, 2, 3);
SELECT array_agg(g) FROM t WHERE k = 1;
SELECT string_agg(g, ',') FROM t WHERE k = 1;
SELECT stddev(n), variance(n) FROM t WHERE k = 1;
SELECT max(k) - min(k) AS spread FROM t;
SELECT sum(b)::int FROM t;
SELECT round(avg(n), 2) FROM t;
SELECT count(*)::text FROM t;
SELECT CASE WHEN count(*) > 3 THEN 'many' ELSE 'few' END FROM t;
SELECT g, sum(n) FROM t GROUP BY g HAVING sum(n) IS NOT NULL ORDER BY sum(n) DESC, g;
SELECT sum(x), avg(x) FROM t WHERE x IS NULL;
SELECT sum(f), avg(f) FROM t WHERE k < 4;
--@ bind: 2
SELECT count(*), sum(n) FROM t WHERE k > $1;
--@ bind: a
SELECT g, count(*) FROM t WHERE g = $1 GROUP BY g;
--@ bind: 10
SELECT sum(n + $1) FROM t;
