//! Finishes what a router left between the phases of a commit: at start, and every few seconds.
//!
//! Any router may do it at any time, while the owner may still live. The decision is a row on the
//! deciding shard: whoever inserts it first decides. Recovery inserts `aborted`; if a row was
//! there already, that row says what to do.

use std::time::Duration;

use pgherd_shard_map::ShardId;
use thiserror::Error;
use tokio_postgres::{Client, NoTls};

/// A prepared transaction younger than this belongs to a router that is still at work.
pub const AGE_MIN: Duration = Duration::from_secs(5);

/// How often shards are asked.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// What one sweep did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub committed: u32,
    pub rolled_back: u32,
    /// The owner is still deciding, or the decider cannot be reached.
    pub left: u32,
}

#[derive(Debug, Error)]
#[error("{0}")]
struct SweepError(String);

impl From<tokio_postgres::Error> for SweepError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(error.to_string())
    }
}

/// Looks at every shard once. A shard that does not answer is logged and left for the next time.
pub async fn sweep(shards: &[(ShardId, String)], age_min: Duration) -> Report {
    let mut report = Report::default();
    for (shard, dsn) in shards {
        if let Err(error) = sweep_shard(dsn, shards, age_min, &mut report).await {
            tracing::warn!(%shard, %error, "recovery could not look at a shard");
        }
    }
    report
}

async fn sweep_shard(
    dsn: &str,
    shards: &[(ShardId, String)],
    age_min: Duration,
    report: &mut Report,
) -> Result<(), SweepError> {
    let client = connect(dsn).await?;
    let rows = client
        .query(
            "SELECT gid FROM pg_catalog.pg_prepared_xacts \
             WHERE database = pg_catalog.current_database() AND gid LIKE 'pgherd\\_%' \
             AND prepared < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)",
            &[&age_min.as_secs_f64()],
        )
        .await?;
    for row in rows {
        let gid: String = row.get(0);
        let decision = match deciding_shard(&gid, shards) {
            Some(decider) => decide(decider, &gid).await.unwrap_or(None),
            None => {
                tracing::error!(gid, "a prepared transaction names no shard of this cluster");
                None
            }
        };
        let Some(committed) = decision else {
            report.left += 1;
            continue;
        };
        let verb = if committed { "COMMIT" } else { "ROLLBACK" };
        let quoted = postgres_protocol::escape::escape_literal(&gid);
        // Another router may have been quicker; then it does not exist any more.
        match client.batch_execute(&format!("{verb} PREPARED {quoted}")).await {
            Ok(()) if committed => report.committed += 1,
            Ok(()) => report.rolled_back += 1,
            Err(error) => tracing::warn!(gid, verb, %error, "could not be finished now"),
        }
        tracing::info!(gid, verb, "in-doubt transaction finished");
    }
    Ok(())
}

/// `pgherd_<cluster>_<deciding shard>_<router>_<random>`.
fn deciding_shard<'a>(gid: &str, shards: &'a [(ShardId, String)]) -> Option<&'a str> {
    let number: u32 = gid.split('_').nth(2)?.parse().ok()?;
    shards.iter().find(|(shard, _)| shard.0 == number).map(|(_, dsn)| dsn.as_str())
}

/// `Some(true)` is committed, `Some(false)` aborted, `None` not decided yet.
async fn decide(dsn: &str, gid: &str) -> Result<Option<bool>, SweepError> {
    let client = connect(dsn).await?;
    // READ COMMITTED, so that the row which the insert met can be read after it.
    client
        .batch_execute(
            "SET lock_timeout = '1s'; SET default_transaction_isolation = 'read committed'",
        )
        .await?;
    let inserted = client
        .execute(
            "INSERT INTO pgherd.tx (gid, state) VALUES ($1, 'aborted') ON CONFLICT DO NOTHING",
            &[&gid],
        )
        .await;
    match inserted {
        Ok(1) => Ok(Some(false)),
        Ok(_) => {
            let row =
                client.query_one("SELECT state FROM pgherd.tx WHERE gid = $1", &[&gid]).await?;
            Ok(Some(row.get::<_, &str>(0) == "committed"))
        }
        // The owner holds the row and is still deciding (55P03), or the shard cannot answer.
        Err(_) => Ok(None),
    }
}

async fn connect(dsn: &str) -> Result<Client, SweepError> {
    let connecting = tokio_postgres::connect(dsn, NoTls);
    let (client, connection) = tokio::time::timeout(Duration::from_secs(5), connecting)
        .await
        .map_err(|_| SweepError("timed out".to_owned()))??;
    tokio::spawn(async move {
        // Its end is seen by whoever uses the client.
        drop(connection.await);
    });
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_names_its_decider() {
        let shards = [(ShardId(0), "a".to_owned()), (ShardId(12), "b".to_owned())];
        assert_eq!(deciding_shard("pgherd_dev_12_r1_00ff", &shards), Some("b"));
        assert_eq!(deciding_shard("pgherd_dev_7_r1_00ff", &shards), None);
        assert_eq!(deciding_shard("other", &shards), None);
    }
}
