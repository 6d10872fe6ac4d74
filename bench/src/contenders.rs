//! The three ways to PostgreSQL, all on this machine: directly, through PgBouncer (both to one
//! plain server), and through pgherd (to its shards).

mod bouncer;
mod plain;
mod scratch;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use pgherd::dev::{DevOptions, LocalCluster, find_binaries};
use serde::Serialize;

use crate::case::Protocol;
use bouncer::PgBouncer;
use plain::PlainServer;
use scratch::Scratch;

/// The database's name on every contender.
pub(crate) const DATABASE: &str = "app";

/// `shared_buffers` of the plain server, and of all shards together.
const SHARED_BUFFERS_MIB: u32 = 512;

/// `max_parallel_workers_per_gather` of the plain server (PostgreSQL's default), and of all shards
/// together: as processes of one machine they are its parallel workers.
const PARALLEL_WORKERS: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Contender {
    Direct,
    PgBouncer,
    Pgherd,
}

impl Contender {
    pub(crate) const ALL: [Self; 3] = [Self::Direct, Self::PgBouncer, Self::Pgherd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::PgBouncer => "pgbouncer",
            Self::Pgherd => "pgherd",
        }
    }
}

/// Everything that runs. Stopped and removed when it is dropped, whatever the reason.
#[derive(Debug)]
pub(crate) struct Contenders {
    // Dropped in this order: what stands in the middle, then the servers, then the files.
    bouncer: PgBouncer,
    cluster: LocalCluster,
    plain: PlainServer,
    scratch: Scratch,
}

impl Contenders {
    /// # Errors
    /// What could not be started, and a hint after a newline.
    pub(crate) fn start(shards: u32, keep_dir: bool) -> Result<Self, String> {
        if shards == 0 {
            return Err("pgherd needs at least one shard\nGive --shards 1 or more.".to_owned());
        }
        let bouncer_program = bouncer::find_program()?;
        let scratch = Scratch::create(keep_dir)?;
        eprintln!("starting PostgreSQL, PgBouncer and pgherd in {}", scratch.path().display());
        let binaries = find_binaries()?;
        let plain = PlainServer::start(&binaries, &scratch.path().join("plain"))?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = DevOptions {
            shards,
            listen: any,
            http: any,
            data_dir: Some(scratch.path().join("pgherd")),
            database: DATABASE.to_owned(),
            pg_conf: vec![
                format!("shared_buffers={}MB", (SHARED_BUFFERS_MIB / shards).max(16)),
                format!("max_parallel_workers_per_gather={}", PARALLEL_WORKERS / shards),
            ],
            ..DevOptions::default()
        };
        let cluster = LocalCluster::start(&options, &|_| {})?;
        let shards: Vec<u16> = cluster.file.shards.iter().map(|shard| shard.port).collect();
        let bouncer = PgBouncer::start(&bouncer_program, scratch.path(), plain.port(), &shards)?;
        Ok(Self { bouncer, cluster, plain, scratch })
    }

    /// Where clients connect.
    pub(crate) fn dsn(&self, contender: Contender, protocol: Protocol) -> String {
        match contender {
            Contender::Direct => self.plain.dsn(),
            Contender::PgBouncer => self.bouncer.dsn(protocol),
            Contender::Pgherd => self.cluster.dsn().to_owned(),
        }
    }

    /// Where a client connects that knows the shard of each key: one place for each shard, in the
    /// map's order; pgherd is the one place for all of them.
    pub(crate) fn shard_dsns(&self, contender: Contender, protocol: Protocol) -> Vec<String> {
        let shards = &self.cluster.file.shards;
        match contender {
            Contender::Direct => shards.iter().map(|shard| shard.dsn.clone()).collect(),
            Contender::PgBouncer => {
                (0..shards.len()).map(|at| self.bouncer.shard_dsn(at, protocol)).collect()
            }
            Contender::Pgherd => vec![self.cluster.dsn().to_owned()],
        }
    }

    /// The catalog's address.
    pub(crate) fn catalog(&self) -> &str {
        &self.cluster.file.catalog.dsn
    }

    /// The process between client and server, if there is one.
    pub(crate) fn middle(&self, contender: Contender) -> Option<u32> {
        match contender {
            Contender::Direct => None,
            Contender::PgBouncer => Some(self.bouncer.pid()),
            Contender::Pgherd => self.cluster.file.routers.first().map(|router| router.pid),
        }
    }

    /// A directory for files of a run.
    pub(crate) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn shards(&self) -> usize {
        self.cluster.file.shards.len()
    }

    /// Threads of the router that serve clients, as its configuration file says.
    pub(crate) fn workers(&self) -> Option<u32> {
        let path = self.cluster.file.data_dir.join("router-0.toml");
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("workers"))?;
        line.trim_start().strip_prefix('=')?.trim().parse().ok()
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("cannot find a free port: {error}"))
}
