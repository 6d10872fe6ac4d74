//! The owner's side of one commit: what to send, what an answer means, when to give up.
//!
//! ```text
//!             all answered well             confirmed
//! Preparing ─────────────────────► Deciding ──────────► Finishing   COMMIT PREPARED on the others
//!     │  one failed, was lost,        │   │ refused
//!     │  or came too late             │   │
//!     └───────────► Aborting ◄────────┼───┘             ROLLBACK PREPARED where prepared
//!                      ▲              │ lost
//!                      └── aborted ─ InDoubt ─ committed ─► Finishing
//!                                     │ not to be known in time: unknown, recovery finishes
//! ```
//!
//! Each state is a type, and the next is had only from the last by what was answered. Whoever
//! drives a [`Coordinator`] does its [`Action`]s and brings what came of them as [`Event`]s; a
//! request that is not answered by [`Coordinator::deadline`] is answered for with
//! [`Answer::Lost`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::{SmallVec, smallvec};

use super::{Answer, DECIDER, Decision, Participant, Request, Verdict};

/// How long the first phase may take: deferred constraints are checked in it. A commit that has
/// not reached its decision by then is given up, so a marker that is older and not visible is not
/// going to be.
pub(super) const PREPARE_MAX: Duration = Duration::from_secs(60);

/// How long the decider's COMMIT is waited for before its marker is looked up.
pub(super) const COMMIT_MAX: Duration = Duration::from_secs(30);

/// How long the marker is looked up, and how often, before the client is told that nothing is
/// known.
pub(super) const LOOK_UP_MAX: Duration = Duration::from_secs(5);
pub(super) const LOOK_UP_PAUSE: Duration = Duration::from_millis(300);

/// How long the last phase is waited for before the rest is left to recovery. The outcome is
/// certain by then.
pub(super) const FINISH_MAX: Duration = Duration::from_secs(10);

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// In the participant's session.
    Send(Participant, Request),
    /// Ask the decider as recovery does, over another connection, not before this time.
    LookUp { not_before: Instant },
    /// The participant has lost a committed transaction: it is neither prepared nor marked there.
    Alarm(Participant),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Answered(Participant, Answer),
    LookedUp(Verdict),
}

/// What the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    RolledBack,
    /// 08007: recovery finishes it, one way or the other.
    Unknown,
}

/// One commit over several shards.
#[derive(Debug)]
pub struct Coordinator {
    state: State,
    actions: VecDeque<Action>,
    deadline: Instant,
}

#[derive(Debug)]
enum State {
    Preparing(Preparing),
    Deciding(Deciding),
    InDoubt(InDoubt),
    Finishing(Finishing),
    Aborting(Aborting),
    Over(Outcome),
}

/// A state's answer to an event.
struct Next {
    state: State,
    actions: SmallVec<[Action; 4]>,
    deadline: Option<Instant>,
}

/// All that wrote mark, all of them but the decider prepare; those that only read end.
#[derive(Debug)]
struct Preparing {
    writers: usize,
    answers: Answers,
    /// No decision after this.
    until: Instant,
}

/// All are prepared and nothing is decided.
#[derive(Debug)]
struct Deciding {
    writers: usize,
}

/// The decider's answer was lost.
#[derive(Debug)]
struct InDoubt {
    writers: usize,
    until: Instant,
}

/// It is committed for good.
#[derive(Debug)]
struct Finishing {
    answers: Answers,
}

/// It is aborted for good, or will be by recovery: no decider's row says otherwise.
#[derive(Debug)]
struct Aborting {
    answers: Answers,
}

/// Who has answered. Participants without a place, and second answers, are not heard.
#[derive(Debug)]
struct Answers(SmallVec<[(Participant, Option<Answer>); 4]>);

impl Coordinator {
    /// For `writers` participants, the decider first, and `readers` after them. Two or more wrote.
    #[must_use]
    pub fn new(writers: usize, readers: usize, now: Instant) -> Self {
        let until = now + PREPARE_MAX;
        let requests = (0..writers + readers).map(|participant| {
            let request = match participant {
                DECIDER => Request::Mark,
                _ if participant < writers => Request::MarkAndPrepare,
                _ => Request::End,
            };
            Action::Send(participant, request)
        });
        let answers = Answers::of(0..writers + readers);
        Self {
            actions: requests.collect(),
            state: State::Preparing(Preparing { writers, answers, until }),
            deadline: until,
        }
    }

