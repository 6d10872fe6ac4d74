-- Functions whose bodies may change the session of their server (settings, locks, temporary tables,
-- LISTEN), functions that call them, and relations that do, by triggers, defaults, rules or policies.
-- Words are looked at, not SQL, as in `reading_functions`: that a name is here without need costs
-- its statements one question to their server. `settings` are the names of settings of an application's
-- own, which no catalog lists; `stays`: there may be others, so the server stays with the session.
CREATE OR REPLACE FUNCTION pgherd.session_effects()
RETURNS TABLE (kind text, name text, settings text[], stays boolean)
LANGUAGE plpgsql STABLE ROWS 10 SET jit = off SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN RETURN QUERY
WITH RECURSIVE
bodies AS (
    SELECT p.oid, p.proname, l.lanname IN ('internal', 'c') AS compiled,
        CASE WHEN l.lanname NOT IN ('internal', 'c')
            THEN lower(p.prosrc || coalesce(pg_get_function_sqlbody(p.oid), '')) ELSE '' END AS body
    FROM pg_proc p
    JOIN pg_language l ON l.oid = p.prolang
    JOIN pg_namespace n ON n.oid = p.pronamespace
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd')
    WHERE p.prokind IN ('f', 'p', 'w') AND (l.lanname NOT IN ('internal', 'c')
        OR p.proname IN ('set_limit', 'dblink_connect', 'dblink_connect_u'))
),
direct AS (
    SELECT b.oid, b.compiled
            -- A name that is put together, unless all calls are local.
            OR b.body ~ 'set_config\s*\(\s*(?!''+[^'']*''+(::text)?\s*,)' AND NOT (
                (SELECT count(*) FROM regexp_matches(b.body, '\mset_config\M', 'g')) =
                (SELECT count(*) FROM regexp_matches(b.body,
                    '\mset_config\s*\([^;]*?,\s*(true|''+(true|t|on|yes|1)''+)\s*\)', 'g')))
            OR b.body ~ '(:=|\mexecute)\s*(format\s*\(\s*)?''\s*set\s+(session\s+)?(%|'')' AS stays
    FROM bodies b
    WHERE b.compiled
        OR b.body ~ ('\m(set_config|reset|discard|listen|unlisten|temp|temporary|pg_temp|pg_settings'
            '|pg_(try_)?advisory_(lock|unlock)\w*)\M')
        OR b.body ~ '\mwith\s+hold\M'
        -- SET where a statement begins; that of UPDATE follows a name.
        OR b.body ~ ('(^|;|''|\$|\m(begin|then|else|loop|atomic)\M|>>|\*/|--[^\n]*\n)\s*'
            'set\s+(session\s+|local\s+)?[a-z_%'']')
        -- A statement that is put together out of sight.
        OR b.body ~ '\mexecute\s+(?!(format|immediate|function|procedure|on)\M)[a-z_(]'
),
-- And who calls them, by name.
reach AS (
    SELECT d.oid, d.oid AS does FROM direct d
    UNION
    SELECT b.oid, r.does FROM reach r JOIN bodies c ON c.oid = r.oid
    JOIN bodies b ON b.oid <> c.oid AND strpos(b.body, lower(c.proname)) > 0
        AND b.body ~ ('\m' || regexp_replace(lower(c.proname), '[^a-z0-9_]', '\\\&', 'g') || '\M')
),
named AS (
    SELECT b.oid, lower(m[1]) AS setting FROM bodies b, LATERAL regexp_matches(b.body,
        '(?:''|\mset\s+(?:session\s+|local\s+)?)([a-z_][a-z0-9_$]*(?:\.[a-z_][a-z0-9_$]*)+)', 'g') m
    WHERE EXISTS (SELECT FROM direct)
),
functions AS (
    SELECT r.oid, bool_or(d.stays) AS stays,
        -- The callers' own words count, too: a name may be an argument.
        (SELECT array_agg(DISTINCT n.setting) FROM named n
            WHERE n.oid = r.oid OR n.oid IN (SELECT s.does FROM reach s WHERE s.oid = r.oid)) AS settings
    FROM reach r JOIN direct d ON d.oid = r.does GROUP BY r.oid
),
-- What calls a function: a part of a relation, and whether reading the relation is enough.
parts AS (
    SELECT d.classid, d.objid, d.refobjid AS function FROM pg_depend d
    JOIN functions f ON f.oid = d.refobjid WHERE d.refclassid = 'pg_proc'::regclass
),
users AS (
    SELECT t.tgrelid AS oid, t.tgfoid AS function, false AS reads
    FROM pg_trigger t JOIN functions f ON f.oid = t.tgfoid
    UNION
    SELECT a.adrelid, p.function, false FROM parts p
    JOIN pg_attrdef a ON p.classid = 'pg_attrdef'::regclass AND a.oid = p.objid
    UNION
    SELECT c.conrelid, p.function, false FROM parts p
    JOIN pg_constraint c ON p.classid = 'pg_constraint'::regclass AND c.oid = p.objid AND c.conrelid <> 0
    UNION
    SELECT w.ev_class, p.function, w.ev_type = '1' FROM parts p
    JOIN pg_rewrite w ON p.classid = 'pg_rewrite'::regclass AND w.oid = p.objid
    UNION
    SELECT y.polrelid, p.function, true FROM parts p
    JOIN pg_policy y ON p.classid = 'pg_policy'::regclass AND y.oid = p.objid
),
-- Views over these, their partitions and their parents.
over AS (
    SELECT oid, function, reads FROM users
    UNION
    SELECT x.oid, o.function, o.reads FROM over o CROSS JOIN LATERAL (
        SELECT w.ev_class AS oid FROM pg_rewrite w
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
            AND d.refclassid = 'pg_class'::regclass
        WHERE d.refobjid = o.oid AND w.ev_class <> o.oid
        UNION SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = o.oid
        UNION SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = o.oid
    ) x
)
SELECT 'function', p.proname::text,
    (SELECT array_agg(DISTINCT s) FROM functions g
        JOIN pg_proc q ON q.oid = g.oid, LATERAL unnest(g.settings) s WHERE q.proname = p.proname),
    bool_or(f.stays)
FROM functions f JOIN pg_proc p ON p.oid = f.oid
WHERE p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
GROUP BY p.proname
UNION ALL
SELECT CASE WHEN bool_or(o.reads) THEN 'read' ELSE 'write' END, c.relname::text,
    (SELECT array_agg(DISTINCT s) FROM over v JOIN pg_class r ON r.oid = v.oid
        JOIN functions g ON g.oid = v.function, LATERAL unnest(g.settings) s WHERE r.relname = c.relname),
    bool_or(f.stays)
FROM over o JOIN functions f ON f.oid = o.function JOIN pg_class c ON c.oid = o.oid
GROUP BY c.relname;
END
$$;
