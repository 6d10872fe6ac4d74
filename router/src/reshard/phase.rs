//! The run as a machine without IO: phase and goal in, the next step out.
//!
//! Steps may be done again; the phase changes only by [`Step::Advance`], which the catalog refuses
//! to whoever was not first. So a run that was killed anywhere is resumed by asking again.

use super::stream::Direction;

/// Where a run is. Text form: what the catalog holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Copying,
    Ready,
    Cutting,
    Moved,
    Returning,
    Finishing,
    Finished,
    Cancelling,
    Cancelled,
}

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Goal {
    /// Rows copied, caught up and verified; whatever was begun is completed.
    Start,
    Verify,
    Cutover,
    Rollback,
    Finish,
    Cancel,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Gate, publication and slot on the stream's source. Its gate is open only where the source is
    /// in charge.
    Publish(Direction),
    /// The subscription, copying what is there.
    Copy(Direction),
    /// The other direction's stream away, this one's subscription made if need be, gates as the
    /// phase says.
    Follow(Direction),
    CatchUp(Direction),
    Verify(Direction),
    /// Gate closed, marker awaited; then `Advance` with owners, or the way back.
    Switch(Direction),
    /// The gate open again after a switch that was given up.
    Reopen(Direction),
    /// All objects of both directions away.
    Clear,
    /// The rows of the stream's target, which is not in charge, away.
    Delete(Direction),
    Advance(Advance),
    Done,
}

/// A change of phase, and who gets the moving ranges by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    pub from: Phase,
    pub to: Phase,
    pub owners: Option<Owners>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    New,
    Old,
}

/// Why a goal cannot be reached from a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub why: &'static str,
    pub hint: &'static str,
}

impl Phase {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Copying, "copying"),
        (Self::Ready, "ready"),
        (Self::Cutting, "cutting"),
        (Self::Moved, "moved"),
        (Self::Returning, "returning"),
        (Self::Finishing, "finishing"),
        (Self::Finished, "finished"),
        (Self::Cancelling, "cancelling"),
        (Self::Cancelled, "cancelled"),
    ];

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(phase, _)| *phase)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(phase, _)| *phase == self).map_or("", |(_, name)| name)
    }

    /// Nothing of it is left.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Finished | Self::Cancelled)
    }

    /// The way that rows flow: from who is in charge.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::Moved | Self::Returning | Self::Finishing | Self::Finished => Direction::Backward,
            _ => Direction::Forward,
        }
    }
}

impl Advance {
    const fn new(from: Phase, to: Phase) -> Self {
        Self { from, to, owners: None }
    }
}

/// The steps from here towards the goal, up to the next change of phase. `fresh` says that this
/// command itself brought the run into the phase: a switch that another one began is given up.
///
/// # Errors
/// [`Refusal`] when the goal cannot be reached from here.
pub fn steps(phase: Phase, goal: Goal, fresh: bool) -> Result<Vec<Step>, Refusal> {
    use Direction::{Backward, Forward};
    let go = |to| Step::Advance(Advance::new(phase, to));
    Ok(match (phase, goal) {
        (Phase::Copying, Goal::Cancel) => vec![go(Phase::Cancelling)],
        (Phase::Copying, Goal::Rollback | Goal::Finish) => {
            return Err(Refusal {
                why: "the rows are still being copied",
                hint: "pgherd reshard start goes on; pgherd reshard cancel ends it.",
            });
        }
        (Phase::Copying, _) => vec![
            Step::Publish(Forward),
            Step::Copy(Forward),
            Step::CatchUp(Forward),
            Step::Verify(Forward),
            go(Phase::Ready),
        ],
        (Phase::Ready, Goal::Start | Goal::Rollback) => vec![Step::Follow(Forward), Step::Done],
        (Phase::Ready, Goal::Verify) => {
            vec![Step::Follow(Forward), Step::CatchUp(Forward), Step::Verify(Forward), Step::Done]
        }
        (Phase::Ready, Goal::Cutover) => vec![
            Step::Follow(Forward),
            Step::Publish(Backward),
            Step::CatchUp(Forward),
            Step::Verify(Forward),
            go(Phase::Cutting),
        ],
        (Phase::Ready, Goal::Cancel) => vec![go(Phase::Cancelling)],
        (Phase::Ready, Goal::Finish) => {
            return Err(Refusal {
                why: "the rows have not moved yet",
                hint: "pgherd reshard cutover moves them; pgherd reshard cancel ends the run.",
            });
        }
        (Phase::Cutting, _) if fresh => switch(phase, Forward, Phase::Moved, Owners::New),
        // Gates are opened after nobody can switch any more.
        (Phase::Cutting, _) => vec![go(Phase::Ready), Step::Reopen(Forward)],
        (Phase::Moved, Goal::Start | Goal::Cutover) => vec![Step::Follow(Backward), Step::Done],
        (Phase::Moved, Goal::Verify) => {
            vec![
                Step::Follow(Backward),
                Step::CatchUp(Backward),
                Step::Verify(Backward),
                Step::Done,
            ]
        }
        (Phase::Moved, Goal::Rollback) => vec![
            Step::Follow(Backward),
            Step::Publish(Forward),
            Step::CatchUp(Backward),
            Step::Verify(Backward),
            go(Phase::Returning),
        ],
        (Phase::Moved, Goal::Finish) => vec![go(Phase::Finishing)],
        (Phase::Moved, Goal::Cancel) => {
            return Err(Refusal {
                why: "the rows have moved already",
                hint: "pgherd reshard rollback brings them back; then it can be cancelled.",
            });
        }
        (Phase::Returning, _) if fresh => switch(phase, Backward, Phase::Ready, Owners::Old),
        (Phase::Returning, _) => vec![go(Phase::Moved), Step::Reopen(Backward)],
        (Phase::Finishing, _) => {
            vec![Step::Clear, Step::Delete(Backward), go(Phase::Finished)]
        }
        (Phase::Cancelling, _) => {
            vec![Step::Clear, Step::Delete(Forward), go(Phase::Cancelled)]
        }
        (Phase::Finished | Phase::Cancelled, _) => vec![Step::Done],
    })
}

fn switch(from: Phase, direction: Direction, to: Phase, owners: Owners) -> Vec<Step> {
    vec![Step::Switch(direction), Step::Advance(Advance { from, to, owners: Some(owners) })]
}

/// Whether the goal is reached in a phase, after its steps.
#[must_use]
pub const fn is_reached(phase: Phase, goal: Goal) -> bool {
    match goal {
        Goal::Start | Goal::Verify => matches!(phase, Phase::Ready | Phase::Moved),
        Goal::Cutover => matches!(phase, Phase::Moved | Phase::Finished),
        Goal::Rollback => matches!(phase, Phase::Ready | Phase::Cancelled),
        Goal::Finish => matches!(phase, Phase::Finished),
        Goal::Cancel => matches!(phase, Phase::Cancelled),
    }
}