    /// The next thing to do; `None` until something is answered. Requests that are there together
    /// are sent together, and their participants work at the same time.
    pub fn action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Until when answers are waited for.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Once there is nothing left to be done.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self.state {
            State::Over(outcome) if self.actions.is_empty() => Some(outcome),
            _ => None,
        }
    }

    /// The state's name, for the simulator to see where it has been.
    #[cfg(test)]
    pub(super) fn phase(&self) -> &'static str {
        match self.state {
            State::Preparing(_) => "Preparing",
            State::Deciding(_) => "Deciding",
            State::InDoubt(_) => "InDoubt",
            State::Finishing(_) => "Finishing",
            State::Aborting(_) => "Aborting",
            State::Over(_) => "Over",
        }
    }

    /// What came of an action.
    pub fn handle(&mut self, event: Event, now: Instant) {
        let state = std::mem::replace(&mut self.state, State::Over(Outcome::Unknown));
        let next = match (state, event) {
            (State::Preparing(state), Event::Answered(who, answer)) => state.on(who, answer, now),
            (State::Deciding(state), Event::Answered(DECIDER, answer)) => state.on(answer, now),
            (State::InDoubt(state), Event::LookedUp(verdict)) => state.on(verdict, now),
            (State::Finishing(state), Event::Answered(who, answer)) => state.on(who, answer),
            (State::Aborting(state), Event::Answered(who, answer)) => state.on(who, answer),
            (state, _) => Next::wait(state),
        };
        self.state = next.state;
        self.actions.extend(next.actions);
        self.deadline = next.deadline.unwrap_or(self.deadline);
    }
}

impl Preparing {
    fn on(mut self, who: Participant, answer: Answer, now: Instant) -> Next {
        if !self.answers.hear(who, answer) {
            return Next::wait(State::Preparing(self));
        }
        let ready = self.answers.all(|answer| answer == Answer::Done) && now < self.until;
        if ready {
            return Next {
                state: State::Deciding(Deciding { writers: self.writers }),
                actions: smallvec![Action::Send(DECIDER, Request::Commit)],
                deadline: Some(now + COMMIT_MAX),
            };
        }
        // Who is lost cannot be told. If it has prepared, recovery rolls it back: the decider's own
        // transaction ends here without a commit.
        let told = self.answers.0.iter().filter_map(|(participant, answer)| {
            let request = match (*participant, answer.unwrap_or(Answer::Lost)) {
                (_, Answer::Lost) => return None,
                (reader, _) if reader >= self.writers => return None,
                (DECIDER, _) | (_, Answer::Refused | Answer::Missing) => Request::RollBack,
                (_, Answer::Done) => Request::RollBackPrepared,
            };
            Some((*participant, request))
        });
        Aborting::start(told.collect(), now)
    }
}

impl Deciding {
    fn on(self, answer: Answer, now: Instant) -> Next {
        match answer {
            Answer::Done => Finishing::start(Decision::assertion(), self.writers, now),
            // A server that answers COMMIT with an error or a ROLLBACK has rolled back.
            Answer::Refused | Answer::Missing => Aborting::start(prepared(self.writers), now),
            Answer::Lost => Next {
                state: State::InDoubt(InDoubt { writers: self.writers, until: now + LOOK_UP_MAX }),
                actions: smallvec![Action::LookUp { not_before: now }],
                deadline: None,
            },
        }
    }
}

impl InDoubt {
    fn on(self, verdict: Verdict, now: Instant) -> Next {
        match verdict {
            Verdict::Committed => Finishing::start(Decision::assertion(), self.writers, now),
            Verdict::Aborted => Aborting::start(prepared(self.writers), now),
            Verdict::Undecided | Verdict::Unreachable if now < self.until => Next {
                state: State::InDoubt(self),
                actions: smallvec![Action::LookUp { not_before: now + LOOK_UP_PAUSE }],
                deadline: None,
            },
            Verdict::Undecided | Verdict::Unreachable => Next::wait(State::Over(Outcome::Unknown)),
        }
    }
}

/// Every writer but the decider has prepared.
fn prepared(writers: usize) -> SmallVec<[(Participant, Request); 4]> {
    (1..writers).map(|other| (other, Request::RollBackPrepared)).collect()
}

impl Finishing {
    /// The only place that makes COMMIT PREPARED of the owner's.
    fn start(decision: Decision, writers: usize, now: Instant) -> Next {
        let request = Request::CommitPrepared(decision);
        Next {
            state: State::Finishing(Self { answers: Answers::of(1..writers) }),
            actions: (1..writers).map(|other| Action::Send(other, request)).collect(),
            deadline: Some(now + FINISH_MAX),
        }
    }

