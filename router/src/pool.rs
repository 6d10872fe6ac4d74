//! Server connections of one worker thread: bounded per shard and user, first come first served.
//!
//! Each worker owns its share of the connections, so nothing here is locked or shared. A session
//! checks a [`Server`] out for a transaction and gives it back; one that is not clean (a
//! transaction, a COPY, a cancel on its way) is closed instead.
//!
//! - `open`: whoever finds no idle connection queues; connections are opened for the queue, a few
//!   at a time, and go to its first. A storm of clients is a queue, not a storm on the shard.
//! - `upkeep`: what ends connections (idle, too old) and what is kept warm.
//! - `hold`: PAUSE, RESUME, RECONNECT.
//! - `lend`: places and idle connections that move to the worker that needs them.
//! - `admit`: the right to hold connections of several shards at once.
//! - `apart`: connections outside of the pools, for copies of rows.

mod admit;
mod apart;
pub mod connect;
mod hold;
pub mod lend;
mod open;
pub mod server;
#[cfg(test)]
mod tests;
mod upkeep;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use pgherd_shard_map::{Epoch, ShardId, ShardMap};
use tokio::sync::{Notify, Semaphore, oneshot, watch};

use crate::dial::Dialer;
use crate::error::ErrorInfo;
use crate::proofs::{Proof, Proofs};
use crate::seats::Seat;
use crate::telemetry::{Traffic, WorkerMetrics};
use crate::verifiers::RoleVersion;
pub use admit::Ticket;
pub use apart::Apart;
pub use server::{DISMISSED, Server};

/// Limits of each pool (one shard, one user, one worker).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    pub size: usize,
    /// Connections that are kept open while a client of the user is connected.
    pub min_size: usize,
    /// How long a session waits for a connection.
    pub wait: Duration,
    /// How long it waits while an operator has paused the shard.
    pub pause_wait: Duration,
    pub waiting_max: usize,
    pub connect: Duration,
    pub idle: Duration,
    /// A connection older than this is not used again; less a few percent by chance, so that not
    /// all end at once.
    pub lifetime: Option<Duration>,
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

    /// For the pool's own use: it does not count as a session.
    fn unseated(&self) -> Self {
        Self { seat: None, ..self.clone() }
    }
}

/// How long a new connection waits for this router to hear of a change that its shard has heard of:
/// less than whoever wants the connection waits by default, so that they are told the reason.
const MAP_WAIT: Duration = Duration::from_secs(2);

/// This router as the shards know it.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Of this process alone.
    pub id: Arc<str>,
    /// The epoch of its map: a shard whose rows have moved since is not to be read.
    pub loaded: watch::Receiver<u64>,
}

#[derive(Debug)]
pub struct Pools {
    limits: Cell<PoolLimits>,
    /// As many as a pool has connections, so that no transaction waits for a connection that
    /// another one holds which waits itself. One for each worker; this one's is at `index`.
    admissions: Arc<[Arc<Semaphore>]>,
    index: usize,
    /// Transactions that wait to be admitted.
    queued: Cell<usize>,
    pools: RefCell<HashMap<PoolKey, Pool>>,
    doors: RefCell<HashMap<ShardId, Door>>,
    /// Raised by PAUSE and RECONNECT, on all workers alike.
    generation: Cell<u32>,
    /// Told by RESUME.
    resumed: Notify,
    /// Told when a queue has formed although all places are taken: neighbours may have some.
    pub hungry: Notify,
    opened: Cell<u64>,
    refused: Cell<u64>,
    /// Connections apart from the pools ([`Self::open_apart`]).
    apart: Arc<Semaphore>,
    dialer: Arc<Dialer>,
    proofs: Arc<Proofs>,
    metrics: Arc<WorkerMetrics>,
    router: Membership,
}

#[derive(Debug)]
struct Pool {
    /// The oldest connection last, and taken first: the same few stay hot, in the caches of this
    /// machine and of the shard's. A plain stack would shuffle them all evenly.
    idle: Vec<Idle>,
    /// Idle, checked out and being opened.
    total: usize,
    /// Of `total`: being opened.
    opening: usize,
    /// Places above the worker's share: negative where some were lent to a neighbour.
    extra: isize,
    waiting: VecDeque<Waiter>,
    /// Connections of an older generation are not used again.
    since: u32,
    /// The shard is paused: what comes back is closed.
    held: bool,
    /// Of the client that came last, for what is opened when nobody waits; only while a client is
    /// there: nobody's proof outlives his session.
    login: Option<Login>,
}

/// A connection that nobody uses.
#[derive(Debug)]
struct Idle {
    server: Server,
    since: Instant,
}

/// A session in the queue.
#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Result<Server, ErrorInfo>>,
    login: Login,
    since: Instant,
    /// Of the transaction that it belongs to, if it is admitted.
    ticket: Option<u32>,
}

