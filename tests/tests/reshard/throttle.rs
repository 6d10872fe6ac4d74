//! Rows on their way give way, to each of the limits that there are, and go on when it is lifted.

use std::process::{Child, Command, Stdio};

use pgherd::dev::LocalCluster;
use pgherd_tests::wire::Client;
use pgherd_tests::{program, run, signal, wait_until};
use rustix::process::Signal;

use super::command::{assert_clean, reshard};
use super::load::{audit, cluster, under_load};

/// More than any disk has.
const TOO_MUCH: &str = "1000000TB";

/// A command that is at work until it is done, or the test is.
struct AtWork(Child);

impl AtWork {
    fn start(cluster: &LocalCluster, args: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.arg("reshard").args(args).args(["--json", "--catalog", &cluster.file.catalog.dsn]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn();
        Self(child.expect("pgherd runs"))
    }

    fn ends_well(mut self) {
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until rows are held, and until the command says so for that reason.
fn wait_for_hold(cluster: &LocalCluster, reason: &str) {
    let held = "SELECT progress->>'held' FROM pgherd.reshard_list ORDER BY id DESC LIMIT 1";
    wait_until(reason, || run(&cluster.file.catalog.dsn, held).contains(reason));
}

fn phase(cluster: &LocalCluster) -> String {
    run(&cluster.file.catalog.dsn, "SELECT phase FROM pgherd.reshard_list ORDER BY id DESC LIMIT 1")
}

#[test]
fn nothing_is_copied_or_deleted_while_a_disk_is_nearly_full() {
    let cluster = cluster(2, 1);
    let target = &cluster.file.shards[1].dsn;
    let wish = ["start", "--drain", "0", "--to", "1", "--min-free", TOO_MUCH];
    let start = AtWork::start(&cluster, &wish);
    wait_for_hold(&cluster, "--min-free");
    assert_eq!(run(target, "SELECT count(*) FROM pg_subscription"), "0", "nothing has begun");
    let status = reshard(&cluster, &["status"]);
    assert!(status[0].contains("\"held\":\"the disk of shard"), "{status:?}");
    assert!(status[0].contains("\"free\":") && status[0].contains("\"kept\":"), "{status:?}");
    reshard(&cluster, &["throttle", "--min-free", "off"]);
    start.ends_well();
    reshard(&cluster, &["cutover", "--max-pause", "2s"]);
    reshard(&cluster, &["throttle", "--min-free", TOO_MUCH]);
    let finish = AtWork::start(&cluster, &["finish"]);
    wait_for_hold(&cluster, "--min-free");
    assert_ne!(run(&cluster.file.shards[0].dsn, "SELECT count(*) FROM accounts"), "0");
    reshard(&cluster, &["throttle", "--min-free", "off"]);
    finish.ends_well();
    assert_eq!(run(&cluster.file.shards[0].dsn, "SELECT count(*) FROM accounts"), "0");
    assert_clean(&cluster);
}

#[test]
fn a_copy_that_is_under_way_is_braked_and_goes_on_from_where_it_was() {
    let cluster = cluster(2, 1);
    let target = &cluster.file.shards[1].dsn;
    run(cluster.dsn(), "INSERT INTO notes SELECT g % 200, 'note' FROM generate_series(1, 40000) g");
    let wish = ["start", "--drain", "0", "--to", "1", "--min-free", TOO_MUCH];
    let start = AtWork::start(&cluster, &wish);
    wait_for_hold(&cluster, "--min-free");
    // Its copy waits for this lock, so it is not done before the brake is on.
    let address = ([127, 0, 0, 1], cluster.file.shards[1].port).into();
    let mut locker = Client::connect(address, &cluster.file.database).expect("it lets us in");
    locker.ok("BEGIN");
    locker.ok("LOCK TABLE notes IN SHARE MODE");
    reshard(&cluster, &["throttle", "--min-free", "off"]);
    let waits = "SELECT count(*) > 0 FROM pg_locks \
                 WHERE relation = 'notes'::regclass AND NOT granted";
    wait_until("the copy waits for the lock", || run(target, waits) == "t");
    reshard(&cluster, &["throttle", "--min-free", TOO_MUCH]);
    let on = "SELECT last_value > 1 FROM pgherd.pgherd_1_0_1_brake";
    wait_until("the brake is on", || run(target, on) == "t");
    locker.ok("COMMIT");
    let braked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
                  AND backend_type = 'logical replication worker'";
    wait_until("the copy stands still", || run(target, braked) == "1");
    wait_for_hold(&cluster, "--min-free");
    // What follows, and who writes, is not held up.
    run(cluster.dsn(), "INSERT INTO accounts (k) SELECT g FROM generate_series(1000, 1400) g");
    let there = "SELECT count(*) > 150 FROM accounts WHERE k >= 1000";
    wait_until("rows of other tables follow", || {
        run(target, &format!("{there} AND hashint8extended(k, 0) < 0")) == "t"
    });
    assert_eq!(phase(&cluster), "copying");
    reshard(&cluster, &["throttle", "--min-free", "off"]);
    start.ends_well();
    assert_eq!(phase(&cluster), "ready");
    reshard(&cluster, &["cancel"]);
    assert_clean(&cluster);
}

#[test]
fn rows_wait_while_routers_see_slow_statements() {
    let cluster = cluster(2, 2);
    let metrics = || {
        let url = format!("http://{}/metrics", cluster.file.routers[0].http);
        let output = Command::new("curl").args(["-s", &url]).output();
        String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned()
    };
    let ledgers = under_load(&cluster, 2, || {
        let wish = ["start", "--drain", "0", "--to", "1", "--max-p99", "0ms"];
        let start = AtWork::start(&cluster, &wish);
        wait_for_hold(&cluster, "--max-p99");
        wait_until("a router tells of it", || metrics().contains("pgherd_reshard_held 1"));
        let status = reshard(&cluster, &["status"]);
        assert!(status[0].contains("\"p99_ms\":"), "{status:?}");
        reshard(&cluster, &["throttle", "--max-p99", "off"]);
        start.ends_well();
        reshard(&cluster, &["cancel"]);
    });
    audit(&cluster, &ledgers);
    assert_clean(&cluster);
}

#[test]
fn rows_wait_for_a_standby_that_is_behind() {
    let cluster = cluster(2, 1);
    let shard = &cluster.file.shards[0];
    let logs = tempfile::tempdir().expect("a directory");
    let receiver =
        Command::new(pgherd::dev::find_binaries().expect("they are").join("pg_receivewal"))
            .args(["--synchronous", "--no-loop", "-d", &shard.dsn, "-D"])
            .arg(logs.path())
            .stderr(Stdio::null())
            .spawn();
    let receiver = AtWork(receiver.expect("pg_receivewal runs"));
    let follows = "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn IS NOT NULL";
    wait_until("it follows", || run(&shard.dsn, follows) == "1");
    signal(receiver.0.id(), Signal::STOP);
    run(&shard.dsn, "SELECT pg_logical_emit_message(false, 'some', repeat('log', 100000))");
    run(&shard.dsn, "SELECT pg_switch_wal()");
    let wish = ["start", "--drain", "0", "--to", "1", "--max-lag", "64kB"];
    let start = AtWork::start(&cluster, &wish);
    wait_for_hold(&cluster, "--max-lag");
    signal(receiver.0.id(), Signal::CONT);
    start.ends_well();
    drop(receiver);
    reshard(&cluster, &["cancel"]);
    assert_clean(&cluster);
}
