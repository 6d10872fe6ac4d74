//! Commit over several shards: the protocol as values, without any IO.
//!
//! ```text
//!             all answered well             confirmed
//! Preparing ─────────────────────► Deciding ──────────► Finishing   COMMIT PREPARED on the others
//!     │  one failed or was lost       │   │ refused
//!     └───────────► Aborting ◄────────┼───┘             ROLLBACK PREPARED where prepared
//!                      ▲              │ lost
//!                      └── aborted ─ InDoubt ─ committed ─► Finishing
//!                                     │ not to be known now: 08007, recovery finishes
//! ```
//!
//! One participant is the *decider*: its marker row in `pgherd.tx` becoming visible is the
//! decision. Each state is a type, and the next is had only from the last by what was answered; a
//! [`Decision`] is made in two places only, where the decider has confirmed it, and without one
//! there is no [`Request::CommitPrepared`]. Who drives this (the executor, or the simulator in the
//! tests) sends requests and brings answers; any router may run [`recovery`](crate::recovery) at
//! the same time.

mod gid;
#[cfg(test)]
mod simulation;

pub use gid::Gid;

/// A participant: its place in the list that the transaction was started with. 0 decides.
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
    /// `COMMIT` on the decider.
    Commit,
    /// `ROLLBACK` of what is not prepared.
    RollBack,
    RollBackPrepared,
    CommitPrepared(Decision),
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// The server answered with an error, or did another thing than asked.
    Refused,
    /// Nothing is known: the connection broke, or took too long.
    Lost,
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

/// The first phase: every participant marks, all but the decider prepare.
#[derive(Debug)]
pub struct Preparing {
    answers: Vec<Option<Answer>>,
}

/// All are prepared and nothing is decided.
#[derive(Debug)]
pub struct Deciding {
    participants: usize,
}

/// The decider's answer was lost.
#[derive(Debug)]
pub struct InDoubt {
    participants: usize,
}

/// It is aborted for good, or will be by recovery: no decider's row says otherwise.
#[derive(Debug)]
pub struct Aborting {
    requests: Vec<(Participant, Request)>,
}

/// It is committed for good.
#[derive(Debug)]
pub struct Finishing {
    decision: Decision,
    participants: usize,
}

/// The decider's answer.
#[derive(Debug)]
pub enum Decided {
    Committed(Finishing),
    Aborted(Aborting),
    InDoubt(InDoubt),
}

impl Preparing {
    /// For two participants or more.
    #[must_use]
    pub fn new(participants: usize) -> Self {
        Self { answers: vec![None; participants] }
    }

    /// To be sent at once, in parallel.
    pub fn requests(&self) -> impl Iterator<Item = (Participant, Request)> + use<> {
        (0..self.answers.len()).map(|participant| match participant {
            DECIDER => (participant, Request::Mark),
            _ => (participant, Request::MarkAndPrepare),
        })
    }

    /// The answer to a participant's request; a second one is not heard.
    pub fn answered(&mut self, participant: Participant, answer: Answer) {
        if let Some(slot @ None) = self.answers.get_mut(participant) {
            *slot = Some(answer);
        }
    }

    /// Once all have answered, or when it is given up: whoever has not answered counts as lost.
    ///
    /// # Errors
    /// [`Aborting`] unless every participant has done its part.
    pub fn end(self) -> Result<Deciding, Aborting> {
        if self.answers.iter().all(|answer| *answer == Some(Answer::Done)) {
            return Ok(Deciding { participants: self.answers.len() });
        }
        // One that is lost cannot be told. If it has prepared, recovery rolls it back: the
        // decider's own transaction ends here without a commit.
        let told = self.answers.iter().enumerate().filter_map(|(participant, answer)| {
            match (participant, answer) {
                (_, None | Some(Answer::Lost)) => None,
                (DECIDER, _) | (_, Some(Answer::Refused)) => Some((participant, Request::RollBack)),
                (_, Some(Answer::Done)) => Some((participant, Request::RollBackPrepared)),
            }
        });
        Err(Aborting { requests: told.collect() })
    }
}

