//! What the sessions of one worker thread share: pools, plans, the map, cancel keys, counters.
//!
//! A worker is one OS thread with its own runtime; nothing here is shared with another thread but
//! the map (an `ArcSwap`), the counters (written by one thread, read by others) and the mailbox.

mod inside;
mod live;
mod outside;
pub mod plans;
pub mod presence;
mod shared;
pub mod statements;
mod summary;
pub mod usage;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use foldhash::{HashMap, HashSet};
use pgherd_planner::Scan;
use pgherd_shard_map::{ShardId, ShardMap};
use smallvec::SmallVec;
use subtle::ConstantTimeEq;

use crate::oids::{self, Oids};
use crate::pool::{Login, Membership, Pools};
use crate::session::Settings;
use crate::session::foreign::Found;
use crate::telemetry::WorkerMetrics;
pub use inside::{ClientFigures, People, ServerFigures};
pub use live::{Live, Phase};
pub use plans::{Planning, Plans};
use presence::Presence;
use shared::WarmUsers;
pub use shared::{Mail, Shared, WorkerFigures, WorkerSettings};
use statements::Statements;

/// Above this, settings that nobody has any more are forgotten.
const SETTINGS_MAX: usize = 1024;

/// A cancel key's secret in bytes, where the protocol does not fix it at four.
const SECRET_MAX: usize = 32;

/// For so long after it was sent, a BEGIN may be at work still.
pub const JOIN_MAX: Duration = Duration::from_millis(500);

pub struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub pools: Rc<Pools>,
    pub plans: RefCell<Plans>,
    pub statements: RefCell<Statements>,
    settings: RefCell<HashSet<Rc<Settings>>>,
    pub oids: Oids,
    /// Reused from statement to statement.
    pub scan: RefCell<Scan>,
    pub metrics: Arc<WorkerMetrics>,
    map: RefCell<arc_swap::Cache<MapRef, Arc<ShardMap>>>,
    sessions: RefCell<HashMap<u32, Weak<Cancel>>>,
    next_session: Cell<u32>,
    pub live: RefCell<Arc<Live>>,
    phase: Cell<Phase>,
    /// As the roles are now: see [`Live::warm_users`].
    warm: RefCell<WarmUsers>,
    lent: Cell<u64>,
    background: Rc<Cell<usize>>,
}

/// So that the cache can own its way to the map.
#[derive(Debug, Clone)]
struct MapRef(Arc<Shared>);

impl std::ops::Deref for MapRef {
    type Target = ArcSwap<ShardMap>;

    fn deref(&self) -> &ArcSwap<ShardMap> {
        &self.0.map
    }
}

/// What a CancelRequest for one session must reach.
#[derive(Debug)]
pub struct Cancel {
    pub pid: u32,
    secret: [u8; SECRET_MAX],
    /// How much of it the client's protocol version takes.
    secret_size: usize,
    /// Servers that work for the session now: address, pid, secret.
    pub servers: RefCell<SmallVec<[CancelTarget; 2]>>,
    /// Changes with every statement that needs a server.
    pub turn: Cell<u32>,
    /// When a server was last told to join the open transaction.
    pub joined: Cell<Option<Instant>>,
    /// Chosen to give way in a deadlock: the error that follows is that one.
    pub deadlock: Cell<bool>,
    /// A cancel was sent while these servers worked: they are not used again, since it may arrive
    /// late and hit somebody else's statement.
    pub sent: Cell<bool>,
    pub presence: Presence,
}

/// A server that works for a session.
#[derive(Debug, Clone, Copy)]
pub struct CancelTarget {
    pub shard: ShardId,
    pub address: SocketAddr,
    pub pid: i32,
    pub secret: i32,
}

/// A session that holds connections to several shards.
#[derive(Debug)]
pub struct MovingSession {
    /// The process number that its client was told.
    pub key: u32,
    pub turn: u32,
    /// Shards and server processes.
    pub servers: Box<[(ShardId, i32)]>,
}

impl AsRef<Presence> for Cancel {
    fn as_ref(&self) -> &Presence {
        &self.presence
    }
}

