//! EXPLAIN through the router: what it says of each way that a statement can go, that ANALYZE runs a
//! statement once and whole, and that drivers and `pgherd explain` get the same.
//!
//! `data/explain.txt` holds statements and the answers to them; `PGHERD_ACCEPT=1` rewrites it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pgherd::dev::LocalCluster;
use pgherd_tests::{cluster, program, psql, run};
use serde_json::Value;
use tokio_postgres::types::FromSql;
use tokio_postgres::{Client, NoTls};

const SCHEMA: &[&str] = &[
    "CREATE TABLE customers (id int PRIMARY KEY, name text, country text)",
    "CREATE TABLE orders (customer_id int, id int, total numeric, PRIMARY KEY (customer_id, id))",
    "CREATE TABLE items (item_id int PRIMARY KEY, order_id int, sku text)",
    "CREATE TABLE countries (code text PRIMARY KEY, name text)",
    "CREATE TABLE notes (id int PRIMARY KEY, body text)",
    "SELECT create_distributed_table('customers', 'id')",
    "SELECT create_distributed_table('orders', 'customer_id', colocate_with => 'customers')",
    "SELECT create_distributed_table('items', 'item_id')",
    "SELECT create_reference_table('countries')",
    "INSERT INTO customers VALUES (5, 'five', 'de'), (6, 'six', 'de'), (7, 'seven', 'fr'), \
     (8, 'eight', 'fr')",
    "INSERT INTO orders VALUES (5, 1, 10), (5, 2, 20), (6, 3, 30), (7, 4, 40), (8, 5, 15)",
    "INSERT INTO items VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c'), (4, 5, 'd')",
    "INSERT INTO countries VALUES ('de', 'Germany')",
    "ANALYZE",
];

fn filled() -> LocalCluster {
    let cluster = cluster();
    for sql in SCHEMA {
        run(cluster.dsn(), sql);
    }
    cluster
}

async fn driver(cluster: &LocalCluster) -> Client {
    let (client, connection) =
        tokio_postgres::connect(cluster.dsn(), NoTls).await.expect("the router answers");
    tokio::spawn(connection);
    client
}

/// Ports differ from run to run, and so does the memory that is used.
fn steady(cluster: &LocalCluster, text: &str) -> String {
    let mut text = text.to_owned();
    for shard in &cluster.file.shards {
        text = text.replace(&format!(":{}/", shard.port), ":PORT/");
    }
    text
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/explain.txt")
}

#[test]
fn each_way_that_a_statement_goes_is_explained() {
    let cluster = filled();
    let wanted = std::fs::read_to_string(golden()).expect("the file is there");
    let mut got = String::new();
    for case in wanted.split("\n\n") {
        let statement = case.trim().lines().next().expect("a statement");
        let answer = steady(&cluster, &psql(cluster.dsn(), statement));
        // What libpq adds says where in the server's source it was.
        let lines = answer.lines().filter(|line| !line.starts_with("LOCATION:"));
        let answer: Vec<&str> = lines.map(str::trim_end).collect();
        got += &format!("{statement}\n{}\n\n", answer.join("\n"));
    }
    let got = format!("{}\n", got.trim_end());
    if std::env::var_os("PGHERD_ACCEPT").is_some() {
        std::fs::write(golden(), &got).expect("it is written");
    } else {
        assert_eq!(got, wanted, "PGHERD_ACCEPT=1 rewrites it");
    }
    // Nothing of all this has run.
    assert_eq!(run(cluster.dsn(), "SELECT count(*), sum(total) FROM orders"), "5|115");
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM customers"), "4");
}

#[test]
fn analyze_runs_a_writing_statement_once_on_every_shard_or_on_none() {
    let cluster = filled();
    let dsn = cluster.dsn();
    let total = "SELECT sum(total) FROM orders";
    let analyze = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)";
    run(dsn, &format!("{analyze} UPDATE orders SET total = total + 1"));
    assert_eq!(run(dsn, total), "120");
    run(
        dsn,
        &format!("{analyze} INSERT INTO orders VALUES (5, 9, 1), (6, 9, 1), (7, 9, 1), (8, 9, 1)"),
    );
    assert_eq!(run(dsn, total), "124");
    run(dsn, &format!("{analyze} UPDATE countries SET name = name || '!'"));
    for shard in &cluster.file.shards {
        assert_eq!(run(&shard.dsn, "SELECT name FROM countries"), "Germany!");
    }
    // The row of key 8 is there: the other shards' rows are taken back.
    let again = format!(
        "{analyze} INSERT INTO orders VALUES (5, 10, 1), (6, 10, 1), (7, 10, 1), (8, 9, 1)"
    );
    assert!(psql(dsn, &again).contains("23505"));
    assert_eq!(run(dsn, total), "124");
    // The client's own transaction.
    let undone = format!("BEGIN; {analyze} DELETE FROM orders; ROLLBACK");
    psql(dsn, &undone);
    assert_eq!(run(dsn, total), "124");
    let answer = run(dsn, &format!("{analyze} SELECT id FROM orders ORDER BY id FOR UPDATE"));
    assert!(answer.contains("LockRows") && answer.contains("Moved: 9 rows"), "{answer}");
}

#[test]
fn a_statement_that_scatter_forbids_is_not_explained_either() {
    let cluster = filled();
    let answer = psql(
        cluster.dsn(),
        "SET pgherd.scatter = off; EXPLAIN ANALYZE SELECT count(*) FROM orders",
    );
    assert!(answer.contains("0A000") && answer.contains("every shard"), "{answer}");
}

/// A column of any type as its bytes.
struct Raw(String);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(String::from_utf8(raw.to_vec())?))
    }

    fn accepts(_: &tokio_postgres::types::Type) -> bool {
        true
    }
}

