//! Once a second: connections that have been idle for too long or are too old are closed, what
//! should be warm is opened, queues whose shard may have come back are looked at.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgherd_shard_map::ShardMap;
use tokio::sync::Semaphore;

use super::apart;
use super::lend::Want;
use super::{Login, Pool, PoolFigures, PoolKey, PoolLimits, Pools};
use crate::verifiers::RoleVersion;

impl Pools {
    /// Places that were lent here for a pool that nobody uses any more are given up, to be passed on
    /// to a neighbour: in the end to who has lent them.
    ///
    /// `is_present` says whether a client of the user is connected (or is to be served fast when
    /// it comes): then [`PoolLimits::min_size`] are kept.
    pub fn sweep(
        self: &Rc<Self>,
        now: Instant,
        map: &ShardMap,
        is_present: impl Fn(RoleVersion, &Rc<str>) -> bool,
    ) -> Vec<Want> {
        self.know_all(map);
        let limits = self.limits.get();
        let mut unused = Vec::new();
        let queues: Vec<PoolKey> = {
            let mut pools = self.pools.borrow_mut();
            pools.retain(|key, pool| {
                let known = map.shard(key.0).is_some();
                let present = limits.min_size > 0 && known && is_present(key.1, &key.2);
                let warm = if present { limits.min_size } else { 0 };
                if !present {
                    pool.login = None;
                }
                pool.close_unused(now, &limits, warm);
                while pool.total < warm && self.open_ahead(key, pool) {}
                let used = warm > 0 || pool.total > 0 || !pool.waiting.is_empty();
                if !used && pool.extra > 0 {
                    let count = std::mem::take(&mut pool.extra).unsigned_abs();
                    unused.push(Want::new(key, count));
                }
                used || pool.extra != 0
            });
            pools.iter().filter(|(_, p)| !p.waiting.is_empty()).map(|(k, _)| k.clone()).collect()
        };
        for key in queues {
            self.open_for_queue(&key);
        }
        unused
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
        // Of a role with a connection limit nothing is kept: the shards count it.
        if limits.min_size == 0 || login.seat.is_some() {
            return;
        }
        for shard in map.shards() {
            self.know(shard.id, &shard.dsn);
            let paused = self.is_paused(shard.id);
            let key = login.pool(shard.id);
            let mut pools = self.pools.borrow_mut();
            let pool = pools
                .entry(key.clone())
                .or_insert_with(|| Pool::new(self.generation.get(), paused));
            pool.login = Some(login.unseated());
            while pool.total < limits.min_size && self.open_ahead(&key, pool) {}
        }
    }

    /// Limits that a new configuration brings. Connections above a smaller size are closed as they
    /// come back; transactions that are admitted stay so.
    pub fn set_limits(self: &Rc<Self>, limits: PoolLimits) {
        let before = self.limits.replace(limits);
        resize(&self.admissions[self.index], before.size, limits.size);
        resize(&self.apart, apart::places(&before), apart::places(&limits));
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
        let figures = pools.iter().map(|((shard, _, user), pool)| PoolFigures {
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

    /// Each idle connection with its user.
    pub fn each_idle(&self, mut tell: impl FnMut(&str, &super::Server)) {
        for ((.., user), pool) in self.pools.borrow().iter() {
            pool.idle.iter().for_each(|idle| tell(user, &idle.server));
        }
    }
}

/// More permits, or fewer: those in use go as they come back.
fn resize(semaphore: &Arc<Semaphore>, before: usize, after: usize) {
    semaphore.add_permits(after.saturating_sub(before));
    let fewer = before.saturating_sub(after);
    let left = fewer - semaphore.forget_permits(fewer);
    if left > 0 {
        let semaphore = Arc::clone(semaphore);
        tokio::task::spawn_local(async move {
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            if let Ok(permits) = semaphore.acquire_many(left).await {
                permits.forget();
            }
        });
    }
}

impl Pool {
    /// Those that were idle longest go first: the newest, since the oldest are taken first.
    fn close_unused(&mut self, now: Instant, limits: &PoolLimits, warm: usize) {
        self.waiting.retain(|waiter| !waiter.answer.is_closed());
        let mut spare = self.total.saturating_sub(warm);
        let before = self.idle.len();
        self.idle.retain(|idle| {
            let old = idle.server.is_old(now);
            let unused = now.duration_since(idle.since) >= limits.idle && spare > 0;
            spare -= usize::from(unused && !old);
            !(old || unused)
        });
        self.total -= before - self.idle.len();
    }
}
