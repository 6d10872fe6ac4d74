//! What requests are in SQL. A gid and shard numbers need no quoting.

use smallvec::{SmallVec, smallvec};

use super::{Gid, Request};

/// Recovery's question to the decider: whoever inserts first has decided. To be asked in READ
/// COMMITTED, so that the row which the insert met can be read after it, and with a short
/// `lock_timeout`: a row that its owner holds is no answer yet.
pub const TOMBSTONE: &str =
    "INSERT INTO pgherd.tx (gid, state) VALUES ($1, 'aborted') ON CONFLICT DO NOTHING";

/// What the marker says.
pub const READ_MARKER: &str = "SELECT state FROM pgherd.tx WHERE gid = $1";

/// The decision must survive a crash of the decider, whatever the client has set: the others'
/// COMMIT PREPARED does.
const DURABLE: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'local', true) \
                       WHERE pg_catalog.current_setting('synchronous_commit') = 'off'";

/// The gate: an advisory lock of each shard, whose key is `pghr`. Deciders share it from their
/// marker to their commit; a reader that has it for itself keeps decisions off for a moment
/// ([`consistent_read`](crate::consistent_read)).
pub const GATE: &str = "1885825138, 0";

/// Whose turn it is to close the gate: of the first shard.
pub const TURN: &str = "1885825138, 1";

impl Request {
    /// To be sent together, one Query message each.
    #[must_use]
    pub fn statements(self, gid: &Gid, participants: &str) -> SmallVec<[String; 3]> {
        let mark = || {
            format!(
                "INSERT INTO pgherd.tx (gid, state, participants) \
                 VALUES ('{gid}', 'committed', '{participants}')"
            )
        };
        match self {
            Self::Mark => smallvec![format!(
                "{DURABLE}; SELECT pg_catalog.pg_advisory_xact_lock_shared({GATE}); {}",
                mark()
            )],
            Self::MarkAndPrepare => smallvec![mark(), format!("PREPARE TRANSACTION '{gid}'")],
            Self::Commit | Self::End => smallvec!["COMMIT".to_owned()],
            Self::RollBack => smallvec!["ROLLBACK".to_owned()],
            Self::RollBackPrepared => smallvec![format!("ROLLBACK PREPARED '{gid}'")],
            Self::CommitPrepared(_) => smallvec![format!("COMMIT PREPARED '{gid}'")],
            Self::FindMarker => smallvec![format!("SELECT FROM pgherd.tx WHERE gid = '{gid}'")],
        }
    }

    /// The command tag that says that it was done.
    #[must_use]
    pub fn done_tag(self) -> &'static str {
        match self {
            Self::Mark => "INSERT 0 1",
            Self::MarkAndPrepare => "PREPARE TRANSACTION",
            Self::Commit | Self::End => "COMMIT",
            Self::RollBack => "ROLLBACK",
            Self::RollBackPrepared => "ROLLBACK PREPARED",
            Self::CommitPrepared(_) => "COMMIT PREPARED",
            Self::FindMarker => "SELECT 1",
        }
    }

    /// The command tag, or the SQLSTATE of the error, that says that it is not there.
    #[must_use]
    pub fn is_missing(self, tag: &str, sqlstate: Option<&str>) -> bool {
        match self {
            Self::FindMarker => tag == "SELECT 0",
            Self::CommitPrepared(_) | Self::RollBackPrepared => sqlstate == Some("42704"),
            _ => false,
        }
    }
}
