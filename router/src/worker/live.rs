//! What changes while the router runs: its settings, and whether it serves at all.

use std::time::Duration;

use crate::config::Config;
use crate::hba::Hba;
use crate::pool::PoolLimits;

/// Whether the router serves, or how it ends. Later phases are stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// Another router takes over: no new connections, clients may go on until they leave or rest.
    HandOver,
    /// No new connections; clients are sent away as soon as they have no transaction.
    Drain,
    /// Everybody is sent away now.
    Stop,
}

/// What a new configuration changes while the router runs.
#[derive(Debug, Clone)]
pub struct Live {
    /// Of the whole router; each worker has its share.
    pub pool: PoolLimits,
    /// Who may log in how.
    pub hba: Hba,
    /// Users whose connections are opened before they come.
    pub warm_users: Box<[Box<str>]>,
    pub auto_distribute: Box<[Box<str>]>,
    pub slow_statement: Option<Duration>,
    /// Bytes of rows that one statement may copy to the home shard.
    pub borrow_max: u64,
    /// Bytes of rows that one statement may copy to each shard.
    pub broadcast_max: u64,
    /// How long, and how often, a schema change waits for locks.
    pub ddl_lock_timeout: Option<Duration>,
    pub ddl_attempts: u32,
    pub max_clients: usize,
    pub shutdown_timeout: Duration,
}

impl Live {
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let names = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
        Self {
            pool: PoolLimits {
                size: config.pool.size,
                min_size: config.pool.min_size,
                wait: config.pool.wait,
                pause_wait: config.pool.pause_wait,
                waiting_max: config.pool.max_waiting,
                connect: config.pool.connect_timeout,
                idle: config.pool.idle_timeout,
                lifetime: config.pool.max_lifetime,
            },
            hba: Hba::new(&config.auth, config.tls.as_ref().is_some_and(|tls| tls.require)),
            warm_users: names(&config.pool.warm_users),
            auto_distribute: names(&config.sharding.auto_distribute),
            slow_statement: config.log.slow_statement,
            borrow_max: config.query.borrow_max,
            broadcast_max: config.query.broadcast_max,
            ddl_lock_timeout: config.query.ddl_lock_timeout,
            ddl_attempts: config.query.ddl_attempts,
            max_clients: config.max_clients,
            shutdown_timeout: config.shutdown_timeout,
        }
    }

    /// One worker's part of the connections.
    #[must_use]
    pub fn share(&self, workers: usize) -> PoolLimits {
        PoolLimits {
            size: self.pool.size.div_ceil(workers).max(1),
            min_size: self.pool.min_size.div_ceil(workers),
            ..self.pool
        }
    }
}
