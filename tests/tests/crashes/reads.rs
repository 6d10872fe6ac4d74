//! Reads over several shards while transfers between them run, and while their router dies: a total
//! that shows half of a transfer is wrong.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use pgherd_tests::proxy::{Sight, Trap};
use pgherd_tests::wire::Client;
use pgherd_tests::{kill, wait_until};

use super::bank::{Bank, TOTAL, Told, Transfer};
use super::failpoints::{POINTS, commits_prepared};

/// Transfers by pgbench, one script; the reads below are the other.
const TRANSFER: &str = "\\set a random(1, 200)\n\\set b random(201, 400)\nBEGIN;\n\
    UPDATE accounts SET balance = balance - 1 WHERE id = :a;\n\
    UPDATE accounts SET balance = balance + 1 WHERE id = :b;\nCOMMIT;\n";

/// A way to read the total, and whether it is inside a block.
struct Read {
    name: &'static str,
    begin: Option<&'static str>,
    sql: &'static str,
}

const fn read(name: &'static str, begin: Option<&'static str>, sql: &'static str) -> Read {
    Read { name, begin, sql }
}

const SUM: &str = "SELECT sum(balance)::bigint FROM accounts";

/// No shard can number the rows of all: they are copied.
const BORROWED: &str = "SELECT sum(balance)::bigint FROM \
    (SELECT balance, row_number() OVER (ORDER BY balance) FROM accounts) AS numbered";

const READS: [Read; 8] = [
    read("one sum", None, SUM),
    read("rows as they arrive", None, "SELECT balance FROM accounts"),
    read("sorted rows", None, "SELECT balance FROM accounts ORDER BY balance"),
    read("copies of rows", None, BORROWED),
    read("COPY", None, "COPY accounts (balance) TO STDOUT"),
    read("one sum in a block", Some("BEGIN"), SUM),
    read("rows in a block", Some("BEGIN"), "SELECT balance FROM accounts"),
    read("one cut", Some("BEGIN ISOLATION LEVEL REPEATABLE READ"), SUM),
];

/// Ways to read all balances by a cursor.
const CURSORS: [&str; 3] = [
    "DECLARE c CURSOR FOR SELECT balance FROM accounts",
    "DECLARE c CURSOR FOR SELECT balance FROM accounts ORDER BY balance",
    "DECLARE c CURSOR WITH HOLD FOR SELECT balance FROM accounts",
];

fn connect(listen: &str, level: &str) -> Client {
    let address: SocketAddr = listen.parse().expect("an address");
    let mut client = Client::connect(address, "app").expect("the router lets us in");
    ask(&mut client, &format!("SET pgherd.read_consistency = {level}"));
    client
}

fn ask(client: &mut Client, sql: &str) -> Vec<String> {
    let answer = client.simple(sql, "").expect("an answer");
    assert_eq!(answer.error, None, "{sql}: {:?}", answer.lines);
    let value = |row: &String| {
        let row = row.trim_start_matches("copied: ").trim_start_matches("row: ");
        row.trim_matches('\'').to_owned()
    };
    answer.rows.iter().map(value).collect()
}

/// The total of all rows that came.
fn total(rows: &[String]) -> i64 {
    let number = |row: &String| row.parse::<i64>().unwrap_or_else(|_| panic!("{row}"));
    rows.iter().map(number).sum()
}

impl Read {
    /// What it says, each time that it is asked within its block.
    fn totals(&self, client: &mut Client) -> Vec<i64> {
        let Some(begin) = self.begin else { return vec![total(&ask(client, self.sql))] };
        ask(client, begin);
        let totals = [0; 2].map(|_| total(&ask(client, self.sql)));
        ask(client, "COMMIT");
        totals.to_vec()
    }
}

/// What a cursor's rows say, in portions; two cursors beside each other.
fn fetched(client: &mut Client, declare: &str) -> [i64; 2] {
    ask(client, "BEGIN");
    ask(client, declare);
    ask(client, &declare.replace(" c ", " d "));
    let mut totals = [0; 2];
    let mut ended = [false; 2];
    while ended != [true; 2] {
        for (number, name) in ["c", "d"].iter().enumerate() {
            let rows = ask(client, &format!("FETCH 70 FROM {name}"));
            totals[number] += total(&rows);
            ended[number] |= rows.len() < 70;
        }
    }
    ask(client, "COMMIT");
    if declare.contains("HOLD") {
        ask(client, "CLOSE ALL");
    }
    totals
}

/// Runs transfers until `reading` has ended, which gets a router to read through.
fn while_transferring(bank: &Bank, reading: impl FnOnce(&str)) {
    let router = bank.router("both");
    let script = bank.cluster.file.data_dir.join("transfer.sql");
    std::fs::write(&script, TRANSFER).expect("the data directory can be written");
    let over = AtomicBool::new(false);
    let run = || {
        while !over.load(Ordering::Relaxed) {
            let mut pgbench = Command::new("pgbench");
            pgbench.args(["-n", "-c", "4", "-t", "50", "-f"]).arg(&script);
            let output = pgbench
                .arg(router.dsn("postgres"))
                .stdout(Stdio::null())
                .output()
                .expect("pgbench runs");
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{text}");
        }
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(run);
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            reading(&router.listen);
        }));
        over.store(true, Ordering::Relaxed);
        running.join().expect("transfers run");
        read.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn no_total_shows_half_of_a_transfer_at_the_levels_that_promise_it() {
    let bank = Bank::open();
    while_transferring(&bank, |listen| {
        // Without the promise such totals are seen: the test can fail.
        let mut shard = connect(listen, "shard");
        wait_until("a torn total", || total(&ask(&mut shard, SUM)) != TOTAL);
        for level in ["atomic", "snapshot"] {
            let mut client = connect(listen, level);
            for read in &READS {
                for _ in 0..12 {
                    for seen in read.totals(&mut client) {
                        assert_eq!(seen, TOTAL, "{level}: {}", read.name);
                    }
                }
            }
            for declare in CURSORS {
                for _ in 0..12 {
                    assert_eq!(fetched(&mut client, declare), [TOTAL; 2], "{level}: {declare}");
                }
            }
        }
    });
}

