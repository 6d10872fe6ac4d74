//! Connections are opened for the queue, not by those who wait in it: so an idle one that comes
//! back first is taken instead, a client that leaves loses nothing, and a bounded number is under
//! way however many clients arrive at once.

use std::rc::Rc;
use std::time::{Duration, Instant};

use pgherd_shard_map::ShardId;

use super::{Door, Login, Pool, PoolKey, Pools, Server, unreachable};
use crate::error::ErrorInfo;

/// How long a shard that refused a connection is left alone.
const BREAK: Duration = Duration::from_millis(500);

/// Connections to one shard that a worker opens at a time.
const OPENING_MAX: usize = 8;

impl Door {
    fn new(dsn: &str) -> Self {
        Self {
            dsn: dsn.into(),
            opening: 0,
            starved: false,
            closed_until: None,
            dead: false,
            paused: None,
            apart: Rc::default(),
        }
    }

    pub(super) fn is_closed(&self, now: Instant) -> bool {
        self.closed_until.is_some_and(|until| now < until)
    }
}

impl Pool {
    /// How many in the queue a new connection may serve. A paused shard serves only transactions
    /// that began before it was paused.
    fn entitled(&self, paused: Option<u32>) -> usize {
        let entitled = |ticket: Option<u32>| match paused {
            None => true,
            Some(generation) => ticket.is_some_and(|ticket| ticket < generation),
        };
        self.waiting.iter().filter(|waiter| entitled(waiter.ticket)).count()
    }
}

impl Pools {
    /// Learns where the shard is. One that has moved is reached anew.
    pub(super) fn know(&self, shard: ShardId, dsn: &str) {
        let moved = {
            let mut doors = self.doors.borrow_mut();
            let door = doors.entry(shard).or_insert_with(|| Door::new(dsn));
            let moved = *door.dsn != *dsn;
            if moved {
                door.dsn = dsn.into();
                door.closed_until = None;
            }
            moved
        };
        if moved {
            self.renew(&[shard], self.generation.get() + 1);
        }
    }

    /// Opens as many connections as the queue is long, as far as places, the shard's state and
    /// the number under way allow.
    pub(super) fn open_for_queue(self: &Rc<Self>, key: &PoolKey) {
        let limits = self.limits.get();
        let mut pools = self.pools.borrow_mut();
        let mut doors = self.doors.borrow_mut();
        let (Some(pool), Some(door)) = (pools.get_mut(key), doors.get_mut(&key.0)) else { return };
        let wanted = pool.entitled(door.paused);
        while pool.opening < wanted {
            if pool.is_full(&limits) {
                self.hungry.notify_one();
                break;
            }
            // The login of the first who has nothing under way yet.
            let Some(login) = pool.waiting.get(pool.opening).map(|w| w.login.clone()) else {
                break;
            };
            if !self.start(key, pool, door, login) {
                break;
            }
        }
    }

    /// Opens one connection that nobody waits for yet; false if none can be opened now.
    pub(super) fn open_ahead(self: &Rc<Self>, key: &PoolKey, pool: &mut Pool) -> bool {
        let mut doors = self.doors.borrow_mut();
        let Some(door) = doors.get_mut(&key.0) else { return false };
        if pool.is_full(&self.limits.get()) || door.paused.is_some() {
            return false;
        }
        let Some(login) = pool.login.clone() else { return false };
        self.start(key, pool, door, login)
    }

    fn start(
        self: &Rc<Self>,
        key: &PoolKey,
        pool: &mut Pool,
        door: &mut Door,
        login: Login,
    ) -> bool {
        if door.is_closed(Instant::now()) {
            return false;
        }
        if door.opening >= OPENING_MAX {
            door.starved = true;
            return false;
        }
        door.opening += 1;
        pool.total += 1;
        pool.opening += 1;
        let pools = Rc::clone(self);
        let (key, dsn) = (key.clone(), Rc::clone(&door.dsn));
        let generation = self.generation.get();
        tokio::task::spawn_local(async move {
            let connecting = pools.connect(key.0, &dsn, &login);
            let opened = match tokio::time::timeout(pools.limits.get().connect, connecting).await {
                Ok(opened) => opened,
                Err(_) => Err(unreachable(key.0, "it did not answer in time")),
            };
            pools.opened(&key, &login, generation, opened);
        });
        true
    }

