-- Partitions and inheritance children: their rows are rows of their parents, so a family is sharded as
-- a whole. Only its eldest has a row in `table_list`.

-- The registered table whose rows a table's rows are: itself or an ancestor.
CREATE OR REPLACE FUNCTION pgherd.family_of(tbl regclass) RETURNS SETOF pgherd.table_list
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    WITH RECURSIVE up AS (
        SELECT tbl::oid AS oid
        UNION
        SELECT i.inhparent FROM up u JOIN pg_inherits i ON i.inhrelid = u.oid
    )
    SELECT t.* FROM up u JOIN pgherd.table_list t ON t.table_oid = u.oid
$$;

-- All that inherit from a table, and itself.
CREATE OR REPLACE FUNCTION pgherd.descendants(tbl regclass) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    WITH RECURSIVE down AS (
        SELECT tbl::oid AS oid
        UNION
        SELECT i.inhrelid FROM down d JOIN pg_inherits i ON i.inhparent = d.oid
    )
    SELECT oid FROM down
$$;

-- Before DETACH PARTITION and NO INHERIT: what leaves stays sharded, by itself.
CREATE OR REPLACE FUNCTION pgherd.leave_family(child regclass, parent regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    family pgherd.table_list;
    key_name name;
BEGIN
    PERFORM pgherd.check_owner(child);
    SELECT f.* INTO family FROM pgherd.family_of(parent) f;
    IF NOT FOUND OR NOT EXISTS (SELECT 1 FROM pg_inherits
        WHERE inhrelid = child AND inhparent = parent)
        -- It stays with another parent.
        OR EXISTS (SELECT 1 FROM pg_inherits i, pgherd.family_of(i.inhparent::regclass)
            WHERE i.inhrelid = child AND i.inhparent <> parent)
    THEN
        RETURN;
    END IF;
    PERFORM pgherd.bump_epoch(), pgherd.check_not_moving(family.group_id);
    SELECT attname INTO key_name FROM pg_attribute
        WHERE attrelid = family.table_oid AND attnum = family.key_column;
    INSERT INTO pgherd.table_list (table_oid, group_id, key_column)
        VALUES (child, family.group_id, (SELECT attnum FROM pg_attribute
            WHERE attrelid = child AND attname = key_name AND NOT attisdropped))
        ON CONFLICT DO NOTHING;
    PERFORM pg_notify('pgherd_epoch', '');
END $$;

-- Before ATTACH PARTITION and INHERIT: the child's rows must be where the parent's would be.
CREATE OR REPLACE FUNCTION pgherd.join_family(child regclass, parent regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    family pgherd.table_list;
    own pgherd.table_list;
    filled boolean;
BEGIN
    PERFORM pgherd.check_owner(child);
    PERFORM pgherd.bump_epoch();
    SELECT f.* INTO family FROM pgherd.family_of(parent) f;
    SELECT f.* INTO own FROM pgherd.family_of(child) f;
    PERFORM pgherd.check_not_moving(group_id) FROM (VALUES (family.group_id), (own.group_id)) g (group_id);
    IF own.table_oid IS NOT NULL THEN
        IF family.table_oid IS NULL OR own.group_id IS DISTINCT FROM family.group_id
            OR (SELECT attname FROM pg_attribute
                WHERE attrelid = own.table_oid AND attnum = own.key_column) IS DISTINCT FROM
               (SELECT attname FROM pg_attribute
                WHERE attrelid = family.table_oid AND attnum = family.key_column)
        THEN
            RAISE EXCEPTION 'rows of table % are not where those of % are', child, parent
                USING ERRCODE = '0A000',
                DETAIL = 'A table and what inherits from it must be distributed alike.',
                HINT = 'Distribute both by the same column, in one colocation group.';
        END IF;
        DELETE FROM pgherd.table_list WHERE table_oid = child;
        RETURN;
    END IF;
    IF EXISTS (SELECT 1 FROM pgherd.descendants(child) d JOIN pg_class c ON c.oid = d
               WHERE c.relkind = 'f') THEN
        RAISE EXCEPTION 'foreign tables cannot belong to the sharded table %', parent
            USING ERRCODE = '0A000', DETAIL = 'Every shard would read the same rows.';
    END IF;
    EXECUTE format('LOCK TABLE %s IN SHARE MODE', child);
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s)', child) INTO filled;
    IF filled THEN
        RAISE EXCEPTION 'table % has rows and is not sharded', child USING ERRCODE = '0A000',
            DETAIL = format('Rows of %s are on the shards of their keys.', parent),
            HINT = 'Distribute it as its parent first; or make it empty, and insert its rows afterwards.';
    END IF;
END $$;
