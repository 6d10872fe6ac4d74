-- What must hold of sharded tables, whoever has changed what: looked at in the transaction of each
-- change of the schema. Only what is new in it is judged, so an old sin stops nobody.
CREATE OR REPLACE FUNCTION pgherd.check_sharded() RETURNS void
LANGUAGE plpgsql STABLE SET jit = off SET search_path = pg_catalog AS $$
DECLARE
    -- Rows of the catalogs that are no older than the transaction: made by it, or beside it.
    mine integer := age(pg_current_xact_id_if_assigned()::xid);
    wrong record;
BEGIN
    IF mine IS NULL THEN
        RETURN;
    END IF;
    SELECT t.table_oid::regclass AS tbl INTO wrong FROM pgherd.table_list t
        JOIN pg_attribute a ON a.attrelid = t.table_oid AND a.attnum = t.key_column
        WHERE a.attisdropped LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the distribution column of table % cannot be dropped', wrong.tbl
            USING ERRCODE = '0A000',
            HINT = 'Undistribute the table first: SELECT undistribute_table(...).';
    END IF;

    FOR wrong IN
        WITH RECURSIVE family AS (
            SELECT t.table_oid AS oid, t.group_id, a.attname AS key_name,
                age(t.xmin) <= mine AS fresh
            FROM pgherd.table_list t
            LEFT JOIN pg_attribute a ON a.attrelid = t.table_oid AND a.attnum = t.key_column
            UNION
            SELECT i.inhrelid, f.group_id, f.key_name, f.fresh OR age(i.xmin) <= mine
            FROM family f JOIN pg_inherits i ON i.inhparent = f.oid
        )
        SELECT 1 AS what, r.rulename::text AS name, f.oid::regclass AS tbl, f.key_name
        FROM family f JOIN pg_rewrite r ON r.ev_class = f.oid
        WHERE f.fresh OR age(r.xmin) <= mine
        UNION ALL
        SELECT 2, g.tgname, f.oid::regclass, f.key_name
        FROM family f JOIN pg_trigger g ON g.tgrelid = f.oid AND NOT g.tgisinternal
        WHERE f.group_id IS NULL AND (f.fresh OR age(g.xmin) <= mine)
        UNION ALL
        SELECT 3, i.indexrelid::regclass::text, f.oid::regclass, f.key_name
        FROM family f
        JOIN pg_index i ON i.indrelid = f.oid AND (i.indisunique OR i.indisexclusion)
        JOIN pg_attribute a ON a.attrelid = f.oid AND a.attname = f.key_name
        WHERE (f.fresh OR age(i.xmin) <= mine)
            AND NOT a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
        UNION ALL
        -- The key of a row that such a foreign key acts on would change on its shard.
        SELECT 4, c.conname, f.oid::regclass, f.key_name
        FROM family f JOIN pg_constraint c ON c.conrelid = f.oid AND c.contype = 'f'
        JOIN pg_attribute a ON a.attrelid = f.oid AND a.attname = f.key_name
        LEFT JOIN pgherd.table_list o ON o.table_oid = c.confrelid
        WHERE (f.fresh OR age(c.xmin) <= mine OR age(o.xmin) <= mine)
            AND a.attnum = ANY (c.conkey) AND (
            c.confupdtype IN ('n', 'd')
            OR (c.confupdtype = 'c' AND o.table_oid IS NOT NULL AND o.group_id IS NULL)
            OR (c.confdeltype = 'd' OR (c.confdeltype = 'n' AND NOT a.attnotnull))
                AND (c.confdelsetcols IS NULL OR a.attnum = ANY (c.confdelsetcols)))
        UNION ALL
        -- A row and the row that it refers to must be on one shard. Tables that are plain still may
        -- be distributed next.
        SELECT 5, c.conname, f.oid::regclass, a.key_name
        FROM family f JOIN pg_constraint c ON c.contype = 'f' AND c.conparentid = 0
            AND f.oid = c.conrelid
        JOIN family a ON a.oid = c.conrelid
        JOIN family b ON b.oid = c.confrelid AND b.group_id IS NOT NULL
        WHERE (a.fresh OR b.fresh OR age(c.xmin) <= mine)
            AND (a.group_id = b.group_id
                AND array_position(c.conkey, (SELECT attnum FROM pg_attribute
                        WHERE attrelid = c.conrelid AND attname = a.key_name))
                    = array_position(c.confkey, (SELECT attnum FROM pg_attribute
                        WHERE attrelid = c.confrelid AND attname = b.key_name))) IS NOT TRUE
        LIMIT 1
    LOOP
        CASE wrong.what
        WHEN 1 THEN
            RAISE EXCEPTION 'rules on sharded tables are not supported' USING ERRCODE = '0A000',
                DETAIL = format('What the rule "%s" adds to statements on %s could need another shard.',
                    wrong.name, wrong.tbl),
                HINT = 'Write the other statement in the application, or in a transaction.';
        WHEN 2 THEN
            RAISE EXCEPTION 'triggers on reference tables are not supported' USING ERRCODE = '0A000',
                DETAIL = format('Each shard would run the trigger "%s" of %s for itself, and the '
                    'copies could differ.', wrong.name, wrong.tbl),
                HINT = 'Compute the values before the write.';
        WHEN 3 THEN
            RAISE EXCEPTION 'unique index "%" does not contain the distribution column "%"',
                wrong.name, wrong.key_name USING ERRCODE = '0A000',
                DETAIL = 'Each shard could only keep its own rows unique.',
                HINT = 'Make the distribution column a part of the primary key or unique constraint.';
        WHEN 4 THEN
            RAISE EXCEPTION 'the foreign key "%" would change the distribution column of table %',
                wrong.name, wrong.tbl USING ERRCODE = '0A000',
                DETAIL = 'A row with another key belongs to another shard.',
                HINT = 'Use NO ACTION or RESTRICT (or ON DELETE CASCADE) for it.';
        ELSE
            RAISE EXCEPTION 'the foreign key "%" of table % cannot be checked on the shards',
                wrong.name, wrong.tbl USING ERRCODE = '0A000',
                DETAIL = 'A row and the row that it refers to must be on the same shard.',
                HINT = 'Distribute both in one colocation group, by columns that the foreign key '
                    'pairs, or make the other a reference table.';
        END CASE;
    END LOOP;
END $$;

-- Before ALTER TYPE … RENAME VALUE: keys that are enums are hashed by their labels.
CREATE OR REPLACE FUNCTION pgherd.check_labels(type_name text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    tbl regclass;
BEGIN
    SELECT t.table_oid INTO tbl FROM pgherd.table_list t
        JOIN pg_catalog.pg_attribute a ON a.attrelid = t.table_oid AND a.attnum = t.key_column
        WHERE pgherd.base_type(a.atttypid) = pg_catalog.to_regtype(type_name) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'values of type % cannot be renamed', type_name USING ERRCODE = '0A000',
            DETAIL = pg_catalog.format('They distribute table %s, by their names.', tbl),
            HINT = 'Undistribute the table, rename the value, and distribute it again.';
    END IF;
END $$;
