//! Transactions that have written moving rows and do not end, in every state that they can be in:
//! with `--end-transactions` they are ended, their clients are told to run them again, and rows move.

use pgherd::dev::LocalCluster;
use pgherd_tests::wire::{Answer, Client};
use pgherd_tests::{run, wait_until};

use super::command::{assert_clean, reshard, start, try_reshard};
use super::load::cluster;

fn client(cluster: &LocalCluster) -> Client {
    Client::connect(cluster.file.routers[0].listen, "app").expect("it lets us in")
}

/// So many keys of a shard.
fn keys(cluster: &LocalCluster, shard: usize, count: u32) -> Vec<String> {
    let sql = format!("SELECT k FROM accounts ORDER BY k LIMIT {count}");
    run(&cluster.file.shards[shard].dsn, &sql).lines().map(str::to_owned).collect()
}

fn update(key: &str) -> String {
    format!("UPDATE accounts SET v = v + 1 WHERE k = {key}")
}

fn assert_told_to_retry(what: &str, answer: &Answer) {
    assert!(answer.lines.iter().any(|line| line.contains("ERROR 40001")), "{what}: {answer:?}");
}

#[test]
fn transactions_that_do_not_end_are_told_to_run_again_and_rows_move() {
    let cluster = cluster(2, 2);
    let keys_here = keys(&cluster, 0, 5);
    let keys_there = &keys(&cluster, 1, 1)[0];
    // One that began before anybody thought of moving rows.
    let mut old = client(&cluster);
    old.ok("BEGIN");
    old.ok("SELECT 1");
    start(&cluster, 0, 1);
    // What is made on the new shard, by a cut-over that gives up, needs locks of whole tables there.
    old.ok(&update(&keys_here[0]));
    let gives_up = try_reshard(&cluster, &["cutover", "--max-pause", "300ms"]);
    let said = String::from_utf8_lossy(&gives_up.stderr).into_owned();
    assert!(said.contains("did not end in time"), "{said}");
    let mut idle = client(&cluster);
    let mut ends = client(&cluster);
    let mut both = client(&cluster);
    let mut busy = client(&cluster);
    let writers = [&mut idle, &mut ends, &mut both, &mut busy];
    for (open, key) in writers.into_iter().zip(&keys_here[1..]) {
        open.ok("BEGIN");
        open.ok(&update(key));
    }
    // A slot is not made beside whoever has written on the new shard.
    both.ok(&format!("SELECT v FROM accounts WHERE k = {keys_there}"));
    // One that has written nothing.
    let mut stays = client(&cluster);
    stays.ok("BEGIN");
    stays.ok(&format!("SELECT v FROM accounts WHERE k = {}", keys_here[0]));
    busy.send(&format!("SELECT pg_sleep(3600) FROM accounts WHERE k = {}", keys_here[4]))
        .expect("it is sent");
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("one is at work", || run(&cluster.file.shards[0].dsn, sleeps) == "1");
    reshard(&cluster, &["cutover", "--max-pause", "6s", "--end-transactions"]);
    let answer = busy.wait().expect("it stays connected");
    assert_told_to_retry("at work", &answer);
    busy.ok("ROLLBACK");
    for (what, open, next) in [
        ("begun before", &mut old, "COMMIT"),
        // A key's statement would go to the new shard, and COMMIT tell of the old one.
        ("idle", &mut idle, "SELECT count(*) FROM accounts"),
        ("at its end", &mut ends, "COMMIT"),
        ("on both shards", &mut both, "COMMIT"),
    ] {
        let answer = open.simple(next, "").expect("it stays connected");
        assert_told_to_retry(what, &answer);
        if answer.status == 'E' {
            open.ok("ROLLBACK");
        }
    }
    // None of them has left anything; run again, they do.
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM accounts WHERE v > 0"), "0");
    stays.ok("COMMIT");
    for (at, open) in [&mut old, &mut idle, &mut ends, &mut both].into_iter().enumerate() {
        open.ok("BEGIN");
        open.ok(&update(&keys_here[at]));
        open.ok("COMMIT");
    }
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM accounts WHERE v > 0"), "4");
    let certificate = reshard(&cluster, &["status", "--certificate"]).pop().expect("one of them");
    assert!(certificate.contains("\"ended_transactions\":5"), "{certificate}");
    reshard(&cluster, &["finish"]);
    assert_clean(&cluster);
}
