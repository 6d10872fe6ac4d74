//! Once a second: connections that have been idle for too long or are too old are closed, what
//! should be warm is opened, queues whose shard may have come back are looked at.

use std::rc::Rc;
use std::time::{Duration, Instant};

use pgherd_shard_map::{ShardId, ShardMap};

use super::{Login, Pool, PoolFigures, PoolKey, PoolLimits, Pools};

impl Pools {
    /// `is_present` says whether a client of the user is connected (or is to be served fast when
    /// it comes): then [`PoolLimits::min_size`] are kept.
    pub fn sweep(self: &Rc<Self>, now: Instant, map: &ShardMap, is_present: impl Fn(&str) -> bool) {
        self.know_all(map);
        let limits = self.limits.get();
        let queues: Vec<PoolKey> = {
            let mut pools = self.pools.borrow_mut();
            pools.retain(|key, pool| {
                let known = map.shard(key.0).is_some();
                let warm = if known && is_present(&key.1) { limits.min_size } else { 0 };
                pool.close_unused(now, &limits, warm);
                while pool.total < warm && self.open_ahead(key, pool) {}
                warm > 0 || pool.total > 0 || !pool.waiting.is_empty() || pool.extra != 0
            });
            pools.iter().filter(|(_, p)| !p.waiting.is_empty()).map(|(k, _)| k.clone()).collect()
        };
        for key in queues {
            self.open_for_queue(&key);
        }
    }

    /// Learns where all shards are.
    pub fn know_all(&self, map: &ShardMap) {
        for shard in map.shards() {
            self.know(shard.id, &shard.dsn);
        }
    }

    /// Makes a user's pools on all shards, so that [`Self::sweep`] warms them, and opens what is
    /// to be kept warm.
    pub fn expect(self: &Rc<Self>, login: &Login, map: &ShardMap) {
        let limits = self.limits.get();
        if limits.min_size == 0 {
            return;
        }
        for shard in map.shards() {
            self.know(shard.id, &shard.dsn);
            let paused = self.is_paused(shard.id);
            let key = (shard.id, Rc::clone(&login.user));
            let mut pools = self.pools.borrow_mut();
            let pool = pools
                .entry(key.clone())
                .or_insert_with(|| Pool::new(self.generation.get(), paused));
            pool.login = Some(login.clone());
            while pool.total < limits.min_size && self.open_ahead(&key, pool) {}
        }
    }

    /// Limits that a new configuration brings. Connections above a smaller size are closed as they
    /// come back; transactions that are admitted stay so.
    pub fn set_limits(self: &Rc<Self>, limits: PoolLimits) {
        let admission = &self.admissions[self.index];
        let before = self.limits.replace(limits).size;
        admission.add_permits(limits.size.saturating_sub(before));
        let fewer = before.saturating_sub(limits.size);
        let left = fewer - admission.forget_permits(fewer);
        if left > 0 {
            // Those in use go as they come back.
            let admission = std::sync::Arc::clone(admission);
            tokio::task::spawn_local(async move {
                let left = u32::try_from(left).unwrap_or(u32::MAX);
                if let Ok(permits) = admission.acquire_many(left).await {
                    permits.forget();
                }
            });
        }
        let keys: Vec<PoolKey> = self.pools.borrow().keys().cloned().collect();
        for key in keys {
            self.open_for_queue(&key);
        }
    }

    #[must_use]
    pub fn figures(&self) -> Vec<PoolFigures> {
        let share = self.limits.get().size;
        let now = Instant::now();
        let pools = self.pools.borrow();
        let figures = pools.iter().map(|((shard, user), pool)| PoolFigures {
            shard: *shard,
            user: (**user).into(),
            idle: pool.idle.len(),
            active: pool.total - pool.idle.len() - pool.opening,
            opening: pool.opening,
            waiting: pool.waiting.iter().filter(|waiter| !waiter.answer.is_closed()).count(),
            longest: pool
                .waiting
                .iter()
                .find(|waiter| !waiter.answer.is_closed())
                .map_or(Duration::ZERO, |waiter| now.duration_since(waiter.since)),
            size: pool.places(share),
            paused: pool.held,
        });
        figures.collect()
    }

    /// Connections that were opened, and those that could not be, since the start.
    #[must_use]
    pub fn connects(&self) -> (u64, u64) {
        (self.opened.get(), self.refused.get())
    }

    /// Transactions that wait to be admitted.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued.get()
    }

    /// The shard at this address, and each idle connection with its user.
    pub fn each_idle(&self, mut tell: impl FnMut(&str, &super::Server)) {
        for ((_, user), pool) in self.pools.borrow().iter() {
            pool.idle.iter().for_each(|server| tell(user, server));
        }
    }

    #[must_use]
    pub fn shard_at(&self, address: std::net::SocketAddr) -> Option<ShardId> {
        let gates = self.gates.borrow();
        gates.iter().find(|(_, gate)| gate.address == Some(address)).map(|(shard, _)| *shard)
    }
}

impl Pool {
    /// Those that were idle longest go first: the newest, since the oldest are taken first.
    fn close_unused(&mut self, now: Instant, limits: &PoolLimits, warm: usize) {
        self.waiting.retain(|waiter| !waiter.answer.is_closed());
        let mut spare = self.total.saturating_sub(warm);
        let before = self.idle.len();
        self.idle.retain(|server| {
            let old = server.expires.is_some_and(|expires| now >= expires);
            let unused = now.duration_since(server.idle_since) >= limits.idle && spare > 0;
            spare -= usize::from(unused && !old);
            !(old || unused)
        });
        self.total -= before - self.idle.len();
    }
}
