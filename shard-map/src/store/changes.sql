-- Tables that a transaction is distributing, or brings home: until it has ended, routers hold back
-- what would come after it, since a statement that waits in PostgreSQL for the table's lock goes on
-- with the plan that was made before.
--
-- Marks are written beside that transaction, which others could not see, and void once it has ended
-- whatever becomes of their writer.
CREATE TABLE IF NOT EXISTS pgherd.change_list (
    table_oid oid,
    xid xid8,
    PRIMARY KEY (table_oid, xid)
);
GRANT SELECT ON pgherd.change_list TO PUBLIC;

-- The epoch that tells of the mark; nothing for a table that only its own transaction sees.
CREATE OR REPLACE FUNCTION pgherd.begin_change(table_name text, changer text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    tbl regclass := to_regclass(table_name);
BEGIN
    IF tbl IS NULL THEN
        RETURN NULL;
    END IF;
    DELETE FROM pgherd.change_list
        WHERE pg_visible_in_snapshot(xid, pg_current_snapshot());
    INSERT INTO pgherd.change_list VALUES (tbl, changer::xid8);
    PERFORM pg_notify('pgherd_epoch', '');
    RETURN pgherd.bump_epoch();
END $$;

-- After a transaction that was rolled back: routers need not wait for it any more. One that has
-- committed has told them itself, and a new epoch makes them forget the numbers that they have taken.
CREATE OR REPLACE FUNCTION pgherd.end_changes() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    rolled_back boolean;
BEGIN
    WITH ended AS (
        DELETE FROM pgherd.change_list
            WHERE pg_visible_in_snapshot(xid, pg_current_snapshot())
            RETURNING pg_xact_status(xid) IS DISTINCT FROM 'committed' AS rolled_back
    )
    SELECT bool_or(e.rolled_back) INTO rolled_back FROM ended e;
    IF rolled_back THEN
        PERFORM pgherd.bump_epoch(), pg_notify('pgherd_epoch', '');
    END IF;
END $$;

-- Before the commit: whoever waits for the table still (from inside a transaction or a function) must
-- not go on.
CREATE OR REPLACE FUNCTION pgherd.turn_away(tbl regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pgherd.check_owner(tbl);
    PERFORM pg_cancel_backend(l.pid) FROM pg_locks l
        WHERE l.locktype = 'relation' AND l.relation = tbl AND NOT l.granted
            AND l.database = (SELECT d.oid FROM pg_database d WHERE datname = current_database());
END $$;
