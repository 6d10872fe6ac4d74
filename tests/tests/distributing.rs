//! Tables are distributed, and brought home, while clients of two routers write to them: every
//! acknowledged write is there once, on the shard of its key.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pgherd::dev::LocalCluster;
use pgherd_tests::wire::{Answer, Client};
use pgherd_tests::{cluster_with, run, wait_until};

const CLIENTS: u32 = 6;
/// Keys of each client.
const KEYS: u32 = 50;

/// What a client was told.
#[derive(Default)]
struct Ledger {
    increments: BTreeMap<u32, i64>,
    errors: Vec<String>,
}

fn two_routers() -> LocalCluster {
    let cluster = cluster_with(|options| options.routers = 2);
    let dsn = cluster.dsn();
    run(dsn, "CREATE TABLE counters (k int PRIMARY KEY, v bigint NOT NULL DEFAULT 0, filler text)");
    run(dsn, "CREATE TABLE other (k int)");
    run(dsn, "CREATE VIEW seen AS SELECT * FROM counters");
    run(
        dsn,
        "CREATE FUNCTION total_of_it() RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n bigint; \
         BEGIN EXECUTE 'SELECT count(*) FROM coun' || 'ters' INTO n; RETURN n; END $$",
    );
    let last = CLIENTS * KEYS - 1;
    run(dsn, &format!("INSERT INTO counters (k) SELECT k FROM generate_series(0, {last}) k"));
    cluster
}

fn connect(cluster: &LocalCluster, router: usize) -> Client {
    let router = &cluster.file.routers[router];
    Client::connect(router.listen, &cluster.file.database).expect("a router lets us in")
}

/// Writes until it is over: alone, prepared, in blocks.
fn write(cluster: &LocalCluster, client: u32, over: &AtomicBool, turns: &AtomicU64) -> Ledger {
    let mut connection = connect(cluster, client as usize % 2);
    let mut ledger = Ledger::default();
    let mut turn = u64::from(client);
    while !over.load(Ordering::Relaxed) {
        turn += 1;
        turns.fetch_add(1, Ordering::Relaxed);
        let key = client * KEYS + (turn * 7 % u64::from(KEYS)) as u32;
        let update = format!("UPDATE counters SET v = v + 1 WHERE k = {key}");
        let done = match turn % 5 {
            0 => told(&mut ledger, &update, connection.simple(&update, "")),
            1 => {
                let sql = "UPDATE counters SET v = v + 1 WHERE k = $1";
                let answer = connection.extended(sql, &[Some(&key.to_string())], false);
                told(&mut ledger, sql, answer)
            }
            2 => in_block(&mut connection, &mut ledger, &["BEGIN", &update, "COMMIT"]),
            // It holds a lock of the table, or none, when the table is to change.
            3 => {
                let read = format!("SELECT v FROM counters WHERE k = {key}");
                in_block(&mut connection, &mut ledger, &["BEGIN", &read, &update, "COMMIT"])
            }
            _ => {
                let table = if turn.is_multiple_of(2) { "counters" } else { "seen" };
                let count = &format!("SELECT count(*) FROM {table}");
                if let Some(answer) = answered(&mut ledger, count, connection.simple(count, ""))
                    && answer.rows != [format!("row: '{}'", CLIENTS * KEYS)]
                {
                    ledger.errors.push(format!("{count}: {:?}", answer.rows));
                }
                continue;
            }
        };
        if done {
            *ledger.increments.entry(key).or_default() += 1;
        }
    }
    ledger
}

fn in_block(connection: &mut Client, ledger: &mut Ledger, statements: &[&str]) -> bool {
    for sql in statements {
        let answer = connection.simple(sql, "");
        if !told(ledger, sql, answer) {
            let _ = connection.simple("ROLLBACK", "");
            return false;
        }
    }
    true
}

