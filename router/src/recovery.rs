//! Finishes what a router left between the phases of a commit: at start, and every few seconds.
//!
//! Any router may do it at any time, while the owner may still live. The decision is a row on the
//! deciding shard: whoever inserts it first decides. What to do with one transaction is
//! [`Orphan`](crate::two_phase::Orphan)'s to say; here it is found (`survey`), and asked and sent
//! (`attend`). On the way it is learnt which shards answer.

mod attend;
mod survey;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pgherd_shard_map::ShardId;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::dial::Dialer;
use crate::two_phase::{End, Gid, Verdict};
pub use attend::{AskError, ask, attend, connect, timely};
pub use survey::{InDoubt, Prepared, connect_all, in_doubt, prepared};

/// How often shards are asked.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// A prepared transaction younger than this belongs to a router that is still at work.
const AGE_MIN: Duration = Duration::from_secs(4);

/// How long the transactions of one decider may keep one sweep.
const SWEEP_MAX: Duration = Duration::from_secs(10);

/// Markers are kept this long: a standby promoted from asynchronous replication can bring a
/// prepared transaction back, and then the marker must still be there to tell its outcome.
pub const MARKERS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// How often old markers are deleted, and how many at a time.
const CLEAN_EVERY: Duration = Duration::from_secs(600);
const CLEAN_ROWS: i64 = 10_000;

/// What the last look at a shard found, and what this router has done there.
#[derive(Debug, Clone)]
pub struct ShardHealth {
    pub shard: ShardId,
    /// Why it could not be asked.
    pub error: Option<String>,
    /// Transactions of ours that are prepared there now, and the age of the oldest.
    pub prepared: usize,
    pub oldest: Duration,
    /// Those among them whose owner should have finished them by now.
    pub in_doubt: usize,
    pub ends: Ends,
}

/// How many in-doubt transactions this router has brought to which end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ends {
    pub committed: u64,
    pub rolled_back: u64,
    /// Committed, and gone without a trace on this shard.
    pub lost: u64,
}

/// Connections and memory from sweep to sweep.
#[derive(Debug, Default)]
pub struct Recovery {
    clients: HashMap<ShardId, (String, Arc<Client>)>,
    ends: HashMap<ShardId, Ends>,
    /// Shards that did not answer at the last look: said when it begins and when it ends.
    silent: HashSet<ShardId>,
    cleaned: Option<Instant>,
}

impl Recovery {
    /// Looks at every shard once, at the same time; then finishes what is in doubt. A shard that
    /// does not answer is left for the next time.
    pub async fn sweep(
        &mut self,
        dialer: &Dialer,
        shards: &[(ShardId, String)],
    ) -> Vec<ShardHealth> {
        self.clients.retain(|id, (dsn, client)| {
            !client.is_closed() && shards.iter().any(|(shard, now)| shard == id && now == dsn)
        });
        let known = &self.clients;
        let looks = join_all(shards.iter().map(|(shard, dsn)| {
            let known = known.get(shard).map(|(_, client)| Arc::clone(client));
            look(dialer, dsn, known)
        }));
        let mut health = Vec::with_capacity(shards.len());
        let mut found = Vec::new();
        for ((shard, dsn), look) in shards.iter().zip(looks.await) {
            let (error, list) = match look {
                Ok((client, list)) => {
                    self.clients.insert(*shard, (dsn.clone(), client));
                    if self.silent.remove(shard) {
                        tracing::info!(%shard, "the shard answers again");
                    }
                    (None, list)
                }
                Err(error) => {
                    if self.silent.insert(*shard) {
                        tracing::warn!(%shard, %error, "a shard does not answer");
                    }
                    self.clients.remove(shard);
                    (Some(error.to_string()), Vec::new())
                }
            };
            health.push(ShardHealth {
                shard: *shard,
                prepared: list.len(),
                oldest: list.iter().map(|one| one.age).max().unwrap_or_default(),
                in_doubt: list.iter().filter(|one| one.age >= AGE_MIN).count(),
                ends: Ends::default(),
                error: error.clone(),
            });
            if error.is_none() {
                found.push((*shard, list));
            }
        }
        self.finish(&found).await;
        for shard in &mut health {
            shard.ends = self.ends.get(&shard.shard).copied().unwrap_or_default();
        }
        let all = found.len() == shards.len();
        if all && self.cleaned.is_none_or(|at| at.elapsed() >= CLEAN_EVERY) {
            self.cleaned = Some(Instant::now());
            self.clean(&found).await;
        }
        health
    }

