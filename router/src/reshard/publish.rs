//! The source's side of a stream: gate, beats, publication, slot.

use tokio_postgres::Client;

use super::Problem;
use super::gate::{self, Gate};
use super::stream::Stream;

/// Makes what is missing.
pub(super) async fn publish(client: &Client, stream: &Stream, gate: Gate) -> Result<(), Problem> {
    gate::make(client, stream, gate).await?;
    for table in stream.tables.iter().filter(|table| table.table.whole_row) {
        let is_full = "SELECT relreplident = 'f' FROM pg_class WHERE oid = $1::text::regclass";
        if client.query_one(is_full, &[&table.quoted()]).await?.get(0) {
            continue;
        }
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = '250ms'; \
             ALTER TABLE {} REPLICA IDENTITY FULL; COMMIT",
            table.quoted()
        );
        gate::patiently(client, &sql).await?;
    }
    make_beats(client, stream).await?;
    if !exists(client, "pg_publication WHERE pubname", &stream.name).await? {
        let mut parts = vec![format!("TABLE {}", stream.beats())];
        for table in &stream.tables {
            parts.push(format!("TABLE {} WHERE ({})", table.quoted(), table.predicate("")?));
        }
        // Not truncate: it ignores row filters.
        let sql = format!(
            "CREATE PUBLICATION {} FOR {} WITH (publish = 'insert, update, delete', \
             publish_via_partition_root = true)",
            stream.name,
            parts.join(", ")
        );
        client.batch_execute(&sql).await.map_err(|error| {
            let Problem { what, hint } = error.into();
            Problem { what: format!("the tables cannot be published: {what}"), hint }
        })?;
    }
    if !exists(client, "pg_replication_slots WHERE slot_name", &stream.name).await? {
        let sql = "SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput')";
        client.query_one(sql, &[&stream.name]).await.map_err(|error| {
            if error.code().is_none_or(|code| code.code() != "55P03") {
                return error.into();
            }
            Problem::new(
                format!(
                    "open transactions on shard {} keep a replication slot from being made",
                    stream.source
                ),
                "It waits for all that have written anything there. pg_stat_activity has them, the oldest \
                 by xact_start. Nothing has moved: run the same command again.",
            )
        })?;
    }
    Ok(())
}

/// Where beats are written and arrive, on both sides.
pub(super) async fn make_beats(client: &Client, stream: &Stream) -> Result<(), Problem> {
    let beats = stream.beats();
    let sql = format!("CREATE TABLE IF NOT EXISTS {beats} (beat bigint PRIMARY KEY)");
    Ok(client.batch_execute(&sql).await?)
}

/// Takes the source's side away. The slot must not be in use any more.
pub(super) async fn unpublish(client: &Client, stream: &Stream) -> Result<(), Problem> {
    let name = &stream.name;
    // Whoever reads it may be on its way out.
    let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
               WHERE slot_name = $1::text::name";
    let mut tries = 0;
    while let Err(error) = client.execute(sql, &[name]).await {
        tries += 1;
        if error.code().is_none_or(|code| code.code() != "55006") || tries == 200 {
            return Err(error.into());
        }
        let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
                   WHERE slot_name = $1::text::name AND active_pid IS NOT NULL";
        client.execute(end, &[name]).await?;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let sql = format!("DROP PUBLICATION IF EXISTS {name}; DROP TABLE IF EXISTS {}", stream.beats());
    Ok(client.batch_execute(&sql).await?)
}

pub(super) async fn exists(client: &Client, place: &str, name: &str) -> Result<bool, Problem> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM {place} = $1::text::name)");
    Ok(client.query_one(&sql, &[&name]).await?.get(0))
}
