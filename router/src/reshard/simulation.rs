//! The machine under a seeded simulator: commands that die between any two acts, writers with old
//! maps, transactions that are prepared and settled by whoever finds them, a router that gives up what
//! nobody drives. In the end every acknowledged write is on the side that is in charge, once, and
//! nothing is left.
//!
//! Acts are smaller than steps: what one request to one server does. [`Mutant`]s show that it can
//! fail. A failure prints the command that repeats it.

use std::collections::{BTreeSet, VecDeque};

use super::phase::{Advance, Goal, Owners, Phase, Step, steps};
use super::stream::Direction;

const SCHEDULES: u64 = 2_000;
const MUTANT_SCHEDULES: u64 = 4_000;

/// Ways to break the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// Owners change without the gate.
    LeavesGateOpen,
    /// Owners change before the last rows have crossed.
    DoesNotWaitForRows,
    /// The way back starts where its slot was made: what came is sent back.
    KeepsSlotWhereItWas,
    /// The gate is opened before the phase is taken back, while another may still commit.
    ReopensFirst,
    /// The stream of the way there lives on beside the way back.
    KeepsBothStreams,
    /// The copies of the side that is in charge are deleted.
    DeletesTheWrongSide,
    /// The gate's lock is not waited for: transactions that are prepared stay behind it.
    DoesNotWaitForPrepared,
    /// Old owners are written after the change, since their gate was opened with the lock.
    OpensSourceAfterSwitch,
}

const MUTANTS: [Mutant; 8] = [
    Mutant::LeavesGateOpen,
    Mutant::DoesNotWaitForRows,
    Mutant::KeepsSlotWhereItWas,
    Mutant::ReopensFirst,
    Mutant::KeepsBothStreams,
    Mutant::DeletesTheWrongSide,
    Mutant::DoesNotWaitForPrepared,
    Mutant::OpensSourceAfterSwitch,
];

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// One side: its rows, its gate, and the stream that leaves it.
#[derive(Debug, Default)]
struct Side {
    rows: BTreeSet<u32>,
    /// Written by transactions that are prepared here, and hold the gate's lock until somebody settles
    /// them.
    prepared: VecDeque<u32>,
    /// `None`: there is none. `Some(true)`: open.
    gate: Option<bool>,
    /// Written since the slot was made, or set.
    slot: Option<VecDeque<u32>>,
    /// The other side takes what the slot has.
    followed: bool,
}

const OLD: usize = 0;
const NEW: usize = 1;

/// What one request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    MakeGate(usize, bool),
    MakeSlot(usize),
    /// A subscription that copies.
    Copy(usize),
    Subscribe(usize),
    SetGate(usize, bool),
    /// Waits for all who hold it.
    TakeLock(usize),
    Unsubscribe(usize),
    DropSlot(usize),
    DropGate(usize),
    /// Waits until all has crossed from this side.
    Cross(usize),
    ForgetSlot(usize),
    Delete(usize),
    Advance(Advance),
}

struct World {
    phase: Phase,
    sides: [Side; 2],
    /// Who the writers think is in charge; they hear of a change late.
    believed: usize,
    acknowledged: BTreeSet<u32>,
    next: u32,
    /// The side whose writers wait for the driver's lock.
    locked: Option<usize>,
    /// The driver's acts to come, its goal, and whether it brought the run into the phase itself.
    acts: VecDeque<Act>,
    goal: Goal,
    fresh: bool,
    /// Sent to the catalog by a driver that died before the answer.
    late: Option<Advance>,
    mutant: Option<Mutant>,
    /// What happened, if somebody is to read it.
    story: Option<Vec<String>>,
}

const fn source(direction: Direction) -> usize {
    match direction {
        Direction::Forward => OLD,
        Direction::Backward => NEW,
    }
}

fn in_charge(phase: Phase) -> usize {
    source(phase.direction())
}

impl World {
    fn new(mutant: Option<Mutant>, story: bool) -> Self {
        Self {
            phase: Phase::Copying,
            sides: Default::default(),
            believed: OLD,
            acknowledged: BTreeSet::new(),
            next: 0,
            locked: None,
            acts: VecDeque::new(),
            goal: Goal::Start,
            fresh: false,
            late: None,
            mutant,
            story: story.then(Vec::new),
        }
    }

