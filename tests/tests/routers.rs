//! Several routers over one cluster: what is done through one is true through the others.

use pgherd::dev::{ClusterFile, RouterEntry};
use pgherd_tests::wire::Client;
use pgherd_tests::{cluster_with, run};

/// One connection to each router, as long-lived clients have.
fn clients(file: &ClusterFile) -> Vec<Client> {
    let connect = |router: &RouterEntry| Client::connect(router.listen, &file.database);
    file.routers.iter().map(|router| connect(router).expect("a router lets us in")).collect()
}

fn rows(client: &mut Client, sql: &str) -> Vec<String> {
    let answer = client.simple(sql, "").expect("an answer");
    assert_eq!(answer.error, None, "{sql}: {:?}", answer.lines);
    answer.rows
}

#[test]
fn a_change_of_the_schema_is_known_to_every_router_once_it_is_acknowledged() {
    let cluster = cluster_with(|options| options.routers = 3);
    let mut clients = clients(&cluster.file);
    for round in 0..20 {
        let table = format!("t{round}");
        let through = round % clients.len();
        let client = &mut clients[through];
        rows(client, &format!("CREATE TABLE {table} (k int PRIMARY KEY, v int)"));
        rows(client, &format!("INSERT INTO {table} SELECT g, g FROM generate_series(1, 20) g"));
        rows(client, &format!("SELECT create_distributed_table('{table}', 'k')"));
        for (number, client) in clients.iter_mut().enumerate() {
            let count = rows(client, &format!("SELECT count(*) FROM {table}"));
            assert_eq!(count, [format!("row: '{}'", 20 + number)]);
            let key = 100 + number;
            rows(client, &format!("INSERT INTO {table} VALUES ({key}, 0)"));
            rows(client, &format!("UPDATE {table} SET v = 1 WHERE k = {key}"));
        }
        let client = &mut clients[through];
        rows(client, &format!("SELECT undistribute_table('{table}')"));
        for client in &mut clients {
            assert_eq!(rows(client, &format!("SELECT count(*) FROM {table}")), ["row: '23'"]);
        }
    }
    // Nothing is left on shards that do not have the tables' rows.
    for shard in &cluster.file.shards[1..] {
        assert_eq!(run(&shard.dsn, "SELECT count(*) FROM t7"), "0");
    }
}

#[test]
fn a_view_that_changes_is_another_one_through_every_router() {
    let cluster = cluster_with(|options| options.routers = 2);
    let mut clients = clients(&cluster.file);
    let [one, other] = &mut *clients else { panic!("two routers") };
    rows(one, "CREATE TABLE t (k int PRIMARY KEY, v int)");
    rows(one, "SELECT create_distributed_table('t', 'k')");
    rows(one, "INSERT INTO t SELECT g, g FROM generate_series(1, 20) g");
    rows(one, "CREATE VIEW seen AS SELECT v FROM t WHERE v <= 10");
    rows(other, "PREPARE look AS SELECT v FROM seen");
    for _ in 0..2 {
        // The second time by a plan that is kept.
        assert_eq!(rows(other, "SELECT v FROM seen").len(), 10);
        assert_eq!(rows(other, "EXECUTE look").len(), 10);
    }
    // On each shard by itself it would now be four rows.
    rows(one, "CREATE OR REPLACE VIEW seen AS SELECT sum(v)::int AS v FROM t");
    for sql in ["SELECT v FROM seen", "EXECUTE look"] {
        assert_eq!(rows(other, sql), ["row: '210'"]);
    }
    rows(one, "CREATE OR REPLACE VIEW seen AS SELECT k AS v FROM t");
    assert_eq!(rows(other, "EXECUTE look").len(), 20);
    assert_eq!(rows(other, "SELECT v FROM seen WHERE v = 7"), ["row: '7'"]);
    rows(one, "ALTER VIEW seen RENAME TO shown");
    let gone = other.simple("SELECT v FROM seen", "").expect("an answer");
    assert_eq!(gone.error.as_deref(), Some("42P01"));
    rows(one, "DROP VIEW shown");
    rows(other, "CREATE TABLE seen (v int)");
    rows(other, "INSERT INTO seen VALUES (5)");
    for client in [one, other] {
        assert_eq!(rows(client, "SELECT v FROM seen"), ["row: '5'"]);
    }
}
