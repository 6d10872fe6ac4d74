//! The guard: a child that outlives a killed owner, for just long enough to clean up.
//!
//! It waits for the end of its standard input, whose other end only the owner has. Then it stops
//! what still runs under the directory and removes the directory if it was temporary. It holds
//! the directory's lock meanwhile, so a second owner waits for it. An owner that stops in order
//! closes the pipe last, and the guard finds nothing to do but to remove.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::data_dir::{DataDir, shard_dirs};
use super::{postgres, process};

/// The guard of a running cluster.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
    input: Option<ChildStdin>,
}

impl Guard {
    pub(super) fn start(program: &Path, dir: &DataDir) -> Result<Self, String> {
        let mut child = Command::new(program)
            .arg("dev-guard")
            .args(dir.temporary.then_some("--temporary"))
            .arg(&dir.path)
            .stdin(Stdio::piped())
            .stdout(dir.share_lock()?)
            // Control-C in a terminal reaches the owner's group, and the guard is not of it.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let input = child.stdin.take();
        Ok(Self { child, input })
    }

    /// Lets it clean up and waits for it.
    pub(super) fn finish(&mut self) {
        self.input = None;
        process::reap(&mut self.child);
    }
}

/// What the guard process does: waits for its owner's end, then cleans up.
///
/// # Errors
/// One sentence: what is left behind.
pub fn guard(dir: &Path, temporary: bool) -> Result<(), String> {
    // Nobody writes; an error is as good as the end.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    for shard in shard_dirs(dir) {
        postgres::stop_leftover(&shard)?;
    }
    if temporary && dir.exists() {
        std::fs::remove_dir_all(dir)
            .map_err(|error| format!("cannot remove {}: {error}", dir.display()))?;
    }
    Ok(())
}
