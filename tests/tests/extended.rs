//! Statements over several shards with bound parameters, by a driver that describes and binds in
//! binary.

use pgherd_tests::{cluster, run};
use tokio_postgres::NoTls;

#[tokio::test]
async fn a_multi_row_insert_with_parameters_reaches_every_shard_in_one_transaction() {
    let cluster = cluster();
    run(cluster.dsn(), "CREATE TABLE t (k bigint PRIMARY KEY, v text, n numeric, b bytea)");
    run(cluster.dsn(), "SELECT create_distributed_table('t', 'k')");
    let (client, connection) =
        tokio_postgres::connect(cluster.dsn(), NoTls).await.expect("the router answers");
    let connection = tokio::spawn(connection);
    let statement = client
        .prepare(
            "INSERT INTO t (k, v, b) VALUES ($1, $2, $3), ($4, $5, $6), ($7, $8, $9), ($10, 'x', NULL) \
             RETURNING k, v",
        )
        .await
        .expect("it is described");
    let none: Option<Vec<u8>> = None;
    let bytes = vec![0u8, 255, 92];
    let rows = client
        .query(
            &statement,
            &[&1i64, &"one", &bytes, &2i64, &"two", &none, &3i64, &"three", &bytes, &4i64],
        )
        .await
        .expect("it is inserted");
    let mut returned: Vec<(i64, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    returned.sort();
    let names: Vec<&str> = returned.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["one", "two", "three", "x"]);
    assert_eq!(run(cluster.dsn(), "SELECT count(*), count(b) FROM t"), "4|2");
    // One row that is there already undoes all.
    let again = client
        .query(
            &statement,
            &[&5i64, &"five", &bytes, &6i64, &"six", &none, &7i64, &"seven", &bytes, &4i64],
        )
        .await
        .expect_err("key 4 is there");
    assert_eq!(again.code().map(|code| code.code()), Some("23505"));
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM t"), "4");
    drop(client);
    connection.await.expect("no panic").expect("a clean end");
}
