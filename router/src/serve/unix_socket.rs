//! The Unix socket beside the TCP port: `DIR/.s.PGSQL.PORT`, where libpq looks for it.
//!
//! The socket is made under another name and moved into place, so that clients never meet one that
//! nobody listens on yet, and a router that takes over from another replaces its socket in one
//! step. What a crashed router has left behind is replaced in the same way.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// A socket file that clients can reach; removed when dropped, unless another router has put its
/// own in its place.
pub(super) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl UnixSocket {
    /// # Errors
    /// One sentence: the file, and what is wrong.
    pub(super) fn bind(dir: &Path, port: u16, mode: u32) -> Result<Self, String> {
        let path = dir.join(format!(".s.PGSQL.{port}"));
        let fresh = dir.join(format!(".s.PGSQL.{port}.{}", std::process::id()));
        let problem =
            |error: std::io::Error| format!("cannot listen on {}: {error}", path.display());
        let listener = UnixListener::bind(&fresh).map_err(problem)?;
        let placed = std::fs::set_permissions(&fresh, PermissionsExt::from_mode(mode))
            .and_then(|()| std::fs::metadata(&fresh))
            .and_then(|file| std::fs::rename(&fresh, &path).map(|()| file.ino()));
        match placed {
            Ok(inode) => Ok(Self { listener, path, inode }),
            Err(error) => {
                // It is in nobody's way.
                drop(std::fs::remove_file(&fresh));
                Err(problem(error))
            }
        }
    }

    /// Cancel safe.
    pub(super) async fn accept(&self) -> std::io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if std::fs::metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            // A file that stays is replaced at the next start.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_successor_takes_the_place_and_keeps_it() {
        let dir = std::env::temp_dir().join(format!("pgherd-socket-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join(".s.PGSQL.6543");
        let first = UnixSocket::bind(&dir, 6543, 0o700).expect("it is free");
        assert_eq!(std::fs::metadata(&path).expect("it is there").mode() & 0o777, 0o700);
        let second = UnixSocket::bind(&dir, 6543, 0o777).expect("it is taken over");
        drop(first);
        let connected = tokio::join!(UnixStream::connect(&path), second.accept());
        assert!(connected.0.is_ok() && connected.1.is_ok());
        drop(second);
        assert!(!path.exists());
        std::fs::remove_dir(&dir).expect("nothing is left in it");
    }
}
