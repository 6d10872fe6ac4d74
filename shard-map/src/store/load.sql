-- Groups whose rows are on their way.
CREATE OR REPLACE FUNCTION pgherd.moving_groups() RETURNS json
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
SELECT coalesce((SELECT pg_catalog.json_agg(DISTINCT m.group_id)
    FROM pgherd.reshard_list r, pg_catalog.jsonb_to_recordset(r.moves) AS m (group_id integer)
    WHERE r.phase NOT IN ('finished', 'cancelled')), '[]'::json)
$$;

-- Where each group's rows are.
CREATE OR REPLACE FUNCTION pgherd.group_placements() RETURNS json
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
SELECT coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
        'id', g.id, 'key_type', g.key_type,
        'placement', pg_catalog.json_build_object(g.distribution, CASE g.distribution
            WHEN 'hash' THEN (SELECT pg_catalog.json_agg(
                    pg_catalog.json_build_array(r.start_hash, r.shard))
                FROM pgherd.range_list r WHERE r.group_id = g.id)
            WHEN 'range' THEN (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'start', r.start_value, 'end', r.end_value, 'shard', r.shard))
                FROM pgherd.value_range_list r WHERE r.group_id = g.id)
            WHEN 'list' THEN (SELECT pg_catalog.json_agg(
                    pg_catalog.json_build_array(v.value, v.shard))
                FROM pgherd.value_list v WHERE v.group_id = g.id) END)))
    FROM pgherd.group_list g), '[]'::json)
$$;

-- The part of the map that a change of owners changes, while writers wait for it: a look at every
-- relation would take long. It is enough for who has a map of `whole_epoch` or later.
CREATE OR REPLACE FUNCTION pgherd.shard_placement() RETURNS SETOF text
LANGUAGE sql STABLE ROWS 1 SET search_path = pg_catalog AS $$
SELECT json_build_object('epoch', k.epoch, 'whole_epoch', k.whole_epoch,
    'moving', pgherd.moving_groups(), 'groups', pgherd.group_placements())::text
FROM pgherd.cluster k
$$;

