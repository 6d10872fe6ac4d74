//! Recovery's side: one prepared transaction on one shard, whose owner may be dead, slow, or about
//! to finish it.
//!
//! ```text
//! Asking ── committed ─► Resolving ── done ────────────────► finished
//!   │  └─── aborted ────►    │
//!   │                        └ missing, committed ─► Checking ── marked ──► finished by another
//!   └ undecided, unreachable: left for the next time              └─ not ──► lost: an alarm
//! ```
//!
//! Any router may do this at any time, several at the same time.

use super::{Answer, Decision, Request, Verdict};

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask the decider: insert `aborted` unless a marker is there; what does it say now?
    Ask,
    /// On the shard that has it prepared.
    Send(Request),
    Over(End),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Asked(Verdict),
    Answered(Answer),
}

/// How this attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Committed,
    RolledBack,
    /// Somebody else was quicker.
    ByAnother,
    /// The owner is still deciding, as far as can be seen.
    Undecided,
    /// A server could not be asked, or refused: the next time, perhaps.
    Left,
    /// Committed, but neither prepared nor marked on this shard: it has lost data.
    Lost,
}

/// One attempt.
#[derive(Debug)]
pub struct Orphan(State);

#[derive(Debug)]
enum State {
    Asking,
    Committing(Decision),
    RollingBack,
    Checking,
    Over(End),
}

impl Orphan {
    #[must_use]
    pub fn new() -> Self {
        Self(State::Asking)
    }

    #[must_use]
    pub fn step(&self) -> Step {
        match self.0 {
            State::Asking => Step::Ask,
            State::Committing(decision) => Step::Send(Request::CommitPrepared(decision)),
            State::RollingBack => Step::Send(Request::RollBackPrepared),
            State::Checking => Step::Send(Request::FindMarker),
            State::Over(end) => Step::Over(end),
        }
    }

    /// What came of the last step.
    pub fn handle(&mut self, event: Event) {
        self.0 = match (&self.0, event) {
            (State::Asking, Event::Asked(verdict)) => match verdict {
                Verdict::Committed => State::Committing(Decision::assertion()),
                Verdict::Aborted => State::RollingBack,
                Verdict::Undecided => State::Over(End::Undecided),
                Verdict::Unreachable => State::Over(End::Left),
            },
            (State::Committing(_), Event::Answered(answer)) => match answer {
                Answer::Done => State::Over(End::Committed),
                Answer::Missing => State::Checking,
                Answer::Refused | Answer::Lost => State::Over(End::Left),
            },
            (State::RollingBack, Event::Answered(answer)) => State::Over(match answer {
                Answer::Done => End::RolledBack,
                Answer::Missing => End::ByAnother,
                Answer::Refused | Answer::Lost => End::Left,
            }),
            (State::Checking, Event::Answered(answer)) => State::Over(match answer {
                Answer::Done => End::ByAnother,
                Answer::Missing => End::Lost,
                Answer::Refused | Answer::Lost => End::Left,
            }),
            _ => return,
        };
    }
}

impl Default for Orphan {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_alone_decides() {
        let cases = [
            (Verdict::Committed, Some("CommitPrepared")),
            (Verdict::Aborted, Some("RollBackPrepared")),
            (Verdict::Undecided, None),
            (Verdict::Unreachable, None),
        ];
        for (verdict, sends) in cases {
            let mut orphan = Orphan::new();
            orphan.handle(Event::Answered(Answer::Done));
            assert_eq!(orphan.step(), Step::Ask);
            orphan.handle(Event::Asked(verdict));
            match (orphan.step(), sends) {
                (Step::Send(request), Some(name)) => {
                    assert!(format!("{request:?}").starts_with(name), "{verdict:?}: {request:?}");
                }
                (Step::Over(End::Undecided | End::Left), None) => {}
                (step, _) => panic!("{verdict:?}: {step:?}"),
            }
        }
    }

    #[test]
    fn a_missing_transaction_is_lost_only_if_it_was_committed_and_not_marked() {
        let end = |verdict, answers: &[Answer]| {
            let mut orphan = Orphan::new();
            orphan.handle(Event::Asked(verdict));
            for answer in answers {
                orphan.handle(Event::Answered(*answer));
            }
            orphan.step()
        };
        let missing = Answer::Missing;
        assert_eq!(end(Verdict::Committed, &[missing, missing]), Step::Over(End::Lost));
        assert_eq!(end(Verdict::Committed, &[missing, Answer::Done]), Step::Over(End::ByAnother));
        assert_eq!(end(Verdict::Committed, &[missing, Answer::Lost]), Step::Over(End::Left));
        assert_eq!(end(Verdict::Aborted, &[missing]), Step::Over(End::ByAnother));
    }
}
