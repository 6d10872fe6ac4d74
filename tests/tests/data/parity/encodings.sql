-- Clients that do not speak UTF-8. The bytes of this file are those of UTF-8, and mean other
-- characters in other encodings: both servers are to take them for the same.
CREATE TABLE t (k text PRIMARY KEY, v text, n int);
--@ router: SELECT create_distributed_table('t', 'k')
CREATE TABLE plain (id int PRIMARY KEY, v text);
SET client_encoding = 'SQL_ASCII';
SHOW client_encoding;
--@ setup
INSERT INTO t VALUES ('grün', 'Äpfel', 1), ('blau', 'Öl', 2);
SELECT * FROM t WHERE k = 'grün';
SELECT k, v, pg_client_encoding() FROM t ORDER BY k;
SELECT count(*), max(n) FROM t;
SELECT v, count(*) FROM t GROUP BY v ORDER BY v;
SELECT a.k, b.k FROM t a JOIN t b ON a.n < b.n ORDER BY 1, 2;
INSERT INTO plain SELECT n, v FROM t;
SELECT v FROM plain ORDER BY id;
SET client_encoding = 'LATIN1';
SHOW client_encoding;
SET NAMES 'iso-8859-1';
SHOW client_encoding;
SELECT * FROM t WHERE k = 'grün';
SELECT length(v) FROM t WHERE k = 'blau';
--@ setup
INSERT INTO t VALUES ('gelbé', 'ç', 3), ('rosaé', 'd', 4), ('weißé', 'ß', 5);
SELECT k, v, length(k), octet_length(k) FROM t WHERE k = 'gelbé';
--@ bind: 'gelbé'
SELECT k, v, length(k) FROM t WHERE k = $1;
--@ bind: 'weißé', 'ß'
SELECT k, v FROM t WHERE k = $1 AND v = $2;
SELECT k, length(k) FROM t WHERE k IN ('gelbé', 'rosaé', 'weißé') ORDER BY n;
--@ bind: '{gelbé,rosaé}'
SELECT k, length(k) FROM t WHERE k = ANY($1::text[]) ORDER BY n;
--@ bind: 'türkis', 'ô'
INSERT INTO t VALUES ($1, $2, 6);
SELECT k, v, n FROM t ORDER BY n;
SELECT k, n FROM t ORDER BY k COLLATE "C";
SELECT k, n FROM t ORDER BY k;
SELECT v, count(*) FROM t GROUP BY v ORDER BY v COLLATE "C";
SELECT v, count(*) FROM t WHERE n > 2 GROUP BY v HAVING v <> 'ß' ORDER BY 2, 1;
SELECT DISTINCT v FROM t ORDER BY v COLLATE "C" DESC;
SELECT max(v COLLATE "C"), min(k COLLATE "C"), count(DISTINCT v) FROM t;
SELECT count(*) FROM t WHERE v LIKE 'Ä%' OR v = 'ç';
UPDATE t SET v = v || 'é' WHERE n > 3;
UPDATE t SET v = 'ñ' WHERE k = 'gelbé' RETURNING k, v, length(v);
DELETE FROM t WHERE v = 'ßé' RETURNING k;
SELECT k, length(k) FROM t WHERE k = E'gelb\u00c3\u00a9';
INSERT INTO plain VALUES (10, 'ü') RETURNING v, length(v);
SELECT v FROM plain WHERE v = 'ü';
SELECT v AS "Ü" FROM plain WHERE id = 10;
SELECT nichts_é FROM t WHERE k = 'x';
SELECT 'ä', 1 FROM t WHERE k = 'x' AND nichts = 1;
PREPARE p AS SELECT k, length(k) FROM t WHERE k = $1;
EXECUTE p('gelbé');
EXECUTE p('gelb' || 'é');
DEALLOCATE p;
PREPARE named AS SELECT k AS "ü" FROM t WHERE k = $1;
EXECUTE named('gelbé');
SET client_encoding = 'UTF8';
EXECUTE named('gelbÃ©');
DEALLOCATE named;
SET client_encoding = 'LATIN1';
BEGIN;
SELECT length(v) FROM t WHERE k = 'gelbé';
SET LOCAL client_encoding = 'UTF8';
SELECT k, length(k) FROM t WHERE k = 'gelbÃ©';
SELECT k, length(k) FROM t WHERE k = 'grün';
SELECT count(*) FROM t WHERE v = 'Ã±';
COMMIT;
SHOW client_encoding;
BEGIN;
SET client_encoding = 'WIN1252';
SELECT length('€') FROM t WHERE k = 'gelbé';
SELECT k, length(k) FROM t WHERE k = 'gelbé';
SELECT n FROM t WHERE v = 'ñ';
ROLLBACK;
SHOW client_encoding;
BEGIN;
SET client_encoding = 'KOI8R';
SAVEPOINT a;
SET my.name = 'é';
SELECT length(current_setting('my.name')) FROM t WHERE k = 'gelbÃ©' OR n = 3;
ROLLBACK TO a;
COMMIT;
SHOW client_encoding;
RESET client_encoding;
SHOW client_encoding;
SELECT k, v, n FROM t ORDER BY n;
SELECT n FROM t WHERE k = 'gelbÃ©';
-- Characters that the client's encoding does not have are PostgreSQL's to refuse.
INSERT INTO t VALUES ('euro', '€', 7);
SET client_encoding = 'LATIN1';
SELECT v FROM t WHERE k = 'euro';
SELECT v FROM t WHERE n = 7;
SELECT v FROM t WHERE n > 5 ORDER BY n;
UPDATE t SET n = 8 WHERE k = 'euro' RETURNING v;
SELECT n FROM t WHERE k = 'euro';
SET client_encoding = 'WIN1252';
SELECT v, length(v) FROM t WHERE k = 'grün';
SELECT length('Á');
SELECT length('Á') FROM t WHERE k = 'euro';
SELECT set_config('client_encoding', 'LATIN9', false);
SHOW client_encoding;
SELECT length('é'), 'é' FROM t WHERE k = 'euro';
SET client_encoding = 'klingon';
RESET names;
SHOW names;
SET client_encoding TO DEFAULT;
SHOW client_encoding;
SELECT v FROM t WHERE k = 'euro';
--@ refused 0A000
SET client_encoding = 'SJIS';
--@ refused 0A000
SET client_encoding = E'LATIN1';
SHOW client_encoding;
-- What goes through the router as text wants UTF8.
SET client_encoding = 'LATIN1';
SELECT a.k, b.v FROM t a JOIN t b ON a.n < b.n AND a.v <> 'Öl' WHERE b.n < 6 ORDER BY a.n, b.n;
SELECT k, rank() OVER (ORDER BY n) FROM t WHERE v <> 'Öl' ORDER BY n;
--@ bind: 'gelbé'
SELECT k, rank() OVER (ORDER BY n) FROM t WHERE k >= $1 AND k <= $1 ORDER BY n;
--@ bind: 'ñ'
SELECT a.k, b.v FROM t a JOIN t b ON a.n < b.n AND b.v = $1 ORDER BY a.n, b.n;
SELECT length(v) FROM t WHERE n > (SELECT avg(n) FROM t WHERE v <> 'Öl') ORDER BY 1;
SELECT string_agg(v, '·' ORDER BY n) FROM t WHERE n < 6;
--@ refused 0A000
INSERT INTO t SELECT k || 'x', v, n FROM t;
--@ refused 0A000
UPDATE t SET k = v WHERE n = 1;
--@ refused 0A000
COPY t FROM STDIN;
zé	x	11
\.
COPY plain FROM STDIN;
20	é
\.
SELECT v, length(v) FROM plain WHERE id = 20;
DISCARD ALL;
SHOW client_encoding;
SELECT v, length(v) FROM plain WHERE id = 20;
SET client_encoding = 'LATIN1';
CREATE TABLE "é" (k text PRIMARY KEY, "ü" int);
INSERT INTO "é" VALUES ('ß', 1), ('à', 2), (U&'\20AC', 3);
--@ router: SELECT create_distributed_table('é', 'k')
SELECT "ü" FROM "é" WHERE k = 'à';
SELECT count(*) FROM "é";
RESET client_encoding;
SELECT k FROM "Ã©" WHERE k = '€';
-- Rows that go out in portions, and whole tables.
SET client_encoding = 'LATIN1';
BEGIN;
DECLARE c CURSOR FOR SELECT k, v FROM t WHERE n < 5 ORDER BY n;
FETCH 2 FROM c;
FETCH ALL FROM c;
DECLARE s SCROLL CURSOR FOR SELECT v, count(*) FROM t WHERE n < 5 GROUP BY v ORDER BY v COLLATE "C";
FETCH LAST FROM s;
FETCH PRIOR FROM s;
COMMIT;
DELETE FROM t WHERE k = 'euro';
COPY t TO STDOUT;
RESET client_encoding;
