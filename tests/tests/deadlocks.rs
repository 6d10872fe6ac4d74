//! Transactions that wait for each other on different shards: one gives way, soon.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use pgherd::dev::LocalCluster;
use pgherd_tests::wire::{Answer, Client};
use pgherd_tests::{cluster_with, run};

/// Four times what it takes: machines are busy.
const SOON: Duration = Duration::from_secs(8);

/// A table with its rows on all shards, and one key of each of the first two.
fn keys(cluster: &LocalCluster) -> [u32; 2] {
    let dsn = cluster.dsn();
    run(dsn, "CREATE TABLE t (k int PRIMARY KEY, v int NOT NULL)");
    run(dsn, "INSERT INTO t SELECT g, 0 FROM generate_series(1, 50) g");
    run(dsn, "SELECT create_distributed_table('t', 'k')");
    [0, 1].map(|shard: usize| {
        let key = run(&cluster.file.shards[shard].dsn, "SELECT min(k) FROM t");
        key.parse().expect("each shard has a row")
    })
}

fn client(cluster: &LocalCluster, router: usize) -> Client {
    Client::connect(cluster.file.routers[router].listen, "app").expect("a router lets us in")
}

fn ask(client: &mut Client, sql: &str) -> Answer {
    client.simple(sql, "").expect("an answer")
}

fn update(key: u32) -> String {
    format!("UPDATE t SET v = v + 1 WHERE k = {key}")
}

/// Runs one statement elsewhere; its answer comes by the channel, the client when it is over.
fn later(
    mut client: Client,
    sql: String,
) -> (mpsc::Receiver<Answer>, std::thread::JoinHandle<Client>) {
    let (sender, answer) = mpsc::channel();
    let handle = std::thread::spawn(move || {
        // Nobody listens any more where a test has failed.
        let _ = sender.send(ask(&mut client, &sql));
        client
    });
    (answer, handle)
}

/// Two transactions in a circle, through these routers. The younger one gives way, and the older
/// one goes on, although the younger one's client has not rolled back.
fn circle(cluster: &LocalCluster, routers: [usize; 2], keys: [u32; 2], savepoint: bool) {
    let mut older = client(cluster, routers[0]);
    let mut younger = client(cluster, routers[1]);
    for (client, key) in [(&mut older, keys[0]), (&mut younger, keys[1])] {
        assert_eq!(ask(client, "BEGIN").error, None);
        if savepoint {
            assert_eq!(ask(client, "SAVEPOINT \"a b\"").error, None);
        }
        assert_eq!(ask(client, &update(key)).error, None);
    }
    let started = Instant::now();
    let (first, older) = later(older, update(keys[1]));
    // It waits before the younger one closes the circle, so it stays the older one there, too.
    pgherd_tests::wait_until("the older one waits", || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        run(&cluster.file.shards[1].dsn, waits) == "1"
    });
    let (second, younger) = later(younger, update(keys[0]));
    let given_way = second.recv_timeout(SOON).expect("one of them gives way");
    assert_eq!(given_way.error.as_deref(), Some("40P01"), "{:?}", given_way.lines);
    let gone_on = first.recv_timeout(SOON).expect("the other one goes on");
    println!("{:?} from the first wait to the end", started.elapsed());
    assert_eq!(gone_on.error, None, "{:?}", gone_on.lines);
    let (mut older, mut younger) =
        (older.join().expect("it ends"), younger.join().expect("it ends"));
    assert_eq!(ask(&mut older, "COMMIT").lines, ["tag: COMMIT"]);
    assert_eq!(ask(&mut younger, "SELECT 1").error.as_deref(), Some("25P02"));
    if savepoint {
        assert_eq!(ask(&mut younger, "ROLLBACK TO \"a b\"").error, None);
        assert_eq!(ask(&mut younger, &update(keys[0])).error, None);
    }
    let end = ask(&mut younger, "COMMIT").lines;
    assert_eq!(end, [if savepoint { "tag: COMMIT" } else { "tag: ROLLBACK" }]);
}

#[test]
fn the_youngest_of_a_circle_over_two_routers_gives_way_and_the_other_goes_on() {
    let cluster = cluster_with(|options| options.routers = 2);
    let keys = keys(&cluster);
    circle(&cluster, [0, 1], keys, false);
    circle(&cluster, [1, 0], keys, true);
    circle(&cluster, [0, 0], keys, false);
    // The older one of each, and the younger one after its savepoint.
    let sums = run(cluster.dsn(), "SELECT k, v FROM t WHERE v > 0 ORDER BY k");
    let [a, b] = keys;
    let expected = [(a, 4), (b, 3)];
    let mut expected: Vec<String> = expected.map(|(key, sum)| format!("{key}|{sum}")).to_vec();
    expected.sort_by_key(|line| line.split('|').next().and_then(|key| key.parse::<u32>().ok()));
    assert_eq!(sums, expected.join("\n"));
    assert_eq!(
        run(&cluster.file.catalog.dsn, "SELECT count(*) FROM pg_locks WHERE NOT granted"),
        "0"
    );
}

