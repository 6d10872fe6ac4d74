-- Triggers whose functions would read or write the wrong server's rows: on plain tables, those that name
-- sharded tables (which are elsewhere); on sharded ones, those that name plain tables, tables of
-- another group, or change reference tables. Words are looked at, as in `reading_functions`.
CREATE OR REPLACE FUNCTION pgherd.straying_triggers()
RETURNS TABLE (relation text, trigger text, events text[], names text)
LANGUAGE plpgsql STABLE ROWS 10 SET jit = off SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN RETURN QUERY
WITH RECURSIVE
family AS (
    SELECT table_oid::oid AS oid, group_id FROM pgherd.table_list
    UNION
    SELECT i.inhrelid, f.group_id FROM family f JOIN pg_inherits i ON i.inhparent = f.oid
),
triggers AS (
    SELECT g.oid, g.tgname, g.tgtype, g.tgfoid, c.oid AS relid, c.relname, f.oid IS NOT NULL AS sharded,
        f.group_id, lower(p.prosrc) AS body
    FROM pg_trigger g
    JOIN pg_class c ON c.oid = g.tgrelid AND c.relkind IN ('r', 'p')
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'pgherd'
    JOIN pg_proc p ON p.oid = g.tgfoid
    JOIN pg_language l ON l.oid = p.prolang AND l.lanname NOT IN ('internal', 'c')
    LEFT JOIN family f ON f.oid = c.oid
    WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' AND EXISTS (SELECT FROM family)
),
readers AS (SELECT r AS oid FROM pgherd.reading_functions() r WHERE EXISTS (SELECT FROM triggers)),
named AS (
    SELECT DISTINCT t.oid, lower(m.word[1]) AS verb, m.word[2] AS name
    FROM triggers t, LATERAL regexp_matches(t.body,
        '\m(from|join|into|update|only|using|table|copy)\s+(?:"?[a-z0-9_$]+"?\s*\.\s*)?"?([a-z0-9_$]+)"?',
        'g') AS m (word)
    WHERE t.sharded
),
found AS (
    SELECT t.oid, NULL::text AS name FROM triggers t JOIN readers r ON r.oid = t.tgfoid
    WHERE NOT t.sharded
    UNION
    SELECT t.oid, c.relname FROM triggers t
    JOIN named w ON w.oid = t.oid
    JOIN pg_class c ON lower(c.relname) = w.name AND c.relkind IN ('r', 'p')
    JOIN pg_namespace n ON n.oid = c.relnamespace
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd')
        AND n.nspname NOT LIKE 'pg\_toast%' AND n.nspname NOT LIKE 'pg\_temp\_%'
    LEFT JOIN family f ON f.oid = c.oid
    WHERE f.oid IS NULL
        OR (f.group_id IS NULL AND w.verb IN ('into', 'update', 'table', 'copy'))
        OR f.group_id <> t.group_id
)
SELECT t.relname::text, min(t.tgname::text),
    array_remove(ARRAY[
        CASE WHEN bool_or(t.tgtype & 4 <> 0) THEN 'insert' END,
        CASE WHEN bool_or(t.tgtype & 8 <> 0) THEN 'delete' END,
        CASE WHEN bool_or(t.tgtype & 16 <> 0) THEN 'update' END,
        CASE WHEN bool_or(t.tgtype & 32 <> 0) THEN 'truncate' END], NULL),
    min(f.name)
FROM found f JOIN triggers t ON t.oid = f.oid
GROUP BY t.relname;
END
$$;