impl Cancel {
    /// What proves that a request comes from the session's client.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.secret[..self.secret_size]
    }

    /// This error of a server is what has become of a deadlock's victim: to its client,
    /// [`ErrorInfo::deadlock`](crate::error::ErrorInfo::deadlock).
    #[must_use]
    pub fn is_deadlock(&self, sqlstate: [u8; 5]) -> bool {
        self.deadlock.get() && sqlstate == *b"57014"
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Worker {
    /// Whether rows are being moved, as far as this router has heard: by the newest map, and not
    /// only by that of a transaction.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        !self.shared.map.load().moving.is_empty()
    }

    #[must_use]
    pub fn new(index: usize, shared: Arc<Shared>, metrics: Arc<WorkerMetrics>) -> Self {
        let live = shared.live.load_full();
        Self {
            index,
            pools: Rc::new(Pools::new(
                live.share(shared.settings.workers),
                index,
                Arc::clone(&shared.admissions),
                Arc::clone(&shared.dialer),
                Arc::clone(&shared.proofs),
                Arc::clone(&metrics),
                Membership { id: Arc::clone(&shared.id), loaded: shared.loaded.subscribe() },
            )),
            plans: RefCell::default(),
            statements: RefCell::default(),
            settings: RefCell::default(),
            oids: Oids::default(),
            scan: RefCell::default(),
            metrics,
            map: RefCell::new(arc_swap::Cache::new(MapRef(Arc::clone(&shared)))),
            shared,
            sessions: RefCell::default(),
            next_session: Cell::new(1),
            live: RefCell::new(live),
            phase: Cell::new(Phase::Serving),
            warm: RefCell::new([].into()),
            lent: Cell::new(0),
            background: Rc::default(),
        }
    }

    /// The newest map that this router has loaded.
    #[must_use]
    pub fn map(&self) -> Arc<ShardMap> {
        Arc::clone(self.map.borrow_mut().load())
    }

    /// Whether `map` still is the newest.
    #[must_use]
    pub fn is_newest(&self, map: &Arc<ShardMap>) -> bool {
        Arc::ptr_eq(self.map.borrow_mut().load(), map)
    }

    /// Learns the home shard's numbers of a shard's types and tables. Where they cannot be had, the
    /// client is told the shard's own.
    pub async fn find_oids(&self, map: &ShardMap, shard: ShardId, unknown: &oids::Unknown) {
        let found = self.ask_oids(map, shard, map.home, unknown.clone()).await;
        self.oids.learn(shard, &found.unwrap_or_default());
    }

    /// The numbers of one shard as they are on another.
    pub async fn ask_oids(
        &self,
        map: &ShardMap,
        from: ShardId,
        to: ShardId,
        wanted: oids::Unknown,
    ) -> Option<Vec<Found>> {
        let dsn = |shard| {
            let known = map.shard(shard).map_or("", |shard| &*shard.dsn);
            self.shared.settings.catalog.login_for(known)
        };
        let (from, to) = (dsn(from), dsn(to));
        let dialer = Arc::clone(&self.shared.dialer);
        let asked = async move { oids::find(&dialer, &from, &to, &wanted).await };
        match self.shared.control.spawn(asked).await {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                tracing::warn!(%error, "numbers of types cannot be looked up");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "numbers of types cannot be looked up");
                None
            }
        }
    }

    /// One value for all sessions and servers with the same settings, so that "does this server
    /// have what the client set" is a comparison of two pointers.
    pub fn intern(&self, settings: Settings) -> Rc<Settings> {
        let mut known = self.settings.borrow_mut();
        if let Some(known) = known.get(&settings) {
            return Rc::clone(known);
        }
        if known.len() >= SETTINGS_MAX {
            known.retain(|settings| Rc::strong_count(settings) > 1);
        }
        let settings = Rc::new(settings);
        known.insert(Rc::clone(&settings));
        settings
    }

    /// Registers a session for CancelRequest: its key names the worker in its low bits.
    pub fn register(&self, login: &Login, peer: Option<SocketAddr>, long_key: bool) -> Rc<Cancel> {
        let mut sessions = self.sessions.borrow_mut();
        let number = loop {
            let number = self.next_session.get();
            self.next_session.set((number + 1) & 0x007f_ffff);
            if !sessions.contains_key(&number) {
                break number;
            }
        };
        let mut secret = [0; SECRET_MAX];
        for part in secret.chunks_exact_mut(8) {
            part.copy_from_slice(&self.random_u64().to_ne_bytes());
        }
        let cancel = Rc::new(Cancel {
            pid: (number << 8) | self.index as u32,
            secret,
            secret_size: if long_key { SECRET_MAX } else { 4 },
            servers: RefCell::default(),
            turn: Cell::new(0),
            joined: Cell::new(None),
            deadlock: Cell::new(false),
            sent: Cell::new(false),
            presence: Presence::new(login, peer),
        });
        sessions.insert(number, Rc::downgrade(&cancel));
        cancel
    }

    pub fn unregister(&self, cancel: &Cancel) {
        self.sessions.borrow_mut().remove(&(cancel.pid >> 8));
    }

    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.borrow().len()
    }

    #[must_use]
    pub fn figures(&self) -> WorkerFigures {
        let plans = self.plans.borrow();
        WorkerFigures {
            pools: self.pools.figures(),
            plan_hits: plans.hits + self.statements.borrow().hits,
            plan_misses: plans.misses,
            sessions: self.sessions(),
            opened: self.pools.connects().0,
            refused: self.pools.connects().1,
            queued: self.pools.queued(),
            lent: self.lent.get(),
            apart: self.pools.apart(),
            background: self.background.get(),
        }
    }

    /// The servers to cancel, if the key is right.
    #[must_use]
    pub fn cancel_targets(&self, pid: u32, secret: &[u8]) -> Vec<CancelTarget> {
        let sessions = self.sessions.borrow();
        match sessions.get(&(pid >> 8)).and_then(Weak::upgrade) {
            Some(cancel) if cancel.pid == pid && bool::from(cancel.secret().ct_eq(secret)) => {
                cancel.sent.set(true);
                cancel.servers.borrow().to_vec()
            }
            _ => Vec::new(),
        }
    }

    /// How long a cancel of the session must wait since a BEGIN may be at work still (a cancel
    /// would make it fail, and what comes behind it a transaction by itself), and how many messages
    /// had come by then.
    #[must_use]
    pub fn cancel_delay(&self, pid: u32) -> Option<(Duration, u64)> {
        let cancel = self.sessions.borrow().get(&(pid >> 8)).and_then(Weak::upgrade)?;
        let since = cancel.joined.get()?.elapsed();
        let delay = JOIN_MAX.checked_sub(since)?;
        Some((delay, cancel.presence.messages.get()))
    }

    /// Whether no further message of the session has been taken.
    #[must_use]
    pub fn is_at(&self, pid: u32, messages: u64) -> bool {
        let cancel = self.sessions.borrow().get(&(pid >> 8)).and_then(Weak::upgrade);
        cancel.is_some_and(|cancel| cancel.presence.messages.get() == messages)
    }

    /// Sessions that hold connections to several shards.
    #[must_use]
    pub fn moving_sessions(&self) -> Vec<MovingSession> {
        let sessions = self.sessions.borrow();
        let moving = sessions.values().filter_map(Weak::upgrade).filter_map(|cancel| {
            let servers = cancel.servers.borrow();
            let list = || servers.iter().map(|server| (server.shard, server.pid)).collect();
            let (key, turn) = (cancel.pid, cancel.turn.get());
            (servers.len() > 1).then(|| MovingSession { key, turn, servers: list() })
        });
        moving.collect()
    }

    /// Ends a session's statement in favour of others that wait for it, if it is the same still.
    pub fn end_deadlock(&self, session: u32, turn: u32, server: (ShardId, i32)) {
        let sessions = self.sessions.borrow();
        let Some(cancel) = sessions.get(&(session >> 8)).and_then(Weak::upgrade) else { return };
        let servers = cancel.servers.borrow();
        // Shards on several machines may well have processes of the same number.
        let target = servers.iter().find(|target| (target.shard, target.pid) == server);
        if let Some(target) = target.filter(|_| cancel.turn.get() == turn) {
            cancel.deadlock.set(true);
            cancel.sent.set(true);
            let CancelTarget { address, pid, secret, .. } = *target;
            self.background(send_cancel(address, pid, secret));
        }
    }

    /// From the system's random source: cancel keys must not be guessed, gids not repeat.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        if getrandom::fill(&mut bytes).is_err() {
            // Only a kernel without the call could get here; serve would have failed at start.
            tracing::error!("the system gives no random bytes");
        }
        u64::from_ne_bytes(bytes)
    }
}

/// Asks a server to cancel what the connection with this key runs.
pub async fn send_cancel(address: SocketAddr, pid: i32, secret: i32) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut packet = Vec::with_capacity(16);
    for word in [16, 80_877_102, pid, secret] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    let sending = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(&packet).await?;
        // The server closes the connection when it has passed the signal on.
        stream.read(&mut [0; 1]).await
    };
    match tokio::time::timeout(Duration::from_secs(5), sending).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%address, %error, "cancel request failed"),
        Err(_) => tracing::warn!(%address, "cancel request timed out"),
    }
}
