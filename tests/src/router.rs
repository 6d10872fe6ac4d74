//! A router with a configuration of its own beside those of a local cluster.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use pgherd::dev::LocalCluster;

/// A running `pgherd serve`; it ends when this is dropped.
#[derive(Debug)]
pub struct RouterProcess {
    child: Child,
    /// `host:port` for clients.
    pub listen: String,
}

impl RouterProcess {
    /// Starts a router of the cluster's catalog; `config` is added to what it needs to run.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(cluster: &LocalCluster, name: &str, config: &str) -> Self {
        let file = cluster.file.data_dir.join(format!("{name}.toml"));
        let text = format!(
            "listen = \"127.0.0.1:0\"\ncatalog = \"{}\"\nworkers = 2\nrouter_name = \"{name}\"\n{config}",
            cluster.file.catalog.dsn
        );
        std::fs::write(&file, text).expect("the data directory can be written");
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
        Self { child, listen }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
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
