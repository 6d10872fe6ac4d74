//! A whole cluster on this machine: `pgherd dev`, and what tests run on.
//!
//! Each shard is a PostgreSQL server of its own in a directory of its own; each router is a child
//! process (`pgherd serve`), so that it can be killed and measured like a real one. Stopping the
//! [`LocalCluster`] stops all of them, also when it is dropped in a panic.

mod postgres;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use pgherd_shard_map::store;
use serde::{Deserialize, Serialize};

pub use postgres::{Postgres, find_binaries};

#[derive(Debug, Clone)]
pub struct DevOptions {
    pub shards: u32,
    /// Of the first router; further ones take the following ports. Port 0 takes free ones.
    pub listen: SocketAddr,
    /// Of the first router; router n listens n * 10 ports above, so that they do not meet clients'.
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

/// What `DIR/cluster.json` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterFile {
    pub database: String,
    pub data_dir: PathBuf,
    pub routers: Vec<RouterEntry>,
    pub shards: Vec<ShardEntry>,
    pub catalog: CatalogEntry,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouterEntry {
    pub dsn: String,
    pub listen: SocketAddr,
    pub http: SocketAddr,
    pub pid: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShardEntry {
    pub id: u32,
    pub dsn: String,
    pub port: u16,
    pub pid: u32,
    pub data_dir: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CatalogEntry {
    pub dsn: String,
}

/// A running cluster.
#[derive(Debug)]
pub struct LocalCluster {
    pub file: ClusterFile,
    routers: Vec<Child>,
    servers: Vec<Postgres>,
    temporary: bool,
}

impl LocalCluster {
    /// Starts servers, catalog and routers, and waits until all answer.
    ///
    /// # Errors
    /// One sentence and, after a newline, a hint.
    pub fn start(options: &DevOptions) -> Result<Self, String> {
        if !(1..=64).contains(&options.shards) || !(1..=16).contains(&options.routers) {
            return Err("a local cluster has 1 to 64 shards and 1 to 16 routers".to_owned());
        }
        let binaries = find_binaries()?;
        let listens = router_ports(options)?;
        let temporary = options.data_dir.is_none();
        let data_dir = match &options.data_dir {
            Some(dir) => dir.clone(),
            None => std::env::temp_dir().join(format!("pgherd-{}", std::process::id())),
        };
        std::fs::create_dir_all(&data_dir)
            .map_err(|error| format!("cannot create {}: {error}", data_dir.display()))?;
        let data_dir = data_dir
            .canonicalize()
            .map_err(|error| format!("cannot use {}: {error}", data_dir.display()))?;
        let existing = std::fs::read_dir(&data_dir).map_or(0, |entries| {
            let names = entries.flatten().map(|entry| entry.file_name());
            names.filter(|name| name.to_string_lossy().starts_with("shard-")).count()
        });
        if existing != 0 && existing != options.shards as usize {
            return Err(format!(
                "{} holds {existing} shards, not {}\nStart with --shards {existing}, or use \
                 another --data-dir.",
                data_dir.display(),
                options.shards
            ));
        }
        let mut cluster = Self {
            file: ClusterFile {
                database: options.database.clone(),
                data_dir: data_dir.clone(),
                routers: Vec::new(),
                shards: Vec::new(),
                catalog: CatalogEntry { dsn: String::new() },
            },
            routers: Vec::new(),
            servers: Vec::new(),
            temporary,
        };
        for id in 0..options.shards {
            let dir = data_dir.join(format!("shard-{id}"));
            let server = Postgres::start(
                &binaries,
                &dir,
                free_port()?,
                options.initdb_args.as_deref(),
                &options.pg_conf,
            )?;
            server.create_database(&binaries, &options.database)?;
            let dsn = format!("postgres://postgres@127.0.0.1:{}/{}", server.port, options.database);
            cluster.file.shards.push(ShardEntry {
                id,
                dsn,
                port: server.port,
                pid: server.pid,
                data_dir: dir,
            });
            cluster.servers.push(server);
        }
        cluster.file.catalog.dsn = cluster.file.shards[0].dsn.clone();
        init_catalog(&cluster.file)?;
        for (number, (listen, http)) in listens.into_iter().enumerate() {
            cluster.start_router(options, number, listen, http)?;
        }
        cluster.write_file()?;
        Ok(cluster)
    }

    fn start_router(
        &mut self,
        options: &DevOptions,
        number: usize,
        listen: SocketAddr,
        http: SocketAddr,
    ) -> Result<(), String> {
        let path = self.file.data_dir.join(format!("router-{number}.toml"));
        // The shards run on the same cores, so the router takes half of them.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config = format!(
            "listen = \"{listen}\"\nhttp = \"{http}\"\ncatalog = \"{}\"\nworkers = {}\n\
             router_name = \"dev{number}\"\n\n[auth]\nmethod = \"trust\"\n",
            self.file.catalog.dsn,
            (cores / 2).max(1),
        );
        std::fs::write(&path, config)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()
                .map_err(|error| format!("cannot find the pgherd binary: {error}"))?,
        };
        let mut child = Command::new(&program)
            .arg("serve")
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        // The router prints one line when it serves; it closes its output when it fails.
        let mut line = String::new();
        let output = child.stdout.take();
        if let Some(output) = output {
            BufReader::new(output)
                .read_line(&mut line)
                .map_err(|error| format!("cannot read from the router: {error}"))?;
        }
        let pid = child.id();
        self.routers.push(child);
        if !line.starts_with("ready") {
            return Err(format!(
                "the router on {listen} did not start\nIts own message stands above."
            ));
        }
        let dsn = format!("postgres://postgres@{listen}/{}", options.database);
        self.file.routers.push(RouterEntry { dsn, listen, http, pid });
        Ok(())
    }

    fn write_file(&self) -> Result<(), String> {
        let path = self.file.data_dir.join("cluster.json");
        let text = serde_json::to_string_pretty(&self.file).map_err(|error| error.to_string())?;
        std::fs::write(&path, text + "\n")
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// The first router's address for clients.
    #[must_use]
    pub fn dsn(&self) -> &str {
        &self.file.routers[0].dsn
    }

    /// Ends a shard's server as a crash would (`kill -9` of all its processes).
    ///
    /// # Errors
    /// When it cannot be signalled.
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
        self.write_file()
    }

    /// Stops routers, then servers.
    pub fn stop(&mut self) {
        for router in &mut self.routers {
            postgres::signal(router.id(), postgres::Signal::Term);
        }
        for router in &mut self.routers {
            // Nothing more can be done about a child that cannot be waited for.
            let _ = router.wait();
        }
        self.routers.clear();
        for server in &mut self.servers {
            server.stop();
        }
        self.servers.clear();
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.file.data_dir);
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Addresses of all routers, checked to be free.
fn router_ports(options: &DevOptions) -> Result<Vec<(SocketAddr, SocketAddr)>, String> {
    let mut found = Vec::new();
    for number in 0..options.routers {
        let place = |base: SocketAddr, step: u16| -> Result<SocketAddr, String> {
            let port = match base.port() {
                0 => free_port()?,
                port => port.checked_add(number * step).ok_or("no such port")?,
            };
            let address = SocketAddr::new(base.ip(), port);
            TcpListener::bind(address).map(drop).map_err(|error| {
                format!(
                    "cannot listen on {address}: {error}\nChoose other addresses with --listen \
                     and --http."
                )
            })?;
            Ok(address)
        };
        // With one router the addresses are the contract's; more must not meet the HTTP port.
        found.push((place(options.listen, 2)?, place(options.http, 2)?));
    }
    Ok(found)
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("cannot find a free port: {error}"))
}

fn init_catalog(file: &ClusterFile) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(register_shards(file)).map_err(|error| format!("the catalog: {error}"))
}

async fn register_shards(file: &ClusterFile) -> Result<(), String> {
    for (number, shard) in file.shards.iter().enumerate() {
        let (client, connection) = tokio_postgres::connect(&shard.dsn, tokio_postgres::NoTls)
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let address = without_user(&shard.dsn);
        if number == 0 {
            store::init_catalog(&client, "dev", &address).await.map_err(|e| e.to_string())?;
        } else {
            let id = pgherd_shard_map::ShardId(shard.id);
            store::init_shard(&client, "dev", id).await.map_err(|e| e.to_string())?;
            let catalog = store::Catalog::connect(&file.catalog.dsn)
                .await
                .map_err(|error| error.to_string())?;
            let map = catalog.load().await.map_err(|error| error.to_string())?;
            if map.shard(id).is_some() {
                catalog
                    .set_dsn(id, &address, map.epoch)
                    .await
                    .map_err(|error| error.to_string())?;
            } else {
                catalog.add_shard(&address, map.epoch).await.map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(())
}

/// Clients log in to shards as themselves, so the catalog keeps addresses only.
#[must_use]
pub fn without_user(dsn: &str) -> String {
    match (dsn.split_once("://"), dsn.split_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => dsn.to_owned(),
    }
}
