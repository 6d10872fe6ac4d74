//! A whole cluster on this machine: `pgherd dev`, and what tests run on.
//!
//! Each shard is a PostgreSQL server of its own in a directory of its own; each router is a child
//! process (`pgherd serve`), so that it can be killed and measured like a real one. Stopping the
//! [`LocalCluster`] stops all of them, also when it is dropped in a panic; when its process is
//! killed, routers notice by themselves and a [`guard()`] process stops the servers.

mod addresses;
mod catalog;
mod data_dir;
mod file;
mod guard;
mod postgres;
mod process;
mod router;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use data_dir::DataDir;
use guard::Guard;
use router::Router;

pub use file::{CLUSTER_FILE, CatalogEntry, ClusterFile, RouterEntry, ShardEntry};
pub use guard::guard;
pub use postgres::{Postgres, find_binaries};

#[derive(Debug, Clone)]
pub struct DevOptions {
    pub shards: u32,
    /// Of the first router; further ones take the following ports. Port 0 takes free ones.
    pub listen: SocketAddr,
    /// Of the first router; as `listen`.
    pub http: SocketAddr,
    /// Kept when given, else a temporary directory.
    pub data_dir: Option<PathBuf>,
    pub database: String,
    pub routers: u16,
    pub initdb_args: Option<String>,
    /// `key=value` for every server's configuration.
    pub pg_conf: Vec<String>,
    /// The `pgherd` binary that serves; this process' own by default.
    pub program: Option<PathBuf>,
}

impl Default for DevOptions {
    fn default() -> Self {
        Self {
            shards: 4,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6432)),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 6433)),
            data_dir: None,
            database: "app".to_owned(),
            routers: 1,
            initdb_args: None,
            pg_conf: Vec::new(),
            program: None,
        }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct LocalCluster {
    pub file: ClusterFile,
    routers: Vec<Router>,
    servers: Vec<Postgres>,
    guard: Guard,
    dir: DataDir,
    program: PathBuf,
}

