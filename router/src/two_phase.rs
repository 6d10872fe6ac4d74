//! Commit over several shards: the protocol as values, without any IO.
//!
//! One participant is the *decider*: its marker row in `pgherd.tx` becoming visible is the
//! decision. Two machines know the protocol: the owner's [`Coordinator`], driven by the executor,
//! and recovery's [`Orphan`], driven by [`recovery`](crate::recovery), by any router at any time.
//! The same two are driven by the simulator of the tests (`simulation`), through crashes and
//! partitions.
//!
//! A [`Decision`] is made in three places only, each of which has heard that the decider's marker
//! says `committed`; without one there is no [`Request::CommitPrepared`].

mod coordinator;
mod gid;
mod orphan;
mod sql;

#[cfg(test)]
mod simulation;

pub use coordinator::{Action, Coordinator, Event, Outcome};
pub use gid::Gid;
pub use orphan::{End, Event as OrphanEvent, Orphan, Step};
pub use sql::{GATE, READ_MARKER, TOMBSTONE, TURN};

/// A participant: its place in the list that the commit was started with. 0 decides.
pub type Participant = usize;

/// The decider.
pub const DECIDER: Participant = 0;

/// What a participant is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// `INSERT` of the marker row, inside the transaction.
    Mark,
    /// The same, then `PREPARE TRANSACTION`.
    MarkAndPrepare,
    /// `COMMIT` where nothing was written.
    End,
    /// `COMMIT` on the decider.
    Commit,
    /// `ROLLBACK` of what is not prepared.
    RollBack,
    RollBackPrepared,
    CommitPrepared(Decision),
    /// Whether the marker is there: it is where the transaction was committed, whoever did it.
    FindMarker,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// The server answered with an error, or did another thing than asked.
    Refused,
    /// No such prepared transaction; no such marker.
    Missing,
    /// Nothing is known: the connection broke, or took too long.
    Lost,
}

/// What the decider's marker says after recovery's question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// For good.
    Committed,
    /// For good: the row keeps the owner from inserting its own.
    Aborted,
    /// The owner holds the row.
    Undecided,
    Unreachable,
}

/// Proof that the decider has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision(());

impl Decision {
    /// Reviewers: this is the only way to a decision. It stands for a visible marker row with the
    /// state `committed` on the decider.
    fn assertion() -> Self {
        Self(())
    }
}
