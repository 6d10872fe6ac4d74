//! The gate of the shards, closed for a moment by a reader that otherwise finds no whole snapshots
//! ([`consistent_read`](crate::consistent_read)).
//!
//! One holder at a time in each router, over connections of its own that stay open, and one in the
//! cluster: whoever closes the gate first has the turn on the first shard, then all the others at
//! once. A router that stops in the middle keeps no decision off for long: the shards themselves end
//! a session that holds the gate and is idle.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use pgherd_shard_map::ShardId;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_postgres::Client;

use crate::dial::Dialer;
use crate::recovery::{AskError, connect, timely};
use crate::two_phase::{GATE, TURN};

/// Of a session that holds it, or waits for it.
const LIMITS: &str = "SET idle_session_timeout = '2s'; SET lock_timeout = '1s'";

/// Shards by their DSNs.
type Shards = BTreeMap<ShardId, String>;

#[derive(Debug, Default)]
pub struct Gate(Arc<Mutex<Connections>>);

type Connections = BTreeMap<ShardId, (String, Client)>;

/// The gate of those shards that could be reached is closed until this is opened.
#[derive(Debug)]
pub struct Closed(OwnedMutexGuard<Connections>);

impl Gate {
    /// Waits for transactions that are deciding now; a shard where that takes too long is left out.
    pub async fn close(&self, dialer: &Dialer, shards: &Shards) -> Closed {
        let mut connections = Arc::clone(&self.0).lock_owned().await;
        connections.retain(|shard, (dsn, client)| {
            !client.is_closed() && shards.get(shard).is_some_and(|now| now == dsn)
        });
        let missing = shards.iter().filter(|(shard, _)| !connections.contains_key(shard));
        let opened = missing
            .map(|(shard, dsn)| async move { (*shard, dsn.clone(), connect(dialer, dsn).await) });
        for (shard, dsn, opened) in join_all(opened).await {
            match opened {
                Ok(client) => drop(connections.insert(shard, (dsn, client))),
                Err(error) => tracing::warn!(%shard, %error, "the gate cannot be closed"),
            }
        }
        let lock = |key: &str| format!("{LIMITS}; SELECT pg_catalog.pg_advisory_lock({key})");
        if let Some((_, client)) = connections.values().next()
            && let Err(error) = run(client, &lock(TURN)).await
        {
            tracing::warn!(%error, "the gate is closed out of turn");
        }
        let gate = lock(GATE);
        let closed = connections.iter().map(|(shard, (_, client))| {
            let gate = &gate;
            async move { (*shard, run(client, gate).await) }
        });
        let mut failed = Vec::new();
        for (shard, closed) in join_all(closed).await {
            if let Err(error) = closed {
                tracing::warn!(%shard, %error, "the gate was not closed");
                failed.push(shard);
            }
        }
        connections.retain(|shard, _| !failed.contains(shard));
        Closed(connections)
    }
}

impl Closed {
    pub async fn open(mut self) {
        let unlock = "SELECT pg_catalog.pg_advisory_unlock_all(); SET idle_session_timeout = 0";
        let opened = self
            .0
            .iter()
            .map(|(shard, (_, client))| async move { (*shard, run(client, unlock).await.is_ok()) });
        let opened: BTreeMap<ShardId, bool> = join_all(opened).await.into_iter().collect();
        // A connection that ends lets go of what it holds.
        self.0.retain(|shard, _| opened.get(shard) == Some(&true));
    }
}

async fn run(client: &Client, sql: &str) -> Result<(), AskError> {
    timely(async { Ok(client.batch_execute(sql).await?) }).await
}
