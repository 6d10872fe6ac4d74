-- The router's functions on plain PostgreSQL, where they have nothing to do; among PostgreSQL's own,
-- so that no dump shows them.
SET allow_system_table_mods = on;
CREATE FUNCTION pg_catalog.create_distributed_table(text, text) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION pg_catalog.create_reference_table(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