    /// What is refused or lost is recovery's to repair. What is missing was done by recovery, and
    /// then it is marked; or it is lost.
    fn on(mut self, who: Participant, answer: Answer) -> Next {
        let mut actions = SmallVec::new();
        let all = match self.answers.of_one(who) {
            None if answer == Answer::Missing => {
                self.answers.put(who, Answer::Missing);
                actions.push(Action::Send(who, Request::FindMarker));
                false
            }
            Some(Answer::Missing) => {
                // The answer to FindMarker.
                if answer == Answer::Missing {
                    actions.push(Action::Alarm(who));
                }
                self.answers.put(who, Answer::Done);
                self.answers.complete()
            }
            _ => self.answers.hear(who, answer),
        };
        let finished = all && self.answers.all(|answer| answer != Answer::Missing);
        let state = if finished { State::Over(Outcome::Committed) } else { State::Finishing(self) };
        Next { state, actions, deadline: None }
    }
}

impl Aborting {
    fn start(told: SmallVec<[(Participant, Request); 4]>, now: Instant) -> Next {
        if told.is_empty() {
            return Next::wait(State::Over(Outcome::RolledBack));
        }
        let answers = Answers::of(told.iter().map(|(participant, _)| *participant));
        Next {
            state: State::Aborting(Self { answers }),
            actions: told.into_iter().map(|(who, request)| Action::Send(who, request)).collect(),
            deadline: Some(now + FINISH_MAX),
        }
    }

    /// Whatever is answered, the transaction is not going to commit.
    fn on(mut self, who: Participant, answer: Answer) -> Next {
        let all = self.answers.hear(who, answer);
        Next::wait(if all { State::Over(Outcome::RolledBack) } else { State::Aborting(self) })
    }
}

impl Next {
    fn wait(state: State) -> Self {
        Self { state, actions: SmallVec::new(), deadline: None }
    }
}

impl Answers {
    fn of(participants: impl Iterator<Item = Participant>) -> Self {
        Self(participants.map(|participant| (participant, None)).collect())
    }

    fn of_one(&self, who: Participant) -> Option<Answer> {
        self.0.iter().find(|(other, _)| *other == who).and_then(|(_, answer)| *answer)
    }

    fn put(&mut self, who: Participant, answer: Answer) {
        if let Some((_, slot)) = self.0.iter_mut().find(|(other, _)| *other == who) {
            *slot = Some(answer);
        }
    }

    /// Whether all have answered with this one.
    fn hear(&mut self, who: Participant, answer: Answer) -> bool {
        if self.of_one(who).is_none() {
            self.put(who, answer);
        }
        self.complete()
    }

    fn complete(&self) -> bool {
        self.0.iter().all(|(_, answer)| answer.is_some())
    }

