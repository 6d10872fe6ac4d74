//! `[sharding] auto_distribute`: a schema of tenants is distributed as its migrations make it, foreign
//! keys among its tables included.

use pgherd_tests::router::RouterProcess;
use pgherd_tests::{cluster_with, run};

const SCHEMA: [&str; 6] = [
    "CREATE TABLE customers (tenant_id int, id int, name text, PRIMARY KEY (tenant_id, id))",
    "CREATE TABLE orders (tenant_id int, id int, customer int, PRIMARY KEY (tenant_id, id), \
     FOREIGN KEY (tenant_id, customer) REFERENCES customers (tenant_id, id) ON DELETE CASCADE)",
    // Without a list: the other's primary key.
    "CREATE TABLE items (tenant_id int, id int, ordered int, PRIMARY KEY (tenant_id, id), \
     FOREIGN KEY (tenant_id, ordered) REFERENCES orders ON DELETE CASCADE)",
    "CREATE TABLE parts (tenant_id int, id int, part_of int, PRIMARY KEY (tenant_id, id), \
     FOREIGN KEY (tenant_id, part_of) REFERENCES parts)",
    "CREATE TABLE seen (tenant_id int, at date, PRIMARY KEY (tenant_id, at)) PARTITION BY RANGE (at)",
    "CREATE TABLE seen_2020 PARTITION OF seen FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
];

#[test]
fn tables_of_tenants_are_distributed_with_their_foreign_keys() {
    let cluster = cluster_with(|options| options.shards = 3);
    let config = "[auth]\nmethod = \"trust\"\n[sharding]\nauto_distribute = [\"tenant_id\"]\n";
    let router = RouterProcess::start(&cluster, "tenants", config);
    let mut client = router.client();
    let mut ask = |sql: &str| client.simple(sql, "").expect("an answer");
    for sql in SCHEMA {
        assert_eq!(ask(sql).error, None, "{sql}");
    }
    for table in ["customers", "orders", "items"] {
        let fill = format!("INSERT INTO {table} SELECT n, 1, 1 FROM generate_series(1, 12) n");
        assert_eq!(ask(&fill).error, None, "{fill}");
    }
    assert_eq!(ask("INSERT INTO parts VALUES (1, 1, NULL), (1, 2, 1), (2, 1, NULL)").error, None);
    assert_eq!(
        ask("INSERT INTO seen SELECT n, '2020-05-05' FROM generate_series(1, 12) n").error,
        None
    );
    assert_eq!(ask("INSERT INTO items VALUES (1, 2, 99)").error.as_deref(), Some("23503"));
    assert_eq!(ask("DELETE FROM customers WHERE tenant_id = 3").lines, ["tag: DELETE 1"]);

    let dsn = cluster.dsn();
    let kinds = "SELECT string_agg(table_name || ' ' || kind, ', ' ORDER BY table_name::text) FROM pgherd.tables";
    assert_eq!(
        run(dsn, kinds),
        "customers distributed, items distributed, orders distributed, parts distributed, seen distributed"
    );
    assert_eq!(run(dsn, "SELECT count(*) FROM items"), "11");
    let here = |table: &str| -> Vec<String> {
        let count = format!("SELECT count(*) FROM {table}");
        cluster.file.shards.iter().map(|shard| run(&shard.dsn, &count)).collect()
    };
    assert_eq!(here("orders"), here("items"));
    assert!(here("seen_2020").iter().all(|rows| rows != "0"), "{:?}", here("seen_2020"));

    // What no shard could check is not made, and what could not be unique is not either.
    let crossed = "CREATE TABLE crossed (tenant_id int, customer int, \
         FOREIGN KEY (customer, tenant_id) REFERENCES customers (tenant_id, id))";
    for sql in [crossed, "CREATE TABLE lone (tenant_id int, id int PRIMARY KEY)"] {
        assert_eq!(ask(sql).error.as_deref(), Some("0A000"), "{sql}");
    }
    assert_eq!(
        run(dsn, "SELECT to_regclass('crossed') IS NULL AND to_regclass('lone') IS NULL"),
        "t"
    );
}
