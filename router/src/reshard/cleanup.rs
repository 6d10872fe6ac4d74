//! What a run leaves: nothing.

use std::time::Duration;

use tokio_postgres::Client;

use super::stream::{Stream, StreamTable};
use super::{Problem, brake, follow, gate, publish};

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
    brake::remove(target, stream).await?;
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

/// Rows of one table, or partition, that a shard has and is not in charge of.
#[derive(Debug)]
pub(super) struct Leaf {
    name: String,
    predicate: String,
    blocks: i64,
}

/// Where the moving rows of a shard are.
///
/// # Errors
/// The shard cannot be reached.
pub(super) async fn leaves(client: &Client, tables: &[StreamTable]) -> Result<Vec<Leaf>, Problem> {
    let sql = "SELECT t.relid::regclass::text, \
        pg_relation_size(t.relid) / current_setting('block_size')::int8 \
        FROM pg_partition_tree($1::text::regclass) t WHERE t.isleaf \
        UNION ALL SELECT $1, pg_relation_size($1::text::regclass) \
            / current_setting('block_size')::int8 \
        WHERE NOT EXISTS (SELECT 1 FROM pg_partition_tree($1::text::regclass))";
    let mut leaves = Vec::new();
    for table in tables {
        let predicate = table.predicate("")?;
        for leaf in client.query(sql, &[&table.quoted()]).await? {
            let (name, blocks) = (leaf.get(0), leaf.get(1));
            leaves.push(Leaf { name, predicate: predicate.clone(), blocks });
        }
    }
    Ok(leaves)
}

impl Leaf {
    /// Where portions begin. The last has no end.
    pub(super) fn portions(&self) -> impl Iterator<Item = i64> + use<> {
        (0..=self.blocks).step_by(BLOCKS as usize)
    }

    /// Deletes one portion, and rests. Nothing acts on it: no trigger, no foreign key.
    ///
    /// # Errors
    /// The shard cannot be reached.
    pub(super) async fn delete(&self, client: &Client, block: i64) -> Result<u64, Problem> {
        let Self { name, predicate, blocks } = self;
        let last = block + BLOCKS > *blocks;
        let end = if last { u32::MAX.into() } else { block + BLOCKS };
        let sql = format!(
            "BEGIN; SET LOCAL session_replication_role = replica; \
             DELETE FROM ONLY {name} WHERE ctid >= '({block},0)' AND ctid < '({end},0)' \
             AND {predicate}; COMMIT"
        );
        let mut deleted = 0;
        for message in client.simple_query(&sql).await? {
            if let tokio_postgres::SimpleQueryMessage::CommandComplete(rows) = message {
                deleted += rows;
            }
        }
        tokio::time::sleep(REST).await;
        Ok(deleted)
    }
}
