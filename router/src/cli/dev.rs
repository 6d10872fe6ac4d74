//! `pgherd dev`: a whole cluster in the foreground, until SIGINT or SIGTERM.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, block_on};
use crate::config::parse_address;
use crate::dev::{CLUSTER_FILE, DevOptions, LocalCluster};

/// Start a local cluster with its router, in the foreground.
///
/// Makes PostgreSQL servers from the installed binaries (as the user postgres when run as root),
/// a catalog and the routers. Prints a line `ready postgres://…` when clients can connect;
/// Control-C stops everything. DIR/cluster.json has all addresses and process ids while it runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgherd dev
  pgherd dev --shards 2 --data-dir ./data --pg-conf work_mem=16MB
  pgherd dev --routers 2      # clients on 6432 and 6434, HTTP on 6433 and 6435")]
pub(super) struct DevArgs {
    /// PostgreSQL servers, 1 to 64.
    #[arg(long, default_value_t = 4)]
    shards: u32,
    /// Where the first router serves clients. Each further router takes the next port that no
    /// other address of the cluster has. Port 0 takes free ports.
    #[arg(long, default_value = "127.0.0.1:6432", value_parser = parse_address)]
    listen: SocketAddr,
    /// Where the first router serves metrics; further ones as with --listen.
    #[arg(long, default_value = "127.0.0.1:6433", value_parser = parse_address)]
    http: SocketAddr,
    /// Keep the data here, and find it at the next start; without it the data is gone at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The database that clients connect to.
    #[arg(long, default_value = "app")]
    database: String,
    /// Routers, 1 to 16.
    #[arg(long, default_value_t = 1)]
    routers: u16,
    /// For initdb, instead of --locale=C.UTF-8.
    #[arg(long, allow_hyphen_values = true, value_name = "ARGS")]
    initdb_args: Option<String>,
    /// A setting for every server; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pg_conf: Vec<String>,
}

pub(super) fn run(args: DevArgs) -> Result<(), Failure> {
    let options = DevOptions {
        shards: args.shards,
        listen: args.listen,
        http: args.http,
        data_dir: args.data_dir,
        database: args.database,
        routers: args.routers,
        initdb_args: args.initdb_args,
        pg_conf: args.pg_conf,
        program: None,
    };
    let progress = |step: &str| {
        if std::io::stderr().is_terminal() {
            eprintln!("  {step} …");
        }
    };
    let mut cluster = LocalCluster::start(&options, &progress)?;
    let served = block_on(async {
        let problem = |error| format!("cannot wait for signals: {error}");
        // Before the line that says so, since whoever reads it may send one at once.
        let mut signals = Signals::new().map_err(problem)?;
        banner(&cluster)?;
        signals.wait_for_stop(&mut cluster).await;
        Ok(())
    });
    cluster.stop();
    served
}

struct Signals {
    stop: [Signal; 2],
    child: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            stop: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
            child: signal(SignalKind::child())?,
        })
    }

    /// Returns at SIGINT or SIGTERM; tells of routers that end before.
    async fn wait_for_stop(&mut self, cluster: &mut LocalCluster) {
        let [term, int] = &mut self.stop;
        loop {
            tokio::select! {
                _ = term.recv() => return,
                _ = int.recv() => return,
                _ = self.child.recv() => {
                    for news in cluster.ended_routers() {
                        eprintln!("pgherd: {news}");
                    }
                }
            }
        }
    }
}

fn banner(cluster: &LocalCluster) -> Result<(), Failure> {
    let file = &cluster.file;
    let mut text = format!(
        "pgherd: {} shards, {} router(s), catalog on shard 0\n",
        file.shards.len(),
        file.routers.len()
    );
    text += &format!("  cluster  {}\n", file.data_dir.join(CLUSTER_FILE).display());
    for router in &file.routers {
        text += &format!("  metrics  http://{}/metrics\n", router.http);
    }
    for router in &file.routers {
        text += &format!("  psql     psql {}\n", router.dsn);
    }
    text += &format!("ready {}\n", cluster.dsn());
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::from(format!("cannot write to the standard output: {error}")))
}
