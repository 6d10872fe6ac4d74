-- Sorted streams of all shards, merged: types, directions, hidden keys, DISTINCT, ties.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE v (k int PRIMARY KEY, i2 smallint, i8 bigint, n numeric, f4 real, f8 double precision, b boolean, t text, c char(4), vc varchar(9), bin bytea, u uuid, d date, tm time, ttz timetz, ts timestamp, tz timestamptz, iv interval, ip inet, net cidr, mac macaddr, o oid, m money, ch "char", e mood, j jsonb, bits varbit, arr int[], icu text COLLATE "und-x-icu", tc text COLLATE "C", nm name, r int4range);
INSERT INTO v SELECT g, (g * 37) % 11 - 5, (g * 7919) % 101 - 50, CASE g % 9 WHEN 0 THEN 'NaN' WHEN 1 THEN NULL ELSE ((g * 31) % 17 - 8) * (10::numeric ^ ((g % 7) - 3)) END, CASE g % 8 WHEN 0 THEN 'Infinity' WHEN 1 THEN '-0' ELSE (g % 5) / 3.0 END, CASE g % 8 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' WHEN 2 THEN 0 ELSE (g % 5) / -3.0 END, CASE g % 3 WHEN 0 THEN NULL ELSE g % 3 = 1 END, (ARRAY['b', 'a', 'B', 'A', 'ab', 'a b', '', NULL, 'é', 'z', '_'])[g % 11 + 1], (ARRAY['x', 'x ', 'xy', NULL])[g % 4 + 1], (ARRAY['q', 'q ', 'Q', ''])[g % 4 + 1], decode((ARRAY['00', '0000', '01', '0001', '', 'ff'])[g % 6 + 1], 'hex'), md5((g % 13)::text)::uuid, date '2000-01-01' + (g * 13 % 40 - 20), time '00:00' + (g % 7) * interval '3 hours', (time '12:00' + (g % 5) * interval '1 hour')::text::timetz, CASE g % 10 WHEN 0 THEN 'infinity' WHEN 1 THEN '-infinity' WHEN 2 THEN '0044-03-15 BC' ELSE timestamp '2020-01-01' + g % 6 * interval '1 day' END, timestamptz '2020-01-01 00:00Z' - g % 6 * interval '1 hour', (ARRAY['1 mon', '30 days', '29 days 24:00', '-1 day', '0', '1 year'])[g % 6 + 1]::interval, (ARRAY['10.0.0.1', '10.0.0.0/8', '10.1.0.0/16', '::1', '192.168.0.1/24', '9.255.0.0/16'])[g % 6 + 1]::inet, (ARRAY['10.0.0.0/8', '10.1.0.0/16', '::/0'])[g % 3 + 1]::cidr, (ARRAY['08:00:2b:01:02:03', '00:00:2b:01:02:03', 'ff:00:2b:01:02:03'])[g % 3 + 1]::macaddr, (g * 1000003) % 4294967295, (g % 5)::numeric::money, chr(60 + g % 60)::"char", (ARRAY['sad', 'ok', 'happy', NULL])[g % 4 + 1]::mood, (ARRAY['1', '"a"', '[1]', '{"a": 1}', 'null'])[g % 5 + 1]::jsonb, (ARRAY['1', '10', '01', ''])[g % 4 + 1]::varbit, ARRAY[g % 3, g % 2], (ARRAY['b', 'a', 'B', 'A', 'ab', 'a b', '', NULL, 'é', 'z', '_'])[g % 11 + 1], (ARRAY['b', 'a', 'B', 'A', 'é'])[g % 5 + 1], (ARRAY['b', 'a', 'B'])[g % 3 + 1], int4range(g % 4, g % 4 + g % 3) FROM generate_series(1, 90) g;
--@ router: SELECT create_distributed_table('v', 'k')
SELECT k, i2 FROM v ORDER BY i2, k;
SELECT k, i8 FROM v ORDER BY i8 DESC, k DESC;
SELECT k, n FROM v ORDER BY n, k;
SELECT k, n FROM v ORDER BY n DESC NULLS LAST, k;
SELECT k, n FROM v ORDER BY n NULLS FIRST, k;
SELECT k, f4 FROM v ORDER BY f4, k;
SELECT k, f8 FROM v ORDER BY f8 DESC, k;
SELECT k, b FROM v ORDER BY b, k;
SELECT k, b FROM v ORDER BY b DESC, k;
SELECT k, t FROM v ORDER BY t, k;
SELECT k, t FROM v ORDER BY t DESC, k DESC;
SELECT k, c FROM v ORDER BY c, k;
SELECT k, vc FROM v ORDER BY vc, k;
SELECT k, bin FROM v ORDER BY bin, k;
SELECT k, u FROM v ORDER BY u, k;
SELECT k, d FROM v ORDER BY d, k;
SELECT k, tm FROM v ORDER BY tm DESC, k;
SELECT k, ttz FROM v ORDER BY ttz, k;
SELECT k, ts FROM v ORDER BY ts, k;
SELECT k, tz FROM v ORDER BY tz DESC, k;
SELECT k, iv FROM v ORDER BY iv, k;
SELECT k, ip FROM v ORDER BY ip, k;
SELECT k, net FROM v ORDER BY net DESC, k;
SELECT k, mac FROM v ORDER BY mac, k;
SELECT k, o FROM v ORDER BY o, k;
SELECT k, m FROM v ORDER BY m DESC, k;
SELECT k, ch FROM v ORDER BY ch, k;
SELECT k, nm FROM v ORDER BY nm, k;
-- Compared by PostgreSQL.
SELECT k, e FROM v ORDER BY e, k;
SELECT k, e FROM v ORDER BY e DESC NULLS LAST, k LIMIT 20;
SELECT k, j FROM v ORDER BY j, k;
SELECT k, bits FROM v ORDER BY bits DESC, k;
SELECT k, r FROM v ORDER BY r, k;
SELECT k, icu FROM v ORDER BY icu, k;
SELECT k, icu FROM v ORDER BY icu DESC NULLS LAST, k DESC OFFSET 30;
SELECT k, t FROM v ORDER BY t COLLATE "und-x-icu", k;
SELECT k FROM v ORDER BY lower(t) COLLATE "und-x-icu" DESC, tc, k LIMIT 50;
SELECT k, tc FROM v ORDER BY tc, k;
SELECT k, tc FROM v ORDER BY tc COLLATE "und-x-icu", k;
-- Arrays and rows, over copies.
SELECT k, arr FROM v ORDER BY arr, k;
SELECT k FROM v ORDER BY (i2, b), k LIMIT 9;
-- Keys that are not selected, are selected twice, or are expressions.
SELECT t FROM v ORDER BY i8, k;
SELECT FROM v ORDER BY k LIMIT 3;
SELECT k, k, i2 AS k2 FROM v ORDER BY 3, 2 DESC;
SELECT i2 + 1 AS next, -k AS minus FROM v ORDER BY next, minus;
SELECT * FROM v ORDER BY i2 DESC, k LIMIT 2;
SELECT v.*, i2 * 2 AS double FROM v ORDER BY double, k LIMIT 2;
SELECT v.k, v.i2 FROM v ORDER BY v.i2 + v.k, v.k LIMIT 7;
SELECT k FROM v ORDER BY i2 IS NULL, b IS NOT TRUE, k;
SELECT k FROM v ORDER BY CASE WHEN k % 2 = 0 THEN k ELSE -k END;
SELECT k, generate_series(1, 2) AS s FROM v WHERE k < 9 ORDER BY s DESC, k;
TABLE v ORDER BY k LIMIT 1;
SELECT k FROM v ORDER BY 'a'::text, k LIMIT 3;
SELECT k FROM v ORDER BY 2;
SELECT k FROM v ORDER BY 'a', k;
SELECT k FROM v ORDER BY nothing;
SELECT k FROM v ORDER BY i2 USING >, k LIMIT 3;
SELECT count(*) FROM (SELECT k FROM v ORDER BY random() LIMIT 5) x;
--@ bind: 3|10
SELECT k FROM v WHERE i2 > $1 ORDER BY i8 + $2, k;
--@ bind: 4|2
SELECT k FROM v ORDER BY i2 DESC, k LIMIT $1 OFFSET $2;
--@ bind: NULL|80
SELECT k FROM v ORDER BY k LIMIT $1 OFFSET $2;
-- LIMIT, OFFSET, ties.
SELECT k FROM v ORDER BY k LIMIT 0;
SELECT k FROM v ORDER BY k OFFSET 87;
SELECT k FROM v ORDER BY k LIMIT 5 OFFSET 500;
SELECT i2 FROM v ORDER BY i2 FETCH FIRST 3 ROWS WITH TIES;
SELECT i2 FROM v ORDER BY i2 DESC OFFSET 7 ROWS FETCH FIRST 1 ROWS WITH TIES;
SELECT e FROM v ORDER BY e FETCH FIRST 2 ROWS WITH TIES;
SELECT icu FROM v ORDER BY icu OFFSET 3 FETCH FIRST 5 ROWS WITH TIES;
SELECT k FROM v ORDER BY k FETCH FIRST 0 ROWS WITH TIES;
--@ bind: 2
SELECT i2 FROM v ORDER BY i2 FETCH FIRST $1 ROWS WITH TIES;
SELECT k FROM v FETCH FIRST 2 ROWS WITH TIES;
-- DISTINCT.
SELECT DISTINCT i2 FROM v ORDER BY i2;
SELECT DISTINCT i2 FROM v;
SELECT DISTINCT b, i2 FROM v ORDER BY i2 DESC, b NULLS FIRST;
SELECT DISTINCT b, i2 FROM v ORDER BY i2 DESC LIMIT 0;
SELECT DISTINCT t FROM v;
SELECT DISTINCT t, b FROM v;
SELECT DISTINCT icu FROM v ORDER BY icu;
SELECT DISTINCT icu FROM v;
SELECT DISTINCT e, j FROM v;
SELECT DISTINCT c, nm, tc FROM v ORDER BY nm, c, tc;
SELECT DISTINCT i2 FROM v ORDER BY i2 LIMIT 3 OFFSET 2;
SELECT DISTINCT i2 FROM v ORDER BY k;
SELECT DISTINCT i2 % 2 AS odd, b FROM v ORDER BY odd, b;
SELECT DISTINCT * FROM v WHERE k < 4 ORDER BY k;
SELECT DISTINCT v.* FROM v WHERE k < 4;
SELECT DISTINCT i2 FROM v ORDER BY i2 FETCH FIRST 3 ROWS WITH TIES;
SELECT DISTINCT k, i2 FROM v WHERE k < 20;
SELECT DISTINCT arr FROM v ORDER BY arr;
SELECT DISTINCT f4, f8, n FROM v ORDER BY n, f4, f8;
-- DISTINCT ON.
SELECT DISTINCT ON (i2) i2, k FROM v ORDER BY i2, k;
SELECT DISTINCT ON (i2) k FROM v ORDER BY i2 DESC, k DESC LIMIT 4;
SELECT DISTINCT ON (b, i2) b, i2, k FROM v ORDER BY i2, b DESC, k;
SELECT DISTINCT ON (1) i2, k FROM v ORDER BY 1, 2 DESC;
SELECT DISTINCT ON (i2) i2 FROM v;
SELECT DISTINCT ON (i2, b) i2, b FROM v ORDER BY i2;
SELECT DISTINCT ON (e) e, k FROM v ORDER BY e DESC, k;
SELECT DISTINCT ON (icu) icu, k FROM v ORDER BY icu, k DESC OFFSET 1;
SELECT DISTINCT ON (i2) i2, k FROM v ORDER BY b, i2;
-- Groups that are on one shard each.
SELECT k, count(*), array_agg(i2) FROM v GROUP BY k ORDER BY k LIMIT 5;
SELECT k, i2, string_agg(t, ',') FROM v GROUP BY k, i2 HAVING min(i2) > 2 ORDER BY sum(i8) DESC, k LIMIT 5;
SELECT k AS key, percentile_cont(0.5) WITHIN GROUP (ORDER BY i8) FROM v WHERE k < 9 GROUP BY 1 ORDER BY 1;
SELECT v.k, avg(n) FROM v WHERE k BETWEEN 10 AND 15 GROUP BY v.k;
SELECT DISTINCT count(*) FROM v GROUP BY k;
SELECT k FROM v GROUP BY k ORDER BY count(*), k DESC LIMIT 3;
SELECT k % 3, count(*) FROM v GROUP BY 1 ORDER BY 1;
CREATE TABLE w (k int, x int, PRIMARY KEY (k, x));
INSERT INTO w SELECT g % 50, g FROM generate_series(1, 120) g;
--@ router: SELECT create_distributed_table('w', 'k')
SELECT w.k, count(*), array_agg(x ORDER BY x) FROM w GROUP BY w.k ORDER BY 2 DESC, 1 LIMIT 6;
SELECT v.k, count(w.x) FROM v LEFT JOIN w ON w.k = v.k GROUP BY v.k ORDER BY 2 DESC, 1 LIMIT 60;
SELECT w.k, count(*) FROM v LEFT JOIN w ON w.k = v.k GROUP BY w.k ORDER BY 1 NULLS FIRST LIMIT 3;
SELECT v.k, w.x, v.t FROM v JOIN w ON w.k = v.k ORDER BY w.x DESC LIMIT 10;
SELECT * FROM v JOIN w USING (k) ORDER BY x LIMIT 2;
SELECT v.*, w.* FROM v JOIN w ON w.k = v.k ORDER BY x LIMIT 2;
SELECT DISTINCT v.i2, w.k FROM v JOIN w ON w.k = v.k ORDER BY w.k, v.i2 LIMIT 5;
-- In a transaction, and errors.
BEGIN;
INSERT INTO w VALUES (7, 1000);
SELECT k, x FROM w ORDER BY x DESC LIMIT 2;
SELECT k, x FROM w WHERE x > 110 ORDER BY x FOR UPDATE;
SELECT DISTINCT k FROM w ORDER BY k LIMIT 2;
SELECT e FROM v ORDER BY e LIMIT 1;
ROLLBACK;
SELECT 1 / (k - 50) FROM v ORDER BY k;
SELECT k FROM v ORDER BY 1 / (k - 50);
SELECT k FROM v ORDER BY k LIMIT -1;
SELECT k FROM v WHERE k IN (1, 2, 3, 80) ORDER BY k DESC;
SELECT k, icu FROM v WHERE k IN (1, 2, 3, 80) ORDER BY icu, k;
-- Pieces: the client's LIMIT ends what the shards still have.
SELECT k, g FROM v, generate_series(1, 1000) g ORDER BY g DESC, k LIMIT 6000;
BEGIN;
SELECT k, g FROM v, generate_series(1, 1000) g ORDER BY g, k LIMIT 24000;
SELECT count(*) FROM v;
SELECT DISTINCT ON (g) k, g FROM v, generate_series(1, 6000) g ORDER BY g, k DESC LIMIT 5500;
COMMIT;
SELECT k, g / (g - 1000) FROM v, generate_series(1, 1000) g ORDER BY g, k LIMIT 6000;
-- Windows of rows that PostgreSQL compares.
SELECT k, g FROM v, generate_series(1, 40) g ORDER BY repeat('x', 2000) || icu COLLATE "und-x-icu", g, k;
BEGIN;
SELECT DISTINCT ON (repeat('x', 2000) || icu COLLATE "und-x-icu", g) icu, g, k FROM v, generate_series(1, 40) g ORDER BY repeat('x', 2000) || icu COLLATE "und-x-icu" DESC, g, k;
SELECT DISTINCT repeat('x', 2000) || e FROM v, generate_series(1, 40) g;
SELECT g FROM v, generate_series(1, 40) g ORDER BY g::text || repeat('x', 2000) COLLATE "und-x-icu" OFFSET 1000 FETCH FIRST 7 ROWS WITH TIES;
COMMIT;
SELECT DISTINCT e, g FROM v, generate_series(1, 40) g ORDER BY g, e;
-- Groups that meet.
SELECT i2, count(*), sum(k), sum(i8), sum(n), avg(k), avg(n), min(d), max(ts), bool_and(b), bool_or(b), min(n), max(iv) FROM v GROUP BY i2;
SELECT i2, sum(n) + count(*) AS x FROM v WHERE n <> 'NaN' GROUP BY i2 HAVING count(*) > 7 ORDER BY x DESC, i2 LIMIT 4;
SELECT t, count(*), min(t), max(vc) FROM v GROUP BY t;
SELECT t, b, count(*) FROM v GROUP BY b, t ORDER BY t, b NULLS FIRST;
SELECT c, vc, count(*) FROM v GROUP BY c, vc;
SELECT f8, f4, count(*) FROM v GROUP BY f8, f4;
SELECT sum(iv), avg(iv) FROM v GROUP BY iv ORDER BY 2;
SELECT e, count(*), max(e) FROM v GROUP BY e ORDER BY e;
SELECT d, count(*) FILTER (WHERE b), sum(i2) FILTER (WHERE k > 40) FROM v GROUP BY d;
SELECT b, sum(f8) FROM v WHERE f8 BETWEEN -9 AND 9 AND f8 = 0 GROUP BY b;
SELECT b, sum(9223372036854775807 / 20 * i2) FROM v GROUP BY b;
SELECT b FROM v GROUP BY b;
SELECT DISTINCT count(*) FROM v GROUP BY i2;
SELECT b, count(*) FROM v WHERE k < 0 GROUP BY b;
SELECT b, count(*) FROM v WHERE k < 0 GROUP BY b ORDER BY b;
SELECT i2 % 2, avg(i8) FROM v GROUP BY i2 % 2;
SELECT g, md5((k % 3)::text), count(*), sum(k), sum(n), avg(k), max(ts) FROM v, generate_series(1, 3000) g GROUP BY 1, 2;
--@ bind: 2|5
SELECT i2 % $1, count(*) FROM v WHERE k > $2 GROUP BY 1;
--@ bind: 3
SELECT b, count(*) FROM v GROUP BY b HAVING count(*) > $1;
BEGIN;
SELECT g % 2000, count(*), sum(n) FROM v, generate_series(1, 4000) g WHERE n <> 'NaN' GROUP BY 1;
SELECT 1 / (i2 - 1), count(*) FROM v GROUP BY 1;
ROLLBACK;
