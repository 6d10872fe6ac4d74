-- Statements that run on each shard by itself, outside of transactions, and have not run on all of
-- them: said again, they go on with the others.
CREATE TABLE IF NOT EXISTS pgherd.unfinished (
    id text PRIMARY KEY,
    statement text NOT NULL,
    search_path text NOT NULL,
    done integer[] NOT NULL DEFAULT '{}',
    began timestamptz NOT NULL DEFAULT now(),
    by text NOT NULL DEFAULT session_user
);
GRANT SELECT ON pgherd.unfinished TO PUBLIC;

-- The shards that have it already; NULL where it is new.
CREATE OR REPLACE FUNCTION pgherd.begin_unfinished(of_id text, of_statement text, of_path text)
RETURNS integer[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgherd.unfinished (id, statement, search_path)
        VALUES (of_id, of_statement, of_path) ON CONFLICT (id) DO NOTHING;
    IF FOUND THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT u.done FROM pgherd.unfinished u WHERE u.id = of_id);
END $$;

CREATE OR REPLACE FUNCTION pgherd.note_finished(of_id text, on_shards integer[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
UPDATE pgherd.unfinished SET done = ARRAY(
    SELECT DISTINCT s FROM unnest(done || on_shards) AS s ORDER BY s) WHERE id = of_id
$$;

CREATE OR REPLACE FUNCTION pgherd.end_unfinished(of_id text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DELETE FROM pgherd.unfinished WHERE id = of_id
$$;
