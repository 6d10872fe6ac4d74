//! Everything fails at random while transfers run through two routers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgherd_tests::router::RouterProcess;
use pgherd_tests::wire::Client;
use pgherd_tests::{DEADLINE, wait_until};

use super::bank::{Bank, Ledger, TOTAL, Told, Transfer};

/// Kills of an ordinary test run.
const ROUTER_KILLS: u32 = 4;

const CLIENTS: u64 = 4;

/// What a long run allows until nothing is prepared any more.
const FINISHED_WITHIN: Duration = Duration::from_secs(10);

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// What the clients share with whoever breaks things.
struct Stage {
    /// Where each router listens now.
    routers: Mutex<Vec<String>>,
    over: AtomicBool,
    next: AtomicU64,
}

impl Stage {
    /// To one of the routers; none, after a moment, if it is down.
    fn connect(&self, random: &mut Random) -> Option<Client> {
        let router = {
            let routers = self.routers.lock().expect("nobody panics");
            let at = random.below(routers.len() as u64) as usize;
            routers[at].parse().expect("an address")
        };
        let client = Client::connect(router, "app").ok();
        if client.is_none() {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        client
    }
}

/// Transfers until it is over, through one router after the other.
fn transfer(bank: &[Vec<u32>], stage: &Stage, seed: u64) -> Ledger {
    let mut random = Random(seed);
    let mut ledger = Ledger::new();
    let mut connection: Option<Client> = None;
    while !stage.over.load(Ordering::Relaxed) {
        if connection.is_none() {
            connection = stage.connect(&mut random);
            if connection.is_none() {
                continue;
            }
        }
        let count = 2 + random.below(2);
        // In one order everywhere: deadlocks are another test's.
        let mut accounts: Vec<u32> = (0..count)
            .map(|_| {
                let shard = &bank[random.below(bank.len() as u64) as usize];
                shard[random.below(shard.len() as u64) as usize]
            })
            .collect();
        accounts.sort_unstable();
        accounts.dedup();
        let number = stage.next.fetch_add(1, Ordering::Relaxed);
        let transfer = Transfer { number, accounts, amount: 1 + random.below(9) as i64 };
        let told = transfer.run(&mut connection);
        ledger.push((transfer, told));
    }
    ledger
}

/// Reads the total until it is over, through one router after the other: how often it was told.
fn read(stage: &Stage, seed: u64) -> u32 {
    let mut random = Random(seed);
    let mut told = 0;
    while !stage.over.load(Ordering::Relaxed) {
        let Some(mut client) = stage.connect(&mut random) else { continue };
        let mut ask = |sql: &str| client.simple(sql, "").ok().filter(|a| a.error.is_none());
        if ask("SET pgherd.read_consistency = atomic").is_none() {
            continue;
        }
        while !stage.over.load(Ordering::Relaxed) {
            let Some(answer) = ask("SELECT sum(balance)::bigint FROM accounts") else { break };
            assert_eq!(answer.rows, [format!("row: '{TOTAL}'")]);
            told += 1;
        }
    }
    told
}

/// Breaks things until so many routers were killed; heals all that it broke.
fn disturb(bank: &mut Bank, stage: &Stage, kills: u32, random: &mut Random) {
    let names = ["a", "b"];
    let mut routers: Vec<RouterProcess> = names.iter().map(|name| bank.router(name)).collect();
    let publish = |routers: &[RouterProcess]| {
        let listen = routers.iter().map(|router| router.listen.clone());
        *stage.routers.lock().expect("nobody panics") = listen.collect();
    };
    publish(&routers);
    let mut killed = 0;
    while killed < kills {
        std::thread::park_timeout(Duration::from_millis(100 + random.below(500)));
        let shard = random.below(bank.proxies.len() as u64) as usize;
        match random.below(8) {
            0..5 => {
                let at = random.below(2) as usize;
                pgherd_tests::kill(routers[at].pid());
                killed += 1;
                // The other one lives alone for a while.
                std::thread::park_timeout(Duration::from_millis(random.below(300)));
                routers[at] = bank.router(names[at]);
                publish(&routers);
            }
            5 => {
                bank.cluster.crash_shard(shard).expect("it dies");
                std::thread::park_timeout(Duration::from_millis(random.below(300)));
                bank.cluster.restart_shard(shard).expect("it comes back");
            }
            6 => {
                bank.proxies[shard].refuse(true);
                bank.proxies[shard].cut();
                std::thread::park_timeout(Duration::from_millis(random.below(500)));
                bank.proxies[shard].refuse(false);
            }
            _ => {
                bank.proxies[shard].stall(true);
                std::thread::park_timeout(Duration::from_millis(random.below(800)));
                bank.proxies[shard].stall(false);
            }
        }
    }
    // Transfers go on for a moment, and end where routers live.
    std::thread::park_timeout(Duration::from_millis(300));
    stage.over.store(true, Ordering::Relaxed);
    let healed = Instant::now();
    wait_until("every transaction is finished", || bank.prepared() == 0);
    let limit = if kills > ROUTER_KILLS { FINISHED_WITHIN } else { DEADLINE };
    assert!(healed.elapsed() < limit, "finished {:?} after healing", healed.elapsed());
    println!("{killed} routers killed; finished {:?} after healing", healed.elapsed());
}

#[test]
fn money_is_neither_made_nor_lost_when_routers_shards_and_links_fail() {
    let wanted = std::env::var("PGHERD_ROUTER_KILLS").ok().and_then(|text| text.parse().ok());
    let kills = wanted.unwrap_or(ROUTER_KILLS);
    let seed = std::env::var("PGHERD_SEED").ok().and_then(|text| text.parse().ok());
    // Times are not repeated with it, only what is done.
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("PGHERD_SEED={seed} PGHERD_ROUTER_KILLS={kills}");
    let mut bank = Bank::open();
    let accounts = bank.accounts.clone();
    let stage =
        Stage { routers: Mutex::default(), over: AtomicBool::new(false), next: AtomicU64::new(1) };
    let mut random = Random(seed | 1);
    let ledger: Ledger = std::thread::scope(|scope| {
        let stage = &stage;
        let accounts = &accounts;
        let breaking = scope.spawn(|| {
            let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                disturb(&mut bank, stage, kills, &mut random);
            }));
            // The clients end in any case.
            stage.over.store(true, Ordering::Relaxed);
            broken.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        while stage.routers.lock().expect("nobody panics").is_empty() && !breaking.is_finished() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn(move || transfer(accounts, stage, seed ^ (number + 1) << 20 | 1))
            })
            .collect();
        let reader = scope.spawn(move || read(stage, seed << 8 | 1));
        let ledgers = clients.into_iter().flat_map(|client| client.join().expect("it ends"));
        let ledger = ledgers.collect();
        breaking.join().expect("it ends");
        let totals = reader.join().expect("it ends");
        println!("{totals} totals were read");
        assert!(totals > 0, "nothing was read");
        ledger
    });
    let count = |wanted| ledger.iter().filter(|(_, told)| *told == wanted).count();
    let (committed, failed, unknown) =
        (count(Told::Committed), count(Told::Failed), count(Told::Unknown));
    println!("{committed} transfers committed, {failed} failed, {unknown} unknown");
    assert!(committed > 0, "nothing was done");
    bank.audit(&ledger);
}