-- The whole map as JSON; no row before there is a cluster. A function for its settings: JIT would take
-- seconds, and every change of the schema waits for the map; and whoever reads it, it is the same. In
-- plpgsql, as what it calls, since that keeps the plans: to make them takes longer than to run them.
CREATE OR REPLACE FUNCTION pgherd.shard_map() RETURNS SETOF text
LANGUAGE plpgsql STABLE ROWS 1 SET jit = off SET search_path = pg_catalog, pg_temp AS $$
BEGIN RETURN QUERY
WITH RECURSIVE
registered AS (
    SELECT t.table_oid AS oid, t.group_id, a.attname AS key_name
    FROM pgherd.table_list t
    JOIN pg_catalog.pg_class c ON c.oid = t.table_oid
    LEFT JOIN pg_catalog.pg_attribute a
        ON a.attrelid = t.table_oid AND a.attnum = t.key_column
),
-- Partitions and inheritance children hold rows of their parent.
family AS (
    SELECT oid, group_id, key_name FROM registered
    UNION
    SELECT i.inhrelid, f.group_id, f.key_name
    FROM family f JOIN pg_catalog.pg_inherits i ON i.inhparent = f.oid
),
-- Views, transitively: what each reads.
reads AS (
    SELECT r.ev_class AS view, d.refobjid AS oid
    FROM pg_catalog.pg_rewrite r
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass
        AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
        AND d.refobjid <> r.ev_class
),
over AS (
    SELECT view, oid FROM reads
    UNION
    SELECT o.view, r.oid FROM over o JOIN reads r ON r.view = o.oid
),
views_read AS (
    SELECT o.view AS oid, bool_or(f.group_id IS NOT NULL) AS distributed
    FROM over o JOIN family f ON f.oid = o.oid GROUP BY o.view
),
-- A view that calls a function which reads distributed tables is as one that reads them.
readers AS (SELECT r AS oid FROM pgherd.reading_functions() r),
calls AS (
    SELECT r.ev_class AS view FROM pg_catalog.pg_rewrite r
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass
        AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_proc'::regclass
    JOIN readers f ON f.oid = d.refobjid
    UNION
    SELECT o.view FROM over o JOIN calls c ON c.view = o.oid
),
views AS (
    SELECT oid, bool_or(distributed) AS distributed FROM (
        SELECT oid, distributed FROM views_read UNION ALL SELECT view, true FROM calls
    ) AS found GROUP BY oid
),
-- Those whose rows are the shards' rows in a way that planning can find out.
queries AS (
    SELECT q.view, q.query, q.updatable FROM pgherd.view_queries(ARRAY(
        SELECT v.oid FROM views v
        JOIN pg_catalog.pg_class c ON c.oid = v.oid AND c.relkind = 'v'
        WHERE v.distributed AND NOT EXISTS (SELECT FROM calls x WHERE x.view = v.oid))) q
)
SELECT pg_catalog.json_build_object(
    'epoch', k.epoch,
    'home', k.home,
    'moving', pgherd.moving_groups(),
    'locked_views', EXISTS (SELECT FROM queries q WHERE q.query IS NULL),
    'changing', coalesce((SELECT pg_catalog.json_agg(DISTINCT pg_catalog.jsonb_build_object(
            'schema', n.nspname, 'name', c.relname))
        FROM pgherd.change_list l
        -- And what reads them.
        CROSS JOIN LATERAL (SELECT l.table_oid AS oid
            UNION SELECT o.view FROM over o WHERE o.oid = l.table_oid) x
        JOIN pg_catalog.pg_class c ON c.oid = x.oid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT pg_catalog.pg_visible_in_snapshot(l.xid, pg_catalog.pg_current_snapshot())),
        '[]'::json),
    'bytewise_collation', (SELECT datlocprovider = 'c'
        AND datcollate IN ('C', 'POSIX', 'C.UTF-8', 'C.utf8')
        FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
    'shards', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('id', id, 'dsn', dsn))
        FROM pgherd.shard_list),
    'groups', pgherd.group_placements(),
    'relations', coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'schema', n.nspname, 'name', c.relname,
            'kind', CASE
                WHEN f.oid IS NOT NULL AND f.group_id IS NOT NULL THEN 'distributed'
                WHEN f.oid IS NOT NULL THEN 'reference'
                WHEN q.query IS NOT NULL THEN 'view'
                WHEN v.distributed THEN 'view_over_distributed'
                WHEN v.oid IS NOT NULL THEN 'view_over_reference'
                ELSE 'home' END,
            'group', f.group_id, 'key', f.key_name,
            'view', CASE WHEN q.query IS NOT NULL THEN
                (SELECT pg_catalog.json_build_object(
                    'query', q.query,
                    'reads', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                            'schema', rn.nspname, 'name', rc.relname))
                        FROM (SELECT DISTINCT r.oid FROM reads r WHERE r.view = c.oid) r
                        JOIN pg_catalog.pg_class rc ON rc.oid = r.oid
                        JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace),
                    'functions', coalesce(pg_catalog.json_agg(DISTINCT p.proname)
                        FILTER (WHERE p.oid IS NOT NULL), '[]'::json),
                    'may_write', coalesce(pg_catalog.bool_or(p.provolatile = 'v' OR EXISTS (
                        SELECT FROM pg_catalog.pg_aggregate g JOIN pg_catalog.pg_proc s
                            ON s.oid IN (g.aggtransfn, g.aggfinalfn, g.aggcombinefn)
                        WHERE g.aggfnoid = p.oid AND s.provolatile = 'v')), false),
                    'folds', pg_catalog.bool_or(w.ev_action::text LIKE '%:hasAggs true%'
                        OR w.ev_action::text LIKE '%:hasWindowFuncs true%'),
                    'row_security', EXISTS (SELECT FROM over o
                        JOIN pg_catalog.pg_class t ON t.oid = o.oid
                        WHERE o.view = c.oid AND t.relrowsecurity),
                    'updatable', q.updatable)
                FROM pg_catalog.pg_rewrite w
                LEFT JOIN pg_catalog.pg_depend e
                    ON e.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                    AND e.objid = w.oid
                    AND e.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                LEFT JOIN pg_catalog.pg_proc p ON p.oid = e.refobjid
                WHERE w.ev_class = c.oid) END,
            'columns', CASE WHEN f.oid IS NOT NULL OR q.query IS NOT NULL THEN
                (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'name', a.attname,
                    'type_name', pg_catalog.format_type(a.atttypid, a.atttypmod),
                    'collation', CASE WHEN a.attcollation NOT IN (0, 100)
                        THEN a.attcollation::pg_catalog.regcollation::text END,
                    'default', CASE
                        WHEN a.attgenerated <> '' THEN '"generated"'::json
                        WHEN s.name IS NOT NULL THEN pg_catalog.json_build_object('sequence',
                            pg_catalog.json_build_object('schema', s.schema, 'name', s.name,
                                'identity', CASE a.attidentity WHEN 'a' THEN 'always'
                                    WHEN 'd' THEN 'by_default' ELSE 'none' END))
                        WHEN d.oid IS NULL THEN '"none"'
                        WHEN d.adbin::text LIKE '{CONST %' THEN '"constant"'
                        WHEN d.expression IN ('gen_random_uuid()', 'pg_catalog.gen_random_uuid()')
                            THEN '"random_uuid"'
                        ELSE '"expression"' END
                ) ORDER BY a.attnum)
                FROM pg_catalog.pg_attribute a
                -- Without the table's number, which would wait for whoever has locked the table.
                LEFT JOIN LATERAL (SELECT d.oid, d.adbin, CASE a.attgenerated
                        WHEN '' THEN pg_catalog.pg_get_expr(d.adbin, 0) END AS expression
                    FROM pg_catalog.pg_attrdef d
                    WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum) d ON true
                -- Of an identity column, or of a default that is nextval() and nothing else.
                LEFT JOIN LATERAL (SELECT sn.nspname AS schema, sc.relname AS name
                    FROM (
                        SELECT p.objid AS oid FROM pg_catalog.pg_depend p
                        WHERE a.attidentity <> '' AND p.deptype = 'i'
                            AND p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                            AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                            AND p.refobjid = a.attrelid AND p.refobjsubid = a.attnum
                        UNION ALL
                        SELECT p.refobjid FROM pg_catalog.pg_depend p
                        WHERE a.attidentity = '' AND p.deptype = 'n'
                            AND d.expression ~ '^nextval\(''.*''::regclass\)$'
                            AND p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
                            AND p.objid = d.oid
                            AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                    ) of_column
                    JOIN pg_catalog.pg_class sc ON sc.oid = of_column.oid AND sc.relkind = 'S'
                    JOIN pg_catalog.pg_namespace sn ON sn.oid = sc.relnamespace
                    LIMIT 1) s ON true
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END))
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN family f ON f.oid = c.oid
        LEFT JOIN views v ON v.oid = c.oid
        LEFT JOIN queries q ON q.view = c.oid
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
            AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd')
            AND n.nspname NOT LIKE 'pg\_toast%' AND n.nspname NOT LIKE 'pg\_temp\_%'),
        '[]'::json),
    'functions', pgherd.user_functions(ARRAY(SELECT r.oid FROM readers r)),
    'straying', coalesce((SELECT pg_catalog.json_agg(s) FROM pgherd.straying_triggers() s), '[]'::json),
    'session_effects', coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'kind', e.kind, 'name', e.name, 'settings', coalesce(e.settings, '{}'), 'stays', e.stays))
        FROM pgherd.session_effects() e), '[]'::json)
)::text
FROM pgherd.cluster k;
END
$$;
