//! What an operator does to a shard's connections: PAUSE holds new work back and closes what comes
//! back, RESUME lets it go on, RECONNECT closes each connection once its transaction has ended.
//!
//! A transaction that began before a PAUSE finishes, also where it needs a connection more: it
//! carries the generation of its beginning in its [`super::Ticket`].

use std::rc::Rc;

use pgherd_shard_map::ShardId;

use super::Pools;

impl Pools {
    /// Holds new work on these shards back. The caller asks [`Self::figures`] when they are quiet.
    pub fn pause(&self, shards: &[ShardId], generation: u32) {
        self.renew(shards, generation);
        for shard in shards {
            if let Some(door) = self.doors.borrow_mut().get_mut(shard) {
                door.paused = Some(generation);
            }
        }
        for ((shard, ..), pool) in self.pools.borrow_mut().iter_mut() {
            pool.held |= shards.contains(shard);
        }
    }

    /// Serves those who waited.
    pub fn resume(self: &Rc<Self>, shards: &[ShardId]) {
        for shard in shards {
            if let Some(door) = self.doors.borrow_mut().get_mut(shard) {
                door.paused = None;
            }
            for ((of, ..), pool) in self.pools.borrow_mut().iter_mut() {
                pool.held &= of != shard;
            }
            self.open_for_shard(*shard);
        }
        self.resumed.notify_waiters();
    }

    /// Closes connections of an older generation: idle ones now, others when they come back.
    pub fn renew(&self, shards: &[ShardId], generation: u32) {
        self.generation.set(generation.max(self.generation.get()));
        for ((shard, ..), pool) in self.pools.borrow_mut().iter_mut() {
            if shards.contains(shard) {
                pool.since = generation;
                pool.total -= pool.idle.len();
                pool.idle.clear();
            }
        }
    }

    pub(super) fn is_paused(&self, shard: ShardId) -> bool {
        self.doors.borrow().get(&shard).is_some_and(|door| door.paused.is_some())
    }

    pub(super) fn any_paused(&self) -> bool {
        self.doors.borrow().values().any(|door| door.paused.is_some())
    }
}
