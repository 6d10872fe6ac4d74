//! What the sessions of one worker thread share: pools, plans, the map, cancel keys, counters.
//!
//! A worker is one OS thread with its own runtime; nothing here is shared with another thread but
//! the map (an `ArcSwap`), the counters (written by one thread, read by others) and the mailbox.

mod inside;
mod live;
mod outside;
pub mod plans;
pub mod seat;
pub mod statements;
mod summary;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::{HashMap, HashSet};
use pgherd_planner::Scan;
use pgherd_shard_map::{ShardId, ShardMap};
use smallvec::SmallVec;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use crate::config::{AuthMethod, Config, Dsn};
use crate::pool::lend::Want;
use crate::pool::server::Parcel;
use crate::pool::{PoolFigures, Pools};
use crate::recovery::ShardHealth;
use crate::scram::Verifier;
use crate::session::Settings;
use crate::telemetry::{Metrics, WorkerMetrics};
use crate::verifiers::{LookupError, Verifiers};
pub use inside::{ClientFigures, People, ServerFigures};
pub use live::{Live, Phase};
pub use plans::{Planning, Plans};
use seat::Seat;
use statements::Statements;

/// Above this, settings that nobody has any more are forgotten.
const SETTINGS_MAX: usize = 1024;

/// How long a worker is waited for when metrics are read.
const FIGURES_WAIT: Duration = Duration::from_secs(1);

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    pub map: ArcSwap<ShardMap>,
    /// Told when this router has changed the schema: load the map now.
    pub reload: Notify,
    /// The epoch that has been loaded last: sessions wait for it after a change of their own.
    pub loaded: watch::Sender<u64>,
    /// The runtime for work that is not on the hot path: verifiers, recovery.
    pub control: tokio::runtime::Handle,
    pub settings: WorkerSettings,
    pub verifiers: Verifiers,
    /// What recovery found at its last look.
    pub health: ArcSwap<Vec<ShardHealth>>,
    /// How each worker is reached, by its index.
    pub mailboxes: OnceLock<Vec<mpsc::Sender<Mail>>>,
    /// What can change while the router runs.
    pub live: ArcSwap<Live>,
    /// What the configuration said when it was read last.
    pub config: ArcSwap<Config>,
    /// Told to stop, and how.
    pub phase: watch::Sender<Phase>,
    /// Shards that an operator has paused.
    pub paused: ArcSwap<Vec<ShardId>>,
    /// Of the last PAUSE or RECONNECT: see [`Pools::renew`].
    pub generation: AtomicU32,
    pub metrics: Arc<Metrics>,
    /// New clients are refused.
    pub disabled: AtomicBool,
    /// Of each worker: transactions that may hold connections of several shards.
    pub admissions: Arc<[Arc<Semaphore>]>,
}

/// What the configuration says that sessions need.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    pub database: Box<str>,
    pub catalog: Dsn,
    pub router_name: Box<str>,
    pub trust: bool,
    pub workers: usize,
}

impl Shared {
    /// What all workers say of themselves; one that is too busy to answer is left out.
    pub async fn figures(&self) -> Vec<WorkerFigures> {
        self.ask(Mail::Figures).await
    }

    async fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Mail) -> Vec<T> {
        let mut answers = Vec::new();
        for mailbox in self.mailboxes.get().into_iter().flatten() {
            let (sender, answer) = oneshot::channel();
            if mailbox.try_send(question(sender)).is_ok()
                && let Ok(Ok(worker)) = tokio::time::timeout(FIGURES_WAIT, answer).await
            {
                answers.push(worker);
            }
        }
        answers
    }

    /// What the home shard holds of a role's password. For the control runtime.
    ///
    /// # Errors
    /// As [`Verifiers::lookup`].
    pub async fn verifier(&self, user: &str) -> Result<Option<Verifier>, LookupError> {
        self.verifiers.lookup(&self.home_dsn(), user).await
    }

    /// The home shard's address with the catalog's login.
    fn home_dsn(&self) -> String {
        let map = self.map.load();
        let home = map.shard(map.home).map_or("", |shard| &*shard.dsn);
        self.settings.catalog.login_for(home)
    }

    /// Passes a cancel request on to the worker that its key names.
    pub fn cancel(&self, pid: u32, secret: u32) {
        let worker = self.mailboxes.get().and_then(|boxes| boxes.get((pid & 0xff) as usize));
        if let Some(worker) = worker {
            // A full mailbox loses the request, as a busy network may.
            let _ = worker.try_send(Mail::Cancel { pid, secret });
        }
    }
}

impl WorkerSettings {
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self {
            catalog: config.catalog.clone(),
            database: config.database.as_str().into(),
            router_name: config.router_name.as_str().into(),
            trust: config.auth.method == AuthMethod::Trust,
            // The worker's index is the low byte of a cancel key.
            workers: config.workers.min(256),
        }
    }
}

