//! A router with a configuration of its own beside those of a local cluster.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use pgherd::dev::LocalCluster;

use crate::wire::Client;

/// A running `pgherd serve`; it ends when this is dropped.
#[derive(Debug)]
pub struct RouterProcess {
    child: Child,
    /// Its end tells the router that the test has died.
    _input: Option<ChildStdin>,
    /// `host:port` for clients.
    pub listen: String,
    file: PathBuf,
    /// What every configuration of it begins with.
    head: String,
}

/// Two threads, where the test does not say how many.
fn complete(head: &str, config: &str) -> String {
    let workers = if config.contains("workers = ") { "" } else { "workers = 2\n" };
    format!("{head}{workers}{config}")
}

impl RouterProcess {
    /// Starts a router of the cluster's catalog; `config` is added to what it needs to run.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(cluster: &LocalCluster, name: &str, config: &str) -> Self {
        Self::start_on(cluster, "127.0.0.1:0", name, config)
    }

    /// The same on an address of the caller's.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start_on(cluster: &LocalCluster, listen: &str, name: &str, config: &str) -> Self {
        Self::start_by(cluster, &cluster.file.catalog.dsn, listen, name, config)
    }

    /// The same, and it reaches the catalog some other way.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start_by(
        cluster: &LocalCluster,
        catalog: &str,
        listen: &str,
        name: &str,
        config: &str,
    ) -> Self {
        let file = cluster.file.data_dir.join(format!("{name}.toml"));
        let head =
            format!("listen = \"{listen}\"\ncatalog = \"{catalog}\"\nrouter_name = \"{name}\"\n");
        std::fs::write(&file, complete(&head, config)).expect("the data directory can be written");
        let mut child = Command::new(crate::program())
            .args(["serve", "--stop-with-stdin", "--config"])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("pgherd serve starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is a pipe");
        BufReader::new(output).read_line(&mut line).expect("its output is text");
        let listen =
            line.trim().strip_prefix("ready ").expect("it says where it listens").to_owned();
        let input = child.stdin.take();
        Self { child, _input: input, listen, file, head }
    }

    /// Writes another configuration; it holds when the router is told.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn configure(&self, config: &str) {
        std::fs::write(&self.file, complete(&self.head, config)).expect("it was written before");
    }

    /// Waits for its end; whether it ended well.
    ///
    /// # Panics
    /// It cannot be waited for.
    pub fn wait(&mut self) -> bool {
        self.child.wait().expect("it is a child").success()
    }

    /// Where clients connect.
    ///
    /// # Panics
    /// It listens on no such address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen.parse().expect("it said so itself")
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client of it.
    ///
    /// # Panics
    /// It lets none in.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(self.address(), "app").expect("the router serves")
    }

    /// The address of one database as a role.
    #[must_use]
    pub fn dsn(&self, login: &str) -> String {
        format!("postgres://{login}@{}/app", self.listen)
    }
}

impl Drop for RouterProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
