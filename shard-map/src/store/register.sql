-- Which tables are distributed, by which column; what cannot be is refused here.

CREATE OR REPLACE FUNCTION pgherd.check_owner(tbl regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = tbl AND c.relkind IN ('r', 'p')) THEN
        RAISE EXCEPTION '"%" is not a table', tbl USING ERRCODE = '42809';
    END IF;
    IF NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = tbl
                   AND pg_has_role(session_user, c.relowner, 'USAGE')) THEN
        RAISE EXCEPTION 'must be owner of table %', tbl USING ERRCODE = '42501';
    END IF;
END $$;

-- Rows of a child are rows of its parent, so both go together.
CREATE OR REPLACE FUNCTION pgherd.check_no_child(tbl regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhrelid = tbl) THEN
        RAISE EXCEPTION 'table % is a partition or inheritance child', tbl
            USING ERRCODE = '0A000', HINT = 'Distribute its parent.';
    END IF;
END $$;

-- A domain is its base type: its constraints change no value.
CREATE OR REPLACE FUNCTION pgherd.base_type(type_oid oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    WITH RECURSIVE chain AS (
        SELECT type_oid AS oid
        UNION ALL
        SELECT t.typbasetype FROM chain c JOIN pg_type t ON t.oid = c.oid AND t.typtype = 'd'
    )
    SELECT c.oid FROM chain c JOIN pg_type t ON t.oid = c.oid AND t.typtype <> 'd'
$$;

-- Refuses columns whose stored values the router could not hash, or compare, as they are written.
CREATE OR REPLACE FUNCTION pgherd.check_key(
    tbl regclass, key_name text, distribution text, OUT key_number integer, OUT key_type text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
DECLARE
    col pg_attribute;
    base oid;
    shown text;
    bytewise boolean;
BEGIN
    SELECT * INTO col FROM pg_attribute
        WHERE attrelid = tbl AND attname = key_name AND attnum > 0 AND NOT attisdropped;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'column "%" of table % does not exist', key_name, tbl
            USING ERRCODE = '42703';
    END IF;
    key_number := col.attnum;
    base := pgherd.base_type(col.atttypid);
    shown := format_type(col.atttypid, col.atttypmod);
    key_type := CASE WHEN (SELECT typtype FROM pg_type WHERE oid = base) = 'e' THEN 'enum'
        ELSE format_type(base, NULL) END;
    IF key_type NOT IN (
        'smallint', 'integer', 'bigint', 'numeric', 'text', 'character varying', 'character',
        'uuid', 'date', 'time without time zone', 'timestamp without time zone',
        'timestamp with time zone', 'bytea', 'boolean', 'inet', 'enum')
    THEN
        RAISE EXCEPTION 'a column of type % cannot distribute a table', shown
            USING ERRCODE = '0A000',
            HINT = 'Key types: smallint, integer, bigint, numeric, text, varchar, char, uuid, '
                'date, time, timestamp, timestamptz, bytea, boolean, inet, and enums.';
    END IF;
    IF base <> col.atttypid AND EXISTS (
        WITH RECURSIVE chain AS (
            SELECT col.atttypid AS oid
            UNION ALL
            SELECT t.typbasetype FROM chain c JOIN pg_type t ON t.oid = c.oid AND t.typtype = 'd'
        )
        SELECT 1 FROM chain c JOIN pg_type t ON t.oid = c.oid AND t.typtypmod <> -1)
    THEN
        RAISE EXCEPTION 'a column of type % cannot distribute a table', shown
            USING ERRCODE = '0A000',
            DETAIL = 'The domain is over a type with a length or precision.',
            HINT = 'Use a type without length, with a CHECK constraint where it matters.';
    END IF;
    IF col.atttypmod <> -1 AND key_type NOT IN ('character varying', 'character') THEN
        RAISE EXCEPTION 'a column of type % cannot distribute a table', shown
            USING ERRCODE = '0A000',
            DETAIL = 'PostgreSQL rounds a value when it stores it, so its hash would change.',
            HINT = format('Use the type %s without a precision.', key_type);
    END IF;
    IF col.attgenerated <> '' THEN
        RAISE EXCEPTION 'the generated column "%" cannot distribute a table', key_name
            USING ERRCODE = '0A000',
            DETAIL = 'Its value is only known after the row has been sent to a shard.',
            HINT = 'Distribute the table by a column that statements write.';
    END IF;
    IF NOT coalesce((SELECT collisdeterministic FROM pg_collation WHERE oid = col.attcollation),
                    true) THEN
        RAISE EXCEPTION 'a column with the nondeterministic collation % cannot distribute a table',
            col.attcollation::regcollation USING ERRCODE = '0A000',
            DETAIL = 'Values that it takes for equal have different hashes.',
            HINT = 'Give the column a deterministic collation.';
    END IF;
    IF distribution = 'range' THEN
        bytewise := CASE col.attcollation
            WHEN 0 THEN true
            WHEN 100 THEN (SELECT datlocprovider = 'c'
                AND datcollate IN ('C', 'POSIX', 'C.UTF-8', 'C.utf8')
                FROM pg_database WHERE datname = current_database())
            ELSE (SELECT collname IN ('C', 'POSIX') AND collnamespace = 'pg_catalog'::regnamespace
                FROM pg_collation WHERE oid = col.attcollation) END;
        IF key_type IN ('inet', 'enum') OR NOT bytewise THEN
            RAISE EXCEPTION 'column "%" cannot distribute a table by ranges', key_name
                USING ERRCODE = '0A000',
                DETAIL = 'The order of its values is not known to the router.',
                HINT = 'Text needs the collation "C"; inet and enums can use hash or list.';
        END IF;
    END IF;
END $$;

-- Each shard can only keep its own rows unique, so the key must be a part of what is unique, also
-- in partitions and inheritance children, where the column may have another number.
CREATE OR REPLACE FUNCTION pgherd.check_unique(tbl regclass, key_name text)
RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
DECLARE
    offender text;
BEGIN
    WITH RECURSIVE family AS (
        SELECT tbl::oid AS oid
        UNION
        SELECT h.inhrelid FROM family f JOIN pg_inherits h ON h.inhparent = f.oid
    )
    SELECT i.indexrelid::regclass::text INTO offender FROM family f
        JOIN pg_index i ON i.indrelid = f.oid AND (i.indisunique OR i.indisexclusion)
        JOIN pg_attribute a ON a.attrelid = f.oid AND a.attname = key_name
        WHERE NOT a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) LIMIT 1;
    IF offender IS NOT NULL THEN
        RAISE EXCEPTION 'unique index "%" does not contain the distribution column "%"',
            offender, key_name USING ERRCODE = '0A000',
            DETAIL = 'Each shard could only keep its own rows unique.',
            HINT = 'Make the distribution column a part of the primary key or unique constraint.';
    END IF;
END $$;

-- Rows that are there already will be moved by their keys: each must have a place.
CREATE OR REPLACE FUNCTION pgherd.check_rows(tbl regclass, key_name text, distribution text)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    found boolean := NOT (SELECT attnotnull FROM pg_attribute
        WHERE attrelid = tbl AND attname = key_name);
BEGIN
    -- The search for a null reads all rows.
    IF found THEN
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s WHERE %I IS NULL)', tbl, key_name)
            INTO found;
    END IF;
    IF found THEN
        RAISE EXCEPTION 'column "%" of table % contains null values', key_name, tbl
            USING ERRCODE = '23502', DETAIL = 'The distribution column decides which shard holds a row.';
    END IF;
    IF distribution <> 'hash' THEN
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s)', tbl) INTO found;
        IF found THEN
            RAISE EXCEPTION 'table % has rows and cannot be distributed by %', tbl, distribution
                USING ERRCODE = '0A000',
                HINT = 'Distribute an empty table, assign its values to shards, then load the rows.';
        END IF;
    END IF;
