//! The directory of a local cluster: one owner at a time, and what it was made with.
//!
//! ```text
//! DIR/lock           held by whoever runs the cluster, and by its guard; says the owner's pid
//! DIR/dev.json       number of shards and database, so that a second start cannot differ
//! DIR/cluster.json   while the cluster runs
//! DIR/shard-0 …      one PostgreSQL data directory each
//! DIR/router-0.toml  each router's configuration
//! ```

use std::fs::{File, TryLockError};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::file::{CLUSTER_FILE, read_json, write_json};
use super::process;

/// How long the guard of a killed owner may take to stop that owner's servers.
const GUARD_WAIT: Duration = Duration::from_secs(60);

/// What a cluster was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    database: String,
    shards: u32,
    /// All shards are in the catalog: from here on a missing one is lost data, not an unfinished
    /// first start.
    complete: bool,
}

/// A directory that this process owns while this value lives.
#[derive(Debug)]
pub(super) struct DataDir {
    pub(super) path: PathBuf,
    /// To be removed at the end.
    pub(super) temporary: bool,
    lock: File,
    made: Made,
}

impl DataDir {
    /// Makes or finds the directory, and takes it.
    ///
    /// # Errors
    /// One sentence and a hint: it cannot be used, is in use, or was made with other values.
    pub(super) fn open(path: Option<&Path>, database: &str, shards: u32) -> Result<Self, String> {
        let temporary = path.is_none();
        let path = match path {
            Some(path) => {
                std::fs::create_dir_all(path)
                    .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
                path.canonicalize()
                    .map_err(|error| format!("cannot use {}: {error}", path.display()))?
            }
            None => new_temporary()?,
        };
        let lock = take_lock(&path)?;
        let mut dir = Self {
            path,
            temporary,
            lock,
            made: Made { database: database.to_owned(), shards, complete: false },
        };
        dir.compare()?;
        // What an earlier owner left is not true any more.
        let _ = std::fs::remove_file(dir.path.join(CLUSTER_FILE));
        Ok(dir)
    }

    pub(super) fn shard(&self, id: u32) -> PathBuf {
        self.path.join(format!("shard-{id}"))
    }

    /// Keeps the directory taken for as long as a process holds this file.
    pub(super) fn share_lock(&self) -> Result<File, String> {
        self.lock.try_clone().map_err(|error| format!("cannot share the lock: {error}"))
    }

    /// Every shard is in the catalog.
    pub(super) fn complete(&mut self) -> Result<(), String> {
        self.made.complete = true;
        write_json(&self.path.join("dev.json"), &self.made)
    }

    /// Compares what is there with what is wanted.
    fn compare(&mut self) -> Result<(), String> {
        let shown = self.path.display();
        let record = self.path.join("dev.json");
        let has_shards = shard_dirs(&self.path).next().is_some();
        if !record.exists() {
            if has_shards {
                return Err(format!(
                    "{shown} holds shards but no dev.json, so it was not made by pgherd dev\nUse \
                     another --data-dir."
                ));
            }
            return write_json(&record, &self.made);
        }
        let found: Made = read_json(&record)?;
        if !found.complete && !has_shards {
            // A first start that came to nothing binds nobody.
            return write_json(&record, &self.made);
        }
        if found.shards != self.made.shards {
            return Err(format!(
                "{shown} holds {} shards, not {}\nStart with --shards {}, or use another \
                 --data-dir.",
                found.shards, self.made.shards, found.shards
            ));
        }
        if found.database != self.made.database {
            return Err(format!(
                "{shown} holds the database {}, not {}\nStart with --database {}, or use another \
                 --data-dir.",
                found.database, self.made.database, found.database
            ));
        }
        let lost = (0..found.shards).map(|id| self.shard(id)).find(|dir| !dir.exists());
        if let (true, Some(lost)) = (found.complete, lost) {
            return Err(format!(
                "{} is missing, and with it the rows of that shard\nPut it back, or start anew \
                 with an empty --data-dir.",
                lost.display()
            ));
        }
        self.made = found;
        Ok(())
    }
}

/// The shards' data directories that are there.
pub(super) fn shard_dirs(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(path).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let id = name.strip_prefix("shard-")?;
        (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())).then(|| entry.path())
    })
}

/// A directory that nobody has: the process' id, and a number for its further clusters.
fn new_temporary() -> Result<PathBuf, String> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let parent = std::env::temp_dir();
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("pgherd-{}-{number}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => return path.canonicalize().map_err(|error| error.to_string()),
            // Left by a process of an earlier boot that had this id.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("cannot create {}: {error}", path.display())),
        }
    }
}

/// Waits for the guard of a killed owner, but not for an owner that lives.
fn take_lock(dir: &Path) -> Result<File, String> {
    let path = dir.join("lock");
    let problem = |error| format!("cannot use {}: {error}", path.display());
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(problem)?;
    let deadline = Instant::now() + GUARD_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(problem(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        let owner: Option<u32> =
            std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        if owner.is_none_or(process::is_alive) || Instant::now() > deadline {
            let owner = owner.map_or_else(String::new, |pid| format!(" (process {pid})"));
            return Err(format!(
                "another pgherd dev{owner} runs on {}\nStop it first, or use another --data-dir.",
                dir.display()
            ));
        }
        process::pause();
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(problem)?;
    Ok(file)
}
