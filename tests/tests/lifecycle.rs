//! How a router ends, is replaced and reloaded, with clients connected.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use pgherd::dev::LocalCluster;
use pgherd_tests::router::RouterProcess;
use pgherd_tests::{cluster_with, psql, run, signal, terminate, wait_until};
use rustix::process::Signal;

const TRUST: &str = "[auth]\nmethod = \"trust\"\n";

fn cluster() -> LocalCluster {
    let cluster = cluster_with(|options| options.shards = 2);
    run(cluster.dsn(), "CREATE TABLE t (k int PRIMARY KEY)");
    run(cluster.dsn(), "SELECT create_distributed_table('t', 'k')");
    cluster
}

/// Statements that shards still run.
fn running(cluster: &LocalCluster, part: &str) -> String {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND query LIKE '%{part}%' \
         AND pid <> pg_backend_pid()"
    );
    let counts = cluster.file.shards.iter().map(|shard| psql(&shard.dsn, &sql));
    counts.collect::<Vec<_>>().join(" ")
}

#[test]
fn at_sigterm_idle_clients_leave_and_transactions_finish() {
    let cluster = cluster();
    let mut router = RouterProcess::start(&cluster, "drains", TRUST);
    let (mut idle, mut busy) = (router.client(), router.client());
    idle.ok("SELECT 1");
    busy.ok("BEGIN");
    busy.ok("INSERT INTO t VALUES (1)");
    terminate(router.pid());
    assert_eq!(idle.farewell().expect("a reason"), "57P01");
    let address = router.address();
    wait_until("nobody is let in", || TcpStream::connect(address).is_err());
    busy.ok("INSERT INTO t VALUES (2), (3), (4)");
    busy.ok("COMMIT");
    assert_eq!(busy.farewell().expect("a reason"), "57P01");
    assert!(router.wait(), "it ends well");
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM t"), "4");
}

#[test]
fn a_transaction_that_does_not_end_in_time_is_rolled_back() {
    let cluster = cluster();
    let config = format!("shutdown_timeout = \"300ms\"\n{TRUST}");
    let mut router = RouterProcess::start(&cluster, "limited", &config);
    let (mut resting, mut running_one) = (router.client(), router.client());
    resting.ok("BEGIN");
    resting.ok("INSERT INTO t VALUES (1), (2), (3), (4)");
    running_one.send("BEGIN; INSERT INTO t VALUES (5); SELECT pg_sleep(600)").expect("sent");
    wait_until("it runs", || running(&cluster, "pg_sleep(600)").contains('1'));
    terminate(router.pid());
    assert_eq!(resting.farewell().expect("a reason"), "57P01");
    assert_eq!(running_one.farewell().expect("a reason"), "57P01");
    assert!(router.wait(), "it ends well");
    wait_until("no shard works for nobody", || running(&cluster, "pg_sleep(600)") == "0 0");
    run(cluster.dsn(), "INSERT INTO t VALUES (1), (5)");
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM t"), "2");
}

#[test]
fn at_sigint_everybody_leaves_at_once() {
    let cluster = cluster();
    let config = format!("shutdown_timeout = \"1h\"\n{TRUST}");
    let mut router = RouterProcess::start(&cluster, "fast", &config);
    let (mut idle, mut open) = (router.client(), router.client());
    idle.ok("SELECT 1");
    open.ok("BEGIN");
    open.ok("INSERT INTO t VALUES (1)");
    // A drain that has begun does not stand in the way.
    terminate(router.pid());
    assert_eq!(idle.farewell().expect("a reason"), "57P01");
    signal(router.pid(), Signal::INT);
    assert_eq!(open.farewell().expect("a reason"), "57P01");
    assert!(router.wait(), "it ends well");
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM t"), "0");
}

/// pgbench with clients that stay (`args` empty) or connect anew for every transaction (`-C`).
fn pgbench(dsn: &str, script: &str, args: &[&str]) -> Child {
    Command::new("pgbench")
        .args(["-n", "-c", "6", "-f", script])
        .args(args)
        .arg(dsn)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("pgbench starts")
}

fn assert_no_error(bench: Child) {
    let output = bench.wait_with_output().expect("pgbench ends");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !err.contains("error"), "{out}{err}");
    assert!(out.contains("number of failed transactions: 0 "), "{out}{err}");
}

