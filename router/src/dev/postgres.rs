//! One PostgreSQL server: initdb, start, stop, crash. Runs as the user `postgres` when we are root.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::addresses::free_port;
use super::process;

/// A free port may be taken before the server listens on it; then another one is tried.
const PORT_TRIES: u32 = 5;

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    pub port: u16,
    /// Of the postmaster.
    pub pid: u32,
    dir: PathBuf,
    conf: Vec<String>,
}

/// The directory of `initdb`, `pg_ctl` and `postgres`.
///
/// # Errors
/// Where it was looked for, and how to install it.
pub fn find_binaries() -> Result<PathBuf, String> {
    let complete = |dir: &Path| dir.join("initdb").exists() && dir.join("pg_ctl").exists();
    if let Some(dir) = std::env::var_os("PG_BIN").map(PathBuf::from) {
        return if complete(&dir) {
            Ok(dir)
        } else {
            Err(format!(
                "PG_BIN is {}, where no initdb and pg_ctl are\nSet it to the directory of \
                 initdb, or unset it.",
                dir.display()
            ))
        };
    }
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
    let installed = versions.into_iter().rev().map(|(_, dir)| dir);
    let from_path = std::env::var_os("PATH").unwrap_or_default();
    installed.chain(std::env::split_paths(&from_path)).find(|dir| complete(dir)).ok_or_else(|| {
        "no PostgreSQL server was found in /usr/lib/postgresql or PATH\nInstall it (Debian: \
         apt-get install postgresql), or set PG_BIN to the directory of initdb."
            .to_owned()
    })
}

/// Servers refuse to run as root, so root needs somebody to run them.
///
/// # Errors
/// That user is missing.
pub(super) fn check_user() -> Result<(), String> {
    if !is_root() {
        return Ok(());
    }
    let known = Command::new("id").args(["-u", "postgres"]).output();
    if known.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    Err("PostgreSQL refuses to run as root, and there is no user postgres\nCreate it (useradd \
         --system postgres), or start pgherd dev as another user."
        .to_owned())
}

impl Postgres {
    /// Makes the data directory unless it is there.
    ///
    /// # Errors
    /// What the tool said, and a hint where the cause is known.
    pub fn init(binaries: &Path, dir: &Path, initdb_args: Option<&str>) -> Result<(), String> {
        if dir.exists() {
            return Ok(());
        }
        // Made under another name, so that a start that was killed leaves no half of a server.
        let fresh = dir.with_extension("new");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh)
                .map_err(|error| format!("cannot remove {}: {error}", fresh.display()))?;
        }
        std::fs::create_dir(&fresh)
            .map_err(|error| format!("cannot create {}: {error}", fresh.display()))?;
        give_to_postgres(&fresh)?;
        let args = initdb_args.unwrap_or("--locale=C.UTF-8").split_whitespace();
        run(
            Command::new(binaries.join("initdb"))
                .arg("-D")
                .arg(&fresh)
                .args(["--auth=trust", "-U", "postgres", "-E", "UTF8", "--no-sync"])
                .args(args),
            "initdb",
        )
        .map_err(|error| {
            format!("{error}\nAre the --initdb-args right? initdb --help has them.")
        })?;
        std::fs::rename(&fresh, dir)
            .map_err(|error| format!("cannot rename {}: {error}", fresh.display()))
    }

    /// Starts the server in `dir` on a free port; one that an earlier owner left is stopped first.
    ///
    /// # Errors
    /// The end of its log, and a hint where the cause is known.
    pub fn start(binaries: &Path, dir: &Path, conf: &[String]) -> Result<Self, String> {
        stop_leftover(dir)?;
        let mut server = Self { port: 0, pid: 0, dir: dir.to_owned(), conf: conf.to_vec() };
        let mut tries = 0;
        loop {
            server.port = free_port()?;
            tries += 1;
            match server.restart(binaries) {
                Err(error) if error.contains("Address already in use") && tries < PORT_TRIES => {}
                other => return other.map(|()| server),
            }
        }
    }

    /// Starts it (again) on its port.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(super) fn restart(&mut self, binaries: &Path) -> Result<(), String> {
        remove_stale_pid_file(&self.dir);
        let log = self.dir.join("server.log");
        let before = std::fs::metadata(&log).map_or(0, |data| data.len() as usize);
        let started = run(
            Command::new(binaries.join("pg_ctl"))
                .args(["-w", "-t", "60", "-D"])
                .arg(&self.dir)
                .arg("-l")
                .arg(&log)
                .args(["-o", &self.options(), "start"]),
            "pg_ctl start",
        );
        if started.is_err() {
            let log = std::fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(log.get(before..).unwrap_or_default()).into_owned();
            return Err(start_failure(&self.dir, &text));
        }
        self.pid = pid_in_file(&self.dir)
            .ok_or_else(|| format!("cannot read {}", self.dir.join("postmaster.pid").display()))?;
        Ok(())
    }

    /// Settings for the command line, quoted for the shell that `pg_ctl` starts.
    fn options(&self) -> String {
        let fixed = [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".to_owned(),
            // A path to a socket must be short, and a data directory's need not be.
            "unix_socket_directories=".to_owned(),
            "max_connections=300".to_owned(),
            "max_prepared_transactions=300".to_owned(),
            "wal_level=logical".to_owned(),
            // A server begins to follow another one once in so long, by default in five seconds.
            "wal_retrieve_retry_interval=200ms".to_owned(),
        ];
        let settings = fixed.iter().chain(&self.conf);
        settings
            .map(|setting| format!("-c '{}'", setting.replace('\'', r"'\''")))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Kills the postmaster and its children, all at once.
    ///
    /// # Errors
    /// When one does not die.
    pub(super) fn crash(&mut self) -> Result<(), String> {
        let mut pids = process::children(self.pid);
        pids.push(self.pid);
        // The postmaster goes first: it would start children anew.
        for pid in pids.iter().rev() {
            process::kill(*pid);
        }
        if process::wait_until_gone(&pids) {
            Ok(())
        } else {
            Err(format!("server {} does not die", self.pid))
        }
    }

    /// Stops it; `immediate` leaves the data to crash recovery.
    pub fn stop(&mut self, immediate: bool) {
        let mode = if immediate { "immediate" } else { "fast" };
        if self.pid != 0 && running(&self.dir).is_some() {
            // The guard looks once more at what did not stop.
            let _ = stop(&self.dir, mode);
        }
        self.pid = 0;
    }
}

