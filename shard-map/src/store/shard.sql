CREATE SCHEMA IF NOT EXISTS pgherd;
GRANT USAGE ON SCHEMA pgherd TO PUBLIC;
-- The markers of two-phase commit: a row that is visible on the deciding shard is the decision.
CREATE TABLE IF NOT EXISTS pgherd.tx (
    gid text PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('committed', 'aborted')),
    participants text,
    at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT ON pgherd.tx TO PUBLIC;