impl Deciding {
    /// To be sent to the decider. From here on the transaction may be committed.
    #[must_use]
    pub fn request(&self) -> (Participant, Request) {
        (DECIDER, Request::Commit)
    }

    /// What the decider answered.
    #[must_use]
    pub fn answered(self, answer: Answer) -> Decided {
        let participants = self.participants;
        match answer {
            Answer::Done => {
                Decided::Committed(Finishing { decision: Decision::assertion(), participants })
            }
            // A server that answers COMMIT with an error or a ROLLBACK has rolled back.
            Answer::Refused => Decided::Aborted(abort_prepared(participants)),
            Answer::Lost => Decided::InDoubt(InDoubt { participants }),
        }
    }
}

impl InDoubt {
    /// What the decider's marker row says, asked as recovery asks: `Some(true)` is committed,
    /// `Some(false)` aborted for good, `None` not to be known now.
    #[must_use]
    pub fn looked_up(self, marker: Option<bool>) -> Decided {
        let participants = self.participants;
        match marker {
            Some(true) => {
                Decided::Committed(Finishing { decision: Decision::assertion(), participants })
            }
            Some(false) => Decided::Aborted(abort_prepared(participants)),
            None => Decided::InDoubt(self),
        }
    }
}

fn abort_prepared(participants: usize) -> Aborting {
    let others = 1..participants;
    Aborting { requests: others.map(|other| (other, Request::RollBackPrepared)).collect() }
}

impl Aborting {
    /// To be sent at once; an answer that is lost is recovery's to repair.
    #[must_use]
    pub fn requests(&self) -> &[(Participant, Request)] {
        &self.requests
    }
}

impl Finishing {
    /// To be sent at once; an answer that is lost is recovery's to repair. The client may be told
    /// of its commit whatever these answer.
    pub fn requests(&self) -> impl Iterator<Item = (Participant, Request)> + use<> {
        let decision = self.decision;
        (1..self.participants).map(move |other| (other, Request::CommitPrepared(decision)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_every_part_done_nothing_is_decided() {
        for bad in [Some(Answer::Refused), Some(Answer::Lost), None] {
            for who in 0..3 {
                let mut preparing = Preparing::new(3);
                for participant in 0..3 {
                    let answer = if participant == who { bad } else { Some(Answer::Done) };
                    if let Some(answer) = answer {
                        preparing.answered(participant, answer);
                    }
                }
                let aborting = preparing.end().expect_err("one part is missing");
                let told = aborting.requests();
                let is_told = told.iter().any(|(participant, _)| *participant == who);
                assert_eq!(is_told, bad == Some(Answer::Refused), "{who} {bad:?}");
                assert!(told.iter().all(|(participant, request)| {
                    let prepared = *participant != DECIDER && *participant != who;
                    (*request == Request::RollBackPrepared) == prepared
                }));
            }
        }
    }

    #[test]
    fn only_a_confirmed_commit_finishes() {
        let deciding = || {
            let mut preparing = Preparing::new(2);
            for (participant, _) in preparing.requests() {
                preparing.answered(participant, Answer::Done);
            }
            preparing.end().expect("all done")
        };
        assert!(matches!(deciding().answered(Answer::Done), Decided::Committed(_)));
        assert!(matches!(deciding().answered(Answer::Refused), Decided::Aborted(_)));
        let Decided::InDoubt(doubt) = deciding().answered(Answer::Lost) else {
            panic!("a lost answer decides nothing")
        };
        let Decided::InDoubt(doubt) = doubt.looked_up(None) else {
            panic!("an unknown marker decides nothing")
        };
        assert!(matches!(doubt.looked_up(Some(true)), Decided::Committed(_)));
    }
}