    /// Brings what is old enough to its end: one after the other for each decider, the deciders at
    /// the same time, so that one that is slow keeps nobody else's.
    async fn finish(&mut self, found: &[(ShardId, Vec<Prepared>)]) {
        let mut by_decider: BTreeMap<ShardId, Vec<(ShardId, &Gid)>> = BTreeMap::new();
        for (shard, list) in found {
            for one in list.iter().filter(|one| one.age >= AGE_MIN) {
                let decider = one.gid.decider().unwrap_or(*shard);
                // Nothing can be done without its answer.
                if self.silent.contains(&decider) {
                    continue;
                }
                by_decider.entry(decider).or_default().push((*shard, &one.gid));
            }
        }
        let clients = &self.clients;
        let client = |shard: ShardId| clients.get(&shard).map(|(_, client)| &**client);
        let finished = join_all(by_decider.iter().map(|(decider, orphans)| async move {
            let started = Instant::now();
            let mut ends = Vec::with_capacity(orphans.len());
            for (shard, gid) in orphans {
                let Some(there) = client(*shard) else { continue };
                let end = attend(*shard, there, client(*decider), gid).await;
                ends.push((*shard, end));
                if end == End::Left || started.elapsed() >= SWEEP_MAX {
                    break;
                }
            }
            ends
        }));
        for (shard, end) in finished.await.into_iter().flatten() {
            let ends = self.ends.entry(shard).or_default();
            match end {
                End::Committed => ends.committed += 1,
                End::RolledBack => ends.rolled_back += 1,
                End::Lost => ends.lost += 1,
                // A connection that did not answer may answer another question later.
                End::Left => drop(self.clients.remove(&shard)),
                End::ByAnother | End::Undecided => {}
            }
        }
    }

    async fn clean(&self, found: &[(ShardId, Vec<Prepared>)]) {
        let listed: Vec<&str> =
            found.iter().flat_map(|(_, list)| list).map(|one| one.gid.as_str()).collect();
        let kept = MARKERS_KEPT.as_secs_f64();
        for (shard, (_, client)) in &self.clients {
            let parameters: [&(dyn ToSql + Sync); 3] = [&kept, &listed, &CLEAN_ROWS];
            let deleted = client.execute(
                "DELETE FROM pgherd.tx WHERE gid IN (SELECT gid FROM pgherd.tx \
                 WHERE at < pg_catalog.now() - pg_catalog.make_interval(secs => $1) \
                 AND gid <> ALL ($2) LIMIT $3)",
                &parameters,
            );
            if let Err(error) = timely(async { Ok(deleted.await?) }).await {
                tracing::warn!(%shard, %error, "old markers could not be deleted");
            }
            let forgotten = client.batch_execute("SELECT pgherd.forget_sessions()");
            if let Err(error) = timely(async { Ok(forgotten.await?) }).await {
                tracing::warn!(%shard, %error, "sessions that have ended could not be forgotten");
            }
        }
    }
}

/// What the decider's marker says of one transaction, asked once over a new connection.
pub async fn look_up(dialer: &Dialer, dsn: &str, gid: &Gid) -> Verdict {
    match connect(dialer, dsn).await {
        Ok(decider) => ask(&decider, gid).await,
        Err(error) => {
            tracing::warn!(%gid, %error, "in doubt: the decider cannot be asked");
            Verdict::Unreachable
        }
    }
}

/// Brings one transaction that is decided to its end on one shard, over new connections.
pub async fn finish(dialer: &Dialer, there: (ShardId, &str), decider: &str, gid: &Gid) -> End {
    let (shard, dsn) = there;
    let (there, decider) = futures_util::join!(connect(dialer, dsn), connect(dialer, decider));
    match there {
        Ok(client) => attend(shard, &client, decider.ok().as_ref(), gid).await,
        Err(error) => {
            tracing::warn!(%shard, %gid, %error, "in doubt: it is left for later");
            End::Left
        }
    }
}

/// A shard has lost what was committed.
pub fn alarm(shard: ShardId, gid: &Gid) {
    tracing::error!(%shard, %gid, "a committed transaction is lost on this shard: it is neither \
        prepared nor marked there. Has an old standby been promoted?");
}

/// One shard's connection, and what is prepared there.
async fn look(
    dialer: &Dialer,
    dsn: &str,
    known: Option<Arc<Client>>,
) -> Result<(Arc<Client>, Vec<Prepared>), AskError> {
    let client = match known {
        Some(client) => client,
        None => Arc::new(connect(dialer, dsn).await?),
    };
    let list = prepared(&client).await?;
    Ok((client, list))
}
