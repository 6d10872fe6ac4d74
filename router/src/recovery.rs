//! Finishes what a router left between the phases of a commit: at start, and every few seconds.
//!
//! Any router may do it at any time, while the owner may still live. The decision is a row on the
//! deciding shard: whoever inserts it first decides. Recovery inserts `aborted`; if a row was
//! there already, that row says what to do. On the way it learns which shards answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pgherd_shard_map::ShardId;
use thiserror::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use crate::two_phase::Gid;

/// How often shards are asked.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// A prepared transaction younger than this belongs to a router that is still at work.
const AGE_MIN: Duration = Duration::from_secs(5);

/// How long one shard may take for one question.
const WAIT: Duration = Duration::from_secs(5);

/// Markers are kept this long: a standby promoted from asynchronous replication can bring a
/// prepared transaction back, and then the marker must still be there to tell its outcome.
const MARKERS_KEPT: &str = "1 day";

/// How often old markers are deleted, and how many at a time.
const CLEAN_EVERY: Duration = Duration::from_secs(600);
const CLEAN_ROWS: i64 = 10_000;

/// Prepared transactions of one shard that are listed, at most.
const TRANSACTIONS_SHOWN: usize = 1000;

/// What the last look at a shard found.
#[derive(Debug, Clone)]
pub struct ShardHealth {
    pub shard: ShardId,
    /// Why it could not be asked.
    pub error: Option<String>,
    /// Transactions of ours that are prepared there now, and the age of the oldest.
    pub prepared: usize,
    pub oldest: Duration,
    /// Some of them, with their ages.
    pub transactions: Vec<(String, Duration)>,
}

/// Connections and memory from sweep to sweep.
#[derive(Debug, Default)]
pub struct Recovery {
    clients: HashMap<ShardId, (String, Arc<Client>)>,
    cleaned: Option<Instant>,
}

#[derive(Debug, Error)]
enum SweepError {
    #[error("it did not answer in time")]
    Timeout,
    #[error("{0}")]
    Postgres(String),
}

impl From<tokio_postgres::Error> for SweepError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })
    }
}

/// A transaction that is prepared on a shard.
struct Prepared {
    gid: Gid,
    age: Duration,
}

impl Recovery {
    /// Looks at every shard once, at the same time; then finishes what is in doubt. A shard that
    /// does not answer is logged and left for the next time. DSNs carry the catalog's login: only
    /// a superuser can finish what others have prepared.
    pub async fn sweep(&mut self, shards: &[(ShardId, String)]) -> Vec<ShardHealth> {
        self.clients.retain(|id, (dsn, client)| {
            !client.is_closed() && shards.iter().any(|(shard, now)| shard == id && now == dsn)
        });
        let known = &self.clients;
        let looks = join_all(shards.iter().map(|(shard, dsn)| {
            let known = known.get(shard).map(|(_, client)| Arc::clone(client));
            look(*shard, dsn, known)
        }));
        let mut health = Vec::with_capacity(shards.len());
        let mut found = Vec::new();
        for ((shard, dsn), look) in shards.iter().zip(looks.await) {
            match look {
                Ok((client, prepared)) => {
                    self.clients.insert(*shard, (dsn.clone(), client));
                    health.push(ShardHealth {
                        shard: *shard,
                        error: None,
                        prepared: prepared.len(),
                        oldest: prepared.iter().map(|one| one.age).max().unwrap_or_default(),
                        transactions: prepared
                            .iter()
                            .take(TRANSACTIONS_SHOWN)
                            .map(|one| (one.gid.to_string(), one.age))
                            .collect(),
                    });
                    found.push((*shard, prepared));
                }
                Err(error) => {
                    let error = Some(error.to_string());
                    health.push(ShardHealth {
                        shard: *shard,
                        error,
                        prepared: 0,
                        oldest: Duration::ZERO,
                        transactions: Vec::new(),
                    });
                }
            }
        }
        for (shard, prepared) in &found {
            for one in prepared.iter().filter(|one| one.age >= AGE_MIN) {
                self.finish(*shard, &one.gid).await;
            }
        }
        let all = found.len() == shards.len();
        if all && self.cleaned.is_none_or(|at| at.elapsed() >= CLEAN_EVERY) {
            self.cleaned = Some(Instant::now());
            self.delete_old_markers(&found).await;
        }
        health
    }

