//! Server connections of one worker thread: bounded per shard and user, first come first served.
//!
//! Each worker owns its share of the connections, so nothing here is locked or shared. A session
//! checks a [`Server`] out for a transaction and gives it back; one that is not clean (a
//! transaction, a COPY, a cancel on its way) is closed instead.

pub mod connect;
pub mod server;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use pgherd_shard_map::{Epoch, ShardId, ShardMap};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::dial::Dialer;
use crate::error::ErrorInfo;
use crate::proofs::{Proof, Proofs};
use crate::seats::Seat;
use crate::verifiers::RoleVersion;
pub use server::Server;

/// Limits of each pool (one shard, one user, one worker).
#[derive(Debug, Clone)]
pub struct PoolLimits {
    pub size: usize,
    /// How long a session waits for a connection.
    pub wait: Duration,
    pub waiting_max: usize,
    pub connect: Duration,
    pub idle: Duration,
}

/// How a user logs in to the shards.
#[derive(Debug, Clone)]
pub struct Login {
    pub user: Rc<str>,
    pub database: Rc<str>,
    /// Another role that gets the name later is another pool's.
    pub role: RoleVersion,
    pub proof: Proof,
    /// Counted for a role that may have only so many.
    pub seat: Option<Rc<Seat>>,
}

/// Whose connections one pool holds.
type PoolKey = (ShardId, RoleVersion, Rc<str>);

impl Login {
    fn pool(&self, shard: ShardId) -> PoolKey {
        (shard, self.role, Rc::clone(&self.user))
    }
}

/// The right to hold connections of several shards; given back when dropped.
#[derive(Debug)]
pub struct Ticket(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// One more in the queue, until it is dropped.
struct Queued<'a>(&'a Cell<usize>);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[derive(Debug)]
pub struct Pools {
    limits: PoolLimits,
    /// As many as a pool has connections, so that no transaction waits for a connection that
    /// another one holds which waits itself.
    admission: Arc<Semaphore>,
    /// Connections apart from the pools ([`Self::open_apart`]).
    apart: Arc<Semaphore>,
    /// Transactions that wait to be admitted.
    queued: Cell<usize>,
    pools: RefCell<HashMap<PoolKey, Pool>>,
    dialer: Arc<Dialer>,
    proofs: Arc<Proofs>,
}

#[derive(Debug, Default)]
struct Pool {
    /// The oldest connection last, and taken first: the same few stay hot, in the caches of this
    /// machine and of the shard's. A plain stack would shuffle them all evenly.
    idle: Vec<Server>,
    /// Idle, checked out and being opened.
    total: usize,
    waiting: VecDeque<oneshot::Sender<Server>>,
    /// After a failed connect: nobody tries before then, so a dead shard costs its users an error
    /// at once and not a timeout each.
    closed_until: Option<Instant>,
}

/// Figures for `SHOW POOLS` and metrics.
#[derive(Debug, Clone)]
pub struct PoolFigures {
    pub shard: ShardId,
    pub user: Box<str>,
    pub idle: usize,
    pub active: usize,
    pub waiting: usize,
}

/// One connection apart for so many in a pool.
const APART: usize = 4;

/// How long a shard that refused a connection is left alone.
const BREAK: Duration = Duration::from_millis(500);

impl Pools {
    #[must_use]
    pub fn new(limits: PoolLimits, dialer: Arc<Dialer>, proofs: Arc<Proofs>) -> Self {
        let admission = Arc::new(Semaphore::new(limits.size));
        let apart = Arc::new(Semaphore::new((limits.size / APART).max(1)));
        Self {
            limits,
            admission,
            apart,
            queued: Cell::new(0),
            pools: RefCell::default(),
            dialer,
            proofs,
        }
    }

    /// As [`Self::admit`], if nobody has to be waited for.
    #[must_use]
    pub fn try_admit(&self) -> Option<Ticket> {
        Arc::clone(&self.admission).try_acquire_owned().ok().map(Ticket)
    }

    /// Admits work that may hold connections of several shards at once: a transaction, or a
    /// statement on many shards. To be had before its first connection and kept until it has given
    /// all back. At most as many are admitted as one pool has connections; so each of them finds
    /// one on any shard, or waits for single statements only, which end by themselves.
    ///
    /// # Errors
    /// 53300 when the queue is full or the deadline has passed.
    pub async fn admit(&self) -> Result<Ticket, ErrorInfo> {
        if self.queued.get() >= self.limits.waiting_max {
            return Err(not_admitted("the queue is full"));
        }
        self.queued.set(self.queued.get() + 1);
        let _queued = Queued(&self.queued);
        let admitted = Arc::clone(&self.admission).acquire_owned();
        match tokio::time::timeout(self.limits.wait, admitted).await {
            Ok(Ok(permit)) => Ok(Ticket(permit)),
            Ok(Err(_)) | Err(_) => Err(not_admitted("none ended in time")),
        }
    }

