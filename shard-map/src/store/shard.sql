CREATE SCHEMA IF NOT EXISTS pgherd;
GRANT USAGE ON SCHEMA pgherd TO PUBLIC;
-- The markers of two-phase commit: a row that is visible on the deciding shard is the decision.
-- Clients' own sessions write them, so everybody may insert; nobody may change or delete.
CREATE TABLE IF NOT EXISTS pgherd.tx (
    gid text PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('committed', 'aborted')),
    participants text,
    at timestamptz NOT NULL DEFAULT now()
);
-- Reads over several shards ask which rows a snapshot sees and an older one did not.
ALTER TABLE pgherd.tx
    ADD COLUMN IF NOT EXISTS xid xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX IF NOT EXISTS tx_xid ON pgherd.tx (xid);
GRANT SELECT, INSERT ON pgherd.tx TO PUBLIC;
-- Who this server is, and the epoch that it is at: a router reads it when it connects, and uses
-- the connection only with a map at least that new.
CREATE TABLE IF NOT EXISTS pgherd.local (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    cluster text NOT NULL,
    shard integer NOT NULL,
    epoch bigint NOT NULL
);
GRANT SELECT ON pgherd.local TO PUBLIC;
-- Which router each client's session came through, and with a map of which epoch; and which epochs
-- the routers have heard of since. Gone after a crash, as the sessions are.
CREATE UNLOGGED TABLE IF NOT EXISTS pgherd.session_list (
    pid integer PRIMARY KEY,
    started timestamptz NOT NULL,
    router text NOT NULL,
    epoch bigint NOT NULL
);
CREATE UNLOGGED TABLE IF NOT EXISTS pgherd.router_list (id text PRIMARY KEY, epoch bigint NOT NULL);

-- A router opens a session. It commits before it asks for this shard's epoch: so whoever raises that
-- and then looks for older sessions finds every one that was let in before.
CREATE OR REPLACE FUNCTION pgherd.enter(router_id text, map_epoch bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO pgherd.session_list (pid, started, router, epoch)
        SELECT pid, backend_start, router_id, map_epoch
        FROM pg_stat_get_activity(pg_backend_pid())
    ON CONFLICT (pid) DO UPDATE SET started = excluded.started, router = excluded.router,
        epoch = excluded.epoch
$$;

-- Sessions of routers that have not heard of an epoch: how many there are, ended if so wished.
CREATE OR REPLACE FUNCTION pgherd.older_sessions(
    wanted bigint, have_heard text[], to_be_ended boolean)
RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO pgherd.router_list (id, epoch) SELECT DISTINCT unnest(have_heard), wanted
        ON CONFLICT (id) DO UPDATE SET epoch = greatest(router_list.epoch, excluded.epoch);
    RETURN (
        SELECT count(*) FILTER (WHERE NOT to_be_ended OR pg_terminate_backend(s.pid) IS NOT NULL)
        FROM pgherd.session_list s
        JOIN pg_stat_get_activity(NULL) a ON a.pid = s.pid AND a.backend_start = s.started
        LEFT JOIN pgherd.router_list r ON r.id = s.router
        WHERE s.epoch < wanted AND coalesce(r.epoch, 0) < wanted);
END $$;

-- What is known of sessions that have ended.
CREATE OR REPLACE FUNCTION pgherd.forget_sessions() RETURNS void
LANGUAGE sql SET search_path = pg_catalog AS $$
    DELETE FROM pgherd.session_list s WHERE NOT EXISTS (
        SELECT 1 FROM pg_stat_get_activity(NULL) a
        WHERE a.pid = s.pid AND a.backend_start = s.started);
    DELETE FROM pgherd.router_list r WHERE NOT EXISTS (
        SELECT 1 FROM pgherd.session_list s WHERE s.router = r.id);
$$;
-- What is prepared on this server. Through a router: on all shards, and with the decider's word.
CREATE OR REPLACE VIEW pgherd.transactions AS
    SELECT p.gid, l.shard, d.decider, pg_catalog.split_part(p.gid, '_', 4) AS router,
        p.owner::text AS owner, p.prepared, pg_catalog.clock_timestamp() - p.prepared AS age,
        CASE WHEN d.decider <> l.shard THEN 'unknown' WHEN t.state IS NULL THEN 'undecided'
            WHEN t.state = 'aborted' THEN 'rolled back' ELSE t.state END AS state
    FROM pg_catalog.pg_prepared_xacts p
    CROSS JOIN LATERAL (SELECT pg_catalog.split_part(p.gid, '_', 3)::integer AS decider) d
    LEFT JOIN pgherd.tx t USING (gid)
    LEFT JOIN pgherd.local l ON true
    WHERE p.database = pg_catalog.current_database()
        AND p.gid ~ '^pgherd_[^_]*_[0-9]{1,9}_[^_]*_[0-9a-f]{32}$';
GRANT SELECT ON pgherd.transactions TO PUBLIC;