fn told(ledger: &mut Ledger, sql: &str, answer: std::io::Result<Answer>) -> bool {
    answered(ledger, sql, answer).is_some_and(|answer| {
        let changed =
            !sql.starts_with("UPDATE") || answer.lines.iter().any(|l| l == "tag: UPDATE 1");
        if !changed {
            ledger.errors.push(format!("{sql}: {:?}", answer.lines));
        }
        changed
    })
}

fn answered(ledger: &mut Ledger, sql: &str, answer: std::io::Result<Answer>) -> Option<Answer> {
    match answer {
        Ok(answer) if answer.error.is_none() => Some(answer),
        Ok(answer) => {
            ledger.errors.push(format!("{sql}: {:?}", answer.lines));
            None
        }
        Err(error) => {
            ledger.errors.push(format!("{sql}: {error}"));
            None
        }
    }
}

#[test]
fn writes_go_on_while_a_table_is_distributed_and_brought_home() {
    let cluster = two_routers();
    let dsn = cluster.dsn();
    let (over, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    let ledgers = std::thread::scope(|scope| {
        let (cluster, over, turns) = (&cluster, &over, &turns);
        let writers: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || write(cluster, client, over, turns)))
            .collect();
        let worked = std::panic::catch_unwind(|| {
            for _ in 0..3 {
                for change in [
                    "SELECT create_distributed_table('counters', 'k')",
                    "SELECT undistribute_table('counters')",
                    "SELECT create_reference_table('counters')",
                    "SELECT undistribute_table('counters')",
                ] {
                    run(dsn, change);
                    let enough = turns.load(Ordering::Relaxed) + 200;
                    wait_until("clients have gone on", || turns.load(Ordering::Relaxed) >= enough);
                }
            }
            run(dsn, "SELECT create_distributed_table('counters', 'k')");
        });
        over.store(true, Ordering::Relaxed);
        let ledgers: Vec<Ledger> =
            writers.into_iter().map(|writer| writer.join().expect("it ends")).collect();
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ledgers
    });
    let errors: Vec<&String> = ledgers.iter().flat_map(|ledger| &ledger.errors).collect();
    assert!(errors.is_empty(), "{} errors: {:?}", errors.len(), &errors[..errors.len().min(5)]);
    let mut increments: BTreeMap<u32, i64> = BTreeMap::new();
    ledgers.iter().for_each(|ledger| increments.extend(&ledger.increments));
    let rows = run(dsn, "SELECT k, v FROM counters WHERE v > 0");
    let found: BTreeMap<u32, i64> = rows
        .lines()
        .map(|line| {
            let (key, value) = line.split_once('|').expect("two columns");
            (key.parse().expect("a key"), value.parse().expect("a number"))
        })
        .collect();
    assert_eq!(found, increments);
    // Each row is where its key is looked for.
    for key in (0..CLIENTS * KEYS).step_by(7) {
        let one = run(dsn, &format!("SELECT v FROM counters WHERE k = {key}"));
        assert_eq!(one, increments.get(&key).copied().unwrap_or(0).to_string(), "key {key}");
    }
}

#[test]
fn a_statement_that_waits_behind_the_change_in_a_block_is_turned_away() {
    let cluster = two_routers();
    let (mut changer, mut reader) = (connect(&cluster, 0), connect(&cluster, 1));
    changer.ok("BEGIN");
    changer.ok("SELECT create_distributed_table('counters', 'k')");
    // Nothing says which table the function reads.
    reader.send("SELECT total_of_it()").expect("sent");
    let waits =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'counters'::regclass";
    let home = &cluster.file.shards[0].dsn;
    wait_until("the reader waits for the table", || run(home, waits) == "1");
    changer.ok("COMMIT");
    let answer = reader.wait().expect("an answer");
    assert!(answer.lines.iter().any(|line| line.contains("57014")), "{:?}", answer.lines);
}

