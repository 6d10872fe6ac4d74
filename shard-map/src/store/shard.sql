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
