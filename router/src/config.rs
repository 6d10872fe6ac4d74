//! What a router is told at start: one TOML file, overridden by `PGHERD_…` variables.
//!
//! Every key is a field here, documented where it stands and in `docs/configuration.md`; an unknown
//! key is an error, so that a typo never passes for a setting. The cluster's topology is not here:
//! it lives in the catalog, and the file only says where the catalog is.
//!
//! [`Config::load`] reads the file and the environment; [`Config::parse`] is the same without
//! either, for tests and for tools that make configurations. A `Config` that exists is valid.

mod auth;
mod env;
mod server;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use auth::{AuthConfig, AuthMethod, HbaEntry, HbaType, Names};
pub use env::{KEYS, Key, KeyKind};
pub use server::{ServerTls, SslMode, parse_url};
pub use value::Dsn;
pub(crate) use value::{parse_address, parse_bytes};

/// Client connections that a router accepts at most, whatever the file says.
pub const MAX_CLIENTS_LIMIT: usize = 1_000_000;
/// Server connections per shard, at most.
pub const POOL_SIZE_LIMIT: usize = 10_000;
/// Shorter messages are never refused for their length.
const MESSAGE_SIZE_LEAST: usize = 16 << 10;
/// PostgreSQL's own limit for a message, just below 1 GB.
pub const FRAME_MAX: usize = 0x3fff_ffff;
/// The database name that opens the console.
pub const CONSOLE: &str = "pgherd";
/// A router's name is part of every prepared transaction's gid, which has 200 bytes.
pub const ROUTER_NAME_BYTES: usize = 40;

/// A router's settings: the sum of the settings of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients connect.
    #[serde(default = "default_listen", deserialize_with = "value::address")]
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` answer; nowhere when it is left out.
    #[serde(default, deserialize_with = "value::optional_address")]
    pub http: Option<SocketAddr>,
    /// The catalog's database, which is also the home shard's: a `postgres://` URL of a superuser.
    pub catalog: Dsn,
    /// The database name that clients connect to; the catalog's when it is left out.
    #[serde(default)]
    pub database: String,
    /// Threads that serve clients. 0 in the file means one per core; never 0 here.
    #[serde(default)]
    pub workers: usize,
    /// Clients connected at a time; more are refused with 53300.
    #[serde(default = "default_max_clients")]
    pub max_clients: usize,
    /// Where the Unix socket `.s.PGSQL.<port>` is made, too; nowhere when it is left out.
    #[serde(default)]
    pub unix_socket_dir: Option<PathBuf>,
    /// Who may connect to it: the file's mode in octal.
    #[serde(
        default = "default_permissions",
        deserialize_with = "value::permissions",
        serialize_with = "value::show_permissions"
    )]
    pub unix_socket_permissions: u32,
    /// A message of a client that is longer is refused with 54000; data of COPY is not limited.
    #[serde(
        default = "default_message_size",
        deserialize_with = "value::size",
        serialize_with = "value::show_size"
    )]
    pub max_message_size: usize,
    /// Several routers may listen on the same address: one takes over from another.
    #[serde(default)]
    pub reuse_port: bool,
    /// How long open transactions may go on after SIGTERM.
    #[serde(
        default = "default_shutdown_timeout",
        deserialize_with = "value::duration",
        serialize_with = "value::show_duration"
    )]
    pub shutdown_timeout: Duration,
    /// What this router is called in prepared transactions and logs: unique in the cluster.
    #[serde(default)]
    pub router_name: String,
    #[serde(default)]
    pub pool: PoolConfig,
    #[serde(default)]
    pub auth: AuthConfig,
    /// A certificate for clients that ask for TLS; without it they are answered `N`.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// Encryption towards the catalog and the shards.
    #[serde(default)]
    pub shard_tls: ServerTls,
    #[serde(default)]
    pub sharding: ShardingConfig,
    #[serde(default)]
    pub query: QueryConfig,
    #[serde(default)]
    pub log: LogConfig,
    /// Where it was read, to be read again.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// Connections from the router to each shard.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// How long a client has its server connections.
    pub mode: PoolMode,
    /// Server connections to one shard, at most, over all threads.
    pub size: usize,
    /// Connections to each shard that are kept open while a client of the user is connected.
    pub min_size: usize,
    /// Users whose connections are opened at start, where clients are trusted.
    pub warm_users: Vec<String>,
    /// How long a statement waits for a server connection before it is refused with 53300.
    #[serde(deserialize_with = "value::duration", serialize_with = "value::show_duration")]
    pub wait: Duration,
    /// How long it waits while its shard is paused.
    #[serde(deserialize_with = "value::duration", serialize_with = "value::show_duration")]
    pub pause_wait: Duration,
    /// Statements that wait for one shard at a time; more are refused at once.
    pub max_waiting: usize,
    /// A server connection that nobody used for so long is closed.
    #[serde(deserialize_with = "value::duration", serialize_with = "value::show_duration")]
    pub idle_timeout: Duration,
    /// A server connection older than this is closed after its transaction; `None` (`"0"`): never.
    #[serde(
        deserialize_with = "value::optional_duration",
        serialize_with = "value::show_optional_duration"
    )]
    pub max_lifetime: Option<Duration>,
    /// How long opening a server connection may take, login included.
    #[serde(deserialize_with = "value::duration", serialize_with = "value::show_duration")]
    pub connect_timeout: Duration,
}

