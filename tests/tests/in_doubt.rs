//! Transactions between the phases of their commit, as people see them: the view, the function, the
//! command and the metrics.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use pgherd::dev::LocalCluster;
use pgherd_tests::wire::Client;
use pgherd_tests::{cluster, program, psql, run, wait_until};

/// A gid of a router that is not there, decided by shard 0.
fn gid(age_days: u128, number: u32) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let made = now - age_days * 24 * 3_600_000;
    format!("pgherd_app_0_gone_{made:012x}{number:020x}")
}

fn shard(cluster: &LocalCluster, id: usize) -> Client {
    let address = SocketAddr::from(([127, 0, 0, 1], cluster.file.shards[id].port));
    Client::connect(address, "app").expect("the shard lets us in")
}

fn ask(client: &mut Client, sql: &str) -> Vec<String> {
    let answer = client.simple(sql, "").expect("an answer");
    assert_eq!(answer.error, None, "{sql}: {:?}", answer.lines);
    answer.rows
}

/// What a participant does in the first phase.
fn prepare(cluster: &LocalCluster, id: usize, gid: &str) {
    let mut client = shard(cluster, id);
    ask(&mut client, "BEGIN");
    ask(&mut client, "INSERT INTO t VALUES (1)");
    ask(&mut client, &format!("INSERT INTO pgherd.tx VALUES ('{gid}', 'committed', '0,1')"));
    ask(&mut client, &format!("PREPARE TRANSACTION '{gid}'"));
}

fn txn(cluster: &LocalCluster, args: &[&str]) -> String {
    let output = Command::new(program())
        .arg("txn")
        .args(args)
        .args(["--catalog", &cluster.file.catalog.dsn])
        .output()
        .expect("pgherd runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_transaction_is_seen_while_it_is_in_doubt_and_its_outcome_afterwards() {
    let cluster = cluster();
    run(cluster.dsn(), "CREATE TABLE t (k int PRIMARY KEY)");
    let gid = gid(0, 1);
    // The owner holds the decision for as long as we like.
    let mut decider = shard(&cluster, 0);
    ask(&mut decider, "BEGIN");
    ask(&mut decider, &format!("INSERT INTO pgherd.tx VALUES ('{gid}', 'committed', '0,1')"));
    prepare(&cluster, 1, &gid);

    let dsn = cluster.dsn();
    let columns = "gid, shard, decider, router, owner, state";
    assert_eq!(
        run(dsn, &format!("SELECT {columns} FROM pgherd.transactions")),
        format!("{gid}|1|0|gone|postgres|undecided")
    );
    let ordinary = "WITH mine AS (SELECT 1 AS shard) SELECT count(*), max(age) < '1 hour' \
                    FROM pgherd.transactions AS t JOIN mine USING (shard) WHERE t.router = 'gone'";
    assert_eq!(run(dsn, ordinary), "1|t");
    let mut router = Client::connect(cluster.file.routers[0].listen, "app").expect("a router");
    let by_gid = "SELECT decider, state FROM pgherd.transactions WHERE gid = $1";
    let answer = router.extended(by_gid, &[Some(&gid)], false).expect("an answer");
    assert_eq!(answer.rows, ["row: '0' 'undecided'"], "{:?}", answer.lines);
    let outcome = format!("SELECT pgherd_transaction_outcome('{gid}')");
    assert_eq!(run(dsn, &outcome), "undecided");
    let listed: serde_json::Value =
        serde_json::from_str(&txn(&cluster, &["list", "--json"])).expect("JSON");
    assert_eq!(
        (&listed[0]["gid"], &listed[0]["state"]),
        (&gid.clone().into(), &"undecided".into())
    );
    assert!(txn(&cluster, &["resolve", &gid]).contains("still deciding"));
    let http = cluster.file.routers[0].http.to_string();
    let metric = "pgherd_in_doubt_transactions{shard=\"1\"} 1";
    wait_until("metrics count it", || {
        let output = Command::new("curl").args(["-s", &format!("http://{http}/metrics")]).output();
        String::from_utf8_lossy(&output.expect("curl runs").stdout).contains(metric)
    });

    ask(&mut decider, "COMMIT");
    assert_eq!(run(dsn, &outcome), "committed");
    // A router may be quicker, and then nothing is left to be resolved.
    txn(&cluster, &["resolve", &gid]);
    assert_eq!(run(&cluster.file.shards[1].dsn, "SELECT k FROM t"), "1");
    assert_eq!(run(dsn, "SELECT count(*) FROM pgherd.transactions"), "0");
    assert_eq!(txn(&cluster, &["list"]), "");
}

#[test]
fn asking_for_an_outcome_decides_what_nobody_has_decided() {
    let cluster = cluster();
    let dsn = cluster.dsn();
    run(dsn, "CREATE TABLE t (k int PRIMARY KEY)");
    let undecided = gid(0, 1);
    prepare(&cluster, 1, &undecided);
    assert_eq!(
        run(dsn, &format!("SELECT pgherd_transaction_outcome('{undecided}')")),
        "rolled back"
    );
    wait_until("recovery rolls it back", || {
        run(&cluster.file.shards[1].dsn, "SELECT count(*) FROM pg_prepared_xacts") == "0"
    });
    assert_eq!(run(&cluster.file.shards[1].dsn, "SELECT count(*) FROM t"), "0");
    // The owner comes too late.
    let late = format!("INSERT INTO pgherd.tx VALUES ('{undecided}', 'committed', '0,1')");
    assert!(psql(&cluster.file.shards[0].dsn, &late).contains("23505"));

    let old = format!("SELECT pgherd_transaction_outcome('{}')", gid(2, 2));
    assert!(psql(dsn, &old).contains("55000"), "{}", psql(dsn, &old));
    let foreign = psql(dsn, "SELECT pgherd_transaction_outcome('other')");
    assert!(foreign.contains("22023"), "{foreign}");
}
