//! Slows down the workers of PostgreSQL that copy a table.
//!
//! A copy is one transaction of such a worker: to stop it would be to begin anew. So the target's
//! table has a trigger that fires for these workers, whose condition waits while the brake is on, and
//! is never true. It is asked for one row of some, and costs nothing to speak of; rows are still
//! written in batches, as a trigger before them would not let them.
//!
//! The brake is a sequence, which shows one value to every snapshot: the time until which it is on.
//! Whoever sets it sets it again before that; so no dead command's brake stays on.

use tokio_postgres::Client;

use super::Problem;
use super::gate::patiently;
use super::stream::Stream;

/// One row of so many is asked.
const ROWS: u32 = 100;

/// How long the brake stays on by itself.
const ON_MS: u32 = 5000;

/// Makes the brake, off, if it is not there.
pub(super) async fn make(target: &Client, stream: &Stream) -> Result<(), Problem> {
    let (name, brake) = (&stream.name, stream.brake());
    let sql = format!(
        "CREATE SEQUENCE IF NOT EXISTS {brake};
CREATE OR REPLACE FUNCTION pgherd.{name}_brakes() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    -- What follows is not held up, nor anybody else.
    IF EXISTS (SELECT FROM pg_catalog.pg_stat_get_subscription(NULL) s
        WHERE s.pid = pg_catalog.pg_backend_pid() AND s.relid IS NOT NULL)
    THEN
        WHILE (SELECT last_value FROM {brake})
            > extract(epoch FROM pg_catalog.clock_timestamp()) * 1000
        LOOP
            PERFORM pg_catalog.pg_sleep(0.05);
        END LOOP;
    END IF;
    RETURN false;
END $$;
CREATE OR REPLACE FUNCTION pgherd.{name}_never() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$;"
    );
    target.batch_execute(&sql).await?;
    for table in &stream.tables {
        let table = table.quoted();
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = '250ms'; \
             CREATE OR REPLACE TRIGGER _{name}_b AFTER INSERT ON {table} FOR EACH ROW \
             WHEN (pg_catalog.random() * {ROWS} < 1 AND pgherd.{name}_brakes()) \
             EXECUTE FUNCTION pgherd.{name}_never(); \
             ALTER TABLE {table} ENABLE REPLICA TRIGGER _{name}_b; COMMIT"
        );
        patiently(target, &sql).await?;
    }
    Ok(())
}

/// Puts the brake on for a while, or takes it off.
pub(super) async fn set(target: &Client, stream: &Stream, on: bool) -> Result<(), Problem> {
    let until =
        if on { "extract(epoch FROM clock_timestamp()) * 1000 + $2::int4" } else { "$2::int4" };
    let sql = format!("SELECT setval($1::text::regclass, ({until})::int8)");
    let value = if on { ON_MS.cast_signed() } else { 1 };
    target.query_one(&sql, &[&stream.brake(), &value]).await?;
    Ok(())
}

/// Takes it away, if it is there.
pub(super) async fn remove(target: &Client, stream: &Stream) -> Result<(), Problem> {
    let (name, brake) = (&stream.name, stream.brake());
    let sql = "SELECT to_regclass($1) IS NOT NULL";
    if !target.query_one(sql, &[&brake]).await?.get::<_, bool>(0) {
        return Ok(());
    }
    for table in &stream.tables {
        let table = table.quoted();
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = '250ms'; \
             DROP TRIGGER IF EXISTS _{name}_b ON {table}; COMMIT"
        );
        patiently(target, &sql).await?;
    }
    let sql = format!(
        "DROP FUNCTION IF EXISTS pgherd.{name}_never(); \
         DROP FUNCTION IF EXISTS pgherd.{name}_brakes(); DROP SEQUENCE IF EXISTS {brake}"
    );
    Ok(target.batch_execute(&sql).await?)
}
