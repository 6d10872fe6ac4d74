//! Statements that run over copies of rows, where something ends in the middle: whoever asked is
//! told an error and never a part of the answer, and nothing of the copies is left.

use std::net::{Ipv4Addr, SocketAddr};

use pgherd::dev::LocalCluster;
use pgherd_tests::router::RouterProcess;
use pgherd_tests::wire::Client;
use pgherd_tests::{cluster, kill, run, wait_until};

/// How rows come together, and the answer.
const WAYS: [(&str, &str, &str); 2] = [
    (
        "Borrow",
        "SELECT count(*), sum(place) FROM (SELECT rank() OVER (ORDER BY note) AS place FROM facts) AS ranked",
        "5000|12502500",
    ),
    (
        "Broadcast",
        "SELECT count(*), sum(length(name)) FROM facts JOIN things ON things.name = facts.note",
        "1000|7893",
    ),
];

const SHARD: usize = 3;

fn filled() -> LocalCluster {
    let cluster = cluster();
    for sql in [
        "CREATE TABLE facts (id int PRIMARY KEY, note text)",
        "CREATE TABLE things (id int PRIMARY KEY, name text)",
        "SELECT create_distributed_table('facts', 'id')",
        "SELECT create_distributed_table('things', 'id')",
        "INSERT INTO facts SELECT g, 'note ' || g FROM generate_series(1, 5000) g",
        "INSERT INTO things SELECT g, 'note ' || g FROM generate_series(1, 1000) g",
        "ANALYZE",
    ] {
        run(cluster.dsn(), sql);
    }
    cluster
}

fn direct(cluster: &LocalCluster, shard: usize) -> Client {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.file.shards[shard].port));
    Client::connect(address, &cluster.file.database).expect("the shard lets us in")
}

/// Keeps a shard from sending the rows of both tables until it is dropped.
fn hold(cluster: &LocalCluster) -> Client {
    let mut holder = direct(cluster, SHARD);
    holder.ok("BEGIN");
    holder.ok("LOCK TABLE facts, things");
    holder
}

/// Backends of the shard that wait for [`hold`].
const WAITING: &str = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                       AND query ~ 'facts|things'";

fn wait_for_copies(cluster: &LocalCluster) {
    wait_until("a shard waits with its rows", || {
        !run(&cluster.file.shards[SHARD].dsn, WAITING).is_empty()
    });
}

/// Scratch tables, and backends that work with some.
const LEFT: &str = "SELECT (SELECT count(*) FROM pg_class WHERE relname LIKE 'pgherd!_%' ESCAPE '!' \
    AND relpersistence = 't') + (SELECT count(*) FROM pg_stat_activity \
    WHERE pid <> pg_backend_pid() AND state <> 'idle' AND query LIKE '%pgherd!_%' ESCAPE '!')";

fn wait_for_nothing_left(cluster: &LocalCluster) {
    for shard in &cluster.file.shards {
        wait_until("nothing of the copies is left", || run(&shard.dsn, LEFT) == "0");
    }
}

#[test]
fn the_ways_are_those_that_are_meant() {
    let cluster = filled();
    for (way, sql, answer) in WAYS {
        let plan = run(cluster.dsn(), &format!("EXPLAIN {sql}"));
        assert!(plan.starts_with(way), "{plan}");
        assert_eq!(run(cluster.dsn(), sql), answer);
    }
}

#[test]
fn a_router_that_dies_leaves_no_copies() {
    let cluster = filled();
    for (_, sql, answer) in WAYS {
        let router = RouterProcess::start(&cluster, "mortal", "[auth]\nmethod = \"trust\"\n");
        let holder = hold(&cluster);
        let mut client = router.client();
        client.send(sql).expect("it is sent");
        wait_for_copies(&cluster);
        kill(router.pid());
        client.wait().expect_err("nobody is there to answer");
        drop(holder);
        wait_for_nothing_left(&cluster);
        assert_eq!(run(cluster.dsn(), sql), answer);
    }
}

#[test]
fn a_shard_that_goes_away_is_an_error_and_no_short_answer() {
    let cluster = filled();
    let router = RouterProcess::start(&cluster, "lasting", "[auth]\nmethod = \"trust\"\n");
    let mut client = router.client();
    for (_, sql, answer) in WAYS {
        for in_block in [false, true] {
            if in_block {
                client.ok("BEGIN");
            }
            let holder = hold(&cluster);
            client.send(sql).expect("it is sent");
            wait_for_copies(&cluster);
            let end = format!("SELECT pg_terminate_backend(pid) FROM ({WAITING}) AS waiting");
            run(&cluster.file.shards[SHARD].dsn, &end);
            let told = client.wait().expect("an answer");
            assert!(told.error.is_some() && told.rows.is_empty(), "{sql}: {told:?}");
            drop(holder);
            if in_block {
                client.ok("ROLLBACK");
            }
            wait_for_nothing_left(&cluster);
            let again = client.simple(sql, "").expect("an answer");
            let values =
                again.rows.concat().replace("row: ", "").replace('\'', "").replace(' ', "|");
            assert_eq!((again.error, &*values), (None, answer), "{sql}");
        }
    }
}

#[test]
fn a_cancel_in_the_middle_ends_all_of_it() {
    let cluster = filled();
    let router = RouterProcess::start(&cluster, "asked", "[auth]\nmethod = \"trust\"\n");
    let mut client = router.client();
    for (_, sql, _) in WAYS {
        let holder = hold(&cluster);
        client.send(sql).expect("it is sent");
        wait_for_copies(&cluster);
        client.cancel().expect("the router takes it");
        let told = client.wait().expect("an answer");
        assert_eq!(told.error.as_deref(), Some("57014"), "{sql}: {told:?}");
        drop(holder);
        wait_for_nothing_left(&cluster);
        assert_eq!(client.ok("SELECT 1"), ["row: '1'"]);
    }
}
