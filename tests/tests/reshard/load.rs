//! Clients that write through several routers, note what they were told, and how long it took.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgherd::dev::LocalCluster;
use pgherd_tests::wire::{Answer, Client};
use pgherd_tests::{cluster_with, run};

/// Keys of each client: nobody else writes them.
pub(crate) const KEYS: u32 = 200;

/// Tables whose rows move.
pub(crate) const TABLES: [&str; 3] = ["accounts", "events", "notes"];

/// What a client was told.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Increments of each account.
    increments: BTreeMap<u32, i64>,
    /// Events: key and number.
    events: Vec<(u32, u64)>,
    notes: BTreeMap<u32, i64>,
    pub(crate) statements: u64,
    /// The longest that a statement took.
    pub(crate) stall: Duration,
    /// What no client should see.
    pub(crate) errors: Vec<String>,
}

/// A cluster with two routers and three tables of one group, one of them without a primary key.
pub(crate) fn cluster(shards: u32, clients: u32) -> LocalCluster {
    let cluster = plain_cluster(shards, clients, "");
    let dsn = cluster.dsn();
    run(dsn, "SELECT create_distributed_table('accounts', 'k')");
    run(dsn, "SELECT create_distributed_table('events', 'k', colocate_with => 'accounts')");
    run(dsn, "SELECT create_distributed_table('notes', 'k', colocate_with => 'accounts')");
    run(dsn, "ALTER TABLE events ADD FOREIGN KEY (k) REFERENCES accounts (k)");
    cluster
}

/// The same, and the tables are plain ones yet. `refers` is what the key of events does.
pub(crate) fn plain_cluster(shards: u32, clients: u32, refers: &str) -> LocalCluster {
    let cluster = cluster_with(|options| {
        options.shards = shards;
        options.routers = 2;
        options.pg_conf.push("max_worker_processes=16".into());
    });
    let dsn = cluster.dsn();
    run(
        dsn,
        "CREATE TABLE accounts (k int PRIMARY KEY, v bigint NOT NULL DEFAULT 0, \
              double bigint GENERATED ALWAYS AS (v * 2) STORED, filler text)",
    );
    run(
        dsn,
        &format!(
            "CREATE TABLE events (k int {refers}, n bigint, at timestamptz DEFAULT now(), \
             PRIMARY KEY (k, n))"
        ),
    );
    run(dsn, "CREATE TABLE notes (k int NOT NULL, note text)");
    let last = clients * KEYS;
    for from in (0..last).step_by(500) {
        let rows: Vec<String> = (from..(from + 500).min(last))
            .map(|key| format!("({key}, 'filler of {key}')"))
            .collect();
        run(dsn, &format!("INSERT INTO accounts (k, filler) VALUES {}", rows.join(", ")));
    }
    cluster
}

/// Writes until it is over: increments, events, notes; alone, in blocks, in both protocols.
pub(crate) fn write(cluster: &LocalCluster, client: u32, over: &AtomicBool) -> Ledger {
    let mut ledger = Ledger::default();
    let router = &cluster.file.routers[client as usize % cluster.file.routers.len()];
    let mut connection =
        Client::connect(router.listen, &cluster.file.database).expect("a router lets us in");
    let mut turn = 0_u64;
    while !over.load(Ordering::Relaxed) {
        turn += 1;
        let key = client * KEYS + (turn * 7 % u64::from(KEYS)) as u32;
        let other = client * KEYS + (turn * 11 % u64::from(KEYS)) as u32;
        let mut told = Told { connection: &mut connection, ledger: &mut ledger };
        match turn % 6 {
            0 => {
                if told.simple(&format!("UPDATE accounts SET v = v + 1 WHERE k = {key}")) {
                    *ledger.increments.entry(key).or_default() += 1;
                }
            }
            1 => {
                let text = key.to_string();
                if told.extended("UPDATE accounts SET v = v + 1 WHERE k = $1", &[Some(&text)]) {
                    *ledger.increments.entry(key).or_default() += 1;
                }
            }
            2 => {
                let (key_text, number) = (key.to_string(), turn.to_string());
                let sql = "INSERT INTO events (k, n) VALUES ($1, $2)";
                if told.extended(sql, &[Some(&key_text), Some(&number)]) {
                    ledger.events.push((key, turn));
                }
            }
            3 => {
                if told.simple(&format!("INSERT INTO notes VALUES ({key}, 'note {turn}')")) {
                    *ledger.notes.entry(key).or_default() += 1;
                }
            }
            4 => {
                // One key in a block, as an application's request has it.
                let done = told.simple("BEGIN")
                    && told.simple(&format!("UPDATE accounts SET v = v + 1 WHERE k = {key}"))
                    && told.simple(&format!("INSERT INTO events (k, n) VALUES ({key}, {turn})"))
                    && told.simple("COMMIT");
                if done {
                    *ledger.increments.entry(key).or_default() += 1;
                    ledger.events.push((key, turn));
                }
            }
            _ => {
                // Everywhere at once, and all rows are seen once.
                let first = client * KEYS;
                let sql = format!(
                    "SELECT count(*) FROM accounts WHERE k >= {first} AND k < {}",
                    first + KEYS
                );
                told.count(&sql, KEYS);
                told.fetched(&sql.replace("count(*)", "k"), KEYS);
                told.simple(&format!("SELECT v FROM accounts WHERE k = {other}"));
            }
        }
    }
    ledger
}

