//! A PostgreSQL server of the test's own: in a directory under `/tmp`, on a unix socket (so without
//! a port), gone with the value that stands for it, also when the test fails or is killed.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) struct Server {
    dir: PathBuf,
    postgres: Child,
}

impl Server {
    /// Initialises and starts a server, and waits until it says that it is ready.
    pub(crate) fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/tmp/pgherd-map-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        if let Some((user, group)) = substitute() {
            chown(&dir, Some(user), Some(group)).unwrap();
        }
        let made = command("initdb", &dir)
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"])
            .arg("-D")
            .arg(dir.join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut postgres = command("postgres", &dir)
            .arg("-D")
            .arg(dir.join("data"))
            .arg("-k")
            .arg(&dir)
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=20"])
            .args(["-c", "lc_messages=C", "-c", "logging_collector=off"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(postgres.stderr.take().unwrap()).lines();
        let server = Self { dir, postgres };
        let ready =
            log.by_ref().map_while(Result::ok).any(|line| line.contains("is ready to accept"));
        assert!(ready, "the server did not start");
        // A full pipe would stop the server.
        std::thread::spawn(move || log.for_each(drop));
        server
    }

    /// For tokio-postgres and libpq.
    pub(crate) fn dsn(&self, database: &str) -> String {
        format!("host={} user=postgres dbname={database}", self.dir.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.postgres.kill().ok();
        self.postgres.wait().ok();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// A command of the newest installed PostgreSQL; it ends when the thread that starts it does, and
/// never runs as root.
fn command(name: &str, dir: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if substitute().is_some() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg(binaries().join(name)).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn binaries() -> PathBuf {
    let version = |path: &Path| -> u32 {
        path.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0)
    };
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    match installed.flatten().map(|entry| entry.path()).max_by_key(|path| version(path)) {
        Some(newest) => newest.join("bin"),
        None => PathBuf::new(),
    }
}

/// The user and group that stand in for root.
fn substitute() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("a postgres user");
    let mut ids = line.split(':').skip(2).map(|id| id.parse().unwrap());
    Some((ids.next().unwrap(), ids.next().unwrap()))
}
