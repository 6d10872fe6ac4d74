//! The figures of all workers made into one, for the console and for the views that clients read.

use std::collections::BTreeMap;

use pgherd_shard_map::ShardId;
use serde_json::json;

use super::Shared;
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

    /// What the views `pgherd.pools` and `pgherd.transactions` read (`catalog.sql`).
    pub async fn views(&self) -> String {
        let pools = self.pools().await;
        let pools: Vec<_> = pools
            .values()
            .map(|pool| {
                json!({
                    "shard": pool.shard.0,
                    "user_name": pool.user,
                    "active": pool.active,
                    "idle": pool.idle,
                    "opening": pool.opening,
                    "waiting": pool.waiting,
                    "longest_wait_ms": pool.longest.as_millis() as u64,
                    "size": pool.size,
                    "paused": pool.paused,
                })
            })
            .collect();
        let health = self.health.load();
        let transactions: Vec<_> = health
            .iter()
            .flat_map(|look| look.transactions.iter().map(|(gid, age)| (look.shard, gid, age)))
            .map(|(shard, gid, age)| {
                json!({ "gid": gid, "shard": shard.0, "age_seconds": age.as_secs() })
            })
            .collect();
        json!({ "pools": pools, "transactions": transactions }).to_string()
    }
}
