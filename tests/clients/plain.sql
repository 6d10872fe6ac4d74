-- The router's functions on plain PostgreSQL, where they have nothing to do.
CREATE FUNCTION create_distributed_table(text, text) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION create_reference_table(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
