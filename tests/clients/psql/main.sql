\set QUIET on
\pset null (null)
\echo == fill
INSERT INTO items (id, kind, i4, t, m, jb) VALUES (1, 1, 10, 'one', 'sad', '{"a": 1}');
INSERT INTO items (id, kind, i4, t, m) VALUES (2, 2, 20, 'two', 'ok'), (3, 3, 30, 'three', 'happy'), (4, 1, 40, NULL, NULL);
SELECT id, kind, i4, t, m, jb FROM items ORDER BY id;
\echo == unaligned
\pset format unaligned
SELECT id, t FROM items ORDER BY id;
\pset format csv
SELECT id, t FROM items ORDER BY id;
\pset format aligned
\x on
SELECT id, t FROM items WHERE id = 1;
\x off
\echo == d
\d items
\d+ kinds
\d notes
\d mood
\d nothing
\echo == dt
\dt public.*
\echo == di
\di public.*
\echo == dT
\dT public.*
\dT+ mood
\echo == ds
\ds public.*
\echo == df
CREATE FUNCTION twice(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a * 2';
\df public.twice
\sf twice
SELECT twice(i4) FROM items WHERE id = 2;
DROP FUNCTION twice(int);
\echo == dv
CREATE VIEW w AS SELECT id, t FROM items;
\dv public.*
\d+ w
\sv w
SELECT * FROM w WHERE id = 1;
DROP VIEW w;
\echo == dp
GRANT SELECT ON kinds TO PUBLIC;
\dp kinds
REVOKE ALL ON kinds FROM PUBLIC;
\echo == other
\dn public
\du postgres
\dx
\dO pg_catalog.default
\dc pg_catalog.utf8_to_iso_8859_1
\dC (boolean AS integer)
\dD public.*
\dF simple
\db pg_default
\dew
\dL
\do pg_catalog.=@
\dRp
\dy
\drds postgres
\dd items
COMMENT ON TABLE items IS 'things';
\dt+ items
\dd items
\dAc btree int4
\z items
\echo == conninfo
\encoding
\set ECHO_HIDDEN off
\echo :SERVER_VERSION_NUM :ENCODING :ROW_COUNT :ERROR
\echo == copy
\copy (SELECT id, t FROM items WHERE id = 1) TO :folder/one.tsv
\set one :folder '/one.tsv'
\! true
\copy items (id, t) FROM PROGRAM 'printf "10\tten\n11\televen\n12\t\\\\N\n"'
\copy items (id, t) FROM PROGRAM 'printf "id,t\n20,twenty\n21,\n"' CSV HEADER
COPY items (id, t) FROM STDIN;
30	thirty
31	\N
\.
\copy (SELECT id, t FROM kinds_nothing) TO STDOUT
\copy kinds TO STDOUT
\copy kinds TO STDOUT CSV HEADER
SELECT id, t FROM items WHERE id >= 10 ORDER BY id;
\echo == gexec
SELECT format('UPDATE items SET i4 = %s WHERE id = %s', g, g) FROM generate_series(10, 12) g \gexec
SELECT 'CREATE TABLE made_' || n || ' (a int)' FROM generate_series(1, 2) n \gexec
\dt made_*
SELECT 'DROP TABLE made_1, made_2' \gexec
SELECT id, i4 FROM items WHERE id BETWEEN 10 AND 12 ORDER BY id;
\echo == gset
SELECT count(*) AS many, max(id) AS most FROM items \gset
\echo :many :most
SELECT id FROM items WHERE id = :most;
\echo == gdesc
SELECT id, t, n, m, ia FROM items WHERE id = 1 \gdesc
SELECT count(*), sum(n) AS total FROM items \gdesc
SELECT 1 AS one, 'x' AS two \gdesc
\echo == gx
SELECT id, t FROM items WHERE id = 2 \gx
\echo == bind
SELECT kind, count(*) FROM items GROUP BY kind ORDER BY kind;
\crosstabview
SELECT kind, m, count(*) FROM items WHERE m IS NOT NULL GROUP BY kind, m ORDER BY kind, m \crosstabview
\echo == several statements
SELECT 1 AS a\; SELECT id FROM items WHERE id = 1\; SELECT count(*) FROM items;
BEGIN\; UPDATE items SET i4 = 0 WHERE id = 1\; COMMIT;
\echo == transactions
BEGIN;
UPDATE items SET i4 = 1 WHERE id = 1;
UPDATE items SET i4 = 2 WHERE id = 2;
SELECT sum(i4) FROM items WHERE id < 3;
ROLLBACK;
SELECT id, i4 FROM items WHERE id < 3 ORDER BY id;
BEGIN;
SAVEPOINT a;
INSERT INTO items (id) VALUES (1);
ROLLBACK TO a;
SELECT 1;
COMMIT;
\set ON_ERROR_ROLLBACK on
BEGIN;
UPDATE items SET i4 = 7 WHERE id = 1;
INSERT INTO items (id) VALUES (1);
UPDATE items SET i4 = 8 WHERE id = 2;
COMMIT;
\set ON_ERROR_ROLLBACK off
SELECT id, i4 FROM items WHERE id < 3 ORDER BY id;
\set AUTOCOMMIT off
UPDATE items SET i4 = 100 WHERE id = 1;
ROLLBACK;
\set AUTOCOMMIT on
SELECT i4 FROM items WHERE id = 1;
\echo == cursor
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM notes ORDER BY id;
FETCH 3 FROM c;
MOVE 2 IN c;
FETCH c;
CLOSE c;
COMMIT;
\echo == fetch count
\set FETCH_COUNT 2
SELECT id FROM notes WHERE id < 6 ORDER BY id;
\unset FETCH_COUNT
\echo == fetch count over shards
\set FETCH_COUNT 2
SELECT id FROM items WHERE id < 5 ORDER BY id;
\unset FETCH_COUNT
\echo == errors
INSERT INTO items (id) VALUES (1);
INSERT INTO items (id, kind) VALUES (50, 99);
SELECT nothing FROM items WHERE id = 1;
SELECT * FROM nothing;
SELECT 1 / 0;
\echo == syntax errors
SELEC 1;
SELECT id FROM items WHERE;
SELECT id FROM items ORDER BY;
INSERT INTO items (id) VALUES;
UPDATE items SET WHERE id = 1;
\echo == verbose errors
\set VERBOSITY sqlstate
INSERT INTO items (id) VALUES (1);
\errverbose
\set VERBOSITY default
\echo == notices
DROP TABLE IF EXISTS nothing;
DO $$ BEGIN RAISE NOTICE 'seen %', 1; RAISE WARNING 'too'; END $$;
CREATE TABLE IF NOT EXISTS items (id int);
\echo == ddl
CREATE TABLE made (k int PRIMARY KEY, v text DEFAULT 'x');
SELECT create_distributed_table('made', 'k');
ALTER TABLE made ADD COLUMN w int;
CREATE INDEX made_w ON made (w);
ALTER TABLE made RENAME COLUMN w TO ww;
\d made
INSERT INTO made (k) VALUES (1), (2), (3), (4), (5);
SELECT count(*) FROM made;
TRUNCATE made;
SELECT count(*) FROM made;
\echo == insert and select
INSERT INTO made (k) SELECT g FROM generate_series(1, 10) g;
SELECT count(*) FROM made;
\echo == rename
ALTER TABLE made RENAME TO remade;
\d remade
DROP TABLE IF EXISTS made;
\echo == settings
SHOW timezone;
SET search_path TO public, pg_catalog;
SHOW search_path;
RESET search_path;
SHOW server_version_num;
SELECT current_setting('server_version_num'), current_user, session_user, current_schema;
\echo == timing
\timing off
\echo == large object
\lo_list
\echo == reconnect
\c
SELECT id FROM items WHERE id = 1;
