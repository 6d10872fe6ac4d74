-- What would change keys or copies behind the router's back is refused: by foreign keys, enum labels,
-- rules, triggers, new types of columns.
CREATE TYPE colour AS ENUM ('red', 'green', 'blue');
CREATE TABLE paint (k colour PRIMARY KEY, v int);
--@ router: SELECT create_distributed_table('paint', 'k')
INSERT INTO paint VALUES ('red', 1), ('green', 2), ('blue', 3);
--@ refused 0A000
ALTER TYPE colour RENAME VALUE 'red' TO 'crimson';
ALTER TYPE colour ADD VALUE 'black' BEFORE 'green';
INSERT INTO paint VALUES ('black', 4);
SELECT v FROM paint WHERE k = 'red';
--@ refused 0A000
DROP TYPE colour CASCADE;
CREATE TYPE other AS ENUM ('a', 'b');
ALTER TYPE other RENAME VALUE 'a' TO 'c';
-- Foreign keys that act on the distribution column.
CREATE TABLE country (code text PRIMARY KEY, n int);
--@ router: SELECT create_reference_table('country')
CREATE TABLE city (code text REFERENCES country, v int);
--@ router: SELECT create_distributed_table('city', 'code')
CREATE TABLE moved (code text REFERENCES country ON UPDATE CASCADE, v int);
--@ refused 0A000
SELECT create_distributed_table('moved', 'code');
CREATE TABLE freed (code text REFERENCES country ON DELETE SET NULL, v int);
--@ refused 0A000
SELECT create_distributed_table('freed', 'code');
--@ refused 0A000
ALTER TABLE city ADD FOREIGN KEY (code) REFERENCES country ON UPDATE CASCADE;
--@ refused 0A000
ALTER TABLE city ADD FOREIGN KEY (code) REFERENCES country ON DELETE SET DEFAULT;
ALTER TABLE city ADD FOREIGN KEY (code) REFERENCES country ON DELETE CASCADE;
INSERT INTO country VALUES ('de', 1), ('fr', 2), ('it', 3), ('es', 4);
INSERT INTO city VALUES ('de', 1), ('fr', 2), ('it', 3), ('es', 4);
UPDATE country SET code = 'xx' WHERE code = 'de';
DELETE FROM country WHERE code = 'fr';
SELECT * FROM city ORDER BY code;
-- Rules and triggers that were there before.
CREATE TABLE ruled (k int PRIMARY KEY, v int);
CREATE RULE silent AS ON INSERT TO ruled DO INSTEAD NOTHING;
--@ refused 0A000
SELECT create_distributed_table('ruled', 'k');
CREATE TABLE marked (k int PRIMARY KEY, v int);
CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := 7; RETURN NEW; END $$;
CREATE TRIGGER mark BEFORE INSERT ON marked FOR EACH ROW EXECUTE FUNCTION mark();
--@ refused 0A000
SELECT create_reference_table('marked');
-- Copies stay equal.
CREATE TABLE same (k int PRIMARY KEY, v text);
--@ router: SELECT create_reference_table('same')
INSERT INTO same VALUES (1, '1'), (2, '2');
--@ refused 0A000
ALTER TABLE same ALTER COLUMN v TYPE float USING random();
ALTER TABLE same ALTER COLUMN v TYPE int USING v::int + 1;
SELECT * FROM same ORDER BY k;
-- The time is the same in all copies.
CREATE TABLE stamped (k int PRIMARY KEY, at timestamptz, day date, t timestamp);
--@ router: SELECT create_reference_table('stamped')
INSERT INTO stamped (k) VALUES (1), (2);
--@ apart: stamped
UPDATE stamped SET at = now(), day = CURRENT_DATE, t = LOCALTIMESTAMP WHERE k > 0;
SELECT count(*), count(DISTINCT at), bool_and(at <= clock_timestamp()), bool_and(day = at::date) FROM stamped;
BEGIN;
UPDATE stamped SET at = transaction_timestamp() WHERE k = 1;
SELECT count(*) FROM stamped WHERE at = now();
COMMIT;
UPDATE stamped SET at = statement_timestamp() - interval '1 day' WHERE k = 2 RETURNING k, at < now();
DELETE FROM stamped WHERE at < now() - interval '1 hour';
SELECT k FROM stamped;
--@ refused 0A000
UPDATE stamped SET at = clock_timestamp();
--@ refused 0A000
UPDATE stamped SET at = CURRENT_TIMESTAMP(2);
-- Triggers that reach for rows of other servers.
CREATE TABLE d (k int PRIMARY KEY, v int);
CREATE TABLE audit (k int, v int);
CREATE TABLE far (id bigint PRIMARY KEY, v int);
CREATE TABLE h (k int PRIMARY KEY, v int);
--@ router: SELECT create_distributed_table('d', 'k')
--@ router: SELECT create_distributed_table('audit', 'k')
--@ router: SELECT create_distributed_table('far', 'id')
CREATE FUNCTION to_d() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO d VALUES (NEW.k, NEW.v); RETURN NEW; END $$;
CREATE TRIGGER to_d AFTER INSERT ON h FOR EACH ROW EXECUTE FUNCTION to_d();
--@ refused 0A000
INSERT INTO h VALUES (1, 1), (2, 2), (3, 3), (4, 4);
--@ refused 0A000
WITH new AS (INSERT INTO public.h VALUES (1, 1) RETURNING *) SELECT * FROM new;
UPDATE h SET v = 1;
SELECT count(*) FROM h;
ALTER TABLE h DISABLE TRIGGER to_d;
INSERT INTO h VALUES (1, 1), (2, 2), (3, 3), (4, 4);
CREATE FUNCTION to_h() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE public.h SET v = v + 1; RETURN NEW; END $$;
CREATE TRIGGER to_h AFTER UPDATE ON d FOR EACH ROW EXECUTE FUNCTION to_h();
INSERT INTO d VALUES (1, 1), (2, 2), (3, 3), (4, 4);
--@ refused 0A000
UPDATE d SET v = 2;
--@ refused 0A000
INSERT INTO d VALUES (1, 1) ON CONFLICT (k) DO UPDATE SET v = 3;
DROP TRIGGER to_h ON d;
UPDATE d SET v = 2;
CREATE FUNCTION to_far() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO far VALUES (NEW.k, NEW.v); RETURN NEW; END $$;
CREATE TRIGGER to_far AFTER UPDATE ON d FOR EACH ROW EXECUTE FUNCTION to_far();
--@ refused 0A000
UPDATE d SET v = 3 WHERE k = 1;
DROP TRIGGER to_far ON d;
-- One that stays with its row is as ever.
CREATE FUNCTION to_audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (NEW.k, NEW.v); RETURN NEW; END $$;
CREATE TRIGGER to_audit AFTER UPDATE ON d FOR EACH ROW EXECUTE FUNCTION to_audit();
UPDATE d SET v = 4;
SELECT count(*) FROM audit WHERE k = 3;
SELECT * FROM audit ORDER BY k;
-- A constraint that does not exist.
BEGIN;
SET CONSTRAINTS nosuch IMMEDIATE;
ROLLBACK;
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
COMMIT;