/// Stops a server whose owner has died.
pub(super) fn stop_leftover(dir: &Path) -> Result<(), String> {
    if running(dir).is_some() { stop(dir, "fast") } else { Ok(()) }
}

/// A server refuses to start while the id in an old file is some process': another one by now, or
/// one that nobody has waited for. Any other old file it judges itself.
fn remove_stale_pid_file(dir: &Path) {
    if running(dir).is_none() && pid_in_file(dir).is_some_and(process::is_known) {
        // If it stays, the server says why it does not start.
        let _ = std::fs::remove_file(dir.join("postmaster.pid"));
    }
}

fn stop(dir: &Path, mode: &str) -> Result<(), String> {
    let pg_ctl = find_binaries()?.join("pg_ctl");
    run(Command::new(pg_ctl).args(["-w", "-m", mode, "-D"]).arg(dir).arg("stop"), "pg_ctl stop")
        .map(drop)
}

/// The postmaster that works in `dir`. An id in a file says little after a restart of the machine
/// or its container, so the process must stand in the directory, where that can be seen.
fn running(dir: &Path) -> Option<u32> {
    let pid = pid_in_file(dir).filter(|pid| process::is_alive(*pid))?;
    match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(works_in) => (works_in == dir).then_some(pid),
        Err(_) => Some(pid),
    }
}

fn pid_in_file(dir: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(dir.join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// What the log says about a start that failed, on one line, and what can be done.
fn start_failure(dir: &Path, log: &str) -> String {
    let reason = log.lines().find(|line| line.contains("FATAL:") || line.contains("PANIC:"));
    let reason = reason.or_else(|| log.lines().last()).unwrap_or("it said nothing");
    let in_use = log.lines().find(|line| line.contains("Address already in use"));
    let reason = in_use.unwrap_or(reason);
    let hint = if log.contains("shared memory") || log.contains("semaphores") {
        "The machine has not enough memory or semaphores: take fewer --shards, or --pg-conf \
         shared_buffers=16MB --pg-conf max_connections=50."
    } else {
        "The usual cause is a --pg-conf that the server refuses."
    };
    format!("the server in {} did not start: {reason}\n{hint}", dir.display())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Root's directories go to the user that runs the servers, who must be able to reach them.
fn give_to_postgres(dir: &Path) -> Result<(), String> {
    if !is_root() {
        return Ok(());
    }
    let output = Command::new("chown").arg("postgres:").arg(dir).output();
    check(output.map_err(|error| format!("cannot run chown: {error}"))?, "chown postgres")?;
    run(Command::new("test").arg("-w").arg(dir.join(".")), "test").map(drop).map_err(|_| {
        format!(
            "{} cannot be reached by the user postgres, who runs the servers when root starts \
             them\nUse a --data-dir that every user may enter, such as one under /var/lib.",
            dir.display()
        )
    })
}

/// Runs a tool of PostgreSQL, as `postgres` when we are root.
fn run(command: &mut Command, what: &str) -> Result<Output, String> {
    let output = if is_root() {
        Command::new("setpriv")
            .args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir("/")
            // Ours is closed to it, and libpq in a server looks for certificates there.
            .env("HOME", "/")
            .output()
    } else {
        command.output()
    };
    check(output.map_err(|error| format!("cannot run {what}: {error}"))?, what)
}

/// Tools say the reason first; the rest is for people who know them.
fn check(output: Output, what: &str) -> Result<Output, String> {
    if output.status.success() {
        return Ok(output);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let reason = text.lines().find(|line| line.contains("error:")).or_else(|| text.lines().next());
    Err(format!("{what} failed: {}", reason.unwrap_or("it said nothing").trim()))
}
