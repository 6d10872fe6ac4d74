//! What tests share: a local cluster, psql and pgbench, waiting for a condition, crashes, and a
//! small wire client.
//!
//! The cluster is the one of `pgherd dev` ([`pgherd::dev::LocalCluster`]), on free ports and
//! without fsync; dropping it stops it, also when a test panics or is killed.

pub mod clients;
pub mod dev;
pub mod hostile;
pub mod parity;
pub mod proxy;
pub mod router;
pub mod wire;
pub mod wire_scripts;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use pgherd::dev::{DevOptions, LocalCluster};

/// How long [`wait_until`] waits: longer than anything that works takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The `pgherd` command, built beside the tests.
///
/// # Panics
/// It was not built.
#[must_use]
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.ancestors().nth(2).expect("target/debug/deps/test");
    let program = target.join("pgherd-under-test");
    assert!(program.exists(), "{} is missing: cargo build -p pgherd-tests", program.display());
    program
}

/// A cluster of four shards and one router.
///
/// # Panics
/// It does not start.
#[must_use]
pub fn cluster() -> LocalCluster {
    cluster_with(|_| {})
}

/// A cluster with other options.
///
/// # Panics
/// It does not start.
#[must_use]
pub fn cluster_with(change: impl FnOnce(&mut DevOptions)) -> LocalCluster {
    let mut options = options();
    change(&mut options);
    LocalCluster::start(&options, &|_| {}).expect("a local cluster starts")
}

/// What test clusters are started with.
#[must_use]
pub fn options() -> DevOptions {
    DevOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        http: ([127, 0, 0, 1], 0).into(),
        pg_conf: vec!["fsync=off".into(), "shared_buffers=32MB".into()],
        program: Some(program()),
        ..DevOptions::default()
    }
}

/// The rows of one statement, or the error with its SQLSTATE.
///
/// # Panics
/// psql is not installed.
pub fn psql(dsn: &str, sql: &str) -> String {
    let output = Command::new("psql")
        .args(["-XAtq", "-v", "VERBOSITY=verbose", dsn, "-c", sql])
        .output()
        .expect("psql runs");
    let text = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// The same, of a statement that must succeed.
///
/// # Panics
/// It does not.
pub fn run(dsn: &str, sql: &str) -> String {
    let output = Command::new("psql").args(["-XAtq", dsn, "-c", sql]).output().expect("psql runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{sql}: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs pgbench, which must succeed.
///
/// # Panics
/// It does not.
pub fn pgbench(dsn: &str, args: &[&str]) {
    let output = Command::new("pgbench").args(args).arg(dsn).output().expect("pgbench runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pgbench {args:?}: {text}");
}

/// Waits for an event that nobody announces.
///
/// # Panics
/// It does not come within [`DEADLINE`].
pub fn wait_until(event: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !happened() {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain: {event}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Whether a process is there and works: one that ended, but was not waited for, does not.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Ends a process that this test started, as a crash would.
///
/// # Panics
/// It is not there.
pub fn kill(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}

/// Asks a process that this test started to stop.
///
/// # Panics
/// It is not there.
pub fn terminate(pid: u32) {
    signal(pid, rustix::process::Signal::TERM);
}

/// Sends a signal to a process that this test started.
///
/// # Panics
/// It is not there.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process id");
    rustix::process::kill_process(pid, signal).expect("the process is there");
}
