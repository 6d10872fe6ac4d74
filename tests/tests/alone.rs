//! Statements that refuse transactions go on where they have stopped, and schema changes that wait for
//! locks let others pass.

use std::process::Command;
use std::sync::mpsc;

use pgherd::dev::LocalCluster;
use pgherd_tests::router::RouterProcess;
use pgherd_tests::wire::{Answer, Client};
use pgherd_tests::{cluster, program, run, wait_until};

fn client(cluster: &LocalCluster) -> Client {
    Client::connect(cluster.file.routers[0].listen, "app").expect("the router lets us in")
}

fn ask(client: &mut Client, sql: &str) -> Answer {
    client.simple(sql, "").expect("an answer")
}

fn sure(client: &mut Client, sql: &str) {
    let answer = ask(client, sql);
    assert_eq!(answer.error, None, "{sql}: {:?}", answer.lines);
}

/// A table with rows on all shards, and two alike on the last.
fn table(cluster: &LocalCluster, client: &mut Client) -> String {
    sure(client, "CREATE TABLE t (k int, v int)");
    sure(client, "SELECT create_distributed_table('t', 'k')");
    sure(client, "INSERT INTO t SELECT g, g FROM generate_series(1, 100) g");
    let last = cluster.file.shards.last().expect("shards");
    let key = run(&last.dsn, "SELECT min(k) FROM t");
    sure(client, &format!("INSERT INTO t VALUES ({key}, {key})"));
    key
}

/// On each shard: whether it has the index, and whether that is valid.
fn indexes(cluster: &LocalCluster) -> Vec<String> {
    let sql = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('t_v')";
    cluster.file.shards.iter().map(|shard| run(&shard.dsn, sql)).collect()
}

fn check(cluster: &LocalCluster) -> String {
    let mut command = Command::new(program());
    command.args(["check", "--catalog", &cluster.file.catalog.dsn]);
    String::from_utf8_lossy(&command.output().expect("pgherd runs").stdout).into_owned()
}

#[test]
fn an_index_that_failed_on_one_shard_is_made_there_when_it_is_said_again() {
    let cluster = cluster();
    let mut client = client(&cluster);
    let key = table(&cluster, &mut client);
    let create = "CREATE UNIQUE INDEX CONCURRENTLY t_v ON t (k, v)";

    let answer = ask(&mut client, create);
    assert_eq!(answer.error.as_deref(), Some("23505"));
    let told = answer.lines.join(" ");
    assert!(told.contains("shards 0, 1, 2") && told.contains("not on shard 3"), "{told}");
    assert!(told.contains("Not valid on shard 3: t_v."), "{told}");
    assert_eq!(indexes(&cluster), ["t", "t", "t", "f"]);
    let found = check(&cluster);
    assert!(found.contains("finished on shards 0, 1, 2 only: CREATE UNIQUE"), "{found}");

    // Nothing has changed: it fails again, and stands as before.
    assert_eq!(ask(&mut client, create).error.as_deref(), Some("23505"));
    assert_eq!(indexes(&cluster), ["t", "t", "t", "f"]);

    // What a router that died has not noted is seen on the shard.
    run(&cluster.file.catalog.dsn, "UPDATE pgherd.unfinished SET done = '{}'");
    sure(&mut client, &format!("DELETE FROM t WHERE k = {key}"));
    sure(&mut client, create);
    assert_eq!(indexes(&cluster), ["t", "t", "t", "t"]);
    assert_eq!(run(&cluster.file.catalog.dsn, "SELECT count(*) FROM pgherd.unfinished"), "0");
    let found = check(&cluster);
    assert!(!found.contains("finished on"), "{found}");

    // A shard on which it is gone already.
    run(&cluster.file.shards[1].dsn, "DROP INDEX t_v");
    let drop = "DROP INDEX CONCURRENTLY t_v";
    assert_eq!(ask(&mut client, drop).error.as_deref(), Some("42704"));
    sure(&mut client, drop);
    assert_eq!(indexes(&cluster), ["", "", "", ""]);
    assert_eq!(ask(&mut client, drop).error.as_deref(), Some("42704"));
    assert_eq!(run(&cluster.file.catalog.dsn, "SELECT count(*) FROM pgherd.unfinished"), "0");
}

/// A router whose schema changes wait for a moment only.
fn hasty(cluster: &LocalCluster, attempts: u32) -> (RouterProcess, Client) {
    let settings = format!(
        "[auth]\nmethod = \"trust\"\n[query]\nddl_lock_timeout = \"200ms\"\n\
         ddl_attempts = {attempts}\n"
    );
    let router = RouterProcess::start(cluster, "hasty", &settings);
    let listen = router.listen.parse().expect("an address");
    let client = Client::connect(listen, "app").expect("the router lets us in");
    (router, client)
}

#[test]
fn a_schema_change_that_waits_lets_others_pass_and_comes_through() {
    let cluster = cluster();
    let mut holder = client(&cluster);
    table(&cluster, &mut holder);
    let (_router, mut changer) = hasty(&cluster, 1000);
    sure(&mut holder, "BEGIN");
    sure(&mut holder, "SELECT count(*) FROM t");
    let (sender, answer) = mpsc::channel();
    let changing = std::thread::spawn(move || {
        let _ = sender.send(ask(&mut changer, "ALTER TABLE t ADD COLUMN note text"));
    });
    let home = &cluster.file.shards[0].dsn;
    let waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted";
    wait_until("the change waits", || run(home, waiting) == "t");
    // Behind one that waits without an end this would wait, too.
    let mut reader = client(&cluster);
    for _ in 0..5 {
        sure(&mut reader, "SELECT count(*) FROM t");
    }
    assert!(answer.try_recv().is_err(), "the holder still holds");
    sure(&mut holder, "COMMIT");
    let answer = answer.recv().expect("it ends");
    assert_eq!(answer.error, None, "{:?}", answer.lines);
    changing.join().expect("it ends");
    sure(&mut reader, "SELECT note FROM t");
}

#[test]
fn a_schema_change_gives_up_after_its_attempts() {
    let cluster = cluster();
    let mut holder = client(&cluster);
    table(&cluster, &mut holder);
    let (_router, mut changer) = hasty(&cluster, 3);
    sure(&mut holder, "BEGIN");
    sure(&mut holder, "LOCK TABLE t IN SHARE MODE");
    let answer = ask(&mut changer, "ALTER TABLE t ADD COLUMN note text");
    assert_eq!(answer.error.as_deref(), Some("55P03"));
    assert!(answer.lines.join(" ").contains("waited 3 times"), "{:?}", answer.lines);
    assert_eq!(answer.status, 'I');
    // A session with a limit of its own gets PostgreSQL's error, at once.
    sure(&mut changer, "SET lock_timeout = 50");
    let answer = ask(&mut changer, "ALTER TABLE t ADD COLUMN note text");
    assert_eq!(answer.error.as_deref(), Some("55P03"));
    assert!(!answer.lines.join(" ").contains("waited"), "{:?}", answer.lines);
    sure(&mut holder, "ROLLBACK");
    sure(&mut changer, "ALTER TABLE t ADD COLUMN note text");
}
