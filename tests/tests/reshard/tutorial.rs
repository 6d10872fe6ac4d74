//! The walk of `docs/tutorial.md`: from one PostgreSQL to two shards, while pgbench runs.

use std::process::{Command, Stdio};

use pgherd_tests::{cluster_with, pgbench, program, run, wait_until};

use super::command::{assert_clean, reshard};

const TABLES: &str = "pgbench_accounts=aid,pgbench_history=aid";

#[test]
fn one_server_becomes_two_while_pgbench_runs() {
    let cluster = cluster_with(|options| options.shards = 1);
    let (dsn, home) = (cluster.dsn(), &cluster.file.shards[0].dsn);
    pgbench(home, &["-q", "-i", "-s", "1"]);
    // What was made past the router is seen at the next change of the schema.
    run(dsn, "ALTER TABLE pgbench_history ALTER COLUMN aid SET NOT NULL");
    let donor = cluster_with(|options| options.shards = 1);
    let server = donor.file.shards[0].dsn.replace("/app", "");
    run(&format!("{server}/postgres"), "CREATE DATABASE more");
    let more = format!("{server}/more");
    let mut load = Command::new("pgbench")
        .args(["-n", "-c", "4", "-T", "600", "--max-tries=1", "--failures-detailed", dsn])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("pgbench runs");
    let done =
        || run(home, "SELECT count(*) FROM pgbench_history").parse::<u32>().expect("a count");
    wait_until("pgbench works", || done() > 100);
    let added = Command::new(program())
        .args(["shard", "add", &more, "--catalog", &cluster.file.catalog.dsn])
        .status()
        .expect("pgherd runs");
    assert!(added.success());
    reshard(&cluster, &["start", "--distribute", TABLES]);
    reshard(&cluster, &["cutover", "--max-pause", "2s"]);
    reshard(&cluster, &["finish"]);
    let all = || {
        let count = "SELECT count(*) FROM pgbench_history";
        run(dsn, count).parse::<u32>().expect("a count")
    };
    let before = all();
    wait_until("pgbench goes on", || all() > before + 100);
    let works = load.try_wait().expect("it is ours").is_none();
    load.kill().expect("it is ours");
    let said = load.wait_with_output().expect("it ends").stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(works && !said.contains("ERROR") && !said.contains("aborted"), "{said}");
    // Its last transactions end with it.
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' \
                AND query LIKE '%pgbench%' AND pid <> pg_backend_pid()";
    wait_until("all is quiet", || run(home, open) == "0" && run(&more, open) == "0");
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), \
                (SELECT sum(delta) FROM pgbench_history), \
                (SELECT sum(tbalance) FROM pgbench_tellers)";
    let sums = run(dsn, sums);
    let sums: Vec<&str> = sums.split('|').collect();
    assert!(sums[0] == sums[1] && sums[1] == sums[2], "{sums:?}");
    let there: u32 = run(&more, "SELECT count(*) FROM pgbench_accounts").parse().expect("a count");
    assert!((40_000..60_000).contains(&there), "{there} accounts on the new shard");
    assert_clean(&cluster);
}
