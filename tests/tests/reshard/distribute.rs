//! Plain tables with rows become distributed ones while clients read and write them.

use pgherd::dev::LocalCluster;
use pgherd_tests::{psql, run};

use super::command::{assert_clean, assert_placed, reshard, try_reshard};
use super::killed::kill_at;
use super::load::{TABLES, audit, plain_cluster, under_load};

const CLIENTS: u32 = 2;

const ALL: &str = "accounts=k,events=k,notes=k";

/// The tables have one group, and their rows are on both shards.
fn assert_distributed(cluster: &LocalCluster) {
    let groups = "SELECT count(DISTINCT colocation_group), count(*) FROM pgherd.tables \
                  WHERE table_name IN ('accounts'::regclass, 'events'::regclass, 'notes'::regclass)";
    assert_eq!(run(cluster.dsn(), groups), "1|3");
    for shard in &cluster.file.shards {
        let rows: u32 = run(&shard.dsn, "SELECT count(*) FROM accounts").parse().expect("a count");
        assert!(rows > 0, "shard {}", shard.id);
    }
    assert_placed(cluster, &TABLES);
    assert_clean(cluster);
}

#[test]
fn plain_tables_with_foreign_keys_are_distributed_in_one_go_under_load() {
    let cluster = plain_cluster(2, CLIENTS, "REFERENCES accounts");
    // They join the group that this one is in.
    run(cluster.dsn(), "CREATE TABLE others (k int PRIMARY KEY)");
    run(cluster.dsn(), "SELECT create_distributed_table('others', 'k')");
    let ledgers = under_load(&cluster, CLIENTS, || {
        let planned = reshard(&cluster, &["plan", "--distribute", ALL]);
        assert!(planned[0].contains("\"public.notes\""), "{planned:?}");
        let plain = "SELECT count(*) FROM pgherd.tables";
        assert_eq!(run(cluster.dsn(), plain), "1", "a plan changes nothing");
        reshard(&cluster, &["start", "--distribute", ALL]);
        reshard(&cluster, &["cutover", "--max-pause", "2s"]);
        reshard(&cluster, &["rollback", "--max-pause", "2s"]);
        reshard(&cluster, &["cutover", "--max-pause", "2s"]);
        reshard(&cluster, &["finish"]);
    });
    audit(&cluster, &ledgers);
    assert_distributed(&cluster);
    let joined = "SELECT count(DISTINCT colocation_group) FROM pgherd.tables";
    assert_eq!(run(cluster.dsn(), joined), "1");
}

#[test]
fn one_table_after_the_other_is_distributed_by_a_call_under_load() {
    let cluster = plain_cluster(2, CLIENTS, "");
    let call = |arguments: &str| {
        run(cluster.dsn(), &format!("SELECT create_distributed_table_concurrently({arguments})"))
    };
    let ledgers = under_load(&cluster, CLIENTS, || {
        call("'accounts', 'k'");
        call("'events', 'k', colocate_with => 'accounts'");
        call("'notes', 'k', colocate_with => 'accounts'");
    });
    audit(&cluster, &ledgers);
    assert_distributed(&cluster);
}

#[test]
fn a_call_takes_up_what_a_killed_command_has_begun() {
    let cluster = plain_cluster(2, CLIENTS, "");
    let ledgers = under_load(&cluster, CLIENTS, || {
        assert!(kill_at(&cluster, &["start", "--distribute", ALL], "copy"));
        let call = "SELECT create_distributed_table_concurrently('accounts', 'k')";
        run(cluster.dsn(), call);
    });
    audit(&cluster, &ledgers);
    assert_distributed(&cluster);
}

#[test]
fn a_run_that_is_cancelled_leaves_tables_that_can_be_plain_again() {
    let cluster = plain_cluster(2, CLIENTS, "");
    let ledgers = under_load(&cluster, CLIENTS, || {
        reshard(&cluster, &["start", "--distribute", ALL]);
        reshard(&cluster, &["cancel"]);
        for table in TABLES {
            run(cluster.dsn(), &format!("SELECT undistribute_table('{table}')"));
        }
    });
    audit(&cluster, &ledgers);
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM pgherd.tables"), "0");
    assert_eq!(run(&cluster.file.shards[1].dsn, "SELECT count(*) FROM accounts"), "0");
    assert_clean(&cluster);
}

#[test]
fn what_cannot_be_distributed_while_it_is_used_is_refused() {
    let cluster = plain_cluster(2, CLIENTS, "REFERENCES accounts");
    let dsn = cluster.dsn();
    run(dsn, "CREATE TABLE bare (k int, id int UNIQUE)");
    run(dsn, "CREATE TABLE done (k int PRIMARY KEY)");
    run(dsn, "SELECT create_distributed_table('done', 'k')");
    run(dsn, "CREATE ROLE someone LOGIN");
    for (sql, code) in [
        ("BEGIN; SELECT create_distributed_table_concurrently('notes', 'k')", "25001"),
        ("SELECT create_distributed_table_concurrently('accounts', 'k')", "0A000"),
        ("SELECT create_distributed_table_concurrently('bare', 'k')", "23502"),
        ("SELECT create_distributed_table_concurrently('done', 'k')", "42P16"),
        ("SELECT create_distributed_table_concurrently('notes', 'nothing')", "42703"),
        (
            "SELECT create_distributed_table_concurrently('notes', 'k', distribution => 'list')",
            "22023",
        ),
        ("SELECT create_distributed_table_concurrently('notes')", "22023"),
    ] {
        let answer = psql(dsn, sql);
        assert!(answer.contains(code), "{sql}: {answer}");
    }
    let theirs = dsn.replace("://", "://someone@");
    let theirs = match dsn.split_once('@') {
        Some((_, rest)) => format!("postgres://someone@{rest}"),
        None => theirs,
    };
    let answer = psql(&theirs, "SELECT create_distributed_table_concurrently('notes', 'k')");
    assert!(answer.contains("42501"), "{answer}");
    let refused = try_reshard(&cluster, &["start", "--distribute", "accounts=k"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("events_k_fkey") && error.contains("--distribute"), "{error}");
    assert_eq!(run(dsn, "SELECT count(*) FROM pgherd.tables"), "1", "nothing was registered");
}
