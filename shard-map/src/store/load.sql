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
views AS (
    SELECT o.view AS oid, bool_or(f.group_id IS NOT NULL) AS distributed
    FROM over o JOIN family f ON f.oid = o.oid GROUP BY o.view
)
SELECT pg_catalog.json_build_object(
    'epoch', k.epoch,
    'home', k.home,
    'moving', coalesce((SELECT pg_catalog.json_agg(DISTINCT m.group_id)
        FROM pgherd.reshard_list r, pg_catalog.jsonb_to_recordset(r.moves) AS m (group_id integer)
        WHERE r.phase NOT IN ('finished', 'cancelled')), '[]'::json),
    'bytewise_collation', (SELECT datlocprovider = 'c'
        AND datcollate IN ('C', 'POSIX', 'C.UTF-8', 'C.utf8')
        FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
    'shards', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('id', id, 'dsn', dsn))
        FROM pgherd.shard_list),
    'groups', coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
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
        FROM pgherd.group_list g), '[]'::json),
    'relations', coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'schema', n.nspname, 'name', c.relname,
            'kind', CASE
                WHEN f.oid IS NOT NULL AND f.group_id IS NOT NULL THEN 'distributed'
                WHEN f.oid IS NOT NULL THEN 'reference'
                WHEN v.distributed THEN 'view_over_distributed'
                WHEN v.oid IS NOT NULL THEN 'view_over_reference'
                ELSE 'home' END,
            'group', f.group_id, 'key', f.key_name,
            'columns', CASE WHEN f.oid IS NOT NULL THEN
                (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'name', a.attname,
                    'type_name', pg_catalog.format_type(a.atttypid, a.atttypmod),
                    'collation', CASE WHEN a.attcollation NOT IN (0, 100)
                        THEN a.attcollation::pg_catalog.regcollation::text END,
                    'has_default', a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> ''
                ) ORDER BY a.attnum)
                FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END))
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN family f ON f.oid = c.oid
        LEFT JOIN views v ON v.oid = c.oid
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
            AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd')
            AND n.nspname NOT LIKE 'pg\_toast%' AND n.nspname NOT LIKE 'pg\_temp\_%'),
        '[]'::json)
)::text
FROM pgherd.cluster k