    /// The acts of a step, as `run`, `switch` and `cleanup` do them.
    fn acts_of(&self, step: Step) -> Vec<Act> {
        let is = |mutant| self.mutant == Some(mutant);
        match step {
            Step::Publish(d) => {
                let open = self.phase.direction() == d;
                vec![Act::MakeGate(source(d), open), Act::MakeSlot(source(d))]
            }
            Step::Copy(d) => vec![Act::Copy(source(d)), Act::Cross(source(d))],
            Step::Follow(d) => {
                let (from, to) = (source(d), 1 - source(d));
                let mut acts = vec![Act::SetGate(from, true), Act::SetGate(to, false)];
                if !is(Mutant::KeepsBothStreams) {
                    acts.extend([Act::Unsubscribe(to), Act::DropSlot(to)]);
                }
                acts.push(Act::Subscribe(from));
                acts
            }
            Step::CatchUp(d) | Step::Verify(d) => vec![Act::Cross(source(d))],
            Step::Switch(d) => {
                let (from, to) = (source(d), 1 - source(d));
                let mut acts = Vec::new();
                if !is(Mutant::DoesNotWaitForPrepared) {
                    acts.push(Act::TakeLock(from));
                }
                if !is(Mutant::LeavesGateOpen) {
                    acts.push(Act::SetGate(from, false));
                }
                if !is(Mutant::DoesNotWaitForRows) {
                    acts.push(Act::Cross(from));
                }
                acts.push(Act::SetGate(to, true));
                if !is(Mutant::KeepsSlotWhereItWas) {
                    acts.push(Act::ForgetSlot(to));
                }
                acts
            }
            Step::Reopen(d) => {
                vec![Act::SetGate(1 - source(d), false), Act::SetGate(source(d), true)]
            }
            Step::Clear => [OLD, NEW]
                .into_iter()
                .flat_map(|side| [Act::Unsubscribe(side), Act::DropSlot(side), Act::DropGate(side)])
                .collect(),
            Step::Delete(d) => {
                let side = 1 - source(d);
                vec![Act::Delete(if is(Mutant::DeletesTheWrongSide) { 1 - side } else { side })]
            }
            Step::Advance(advance) => {
                let mut acts = vec![Act::Advance(advance)];
                if is(Mutant::OpensSourceAfterSwitch) && advance.owners.is_some() {
                    acts.push(Act::SetGate(in_charge(advance.from), true));
                }
                acts
            }
            Step::Done => Vec::new(),
        }
    }

    /// The driver has nothing left to do in this phase: what comes next?
    fn plan(&mut self) {
        let Ok(list) = steps(self.phase, self.goal, self.fresh) else { return };
        let mut acts: Vec<Act> = list.into_iter().flat_map(|step| self.acts_of(step)).collect();
        if self.mutant == Some(Mutant::ReopensFirst)
            && let [Act::Advance(_), rest @ ..] = &acts[..]
            && matches!(self.phase, Phase::Cutting | Phase::Returning)
        {
            acts = [rest, &acts[..1]].concat();
        }
        self.acts = acts.into();
        self.fresh = false;
    }

