//! PgBouncer in front of the plain server, and in front of each of pgherd's shards, in one process
//! with two pools for each server.
//!
//! Transaction pooling is what pgherd does, so it is the fair comparison. PgBouncer before 1.21
//! cannot carry prepared statements there, so `-M prepared` goes through a session pool.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{DATABASE, free_port};
use crate::case::Protocol;
use crate::interrupt;

/// Server connections of the transaction pool: the same as pgherd's default for one shard.
const TRANSACTION_POOL: u32 = 64;

/// Server connections of the session pool: one for each client.
const SESSION_POOL: u32 = 1000;

const SESSION_DATABASE: &str = "app_session";

const START: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct PgBouncer {
    process: Child,
    port: u16,
}

/// # Errors
/// How to install it.
pub(super) fn find_program() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian puts it where only root's PATH reaches.
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|dir| dir.join("pgbouncer"))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            "pgbouncer was not found in PATH or /usr/sbin\nInstall it (Debian: apt-get install \
             pgbouncer)."
                .to_owned()
        })
}

impl PgBouncer {
    /// # Errors
    /// What it wrote to its log.
    pub(super) fn start(
        program: &Path,
        dir: &Path,
        server_port: u16,
        shard_ports: &[u16],
    ) -> Result<Self, String> {
        let port = free_port()?;
        let config = dir.join("pgbouncer.ini");
        let log = dir.join("pgbouncer.log");
        std::fs::write(&config, configuration(port, server_port, shard_ports))
            .map_err(|error| format!("cannot write {}: {error}", config.display()))?;
        let output = File::create(&log)
            .map_err(|error| format!("cannot create {}: {error}", log.display()))?;
        let mut command = Command::new(program);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "postgres"]);
        }
        let process = command
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let mut bouncer = Self { process, port };
        bouncer.wait_until_it_listens().map_err(|error| {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let last = text.lines().last().unwrap_or("its log is empty");
            format!("{error}: {last}")
        })?;
        Ok(bouncer)
    }

    fn wait_until_it_listens(&mut self) -> Result<(), String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let deadline = Instant::now() + START;
        loop {
            if TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            if !matches!(self.process.try_wait(), Ok(None)) {
                return Err("PgBouncer ended at its start".to_owned());
            }
            if Instant::now() > deadline {
                return Err(format!("PgBouncer did not listen within {START:?}"));
            }
            interrupt::wait_until(Instant::now() + Duration::from_millis(10))?;
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The plain server.
    pub(super) fn dsn(&self, protocol: Protocol) -> String {
        self.dsn_of("", protocol)
    }

    /// The shard with this place in the map.
    pub(super) fn shard_dsn(&self, shard: usize, protocol: Protocol) -> String {
        self.dsn_of(&shard.to_string(), protocol)
    }

    fn dsn_of(&self, suffix: &str, protocol: Protocol) -> String {
        let database = match protocol {
            Protocol::Simple | Protocol::Extended => DATABASE,
            Protocol::Prepared => SESSION_DATABASE,
        };
        format!("postgres://postgres@127.0.0.1:{}/{database}{suffix}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It holds nothing worth a slow farewell. One that has ended already is what we want.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(port: u16, server_port: u16, shard_ports: &[u16]) -> String {
    let pools = |suffix: &str, port: u16| {
        let server = format!("host=127.0.0.1 port={port} dbname={DATABASE} user=postgres");
        format!(
            "{DATABASE}{suffix} = {server} pool_mode=transaction pool_size={TRANSACTION_POOL}\n\
             {SESSION_DATABASE}{suffix} = {server} pool_mode=session pool_size={SESSION_POOL}\n"
        )
    };
    let shards = shard_ports.iter().enumerate();
    let shards: String = shards.map(|(at, port)| pools(&at.to_string(), *port)).collect();
    format!(
        "[databases]\n\
         {}{shards}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = any\n\
         max_client_conn = 100000\n\
         ignore_startup_parameters = extra_float_digits\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         log_stats = 0\n",
        pools("", server_port)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepared_statements_go_through_the_session_pool_and_the_rest_does_not() {
        let text = configuration(6000, 5000, &[5001, 5002]);
        let pool = |database: &str| {
            let start = format!("{database} = ");
            text.lines().find(|line| line.starts_with(&start)).map(str::to_owned)
        };
        assert!(pool(DATABASE).is_some_and(|line| line.contains("pool_mode=transaction")));
        assert!(pool(SESSION_DATABASE).is_some_and(|line| line.contains("pool_mode=session")));
        assert!(pool("app1").is_some_and(|line| line.contains("port=5002")));
    }
}
