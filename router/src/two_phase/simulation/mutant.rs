//! Ways to break the protocol, each in one place between the machines and the world.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// The client is told when the decider's COMMIT is sent, not when it is answered.
    AcknowledgesBeforeDecision,
    /// PREPARE counts as done when it is sent.
    CommitsBeforeAllArePrepared,
    /// A COMMIT whose answer is lost counts as rolled back.
    GuessesLostCommit,
    /// The decider's COMMIT is not flushed (`synchronous_commit = off`).
    DecidesWithoutFlush,
    /// Recovery only reads: a missing marker counts as aborted, and nothing keeps the owner off.
    LeavesNoTombstone,
    /// Recovery rolls back whatever the marker says.
    IgnoresMarker,
    /// Recovery does not wait for the owner's lock on the marker.
    RacesOwner,
    /// Markers are deleted at once, also of transactions that are still prepared.
    ForgetsMarkers,
    /// Markers that nobody lists are deleted at once: none is left when a standby is promoted.
    KeepsMarkersTooShort,
    /// Only the decider is marked: what recovery has done looks lost to the owner.
    MarksDeciderOnly,
    /// A reader lists what is prepared only when it has its snapshot.
    ListsAfterSnapshot,
    /// A reader looks back to a snapshot that is younger than another shard's list.
    LooksBackTooLittle,
    /// A reader reads markers only.
    IgnoresPrepared,
    /// A reader asks nobody for markers that it has not been told of.
    TakesUnknownForVisible,
}

impl Mutant {
    pub(super) const ALL: [Self; 14] = [
        Self::AcknowledgesBeforeDecision,
        Self::CommitsBeforeAllArePrepared,
        Self::GuessesLostCommit,
        Self::DecidesWithoutFlush,
        Self::LeavesNoTombstone,
        Self::IgnoresMarker,
        Self::RacesOwner,
        Self::ForgetsMarkers,
        Self::KeepsMarkersTooShort,
        Self::MarksDeciderOnly,
        Self::ListsAfterSnapshot,
        Self::LooksBackTooLittle,
        Self::IgnoresPrepared,
        Self::TakesUnknownForVisible,
    ];
}
