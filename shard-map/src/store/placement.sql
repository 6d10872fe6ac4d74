-- Which shard holds which values, and which part of the hash space.

-- A value in the form that does not depend on the session's settings.
CREATE OR REPLACE FUNCTION pgherd.canonical(value anyelement) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog SET "DateStyle" = 'ISO, YMD' SET "TimeZone" = 'UTC'
SET bytea_output = 'hex' AS $$ SELECT value::text $$;

-- What assign_range and assign_value have in common: the caller may, the shard exists, the table
-- is of that distribution. `key_sql` is the key's type, for casts; `order_sql` follows a value
-- that is compared. Raises the epoch, and so waits for other changes.
CREATE OR REPLACE FUNCTION pgherd.begin_assign(
    tbl regclass, wanted text, on_shard integer,
    OUT group_id integer, OUT key_sql text, OUT order_sql text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    base oid;
BEGIN
    PERFORM pgherd.check_owner(tbl);
    PERFORM pgherd.bump_epoch();
    SELECT g.id, pgherd.base_type(a.atttypid) INTO group_id, base
        FROM pgherd.table_list t
        JOIN pgherd.group_list g ON g.id = t.group_id AND g.distribution = wanted
        JOIN pg_attribute a ON a.attrelid = t.table_oid AND a.attnum = t.key_column
        WHERE t.table_oid = tbl;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % is not distributed by %', tbl, wanted USING ERRCODE = '42P16',
            HINT = format('Use create_distributed_table with distribution => %L.', wanted);
    END IF;
    IF NOT EXISTS (SELECT 1 FROM pgherd.shard_list s WHERE s.id = on_shard) THEN
        RAISE EXCEPTION 'there is no shard %', on_shard USING ERRCODE = '42704',
            HINT = 'The view pgherd.shards lists them.';
    END IF;
    -- With -1 the type is named without a length, so that the cast cuts nothing.
    key_sql := format_type(base, -1);
    order_sql := CASE WHEN (SELECT typcollation FROM pg_type WHERE oid = base) <> 0
        THEN 'COLLATE "C"' ELSE '' END;
    PERFORM pg_notify('pgherd_epoch', '');
END $$;

-- Rows with from_value <= key < to_value live on the shard; NULL is open. The values are read
-- with the session's settings. The transaction cannot be part of a two-phase commit as a
-- participant that only prepares, since it notifies.
CREATE OR REPLACE FUNCTION pgherd.assign_range(
    tbl regclass, from_value text, to_value text, on_shard integer)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    it record := pgherd.begin_assign(tbl, 'range', on_shard);
    first text;
    past text;
    wrong boolean;
BEGIN
    EXECUTE format(
        'SELECT pgherd.canonical(%L::%s), pgherd.canonical(%L::%2$s)',
        from_value, it.key_sql, to_value) INTO first, past;
    EXECUTE format('SELECT %L::%s %s >= %L::%2$s %3$s',
        first, it.key_sql, it.order_sql, past) INTO wrong;
    IF wrong THEN
        RAISE EXCEPTION 'the range from % to % is empty', first, past USING ERRCODE = '22023';
    END IF;
    EXECUTE format(
        'SELECT EXISTS (SELECT 1 FROM pgherd.value_range_list r WHERE r.group_id = $1 '
        'AND (r.start_value IS NULL OR $3 IS NULL '
        '  OR r.start_value::%1$s %2$s < $3::%1$s %2$s) '
        'AND (r.end_value IS NULL OR $2 IS NULL '
        '  OR r.end_value::%1$s %2$s > $2::%1$s %2$s))',
        it.key_sql, it.order_sql) INTO wrong USING it.group_id, first, past;
    IF wrong THEN
        RAISE EXCEPTION 'the range from % to % overlaps one that is assigned already',
            coalesce(first, 'the beginning'), coalesce(past, 'the end')
            USING ERRCODE = '42710', HINT = 'The view pgherd.ranges lists them.';
    END IF;
    INSERT INTO pgherd.value_range_list (group_id, start_value, end_value, shard)
        VALUES (it.group_id, first, past, on_shard);
END $$;

-- Rows with this key live on the shard.
CREATE OR REPLACE FUNCTION pgherd.assign_value(tbl regclass, key_value text, on_shard integer)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    it record := pgherd.begin_assign(tbl, 'list', on_shard);
    plain text;
    owner integer;
BEGIN
    IF key_value IS NULL THEN
        RAISE EXCEPTION 'the distribution column may not be null' USING ERRCODE = '22004';
    END IF;
    EXECUTE format('SELECT pgherd.canonical(%L::%s)', key_value, it.key_sql) INTO plain;
    EXECUTE format(
        'SELECT v.shard FROM pgherd.value_list v WHERE v.group_id = $1 '
        'AND v.value::%1$s %2$s = $2::%1$s %2$s', it.key_sql, it.order_sql)
        INTO owner USING it.group_id, plain;
    IF owner IS NOT NULL THEN
        RAISE EXCEPTION 'the value % is assigned to shard % already', plain, owner
            USING ERRCODE = '42710', HINT = 'The view pgherd.ranges lists them.';
    END IF;
    INSERT INTO pgherd.value_list (group_id, value, shard) VALUES (it.group_id, plain, on_shard);
END $$;

-- Gives start_hash <= hash < end_hash (NULL: to the end) to a shard, splitting and joining ranges.
-- The rows must be there already. It is a part of a change that raises the epoch.
CREATE OR REPLACE FUNCTION pgherd.place_hash_range(
    which_group integer, from_hash bigint, to_hash bigint, to_shard integer)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    edge bigint;
BEGIN
    IF to_hash <= from_hash THEN
        RAISE EXCEPTION 'the range is empty' USING ERRCODE = '22023';
    END IF;
    IF NOT EXISTS (SELECT 1 FROM pgherd.shard_list s WHERE s.id = to_shard) THEN
        RAISE EXCEPTION 'there is no shard %', to_shard USING ERRCODE = 'PGH03';
    END IF;
    IF NOT EXISTS (SELECT 1 FROM pgherd.range_list r WHERE r.group_id = which_group) THEN
        RAISE EXCEPTION 'there is no colocation group % distributed by hash', which_group
            USING ERRCODE = '42704';
    END IF;
    FOREACH edge IN ARRAY array_remove(ARRAY[from_hash, to_hash], NULL) LOOP
        INSERT INTO pgherd.range_list (group_id, start_hash, shard)
            SELECT which_group, edge, r.shard FROM pgherd.range_list r
            WHERE r.group_id = which_group AND r.start_hash <= edge
            ORDER BY r.start_hash DESC LIMIT 1
        ON CONFLICT DO NOTHING;
    END LOOP;
    UPDATE pgherd.range_list r SET shard = to_shard WHERE r.group_id = which_group
        AND r.start_hash >= from_hash AND (to_hash IS NULL OR r.start_hash < to_hash);
    DELETE FROM pgherd.range_list r USING (
        SELECT s.start_hash, s.shard = lag(s.shard) OVER (ORDER BY s.start_hash) AS same
        FROM pgherd.range_list s WHERE s.group_id = which_group) n
        WHERE r.group_id = which_group AND r.start_hash = n.start_hash AND n.same;
END $$;

-- The tables of a group join another one, if both have the same ranges on the same shards.
CREATE OR REPLACE FUNCTION pgherd.join_groups(which integer, other integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF which = other THEN
        RETURN true;
    END IF;
    IF (SELECT count(DISTINCT key_type) FROM pgherd.group_list WHERE id IN (which, other)) <> 1
        OR EXISTS (
            SELECT 1 FROM (
                SELECT r.start_hash, r.shard,
                    lag(r.shard) OVER (PARTITION BY r.group_id ORDER BY r.start_hash) AS before
                FROM pgherd.range_list r WHERE r.group_id IN (which, other)) AS edge
            WHERE edge.before IS DISTINCT FROM edge.shard
            GROUP BY edge.start_hash, edge.shard HAVING count(*) <> 2)
    THEN
        RETURN false;
    END IF;
    UPDATE pgherd.table_list SET group_id = other WHERE group_id = which;
    DELETE FROM pgherd.group_list WHERE id = which;
    RETURN true;
END $$;

-- An operator's change of owners, by itself.
CREATE OR REPLACE FUNCTION pgherd.move_hash_range(
    which_group integer, from_hash bigint, to_hash bigint, to_shard integer, expected bigint)
RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    new_epoch bigint := pgherd.advance_epoch(expected);
BEGIN
    PERFORM pgherd.place_hash_range(which_group, from_hash, to_hash, to_shard);
    RETURN new_epoch;
END $$;
