//! What becomes of changes of the schema while rows move: what the other side would not follow is
//! refused in every phase, and all else is done on every shard.

use std::collections::BTreeSet;

use pgherd::dev::LocalCluster;
use pgherd_tests::{cluster_with, psql, run};

use super::command::{assert_clean, reshard};

const REFUSED: [&str; 13] = [
    "ALTER TABLE orders ADD COLUMN more int",
    "ALTER TABLE orders DROP COLUMN note",
    "ALTER TABLE orders RENAME COLUMN note TO remark",
    "ALTER TABLE orders ALTER COLUMN note TYPE varchar(50)",
    "ALTER TABLE orders ADD CHECK (k > 0)",
    "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
    "TRUNCATE orders CASCADE",
    "DROP TABLE orders CASCADE",
    "DROP SCHEMA apart CASCADE",
    "DROP TABLE parts_one",
    "ALTER TABLE parts DETACH PARTITION parts_one",
    "TRUNCATE parts",
    "TRUNCATE parts_one",
];

/// `{}` is the number of the turn.
const DONE: [&str; 12] = [
    "CREATE INDEX orders_note_{} ON orders (note)",
    "CREATE INDEX CONCURRENTLY orders_later_{} ON orders (note, k)",
    "CREATE UNIQUE INDEX orders_once_{} ON orders (k, note)",
    "DROP INDEX orders_note_{}",
    "CREATE TABLE parts_{} PARTITION OF parts FOR VALUES FROM (1{}00) TO (1{}99)",
    "INSERT INTO parts SELECT g, 1{}50 FROM generate_series(1, 40) g",
    "CREATE TABLE beside_{} (k int PRIMARY KEY)",
    "SELECT create_reference_table('beside_{}')",
    "ALTER TABLE beside_{} ADD COLUMN more int",
    "CREATE VIEW seen_{} AS SELECT k FROM orders",
    "COMMENT ON TABLE orders IS 'turn {}'",
    "GRANT SELECT ON orders TO PUBLIC",
];

fn changes(cluster: &LocalCluster, turn: u32, phase: &str) {
    let catalog = &cluster.file.catalog.dsn;
    let now = "SELECT phase FROM pgherd.reshard_list ORDER BY id DESC LIMIT 1";
    assert_eq!(run(catalog, now), phase);
    for sql in REFUSED {
        let answer = psql(cluster.dsn(), sql);
        assert!(answer.contains("55006"), "{phase}: {sql}: {answer}");
    }
    for sql in DONE {
        run(cluster.dsn(), &sql.replace("{}", &turn.to_string()));
    }
}

/// The columns, constraints and indexes of the moving tables on one shard.
fn schema(dsn: &str) -> String {
    run(
        dsn,
        "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (\
         SELECT format('%s %s %s', attrelid::regclass, attname, atttypid::regtype) \
            FROM pg_attribute JOIN pg_class c ON c.oid = attrelid \
            WHERE attnum > 0 AND relnamespace IN ('public'::regnamespace, 'apart'::regnamespace) \
         UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index \
            JOIN pg_class c ON c.oid = indrelid \
            WHERE relnamespace IN ('public'::regnamespace, 'apart'::regnamespace)) AS line (line)",
    )
}

#[test]
fn what_the_other_side_would_not_follow_is_refused_in_every_phase() {
    let cluster = cluster_with(|options| {
        options.shards = 2;
        options.pg_conf.push("max_worker_processes=16".into());
    });
    let dsn = cluster.dsn();
    for sql in [
        "CREATE TABLE orders (k int PRIMARY KEY, note text)",
        "CREATE SCHEMA apart",
        "CREATE TABLE apart.lines (k int REFERENCES orders, n int, PRIMARY KEY (k, n))",
        "CREATE TABLE parts (k int, n int, PRIMARY KEY (k, n)) PARTITION BY RANGE (n)",
        "CREATE TABLE parts_one PARTITION OF parts FOR VALUES FROM (0) TO (100)",
        "SELECT create_distributed_table('orders', 'k')",
        "SELECT create_distributed_table('apart.lines', 'k', colocate_with => 'orders')",
        "SELECT create_distributed_table('parts', 'k', colocate_with => 'orders')",
        "INSERT INTO orders SELECT g, 'note ' || g FROM generate_series(1, 200) g",
        "INSERT INTO apart.lines SELECT g, 1 FROM generate_series(1, 200) g",
        "INSERT INTO parts SELECT g, 1 FROM generate_series(1, 200) g",
    ] {
        run(dsn, sql);
    }
    reshard(&cluster, &["start", "--drain", "0", "--to", "1"]);
    changes(&cluster, 1, "ready");
    reshard(&cluster, &["verify"]);
    reshard(&cluster, &["cutover", "--max-pause", "5s"]);
    changes(&cluster, 2, "moved");
    reshard(&cluster, &["rollback", "--max-pause", "5s"]);
    changes(&cluster, 3, "ready");
    reshard(&cluster, &["cutover", "--max-pause", "5s"]);
    // With foreign keys of its own, the other side is as it was.
    assert_eq!(run(dsn, "SELECT count(*) FROM parts"), "320");
    reshard(&cluster, &["finish"]);
    let schemas: BTreeSet<String> =
        cluster.file.shards.iter().map(|shard| schema(&shard.dsn)).collect();
    assert_eq!(schemas.len(), 1, "{schemas:?}");
    assert_eq!(run(dsn, "SELECT count(*) FROM apart.lines JOIN orders USING (k)"), "200");
    run(dsn, "ALTER TABLE orders ADD COLUMN more int");
    run(dsn, "ALTER TABLE parts DETACH PARTITION parts_one");
    assert_clean(&cluster);
}
