-- Functions whose bodies name distributed tables, views over them or such functions, and those that
-- could write to a reference table: each would see or change one server's part. Words are looked
-- at, not SQL: a body can be of any language. Without JIT, which would take seconds for what is a
-- matter of milliseconds.
CREATE OR REPLACE FUNCTION pgherd.reading_functions() RETURNS SETOF oid
LANGUAGE plpgsql STABLE ROWS 10 SET jit = off SET search_path = pg_catalog, pg_temp AS $$
BEGIN RETURN QUERY
WITH RECURSIVE
family AS (
    SELECT table_oid::oid AS oid, group_id FROM pgherd.table_list
    UNION
    SELECT i.inhrelid, f.group_id FROM family f JOIN pg_inherits i ON i.inhparent = f.oid
),
reads AS (
    SELECT r.ev_class AS view, d.refobjid AS oid
    FROM pg_rewrite r
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
),
over AS (
    SELECT f.oid, f.group_id IS NOT NULL AS distributed FROM family f
    UNION
    SELECT r.view, o.distributed FROM over o JOIN reads r ON r.oid = o.oid
),
relations AS (
    SELECT o.oid, c.relname, bool_or(o.distributed) AS distributed
    FROM over o JOIN pg_class c ON c.oid = o.oid GROUP BY o.oid, c.relname
),
bodies AS (
    SELECT p.oid, p.proname, lower(p.prosrc || coalesce(pg_get_function_sqlbody(p.oid), '')) AS body
    FROM pg_proc p
    JOIN pg_language l ON l.oid = p.prolang AND l.lanname NOT IN ('internal', 'c')
    JOIN pg_namespace n ON n.oid = p.pronamespace
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd')
    WHERE p.prokind IN ('f', 'p', 'w') AND NOT EXISTS (SELECT FROM pg_depend e
        WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
),
words AS (
    SELECT DISTINCT b.oid, w.word[1] AS word
    FROM bodies b, LATERAL regexp_matches(b.body, '[[:alnum:]_$]+', 'g') AS w(word)
),
named AS (
    SELECT w.oid, r.distributed FROM words w JOIN relations r ON w.word = lower(r.relname)
    UNION
    -- A name that is no word.
    SELECT b.oid, r.distributed FROM bodies b
    JOIN relations r ON r.relname !~ '^[[:alnum:]_$]+$' AND strpos(b.body, lower(r.relname)) > 0
),
readers AS (
    SELECT n.oid FROM named n WHERE n.distributed OR EXISTS (SELECT FROM words x
        WHERE x.oid = n.oid
            AND x.word IN ('insert', 'update', 'delete', 'merge', 'truncate', 'copy'))
    UNION
    SELECT w.oid FROM readers r
    JOIN bodies b ON b.oid = r.oid
    JOIN words w ON w.word = lower(b.proname)
)
SELECT oid FROM readers;
END
$$;

-- What planning must know of functions that are not PostgreSQL's own. An aggregate is what the
-- functions are that it is made of; a body without FROM reads no table.
CREATE OR REPLACE FUNCTION pgherd.user_functions(sharded oid[]) RETURNS json
LANGUAGE plpgsql STABLE SET jit = off SET search_path = pg_catalog, pg_temp AS $$
BEGIN RETURN (
WITH own AS (
    SELECT p.oid, p.proname, p.prorettype, p.prokind = 'f' AND NOT p.proretset
            AND (l.lanname IN ('internal', 'c')
                OR p.prosrc || coalesce(pg_get_function_sqlbody(p.oid), '')
                    !~* '\m(from|table|execute)\M') AS plain,
        CASE p.prokind WHEN 'p' THEN 'v' WHEN 'a' THEN (SELECT max(f.provolatile::text)
            FROM pg_aggregate a JOIN pg_proc f ON f.oid IN (a.aggtransfn, a.aggfinalfn,
                a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
            WHERE a.aggfnoid = p.oid)
        ELSE p.provolatile::text END AS volatility
    FROM pg_proc p
    JOIN pg_language l ON l.oid = p.prolang
    JOIN pg_namespace n ON n.oid = p.pronamespace
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd')
),
names AS (
    SELECT proname, bool_and(plain AND volatility = 'i') AS immutable,
        bool_and(volatility <> 'v') AS reading
    FROM own GROUP BY proname
)
SELECT json_build_object(
    'immutable', (SELECT coalesce(json_agg(proname), '[]') FROM names WHERE immutable),
    'reading', (SELECT coalesce(json_agg(proname), '[]') FROM names WHERE reading AND NOT immutable),
    'sharded', (SELECT coalesce(json_agg(DISTINCT proname), '[]') FROM own
        WHERE oid = ANY (sharded)
            AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype))));
END
$$;

-- What PostgreSQL prints of views' queries, with names that need no search_path, and whether writes
-- to them are writes to one table and nothing else. To print a query it locks what the query reads.
-- So a view that would have to wait for somebody is passed over (its query is NULL), and the locks
-- are given back at once, with a subtransaction: two changes of the schema could wait for each other.
CREATE OR REPLACE FUNCTION pgherd.view_queries(views oid[])
RETURNS TABLE (view oid, query text, updatable boolean)
LANGUAGE plpgsql STABLE ROWS 10 SET jit = off SET lock_timeout = '20ms'
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    locked oid[];
    changes constant integer := 4 | 8 | 16; -- UPDATE, INSERT, DELETE
BEGIN
    IF cardinality(views) = 0 THEN
        RETURN;
    END IF;
    locked := ARRAY(SELECT l.relation FROM pg_locks l
        WHERE l.mode = 'AccessExclusiveLock' AND l.pid IS DISTINCT FROM pg_backend_pid()
            AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
            AND l.relation IS NOT NULL);
    FOREACH view IN ARRAY views LOOP
        query := NULL;
        updatable := NULL;
        IF NOT view = ANY (locked) AND NOT EXISTS (SELECT FROM pg_rewrite r
            JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
            WHERE r.ev_class = view_queries.view AND d.refobjid = ANY (locked))
        THEN
            BEGIN
                query := pg_get_viewdef(view);
                updatable := pg_relation_is_updatable(view, false) & changes = changes
                    AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = view_queries.view)
                    AND (SELECT count(*) FROM pg_rewrite r
                        WHERE r.ev_class = view_queries.view) = 1;
                RAISE EXCEPTION USING MESSAGE = 'locks are given back';
            EXCEPTION
                WHEN raise_exception THEN NULL;
                WHEN OTHERS THEN query := NULL;
            END;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
