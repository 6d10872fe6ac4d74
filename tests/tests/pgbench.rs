//! pgbench and psql, unmodified, through the router of a local cluster.

use pgherd::dev::LocalCluster;
use pgherd_tests::dev::TestDir;
use pgherd_tests::{cluster, pgbench, psql, run};

const MODES: [&str; 3] = ["simple", "extended", "prepared"];

fn distribute(dsn: &str, keys: [(&str, &str); 4]) {
    for (table, key) in keys {
        run(dsn, &format!("SELECT create_distributed_table('pgbench_{table}', '{key}')"));
    }
}

/// Money is neither made nor lost, every transaction is in the history once, and no shard holds
/// a prepared transaction any more.
fn check_sums(cluster: &LocalCluster, transactions: u32) {
    let sum = |column: &str, table: &str| {
        run(cluster.dsn(), &format!("SELECT coalesce(sum({column}), 0) FROM pgbench_{table}"))
    };
    let history = sum("delta", "history");
    let count = run(cluster.dsn(), "SELECT count(*) FROM pgbench_history");
    assert_eq!(count, transactions.to_string());
    assert_eq!(sum("abalance", "accounts"), history);
    assert_eq!(sum("tbalance", "tellers"), history);
    assert_eq!(sum("bbalance", "branches"), history);
    for shard in &cluster.file.shards {
        assert_eq!(run(&shard.dsn, "SELECT count(*) FROM pg_prepared_xacts"), "0");
    }
}

/// Rows of a table on each shard, asked of the shards themselves.
fn rows_by_shard(cluster: &LocalCluster, table: &str) -> Vec<u32> {
    let count = format!("SELECT count(*) FROM {table}");
    let shards = cluster.file.shards.iter();
    shards.map(|shard| run(&shard.dsn, &count).parse().expect("a count")).collect()
}

#[test]
fn pgbench_fills_distributed_tables_and_keeps_its_sums() {
    let cluster = cluster();
    let dsn = cluster.dsn();
    pgbench(dsn, &["-i", "-I", "dt"]);
    distribute(
        dsn,
        [("accounts", "aid"), ("tellers", "tid"), ("branches", "bid"), ("history", "tid")],
    );
    pgbench(dsn, &["-i", "-I", "gvp", "-s", "1"]);
    assert_eq!(run(dsn, "SELECT count(*) FROM pgbench_accounts"), "100000");
    let counts = rows_by_shard(&cluster, "pgbench_accounts");
    assert!(counts.iter().all(|count| (20_000..30_000).contains(count)), "{counts:?}");
    for mode in MODES {
        for script in ["select-only", "tpcb-like"] {
            pgbench(dsn, &["-n", "-M", mode, "-b", script, "-c", "4", "-t", "25"]);
        }
    }
    check_sums(&cluster, 300);
    // It leaves tellers and branches alone, so only accounts and history stay equal.
    for mode in MODES {
        pgbench(dsn, &["-n", "-M", mode, "-b", "simple-update", "-c", "4", "-t", "25"]);
    }
    let both = "SELECT sum(abalance) FROM pgbench_accounts";
    assert_eq!(run(dsn, both), run(dsn, "SELECT sum(delta) FROM pgbench_history"));
    assert_eq!(run(dsn, "SELECT count(*) FROM pgbench_history"), "600");
}

#[test]
fn a_filled_pgbench_is_distributed_and_keeps_its_sums() {
    let cluster = cluster();
    let dsn = cluster.dsn();
    pgbench(dsn, &["-i", "-s", "1"]);
    pgbench(dsn, &["-n", "-c", "4", "-t", "25"]);
    check_sums(&cluster, 100);
    distribute(
        dsn,
        [("accounts", "aid"), ("tellers", "tid"), ("branches", "bid"), ("history", "aid")],
    );
    check_sums(&cluster, 100);
    let counts = rows_by_shard(&cluster, "pgbench_accounts");
    assert_eq!(counts.iter().sum::<u32>(), 100_000);
    assert!(counts.iter().all(|count| (20_000..30_000).contains(count)), "{counts:?}");
    for mode in MODES {
        pgbench(dsn, &["-n", "-M", mode, "-c", "4", "-t", "25"]);
    }
    check_sums(&cluster, 400);
}

#[test]
fn a_branch_with_all_its_rows_lives_on_one_shard() {
    let cluster = cluster();
    let dsn = cluster.dsn();
    // The primary keys that pgbench would make do not contain the branch.
    pgbench(dsn, &["-i", "-I", "dtg", "-s", "4"]);
    run(dsn, "SELECT create_distributed_table('pgbench_branches', 'bid')");
    for table in ["accounts", "tellers", "history"] {
        run(
            dsn,
            &format!(
                "SELECT create_distributed_table('pgbench_{table}', 'bid', colocate_with => \
                 'pgbench_branches')"
            ),
        );
    }
    run(dsn, "ALTER TABLE pgbench_accounts ADD PRIMARY KEY (bid, aid)");
    run(dsn, "ALTER TABLE pgbench_tellers ADD PRIMARY KEY (bid, tid)");
    for shard in &cluster.file.shards {
        let strays = "SELECT count(*) FROM pgbench_accounts a LEFT JOIN pgbench_branches b USING \
                      (bid) WHERE b.bid IS NULL";
        assert_eq!(run(&shard.dsn, strays), "0");
    }
    let dir = TestDir::new();
    let script = dir.path().join("by_branch.sql");
    std::fs::write(&script, BY_BRANCH).expect("a file");
    let script = script.to_str().expect("a text");
    for mode in MODES {
        pgbench(dsn, &["-n", "-M", mode, "-f", script, "-s", "4", "-c", "4", "-t", "25"]);
    }
    check_sums(&cluster, 300);
    let joined = "SELECT count(*) FROM pgbench_accounts a JOIN pgbench_branches b ON a.bid = b.bid \
                  JOIN pgbench_tellers t ON t.bid = b.bid";
    assert_eq!(run(dsn, joined), "4000000");
}

/// pgbench's own transaction, with the branch in every WHERE.
const BY_BRANCH: &str = "\
\\set bid random(1, :scale)
\\set aid (:bid - 1) * 100000 + random(1, 100000)
\\set tid (:bid - 1) * 10 + random(1, 10)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid AND bid = :bid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid AND bid = :bid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid AND bid = :bid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)
  VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
";

#[test]
fn a_filled_table_is_distributed_and_a_transaction_is_all_or_nothing() {
    let cluster = cluster();
    let dsn = cluster.dsn();
    run(dsn, "CREATE TABLE t (k int PRIMARY KEY, v text)");
    run(dsn, "INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 1000) g");
    run(dsn, "SELECT create_distributed_table('t', 'k')");
    assert_eq!(run(dsn, "SELECT count(*), sum(k) FROM t"), "1000|500500");
    assert_eq!(run(dsn, "SELECT v FROM t WHERE k = 77"), "v77");
    assert_eq!(run(dsn, "SELECT k FROM t ORDER BY k DESC LIMIT 2"), "1000\n999");
    let counts = rows_by_shard(&cluster, "t");
    assert_eq!(counts.iter().sum::<u32>(), 1000);
    assert!(counts.iter().all(|count| *count > 150), "{counts:?}");
    let failed = psql(dsn, "UPDATE t SET v = (1 / (k - 500))::text");
    assert!(failed.contains("22012"), "{failed}");
    assert_eq!(run(dsn, "SELECT count(*) FROM t WHERE v LIKE 'v%'"), "1000");
    let refused = psql(dsn, "SELECT ctid FROM t");
    assert!(refused.contains("0A000"), "{refused}");
}
