//! The protocol under a seeded simulator: the machines of the product between model shards.
//!
//! Several routers and shards, several transactions; routers and shards that crash and come back at
//! any step, connections that break for one side before the other, messages that arrive late,
//! twice or never, clocks that jump, routers that recover while the owner lives, a standby that is
//! promoted with older data. Then everything heals, and it must hold:
//!
//! - a transaction is committed once on all shards that it wrote on, or on none;
//! - what its client was told is true;
//! - nothing is prepared any more, and no alarm was raised for what is not lost;
//! - no read over several shards has seen half of a transaction.
//!
//! ```text
//! world ── moves ──► Coordinator, Orphan, Cut (the product's own)
//!   │                    │ requests, questions
//!   └── shard ◄──────────┘   PostgreSQL, as far as the protocol relies on it
//! ```
//!
//! [`Mutant`]s show that it can fail: each breaks the protocol in one way, and is caught.
//!
//! A failure prints the command that repeats it: `PGHERD_SEED=<n> cargo nextest run -p pgherd
//! two_phase::simulation`. `PGHERD_SCHEDULES=300000` makes a longer run.

mod mutant;
mod shard;
mod world;

use std::collections::BTreeMap;

use mutant::Mutant;
use world::World;

/// Schedules of an ordinary test run: some seconds without optimization.
const SCHEDULES: u64 = 30_000;

/// How many schedules a mutant may survive.
const MUTANT_SCHEDULES: u64 = 20_000;

/// splitmix64
struct Random(u64);

impl Random {
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

/// What was seen to happen, and how often.
type Seen = BTreeMap<String, u64>;

/// Runs one schedule; what went wrong, with everything that happened, if the seed is one to tell.
fn run(seed: u64, mutant: Option<Mutant>, seen: &mut Seen) -> Result<(), String> {
    let mut world = World::new(seed, mutant, false);
    let Err(problem) = world.run(seen) else { return Ok(()) };
    if mutant.is_some() {
        return Err(problem);
    }
    let mut again = World::new(seed, mutant, true);
    let told = again.run(&mut Seen::new());
    Err(format!(
        "{}\n{problem} ({told:?})\nPGHERD_SEED={seed} cargo nextest run -p pgherd \
         two_phase::simulation",
        again.story()
    ))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_shard_has_one_outcome_and_the_client_was_told_no_other() {
    let mut seen = Seen::new();
    if let Some(seed) = number("PGHERD_SEED") {
        run(seed, None, &mut seen).unwrap_or_else(|story| panic!("{story}"));
        return;
    }
    for seed in 0..number("PGHERD_SCHEDULES").unwrap_or(SCHEDULES) {
        run(seed, None, &mut seen).unwrap_or_else(|story| panic!("{story}"));
    }
    println!("{seen:#?}");
    // It went everywhere: what is never met is not tested.
    let expected = [
        "told Committed",
        "told RolledBack",
        "told Unknown",
        "told nothing",
        "owner died while Preparing",
        "owner died while Deciding",
        "owner died while InDoubt",
        "owner died while Finishing",
        "owner died while Aborting",
        "shard died while Marked",
        "shard died while Prepared",
        "recovery: Committed",
        "recovery: RolledBack",
        "recovery: ByAnother",
        "recovery: Undecided",
        "recovery: Left",
        "standby promoted",
        "markers deleted",
        "question asked twice",
        "reader consistent",
        "reader consistent after looking again",
        "reader asked",
        "reader finishes",
        "gate closed",
        "reader died",
        "late request",
    ];
    for event in expected {
        assert!(seen.contains_key(event), "never met: {event}");
    }
}

#[test]
fn a_broken_protocol_is_caught() {
    for mutant in Mutant::ALL {
        let mut seen = Seen::new();
        let caught = (0..MUTANT_SCHEDULES).find_map(|seed| {
            run(seed, Some(mutant), &mut seen).err().map(|problem| (seed, problem))
        });
        let (seed, problem) = caught.unwrap_or_else(|| panic!("{mutant:?} was not caught"));
        println!("{mutant:?}: seed {seed}: {problem}");
    }
}