    /// Brings one prepared transaction to the end that its decider has decided.
    async fn finish(&self, shard: ShardId, gid: &Gid) {
        let decider = gid.decider().and_then(|decider| self.clients.get(&decider));
        let Some(((_, decider), (_, client))) = decider.zip(self.clients.get(&shard)) else {
            tracing::warn!(%shard, %gid, "in doubt: the deciding shard does not answer");
            return;
        };
        let verb = match timely(decide(decider, gid)).await {
            Ok(Some(true)) => "COMMIT",
            Ok(Some(false)) => "ROLLBACK",
            // The owner is still deciding.
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%shard, %gid, %error, "in doubt: the decider cannot be asked");
                return;
            }
        };
        match client.batch_execute(&format!("{verb} PREPARED '{gid}'")).await {
            Ok(()) => tracing::info!(%shard, %gid, verb, "in-doubt transaction finished"),
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => {
                // Somebody else was quicker, and left the marker with what he committed.
                if verb == "COMMIT" && !has_marker(client, gid).await {
                    tracing::error!(%shard, %gid, "a committed transaction is lost on this shard: \
                        it is neither prepared nor marked there. Has an old standby been promoted?");
                }
            }
            Err(error) => tracing::warn!(%shard, %gid, verb, %error, "could not be finished now"),
        }
    }

    async fn delete_old_markers(&self, found: &[(ShardId, Vec<Prepared>)]) {
        let listed: Vec<&str> =
            found.iter().flat_map(|(_, list)| list).map(|one| one.gid.as_str()).collect();
        for (shard, (_, client)) in &self.clients {
            let parameters: [&(dyn ToSql + Sync); 3] = [&MARKERS_KEPT, &listed, &CLEAN_ROWS];
            let deleted = client.execute(
                "DELETE FROM pgherd.tx WHERE gid IN (SELECT gid FROM pgherd.tx \
                 WHERE at < pg_catalog.now() - $1::text::pg_catalog.interval \
                 AND gid <> ALL ($2) LIMIT $3)",
                &parameters,
            );
            if let Err(error) = timely(async { Ok(deleted.await?) }).await {
                tracing::warn!(%shard, %error, "old markers could not be deleted");
            }
        }
    }
}

/// What the decider's marker says of one transaction, asked over a new connection: `Some(true)` is
/// committed, `Some(false)` aborted for good, `None` not to be known within some seconds.
pub async fn look_up(dsn: &str, gid: &Gid) -> Option<bool> {
    for _ in 0..3 {
        if let Ok(client) = timely(connect(dsn)).await
            && let Ok(Some(committed)) = timely(decide(&client, gid)).await
        {
            return Some(committed);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    None
}

async fn timely<T>(work: impl Future<Output = Result<T, SweepError>>) -> Result<T, SweepError> {
    tokio::time::timeout(WAIT, work).await.unwrap_or(Err(SweepError::Timeout))
}

/// One shard's connection, and what is prepared there.
async fn look(
    shard: ShardId,
    dsn: &str,
    known: Option<Arc<Client>>,
) -> Result<(Arc<Client>, Vec<Prepared>), SweepError> {
    let looked = timely(async {
        let client = match known {
            Some(client) => client,
            None => Arc::new(connect(dsn).await?),
        };
        let rows = client
            .query(
                "SELECT gid, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - prepared) \
                 FROM pg_catalog.pg_prepared_xacts \
                 WHERE database = pg_catalog.current_database() AND gid LIKE 'pgherd\\_%' \
                 ORDER BY prepared LIMIT 10000",
                &[],
            )
            .await?;
        let prepared = rows.iter().filter_map(|row| {
            let age = Duration::try_from_secs_f64(row.get(1)).unwrap_or_default();
            Some(Prepared { gid: Gid::parse(row.get(0))?, age })
        });
        Ok((client, prepared.collect()))
    })
    .await;
    if let Err(error) = &looked {
        tracing::warn!(%shard, %error, "a shard does not answer");
    }
    looked
}

/// `Some(true)` is committed, `Some(false)` aborted for good, `None` not decided yet.
async fn decide(client: &Client, gid: &Gid) -> Result<Option<bool>, SweepError> {
    let inserted = client
        .execute(
            "INSERT INTO pgherd.tx (gid, state) VALUES ($1, 'aborted') ON CONFLICT DO NOTHING",
            &[&gid.as_str()],
        )
        .await;
    match inserted {
        Ok(1) => Ok(Some(false)),
        Ok(_) => {
            let select = "SELECT state FROM pgherd.tx WHERE gid = $1";
            let row = client.query_one(select, &[&gid.as_str()]).await?;
            Ok(Some(row.get::<_, &str>(0) == "committed"))
        }
        // The owner holds the row and is still deciding.
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn has_marker(client: &Client, gid: &Gid) -> bool {
    let select = "SELECT 1 FROM pgherd.tx WHERE gid = $1";
    matches!(client.query_opt(select, &[&gid.as_str()]).await, Ok(Some(_)))
}

async fn connect(dsn: &str) -> Result<Client, SweepError> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    tokio::spawn(async move {
        // Its end is seen by whoever uses the client.
        drop(connection.await);
    });
    // READ COMMITTED, so that the row which the insert met can be read after it.
    client
        .batch_execute(
            "SET lock_timeout = '1s'; SET default_transaction_isolation = 'read committed'; \
             SET application_name = 'pgherd recovery'",
        )
        .await?;
    Ok(client)
}