END $$;

-- The group that tables join which name none: by hash, over all shards.
CREATE OR REPLACE FUNCTION pgherd.default_group(wanted_type text) RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT g.id FROM pgherd.group_list g
        WHERE g.key_type = wanted_type AND g.distribution = 'hash'
        AND (SELECT array_agg(r.shard ORDER BY r.start_hash) FROM pgherd.range_list r
             WHERE r.group_id = g.id) = (SELECT array_agg(s.id ORDER BY s.id) FROM pgherd.shard_list s)
        ORDER BY g.id LIMIT 1
$$;

CREATE OR REPLACE FUNCTION pgherd.register_distributed(
    tbl regclass, key_name text, colocate_with regclass, distribution text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    key record;
    found_group pgherd.group_list;
    shards integer[];
BEGIN
    PERFORM pgherd.check_owner(tbl);
    PERFORM pgherd.check_no_child(tbl);
    IF distribution NOT IN ('hash', 'range', 'list') THEN
        RAISE EXCEPTION 'distribution "%" does not exist', distribution
            USING ERRCODE = '22023', HINT = 'Use ''hash'', ''range'' or ''list''.';
    END IF;
    -- Serialises with every other change of the catalog.
    PERFORM pgherd.bump_epoch();
    PERFORM pgherd.forget_dropped();
    IF colocate_with IS NOT NULL THEN
        SELECT g.* INTO found_group FROM pgherd.table_list t
            JOIN pgherd.group_list g ON g.id = t.group_id WHERE t.table_oid = colocate_with;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'table % is not distributed', colocate_with USING ERRCODE = '42P16';
        END IF;
        -- 'hash' is also what callers get who said nothing.
        IF distribution NOT IN ('hash', found_group.distribution) THEN
            RAISE EXCEPTION 'cannot colocate % with %: the latter is distributed by %',
                tbl, colocate_with, found_group.distribution USING ERRCODE = '42P16';
        END IF;
        distribution := found_group.distribution;
    END IF;
    key := pgherd.check_key(tbl, key_name, distribution);
    PERFORM pgherd.check_unique(tbl, key_name);
    PERFORM pgherd.check_rows(tbl, key_name, distribution);
    IF found_group.key_type <> key.key_type THEN
        RAISE EXCEPTION 'cannot colocate % with %: their key types differ', tbl, colocate_with
            USING ERRCODE = '42P16',
            DETAIL = format('The types are %s and %s.', key.key_type, found_group.key_type);
    END IF;
    IF found_group.id IS NULL AND distribution = 'hash' THEN
        SELECT g.* INTO found_group FROM pgherd.group_list g
            WHERE g.id = pgherd.default_group(key.key_type);
    END IF;
    IF found_group.id IS NULL THEN
        SELECT array_agg(id ORDER BY id) INTO shards FROM pgherd.shard_list;
        INSERT INTO pgherd.group_list (key_type, distribution)
            VALUES (key.key_type, register_distributed.distribution) RETURNING * INTO found_group;
        INSERT INTO pgherd.range_list (group_id, start_hash, shard)
            SELECT found_group.id,
                (trunc((n - 1) * 18446744073709551616 / cardinality(shards))
                    - 9223372036854775808)::bigint, shards[n]
            FROM generate_series(1::numeric, cardinality(shards)) AS n;
    END IF;
    PERFORM pgherd.check_not_moving(found_group.id);
    INSERT INTO pgherd.table_list (table_oid, group_id, key_column)
        VALUES (tbl, found_group.id, key.key_number);
    RETURN found_group.id;
END $$;

-- A row and the row that it refers to must be on one shard.
CREATE OR REPLACE FUNCTION pgherd.check_foreign_keys(tbls regclass[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
DECLARE
    wrong record;
BEGIN
    SELECT c.conname, c.conrelid::regclass AS tbl, c.confrelid::regclass AS other INTO wrong
        FROM pg_constraint c
        LEFT JOIN pgherd.table_list a ON a.table_oid = c.conrelid
        LEFT JOIN pgherd.table_list b ON b.table_oid = c.confrelid
        WHERE c.contype = 'f' AND c.conparentid = 0
        AND (c.conrelid = ANY (tbls) OR c.confrelid = ANY (tbls))
        AND NOT (a.group_id IS NOT NULL AND b.table_oid IS NOT NULL AND b.group_id IS NULL)
        AND (a.group_id = b.group_id
            AND array_position(c.conkey, a.key_column::smallint)
                = array_position(c.confkey, b.key_column::smallint)) IS NOT TRUE
        ORDER BY c.conname LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the foreign key "%" from table % to % could not be checked on the shards',
            wrong.conname, wrong.tbl, wrong.other USING ERRCODE = '0A000',
            DETAIL = 'A row and the row that it refers to must be on the same shard.',
            HINT = 'Distribute both in one go, by columns that the foreign key pairs ("pgherd '
                'reshard start --distribute a=id,b=a_id"), or make the other a reference table.';
    END IF;
END $$;

-- Makes distributed tables of plain ones, with all rows on the home shard, where they are, in a
-- group of their own: nothing moves yet, and nobody waits. Called again, it says the same.
CREATE OR REPLACE FUNCTION pgherd.register_at_home(tbls regclass[], key_names text[])
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    home_shard integer := (SELECT home FROM pgherd.cluster);
    new_group integer;
    group_type text;
    key record;
BEGIN
    PERFORM pgherd.check_owner(t), pgherd.check_no_child(t) FROM unnest(tbls) t;
    SELECT min(l.group_id) INTO new_group FROM pgherd.table_list l WHERE l.table_oid = ANY (tbls);
    IF new_group IS NOT NULL AND (
        SELECT count(*) FILTER (WHERE a.attname = w.key_name) = cardinality(tbls)
            AND count(*) = cardinality(tbls)
        FROM pgherd.table_list l
        LEFT JOIN unnest(tbls, key_names) AS w(tbl, key_name) ON w.tbl = l.table_oid
        LEFT JOIN pg_attribute a ON a.attrelid = l.table_oid AND a.attnum = l.key_column
        WHERE l.group_id = new_group)
        AND (SELECT array_agg(DISTINCT r.shard) FROM pgherd.range_list r
            WHERE r.group_id = new_group) = ARRAY[home_shard]
    THEN
        RETURN new_group;
    END IF;
    PERFORM pgherd.bump_epoch();
    PERFORM pgherd.forget_dropped();
    FOR n IN 1 .. cardinality(tbls) LOOP
        IF EXISTS (SELECT 1 FROM pgherd.table_list l WHERE l.table_oid = tbls[n]) THEN
            RAISE EXCEPTION 'table % is already distributed', tbls[n] USING ERRCODE = '42P16',
                HINT = 'undistribute_table() makes it a plain table again.';
        END IF;
        key := pgherd.check_key(tbls[n], key_names[n], 'hash');
        IF key.key_type = 'enum' THEN
            RAISE EXCEPTION 'table % cannot be distributed by an enum while it is used', tbls[n]
                USING ERRCODE = '0A000', HINT = 'create_distributed_table() can, and locks the table.';
        END IF;
        IF NOT (SELECT attnotnull FROM pg_attribute
                WHERE attrelid = tbls[n] AND attnum = key.key_number) THEN
            RAISE EXCEPTION 'column "%" of table % may be null', key_names[n], tbls[n]
                USING ERRCODE = '23502',
                DETAIL = 'The distribution column decides which shard holds a row.',
                HINT = format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL.', tbls[n], key_names[n]);
        END IF;
        PERFORM pgherd.check_unique(tbls[n], key_names[n]);
        IF group_type <> key.key_type THEN
            RAISE EXCEPTION 'cannot colocate % with %: their key types differ', tbls[n], tbls[1]
                USING ERRCODE = '42P16',
                DETAIL = format('The types are %s and %s.', key.key_type, group_type);
        END IF;
        IF group_type IS NULL THEN
            group_type := key.key_type;
            INSERT INTO pgherd.group_list (key_type) VALUES (group_type) RETURNING id INTO new_group;
            INSERT INTO pgherd.range_list VALUES (new_group, -9223372036854775808, home_shard);
        END IF;
        INSERT INTO pgherd.table_list (table_oid, group_id, key_column)
            VALUES (tbls[n], new_group, key.key_number);
    END LOOP;
    PERFORM pgherd.check_foreign_keys(tbls);
    PERFORM pg_notify('pgherd_epoch', '');
    RETURN new_group;
END $$;

CREATE OR REPLACE FUNCTION pgherd.register_reference(tbl regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pgherd.check_owner(tbl);
    PERFORM pgherd.check_no_child(tbl);
    PERFORM pgherd.bump_epoch();
    PERFORM pgherd.forget_dropped();
    INSERT INTO pgherd.table_list (table_oid) VALUES (tbl);
END $$;

CREATE OR REPLACE FUNCTION pgherd.unregister(tbl regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pgherd.check_owner(tbl);
    PERFORM pgherd.bump_epoch();
    PERFORM pgherd.check_not_moving(group_id) FROM pgherd.table_list WHERE table_oid = tbl;
    DELETE FROM pgherd.table_list WHERE table_oid = tbl;
    PERFORM pgherd.forget_dropped();
END $$;

-- Tables that were dropped meanwhile, whose oids may come again, and the groups of values that
-- nobody can name any more.
CREATE OR REPLACE FUNCTION pgherd.forget_dropped() RETURNS void
LANGUAGE sql SET search_path = pg_catalog AS $$
    DELETE FROM pgherd.table_list t
        WHERE NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = t.table_oid);
    DELETE FROM pgherd.group_list g WHERE g.distribution <> 'hash'
        AND NOT EXISTS (SELECT 1 FROM pgherd.table_list t WHERE t.group_id = g.id);
$$;