/// What a worker is asked from outside.
#[derive(Debug)]
pub enum Mail {
    Client(std::net::TcpStream),
    Cancel {
        pid: u32,
        secret: u32,
    },
    Figures(oneshot::Sender<WorkerFigures>),
    People(oneshot::Sender<People>),
    /// Ends one client's session; answers whether there is such a client.
    Kill {
        pid: u32,
        answer: oneshot::Sender<bool>,
    },
    KillAll,
    Live(Arc<Live>),
    Phase(Phase),
    Pause {
        shards: Arc<[ShardId]>,
        generation: u32,
    },
    Resume {
        shards: Arc<[ShardId]>,
    },
    Renew {
        shards: Arc<[ShardId]>,
        generation: u32,
    },
    /// A neighbour's queue is long.
    Borrow {
        want: Want,
        from: usize,
    },
    Lent {
        want: Want,
        lent: Vec<Option<Parcel>>,
    },
}

/// What a worker says of itself for metrics.
#[derive(Debug)]
pub struct WorkerFigures {
    pub pools: Vec<PoolFigures>,
    pub plan_hits: u64,
    pub plan_misses: u64,
    pub sessions: usize,
    /// Server connections that were opened, and those that could not be.
    pub opened: u64,
    pub refused: u64,
    /// Transactions that wait to be admitted.
    pub queued: usize,
    /// Places that came from neighbours.
    pub borrowed: u64,
    /// What goes on after its client has left: rollbacks, cancels.
    pub background: usize,
}

pub struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub pools: Rc<Pools>,
    pub plans: RefCell<Plans>,
    pub statements: RefCell<Statements>,
    settings: RefCell<HashSet<Rc<Settings>>>,
    /// Reused from statement to statement.
    pub scan: RefCell<Scan>,
    pub metrics: Arc<WorkerMetrics>,
    pub tls: Option<crate::tls::Acceptor>,
    map: RefCell<arc_swap::Cache<MapRef, Arc<ShardMap>>>,
    sessions: RefCell<HashMap<u32, Weak<Cancel>>>,
    next_session: Cell<u32>,
    pub live: RefCell<Arc<Live>>,
    phase: Cell<Phase>,
    borrowed: Cell<u64>,
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
    pub secret: u32,
    /// Servers that work for the session now: address, pid, secret.
    pub servers: RefCell<SmallVec<[(SocketAddr, i32, i32); 2]>>,
    /// A cancel was sent while these servers worked: they are not used again, since it may arrive
    /// late and hit somebody else's statement.
    pub sent: Cell<bool>,
    pub seat: Seat,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Worker {
    #[must_use]
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        metrics: Arc<WorkerMetrics>,
        tls: Option<crate::tls::Acceptor>,
    ) -> Self {
        let live = shared.live.load_full();
        Self {
            index,
            pools: Rc::new(Pools::new(
                live.share(shared.settings.workers),
                index,
                Arc::clone(&shared.admissions),
            )),
            plans: RefCell::default(),
            statements: RefCell::default(),
            settings: RefCell::default(),
            scan: RefCell::default(),
            metrics,
            tls,
            map: RefCell::new(arc_swap::Cache::new(MapRef(Arc::clone(&shared)))),
            shared,
            sessions: RefCell::default(),
            next_session: Cell::new(1),
            live: RefCell::new(live),
            phase: Cell::new(Phase::Serving),
            borrowed: Cell::new(0),
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
    pub fn register(&self, user: &Rc<str>, peer: Option<SocketAddr>) -> Rc<Cancel> {
        let mut sessions = self.sessions.borrow_mut();
        let number = loop {
            let number = self.next_session.get();
            self.next_session.set((number + 1) & 0x007f_ffff);
            if !sessions.contains_key(&number) {
                break number;
            }
        };
        let cancel = Rc::new(Cancel {
            pid: (number << 8) | self.index as u32,
            secret: self.random_u64() as u32,
            servers: RefCell::default(),
            sent: Cell::new(false),
            seat: Seat::new(user, peer),
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
            borrowed: self.borrowed.get(),
            background: self.background.get(),
        }
    }

    /// The servers to cancel, if the key is right.
    #[must_use]
    pub fn cancel_targets(&self, pid: u32, secret: u32) -> Vec<(SocketAddr, i32, i32)> {
        let sessions = self.sessions.borrow();
        match sessions.get(&(pid >> 8)).and_then(Weak::upgrade) {
            Some(cancel) if cancel.pid == pid && cancel.secret == secret => {
                cancel.sent.set(true);
                cancel.servers.borrow().to_vec()
            }
            _ => Vec::new(),
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
