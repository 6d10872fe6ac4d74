//! The figures of all workers made into one, for the console and for the views that clients read.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use pgherd_shard_map::ShardId;
use serde_json::{Value, json};

use super::usage::Usage;
use super::{ClientFigures, Mail, ServerFigures, Shared};
use crate::pool::PoolFigures;

impl Shared {
    /// The pools of all workers, added up.
    pub async fn pools(&self) -> BTreeMap<(ShardId, Box<str>), PoolFigures> {
        let mut sums: BTreeMap<(ShardId, Box<str>), PoolFigures> = BTreeMap::new();
        for pool in self.figures().await.into_iter().flat_map(|worker| worker.pools) {
            match sums.get_mut(&(pool.shard, pool.user.clone())) {
                Some(sum) => sum.add(&pool),
                None => drop(sums.insert((pool.shard, pool.user.clone()), pool)),
            }
        }
        sums
    }

    /// Rows of the view `pgherd.pools`, as JSON.
    pub async fn pool_rows(&self) -> String {
        let size = self.live.load().pool.size;
        let pools = self.pools().await;
        let row = |pool: &PoolFigures| {
            json!({
                "shard": pool.shard.0,
                "user_name": pool.user,
                "active": pool.active,
                "idle": pool.idle,
                "opening": pool.opening,
                "waiting": pool.waiting,
                "longest_wait": pool.longest.as_secs_f64(),
                "size": size,
                "paused": pool.paused,
            })
        };
        Value::from_iter(pools.values().map(row)).to_string()
    }

    /// Rows of the view `pgherd.clients`, as JSON.
    pub async fn client_rows(&self) -> String {
        let row = |client: &ClientFigures| {
            json!({
                "id": client.pid,
                "user_name": client.user,
                "address": client.peer.map(|peer| peer.ip()),
                "port": client.peer.map(|peer| peer.port()),
                "connected": humantime::format_rfc3339_micros(client.since).to_string(),
                "state": client.doing.name(),
                "messages": client.messages,
                "servers": client.servers,
            })
        };
        Value::from_iter(self.clients().await.iter().map(row)).to_string()
    }

    /// Rows of the view `pgherd.servers`, as JSON.
    pub async fn server_rows(&self) -> String {
        let row = |server: &ServerFigures| {
            json!({
                "shard": server.shard.0,
                "user_name": server.user,
                "state": server.state(),
                "address": server.address.ip(),
                "port": server.address.port(),
                "pid": server.pid,
                "client": server.client,
            })
        };
        Value::from_iter(self.servers().await.iter().map(row)).to_string()
    }

    /// The statements of all workers, added up; what took longest first.
    pub async fn usages(&self) -> Vec<Usage> {
        let mut sums: HashMap<(Box<str>, Box<str>, usize), Usage> = HashMap::new();
        for usage in self.ask_workers(Mail::Usages).await.into_iter().flatten() {
            match sums.entry((usage.user.clone(), usage.text.clone(), usage.tier as usize)) {
                Entry::Occupied(mut sum) => sum.get_mut().add(&usage),
                Entry::Vacant(place) => drop(place.insert(usage)),
            }
        }
        let mut usages: Vec<Usage> = sums.into_values().collect();
        usages.sort_unstable_by_key(|usage| std::cmp::Reverse(usage.total));
        usages
    }

    /// Rows of the view `pgherd.statements`, as JSON.
    pub async fn statement_rows(&self) -> String {
        let row = |usage: &Usage| {
            json!({
                "user_name": usage.user,
                "query": usage.text,
                "tier": usage.tier.as_str(),
                "calls": usage.calls,
                "total_ms": usage.total_ms(),
                "mean_ms": usage.mean_ms(),
                "max_ms": usage.max_ms(),
            })
        };
        Value::from_iter(self.usages().await.iter().map(row)).to_string()
    }

    /// Everybody who is connected, in the order of coming.
    pub async fn clients(&self) -> Vec<ClientFigures> {
        let people = self.people().await;
        let mut clients: Vec<_> = people.into_iter().flat_map(|people| people.clients).collect();
        clients.sort_unstable_by_key(|client| (client.since, client.pid));
        clients
    }

    /// All server connections, by shard.
    pub async fn servers(&self) -> Vec<ServerFigures> {
        let people = self.people().await;
        let mut servers: Vec<_> = people.into_iter().flat_map(|people| people.servers).collect();
        servers.sort_unstable_by_key(|server| (server.shard, server.pid));
        servers
    }
}
