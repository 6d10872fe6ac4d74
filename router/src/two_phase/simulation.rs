//! The protocol under a seeded simulator: an owner that may die at any step, messages that are
//! lost, late or answered to nobody, sessions that end, and two routers that recover meanwhile.
//!
//! A shard is modelled as what the protocol relies on: a table of markers whose key is unique, a
//! transaction per session that ends with its session unless it is prepared, and prepared
//! transactions that last. After the storm recovery runs until nothing is prepared; then every
//! shard must have the same outcome, an acknowledged commit must be there, and a transaction that
//! was reported as failed must not.
//!
//! `PGHERD_SEED=<n> cargo nextest run -p pgherd two_phase::simulation` runs one seed.

use std::collections::VecDeque;

use super::{Answer, DECIDER, Decided, Participant, Preparing, Request};

const SEEDS: u64 = 20_000;

struct Random(u64);

impl Random {
    /// splitmix64
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// The owner's transaction on one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Written, and not yet marked.
    Open,
    /// The marker is inserted, seen by nobody, and holds its key.
    Marked,
    Prepared,
    Committed,
    RolledBack,
}

#[derive(Debug)]
struct Shard {
    work: Work,
    /// The committed marker row: `true` for `committed`.
    marker: Option<bool>,
    session: bool,
}

impl Shard {
    fn new() -> Self {
        Self { work: Work::Open, marker: None, session: true }
    }

    /// PostgreSQL's part. `fails` lets the statement meet an error of its own.
    fn run(&mut self, request: Request, fails: bool) -> Answer {
        let needs_session =
            !matches!(request, Request::RollBackPrepared | Request::CommitPrepared(_));
        if needs_session && !self.session {
            return Answer::Lost;
        }
        let done = match (request, self.work) {
            (Request::Mark | Request::MarkAndPrepare, Work::Open)
                if fails || self.marker.is_some() =>
            {
                // 23505, or any other error: the transaction is as good as rolled back.
                self.work = Work::RolledBack;
                false
            }
            (Request::Mark, Work::Open) => {
                self.work = Work::Marked;
                true
            }
            (Request::MarkAndPrepare, Work::Open) => {
                self.work = Work::Prepared;
                true
            }
            (Request::Commit, Work::Marked) if fails => {
                self.work = Work::RolledBack;
                false
            }
            (Request::Commit, Work::Marked) | (Request::CommitPrepared(_), Work::Prepared) => {
                self.commit();
                true
            }
            (Request::RollBack, Work::Open | Work::Marked)
            | (Request::RollBackPrepared, Work::Prepared) => {
                self.work = Work::RolledBack;
                true
            }
            _ => false,
        };
        if done { Answer::Done } else { Answer::Refused }
    }

    fn commit(&mut self) {
        self.work = Work::Committed;
        self.marker = Some(true);
    }

    /// The owner's session ends: what is not prepared is rolled back.
    fn end_session(&mut self) {
        self.session = false;
        if matches!(self.work, Work::Open | Work::Marked) {
            self.work = Work::RolledBack;
        }
    }

    /// Recovery's question to the decider: INSERT `aborted` ON CONFLICT DO NOTHING. `None` is a
    /// lock timeout.
    fn ask(&mut self) -> Option<bool> {
        if matches!(self.work, Work::Marked | Work::Prepared) {
            return None;
        }
        Some(*self.marker.get_or_insert(false))
    }
}

/// What the client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Committed,
    Failed,
    Unknown,
}