impl LocalCluster {
    /// Starts servers, catalog and routers, and waits until all answer. Blocks; tells `progress`
    /// what it does, a few words at a time.
    ///
    /// # Errors
    /// One sentence and, after a newline, a hint.
    pub fn start(options: &DevOptions, progress: &dyn Fn(&str)) -> Result<Self, String> {
        check_options(options)?;
        let binaries = find_binaries()?;
        postgres::check_user()?;
        let addresses = addresses::assign(options.listen, options.http, options.routers)?;
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()
                .map_err(|error| format!("cannot find the pgherd binary: {error}"))?,
        };
        let dir = DataDir::open(options.data_dir.as_deref(), &options.database, options.shards)?;
        let mut cluster = Self {
            file: ClusterFile {
                database: options.database.clone(),
                data_dir: dir.path.clone(),
                pid: std::process::id(),
                routers: Vec::new(),
                shards: Vec::new(),
                catalog: CatalogEntry { dsn: String::new() },
            },
            routers: Vec::new(),
            servers: Vec::new(),
            guard: Guard::start(&program, &dir)?,
            dir,
            program,
        };
        progress(&format!("starting {} PostgreSQL servers", options.shards));
        cluster.start_servers(&binaries, options)?;
        progress("registering the shards");
        catalog::register(&cluster.file)?;
        cluster.dir.complete()?;
        progress("starting the routers");
        for (number, at) in addresses.into_iter().enumerate() {
            let name = format!("dev{number}");
            let dsn = format!("postgres://postgres@{}/{}", at.listen, options.database);
            let port = at.listen.port();
            let entry = RouterEntry { name, dsn, listen: at.listen, port, http: at.http, pid: 0 };
            cluster.file.routers.push(entry);
            let router = cluster.spawn_router(number)?;
            cluster.file.routers[number].pid = router.pid();
            cluster.routers.push(router);
        }
        for router in &mut cluster.routers {
            router.wait_ready()?;
        }
        cluster.file.write()?;
        Ok(cluster)
    }

    /// All servers at the same time: most of a first start is `initdb`.
    fn start_servers(&mut self, binaries: &Path, options: &DevOptions) -> Result<(), String> {
        let dirs: Vec<PathBuf> = (0..options.shards).map(|id| self.dir.shard(id)).collect();
        let start = |dir: &PathBuf| {
            Postgres::init(binaries, dir, options.initdb_args.as_deref())?;
            Postgres::start(binaries, dir, &options.pg_conf)
        };
        let started: Vec<Result<Postgres, String>> = std::thread::scope(|scope| {
            let threads: Vec<_> = dirs.iter().map(|dir| scope.spawn(|| start(dir))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a start panicked".to_owned())))
                .collect()
        });
        let mut failure = None;
        for (started, (id, dir)) in started.into_iter().zip((0..).zip(dirs)) {
            match started {
                Ok(server) => {
                    let (port, pid) = (server.port, server.pid);
                    let dsn = format!("postgres://postgres@127.0.0.1:{port}/{}", options.database);
                    self.file.shards.push(ShardEntry { id, dsn, port, pid, data_dir: dir });
                    self.servers.push(server);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        self.file.catalog.dsn = self.file.shards[0].dsn.clone();
        Ok(())
    }

    fn spawn_router(&self, number: usize) -> Result<Router, String> {
        let entry = &self.file.routers[number];
        let config = self.dir.path.join(format!("router-{number}.toml"));
        let at = addresses::RouterAddresses { listen: entry.listen, http: entry.http };
        Router::spawn(&self.program, &config, &entry.name, &self.file.catalog.dsn, at)
    }

    /// The first router's address for clients.
    #[must_use]
    pub fn dsn(&self) -> &str {
        &self.file.routers[0].dsn
    }

    /// Routers that ended since the last call, and how.
    pub fn ended_routers(&mut self) -> Vec<String> {
        self.routers.iter_mut().filter_map(Router::ended).collect()
    }

    /// Ends a router as a crash would (`kill -9`).
    pub fn crash_router(&mut self, number: usize) {
        self.routers[number].crash();
    }

    /// Starts a crashed router on its old addresses.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart_router(&mut self, number: usize) -> Result<(), String> {
        let router = self.spawn_router(number)?;
        self.file.routers[number].pid = router.pid();
        self.routers[number] = router;
        self.routers[number].wait_ready()?;
        self.file.write()
    }

    /// Ends a shard's server as a crash would (`kill -9` of all its processes).
    ///
    /// # Errors
    /// When it does not die.
    pub fn crash_shard(&mut self, id: usize) -> Result<(), String> {
        self.servers[id].crash()
    }

    /// Starts a crashed shard on its old port.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart_shard(&mut self, id: usize) -> Result<(), String> {
        let binaries = find_binaries()?;
        self.servers[id].restart(&binaries)?;
        self.file.shards[id].pid = self.servers[id].pid;
        self.file.write()
    }

    /// Stops routers, then servers, and removes what is temporary.
    pub fn stop(&mut self) {
        self.routers.iter_mut().for_each(Router::terminate);
        self.routers.iter_mut().for_each(Router::reap);
        self.routers.clear();
        let immediate = self.dir.temporary;
        std::thread::scope(|scope| {
            for server in &mut self.servers {
                scope.spawn(move || server.stop(immediate));
            }
        });
        self.servers.clear();
        // It names processes that are gone.
        let _ = std::fs::remove_file(self.dir.path.join(CLUSTER_FILE));
        self.guard.finish();
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn check_options(options: &DevOptions) -> Result<(), String> {
    if !(1..=64).contains(&options.shards) {
        return Err(format!("{} shards\nA local cluster has 1 to 64.", options.shards));
    }
    if !(1..=16).contains(&options.routers) {
        return Err(format!("{} routers\nA local cluster has 1 to 16.", options.routers));
    }
    let name = options.database.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
        return Err(format!(
            "the database name {name:?} is invalid\nTake 1 to 63 ASCII letters, digits, '_' or \
             '-'."
        ));
    }
    if ["template0", "template1", "pgherd"].contains(&name) {
        return Err(format!("the database name {name} has a meaning already\nTake another one."));
    }
    if let Some(setting) = options.pg_conf.iter().find(|s| !s.contains('=') || s.contains('\0')) {
        return Err(format!(
            "--pg-conf {setting}: expected key=value\nFor example \
                            --pg-conf work_mem=16MB."
        ));
    }
    Ok(())
}
