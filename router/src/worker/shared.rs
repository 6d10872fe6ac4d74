//! What all workers of a router share, and what they are asked by others: each has a mailbox.

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use pgherd_shard_map::{ShardId, ShardMap};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use super::usage::Usage;
use super::{Live, MovingSession, People, Phase};
use crate::client::Stream;
use crate::config::{Config, Dsn, PoolMode};
use crate::contact::CatalogContact;
use crate::dial::Dialer;
use crate::gate::Gate;
use crate::numbers::Numbers;
use crate::pool::PoolFigures;
use crate::pool::lend::Want;
use crate::pool::server::Parcel;
use crate::proofs::Proofs;
use crate::recovery::ShardHealth;
use crate::reshard;
use crate::seats::Seats;
use crate::telemetry::Metrics;
use crate::throttle::Throttle;
use crate::tls::server::Acceptor;
use crate::verifiers::{LookupError, Role, RoleVersion, Verifiers};

/// How long a worker is waited for when metrics are read.
const FIGURES_WAIT: Duration = Duration::from_secs(1);

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// Made for this process: its sessions on the shards carry it.
    pub id: Arc<str>,
    pub map: ArcSwap<ShardMap>,
    /// Told when this router has changed the schema: load the map now.
    pub reload: Notify,
    /// Whether the map at hand is the newest.
    pub contact: CatalogContact,
    /// The epoch of `map`, for those who wait for a newer one; [`Shared::take_map`] sets both.
    pub loaded: watch::Sender<u64>,
    /// The epoch that all routers have: sessions wait for it after a change of their own.
    pub known: watch::Sender<u64>,
    /// The runtime for work that is not on the hot path: verifiers, recovery.
    pub control: tokio::runtime::Handle,
    pub settings: WorkerSettings,
    pub verifiers: Verifiers,
    pub throttle: Throttle,
    /// Of roles with a connection limit.
    pub seats: Arc<Seats>,
    pub proofs: Arc<Proofs>,
    /// Of sequences, taken and not used yet.
    pub numbers: Numbers,
    /// Some session has asked `currval()` or `lastval()`: numbers of others must be gone by then.
    pub asks_numbers: AtomicBool,
    pub dialer: Arc<Dialer>,
    /// For clients that ask for TLS.
    pub tls: Option<Acceptor>,
    /// For readers that find no whole snapshots.
    pub gate: Gate,
    /// What recovery found at its last look.
    pub health: ArcSwap<Vec<ShardHealth>>,
    /// What it saw of rows that are being moved.
    pub reshard: ArcSwap<Option<reshard::Seen>>,
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
    /// `[pool] mode = "session"`.
    pub session_pooling: bool,
    /// The longest message that is taken from a client.
    pub message_max: usize,
    pub workers: usize,
}

impl Shared {
    /// Plans with this map from now on, unless there is a newer one.
    pub fn take_map(&self, map: Arc<ShardMap>) {
        self.loaded.send_if_modified(|epoch| {
            // Under the channel's lock: of two at once the newer one stays.
            let newer = map.epoch.0 >= *epoch;
            if newer {
                *epoch = map.epoch.0;
                self.map.store(map);
            }
            newer
        });
    }

    /// What all workers say of themselves; one that is too busy to answer is left out.
    pub async fn figures(&self) -> Vec<WorkerFigures> {
        self.ask_workers(Mail::Figures).await
    }

    /// All workers' sessions that hold connections to several shards.
    pub async fn moving_sessions(&self) -> Vec<MovingSession> {
        self.ask_workers(Mail::Moving).await.into_iter().flatten().collect()
    }

    pub(super) async fn ask_workers<T>(&self, question: fn(oneshot::Sender<T>) -> Mail) -> Vec<T> {
        let mut answers = Vec::new();
        for mailbox in self.mailboxes.get().into_iter().flatten() {
            let (sender, answer) = oneshot::channel();
            if mailbox.try_send(question(sender)).is_ok()
                && let Ok(Ok(answer)) = tokio::time::timeout(FIGURES_WAIT, answer).await
            {
                answers.push(answer);
            }
        }
        answers
    }

    /// What the home shard knows of a role. For the control runtime.
    ///
    /// # Errors
    /// As [`Verifiers::lookup`].
    pub async fn role(&self, user: &str) -> Result<Option<Role>, LookupError> {
        let map = self.map.load_full();
        let home = map.shard(map.home).map_or("", |shard| &*shard.dsn);
        let dsn = self.settings.catalog.login_for(home);
        self.verifiers.lookup(&dsn, user).await
    }

    /// Passes a cancel request on to the worker that its key names.
    pub fn cancel(&self, pid: u32, secret: Box<[u8]>) {
        self.mail_to(pid, Mail::Cancel { pid, secret });
    }

    /// To the worker of a session. A full mailbox loses it, as a busy network may.
    pub fn mail_to(&self, session: u32, mail: Mail) {
        let worker = self.mailboxes.get().and_then(|boxes| boxes.get((session & 0xff) as usize));
        if let Some(worker) = worker {
            let _ = worker.try_send(mail);
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
            session_pooling: config.pool.mode == PoolMode::Session,
            message_max: config.max_message_size,
            // The worker's index is the low byte of a cancel key.
            workers: config.workers.min(256),
        }
    }
}

/// Users whose connections are open before they come.
pub(super) type WarmUsers = Arc<[(Box<str>, RoleVersion)]>;

/// What a worker is asked from outside.
#[derive(Debug)]
pub enum Mail {
    Client(Stream),
    Cancel {
        pid: u32,
        secret: Box<[u8]>,
    },
    Figures(oneshot::Sender<WorkerFigures>),
    /// Which sessions hold connections to several shards?
    Moving(oneshot::Sender<Vec<MovingSession>>),
    /// This session, in this turn, is to end what it waits for by this process of this shard.
    Deadlock {
        session: u32,
        turn: u32,
        server: (ShardId, i32),
    },
    People(oneshot::Sender<People>),
    /// Ends one client's session; answers whether there is such a client.
    Kill {
        pid: u32,
        answer: oneshot::Sender<bool>,
    },
    KillAll,
    Usages(oneshot::Sender<Vec<Usage>>),
    Live(Arc<Live>),
    /// Users whose connections are to be open before they come.
    Warm(WarmUsers),
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
    /// Places that went to neighbours.
    pub lent: u64,
    /// Server connections outside of the pools.
    pub apart: Vec<(ShardId, usize)>,
    /// What goes on after its client has left: rollbacks, cancels.
    pub background: usize,
}