#[tokio::test]
async fn bound_parameters_say_the_shard() {
    let cluster = filled();
    let client = driver(&cluster).await;
    let statement = client
        .prepare("EXPLAIN (COSTS OFF, FORMAT JSON) SELECT * FROM orders WHERE customer_id = $1")
        .await
        .expect("it is described");
    assert_eq!(statement.params()[0].name(), "int4");
    assert_eq!(statement.columns()[0].type_().name(), "json");
    for key in [5, 6] {
        let row = client.query_one(&statement, &[&key]).await.expect("a plan");
        let plan: Value = serde_json::from_str(&row.get::<_, Raw>(0).0).expect("JSON");
        let plan = &plan[0]["Plan"];
        let shards: Vec<u64> =
            plan["Shards"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
        let own = cluster.file.shards.iter().position(|shard| {
            run(&shard.dsn, &format!("SELECT count(*) > 0 FROM orders WHERE customer_id = {key}"))
                == "t"
        });
        assert_eq!(shards, [own.expect("one has it") as u64], "{plan}");
        let why = plan["Why"][0].as_str().expect("a text");
        assert!(why.starts_with(&format!("orders.customer_id = $1 ({key}) is on")), "{why}");
        assert_eq!(plan["Plans"][0]["Plans"][0]["Relation Name"], "orders", "{plan}");
    }
    let several = client
        .query(
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) \
             SELECT sum(total + $2::int) FROM orders WHERE customer_id = ANY ($1::int[])",
            &[&vec![5, 6, 7, 8], &1],
        )
        .await
        .expect("a plan");
    let text: Vec<&str> = several.iter().map(|row| row.get(0)).collect();
    assert!(text[0].starts_with("Scatter to "), "{text:#?}");
    let joined = client
        .query(
            "EXPLAIN ANALYZE SELECT sku FROM items JOIN orders ON order_id = orders.id \
             WHERE total < $1::int8",
            &[&20i64],
        )
        .await
        .expect("a plan");
    let text: Vec<&str> = joined.iter().map(|row| row.get(0)).collect();
    assert!(text[0].starts_with("Broadcast ") && text[0].contains("rows=2"), "{text:#?}");
    let split = "EXPLAIN ANALYZE INSERT INTO orders VALUES ($1, 20, 1), ($2, 20, 1), ($3, 20, 1)";
    client.query(split, &[&5, &6, &7]).await.expect("a plan");
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM orders WHERE id = 20"), "3");
}

#[test]
fn the_structured_formats_are_well_formed_in_every_tier() {
    let cluster = filled();
    for statement in [
        "SELECT * FROM orders WHERE customer_id = 5",
        "SELECT total, E'<&\\n' FROM orders",
        "SELECT count(*) FROM orders",
        "SELECT sku FROM items JOIN orders ON order_id = orders.id",
        "INSERT INTO customers VALUES (21, 'a', 'de'), (22, 'b', 'de'), (23, 'c', 'de')",
    ] {
        let explain = format!("EXPLAIN (FORMAT JSON, VERBOSE, SETTINGS, BUFFERS) {statement}");
        let json: Value = serde_json::from_str(&run(cluster.dsn(), &explain)).expect(statement);
        let plan = &json[0]["Plan"];
        assert!(plan["Tier"].is_string() && plan["Shards"].is_array(), "{plan}");
        assert!(plan["Plan Rows"].is_number() && plan["Total Cost"].is_number(), "{plan}");
        for child in plan["Plans"].as_array().expect("it has children") {
            assert!(child["Plans"][0]["Node Type"].is_string(), "{child}");
        }
        let explain = format!("EXPLAIN (ANALYZE, FORMAT JSON, WAL, BUFFERS) {statement}");
        let json: Value = serde_json::from_str(&run(cluster.dsn(), &explain)).expect(statement);
        assert!(json[0]["Execution Time"].is_number(), "{json}");
        assert!(json[0]["Plan"]["Actual Rows"].is_number(), "{json}");
        let explain = format!("EXPLAIN (FORMAT XML) {statement}");
        let xml = run(cluster.dsn(), &explain);
        let valid = format!("SELECT $xml${xml}$xml$::xml IS DOCUMENT");
        assert_eq!(run(&cluster.file.shards[0].dsn, &valid), "t", "{xml}");
        run(cluster.dsn(), "DELETE FROM customers WHERE id > 20");
    }
}

fn pgherd(args: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.args(args).env_remove("PGHERD_ROUTER").env_remove("PGHERD_CONFIG");
    command.output().expect("pgherd runs")
}

#[test]
fn the_command_prints_what_a_client_sees() {
    let cluster = filled();
    let dsn = cluster.dsn();
    let sql = "SELECT count(*) FROM orders";
    let output = pgherd(&["explain", "--router", dsn, sql]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(printed.trim_end(), run(dsn, &format!("EXPLAIN {sql}")), "{output:?}");
    let output = pgherd(&["explain", "--router", dsn, "--json", "--analyze", sql]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json[0]["Plan"]["Tier"], "scatter");
    let failed = |sql: &str| {
        let output = pgherd(&["explain", "--router", dsn, sql]);
        assert!(!output.status.success(), "{sql}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(failed("SELECT 1; DROP TABLE notes").contains("42601"));
    assert_eq!(run(dsn, "SELECT count(*) FROM notes"), "0");
    let refused = failed("SELECT count(*) FROM orders o, items TABLESAMPLE SYSTEM (10)");
    assert!(refused.contains("(0A000)") && refused.contains("hint: "), "{refused}");
    let nowhere = pgherd(&["explain", sql]);
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("--router"), "{nowhere:?}");
}