/// For how long a client has a server connection to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// For a transaction, and for as long as its session leaves something there.
    #[default]
    Transaction,
    /// From its first use to the client's end.
    Session,
}

/// Encryption towards clients.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM files of the certificate chain and its private key.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// PEM file of the authorities that may vouch for clients.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Over TCP nobody gets in without TLS.
    #[serde(default)]
    pub require: bool,
}

/// What happens to new tables.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShardingConfig {
    /// A new table that has one of these columns is distributed by the first that it has.
    pub auto_distribute: Vec<String>,
}

/// Bounds of single statements.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryConfig {
    /// How many bytes of rows one statement may copy to the home shard to run there.
    #[serde(deserialize_with = "value::bytes", serialize_with = "value::show_bytes")]
    pub borrow_max: u64,
    /// How long a schema change waits for locks before it lets others pass; `None` (`"0"`): as
    /// long as it takes.
    #[serde(
        deserialize_with = "value::optional_duration",
        serialize_with = "value::show_optional_duration"
    )]
    pub ddl_lock_timeout: Option<Duration>,
    /// How often it tries, at most.
    pub ddl_attempts: u32,
    /// How many bytes of rows one statement may copy to each shard to run there.
    #[serde(deserialize_with = "value::bytes", serialize_with = "value::show_bytes")]
    pub broadcast_max: u64,
}

/// What is written to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,pgherd::pool=debug`.
    pub level: String,
    /// Statements that take longer are logged with their plan; `None` (`"0"`) logs none.
    #[serde(
        deserialize_with = "value::optional_duration",
        serialize_with = "value::show_optional_duration"
    )]
    pub slow_statement: Option<Duration>,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: Box<Self> },
    #[error("{0}")]
    Syntax(String),
    #[error("environment variable {variable}: {problem}")]
    Environment { variable: String, problem: String },
    #[error("{key}: {problem}")]
    Invalid { key: &'static str, problem: String },
}