struct Told<'a> {
    connection: &'a mut Client,
    ledger: &'a mut Ledger,
}

impl Told<'_> {
    fn simple(&mut self, sql: &str) -> bool {
        let started = Instant::now();
        let answer = self.connection.simple(sql, "");
        self.note(sql, started, answer).is_some()
    }

    fn extended(&mut self, sql: &str, parameters: &[Option<&str>]) -> bool {
        let started = Instant::now();
        let answer = self.connection.extended(sql, parameters, false);
        self.note(sql, started, answer).is_some()
    }

    fn count(&mut self, sql: &str, expected: u32) {
        let started = Instant::now();
        let answer = self.connection.simple(sql, "");
        if let Some(answer) = self.note(sql, started, answer)
            && answer.rows != [format!("row: '{expected}'")]
        {
            self.ledger.errors.push(format!("{sql}: {:?}", answer.rows));
        }
    }

    /// So many rows, in portions.
    fn fetched(&mut self, sql: &str, expected: u32) {
        if !(self.simple("BEGIN") && self.simple(&format!("DECLARE c CURSOR FOR {sql}"))) {
            return;
        }
        let mut rows = 0;
        loop {
            let started = Instant::now();
            let answer = self.connection.simple("FETCH 9 FROM c", "");
            let Some(answer) = self.note(sql, started, answer) else { return };
            rows += answer.rows.len();
            if answer.rows.len() < 9 {
                break;
            }
        }
        if rows != expected as usize {
            self.ledger.errors.push(format!("{rows} rows by a cursor: {sql}"));
        }
        self.simple("COMMIT");
    }

    fn note(
        &mut self,
        sql: &str,
        started: Instant,
        answer: std::io::Result<Answer>,
    ) -> Option<Answer> {
        self.ledger.statements += 1;
        self.ledger.stall = self.ledger.stall.max(started.elapsed());
        match answer {
            Ok(answer) if answer.error.is_none() => Some(answer),
            Ok(answer) => {
                self.ledger.errors.push(format!("{sql}: {:?}", answer.lines));
                if answer.status == 'E' {
                    drop(self.connection.simple("ROLLBACK", ""));
                }
                None
            }
            Err(error) => {
                self.ledger.errors.push(format!("{sql}: {error}"));
                None
            }
        }
    }
}

/// Every acknowledged write is there once, and nothing else is.
pub(crate) fn audit(cluster: &LocalCluster, ledgers: &[Ledger]) {
    let dsn = cluster.dsn();
    let mut increments: BTreeMap<u32, i64> = BTreeMap::new();
    let mut events: Vec<(u32, u64)> = Vec::new();
    let mut notes: BTreeMap<u32, i64> = BTreeMap::new();
    for ledger in ledgers {
        increments.extend(&ledger.increments);
        events.extend(&ledger.events);
        notes.extend(&ledger.notes);
    }
    events.sort_unstable();
    let pairs = |sql: &str| -> BTreeMap<u32, i64> {
        let rows = run(dsn, sql);
        let pair = |line: &str| {
            let (key, value) = line.split_once('|').expect("two columns");
            (key.parse().expect("a key"), value.parse().expect("a number"))
        };
        rows.lines().map(pair).collect()
    };
    assert_eq!(pairs("SELECT k, v FROM accounts WHERE v > 0"), increments, "accounts");
    assert_eq!(pairs("SELECT k, count(*) FROM notes GROUP BY k"), notes, "notes");
    let mut found: Vec<(u32, u64)> = run(dsn, "SELECT k, n FROM events")
        .lines()
        .map(|line| {
            let (key, number) = line.split_once('|').expect("two columns");
            (key.parse().expect("a key"), number.parse().expect("a number"))
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, events, "events");
    assert_eq!(run(dsn, "SELECT count(*) FROM accounts WHERE double <> v * 2"), "0");
    let seen: Vec<&String> = ledgers.iter().flat_map(|ledger| &ledger.errors).collect();
    assert!(seen.is_empty(), "{} clients' errors: {:?}", seen.len(), &seen[..seen.len().min(5)]);
    let statements: u64 = ledgers.iter().map(|ledger| ledger.statements).sum();
    let stall = ledgers.iter().map(|ledger| ledger.stall).max().unwrap_or_default();
    println!("{statements} statements, the longest took {stall:?}");
}

/// Runs `work` under load. What the clients were told.
pub(crate) fn under_load(cluster: &LocalCluster, clients: u32, work: impl FnOnce()) -> Vec<Ledger> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        let writers: Vec<_> =
            (0..clients).map(|client| scope.spawn(move || write(cluster, client, over))).collect();
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        let ledgers = writers.into_iter().map(|writer| writer.join().expect("it ends")).collect();
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ledgers
    })
}
