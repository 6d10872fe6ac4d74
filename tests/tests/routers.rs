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
