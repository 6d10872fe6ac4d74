-- Names: schemas, search paths, quoting, keywords, comments.
CREATE SCHEMA one;
CREATE SCHEMA two;
CREATE TABLE one.t (k int PRIMARY KEY, v text);
CREATE TABLE two.t (k int PRIMARY KEY, v text);
--@ router: SELECT create_distributed_table('one.t', 'k')
INSERT INTO one.t VALUES (1, 'one');
INSERT INTO one.t VALUES (2, 'one');
INSERT INTO two.t VALUES (1, 'two');
SELECT v FROM t WHERE k = 1;
SET search_path = one;
SELECT v FROM t WHERE k = 1;
SELECT count(*) FROM t;
SET search_path = two;
SELECT v FROM t WHERE k = 1;
SELECT count(*) FROM t;
SET search_path = two, one;
SELECT v FROM t WHERE k = 1;
SET search_path = one, two;
SELECT v FROM t WHERE k = 1;
INSERT INTO t VALUES (3, 'three');
SELECT count(*) FROM one.t;
SELECT count(*) FROM two.t;
SELECT one.t.v FROM one.t WHERE one.t.k = 1;
SELECT a.v, b.v FROM one.t a, two.t b WHERE a.k = 1 AND b.k = 1;
BEGIN;
SET LOCAL search_path = two;
SELECT v FROM t WHERE k = 1;
COMMIT;
SELECT v FROM t WHERE k = 1;
RESET search_path;
CREATE TABLE "select" ("from" int PRIMARY KEY, "WHERE" text, "a.b" int, "ü" int);
--@ router: SELECT create_distributed_table('"select"', 'from')
INSERT INTO "select" VALUES (1, 'x', 2, 3);
INSERT INTO "select" ("WHERE", "from") VALUES ('y', 2);
SELECT * FROM "select" WHERE "from" = 1;
SELECT "ü", "a.b" FROM "select" ORDER BY "from";
SELECT "s"."from" FROM "select" AS "s" WHERE "s"."from" = 2;
UPDATE "select" SET "WHERE" = 'z' WHERE "from" = 1;
SELECT ü FROM "select" WHERE "from" = 1;
SELECT U&"\00fc" FROM "select" WHERE "from" = 1;
SELECT * FROM "Select";
SELECT * FROM SELECT;
/* a comment /* nested */ with ; inside */ SELECT 1 /* k = 2 */ AS one;
SELECT 1 -- ; not the end
AS two;
SELECT ';' AS semicolon, '--' AS dashes, '/*' AS stars;
SELECT $$ ; $$, $a$ $$ $a$;
SELECT E'\'' AS quote, 'a' 'b';
--@ refused 0A000
SELECT 'a'
'b' AS joined;
SELECT 1AS x;
SELECT -1, - 1, 1-1, 1--1
;
SELECT 1e3, .5, 5., 0x;
SELECT 7 % 3, 2 ^ 3, |/ 16, @ -5, 5 !~ 'x';
SELECT 'a' ~~ 'a', 'a' !~~ 'b', 'a' ~* 'A';
SELECT 1::int::text::varchar(3);
SELECT CAST('1' AS int), int '5', interval '1 day', date '2024-01-01';
SELECT (ARRAY[1,2,3])[2], (ARRAY[1,2,3])[1:2];
SELECT 1 IS DISTINCT FROM NULL, NULL IS NULL, 1 ISNULL, 1 NOTNULL;
SELECT 5 BETWEEN 1 AND 10 AND true, 5 NOT BETWEEN SYMMETRIC 10 AND 1;
SELECT position('b' IN 'abc'), substring('abc' FROM 2 FOR 1), trim(BOTH 'x' FROM 'xax'), extract(year FROM date '2024-01-01'), overlay('abc' PLACING 'x' FROM 2);
SELECT CASE WHEN 1 = 1 THEN 'a' END, coalesce(NULL, 1), nullif(1, 1), greatest(1, 2), least(1, 2);
SELECT 1 WHERE 'x' LIKE 'x!%' ESCAPE '!';
SELECT current_date IS NOT NULL, current_timestamp IS NOT NULL, localtime IS NOT NULL;
DROP SCHEMA one CASCADE;
DROP SCHEMA two CASCADE;
