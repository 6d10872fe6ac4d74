-- SET and SHOW, on whatever server the next statement runs.
CREATE TABLE t (k int PRIMARY KEY, at timestamptz, i interval);
--@ router: SELECT create_distributed_table('t', 'k')
SET TIME ZONE 'UTC';
--@ setup
INSERT INTO t VALUES (1, '2024-06-01 12:00+00', '1 day'), (2, '2024-12-01 12:00+00', '90 minutes');
SELECT * FROM t ORDER BY k;
--@ known-difference[text binary]: the column is called as it was typed, and text is sent although binary was asked for
SHOW timezone;
SET timezone = 'America/New_York';
--@ known-difference[text binary]: the column is called as it was typed, and text is sent although binary was asked for
SHOW TimeZone;
SELECT at FROM t WHERE k = 1;
SELECT k, at FROM t ORDER BY k;
SET DateStyle = 'German, DMY';
SELECT at FROM t ORDER BY k;
SET IntervalStyle TO 'iso_8601';
SELECT i FROM t ORDER BY k;
RESET DateStyle;
RESET IntervalStyle;
SET extra_float_digits = 0;
SELECT 0.1::float8 + 0.2::float8 FROM t WHERE k = 2;
RESET extra_float_digits;
--@ known-difference[binary]: text is sent although binary was asked for
SHOW search_path;
SET search_path TO public, pg_catalog;
--@ known-difference[binary]: text is sent although binary was asked for
SHOW search_path;
SET search_path = '';
SELECT * FROM t WHERE k = 1;
SELECT count(*) FROM public.t;
RESET search_path;
SELECT count(*) FROM t;
SET my.setting = 'custom';
--@ known-difference[binary]: text is sent although binary was asked for
SHOW my.setting;
SELECT current_setting('my.setting');
SELECT current_setting('my.setting') FROM t WHERE k = 2;
SET work_mem = '8MB';
--@ known-difference[binary]: text is sent although binary was asked for
SHOW work_mem;
RESET work_mem;
BEGIN;
SET LOCAL timezone = 'Asia/Tokyo';
SELECT at FROM t WHERE k = 1;
SELECT at FROM t ORDER BY k;
COMMIT;
SELECT at FROM t WHERE k = 1;
BEGIN;
SET timezone = 'Asia/Tokyo';
SELECT at FROM t WHERE k = 2;
ROLLBACK;
--@ known-difference[text binary]: the column is called as it was typed, and text is sent although binary was asked for
SHOW timezone;
SELECT at FROM t ORDER BY k;
BEGIN;
SAVEPOINT a;
SET timezone = 'Europe/Berlin';
SELECT at FROM t WHERE k = 1;
ROLLBACK TO a;
SELECT at FROM t WHERE k = 1;
SET timezone = 'Asia/Kolkata';
COMMIT;
--@ known-difference[text binary]: the column is called as it was typed, and text is sent although binary was asked for
SHOW timezone;
SELECT at FROM t WHERE k = 2;
SELECT set_config('timezone', 'UTC', false);
--@ known-difference[text binary]: the column is called as it was typed, and text is sent although binary was asked for
SHOW timezone;
SELECT at FROM t ORDER BY k;
SET SESSION timezone TO 'Pacific/Auckland';
SET LOCAL timezone = 'UTC';
--@ known-difference[text binary]: the column is called as it was typed, and text is sent although binary was asked for
SHOW timezone;
--@ refused 0A000
SET client_encoding = 'LATIN1';
--@ known-difference[binary]: text is sent although binary was asked for
SHOW client_encoding;
RESET client_encoding;
--@ refused 0A000
SET standard_conforming_strings = off;
--@ known-difference[binary]: text is sent although binary was asked for
SHOW standard_conforming_strings;
RESET standard_conforming_strings;
SET application_name = 'other';
--@ known-difference[binary]: text is sent although binary was asked for
SHOW application_name;
SELECT current_setting('application_name') FROM t WHERE k = 1;
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE;
--@ known-difference[binary]: text is sent although binary was asked for
SHOW default_transaction_isolation;
RESET ALL;
--@ known-difference[binary]: text is sent although binary was asked for
SHOW default_transaction_isolation;
--@ known-difference[text binary]: the column is called as it was typed, and text is sent although binary was asked for
SHOW timezone;
DISCARD ALL;
SELECT current_user, session_user;
SELECT 1 AS one;
--@ known-difference[binary]: text is sent although binary was asked for
SHOW server_version;
SELECT count(*) > 0 FROM pg_settings;
