//! Whatever way rows of several shards come together, moving rows are read once in every phase of a
//! run.

use pgherd_tests::{cluster_with, run};

use super::command::{assert_clean, reshard};

/// How each is planned, its text, and whether it runs in a transaction that has written before.
const READS: &[(&str, &str)] = &[
    ("Scatter", "SELECT count(*), sum(id) FROM facts"),
    ("Scatter", "SELECT id % 7 AS r, count(*) FROM facts GROUP BY r ORDER BY r"),
    ("Scatter", "SELECT id FROM facts ORDER BY note DESC, id LIMIT 7"),
    ("Scatter", "SELECT DISTINCT note FROM facts ORDER BY note"),
    (
        "Scatter",
        "SELECT f.id, p.amount FROM facts f LEFT JOIN parts p USING (id) ORDER BY 1, 2 LIMIT 9",
    ),
    (
        "Scatter",
        "SELECT id, rank() OVER (PARTITION BY id ORDER BY amount) FROM parts ORDER BY 1, 2 LIMIT 9",
    ),
    ("Broadcast", "SELECT count(*), sum(f.id) FROM facts f JOIN things t ON t.name = f.note"),
    (
        "Broadcast",
        "SELECT t.name, count(f.id) FROM facts f LEFT JOIN things t ON t.id = f.id % 50 GROUP BY t.name ORDER BY 1",
    ),
    ("Broadcast", "SELECT count(*) FROM facts WHERE note IN (SELECT name FROM things)"),
    (
        "Broadcast",
        "SELECT sum(p.amount) FROM facts f JOIN parts p USING (id) JOIN things t ON t.name = f.note",
    ),
    (
        "Borrow",
        "SELECT t.name, f.id FROM things t FULL JOIN facts f ON f.note = t.name AND f.id < 40 ORDER BY 1, 2 LIMIT 60",
    ),
    (
        "Borrow",
        "SELECT id, sum(amount) OVER (ORDER BY id, amount) FROM parts ORDER BY 1, 2 LIMIT 8",
    ),
    ("Borrow", "SELECT note FROM facts EXCEPT SELECT name FROM things ORDER BY 1 LIMIT 5"),
    (
        "Borrow",
        "WITH n AS (SELECT note, count(*) AS n FROM facts GROUP BY note) SELECT max(n), count(*) FROM n",
    ),
    (
        "Borrow",
        "SELECT count(DISTINCT note), array_agg(id ORDER BY id) FILTER (WHERE id < 9) FROM facts",
    ),
];

#[test]
fn rows_are_read_once_by_every_way_in_every_phase() {
    let cluster = cluster_with(|options| {
        options.shards = 2;
        options.pg_conf.push("max_worker_processes=16".into());
    });
    let dsn = cluster.dsn();
    for sql in [
        "CREATE TABLE facts (id int PRIMARY KEY, note text)",
        "CREATE TABLE parts (id int, part int, amount numeric, PRIMARY KEY (id, part))",
        "CREATE TABLE things (id int PRIMARY KEY, name text)",
        "SELECT create_distributed_table('facts', 'id')",
        "SELECT create_distributed_table('parts', 'id', colocate_with => 'facts')",
        "SELECT create_distributed_table('things', 'id')",
        "INSERT INTO facts SELECT g, 'note ' || g % 60 FROM generate_series(1, 2000) g",
        "INSERT INTO parts SELECT g, p, g / 4.0 FROM generate_series(1, 1500) g, generate_series(1, 2) p",
        "INSERT INTO things SELECT g, 'note ' || g FROM generate_series(1, 50) g",
        "ANALYZE",
    ] {
        run(dsn, sql);
    }
    let read = || -> Vec<String> { READS.iter().map(|(_, sql)| run(dsn, sql)).collect() };
    for (way, sql) in READS {
        let plan = run(dsn, &format!("EXPLAIN {sql}"));
        assert!(plan.starts_with(way), "{way}: {sql}\n{plan}");
    }
    let before = read();
    let check = |phase: &str| {
        for ((before, now), (_, sql)) in before.iter().zip(read()).zip(READS) {
            assert_eq!(*before, now, "{phase}: {sql}");
        }
    };
    for ends in [["0", "1"], ["1", "0"]] {
        reshard(&cluster, &["start", "--drain", ends[0], "--to", ends[1]]);
        check("copied");
        reshard(&cluster, &["cutover", "--max-pause", "5s"]);
        check("moved");
        reshard(&cluster, &["finish"]);
        check("finished");
    }
    assert_clean(&cluster);
}