    /// A connection of its own, outside of the pool: whoever has it closes it. To be opened after
    /// all others that its owner needs, so that nobody waits for it in a circle.
    ///
    /// # Errors
    /// As [`Self::checkout`].
    pub async fn open_apart(
        &self,
        shard: ShardId,
        login: &Login,
        map: &ShardMap,
    ) -> Result<(Server, Ticket), ErrorInfo> {
        let permit = Arc::clone(&self.apart).acquire_owned();
        let permit = match tokio::time::timeout(self.limits.wait, permit).await {
            Ok(Ok(permit)) => Ticket(permit),
            Ok(Err(_)) | Err(_) => {
                return Err(too_many(shard, "too many statements copy rows to it"));
            }
        };
        let dsn = map.shard(shard).map(|shard| &*shard.dsn);
        let dsn = dsn.ok_or_else(|| unreachable(shard, "it is not in the shard map"))?;
        let connecting = self.connect(shard, dsn, login, map.epoch);
        match tokio::time::timeout(self.limits.connect, connecting).await {
            Ok(opened) => {
                let mut server = opened?;
                server.apart = true;
                Ok((server, permit))
            }
            Err(_) => Err(unreachable(shard, "it did not answer in time")),
        }
    }

    /// A clean server connection of the shard, if one is idle.
    #[must_use]
    pub fn idle(&self, shard: ShardId, login: &Login) -> Option<Server> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&login.pool(shard))?;
        while let Some(mut server) = pool.idle.pop() {
            if server.is_quiet() {
                return Some(server);
            }
            pool.total -= 1;
        }
        None
    }

    /// The idle connection with this process id, if it is there and the session was the last to
    /// use it.
    #[must_use]
    pub fn idle_again(&self, shard: ShardId, login: &Login, pid: i32, user: u32) -> Option<Server> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&login.pool(shard))?;
        let ours = |server: &Server| server.pid == pid && server.last_user == user;
        let at = pool.idle.iter().position(ours)?;
        let mut server = pool.idle.remove(at);
        if server.is_quiet() {
            return Some(server);
        }
        pool.total -= 1;
        None
    }

    /// A clean server connection of the shard, opened if need be.
    ///
    /// Not cancel safe in one point: a connection being opened is lost, never leaked.
    ///
    /// # Errors
    /// 53300 when none came free in time, 08006 when the shard cannot be reached, or the shard's
    /// own error.
    pub async fn checkout(
        self: &Rc<Self>,
        shard: ShardId,
        login: &Login,
        map: &ShardMap,
    ) -> Result<Server, ErrorInfo> {
        if let Some(server) = self.idle(shard, login) {
            return Ok(server);
        }
        let key = login.pool(shard);
        let waiter = {
            let mut pools = self.pools.borrow_mut();
            let pool = pools.entry(key.clone()).or_default();
            if pool.total < self.limits.size {
                if let Some(until) = pool.closed_until {
                    if Instant::now() < until {
                        return Err(unreachable(shard, "it did not answer a moment ago"));
                    }
                    pool.closed_until = None;
                }
                pool.total += 1;
                None
            } else if pool.waiting.len() >= self.limits.waiting_max {
                return Err(too_many(shard, "the queue for its connections is full"));
            } else {
                let (sender, receiver) = oneshot::channel();
                pool.waiting.push_back(sender);
                Some(receiver)
            }
        };
        match waiter {
            None => self.open(key, login, map).await,
            Some(receiver) => {
                let mut waiting = Waiting { pools: self, login, receiver };
                match tokio::time::timeout(self.limits.wait, &mut waiting.receiver).await {
                    Ok(Ok(server)) => Ok(server),
                    // The sender is dropped when a place came free without a connection.
                    Ok(Err(_)) => Box::pin(self.checkout(shard, login, map)).await,
                    Err(_) => Err(too_many(shard, "no connection came free in time")),
                }
            }
        }
    }

    async fn open(
        self: &Rc<Self>,
        key: PoolKey,
        login: &Login,
        map: &ShardMap,
    ) -> Result<Server, ErrorInfo> {
        let shard = key.0;
        let place = Place { pools: Rc::clone(self), key: Some(key) };
        let dsn = map
            .shard(shard)
            .map(|shard| shard.dsn.clone())
            .ok_or_else(|| unreachable(shard, "it is not in the shard map"))?;
        let connecting = self.connect(shard, &dsn, login, map.epoch);
        let opened = match tokio::time::timeout(self.limits.connect, connecting).await {
            Ok(opened) => opened,
            Err(_) => Err(unreachable(shard, "it did not answer in time")),
        };
        match opened {
            Ok(server) => {
                place.keep();
                Ok(server)
            }
            Err(error) => {
                if error.sqlstate.starts_with("08")
                    && let Some(pool) = self.pools.borrow_mut().get_mut(&login.pool(shard))
                {
                    pool.closed_until = Some(Instant::now() + BREAK);
                }
                Err(error)
            }
        }
    }

    async fn connect(
        &self,
        shard: ShardId,
        dsn: &str,
        login: &Login,
        epoch: Epoch,
    ) -> Result<Server, ErrorInfo> {
        let mut server = connect::connect(&self.dialer, &self.proofs, shard, dsn, login).await?;
        connect::check_epoch(&mut server, epoch).await?;
        Ok(server)
    }

    /// Takes a connection back: to the first who waits, or to the idle ones. One that is not clean
    /// is closed, and one that was opened apart is none of the pool's.
    pub fn give_back(&self, login: &Login, mut server: Server) {
        if server.apart {
            return;
        }
        let mut pools = self.pools.borrow_mut();
        let Some(pool) = pools.get_mut(&login.pool(server.shard)) else { return };
        if !server.is_clean() {
            pool.total -= 1;
            drop(server);
            // A place is free: the first in the queue opens a connection of its own.
            drop(pool.waiting.pop_front());
            return;
        }
        while let Some(waiter) = pool.waiting.pop_front() {
            match waiter.send(server) {
                Ok(()) => return,
                Err(back) => server = back,
            }
        }
        server.idle_since = Instant::now();
        let at = pool.idle.partition_point(|other| other.opened > server.opened);
        pool.idle.insert(at, server);
    }

    /// A session has ended. A role with a connection limit keeps no more server connections than it
    /// has sessions, since the shards count them: what its last session left may be what its next
    /// one, on another thread, is refused for.
    pub fn leave(&self, login: &Login) {
        if login.seat.is_none() {
            return;
        }
        let mut pools = self.pools.borrow_mut();
        let theirs = pools.iter_mut().filter(|((_, role, _), _)| role.oid == login.role.oid);
        for (_, pool) in theirs {
            pool.total -= pool.idle.len();
            pool.idle.clear();
        }
    }

    /// Closes connections that have been idle for too long, and forgets pools that have none:
    /// roles come and go. Called once in a while.
    pub fn sweep(&self, now: Instant) {
        let mut pools = self.pools.borrow_mut();
        for pool in pools.values_mut() {
            let before = pool.idle.len();
            pool.idle.retain(|server| now.duration_since(server.idle_since) < self.limits.idle);
            pool.total -= before - pool.idle.len();
        }
        pools.retain(|_, pool| pool.total > 0 || !pool.waiting.is_empty());
    }

    #[must_use]
    pub fn figures(&self) -> Vec<PoolFigures> {
        let pools = self.pools.borrow();
        let figures = pools.iter().map(|((shard, _, user), pool)| PoolFigures {
            shard: *shard,
            user: (**user).into(),
            idle: pool.idle.len(),
            active: pool.total - pool.idle.len(),
            waiting: pool.waiting.len(),
        });
        figures.collect()
    }
}