/// The test that is known from Citus issue 7366: pgbench with two scripts, of which one moves money
/// and the other adds it up.
#[test]
fn pgbench_of_transfers_and_sums_finds_no_wrong_sum() {
    let bank = Bank::open();
    let router = bank.router("both");
    let directory = &bank.cluster.file.data_dir;
    let (transfer, sum) = (directory.join("transfer.sql"), directory.join("sum.sql"));
    std::fs::write(&transfer, TRANSFER).expect("the data directory can be written");
    let checked = format!("{SUM} \\gset\n\\if :sum != {TOTAL}\nSELECT 1/0;\n\\endif\n");
    std::fs::write(&sum, checked).expect("the data directory can be written");
    let run = |level: &str| {
        let mut pgbench = Command::new("pgbench");
        pgbench.args(["-n", "-c", "8", "-t", "50", "-f"]).arg(&transfer).arg("-f").arg(&sum);
        pgbench.env("PGOPTIONS", format!("-c pgherd.read_consistency={level}"));
        pgbench.arg(router.dsn("postgres")).output().expect("pgbench runs")
    };
    for level in ["atomic", "snapshot"] {
        let output = run(level);
        assert!(output.status.success(), "{level}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // Without the promise wrong sums are seen: the test can fail.
    wait_until("a torn total", || {
        let output = run("shard");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || text.contains("division by zero"), "{text}");
        !output.status.success()
    });
}

#[test]
fn a_cut_stays_as_it_is_for_the_whole_transaction() {
    let bank = Bank::open();
    let first = "SELECT balance FROM accounts ORDER BY id";
    while_transferring(&bank, |listen| {
        for (level, begin) in
            [("atomic", "BEGIN ISOLATION LEVEL REPEATABLE READ"), ("snapshot", "BEGIN")]
        {
            let mut client = connect(listen, level);
            for _ in 0..10 {
                ask(&mut client, begin);
                // One key's shard alone is asked first; all of them have their snapshots by then.
                let one = ask(&mut client, "SELECT balance FROM accounts WHERE id = 1");
                let rows = ask(&mut client, first);
                assert_eq!(rows[0], one[0], "{level}");
                assert_eq!(total(&rows), TOTAL, "{level}");
                assert_eq!(ask(&mut client, first), rows, "{level}");
                ask(&mut client, "COMMIT");
            }
        }
    });
}

/// Money that is on the way is seen on both accounts or on none, whatever its router died of.
#[test]
fn a_read_sees_all_of_what_a_dead_router_has_decided_and_nothing_of_the_rest() {
    let bank = Bank::open();
    let reader = bank.router("reader");
    for (at, point) in POINTS.iter().enumerate() {
        let owner = bank.router("owner");
        let pid = owner.pid();
        let accounts: Vec<u32> = bank.accounts[1..].iter().map(|shard| shard[at]).collect();
        let list: Vec<String> = accounts.iter().map(ToString::to_string).collect();
        let sql = format!(
            "SELECT count(*) FROM accounts WHERE id IN ({}) AND balance <> 1000",
            list.join(", ")
        );
        let transfer = Transfer { number: at as u64, accounts, amount: 10 };
        let mut client = connect(&reader.listen, "atomic");
        assert_eq!(ask(&mut client, &sql), ["0"], "{}", point.name);
        let mut connection = Some(connect(&owner.listen, "shard"));
        let spring = Box::new(move || kill(pid));
        bank.traps.set(Trap { sight: point.sight, nth: point.nth, spring });
        assert_eq!(transfer.run(&mut connection), Told::Unknown, "{}", point.name);
        let expected = if point.committed { "3" } else { "0" };
        assert_eq!(ask(&mut client, &sql), [expected], "{}", point.name);
        assert_eq!(total(&ask(&mut client, SUM)), TOTAL, "{}", point.name);
    }
}

#[test]
fn a_reader_finishes_what_its_owner_was_kept_from_finishing() {
    let bank = Bank::open();
    let owner = bank.router("owner");
    let accounts = vec![bank.accounts[0][0], bank.accounts[1][0]];
    let transfer = Transfer { number: 1, accounts, amount: 10 };
    let mut reader = connect(&owner.listen, "atomic");
    assert_eq!(total(&ask(&mut reader, SUM)), TOTAL);
    // The decision is made; the other shard never hears of it from the owner.
    let spring = Box::new(|| {});
    bank.traps.set(Trap { sight: Sight::Request(commits_prepared), nth: 1, spring });
    assert_eq!(transfer.run(&mut Some(connect(&owner.listen, "shard"))), Told::Committed);
    assert!(bank.traps.is_empty(), "never reached");
    assert_eq!(total(&ask(&mut reader, SUM)), TOTAL);
    assert_eq!(bank.prepared(), 0, "the read has brought it to its end");
    bank.audit(&vec![(transfer, Told::Committed)]);
}
