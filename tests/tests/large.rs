//! Statements that turn out to be too large for the way that they went, and go another.

use pgherd_tests::router::RouterProcess;
use pgherd_tests::{cluster, run};

/// The router's table of groups holds 64 MB. These are more: 110,000 groups, each on two shards or
/// one, known by 300 characters.
#[test]
fn groups_beyond_the_routers_table_are_merged_in_order() {
    let cluster = cluster();
    for sql in [
        "CREATE TABLE many (id int PRIMARY KEY, part int)",
        "INSERT INTO many SELECT g, g % 110000 FROM generate_series(1, 220000) g",
        "SELECT create_distributed_table('many', 'id')",
    ] {
        run(cluster.dsn(), sql);
    }
    let groups = "SELECT repeat('x', 300) || part, count(*), min(id), sum(id) FROM many GROUP BY 1 \
                  HAVING max(id) > 219997";
    let mut rows: Vec<String> = run(cluster.dsn(), groups)
        .lines()
        .map(|row| row.trim_start_matches('x').to_owned())
        .collect();
    rows.sort_unstable();
    assert_eq!(
        rows,
        ["0|2|110000|330000", "109998|2|109998|329996", "109999|2|109999|329998"],
        "{groups}"
    );
}

/// PostgreSQL takes a table for small that is not any more: its rows are read over, and the statement
/// runs over copies on the home shard.
#[test]
fn tables_that_are_larger_than_they_seem_are_not_broadcast() {
    let cluster = cluster();
    for sql in [
        "CREATE TABLE facts (id int PRIMARY KEY, about int)",
        "CREATE TABLE things (id int PRIMARY KEY, name text, padding text)",
        "SELECT create_distributed_table('facts', 'id')",
        "SELECT create_distributed_table('things', 'id')",
        "INSERT INTO facts SELECT g, g % 5000 FROM generate_series(1, 20000) g",
        "INSERT INTO things SELECT g, 'name ' || g, repeat('p', 40) FROM generate_series(1, 5000) g",
        "ANALYZE",
        "UPDATE things SET name = 'same'",
    ] {
        run(cluster.dsn(), sql);
    }
    let trust = "[auth]\nmethod = \"trust\"\n";
    let small = RouterProcess::start(
        &cluster,
        "small",
        &format!("[query]\nbroadcast_max = \"8kB\"\n{trust}"),
    );
    let dsn = format!("postgres://postgres@{}/{}", small.listen, cluster.file.database);
    let joined = "SELECT count(*), sum(length(t.padding)) FROM facts f JOIN things t \
                  ON t.id = f.about AND t.name = 'same'";
    let plan = run(&dsn, &format!("EXPLAIN {joined}"));
    assert!(plan.starts_with("Broadcast"), "{plan}");
    let plan = run(&dsn, &format!("EXPLAIN ANALYZE {joined}"));
    assert!(plan.starts_with("Borrow"), "{plan}");
    // In a transaction, too: the connections that have been read over are used again.
    let write = "UPDATE facts SET about = 0 WHERE id = 7";
    let block = format!("BEGIN; {write}; {joined}; {joined}; ROLLBACK");
    for dsn in [&dsn, cluster.dsn()] {
        assert_eq!(run(dsn, joined), "19996|799840");
        assert_eq!(run(dsn, &block), "19995|799800\n19995|799800");
    }
}
