//! Why the catalog could not be read or changed.

use thiserror::Error;

use crate::{Epoch, MapError, ShardId};

#[derive(Debug, Error)]
pub enum StoreError {
    /// What PostgreSQL said, or the connection to it; `code` is empty for the latter.
    #[error("{message}{}", shown(code))]
    Postgres { code: String, message: String },
    #[error("the catalog did not answer in time")]
    Timeout,
    /// The schema `pgherd` is not there (42P01, 3F000), is a shard's (42883), or has no cluster in
    /// it.
    #[error("this database holds no pgherd catalog: run `pgherd cluster init` first")]
    NotInitialized,
    /// There is a cluster in it, but not all that this version needs.
    #[error(
        "the catalog was made by an older version of pgherd: `pgherd cluster init` brings it up to \
         date"
    )]
    OldCatalog,
    /// Somebody else changed the catalog first: load it again and decide anew.
    #[error("the map is at epoch {current}, the change was made for {expected}")]
    StaleEpoch { current: Epoch, expected: Epoch },
    #[error("this server is shard {0} of the cluster already")]
    KnownShard(ShardId),
    #[error("this server belongs to the cluster \"{found}\", not to \"{expected}\"")]
    OtherCluster { found: String, expected: String },
    /// Keys are hashed as the bytes that clients send, so these must be what the server stores.
    #[error("the database has the encoding {0}; a shard needs UTF8")]
    Encoding(String),
    /// Somebody else has taken the run of `pgherd reshard` further, or back.
    #[error("{0}")]
    OtherPhase(String),
    /// Every session may read the addresses.
    #[error("the address of a shard may not contain a password")]
    PasswordInAddress,
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Raised by the catalog's own functions.
const STALE_EPOCH: &str = "PGH01";
const KNOWN_SHARD: &str = "PGH02";
const UNKNOWN_SHARD: &str = "PGH03";
const OTHER_PHASE: &str = "PGH04";

impl StoreError {
    /// A stale epoch says which one the caller had.
    pub(super) fn expecting(self, expected: Epoch) -> Self {
        match self {
            Self::StaleEpoch { current, .. } => Self::StaleEpoch { current, expected },
            other => other,
        }
    }

    pub(super) fn names_unknown_shard(&self) -> bool {
        matches!(self, Self::Postgres { code, .. } if code == UNKNOWN_SHARD)
    }
}

fn shown(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!(" ({code})") }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            let source = std::error::Error::source(&error);
            let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
            if io.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut) {
                return Self::Timeout;
            }
            let message = match source {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            return Self::Postgres { code: String::new(), message };
        };
        let number = || db.detail().and_then(|detail| detail.parse().ok());
        match db.code().code() {
            "42P01" | "3F000" | "42883" => Self::NotInitialized,
            "23514" if db.constraint() == Some("no_password") => Self::PasswordInAddress,
            STALE_EPOCH => {
                let current = Epoch(number().unwrap_or_default());
                Self::StaleEpoch { current, expected: current }
            }
            KNOWN_SHARD => Self::KnownShard(ShardId(number().unwrap_or_default() as u32)),
            OTHER_PHASE => Self::OtherPhase(db.message().to_owned()),
            code => Self::Postgres { code: code.to_owned(), message: db.message().to_owned() },
        }
    }
}
