-- Data on its way from shard to shard. A row is one run; `phase` alone says who is in charge of the
-- moving ranges, and so what a crashed run left behind (router/src/reshard.rs).
CREATE TABLE IF NOT EXISTS pgherd.reshard_list (
    id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    phase text NOT NULL CHECK (phase IN ('copying', 'ready', 'cutting', 'moved', 'returning',
        'finishing', 'finished', 'cancelling', 'cancelled')),
    -- [{group_id, start_hash, end_hash, from_shard, to_shard}], end_hash null: to the end.
    moves jsonb NOT NULL,
    -- What was known of each table when it began.
    tables jsonb NOT NULL,
    started_by text NOT NULL,
    started timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed timestamptz NOT NULL DEFAULT clock_timestamp(),
    paused boolean NOT NULL DEFAULT false,
    -- What `pgherd reshard` saw last, and why it stopped.
    progress jsonb NOT NULL DEFAULT '{}',
    problem text,
    -- One entry for each verification and cut-over.
    certificates jsonb NOT NULL DEFAULT '[]'
);
-- The group that the moved tables join in the end: they were plain ones before.
ALTER TABLE pgherd.reshard_list ADD COLUMN IF NOT EXISTS joins integer;
-- The epoch at which the moving ranges have last changed owners.
ALTER TABLE pgherd.reshard_list ADD COLUMN IF NOT EXISTS owners_epoch bigint;
-- What its rows leave to others (router/src/reshard/throttle.rs).
ALTER TABLE pgherd.reshard_list ADD COLUMN IF NOT EXISTS limits jsonb NOT NULL DEFAULT '{}';
-- One at a time.
CREATE UNIQUE INDEX IF NOT EXISTS reshard_one ON pgherd.reshard_list ((true))
    WHERE phase NOT IN ('finished', 'cancelled');
GRANT SELECT ON pgherd.reshard_list TO PUBLIC;

-- What each router has seen of each shard lately, while rows move: the 99th percentile of what
-- statements took, in milliseconds. Of the last seconds only, so nothing is lost with a crash.
CREATE UNLOGGED TABLE IF NOT EXISTS pgherd.answer_list (
    router text,
    shard integer,
    p99_ms float8 NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (router, shard)
);

DROP FUNCTION IF EXISTS pgherd.begin_reshard(jsonb, jsonb, text, bigint);
CREATE OR REPLACE FUNCTION pgherd.begin_reshard(
    new_moves jsonb, new_tables jsonb, who text, expected bigint, new_joins integer)
RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    new_id integer;
BEGIN
    PERFORM pgherd.advance_epoch(expected);
    INSERT INTO pgherd.reshard_list (phase, moves, tables, started_by, joins)
        VALUES ('copying', new_moves, new_tables, who, new_joins) RETURNING id INTO new_id;
    RETURN new_id;
END $$;

-- From one phase to the next, if it still is in the former. With `owners` the moving ranges go to
-- their new shards ('to_shard') or back ('from_shard') in the same transaction: the point of no
-- return. Every change is an epoch, so that routers know whether anything moves.
CREATE OR REPLACE FUNCTION pgherd.advance_reshard(
    which integer, old_phase text, new_phase text, owners text DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    -- At the end of a run its tables may join another group.
    new_epoch bigint := CASE WHEN new_phase IN ('finished', 'cancelled') THEN pgherd.bump_epoch()
        ELSE pgherd.bump_placement_epoch() END;
    move record;
BEGIN
    UPDATE pgherd.reshard_list SET phase = new_phase, changed = clock_timestamp(), problem = NULL
        WHERE id = which AND phase = old_phase;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'reshard % is not in the phase % any more', which, old_phase
            USING ERRCODE = 'PGH04';
    END IF;
    IF owners IS NOT NULL THEN
        UPDATE pgherd.reshard_list SET owners_epoch = new_epoch WHERE id = which;
        FOR move IN SELECT * FROM pgherd.reshard_list l, jsonb_to_recordset(l.moves) AS m
            (group_id integer, start_hash bigint, end_hash bigint, from_shard integer,
             to_shard integer) WHERE l.id = which
        LOOP
            PERFORM pgherd.place_hash_range(move.group_id, move.start_hash, move.end_hash,
                CASE owners WHEN 'to_shard' THEN move.to_shard ELSE move.from_shard END);
        END LOOP;
    END IF;
    IF new_phase = 'finished' THEN
        UPDATE pgherd.reshard_list l SET problem = format('the ranges of colocation group %s have '
                'changed meanwhile: the tables have a group of their own', l.joins)
            FROM (SELECT DISTINCT m.group_id FROM pgherd.reshard_list r,
                jsonb_to_recordset(r.moves) AS m (group_id integer) WHERE r.id = which) AS moved
            WHERE l.id = which AND l.joins IS NOT NULL
            AND NOT pgherd.join_groups(moved.group_id, l.joins);
    END IF;
    PERFORM pg_notify('pgherd_epoch', '');
    RETURN new_epoch;
END $$;

-- Tables may not join or leave a group whose rows are on their way.
CREATE OR REPLACE FUNCTION pgherd.check_not_moving(which_group integer) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM pgherd.reshard_list l, jsonb_to_recordset(l.moves) AS m
            (group_id integer) WHERE l.phase NOT IN ('finished', 'cancelled')
            AND m.group_id = which_group) THEN
        RAISE EXCEPTION 'rows of colocation group % are being moved', which_group
            USING ERRCODE = '55006',
            HINT = 'Wait until "pgherd reshard status" shows nothing under way, or cancel it.';
    END IF;
END $$;

CREATE OR REPLACE VIEW pgherd.reshards AS
    SELECT l.id, l.phase, l.paused, m.group_id AS colocation_group, m.start_hash, m.end_hash,
        m.from_shard, m.to_shard, l.progress, l.problem, l.started_by, l.started, l.changed
    FROM pgherd.reshard_list l, pg_catalog.jsonb_to_recordset(l.moves) AS m
        (group_id integer, start_hash bigint, end_hash bigint, from_shard integer, to_shard integer);
GRANT SELECT ON pgherd.reshards TO PUBLIC;
