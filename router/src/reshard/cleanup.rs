//! What a run leaves: nothing.

use std::time::Duration;

use tokio_postgres::Client;

use super::stream::{Stream, StreamTable};
use super::{Problem, follow, gate, publish};

/// Blocks of a table that one delete looks at, and the rest after each, so that the log and the
/// disk keep up.
const BLOCKS: i64 = 512;
const REST: Duration = Duration::from_millis(5);

/// Takes a stream's objects away on both sides.
///
/// # Errors
/// A shard cannot be reached.
pub(super) async fn remove_flow(
    source: &Client,
    target: &Client,
    stream: &Stream,
) -> Result<(), Problem> {
    follow::unsubscribe(source, target, stream).await?;
    publish::unpublish(source, stream).await
}

/// As [`remove_flow`], and its gate. What identified rows while they moved is as before.
///
/// # Errors
/// A shard cannot be reached.
pub(super) async fn remove(
    source: &Client,
    target: &Client,
    stream: &Stream,
) -> Result<(), Problem> {
    remove_flow(source, target, stream).await?;
    gate::remove(source, stream).await?;
    for table in stream.tables.iter().filter(|table| table.table.whole_row) {
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = '250ms'; \
             ALTER TABLE {} REPLICA IDENTITY DEFAULT; COMMIT",
            table.quoted()
        );
        gate::patiently(source, &sql).await?;
    }
    Ok(())
}

/// Deletes the moving rows of a shard that is not in charge of them, some blocks at a time.
/// Nothing acts on it: no trigger, no foreign key.
///
/// # Errors
/// The shard cannot be reached.
pub(super) async fn delete(client: &Client, tables: &[StreamTable]) -> Result<u64, Problem> {
    let mut deleted = 0;
    for table in tables {
        let leaves = "SELECT t.relid::regclass::text, \
            pg_relation_size(t.relid) / current_setting('block_size')::int8 \
            FROM pg_partition_tree($1::text::regclass) t WHERE t.isleaf \
            UNION ALL SELECT $1, pg_relation_size($1::text::regclass) \
                / current_setting('block_size')::int8 \
            WHERE NOT EXISTS (SELECT 1 FROM pg_partition_tree($1::text::regclass))";
        let predicate = table.predicate("")?;
        for leaf in client.query(leaves, &[&table.quoted()]).await? {
            let (name, blocks): (String, i64) = (leaf.get(0), leaf.get(1));
            let mut block = 0;
            while block <= blocks {
                let last = block + BLOCKS > blocks;
                let end = if last { u32::MAX.into() } else { block + BLOCKS };
                let sql = format!(
                    "BEGIN; SET LOCAL session_replication_role = replica; \
                     DELETE FROM ONLY {name} WHERE ctid >= '({block},0)' AND ctid < '({end},0)' \
                     AND {predicate}; COMMIT"
                );
                for message in client.simple_query(&sql).await? {
                    if let tokio_postgres::SimpleQueryMessage::CommandComplete(rows) = message {
                        deleted += rows;
                    }
                }
                block += BLOCKS;
                tokio::time::sleep(REST).await;
            }
        }
    }
    Ok(deleted)
}
