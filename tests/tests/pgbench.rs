//! pgbench and psql, unmodified, through the router of a local cluster.

use pgherd_tests::{cluster, pgbench, psql};

#[test]
fn pgbench_keeps_its_sums_over_four_shards() {
    let cluster = cluster();
    let dsn = cluster.dsn();
    pgbench(dsn, &["-i", "-I", "dt"]);
    for (table, key) in
        [("accounts", "aid"), ("tellers", "tid"), ("branches", "bid"), ("history", "aid")]
    {
        psql(dsn, &format!("SELECT create_distributed_table('pgbench_{table}', '{key}')"));
    }
    pgbench(dsn, &["-i", "-I", "gvp", "-s", "1"]);
    assert_eq!(psql(dsn, "SELECT count(*) FROM pgbench_accounts"), "100000");
    for shard in &cluster.file.shards {
        let rows: u32 =
            psql(&shard.dsn, "SELECT count(*) FROM pgbench_accounts").parse().expect("a count");
        assert!((20_000..30_000).contains(&rows), "shard {} has {rows} rows", shard.id);
    }
    for mode in ["simple", "extended", "prepared"] {
        for script in ["tpcb-like", "select-only"] {
            pgbench(dsn, &["-n", "-M", mode, "-b", script, "-c", "4", "-t", "25"]);
        }
    }
    let sum = |column: &str, table: &str| {
        psql(dsn, &format!("SELECT coalesce(sum({column}), 0) FROM pgbench_{table}"))
    };
    let history = sum("delta", "history");
    assert_eq!(psql(dsn, "SELECT count(*) FROM pgbench_history"), "300");
    assert_eq!(sum("abalance", "accounts"), history);
    assert_eq!(sum("tbalance", "tellers"), history);
    assert_eq!(sum("bbalance", "branches"), history);
    for shard in &cluster.file.shards {
        assert_eq!(psql(&shard.dsn, "SELECT count(*) FROM pg_prepared_xacts"), "0");
    }
}

#[test]
fn a_filled_table_is_distributed_and_a_transaction_is_all_or_nothing() {
    let cluster = cluster();
    let dsn = cluster.dsn();
    psql(dsn, "CREATE TABLE t (k int PRIMARY KEY, v text)");
    psql(dsn, "INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 1000) g");
    psql(dsn, "SELECT create_distributed_table('t', 'k')");
    assert_eq!(psql(dsn, "SELECT count(*), sum(k) FROM t"), "1000|500500");
    assert_eq!(psql(dsn, "SELECT v FROM t WHERE k = 77"), "v77");
    assert_eq!(psql(dsn, "SELECT k FROM t ORDER BY k DESC LIMIT 2"), "1000\n999");
    let counts: Vec<u32> = cluster
        .file
        .shards
        .iter()
        .map(|shard| psql(&shard.dsn, "SELECT count(*) FROM t").parse().expect("a count"))
        .collect();
    assert_eq!(counts.iter().sum::<u32>(), 1000);
    assert!(counts.iter().all(|count| *count > 150), "{counts:?}");
    let failed = psql(dsn, "UPDATE t SET v = (1 / (k - 500))::text");
    assert!(failed.contains("22012"), "{failed}");
    assert_eq!(psql(dsn, "SELECT count(*) FROM t WHERE v LIKE 'v%'"), "1000");
    let refused = psql(dsn, "SELECT row_number() OVER (ORDER BY v) FROM t");
    assert!(refused.contains("0A000"), "{refused}");
}