impl Config {
    /// Reads the file, lays the process' environment over it, and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and the key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let parsed = Self::parse(&text, |variable| std::env::var(variable).ok());
        let mut config = parsed.map_err(|problem| ConfigError::File {
            path: path.to_owned(),
            problem: Box::new(problem),
        })?;
        config.file = Some(path.to_owned());
        Ok(config)
    }

    /// What every setting is, in the order of [`KEYS`]; `None` where one has no value. Passwords
    /// are left out.
    #[must_use]
    pub fn values(&self) -> Vec<(&'static Key, Option<String>)> {
        let table = toml::Table::try_from(self).unwrap_or_default();
        let value = |key: &Key| {
            let mut at: Option<&toml::Value> = None;
            for part in key.path.split('.') {
                at = match at {
                    None => table.get(part),
                    Some(section) => section.get(part),
                };
                at?;
            }
            at.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        KEYS.iter().map(|key| (key, value(key))).collect()
    }

    /// The same from a text and any environment.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, or the variable, and what is wrong.
    pub fn parse(
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let overrides = env::overrides(environment)?;
        let config: Self = if overrides.is_empty() {
            // Straight from the text, so that errors show the line.
            toml::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string()))?
        } else {
            let mut table: toml::Table =
                toml::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string()))?;
            env::apply(&mut table, overrides)?;
            table
                .try_into()
                .map_err(|error: toml::de::Error| ConfigError::Syntax(error.message().to_owned()))?
        };
        config.complete()
    }

    /// Fills in what depends on other values, and refuses what cannot work.
    fn complete(mut self) -> Result<Self, ConfigError> {
        let invalid = |key, problem: String| Err(ConfigError::Invalid { key, problem });
        if self.database.is_empty() {
            match self.catalog.database() {
                Some(name) => self.database = name,
                None => return invalid("database", "neither set nor part of catalog".into()),
            }
        }
        if self.database == CONSOLE {
            return invalid("database", format!("\"{CONSOLE}\" is the name of the console"));
        }
        if self.workers == 0 {
            self.workers = std::thread::available_parallelism().map_or(1, usize::from);
        }
        if self.workers > 1024 {
            return invalid("workers", format!("{} threads, at most 1024", self.workers));
        }
        if self.router_name.is_empty() {
            self.router_name = value::default_router_name(self.listen);
        }
        if !value::is_router_name(&self.router_name) {
            return invalid(
                "router_name",
                format!("1 to {ROUTER_NAME_BYTES} letters, digits, '.', '_' or '-' are allowed"),
            );
        }
        if !(1..=MAX_CLIENTS_LIMIT).contains(&self.max_clients) {
            return invalid("max_clients", format!("from 1 to {MAX_CLIENTS_LIMIT}"));
        }
        if !(1..=POOL_SIZE_LIMIT).contains(&self.pool.size) {
            return invalid("pool.size", format!("from 1 to {POOL_SIZE_LIMIT}"));
        }
        if self.pool.min_size > self.pool.size {
            return invalid("pool.min_size", format!("more than pool.size ({})", self.pool.size));
        }
        if self.pool.connect_timeout.is_zero() {
            return invalid("pool.connect_timeout", "must be longer than 0".into());
        }
        if !(MESSAGE_SIZE_LEAST..=FRAME_MAX).contains(&self.max_message_size) {
            return invalid("max_message_size", "from 16kB to 1GB".into());
        }
        if let Some(dir) = &self.unix_socket_dir
            && !dir.is_dir()
        {
            return invalid("unix_socket_dir", format!("{} is no directory", dir.display()));
        }
        if self.http == Some(self.listen) && self.listen.port() != 0 {
            return invalid("http", format!("{} is where clients connect", self.listen));
        }
        if let Some(tls) = &self.tls {
            let client_ca = tls.client_ca.iter().map(|path| ("tls.client_ca", path));
            let files = [("tls.cert", &tls.cert), ("tls.key", &tls.key)];
            for (key, path) in files.into_iter().chain(client_ca) {
                if let Err(error) = std::fs::File::open(path) {
                    return invalid(key, format!("cannot read {}: {error}", path.display()));
                }
            }
        }
        let client_ca = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let problem = self.auth.problem(client_ca).or_else(|| self.shard_tls.problem());
        if let Some((key, problem)) = problem {
            return invalid(key, problem);
        }
        Ok(self)
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            mode: PoolMode::default(),
            size: 64,
            min_size: 0,
            warm_users: Vec::new(),
            wait: Duration::from_secs(5),
            pause_wait: Duration::from_secs(120),
            max_waiting: 1000,
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Some(Duration::from_secs(3600)),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            borrow_max: 4 << 30,
            broadcast_max: 16 << 20,
            ddl_lock_timeout: Some(Duration::from_secs(2)),
            ddl_attempts: 60,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".into(),
            slow_statement: Some(Duration::from_secs(1)),
        }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 6432))
}

const fn default_permissions() -> u32 {
    0o777
}

const fn default_message_size() -> usize {
    FRAME_MAX
}

const fn default_shutdown_timeout() -> Duration {
    Duration::from_secs(30)
}

const fn default_max_clients() -> usize {
    10_000
}

#[cfg(test)]
mod tests;