    /// `false`: it has to be tried again later.
    fn act(&mut self, act: Act) -> Result<bool, String> {
        match act {
            Act::MakeGate(side, open) => {
                self.sides[side].gate.get_or_insert(open);
            }
            // A slot is not made beside transactions that began before it.
            Act::MakeSlot(side) if self.sides[side].slot.is_none() => {
                if !self.sides[side].prepared.is_empty() {
                    return Ok(false);
                }
                self.sides[side].slot = Some(VecDeque::new());
            }
            Act::MakeSlot(_) => {}
            Act::Copy(side) if !self.sides[side].prepared.is_empty() => return Ok(false),
            Act::Copy(side) => {
                if !self.sides[side].followed {
                    if !self.sides[1 - side].rows.is_empty() {
                        return Err("copied onto rows".into());
                    }
                    self.sides[1 - side].rows = self.sides[side].rows.clone();
                    self.sides[side].slot = Some(VecDeque::new());
                    self.sides[side].followed = true;
                }
            }
            Act::Subscribe(side) => {
                if self.sides[side].slot.is_none() {
                    return Err(format!("no slot to follow on side {side}"));
                }
                self.sides[side].followed = true;
            }
            Act::SetGate(side, open) => {
                if let Some(gate) = &mut self.sides[side].gate {
                    *gate = open;
                }
            }
            Act::TakeLock(side) => {
                self.locked = Some(side);
                return Ok(self.sides[side].prepared.is_empty());
            }
            Act::Unsubscribe(side) => self.sides[side].followed = false,
            Act::DropSlot(side) => self.sides[side].slot = None,
            // A trigger is not dropped beside whoever has fired it.
            Act::DropGate(side) if !self.sides[side].prepared.is_empty() => return Ok(false),
            Act::DropGate(side) => self.sides[side].gate = None,
            Act::Cross(side) => {
                return Ok(self.sides[side].slot.as_ref().is_none_or(VecDeque::is_empty));
            }
            Act::ForgetSlot(side) => {
                if let Some(slot) = &mut self.sides[side].slot {
                    slot.clear();
                }
            }
            Act::Delete(side) => self.sides[side].rows.clear(),
            Act::Advance(Advance { from, to, owners }) => {
                self.locked = None;
                if self.phase == from {
                    self.phase = to;
                    self.fresh = true;
                    let owner = in_charge(to);
                    let expected =
                        owners.map(|owners| if owners == Owners::New { NEW } else { OLD });
                    assert!(expected.is_none_or(|expected| expected == owner));
                }
                // Somebody else was first: what is left of the plan is not for this phase.
                self.acts.retain(|_| self.phase == to);
            }
        }
        Ok(true)
    }

    /// One row crosses, and is written to the other side's log.
    fn replicate(&mut self, side: usize) -> Result<(), String> {
        if !self.sides[side].followed {
            return Ok(());
        }
        let Some(row) = self.sides[side].slot.as_mut().and_then(VecDeque::pop_front) else {
            return Ok(());
        };
        let other = &mut self.sides[1 - side];
        if !other.rows.insert(row) {
            return Err(format!("row {row} came twice to side {}", 1 - side));
        }
        if let Some(slot) = &mut other.slot {
            slot.push_back(row);
        }
        Ok(())
    }

    fn write(&mut self, prepares: bool) {
        if self.locked == Some(self.believed) {
            return;
        }
        let side = &mut self.sides[self.believed];
        if side.gate == Some(false) {
            // Turned away: the router looks for a newer map.
            self.believed = in_charge(self.phase);
            return;
        }
        // A router that is so late has been shut out of a shard without a gate.
        if side.gate.is_none() && self.believed != in_charge(self.phase) {
            self.believed = in_charge(self.phase);
            return;
        }
        match prepares {
            // As a part of a transaction over several shards, whose router may die.
            true => side.prepared.push_back(self.next),
            false => self.commit(self.believed, self.next),
        }
        self.next += 1;
    }

    fn commit(&mut self, side: usize, row: u32) {
        let side = &mut self.sides[side];
        side.rows.insert(row);
        if let Some(slot) = &mut side.slot {
            slot.push_back(row);
        }
        self.acknowledged.insert(row);
    }

    /// Somebody finishes the oldest prepared transaction of a side.
    fn settle(&mut self, side: usize) {
        if let Some(row) = self.sides[side].prepared.pop_front() {
            self.commit(side, row);
        }
    }

    fn tick(&mut self, random: &mut Random) -> Result<(), String> {
        let before = self.phase;
        match random.below(13) {
            0..2 => {
                let prepares = random.below(8) == 0;
                self.write(prepares);
            }
            12 => self.settle(random.below(2)),
            2..6 => self.replicate(random.below(2))?,
            6 => self.believed = in_charge(self.phase),
            7 if random.below(3) == 0 => {
                self.tell(|world| format!("killed in {:?} before {:?}", world.phase, world.acts));
                if let Some(Act::Advance(advance)) = self.acts.front() {
                    self.late = Some(*advance);
                }
                self.acts.clear();
                self.fresh = false;
                self.locked = None;
                self.wish(random);
            }
            8 if random.below(4) == 0 => {
                if let Some(late) = self.late.take().filter(|late| self.phase == late.from) {
                    self.tell(|_| format!("late: {late:?}"));
                    self.phase = late.to;
                }
            }
            _ => match self.acts.pop_front() {
                Some(act) => {
                    if !self.act(act)? {
                        self.acts.push_front(act);
                    } else {
                        self.tell(|world| format!("{:?}: {act:?}", world.phase));
                    }
                }
                None => {
                    if random.below(3) == 0 {
                        self.wish(random);
                    }
                    self.plan();
                }
            },
        }
        // Rows are lost by a change of owners, or by being written to the wrong one.
        let owner = &self.sides[in_charge(self.phase)];
        let lost = |row: &&u32| !owner.rows.contains(row);
        let lost = match self.phase == before {
            true => self.acknowledged.last().filter(lost),
            false => self.acknowledged.iter().find(lost),
        };
        match lost {
            Some(row) => Err(format!("row {row} is not where {:?} says", self.phase)),
            None => Ok(()),
        }
    }

