//! A model of one PostgreSQL server: what the protocol relies on, and nothing else.
//!
//! Markers with a unique key, a transaction per session that ends with its session unless it is
//! prepared, and prepared transactions that last. A crash keeps what is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Mutant;
use crate::two_phase::{Answer, Request, Verdict};

pub(super) type Tx = usize;

/// The owner's transaction in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// It may have written, and is not yet marked.
    Open,
    /// The marker is inserted, seen by nobody, and holds its key.
    Marked,
    /// An error: only its end is accepted.
    Failed,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    /// `true` for `committed`, and when it was written.
    pub(super) markers: BTreeMap<Tx, (bool, Instant)>,
    /// With a marker that holds its key.
    pub(super) prepared: BTreeSet<Tx>,
    /// How often what the transaction wrote was committed.
    pub(super) applied: BTreeMap<Tx, u32>,
    /// The order in which transactions became visible.
    pub(super) history: Vec<Tx>,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) up: bool,
    pub(super) disk: Disk,
    /// Sessions in a transaction.
    pub(super) sessions: BTreeMap<Tx, Work>,
    /// The disk as it was while something was prepared, for a standby that is behind.
    pub(super) past: Vec<(Instant, Disk)>,
    /// What a crash goes back to, where a commit was not flushed.
    unflushed: Option<Disk>,
    mutant: Option<Mutant>,
}

impl Shard {
    pub(super) fn new(mutant: Option<Mutant>) -> Self {
        Self {
            up: true,
            disk: Disk::default(),
            sessions: BTreeMap::new(),
            past: Vec::new(),
            unflushed: None,
            mutant,
        }
    }

    /// A request in the owner's session. `fails` lets the statement meet an error of its own.
    pub(super) fn run(&mut self, tx: Tx, request: Request, fails: bool, now: Instant) -> Answer {
        let work = self.sessions.get(&tx).copied();
        match (request, work) {
            (Request::Mark | Request::MarkAndPrepare, Some(Work::Open)) => {
                let taken = self.disk.markers.contains_key(&tx) || self.disk.prepared.contains(&tx);
                if fails || taken {
                    // PREPARE of a failed transaction rolls it back.
                    match request {
                        Request::Mark => self.sessions.insert(tx, Work::Failed),
                        _ => self.sessions.remove(&tx),
                    };
                    return Answer::Refused;
                }
                if request == Request::Mark {
                    self.sessions.insert(tx, Work::Marked);
                } else {
                    self.sessions.remove(&tx);
                    self.disk.prepared.insert(tx);
                    self.past.push((now, self.disk.clone()));
                    self.unflushed = None;
                }
                Answer::Done
            }
            (Request::Commit, Some(Work::Marked)) => {
                self.sessions.remove(&tx);
                if fails {
                    return Answer::Refused;
                }
                let before = self.disk.clone();
                self.apply(tx, now);
                if self.mutant == Some(Mutant::DecidesWithoutFlush) {
                    self.unflushed = Some(before);
                }
                Answer::Done
            }
            (Request::Commit, Some(_)) => {
                self.sessions.remove(&tx);
                Answer::Refused
            }
            (Request::End, Some(Work::Open)) => {
                self.sessions.remove(&tx);
                if fails { Answer::Refused } else { Answer::Done }
            }
            (Request::RollBack, _) => {
                self.sessions.remove(&tx);
                Answer::Done
            }
            (Request::Mark | Request::MarkAndPrepare | Request::Commit | Request::End, _) => {
                Answer::Refused
            }
            _ => self.run_apart(tx, request, now),
        }
    }

    /// A request that needs no transaction of the session's.
    pub(super) fn run_apart(&mut self, tx: Tx, request: Request, now: Instant) -> Answer {
        match request {
            Request::CommitPrepared(_) if self.disk.prepared.remove(&tx) => {
                self.apply(tx, now);
                if self.mutant == Some(Mutant::MarksDeciderOnly) {
                    self.disk.markers.remove(&tx);
                }
                Answer::Done
            }
            Request::RollBackPrepared if self.disk.prepared.remove(&tx) => Answer::Done,
            Request::FindMarker if self.disk.markers.contains_key(&tx) => Answer::Done,
            Request::CommitPrepared(_) | Request::RollBackPrepared | Request::FindMarker => {
                Answer::Missing
            }
            _ => Answer::Refused,
        }
    }

    fn apply(&mut self, tx: Tx, now: Instant) {
        *self.disk.applied.entry(tx).or_default() += 1;
        self.disk.history.push(tx);
        self.disk.markers.insert(tx, (true, now));
        self.unflushed = None;
    }

    /// Recovery's question: INSERT `aborted` ON CONFLICT DO NOTHING, then read.
    pub(super) fn ask(&mut self, tx: Tx, now: Instant) -> Verdict {
        let held =
            self.sessions.get(&tx) == Some(&Work::Marked) || self.disk.prepared.contains(&tx);
        if held {
            return match self.mutant {
                Some(Mutant::RacesOwner) => Verdict::Aborted,
                _ => Verdict::Undecided,
            };
        }
        if self.mutant == Some(Mutant::LeavesNoTombstone) && !self.disk.markers.contains_key(&tx) {
            return Verdict::Aborted;
        }
        let (committed, _) = *self.disk.markers.entry(tx).or_insert((false, now));
        match committed && self.mutant != Some(Mutant::IgnoresMarker) {
            true => Verdict::Committed,
            false => Verdict::Aborted,
        }
    }

    /// The connection is gone: what is not prepared is rolled back.
    pub(super) fn end_session(&mut self, tx: Tx) {
        self.sessions.remove(&tx);
    }

    pub(super) fn crash(&mut self) {
        self.up = false;
        self.sessions.clear();
        if let Some(disk) = self.unflushed.take() {
            self.disk = disk;
        }
    }
}
