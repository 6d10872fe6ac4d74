//! One PostgreSQL server with the whole data: the "direct" contender, and PgBouncer's server.

use std::path::Path;

use pgherd::dev::Postgres;

use super::{DATABASE, SHARED_BUFFERS_MIB, free_port};

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
        let server = Self(Postgres::start(binaries, dir, free_port()?, None, &conf)?);
        server.0.create_database(binaries, DATABASE)?;
        Ok(server)
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
        self.0.stop();
    }
}
