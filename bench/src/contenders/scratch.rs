//! A temporary directory that is gone at the end.

use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// # Errors
    /// When it exists already or cannot be made.
    pub(super) fn create(keep: bool) -> Result<Self, String> {
        // Readable for all: as root, the servers run as another user.
        let path = std::env::temp_dir().join(format!("pgherd-bench-{}", std::process::id()));
        std::fs::create_dir(&path)
            .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        Ok(Self { path, keep })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept {}", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_gone_with_its_contents_unless_it_is_kept() {
        let scratch = Scratch::create(false).expect("a new directory");
        let path = scratch.path().to_owned();
        std::fs::write(path.join("file"), "x").expect("a file in it");
        drop(scratch);
        assert!(!path.exists());
        drop(Scratch::create(true).expect("a new directory"));
        assert!(path.exists());
        std::fs::remove_dir(&path).expect("it is empty");
    }
}
