//! `pgherd dev` as a process of its own, for tests that stop or kill it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use pgherd::dev::ClusterFile;

/// A running `pgherd dev`; killed when dropped (its guard stops the rest).
#[derive(Debug)]
pub struct DevProcess {
    child: Child,
    /// What it printed up to the line `ready …`, which is the last.
    pub banner: String,
    output: BufReader<std::process::ChildStdout>,
}

/// Arguments that suit every test: free ports, small servers.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(crate::program());
    command
        .args(["dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .args(["--pg-conf", "fsync=off", "--pg-conf", "shared_buffers=32MB"])
        .args(args);
    command
}

impl DevProcess {
    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// It ends before.
    #[must_use]
    pub fn start(args: &[&str]) -> Self {
        let mut command = command(args);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("pgherd");
        let output = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let mut dev = Self { child, banner: String::new(), output };
        let mut line = String::new();
        while !line.starts_with("ready ") {
            line.clear();
            dev.output.read_line(&mut line).expect("its output is text");
            assert!(!line.is_empty(), "pgherd dev {args:?} ended: {}", dev.banner);
            dev.banner += &line;
        }
        dev
    }

    /// Runs one that is expected to fail.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn fail(args: &[&str]) -> Output {
        command(args).stdin(Stdio::null()).output().expect("pgherd dev starts")
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; whether it succeeded.
    ///
    /// # Panics
    /// It cannot be waited for.
    pub fn wait(&mut self) -> bool {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("its output is text");
        self.child.wait().expect("it ends").success()
    }
}

impl Drop for DevProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All processes of a cluster but the one that started it.
#[must_use]
pub fn processes(file: &ClusterFile) -> Vec<u32> {
    let routers = file.routers.iter().map(|router| router.pid);
    routers.chain(file.shards.iter().map(|shard| shard.pid)).collect()
}

/// A directory that is removed when dropped.
#[derive(Debug)]
pub struct TestDir(PathBuf);

impl TestDir {
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pgherd-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a directory of our own");
        Self(path)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// # Panics
    /// The path is no text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.to_str().expect("a path of ASCII")
    }
}

impl Default for TestDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // A cluster in it may be on its way out.
        let lock = self.0.join("lock");
        if let Ok(lock) = std::fs::File::open(lock) {
            let _ = lock.lock();
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