struct World {
    random: Random,
    shards: Vec<Shard>,
    /// Requests under way: they may arrive after their sender has given up.
    late: VecDeque<(Participant, Request)>,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let count = 2 + random.below(4);
        let shards = (0..count).map(|_| Shard::new()).collect();
        Self { random, shards, late: VecDeque::new(), trace: Vec::new() }
    }

    /// The owner sends a request and gets an answer, or none.
    fn send(&mut self, participant: Participant, request: Request) -> Answer {
        self.disturb();
        let answer = if self.random.once_in(12) {
            // The session breaks. The request may have been read before.
            if self.random.once_in(2) {
                let fails = self.random.once_in(10);
                self.shards[participant].run(request, fails);
            } else if matches!(request, Request::CommitPrepared(_) | Request::RollBackPrepared) {
                self.late.push_back((participant, request));
            }
            self.shards[participant].end_session();
            Answer::Lost
        } else {
            let fails = self.random.once_in(15);
            self.shards[participant].run(request, fails)
        };
        self.trace.push(format!("{participant} {request:?} -> {answer:?}"));
        answer
    }

    /// Recovery by any router, at any time; and late messages.
    fn disturb(&mut self) {
        while self.random.once_in(3) {
            if self.random.once_in(2)
                && let Some((participant, request)) = self.late.pop_front()
            {
                let answer = self.shards[participant].run(request, false);
                self.trace.push(format!("late: {participant} {request:?} -> {answer:?}"));
            }
            let participant = self.random.below(self.shards.len());
            self.recover(participant);
        }
    }

    /// One step of recovery on one shard.
    fn recover(&mut self, participant: Participant) {
        if self.shards[participant].work != Work::Prepared {
            return;
        }
        let decision = self.shards[DECIDER].ask();
        self.trace.push(format!("recovery: {participant} is prepared, decider says {decision:?}"));
        match decision {
            Some(true) => self.shards[participant].commit(),
            Some(false) => self.shards[participant].work = Work::RolledBack,
            None => {}
        }
    }

    /// The owner, which may die between any two messages.
    fn own(&mut self) -> Told {
        let mut preparing = Preparing::new(self.shards.len());
        let mut requests: Vec<_> = preparing.requests().collect();
        // In parallel: in any order.
        for at in (1..requests.len()).rev() {
            requests.swap(at, self.random.below(at + 1));
        }
        for (participant, request) in requests {
            if self.dies() {
                return Told::Nothing;
            }
            let answer = self.send(participant, request);
            preparing.answered(participant, answer);
        }
        let deciding = match preparing.end() {
            Ok(deciding) => deciding,
            Err(aborting) => return self.abort(&aborting),
        };
        if self.dies() {
            return Told::Nothing;
        }
        let (decider, request) = deciding.request();
        let answer = self.send(decider, request);
        let mut decided = deciding.answered(answer);
        if let Decided::InDoubt(doubt) = decided {
            self.disturb();
            let marker = if self.random.once_in(3) { None } else { self.shards[DECIDER].ask() };
            self.trace.push(format!("in doubt: the decider says {marker:?}"));
            decided = doubt.looked_up(marker);
        }
        match decided {
            Decided::Committed(finishing) => {
                for (participant, request) in finishing.requests() {
                    if self.dies() {
                        return Told::Nothing;
                    }
                    self.send(participant, request);
                }
                Told::Committed
            }
            Decided::Aborted(aborting) => self.abort(&aborting),
            Decided::InDoubt(_) => Told::Unknown,
        }
    }

    fn abort(&mut self, aborting: &super::Aborting) -> Told {
        for (participant, request) in aborting.requests() {
            if self.dies() {
                return Told::Nothing;
            }
            self.send(*participant, *request);
        }
        // Whatever was not told ends with its session.
        self.end_sessions();
        Told::Failed
    }

    fn dies(&mut self) -> bool {
        let dies = self.random.once_in(25);
        if dies {
            self.trace.push("the owner dies".to_owned());
            self.end_sessions();
        }
        dies
    }

    fn end_sessions(&mut self) {
        for shard in &mut self.shards {
            shard.end_session();
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let told = world.own();
    world.end_sessions();
    for _ in 0..3 {
        while let Some((participant, request)) = world.late.pop_front() {
            world.shards[participant].run(request, false);
        }
        for participant in 0..world.shards.len() {
            world.recover(participant);
        }
    }
    let committed: Vec<bool> =
        world.shards.iter().map(|shard| shard.work == Work::Committed).collect();
    let story = || {
        format!(
            "told {told:?}, ended {:?}\n{}\nPGHERD_SEED={seed} cargo nextest run -p pgherd two_phase::simulation",
            world.shards,
            world.trace.join("\n")
        )
    };
    assert!(
        world.shards.iter().all(|shard| matches!(shard.work, Work::Committed | Work::RolledBack)),
        "a shard is left in doubt: {}",
        story()
    );
    assert!(committed.iter().all(|one| *one == committed[0]), "half of it: {}", story());
    match told {
        Told::Committed => assert!(committed[0], "acknowledged and lost: {}", story()),
        Told::Failed => assert!(!committed[0], "failed and committed: {}", story()),
        Told::Nothing | Told::Unknown => {}
    }
}

#[test]
fn every_shard_has_one_outcome_and_the_client_was_told_no_other() {
    if let Some(seed) = std::env::var("PGHERD_SEED").ok().and_then(|seed| seed.parse().ok()) {
        run(seed);
        return;
    }
    for seed in 0..SEEDS {
        run(seed);
    }
}