#[test]
fn a_router_takes_over_from_another_and_no_client_sees_an_error() {
    let cluster = cluster();
    let script = cluster.file.data_dir.join("upgrade.sql");
    let text = "\\set k random(1, 1000000000)\nBEGIN;\nINSERT INTO t VALUES (:k) ON CONFLICT DO \
                NOTHING;\nSELECT count(*) FROM t WHERE k = :k;\nCOMMIT;\n";
    std::fs::write(&script, text).expect("the data directory can be written");
    let script = script.to_str().expect("a path of ASCII");
    let config = format!("reuse_port = true\n{TRUST}");
    let mut old = RouterProcess::start(&cluster, "version0", &config);
    let listen = old.listen.clone();
    let dsn = old.dsn("postgres");
    // Transactions by the number, not by the time: they span the change on any machine.
    let staying = pgbench(&dsn, script, &["-t", "400"]);
    let connecting = pgbench(&dsn, script, &["-C", "-t", "150"]);
    let inserted = || run(cluster.dsn(), "SELECT count(*) FROM t").parse().expect("a number");
    for (version, begun) in [(1, 100), (2, 1000)] {
        // All have connected, and have long not finished.
        wait_until("clients are at work", || {
            let inserted: u32 = inserted();
            inserted >= begun
        });
        let new = RouterProcess::start_on(&cluster, &listen, &format!("version{version}"), &config);
        terminate(old.pid());
        // Ends when its last client has left: those of this test do not rest.
        let mut before = std::mem::replace(&mut old, new);
        assert!(before.wait(), "it ends well");
    }
    assert_no_error(staying);
    assert_no_error(connecting);
    let inserted = inserted();
    // Equal keys of a billion happen, but not often.
    assert!((3290..=3300).contains(&inserted), "{inserted}");
}

#[test]
fn a_router_that_hands_over_lets_resting_clients_go() {
    let cluster = cluster();
    let config = format!("reuse_port = true\nshutdown_timeout = \"1h\"\n{TRUST}");
    let mut router = RouterProcess::start(&cluster, "resting", &config);
    let mut resting = router.client();
    resting.ok("SELECT 1");
    terminate(router.pid());
    assert_eq!(resting.farewell().expect("a reason"), "57P01");
    assert!(router.wait(), "it ends well");
}

#[test]
fn a_reload_changes_who_may_log_in() {
    let cluster = cluster();
    run(cluster.dsn(), "CREATE ROLE ada LOGIN");
    let entry = |user: &str, method: &str| {
        format!("[[auth.hba]]\ntype = \"host\"\nuser = \"{user}\"\nmethod = \"{method}\"\n")
    };
    let all = entry("all", "trust");
    let router = RouterProcess::start(&cluster, "hba", &all);
    let ada = router.dsn("ada");
    assert_eq!(psql(&ada, "SELECT 1"), "1");
    router.configure(&format!("{}{all}", entry("ada", "reject")));
    signal(router.pid(), Signal::HUP);
    wait_until("ada is refused", || {
        psql(&ada, "SELECT 1").contains("pg_hba.conf rejects connection")
    });
    router.configure(&all);
    assert_eq!(psql(&format!("postgres://postgres@{}/pgherd", router.listen), "RELOAD"), "");
    assert_eq!(psql(&ada, "SELECT 1"), "1");
}

#[test]
fn a_reload_changes_what_it_can_and_names_the_rest() {
    let cluster = cluster();
    let router = RouterProcess::start(&cluster, "reloads", TRUST);
    let console = format!("postgres://postgres@{}/pgherd", router.listen);
    let setting = |name: &str| {
        let config = psql(&console, "SHOW CONFIG");
        let line = config.lines().find_map(|line| line.strip_prefix(&format!("{name}|")));
        line.expect("a setting").to_owned()
    };
    let mut staying = router.client();
    staying.ok("BEGIN");
    assert_eq!(setting("pool.wait"), "5s|yes");

    router.configure(&format!("max_clients = 77\n{TRUST}[pool]\nwait = \"9s\"\n"));
    signal(router.pid(), Signal::HUP);
    wait_until("it has reloaded", || setting("pool.wait") == "9s|yes");
    assert_eq!(setting("max_clients"), "77|yes");

    router.configure(&format!("workers = 1\n{TRUST}[pool]\nwait = \"8s\"\n"));
    let said = psql(&console, "RELOAD");
    assert!(said.contains("55P02") && said.contains("restart: workers"), "{said}");
    assert_eq!(setting("pool.wait"), "8s|yes");

    router.configure("nonsense = 1\n");
    let said = psql(&console, "RELOAD");
    assert!(said.contains("nonsense") && said.contains("Nothing was changed"), "{said}");
    assert_eq!(setting("pool.wait"), "8s|yes");
    assert_eq!(staying.ok("SELECT 1"), ["row: '1'"]);
    staying.ok("COMMIT");
}