/// What all pools of one shard have in common.
#[derive(Debug)]
struct Door {
    dsn: Rc<str>,
    /// Connections being opened, over all users.
    opening: usize,
    /// Somebody could not open one because so many were.
    starved: bool,
    /// After a failed connect: nobody tries before then, so a dead shard costs its users an error
    /// at once and not a timeout each.
    closed_until: Option<Instant>,
    /// It is closed since nobody answered, so that connections at work will not come back either.
    dead: bool,
    /// Paused, at this generation.
    paused: Option<u32>,
    /// Connections outside of the pools.
    apart: Rc<Cell<usize>>,
}

/// Figures for `SHOW POOLS` and metrics.
#[derive(Debug, Clone)]
pub struct PoolFigures {
    pub shard: ShardId,
    pub user: Box<str>,
    pub idle: usize,
    pub active: usize,
    pub opening: usize,
    pub waiting: usize,
    /// How long the first in the queue has waited.
    pub longest: Duration,
    pub size: usize,
    pub paused: bool,
}

impl PoolFigures {
    /// Adds those of the same pool on another worker.
    pub fn add(&mut self, other: &Self) {
        self.idle += other.idle;
        self.active += other.active;
        self.opening += other.opening;
        self.waiting += other.waiting;
        self.longest = self.longest.max(other.longest);
        self.size += other.size;
        self.paused |= other.paused;
    }
}

impl Pools {
    #[must_use]
    pub fn new(
        limits: PoolLimits,
        index: usize,
        admissions: Arc<[Arc<Semaphore>]>,
        dialer: Arc<Dialer>,
        proofs: Arc<Proofs>,
        metrics: Arc<WorkerMetrics>,
        router: Membership,
    ) -> Self {
        Self {
            limits: Cell::new(limits),
            admissions,
            index,
            queued: Cell::new(0),
            pools: RefCell::default(),
            doors: RefCell::default(),
            generation: Cell::new(0),
            resumed: Notify::new(),
            hungry: Notify::new(),
            opened: Cell::new(0),
            refused: Cell::new(0),
            apart: Arc::new(Semaphore::new(apart::places(&limits))),
            dialer,
            proofs,
            metrics,
            router,
        }
    }

