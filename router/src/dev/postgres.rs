//! One PostgreSQL server: initdb, start, stop, crash. Runs as the user `postgres` when we are root.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Pid;

/// The signals that are sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Term,
    Kill,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    pub port: u16,
    /// Of the postmaster.
    pub pid: u32,
    dir: PathBuf,
    options: String,
}

/// The directory of `initdb`, `pg_ctl` and `postgres`.
///
/// # Errors
/// Where it was looked for, and how to install it.
pub fn find_binaries() -> Result<PathBuf, String> {
    let complete = |dir: &Path| dir.join("initdb").exists() && dir.join("pg_ctl").exists();
    let from_path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> =
        std::env::var_os("PG_BIN").map(PathBuf::from).into_iter().collect();
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_string_lossy().parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    candidates.extend(versions.into_iter().rev().map(|(_, dir)| dir));
    candidates.extend(std::env::split_paths(&from_path));
    candidates.into_iter().find(|dir| complete(dir)).ok_or_else(|| {
        "no PostgreSQL server was found in PG_BIN, /usr/lib/postgresql or PATH\nInstall it \
         (Debian: apt-get install postgresql), or set PG_BIN to the directory of initdb."
            .to_owned()
    })
}

impl Postgres {
    /// Starts the server in `dir`, which is made first if it is not there.
    ///
    /// # Errors
    /// What the tool said, and a hint where the cause is known.
    pub fn start(
        binaries: &Path,
        dir: &Path,
        port: u16,
        initdb_args: Option<&str>,
        conf: &[String],
    ) -> Result<Self, String> {
        if !dir.join("PG_VERSION").exists() {
            let args = initdb_args.unwrap_or("--locale=C.UTF-8").split_whitespace();
            std::fs::create_dir_all(dir)
                .map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
            give_to_postgres(dir)?;
            run(
                Command::new(binaries.join("initdb"))
                    .arg("-D")
                    .arg(dir)
                    .args(["--auth=trust", "-U", "postgres", "-E", "UTF8", "--no-sync"])
                    .args(args),
                "initdb",
            )?;
        }
        let mut settings = vec![
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", dir.display()),
            "max_connections=300".to_owned(),
            "max_prepared_transactions=300".to_owned(),
            "wal_level=logical".to_owned(),
        ];
        settings.extend(conf.iter().cloned());
        let options = settings.iter().map(|s| format!("-c '{s}'")).collect::<Vec<_>>().join(" ");
        let mut server = Self { port, pid: 0, dir: dir.to_owned(), options };
        server.restart(binaries)?;
        Ok(server)
    }

    /// Starts it (again) on its port.
    ///
    /// # Errors
    /// The end of its log.
    pub fn restart(&mut self, binaries: &Path) -> Result<(), String> {
        let log = self.dir.join("server.log");
        let started = run(
            Command::new(binaries.join("pg_ctl"))
                .args(["-w", "-t", "60", "-D"])
                .arg(&self.dir)
                .arg("-l")
                .arg(&log)
                .args(["-o", &self.options, "start"]),
            "pg_ctl start",
        );
        if let Err(error) = started {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(5).collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            let hint = if tail.contains("shared memory") || tail.contains("semaphores") {
                "\nThe machine has not enough memory or semaphores: fewer --shards, or --pg-conf \
                 shared_buffers=16MB --pg-conf max_connections=50."
            } else {
                ""
            };
            return Err(format!("{error}\n{tail}{hint}"));
        }
        let pid_file = self.dir.join("postmaster.pid");
        self.pid = std::fs::read_to_string(&pid_file)
            .ok()
            .and_then(|text| text.lines().next()?.trim().parse().ok())
            .ok_or_else(|| format!("cannot read {}", pid_file.display()))?;
        Ok(())
    }

    /// Makes a database unless it is there.
    ///
    /// # Errors
    /// What psql said.
    pub fn create_database(&self, binaries: &Path, name: &str) -> Result<(), String> {
        let psql = |sql: &str| {
            run(
                Command::new(binaries.join("psql"))
                    .args(["-XAtq", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres"])
                    .args(["-p", &self.port.to_string(), "-c", sql]),
                "psql",
            )
        };
        let literal = postgres_protocol::escape::escape_literal(name);
        let there = psql(&format!("SELECT 1 FROM pg_database WHERE datname = {literal}"))?;
        if there.stdout.is_empty() {
            let identifier = postgres_protocol::escape::escape_identifier(name);
            psql(&format!("CREATE DATABASE {identifier}"))?;
        }
        Ok(())
    }

    /// Kills the postmaster; its children notice and leave.
    ///
    /// # Errors
    /// When it was not running.
    pub fn crash(&mut self) -> Result<(), String> {
        signal(self.pid, Signal::Kill);
        let gone = wait_until_gone(self.pid);
        // The next start refuses while another postmaster's file lies there.
        let _ = std::fs::remove_file(self.dir.join("postmaster.pid"));
        if gone { Ok(()) } else { Err(format!("server {} does not die", self.pid)) }
    }

    /// Fast shutdown: clients are disconnected, data is written.
    pub fn stop(&mut self) {
        if self.pid != 0 {
            if let (Ok(binaries), true) = (find_binaries(), self.dir.exists()) {
                // A server that is gone already is what we want.
                let _ = run(
                    Command::new(binaries.join("pg_ctl"))
                        .args(["-w", "-m", "fast", "-D"])
                        .arg(&self.dir)
                        .arg("stop"),
                    "pg_ctl stop",
                );
            }
            self.pid = 0;
        }
    }
}

/// Sends a signal to a process that we started.
pub(super) fn signal(pid: u32, signal: Signal) {
    let signal = match signal {
        Signal::Term => rustix::process::Signal::TERM,
        Signal::Kill => rustix::process::Signal::KILL,
    };
    if let Some(pid) = Pid::from_raw(pid as i32) {
        // A process that is gone needs no signal.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn wait_until_gone(pid: u32) -> bool {
    let Some(pid) = Pid::from_raw(pid as i32) else { return true };
    for _ in 0..500 {
        if rustix::process::test_kill_process(pid).is_err() {
            return true;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    false
}

/// Servers refuse to run as root: their files and processes belong to `postgres` then.
fn give_to_postgres(dir: &Path) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let output = Command::new("chown")
        .arg("postgres")
        .arg(dir)
        .output()
        .map_err(|error| format!("cannot run chown: {error}"))?;
    check(output, "chown postgres")
        .map(drop)
        .map_err(|error| format!("{error}\nAs root, the servers need a user named postgres."))
}

/// Runs a tool of PostgreSQL, as `postgres` when we are root.
fn run(command: &mut Command, what: &str) -> Result<Output, String> {
    let output = if rustix::process::geteuid().is_root() {
        Command::new("setpriv")
            .args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir("/")
            .output()
    } else {
        command.output()
    };
    check(output.map_err(|error| format!("cannot run {what}: {error}"))?, what)
}

fn check(output: Output, what: &str) -> Result<Output, String> {
    if output.status.success() {
        return Ok(output);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what} failed: {}", text.trim()))
}
