//! One PostgreSQL server with the whole data: the "direct" contender, and PgBouncer's server.

use std::path::Path;
use std::process::Command;

use pgherd::dev::Postgres;

use super::{DATABASE, SHARED_BUFFERS_MIB};

#[derive(Debug)]
pub(super) struct PlainServer(Postgres);

impl PlainServer {
    /// Started with the same settings as a shard, but with room for every client twice: direct
    /// connections and PgBouncer's session pool need a backend per client, and the pool keeps its.
    ///
    /// # Errors
    /// What PostgreSQL's tools said.
    pub(super) fn start(binaries: &Path, dir: &Path) -> Result<Self, String> {
        let conf =
            ["max_connections=2000".to_owned(), format!("shared_buffers={SHARED_BUFFERS_MIB}MB")];
        Postgres::init(binaries, dir, None)?;
        let server = Self(Postgres::start(binaries, dir, &conf)?);
        server.create_database(binaries)?;
        Ok(server)
    }

    fn create_database(&self, binaries: &Path) -> Result<(), String> {
        let output = Command::new(binaries.join("psql"))
            .args(["-XAtq", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres"])
            .args(["-p", &self.0.port.to_string(), "-c", &format!("CREATE DATABASE {DATABASE}")])
            .output()
            .map_err(|error| format!("cannot run psql: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("psql failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port
    }

    pub(super) fn dsn(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{DATABASE}", self.0.port)
    }
}

impl Drop for PlainServer {
    fn drop(&mut self) {
        self.0.stop(false);
    }
}
