//! What is prepared where, and what is known of it: for recovery itself, for `pgherd txn list` and
//! for `pgherd.transactions`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pgherd_shard_map::ShardId;
use serde::Serialize;
use tokio_postgres::Client;

use super::attend::{AskError, connect, timely, verdict};
use crate::dial::Dialer;
use crate::two_phase::{Gid, Verdict};

/// Transactions that one shard is asked for at a time, the oldest first.
const LIST_MAX: i64 = 10_000;

/// A transaction that is prepared on a shard.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub gid: Gid,
    pub age: Duration,
    /// In UTC, as ISO 8601 has it.
    pub since: String,
    /// The role whose transaction it is.
    pub owner: String,
}

/// One line of `pgherd.transactions`.
#[derive(Debug, Clone, Serialize)]
pub struct InDoubt {
    pub gid: String,
    /// Where it is prepared.
    pub shard: u32,
    pub decider: u32,
    pub router: String,
    pub owner: String,
    pub prepared: String,
    pub age_seconds: f64,
    /// What the decider's marker says: `committed`, `rolled back`, `undecided` while there is none,
    /// `unknown` while the decider cannot be asked.
    pub state: &'static str,
}

/// What is prepared on one shard.
pub async fn prepared(client: &Client) -> Result<Vec<Prepared>, AskError> {
    let rows = timely(async {
        let select = "SELECT gid, \
             pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - prepared), \
             pg_catalog.to_char(prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
             owner::pg_catalog.text \
             FROM pg_catalog.pg_prepared_xacts \
             WHERE database = pg_catalog.current_database() AND gid LIKE 'pgherd\\_%' \
             ORDER BY prepared LIMIT $1";
        Ok(client.query(select, &[&LIST_MAX]).await?)
    });
    let prepared = rows.await?.into_iter().filter_map(|row| {
        Some(Prepared {
            gid: Gid::parse(row.get(0))?,
            age: Duration::try_from_secs_f64(row.get(1)).unwrap_or_default(),
            since: row.get(2),
            owner: row.get(3),
        })
    });
    Ok(prepared.collect())
}

/// Connections to those of the shards that answer, and why the others do not.
pub async fn connect_all(
    dialer: &Dialer,
    shards: &[(ShardId, String)],
) -> (HashMap<ShardId, Arc<Client>>, Vec<(ShardId, AskError)>) {
    let opened = shards.iter().map(|(shard, dsn)| async { (*shard, connect(dialer, dsn).await) });
    let mut clients = HashMap::new();
    let mut silent = Vec::new();
    for (shard, opened) in join_all(opened).await {
        match opened {
            Ok(client) => drop(clients.insert(shard, Arc::new(client))),
            Err(error) => silent.push((shard, error)),
        }
    }
    (clients, silent)
}

/// What is prepared on all of these shards, with what their deciders say now; and the shards that
/// did not answer. Decides nothing.
pub async fn in_doubt(
    clients: &HashMap<ShardId, Arc<Client>>,
) -> (Vec<InDoubt>, Vec<(ShardId, AskError)>) {
    let looks =
        clients.iter().map(|(shard, client)| async move { (*shard, prepared(client).await) });
    let mut found = Vec::new();
    let mut silent = Vec::new();
    let mut by_decider: BTreeMap<ShardId, Vec<&str>> = BTreeMap::new();
    for (shard, look) in join_all(looks).await {
        match look {
            Ok(list) => found.extend(list.into_iter().map(|one| (shard, one))),
            Err(error) => silent.push((shard, error)),
        }
    }
    for (_, one) in &found {
        if let Some(decider) = one.gid.decider() {
            by_decider.entry(decider).or_default().push(one.gid.as_str());
        }
    }
    let asked = by_decider.into_iter().map(|(decider, gids)| async move {
        let client = clients.get(&decider)?;
        Some((decider, markers(client, &gids).await.ok()?))
    });
    let markers: HashMap<ShardId, HashMap<String, Verdict>> =
        join_all(asked).await.into_iter().flatten().collect();
    let lines = found.iter().map(|(shard, one)| {
        let decider = one.gid.decider().unwrap_or(*shard);
        let state = match markers.get(&decider).map(|known| known.get(one.gid.as_str())) {
            None => "unknown",
            Some(None) => "undecided",
            Some(Some(Verdict::Committed)) => "committed",
            Some(Some(_)) => "rolled back",
        };
        InDoubt {
            gid: one.gid.to_string(),
            shard: shard.0,
            decider: decider.0,
            router: one.gid.router().to_owned(),
            owner: one.owner.clone(),
            prepared: one.since.clone(),
            age_seconds: one.age.as_secs_f64(),
            state,
        }
    });
    let mut lines: Vec<InDoubt> = lines.collect();
    lines.sort_by(|a, b| b.age_seconds.total_cmp(&a.age_seconds));
    (lines, silent)
}

/// The markers that one shard has of these transactions.
async fn markers(client: &Client, gids: &[&str]) -> Result<HashMap<String, Verdict>, AskError> {
    let select = "SELECT gid, state FROM pgherd.tx WHERE gid = ANY ($1)";
    let rows = timely(async { Ok(client.query(select, &[&gids]).await?) }).await?;
    Ok(rows.iter().map(|row| (row.get(0), verdict(row.get(1)))).collect())
}
