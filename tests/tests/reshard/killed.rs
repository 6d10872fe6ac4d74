//! The command is killed in every phase; the same command again goes on.

use std::process::{Command, Stdio};

use pgherd::dev::LocalCluster;
use pgherd_tests::{program, run, wait_until};

use super::command::{assert_clean, assert_placed, reshard, start, try_reshard};
use super::load::{TABLES, audit, cluster, under_load};

const CLIENTS: u32 = 2;

/// Runs a command, and kills it when it tells of `step`. Whether it did.
pub(crate) fn kill_at(cluster: &LocalCluster, args: &[&str], step: &str) -> bool {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(program())
        .arg("reshard")
        .args(args)
        .args(["--json", "--max-pause", "2s", "--catalog", &cluster.file.catalog.dsn])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("pgherd runs");
    let output = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let wanted = format!("\"step\":\"{step}\"");
    let told = output.lines().map_while(Result::ok).any(|line| line.contains(&wanted));
    child.kill().expect("it is ours");
    child.wait().expect("it ends");
    told
}

fn phase(cluster: &LocalCluster) -> String {
    run(&cluster.file.catalog.dsn, "SELECT phase FROM pgherd.reshard_list ORDER BY id DESC LIMIT 1")
}

#[test]
fn a_command_that_is_killed_anywhere_is_taken_up_by_the_next() {
    let cluster = cluster(2, CLIENTS);
    let ledgers = under_load(&cluster, CLIENTS, || {
        for step in ["publish", "copy", "catch up", "verify", "ready"] {
            match phase(&cluster).is_empty() {
                true => assert!(kill_at(&cluster, &["start", "--split", "0", "--to", "1"], step)),
                false => assert!(kill_at(&cluster, &["start"], step), "{step}"),
            }
        }
        reshard(&cluster, &["start"]);
        for step in ["follow", "publish", "verify", "cutting", "switch"] {
            assert!(kill_at(&cluster, &["cutover"], step), "{step}");
        }
        // Whether owners had changed or not, it is done now.
        reshard(&cluster, &["cutover", "--max-pause", "2s"]);
        assert!(kill_at(&cluster, &["rollback"], "follow"));
        assert!(kill_at(&cluster, &["rollback"], "returning"));
        reshard(&cluster, &["rollback", "--max-pause", "2s"]);
        reshard(&cluster, &["cutover", "--max-pause", "2s"]);
        assert!(kill_at(&cluster, &["finish"], "clear"));
        assert!(kill_at(&cluster, &["finish"], "delete"));
        reshard(&cluster, &["finish"]);
        assert_eq!(phase(&cluster), "finished");
    });
    audit(&cluster, &ledgers);
    assert_placed(&cluster, &TABLES);
    assert_clean(&cluster);
}

#[test]
fn a_gate_that_a_dead_command_has_closed_is_opened_by_a_router() {
    let cluster = cluster(2, CLIENTS);
    start(&cluster, 0, 1);
    // As a command leaves it that dies between closing the gate and the change of owners.
    reshard(&cluster, &["verify"]);
    let catalog = &cluster.file.catalog.dsn;
    run(catalog, "SELECT pgherd.advance_reshard(1, 'ready', 'cutting')");
    run(&cluster.file.shards[0].dsn, "SELECT setval('pgherd.pgherd_1_0_1_gate', 2)");
    // The writer waits, and is told nothing of it.
    let key = run(&cluster.file.shards[0].dsn, "SELECT min(k) FROM accounts");
    run(cluster.dsn(), &format!("UPDATE accounts SET v = v + 1 WHERE k = {key}"));
    assert_eq!(phase(&cluster), "ready");
    reshard(&cluster, &["cancel"]);
    assert_clean(&cluster);
}

#[test]
fn two_commands_exclude_each_other_and_runs_come_one_at_a_time() {
    let cluster = cluster(2, CLIENTS);
    start(&cluster, 0, 1);
    let second = try_reshard(&cluster, &["start", "--split", "1", "--to", "0"]);
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && error.contains("run 1 is under way"), "{error}");
    let lock = "SELECT pg_advisory_lock(7307218114352343402); SELECT pg_sleep(60)";
    let mut holder = Command::new("psql")
        .args(["-XAtq", &cluster.file.catalog.dsn, "-c", lock])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("psql runs");
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted \
                AND classid = (7307218114352343402::bit(64) >> 32)::bit(64)::int8::oid";
    wait_until("the lock is held", || run(&cluster.file.catalog.dsn, held) == "1");
    let refused = try_reshard(&cluster, &["verify"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    // Killing psql would leave its session asleep.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' \
               AND pid <> pg_backend_pid()";
    run(&cluster.file.catalog.dsn, end);
    holder.wait().expect("it ends");
    assert!(error.contains("another pgherd reshard is at work"), "{error}");
    // What joins or leaves a moving group, or changes its tables, has to wait.
    run(cluster.dsn(), "CREATE TABLE more (k int PRIMARY KEY)");
    for (sql, message) in [
        ("SELECT create_distributed_table('more', 'k', colocate_with => 'accounts')", "55006"),
        ("SELECT undistribute_table('notes')", "55006"),
        ("ALTER TABLE accounts ADD COLUMN more int", "55006"),
        ("DROP TABLE notes", "55006"),
        ("TRUNCATE notes", "55006"),
    ] {
        let answer = pgherd_tests::psql(cluster.dsn(), sql);
        assert!(answer.contains(message), "{sql}: {answer}");
    }
    reshard(&cluster, &["cancel"]);
    run(cluster.dsn(), "ALTER TABLE accounts ADD COLUMN more int");
    assert_clean(&cluster);
}