/// A session in the queue. A connection that arrives as it leaves goes back to its pool.
struct Waiting<'a> {
    pools: &'a Pools,
    login: &'a Login,
    receiver: oneshot::Receiver<Server>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(server) = self.receiver.try_recv() {
            self.pools.give_back(self.login, server);
        }
    }
}

/// A place in a pool that is held while a connection is opened; freed on drop unless kept.
struct Place {
    pools: Rc<Pools>,
    key: Option<PoolKey>,
}

impl Place {
    fn keep(mut self) {
        self.key = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(key) = self.key.take()
            && let Some(pool) = self.pools.pools.borrow_mut().get_mut(&key)
        {
            pool.total -= 1;
            drop(pool.waiting.pop_front());
        }
    }
}

pub(crate) fn unreachable(shard: ShardId, why: &str) -> ErrorInfo {
    ErrorInfo::new("08006", format!("shard {shard} cannot be reached: {why}"))
        .hint("Statements that do not need this shard go on. See \"pgherd status\".")
}

fn not_admitted(why: &str) -> ErrorInfo {
    ErrorInfo::new("53300", format!("too many open transactions: {why}"))
        .hint("Raise [pool] size or wait in the router's configuration, or shorten transactions.")
}

fn too_many(shard: ShardId, why: &str) -> ErrorInfo {
    ErrorInfo::new("53300", format!("too many connections for shard {shard}: {why}"))
        .hint("Raise [pool] size or wait in the router's configuration, or shorten transactions.")
}