    /// A clean server connection of the shard, if one is idle.
    #[must_use]
    pub fn idle(&self, shard: ShardId, login: &Login) -> Option<Server> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&login.pool(shard))?;
        while let Some(Idle { mut server, .. }) = pool.idle.pop() {
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
        let ours = |idle: &Idle| idle.server.pid == pid && idle.server.last_user == user;
        let at = pool.idle.iter().position(ours)?;
        let mut server = pool.idle.remove(at).server;
        if server.is_quiet() {
            return Some(server);
        }
        pool.total -= 1;
        None
    }

    /// A clean server connection of the shard, opened if need be. Whoever finds none idle waits
    /// behind those who wait already: nobody can pass them, since what comes free goes to the
    /// first of them and is never idle while they are there. Cancel safe: a connection that
    /// arrives too late goes back to its pool.
    ///
    /// # Errors
    /// 53300 when none came free in time, 08006 when the shard cannot be reached, or the shard's
    /// own error.
    pub async fn checkout(
        self: &Rc<Self>,
        shard: ShardId,
        login: &Login,
        map: &ShardMap,
        ticket: Option<&Ticket>,
    ) -> Result<Server, ErrorInfo> {
        if let Some(server) = self.idle(shard, login) {
            return Ok(server);
        }
        let dsn = map
            .shard(shard)
            .map(|shard| &*shard.dsn)
            .ok_or_else(|| unreachable(shard, "it is not in the shard map"))?;
        let since = Instant::now();
        let receiver = self.queue_up(shard, login, dsn, since, ticket)?;
        let mut waiting = Waiting { pools: self, login, receiver };
        loop {
            let wait = self.patience(self.is_paused(shard)).saturating_sub(since.elapsed());
            match tokio::time::timeout(wait, &mut waiting.receiver).await {
                Ok(Ok(answer)) => return answer,
                // A PAUSE began while it waited.
                Err(_) if since.elapsed() < self.patience(self.is_paused(shard)) => {}
                Ok(Err(_)) | Err(_) => {
                    return Err(match self.is_paused(shard) {
                        true => too_many(shard, "it is paused and was not resumed in time"),
                        false => too_many(shard, "no connection came free in time"),
                    });
                }
            }
        }
    }

    fn queue_up(
        self: &Rc<Self>,
        shard: ShardId,
        login: &Login,
        dsn: &str,
        now: Instant,
        ticket: Option<&Ticket>,
    ) -> Result<oneshot::Receiver<Result<Server, ErrorInfo>>, ErrorInfo> {
        self.know(shard, dsn);
        let key = login.pool(shard);
        let limits = self.limits.get();
        let (sender, receiver) = oneshot::channel();
        {
            let doors = self.doors.borrow();
            let door = doors.get(&shard);
            let paused = door.is_some_and(|door| door.paused.is_some());
            let closed = door.is_some_and(|door| door.is_closed(now));
            let mut pools = self.pools.borrow_mut();
            let pool = pools
                .entry(key.clone())
                .or_insert_with(|| Pool::new(self.generation.get(), paused));
            pool.waiting.retain(|waiter| !waiter.answer.is_closed());
            let dead = door.is_some_and(|door| door.dead);
            if closed && (dead || pool.total == pool.opening) && !paused {
                return Err(unreachable(shard, "it did not answer a moment ago"));
            }
            if pool.waiting.len() >= limits.waiting_max && pool.is_full(&limits) && !paused {
                return Err(too_many(shard, "the queue for its connections is full"));
            }
            pool.login = Some(login.unseated());
            pool.waiting.push_back(Waiter {
                answer: sender,
                login: login.unseated(),
                since: now,
                ticket: ticket.map(|ticket| ticket.generation),
            });
        }
        self.open_for_queue(&key);
        Ok(receiver)
    }

    async fn connect(&self, shard: ShardId, dsn: &str, login: &Login) -> Result<Server, ErrorInfo> {
        let mut server = connect::connect(&self.dialer, &self.proofs, shard, dsn, login).await?;
        let mut loaded = self.router.loaded.clone();
        loop {
            let ours = *loaded.borrow_and_update();
            let theirs = connect::enter(&mut server, &self.router.id, Epoch(ours)).await?;
            if theirs.0 <= ours {
                return Ok(server);
            }
            // It was told before us.
            let newer = loaded.wait_for(|epoch| *epoch >= theirs.0);
            if !matches!(tokio::time::timeout(MAP_WAIT, newer).await, Ok(Ok(_))) {
                return Err(unreachable(shard, "this router has not heard of its latest change"));
            }
        }
    }

    /// Takes a connection back: to the first who waits, or to the idle ones. One that is not clean
    /// or has served its time is closed, and another is opened if somebody waits.
    pub fn give_back(self: &Rc<Self>, login: &Login, mut server: Server) {
        self.count(&mut server);
        if server.apart.is_some() {
            // It was never a pool's.
            return;
        }
        self.take_back(&login.pool(server.shard), server);
    }

    /// Has the metrics know what went over a connection since it was counted last.
    pub fn count(&self, server: &mut Server) {
        let traffic = std::mem::take(&mut server.traffic);
        if traffic != Traffic::default() {
            self.metrics.traffic(server.shard, traffic);
        }
    }

    fn take_back(self: &Rc<Self>, key: &PoolKey, server: Server) {
        let mut pools = self.pools.borrow_mut();
        let Some(pool) = pools.get_mut(key) else { return };
        let now = Instant::now();
        let usable = server.is_clean()
            && server.generation >= pool.since
            && !pool.held
            && !server.is_old(now);
        if !usable || pool.total > pool.places(self.limits.get().size) {
            pool.total -= 1;
            drop(server);
            if !pool.waiting.is_empty() {
                drop(pools);
                self.open_for_queue(key);
            }
            return;
        }
        if let Some(server) = pool.serve_first(server) {
            pool.keep_idle(server, now);
        }
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

    /// How long a session waits.
    fn patience(&self, paused: bool) -> Duration {
        let limits = self.limits.get();
        if paused { limits.pause_wait.max(limits.wait) } else { limits.wait }
    }
}

impl Pool {
    fn new(since: u32, held: bool) -> Self {
        Self {
            idle: Vec::new(),
            total: 0,
            opening: 0,
            extra: 0,
            waiting: VecDeque::new(),
            since,
            held,
            login: None,
        }
    }

    fn places(&self, share: usize) -> usize {
        share.saturating_add_signed(self.extra)
    }

    fn is_full(&self, limits: &PoolLimits) -> bool {
        self.total >= self.places(limits.size)
    }

    /// Hands a connection to the first who waits; back, if nobody does.
    fn serve_first(&mut self, mut server: Server) -> Option<Server> {
        while let Some(waiter) = self.waiting.pop_front() {
            match waiter.answer.send(Ok(server)) {
                Ok(()) => return None,
                Err(Ok(back)) => server = back,
                Err(Err(_)) => return None,
            }
        }
        Some(server)
    }

    fn keep_idle(&mut self, server: Server, now: Instant) {
        let at = self.idle.partition_point(|other| other.server.opened > server.opened);
        self.idle.insert(at, Idle { server, since: now });
    }
}

/// A session in the queue. A connection that arrives as it leaves goes back to its pool.
struct Waiting<'a> {
    pools: &'a Rc<Pools>,
    login: &'a Login,
    receiver: oneshot::Receiver<Result<Server, ErrorInfo>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(Ok(server)) = self.receiver.try_recv() {
            self.pools.give_back(self.login, server);
        }
    }
}

pub(crate) fn unreachable(shard: ShardId, why: &str) -> ErrorInfo {
    ErrorInfo::new("08006", format!("shard {shard} cannot be reached: {why}"))
        .hint("Statements that do not need this shard go on. See \"pgherd status\".")
}

fn too_many(shard: ShardId, why: &str) -> ErrorInfo {
    ErrorInfo::new("53300", format!("too many connections for shard {shard}: {why}"))
        .hint("Raise [pool] size or wait in the router's configuration, or shorten transactions.")
}