    fn all(&self, holds: impl Fn(Answer) -> bool) -> bool {
        self.0.iter().all(|(_, answer)| answer.is_some_and(&holds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(coordinator: &mut Coordinator) -> Vec<Action> {
        std::iter::from_fn(|| coordinator.action()).collect()
    }

    /// Three writers and a reader, all asked to prepare.
    fn preparing(now: Instant) -> Coordinator {
        let mut coordinator = Coordinator::new(3, 1, now);
        let asked = [Request::Mark, Request::MarkAndPrepare, Request::MarkAndPrepare, Request::End];
        let asked: Vec<_> =
            asked.into_iter().enumerate().map(|(w, r)| Action::Send(w, r)).collect();
        assert_eq!(actions(&mut coordinator), asked);
        coordinator
    }

    fn deciding(now: Instant) -> Coordinator {
        let mut coordinator = preparing(now);
        for who in 0..4 {
            assert_eq!(actions(&mut coordinator), []);
            coordinator.handle(Event::Answered(who, Answer::Done), now);
        }
        assert_eq!(actions(&mut coordinator), [Action::Send(DECIDER, Request::Commit)]);
        coordinator
    }

    #[test]
    fn without_every_part_done_nothing_is_decided() {
        let now = Instant::now();
        for bad in [Answer::Refused, Answer::Lost] {
            for who in 0..4 {
                let mut coordinator = preparing(now);
                for participant in 0..4 {
                    let answer = if participant == who { bad } else { Answer::Done };
                    coordinator.handle(Event::Answered(participant, answer), now);
                }
                let told = actions(&mut coordinator);
                for participant in 0..4 {
                    let expected = match participant {
                        3 => None,
                        _ if participant == who && bad == Answer::Lost => None,
                        DECIDER => Some(Request::RollBack),
                        _ if participant == who => Some(Request::RollBack),
                        _ => Some(Request::RollBackPrepared),
                    };
                    let found = told.iter().find_map(|action| match action {
                        Action::Send(other, request) if *other == participant => Some(*request),
                        _ => None,
                    });
                    assert_eq!(found, expected, "{bad:?} by {who}: {told:?}");
                }
                assert_eq!(coordinator.outcome(), None);
                for participant in 0..4 {
                    coordinator.handle(Event::Answered(participant, Answer::Lost), now);
                }
                assert_eq!(coordinator.outcome(), Some(Outcome::RolledBack));
            }
        }
    }

    #[test]
    fn a_commit_that_took_too_long_is_given_up() {
        let now = Instant::now();
        let mut coordinator = preparing(now);
        for who in 0..3 {
            coordinator.handle(Event::Answered(who, Answer::Done), now);
        }
        coordinator.handle(Event::Answered(3, Answer::Done), now + PREPARE_MAX);
        let told = actions(&mut coordinator);
        assert!(!told.contains(&Action::Send(DECIDER, Request::Commit)), "{told:?}");
        assert!(told.contains(&Action::Send(1, Request::RollBackPrepared)), "{told:?}");
    }

    #[test]
    fn only_a_confirmed_commit_finishes() {
        let now = Instant::now();
        let finishing = |coordinator: &mut Coordinator| {
            actions(coordinator)
                .iter()
                .any(|action| matches!(action, Action::Send(_, Request::CommitPrepared(_))))
        };
        for (answer, finishes) in
            [(Answer::Done, true), (Answer::Refused, false), (Answer::Lost, false)]
        {
            let mut coordinator = deciding(now);
            // Nobody else can confirm it.
            coordinator.handle(Event::Answered(1, Answer::Done), now);
            assert!(!finishing(&mut coordinator));
            coordinator.handle(Event::Answered(DECIDER, answer), now);
            assert_eq!(finishing(&mut coordinator), finishes, "{answer:?}");
        }
        for (verdict, finishes) in [
            (Verdict::Committed, true),
            (Verdict::Aborted, false),
            (Verdict::Undecided, false),
            (Verdict::Unreachable, false),
        ] {
            let mut coordinator = deciding(now);
            coordinator.handle(Event::Answered(DECIDER, Answer::Lost), now);
            assert_eq!(actions(&mut coordinator), [Action::LookUp { not_before: now }]);
            coordinator.handle(Event::LookedUp(verdict), now);
            assert_eq!(finishing(&mut coordinator), finishes, "{verdict:?}");
        }
    }

    #[test]
    fn a_decider_that_stays_away_leaves_the_outcome_unknown() {
        let now = Instant::now();
        let mut coordinator = deciding(now);
        coordinator.handle(Event::Answered(DECIDER, Answer::Lost), now);
        actions(&mut coordinator);
        coordinator.handle(Event::LookedUp(Verdict::Unreachable), now);
        let again = Action::LookUp { not_before: now + LOOK_UP_PAUSE };
        assert_eq!(actions(&mut coordinator), [again]);
        coordinator.handle(Event::LookedUp(Verdict::Undecided), now + LOOK_UP_MAX);
        assert_eq!(coordinator.outcome(), Some(Outcome::Unknown));
    }

    #[test]
    fn what_is_missing_and_not_marked_is_an_alarm() {
        let now = Instant::now();
        for (marker, alarm) in
            [(Answer::Done, false), (Answer::Missing, true), (Answer::Lost, false)]
        {
            let mut coordinator = deciding(now);
            coordinator.handle(Event::Answered(DECIDER, Answer::Done), now);
            actions(&mut coordinator);
            coordinator.handle(Event::Answered(2, Answer::Missing), now);
            assert_eq!(actions(&mut coordinator), [Action::Send(2, Request::FindMarker)]);
            coordinator.handle(Event::Answered(1, Answer::Done), now);
            assert_eq!(coordinator.outcome(), None);
            coordinator.handle(Event::Answered(2, marker), now);
            assert_eq!(actions(&mut coordinator).contains(&Action::Alarm(2)), alarm, "{marker:?}");
            assert_eq!(coordinator.outcome(), Some(Outcome::Committed));
        }
    }
}
