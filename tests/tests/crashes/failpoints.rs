//! The router dies between every two steps of the protocol, and another one finishes.

use pgherd_tests::proxy::{Sight, Trap};
use pgherd_tests::wire::Client;
use pgherd_tests::{kill, wait_until};

use super::bank::{Bank, Ledger, Told, Transfer};

/// A place in the protocol, with three shards that write, and what must become of the transfer.
pub(crate) struct Point {
    pub(crate) name: &'static str,
    pub(crate) sight: Sight,
    pub(crate) nth: u32,
    pub(crate) committed: bool,
}

const fn point(name: &'static str, sight: Sight, nth: u32, committed: bool) -> Point {
    Point { name, sight, nth, committed }
}

fn decider_marks(text: &str) -> bool {
    text.contains("INSERT INTO pgherd.tx") && !participant_marks(text)
}

fn participant_marks(text: &str) -> bool {
    text.starts_with("INSERT INTO pgherd.tx")
}

fn prepares(text: &str) -> bool {
    text.starts_with("PREPARE TRANSACTION")
}

fn commits(text: &str) -> bool {
    text == "COMMIT"
}

pub(crate) fn commits_prepared(text: &str) -> bool {
    text.starts_with("COMMIT PREPARED")
}

pub(crate) const POINTS: [Point; 10] = [
    point("before the decider marks", Sight::Request(decider_marks), 1, false),
    point("before the first participant marks", Sight::Request(participant_marks), 1, false),
    point("before the first PREPARE", Sight::Request(prepares), 1, false),
    point("one has prepared, and nobody heard of it", Sight::Reply(prepares), 1, false),
    point("both have prepared, one was heard", Sight::Reply(prepares), 2, false),
    point("before the decider commits", Sight::Request(commits), 1, false),
    point("it is decided, and nobody heard of it", Sight::Reply(commits), 1, true),
    point("it is decided, and nobody was told", Sight::Request(commits_prepared), 1, true),
    point("one was told", Sight::Request(commits_prepared), 2, true),
    point("one has committed, and nobody heard of it", Sight::Reply(commits_prepared), 1, true),
];

#[test]
fn a_router_that_dies_between_any_two_steps_leaves_a_whole_transfer_or_none() {
    let bank = Bank::open();
    let _rescuer = bank.router("rescuer");
    let mut ledger = Ledger::new();
    for (at, point) in POINTS.iter().enumerate() {
        let owner = bank.router("owner");
        let pid = owner.pid();
        let address = owner.listen.parse().expect("an address");
        // Accounts of its own: what is left locked keeps nobody waiting.
        let accounts = bank.accounts[1..].iter().map(|shard| shard[at]).collect();
        let transfer = Transfer { number: at as u64, accounts, amount: 10 };
        let mut client = Some(Client::connect(address, "app").expect("the router lets us in"));
        let spring = Box::new(move || kill(pid));
        bank.traps.set(Trap { sight: point.sight, nth: point.nth, spring });
        let told = transfer.run(&mut client);
        assert!(bank.traps.is_empty(), "{}: never reached", point.name);
        assert_eq!(told, Told::Unknown, "{}", point.name);
        ledger.push((transfer, if point.committed { Told::Committed } else { Told::Failed }));
    }
    wait_until("every transaction is finished", || bank.prepared() == 0);
    bank.audit(&ledger);
}

#[test]
fn a_link_that_breaks_between_any_two_steps_leaves_a_whole_transfer_and_a_true_answer() {
    let bank = Bank::open();
    let router = bank.router("owner");
    let address = router.listen.parse().expect("an address");
    let mut ledger = Ledger::new();
    for (at, point) in POINTS.iter().enumerate() {
        let accounts = bank.accounts[1..].iter().map(|shard| shard[at]).collect();
        let transfer = Transfer { number: at as u64, accounts, amount: 10 };
        let mut client = Some(Client::connect(address, "app").expect("the router lets us in"));
        // What springs a trap is not passed on, and its connection ends.
        bank.traps.set(Trap { sight: point.sight, nth: point.nth, spring: Box::new(|| {}) });
        let told = transfer.run(&mut client);
        assert!(bank.traps.is_empty(), "{}: never reached", point.name);
        // The router lives, and the decider can be asked: it knows.
        let expected = if point.committed { Told::Committed } else { Told::Failed };
        assert_eq!(told, expected, "{}", point.name);
        ledger.push((transfer, told));
    }
    wait_until("every transaction is finished", || bank.prepared() == 0);
    bank.audit(&ledger);
}