    /// A connect has ended.
    fn opened(
        self: &Rc<Self>,
        key: &PoolKey,
        login: &Login,
        generation: u32,
        opened: Result<Server, ErrorInfo>,
    ) {
        let starved = {
            let mut pools = self.pools.borrow_mut();
            let mut doors = self.doors.borrow_mut();
            let (Some(pool), Some(door)) = (pools.get_mut(key), doors.get_mut(&key.0)) else {
                return;
            };
            door.opening -= 1;
            pool.opening -= 1;
            match opened {
                Ok(mut server) => {
                    self.opened.set(self.opened.get() + 1);
                    door.closed_until = None;
                    server.generation = generation;
                    server.lifetime_ms = self.limits.get().lifetime.map_or(0, vary_ms);
                    self.place(pool, door, server);
                }
                Err(error) => {
                    self.refused.set(self.refused.get() + 1);
                    pool.total -= 1;
                    fail(pool, door, login, error);
                }
            }
            std::mem::take(&mut door.starved)
        };
        self.open_for_queue(key);
        if starved {
            self.open_for_shard(key.0);
        }
    }

    /// A new connection to the first it is for.
    fn place(&self, pool: &mut Pool, door: &Door, server: Server) {
        if server.generation < pool.since {
            pool.total -= 1;
            return;
        }
        let Some(paused) = door.paused else {
            if let Some(server) = pool.serve_first(server) {
                pool.keep_idle(server, Instant::now());
            }
            return;
        };
        let entitled = |ticket: Option<u32>| ticket.is_some_and(|ticket| ticket < paused);
        let at = pool.waiting.iter().position(|w| entitled(w.ticket) && !w.answer.is_closed());
        let waiter = at.and_then(|at| pool.waiting.remove(at));
        if waiter.is_none_or(|waiter| waiter.answer.send(Ok(server)).is_err()) {
            pool.total -= 1;
        }
    }

    /// Opens for all queues of the shard, the longest wait first.
    pub(super) fn open_for_shard(self: &Rc<Self>, shard: ShardId) {
        let mut queues: Vec<(Instant, PoolKey)> = {
            let pools = self.pools.borrow();
            let of_shard = pools.iter().filter(|((of, ..), _)| *of == shard);
            of_shard
                .filter_map(|(key, pool)| Some((pool.waiting.front()?.since, key.clone())))
                .collect()
        };
        queues.sort_unstable_by_key(|(since, _)| *since);
        for (_, key) in queues {
            self.open_for_queue(&key);
        }
    }
}

/// Tells those who waited for a connection that could not be opened. Where the shard itself is the
/// reason, all that the pool has is what it has open: if that is nothing, nobody waits in vain.
fn fail(pool: &mut Pool, door: &mut Door, login: &Login, error: ErrorInfo) {
    let shard_is_the_reason =
        error.sqlstate.starts_with("08") || matches!(&*error.sqlstate, "53300" | "57P03");
    if shard_is_the_reason {
        door.closed_until = Some(Instant::now() + BREAK);
        // What sessions hold of a server that does not answer will not come back.
        door.dead = error.sqlstate.starts_with("08");
        if door.dead || pool.total == pool.opening {
            for waiter in pool.waiting.drain(..) {
                // It may have left.
                drop(waiter.answer.send(Err(error.clone())));
            }
        }
        return;
    }
    // The login is: it was that of one client.
    let same = |other: &Login| other.proof.is(&login.proof);
    if let Some(at) = pool.waiting.iter().position(|waiter| same(&waiter.login))
        && let Some(waiter) = pool.waiting.remove(at)
    {
        drop(waiter.answer.send(Err(error)));
    }
}

/// A span less up to a tenth, by chance; as long as can be told, where that is too long.
fn vary_ms(span: Duration) -> u32 {
    let mut byte = [0; 2];
    // Without random bytes nothing varies, which harms nobody.
    let _ = getrandom::fill(&mut byte);
    let less = span.mul_f64(0.1 * f64::from(u16::from_ne_bytes(byte)) / f64::from(u16::MAX));
    u32::try_from((span - less).as_millis()).unwrap_or(u32::MAX).max(1)
}
