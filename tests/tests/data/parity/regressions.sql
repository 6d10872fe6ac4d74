-- What went wrong once: each of these gave another answer than PostgreSQL.
CREATE TABLE t (k int PRIMARY KEY, c char(5), b bit(3), ts timestamptz, s text, n numeric);
CREATE TABLE r (id int PRIMARY KEY, v text, at timestamptz);
CREATE TABLE h (a int, b text);
--@ router: SELECT create_distributed_table('t', 'k')
--@ router: SELECT create_reference_table('r')
INSERT INTO t VALUES (1, 'ab', '101', '2024-02-05 11:00+00', 'x', 1.50), (2, 'cde', '110', NULL, NULL, 2), (3, 'ab', '101', '2024-07-05 11:00+00', 'NULL', NULL), (4, NULL, NULL, NULL, 'y', 10);
-- Types with a length, merged.
SELECT c FROM t ORDER BY c;
SELECT b, count(*) FROM t GROUP BY b ORDER BY b;
SELECT DISTINCT c FROM t ORDER BY 1;
SELECT min(c), max(c) FROM t;
SELECT c, count(*) FROM t GROUP BY c HAVING min(c) > 'ab' ORDER BY 1;
-- Settings that change how values are written as text.
SET array_nulls = off;
SELECT k, s FROM t ORDER BY k;
RESET array_nulls;
SET TimeZone = 'Asia/Kolkata';
SET DateStyle = 'SQL, DMY';
SELECT max(ts), min(ts) FROM t;
SELECT k, ts FROM t ORDER BY ts NULLS FIRST, k;
RESET TimeZone;
RESET DateStyle;
SET extra_float_digits = -5;
SELECT k, n::float8 / 3 FROM t ORDER BY 2, 1;
RESET extra_float_digits;
-- Positions in parentheses, collations, limits as parameters.
SELECT s, k FROM t ORDER BY (1), (2);
SELECT s FROM t ORDER BY s COLLATE "C", k;
SELECT s FROM t ORDER BY s COLLATE "C" DESC NULLS LAST LIMIT 2;
--@ bind: 2
SELECT k FROM t ORDER BY k LIMIT $1;
--@ bind: 2|1
SELECT k FROM t ORDER BY k DESC LIMIT $1 OFFSET $2;
--@ bind: 1
SELECT c, count(*) FROM t GROUP BY c HAVING count(*) > $1;
-- Rows of different lengths.
INSERT INTO t VALUES (30, 'a'), (31, 'b', '101');
SELECT count(*) FROM t;
-- A savepoint brings the schema back.
BEGIN;
SAVEPOINT s;
DROP TABLE t;
ROLLBACK TO s;
SELECT count(*) FROM t;
INSERT INTO t (k) VALUES (11), (12), (13), (14), (15), (16);
COMMIT;
SELECT count(*) FROM t;
SELECT k FROM t WHERE k = 13;
DELETE FROM t WHERE k > 10;
BEGIN;
SAVEPOINT s;
ALTER TABLE t ADD COLUMN extra int DEFAULT 7;
SELECT sum(extra) FROM t;
ROLLBACK TO s;
SELECT * FROM t WHERE k = 1;
ROLLBACK;
-- One row on each shard has this place.
--@ refused 0A000
DELETE FROM t WHERE ctid = '(0,1)';
--@ refused 0A000
UPDATE t SET s = 'z' WHERE ctid = '(0,1)';
-- Times that every shard would read for itself.
--@ apart: r
INSERT INTO r VALUES (7, 'x', 'now');
--@ refused 0A000
UPDATE r SET at = timestamptz 'today';
-- A pin is for the rows that a shard has.
INSERT INTO h VALUES (1, 'one');
SET pgherd.shard = 2;
INSERT INTO t (k, s) VALUES (501, 'p'), (502, 'p'), (503, 'p'), (504, 'p');
INSERT INTO t (k, s) VALUES (505, 'p');
INSERT INTO h VALUES (77, 'pinned');
INSERT INTO r VALUES (1, 'pinned', NULL);
UPDATE r SET v = 'pinned again';
RESET pgherd.shard;
SELECT k FROM t WHERE k IN (501, 502, 503, 504, 505) ORDER BY 1;
SELECT k FROM t WHERE k = 503;
SELECT * FROM h ORDER BY a;
SELECT id, v, at IS NULL FROM r;
DELETE FROM t WHERE k > 500;
-- Views that are kept.
CREATE MATERIALIZED VIEW hm AS SELECT * FROM h;
SELECT * FROM hm ORDER BY a;
DROP MATERIALIZED VIEW hm;
-- Each shard has other numbers for tables and types.
CREATE TYPE hue AS ENUM ('red', 'blue');
CREATE TABLE pt (k int, at date NOT NULL, h hue) PARTITION BY RANGE (at);
CREATE TABLE pt_1 PARTITION OF pt FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE pt_2 PARTITION OF pt DEFAULT;
--@ router: SELECT create_distributed_table('pt', 'k')
INSERT INTO pt SELECT g, date '2023-12-01' + g * 3, (ARRAY['red', 'blue']::hue[])[1 + g % 2] FROM generate_series(1, 30) g;
SELECT tableoid::regclass::text AS t, count(*) FROM pt GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM pt WHERE tableoid = 'pt_1'::regclass;
--@ modes: simple text
SELECT tableoid::regclass, k FROM pt ORDER BY k;
--@ refused 0A000
SELECT tableoid::regclass, count(*) FROM pt GROUP BY 1;
--@ refused 0A000
SELECT tableoid::regclass AS t, k FROM pt ORDER BY t, k;
--@ refused 0A000
SELECT DISTINCT tableoid::regclass FROM pt;
--@ refused 0A000
SELECT tableoid = 0, k FROM pt;
--@ refused 0A000
SELECT tableoid::regclass, ctid FROM pt;
--@ modes: simple text
SELECT pg_typeof(h), count(*) FROM pt GROUP BY 1;
--@ modes: simple text
SELECT DISTINCT pg_typeof(h) FROM pt;
--@ modes: simple text
SELECT pg_typeof(h), k FROM pt ORDER BY 1, 2 LIMIT 3;
SELECT min(pg_typeof(h)::oid) = max(pg_typeof(h)::oid), count(DISTINCT 'pt'::regclass) FROM pt;
-- Each server says for itself what time it is, and on which port.
SELECT 1 AS one, count(*) FROM pt GROUP BY now();
SELECT h, count(*) FROM pt GROUP BY h, current_timestamp ORDER BY h;
SELECT count(*) FROM (SELECT DISTINCT now() FROM pt) x;
SELECT 1 AS one, count(*) FROM pt GROUP BY pg_backend_pid() > 0, current_setting('port');
SELECT DISTINCT ON (now()) 1 AS one FROM pt;
SELECT count(*) FROM (SELECT DISTINCT now() - at AS age FROM pt) x;
SELECT h, count(*) FROM pt WHERE at < now() GROUP BY h ORDER BY h;
SELECT count(*) FROM pt GROUP BY at < current_date;