#[test]
fn whoever_only_waits_is_left_alone() {
    let cluster = cluster_with(|options| options.routers = 2);
    let keys = keys(&cluster);
    let mut holder = client(&cluster, 0);
    ask(&mut holder, "BEGIN");
    for key in keys {
        assert_eq!(ask(&mut holder, &update(key)).error, None);
    }
    let mut waiting = client(&cluster, 1);
    ask(&mut waiting, "BEGIN");
    assert_eq!(ask(&mut waiting, "SELECT count(*) FROM t").error, None);
    let (answer, waiting) = later(waiting, update(keys[0]));
    // Its router publishes it, and finds no circle.
    pgherd_tests::wait_until("the waiting one is published", || {
        run(&cluster.file.catalog.dsn, "SELECT count(*) FROM pgherd.waiting") == "1"
    });
    assert!(answer.try_recv().is_err(), "it waits");
    assert_eq!(ask(&mut holder, "COMMIT").lines, ["tag: COMMIT"]);
    assert_eq!(answer.recv_timeout(SOON).expect("an answer").error, None);
    let mut waiting = waiting.join().expect("it ends");
    assert_eq!(ask(&mut waiting, "COMMIT").lines, ["tag: COMMIT"]);
    pgherd_tests::wait_until("nobody is published any more", || {
        run(&cluster.file.catalog.dsn, "SELECT count(*) FROM pgherd.waiting") == "0"
    });
}

#[test]
fn transactions_that_lock_in_any_order_all_come_to_an_end() {
    const CLIENTS: usize = 4;
    const TRANSACTIONS: usize = 3;
    let cluster = cluster_with(|options| options.routers = 2);
    let keys = keys(&cluster);
    // Round and round in opposite directions over the shards: circles of two and more.
    let far = run(&cluster.file.shards[2].dsn, "SELECT min(k) FROM t");
    let keys = [keys[0], keys[1], far.parse().expect("each shard has a row")];
    let committed: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut client = client(&cluster, number % 2);
                scope.spawn(move || {
                    let mut committed = 0;
                    for turn in 0..TRANSACTIONS {
                        assert_eq!(ask(&mut client, "BEGIN").error, None);
                        let mut failed = None;
                        for step in 0..keys.len() {
                            let at =
                                if number < CLIENTS / 2 { step } else { keys.len() - 1 - step };
                            let key = keys[(at + turn) % keys.len()];
                            failed = failed.or_else(|| ask(&mut client, &update(key)).error);
                        }
                        let end = ask(&mut client, "COMMIT").lines;
                        match failed.as_deref() {
                            None => assert_eq!(end, ["tag: COMMIT"]),
                            Some(code) => {
                                assert_eq!(code, "40P01");
                                assert_eq!(end, ["tag: ROLLBACK"]);
                            }
                        }
                        committed += usize::from(failed.is_none());
                    }
                    committed
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("it ends")).sum()
    });
    println!("{committed} of {} committed", CLIENTS * TRANSACTIONS);
    assert!(committed > 0);
    let sum = run(cluster.dsn(), "SELECT sum(v) FROM t");
    assert_eq!(sum, (committed * keys.len()).to_string());
}

/// A statement by itself meets a transaction that holds a row on one shard and wants one on another,
/// where it has been already (`joins`), so that it is the older one.
fn runs_again(cluster: &LocalCluster, joins: &str, [held, wanted]: [u32; 2], sql: &str, tag: &str) {
    let mut open = client(cluster, 0);
    for statement in ["BEGIN", joins, &update(held)] {
        assert_eq!(ask(&mut open, statement).error, None, "{statement}");
    }
    let (alone, handle) = later(client(cluster, 1), sql.to_owned());
    pgherd_tests::wait_until("it waits for the transaction", || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        cluster.file.shards.iter().any(|shard| run(&shard.dsn, waits) == "1")
    });
    let wants = ask(&mut open, &update(wanted));
    assert_eq!(wants.error, None, "{sql} has not given way");
    assert_eq!(ask(&mut open, "COMMIT").lines, ["tag: COMMIT"]);
    let answer = alone.recv_timeout(SOON).expect("it runs again");
    assert_eq!((answer.error.as_deref(), &*answer.lines), (None, &[tag.to_owned()][..]));
    drop(handle.join().expect("it ends"));
}

#[test]
fn what_is_alone_in_its_transaction_gives_way_and_runs_again() {
    let cluster = cluster_with(|options| options.routers = 2);
    let [home, other] = keys(&cluster);
    let there = format!("SELECT v FROM t WHERE k = {other}");
    runs_again(&cluster, &there, [home, other], "UPDATE t SET v = v + 1", "tag: UPDATE 50");
    // It locks the home shard first.
    let there = "SELECT count(*) FROM pg_class";
    let alter = "ALTER TABLE t ADD COLUMN w int";
    runs_again(&cluster, there, [other, home], alter, "tag: ALTER TABLE");
    let sum = run(cluster.dsn(), "SELECT sum(v) FROM t WHERE w IS NULL");
    assert_eq!(sum, (50 + 2 * 2).to_string());
}
