-- Schema changes reach all shards.
CREATE TABLE t (k int, v text);
--@ router: SELECT create_distributed_table('t', 'k')
--@ setup
INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd');
ALTER TABLE t ADD COLUMN n int DEFAULT 7;
SELECT * FROM t ORDER BY k;
ALTER TABLE t ADD COLUMN n int;
ALTER TABLE t ADD COLUMN IF NOT EXISTS n int;
ALTER TABLE t RENAME COLUMN n TO number;
SELECT number FROM t WHERE k = 1;
ALTER TABLE t ALTER COLUMN number TYPE bigint;
SELECT number FROM t WHERE k = 2;
SELECT sum(number) FROM t;
ALTER TABLE t ALTER COLUMN v SET NOT NULL;
INSERT INTO t VALUES (5, NULL);
ALTER TABLE t ALTER v DROP NOT NULL, ALTER v SET DEFAULT 'none';
INSERT INTO t (k) VALUES (5);
SELECT * FROM t WHERE k = 5;
ALTER TABLE t ADD CONSTRAINT t_pkey PRIMARY KEY (k);
INSERT INTO t VALUES (1, 'again');
ALTER TABLE t ADD CHECK (number > 0);
UPDATE t SET number = CASE WHEN k = 1 THEN -1 ELSE 1 END;
CREATE INDEX t_v ON t (v);
CREATE INDEX t_v ON t (v);
CREATE INDEX IF NOT EXISTS t_v ON t (v);
CREATE INDEX ON t (lower(v)) WHERE k > 0;
SELECT indexname FROM pg_indexes WHERE tablename = 't' ORDER BY 1;
DROP INDEX t_v;
DROP INDEX t_v;
REINDEX TABLE t;
COMMENT ON TABLE t IS 'a comment';
SELECT obj_description('t'::regclass);
ANALYZE t;
VACUUM t;
ALTER TABLE t DROP COLUMN v;
SELECT * FROM t ORDER BY k;
ALTER TABLE t DROP COLUMN v;
BEGIN;
CREATE TABLE in_transaction (a int PRIMARY KEY);
INSERT INTO in_transaction VALUES (1);
ALTER TABLE t ADD COLUMN w int;
UPDATE t SET w = k;
SELECT sum(w) FROM t;
ROLLBACK;
SELECT * FROM in_transaction;
SELECT * FROM t ORDER BY k;
BEGIN;
CREATE TABLE kept (a int PRIMARY KEY, b text);
INSERT INTO kept VALUES (1, 'x');
COMMIT;
SELECT * FROM kept;
CREATE TABLE as_select AS SELECT 1 AS a, 'x'::text AS b, g FROM generate_series(1, 3) g;
SELECT * FROM as_select ORDER BY g;
CREATE TABLE as_select AS SELECT 1;
CREATE TABLE IF NOT EXISTS as_select AS SELECT 1;
CREATE TABLE as_named (n, m) AS SELECT a, b FROM kept ORDER BY a WITH DATA;
SELECT * FROM as_named;
CREATE TABLE as_nothing AS TABLE as_select WITH NO DATA;
SELECT count(*) FROM as_nothing;
SELECT a, b AS c INTO as_into FROM as_select WHERE g > 1;
SELECT a, b AS c INTO as_into FROM as_select WHERE g > 1;
SELECT * FROM as_into;
WITH w AS (SELECT g FROM as_select) SELECT g * 2 AS d INTO UNLOGGED TABLE public.as_with FROM w UNION ALL SELECT 9 -- all
;
SELECT d FROM as_with ORDER BY d;
--@ router: SELECT create_distributed_table('as_with', 'd')
--@ setup
SELECT sum(d) FROM as_with;
INSERT INTO as_with VALUES (100), (101), (102), (103);
SELECT sum(d) FROM as_with;
CREATE TABLE as_sharded AS SELECT * FROM as_with;
SELECT * INTO as_sharded FROM as_with;
DROP TABLE as_sharded;
BEGIN;
CREATE TABLE as_undone AS SELECT 1 AS a;
SELECT * FROM as_undone;
ROLLBACK;
SELECT * FROM as_undone;
DROP TABLE as_select, as_named, as_nothing, as_into, as_with;
CREATE VIEW home_view AS SELECT a FROM kept;
SELECT * FROM home_view;
DROP VIEW home_view;
CREATE SEQUENCE s START 5;
BEGIN;
SELECT nextval('s'), nextval('s');
SELECT currval('s');
COMMIT;
DROP SEQUENCE s;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE moods (k int PRIMARY KEY, m mood);
--@ router: SELECT create_distributed_table('moods', 'k')
--@ setup
INSERT INTO moods VALUES (1, 'sad'), (2, 'happy'), (3, 'sad');
--@ modes: simple
SELECT k FROM moods WHERE m = 'happy';
INSERT INTO moods VALUES (4, 'angry');
SELECT k, m::text FROM moods ORDER BY m, k;
SELECT m::text, count(*) FROM moods GROUP BY m ORDER BY m;
DROP TABLE moods;
DROP TYPE mood;
CREATE TABLE "Quoted Name" ("Key" int PRIMARY KEY, "sel""ect" text);
--@ router: SELECT create_distributed_table('"Quoted Name"', '"Key"')
--@ setup
INSERT INTO "Quoted Name" VALUES (1, 'a'), (2, 'b');
SELECT "sel""ect" FROM "Quoted Name" WHERE "Key" = 2;
SELECT * FROM "Quoted Name" ORDER BY "Key";
SELECT key FROM "Quoted Name";
ALTER TABLE "Quoted Name" RENAME TO renamed;
SELECT count(*) FROM "Quoted Name";
TRUNCATE TABLE renamed;
SELECT count(*) FROM renamed;
CREATE SCHEMA other;
CREATE TABLE other.t (k int PRIMARY KEY);
--@ router: SELECT create_distributed_table('other.t', 'k')
--@ setup
INSERT INTO other.t VALUES (1), (2);
SELECT count(*) FROM other.t;
SELECT * FROM other.t WHERE k = 2;
DROP SCHEMA other CASCADE;
SELECT * FROM other.t;
DROP TABLE t, "Quoted Name";
SELECT * FROM t;
CREATE TABLE IF NOT EXISTS kept (a int);
CREATE TEMP TABLE tmp (a int);
DROP TABLE IF EXISTS kept;
