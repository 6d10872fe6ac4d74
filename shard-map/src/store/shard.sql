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
