//! Moves ranges of rows from shard to shard while they are read and written.
//!
//! ```text
//!  copying ──► ready ──► cutting ──► moved ──► finishing ──► finished
//!     │        │  ▲  ◄───── abort      │
//!     ▼        ▼  └──── returning ◄────┘
//!   cancelling ──► cancelled
//! ```
//!
//! **The phase in the catalog alone says which shard is in charge**: in `copying`, `ready` and
//! `cutting` the one that has always been, in `moved` and `returning` the new one. The rows of the
//! one in charge flow to the other by logical replication (a [`Stream`]); changing owners is one
//! transaction of the catalog, and going back is the same thing with the sides changed.
//!
//! A stream is a publication with a row filter and a slot on one side, a subscription on the other,
//! a table of beats on both, and on the side that is left a *gate*: triggers on the moving rows that
//! take a shared advisory lock and look at a sequence. Whoever takes the lock alone holds up the
//! writers of just these rows, waits for those under way, prepared ones included, and may then close
//! the gate: a sequence shows its value to every snapshot, and survives a crash.
//!
//! All objects are named after the run and its shards, so the record that is written before the
//! first of them is made tells which may exist. Everything here may be done again: a run that was
//! killed is taken up from its phase.
//!
//! - `phase`: the machine without IO. `stream`: names and predicates. `run`: drives them.
//! - `throttle`: when rows are held up for others' sake; `brake`: how.
//! - `preflight`, `gate`, `publish`, `follow`, `verify`, `switch`, `cleanup`: the steps.
//! - `distribute`: plain tables become distributed ones. `proposal`: which ranges to move. `size`:
//!   how much that is. `shards`: connections. `rescue`: a dead command's closed gate.

mod brake;
pub mod cleanup;
pub mod distribute;
mod follow;
mod gate;
pub mod phase;
mod preflight;
pub mod proposal;
mod publish;
mod rescue;
mod run;
mod shards;
#[cfg(test)]
mod simulation;
pub mod size;
mod stream;
mod switch;
mod throttle;
mod verify;

use std::fmt;

use pgherd_shard_map::store::StoreError;

use crate::dial::DialError;
pub use rescue::{Answered, Seen, SeenStream, rescue};
pub use run::{Begin, Options, Run, Tell};
pub use shards::Shards;
pub use stream::{Direction, Stream, streams};
pub use switch::Late;
pub use throttle::Limits;
pub use verify::Verification;

/// The constraint that an error of a closed gate names: nothing of the statement was done, and its
/// rows are, or will in a moment be, another shard's.
pub const GATE: &str = "pgherd_gate";

/// Why a step could not be done, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: Some(hint.into()) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<String> for Problem {
    fn from(what: String) -> Self {
        Self { what, hint: None }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        error.to_string().into()
    }
}

impl From<DialError> for Problem {
    fn from(error: DialError) -> Self {
        error.to_string().into()
    }
}

impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Self {
        match (error.as_db_error(), std::error::Error::source(&error)) {
            (Some(said), _) => Self {
                what: format!("{} ({})", said.message(), said.code().code()),
                hint: said.hint().map(str::to_owned),
            },
            (None, Some(cause)) => cause.to_string().into(),
            (None, None) => error.to_string().into(),
        }
    }
}
