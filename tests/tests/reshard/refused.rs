//! A change of owners that cannot be made in time is not made, and writers go on where they were.

use pgherd::dev::LocalCluster;
use pgherd_tests::wire::Client;
use pgherd_tests::{psql, run, wait_until};

use super::command::{assert_clean, reshard, start, try_reshard};
use super::load::cluster;

fn failed(cluster: &LocalCluster, args: &[&str]) -> String {
    let output = try_reshard(cluster, args);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The old owner is in charge, and takes writes of every row but those that somebody holds.
fn assert_source_in_charge(cluster: &LocalCluster, key: &str) {
    let phase = "SELECT phase FROM pgherd.reshard_list ORDER BY id DESC LIMIT 1";
    assert_eq!(run(&cluster.file.catalog.dsn, phase), "ready");
    run(cluster.dsn(), &format!("UPDATE accounts SET v = v + 1 WHERE k = {key}"));
    let there = format!("SELECT v > 0 FROM accounts WHERE k = {key}");
    assert_eq!(run(&cluster.file.shards[0].dsn, &there), "t");
}

fn finish(cluster: &LocalCluster) {
    reshard(cluster, &["cutover", "--max-pause", "2s"]);
    reshard(cluster, &["finish"]);
    assert_clean(cluster);
}

fn keys(cluster: &LocalCluster) -> [String; 2] {
    let keys = run(&cluster.file.shards[0].dsn, "SELECT k FROM accounts ORDER BY k LIMIT 2");
    let keys: Vec<String> = keys.lines().map(str::to_owned).collect();
    keys.try_into().expect("two keys")
}

#[test]
fn a_transaction_that_does_not_end_keeps_its_rows_where_they_are() {
    let cluster = cluster(2, 1);
    let [held, other] = keys(&cluster);
    start(&cluster, 0, 1);
    let mut client = Client::connect(cluster.file.routers[0].listen, "app").expect("it lets us in");
    client.ok("BEGIN");
    client.ok(&format!("UPDATE accounts SET v = 100 WHERE k = {held}"));
    let error = failed(&cluster, &["cutover", "--max-pause", "300ms"]);
    assert!(error.contains("did not end in time"), "{error}");
    assert_source_in_charge(&cluster, &other);
    client.ok("COMMIT");
    finish(&cluster);
    assert_eq!(run(cluster.dsn(), &format!("SELECT v FROM accounts WHERE k = {held}")), "100");
}

#[test]
fn an_orphaned_prepared_transaction_keeps_rows_from_moving_until_it_is_ended() {
    let cluster = cluster(2, 1);
    let [held, other] = keys(&cluster);
    let source = &cluster.file.shards[0].dsn;
    let orphan = format!(
        "BEGIN; UPDATE accounts SET v = 100 WHERE k = {held}; PREPARE TRANSACTION 'orphan'"
    );
    start(&cluster, 0, 1);
    psql(source, &orphan);
    let error = failed(&cluster, &["cutover", "--max-pause", "300ms"]);
    assert!(error.contains("did not end in time"), "{error}");
    assert_source_in_charge(&cluster, &other);
    run(source, "COMMIT PREPARED 'orphan'");
    finish(&cluster);
    assert_eq!(run(cluster.dsn(), &format!("SELECT v FROM accounts WHERE k = {held}")), "100");
}

#[test]
fn a_budget_that_cannot_be_met_moves_nothing() {
    let cluster = cluster(2, 1);
    let [_, other] = keys(&cluster);
    start(&cluster, 0, 1);
    let error = failed(&cluster, &["cutover", "--max-pause", "1ms"]);
    // Whichever step has met the end of the budget.
    let told = ["1 ms", "did not end in time", "has not followed"];
    assert!(told.iter().any(|told| error.contains(told)), "{error}");
    assert_source_in_charge(&cluster, &other);
    finish(&cluster);
}

#[test]
fn a_run_that_is_paused_waits_and_goes_on_when_it_is_resumed() {
    let cluster = cluster(2, 1);
    let [_, key] = keys(&cluster);
    start(&cluster, 0, 1);
    reshard(&cluster, &["pause"]);
    reshard(&cluster, &["pause"]);
    let status = reshard(&cluster, &["status"]);
    assert!(status[0].contains("\"paused\":true"), "{status:?}");
    let metrics = || {
        let url = format!("http://{}/metrics", cluster.file.routers[0].http);
        let output = std::process::Command::new("curl").args(["-s", &url]).output();
        String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned()
    };
    wait_until("a router's metrics tell of it", || {
        let text = metrics();
        text.contains("pgherd_reshard_run{run=\"1\",phase=\"ready\"} 1")
            && text.contains("pgherd_reshard_paused 1")
            && text.contains("pgherd_reshard_lag_bytes{source=\"0\",target=\"1\"}")
    });
    run(cluster.dsn(), &format!("UPDATE accounts SET v = 7 WHERE k = {key}"));
    let there = format!("SELECT v FROM accounts WHERE k = {key}");
    let error = failed(&cluster, &["cutover"]);
    assert!(error.contains("is paused") && error.contains("pgherd reshard resume"), "{error}");
    assert_eq!(run(&cluster.file.shards[1].dsn, &there), "0", "nothing flows");
    reshard(&cluster, &["resume"]);
    reshard(&cluster, &["verify"]);
    assert_eq!(run(&cluster.file.shards[1].dsn, &there), "7");
    finish(&cluster);
    let error = failed(&cluster, &["pause"]);
    assert!(error.contains("finished"), "{error}");
}