#[test]
fn a_router_whose_connection_to_the_catalog_was_cut_looks_before_it_plans() {
    let cluster = two_routers();
    let (mut changer, mut other) = (connect(&cluster, 0), connect(&cluster, 1));
    let all = format!("row: '{}'", CLIENTS * KEYS);
    for round in 0..5 {
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name LIKE 'pgherd map%'";
        run(&cluster.file.shards[0].dsn, cut);
        changer.ok("SELECT create_distributed_table('counters', 'k')");
        for number in 0..5 {
            let counted = other.simple("SELECT count(*) FROM counters", "").expect("an answer");
            assert_eq!(
                counted.rows,
                std::slice::from_ref(&all),
                "round {round}, {:?}",
                counted.lines
            );
            let key = 1000 + number;
            other.ok(&format!("INSERT INTO counters (k) VALUES ({key})"));
            let found = other.simple(&format!("DELETE FROM counters WHERE k = {key}"), "");
            let found = found.expect("an answer").lines;
            assert!(found.contains(&"tag: DELETE 1".to_owned()), "{key}: {found:?}");
        }
        changer.ok("SELECT undistribute_table('counters')");
    }
}

#[test]
fn nothing_is_distributed_past_a_router_that_is_stopped() {
    use rustix::process::Signal;
    let cluster = two_routers();
    let (mut changer, mut other) = (connect(&cluster, 0), connect(&cluster, 1));
    let all = format!("row: '{}'", CLIENTS * KEYS);
    let count = "SELECT count(*) FROM counters";
    assert_eq!(other.simple(count, "").expect("an answer").rows, std::slice::from_ref(&all));
    let stopped = cluster.file.routers[1].pid;
    pgherd_tests::signal(stopped, Signal::STOP);
    let refused = changer.simple("SELECT create_distributed_table('counters', 'k')", "");
    // A schema change is not held up for good, and the router looks before it plans again.
    changer.ok("ALTER TABLE counters ADD COLUMN late int");
    pgherd_tests::signal(stopped, Signal::CONT);
    let refused = refused.expect("an answer");
    assert!(refused.lines.iter().any(|line| line.contains("55000")), "{:?}", refused.lines);
    assert_eq!(other.simple(count, "").expect("an answer").rows, std::slice::from_ref(&all));
    other.ok("SELECT late FROM counters WHERE k = 1");
    changer.ok("SELECT create_distributed_table('counters', 'k')");
    assert_eq!(other.simple(count, "").expect("an answer").rows, [all]);
}

#[test]
fn statements_go_on_when_the_change_is_rolled_back() {
    let cluster = two_routers();
    let (mut changer, mut near, mut far) =
        (connect(&cluster, 0), connect(&cluster, 0), connect(&cluster, 1));
    changer.ok("BEGIN");
    changer.ok("SELECT create_distributed_table('counters', 'k')");
    near.send("SELECT count(*) FROM counters").expect("sent");
    far.send("SELECT count(*) FROM counters WHERE k < 10").expect("sent");
    let held = |router: usize| {
        let waiting = "SELECT count(*) FROM pgherd.clients WHERE state = 'waiting'";
        run(&cluster.file.routers[router].dsn, waiting) == "1"
    };
    wait_until("both are held back", || held(0) && held(1));
    changer.ok("ROLLBACK");
    let all = format!("row: '{}'", CLIENTS * KEYS);
    assert_eq!(near.wait().expect("an answer").rows, [all]);
    assert_eq!(far.wait().expect("an answer").rows, ["row: '10'"]);
    near.ok("BEGIN");
    near.ok("SELECT create_distributed_table('counters', 'k')");
    far.send("UPDATE counters SET v = 5 WHERE k = 1").expect("sent");
    wait_until("it is held back", || held(1));
    far.cancel().expect("sent");
    let answer = far.wait().expect("an answer");
    assert!(answer.lines.iter().any(|line| line.contains("57014")), "{:?}", answer.lines);
    near.ok("COMMIT");
}
