//! A worker whose places are all taken borrows from its neighbours: a place moves, with an idle
//! connection in it if there is one. The sum of all workers' places stays `[pool] size`.
//!
//! Nobody gives back: a place stays where it was needed until it is needed elsewhere, or nobody here
//! uses the pool any more. Then it goes from worker to worker until one is short of it.

use std::io;
use std::rc::Rc;

use pgherd_shard_map::ShardId;

use super::server::Parcel;
use super::{Pool, PoolKey, Pools, Server};
use crate::session::Settings;
use crate::verifiers::RoleVersion;

/// Places that move at a time.
const LEND_MAX: usize = 4;

/// What a neighbour is asked for.
#[derive(Debug, Clone)]
pub struct Want {
    pub shard: ShardId,
    pub role: RoleVersion,
    pub user: Box<str>,
    pub count: usize,
}

impl Want {
    pub(super) fn new((shard, role, user): &PoolKey, count: usize) -> Self {
        Self { shard: *shard, role: *role, user: (**user).into(), count }
    }

    fn key(&self) -> PoolKey {
        (self.shard, self.role, self.user.as_ref().into())
    }
}

impl Pools {
    /// What this worker's queues would take from neighbours.
    #[must_use]
    pub fn wants(&self) -> Vec<Want> {
        let limits = self.limits.get();
        let pools = self.pools.borrow();
        let hungry = pools.iter().filter(|(_, pool)| pool.is_full(&limits) && !pool.held);
        hungry
            .map(|(key, pool)| {
                let waiting = pool.waiting.iter().filter(|waiter| !waiter.answer.is_closed());
                let count = waiting.count().saturating_sub(pool.opening).min(LEND_MAX);
                Want::new(key, count)
            })
            .filter(|want| want.count > 0)
            .collect()
    }

    /// Gives places away that nobody here needs: `None` is one without a connection.
    pub fn lend(&self, want: &Want) -> Vec<Option<Parcel>> {
        let key = want.key();
        let share = self.limits.get().size;
        let mut pools = self.pools.borrow_mut();
        // Where it was never used here, all of its places are free.
        let held = self.is_paused(want.shard);
        let pool = pools.entry(key).or_insert_with(|| Pool::new(self.generation.get(), held));
        let mut lent = Vec::new();
        while lent.len() < want.count && pool.waiting.is_empty() && !pool.held {
            if pool.places(share) > pool.total {
                lent.push(None);
            } else if pool.idle.is_empty() {
                break;
            } else {
                // The newest, which is used least.
                let server = pool.idle.remove(0).server;
                pool.total -= 1;
                // One that cannot leave this thread is closed; its place goes all the same.
                lent.push(server.pack().ok());
            }
            pool.extra -= 1;
        }
        lent
    }

    /// Takes in what a neighbour has lent. `settings` are those of a connection, interned here.
    pub fn borrow_places(
        self: &Rc<Self>,
        want: &Want,
        lent: Vec<Option<Parcel>>,
        intern: impl Fn(Settings) -> Rc<Settings>,
    ) {
        let key = want.key();
        for parcel in lent {
            {
                let held = self.is_paused(want.shard);
                let mut pools = self.pools.borrow_mut();
                let new = || Pool::new(self.generation.get(), held);
                pools.entry(key.clone()).or_insert_with(new).extra += 1;
            }
            let unpacked: Option<io::Result<Server>> =
                parcel.map(|parcel| Server::unpack(parcel, &intern));
            if let Some(Ok(server)) = unpacked {
                if let Some(pool) = self.pools.borrow_mut().get_mut(&key) {
                    pool.total += 1;
                }
                self.take_back(&key, server);
            }
        }
        self.open_for_queue(&key);
    }
}