    fn tell(&mut self, what: impl Fn(&Self) -> String) {
        if self.story.is_some() {
            let line = what(self);
            self.story.get_or_insert_default().push(line);
        }
    }

    /// The operator wants something else.
    fn wish(&mut self, random: &mut Random) {
        let goals = [Goal::Cutover, Goal::Rollback, Goal::Start];
        self.goal = goals[random.below(goals.len())];
        if random.below(100) == 0 {
            self.goal = [Goal::Finish, Goal::Cancel][random.below(2)];
        }
    }

    /// After the storm: somebody ends the run.
    fn end(&mut self, random: &mut Random) -> Result<(), String> {
        self.acts.clear();
        self.fresh = false;
        self.locked = None;
        for _ in 0..4000 {
            if self.phase.is_over() && self.acts.is_empty() {
                break;
            }
            if self.acts.is_empty() {
                self.goal = match in_charge(self.phase) {
                    OLD => Goal::Cancel,
                    _ => Goal::Finish,
                };
                self.plan();
            }
            self.settle(random.below(2));
            self.replicate(random.below(2))?;
            if let Some(act) = self.acts.pop_front()
                && !self.act(act)?
            {
                self.acts.push_front(act);
            }
        }
        let owner = in_charge(self.phase);
        if !self.phase.is_over() {
            return Err(format!("it does not end: {:?} {:?}", self.phase, self.acts));
        }
        while !self.sides[owner].prepared.is_empty() {
            self.settle(owner);
        }
        if self.sides[owner].rows != self.acknowledged {
            return Err("rows are lost or nobody's".into());
        }
        let left = self.sides.iter().any(|s| s.gate.is_some() || s.slot.is_some() || s.followed);
        let other = &self.sides[1 - owner];
        if left || !other.rows.is_empty() || !other.prepared.is_empty() {
            return Err(format!("something is left: {:?}", self.sides));
        }
        Ok(())
    }
}

fn world(
    seed: u64,
    mutant: Option<Mutant>,
    story: bool,
    seen: &mut BTreeSet<&'static str>,
) -> (World, Result<(), String>) {
    let mut random = Random(seed);
    let mut world = World::new(mutant, story);
    for _ in 0..50 + random.below(1200) {
        let result = world.tick(&mut random);
        seen.insert(world.phase.name());
        if result.is_err() {
            return (world, result);
        }
    }
    let result = world.end(&mut random);
    (world, result)
}

/// Runs one schedule; a failure is run again, to be told.
fn run(seed: u64, seen: &mut BTreeSet<&'static str>) {
    if let (_, Err(problem)) = world(seed, None, false, seen) {
        let (told, _) = world(seed, None, true, seen);
        let story = told.story.unwrap_or_default().join("\n");
        panic!(
            "{story}\n{problem}\nPGHERD_SEED={seed} cargo nextest run -p pgherd reshard::simulation"
        );
    }
}

#[test]
fn no_acknowledged_write_is_lost_whatever_dies_when() {
    let mut seen = BTreeSet::new();
    let seed = std::env::var("PGHERD_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seeds = seed.map_or(0..SCHEDULES, |seed| seed..seed + 1);
    for seed in seeds {
        run(seed, &mut seen);
    }
    if seed.is_none() {
        assert_eq!(seen.len(), 9, "every phase was met: {seen:?}");
    }
}

#[test]
fn a_broken_protocol_is_caught() {
    for mutant in MUTANTS {
        let mut seen = BTreeSet::new();
        let caught = (0..MUTANT_SCHEDULES)
            .find(|seed| world(*seed, Some(mutant), false, &mut seen).1.is_err());
        println!("{mutant:?}: seed {caught:?}");
        assert!(caught.is_some(), "{mutant:?} was not caught");
    }
}
