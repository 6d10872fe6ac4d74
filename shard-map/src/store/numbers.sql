-- The sequences of the cluster are those of the home shard: routers take numbers from them in blocks
-- and write them into new rows, so that no shard's own sequence is ever asked.

-- As many numbers as are wanted, and no more than are needed where the sequence nears its end: what
-- a router has taken and does not use is lost, as with a sequence's CACHE.
CREATE OR REPLACE FUNCTION pgherd.numbers(seq regclass, needed integer, wanted integer)
RETURNS SETOF bigint LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    s pg_sequence;
    reached numeric;
BEGIN
    SELECT * INTO s FROM pg_sequence WHERE seqrelid = seq;
    IF wanted > needed THEN
        reached := coalesce(pg_sequence_last_value(seq), s.seqstart);
        IF abs(CASE WHEN s.seqincrement > 0 THEN s.seqmax ELSE s.seqmin END - reached)
            / abs(s.seqincrement::numeric) < 100 * wanted::numeric
        THEN
            wanted := needed;
        END IF;
    END IF;
    RETURN QUERY SELECT nextval(seq) FROM generate_series(1, wanted);
END $$;

-- Whoever may insert into the table may take the numbers of its identity column, as in PostgreSQL.
CREATE OR REPLACE FUNCTION pgherd.identity_numbers(
    tbl regclass, key_name text, needed integer, wanted integer)
RETURNS SETOF bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    who name := coalesce(nullif(current_setting('role'), 'none'), session_user);
    seq regclass := pg_get_serial_sequence(tbl::text, key_name);
BEGIN
    IF NOT has_any_column_privilege(who, tbl, 'INSERT') THEN
        RAISE EXCEPTION 'permission denied for table %', (SELECT relname FROM pg_class WHERE oid = tbl)
            USING ERRCODE = '42501';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute
                   WHERE attrelid = tbl AND attname = key_name AND attidentity <> '') THEN
        RAISE EXCEPTION 'column "%" is no identity column', key_name USING ERRCODE = '55000';
    END IF;
    RETURN QUERY SELECT pgherd.numbers(seq, needed, wanted);
END $$;

CREATE OR REPLACE FUNCTION pgherd.identity_number(tbl regclass, key_name text) RETURNS bigint
LANGUAGE sql AS $$ SELECT pgherd.identity_numbers(tbl, key_name, 1, 1) $$;

-- What a session's own numbers are called where the router knows them.
CREATE OR REPLACE FUNCTION pgherd.currval(number bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT number $$;
CREATE OR REPLACE FUNCTION pgherd.lastval(number bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT number $$;

-- The default of a column with every name in full, to be computed by who inserts.
CREATE OR REPLACE FUNCTION pgherd.default_of(tbl regclass, column_name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a
        JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = tbl AND a.attname = column_name
$$;
