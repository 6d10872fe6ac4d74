//! Which tables can be distributed, on a real server, and that what the map then says of a key is
//! what the server says.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/server.rs"]
mod server;

#[path = "support/cluster.rs"]
mod cluster;

use std::sync::Arc;

use cluster::{NO_POLL, cluster, connect, next, watching};
use pgherd_shard_map::{
    Distribution, KeyError, KeyInput, KeyType, RelationKind, ShardId, ShardMap, TableKind,
    TableName, store,
};
use tokio_postgres::{Client, SimpleQueryMessage};

/// SQLSTATE and hint of a statement that must fail.
async fn refusal(client: &Client, sql: &str) -> (String, String) {
    let Err(error) = client.batch_execute(sql).await else { panic!("accepted: {sql}") };
    let error = error.as_db_error().unwrap();
    (error.code().code().to_owned(), error.hint().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn tables_load_with_their_keys_and_hash_as_the_server_does() {
    let (_server, client, catalog) = cluster().await;
    client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN small AS int CHECK (value < 9);
             CREATE TABLE a (v int, k varchar(5)); CREATE TABLE b (k varchar(9));
             CREATE TABLE c (k mood); CREATE TABLE d (k small); CREATE TABLE e (k char(4));
             CREATE TABLE r (k int); CREATE VIEW va AS SELECT * FROM a;
             SELECT pgherd.register_distributed('a', 'k', NULL, 'hash');
             SELECT pgherd.register_distributed('b', 'k', 'a', 'hash');
             SELECT pgherd.register_distributed('c', 'k', NULL, 'hash');
             SELECT pgherd.register_distributed('d', 'k', NULL, 'hash');
             SELECT pgherd.register_distributed('e', 'k', NULL, 'hash');
             SELECT pgherd.register_reference('r')",
        )
        .await
        .unwrap();
    let map = catalog.load().await.unwrap();
    let table = |name| match map.relation(&TableName::new("public", name)) {
        Some(RelationKind::Sharded(table)) => Arc::clone(table),
        other => panic!("{name}: {other:?}"),
    };
    let kind = |name| match table(name).kind {
        TableKind::Distributed { key_type, group, .. } => (key_type, group),
        TableKind::Reference => panic!("{name}"),
    };
    assert_eq!(kind("a"), kind("b"));
    assert_eq!(kind("c").0, KeyType::Enum);
    assert_eq!(kind("d").0, KeyType::Int4);
    assert_eq!(kind("e").0, KeyType::Bpchar);
    assert_eq!(&*table("a").key_column().unwrap().name, "k");
    assert_eq!(table("r").kind, TableKind::Reference);
    let view = map.relation(&TableName::new("public", "va"));
    assert!(matches!(view, Some(RelationKind::View(_))));

    // varchar(5) cuts what varchar(9) keeps, so only shorter values have a certain place.
    let varchar = |text: &str| map.shard_for(kind("b").1, KeyInput::Text(text.as_bytes()));
    assert!(varchar("abc  ").is_ok());
    assert!(varchar("ééééé").is_ok());
    assert!(varchar("abcd ").is_ok());
    assert!(varchar("abcdef").is_ok());
    assert!(matches!(varchar("abc    "), Err(KeyError::Unsupported { .. })));

    for (name, values) in [("c", &["sad", "ok"][..]), ("d", &["1", "2", "3"]), ("e", &["a", "b "])]
    {
        let group = map.group(kind(name).1).unwrap();
        for value in values {
            let insert = format!("INSERT INTO {name} VALUES ('{value}')");
            client.batch_execute(&insert).await.unwrap();
            let shard = group.shard_for(KeyInput::Text(value.as_bytes())).unwrap();
            let predicate = group.shard_predicate(shard, "k").unwrap();
            let sql = format!("SELECT count(*) FROM {name} WHERE k = '{value}' AND {predicate}");
            let count: i64 = client.query_one(&sql, &[]).await.unwrap().get(0);
            assert_eq!(count, 1, "{name} {value}");
        }
    }
}

#[tokio::test]
async fn keys_whose_stored_value_is_not_certain_cannot_distribute_a_table() {
    let (_server, client, catalog) = cluster().await;
    client
        .batch_execute(
            "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE DOMAIN money2 AS numeric(10,2); CREATE DOMAIN deep AS money2",
        )
        .await
        .unwrap();
    for (column, word) in [
        ("k numeric(10,2)", "precision"),
        ("k timestamp(0)", "precision"),
        ("k timestamptz(3)", "precision"),
        ("k time(0)", "precision"),
        ("k deep", "without length"),
        ("k text COLLATE loose", "deterministic"),
        ("k int GENERATED ALWAYS AS (1) STORED", "statements write"),
        ("k cidr", "Key types"),
        ("k float8", "Key types"),
        ("k int[]", "Key types"),
        ("k int, u int UNIQUE", "part of the primary key"),
        ("k int, u int, UNIQUE (u) INCLUDE (k)", "part of the primary key"),
        ("k int, u int, EXCLUDE (u WITH =)", "part of the primary key"),
    ] {
        let sql = format!(
            "BEGIN; CREATE TABLE t ({column}); SELECT pgherd.register_distributed('t', 'k', NULL, 'hash')"
        );
        let (code, hint) = refusal(&client, &sql).await;
        assert_eq!(code, "0A000", "{column}");
        assert!(hint.contains(word), "{column}: {hint}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    let family = "CREATE TABLE p (k int, u int) PARTITION BY RANGE (k); \
                  CREATE TABLE p1 (u int UNIQUE, k int); \
                  ALTER TABLE p ATTACH PARTITION p1 DEFAULT";
    client.batch_execute(family).await.unwrap();
    for (table, word) in [("p", "part of the primary key"), ("p1", "parent")] {
        let sql = format!("SELECT pgherd.register_distributed('{table}', 'k', NULL, 'hash')");
        let (code, hint) = refusal(&client, &sql).await;
        assert_eq!(code, "0A000", "{table}");
        assert!(hint.contains(word), "{table}: {hint}");
    }
    client.batch_execute("CREATE TABLE t (k int); INSERT INTO t VALUES (NULL)").await.unwrap();
    let sql = "SELECT pgherd.register_distributed('t', 'k', NULL, 'hash')";
    assert_eq!(refusal(&client, sql).await.0, "23502");
    assert_eq!(catalog.load().await.unwrap().groups().len(), 0);
}

#[tokio::test]
async fn ranges_and_lists_are_assigned_once_and_found_where_the_server_finds_them() {
    let (server, client, catalog) = cluster().await;
    client
        .batch_execute(
            "CREATE TABLE r (k timestamptz); CREATE TABLE l (k numeric); CREATE TABLE h (k int);
             CREATE TABLE s (k timestamptz); CREATE TABLE full_one (k int);
             INSERT INTO full_one VALUES (1);
             SELECT pgherd.register_distributed('r', 'k', NULL, 'range');
             SELECT pgherd.register_distributed('s', 'k', 'r', 'hash');
             SELECT pgherd.register_distributed('l', 'k', NULL, 'list');
             SELECT pgherd.register_distributed('h', 'k', NULL, 'hash');
             SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'SQL, DMY'",
        )
        .await
        .unwrap();
    let (mut maps, watch) = watching(&server, NO_POLL);
    next(&mut maps).await;
    client
        .batch_execute(
            "BEGIN; SELECT pgherd.assign_range('r', NULL, '02/01/2024', 1);
             SELECT pgherd.assign_range('s', '02/01/2024', '03/01/2024 00:00', 2);
             SELECT pgherd.assign_value('l', '1.50', 1); SELECT pgherd.assign_value('l', 'NaN', 2);
             COMMIT",
        )
        .await
        .unwrap();
    let map = next(&mut maps).await;
    watch.abort();
    for (sql, code) in [
        ("SELECT pgherd.assign_range('r', '2023-05-05', '2023-06-06', 1)", "42710"),
        ("SELECT pgherd.assign_range('r', '2024-02-02', '2024-02-02', 1)", "22023"),
        ("SELECT pgherd.assign_range('r', 'abc', NULL, 1)", "22007"),
        ("SELECT pgherd.assign_range('r', '2025-02-02', NULL, 7)", "42704"),
        ("SELECT pgherd.assign_range('l', '1', NULL, 1)", "42P16"),
        ("SELECT pgherd.assign_range('h', '1', NULL, 1)", "42P16"),
        ("SELECT pgherd.assign_value('l', '1.5', 2)", "42710"),
        ("SELECT pgherd.assign_value('l', NULL, 2)", "22004"),
        ("SELECT pgherd.register_distributed('full_one', 'k', NULL, 'list')", "0A000"),
        (
            "CREATE TABLE x (k inet); SELECT pgherd.register_distributed('x', 'k', NULL, 'range')",
            "0A000",
        ),
        (
            "CREATE TABLE x (k text COLLATE \"en-x-icu\"); \
          SELECT pgherd.register_distributed('x', 'k', NULL, 'range')",
            "0A000",
        ),
        ("SELECT pgherd.register_distributed('full_one', 'k', 'l', 'range')", "42P16"),
    ] {
        assert_eq!(refusal(&client, sql).await.0, code, "{sql}");
    }
    assert_eq!(catalog.epoch().await.unwrap(), map.epoch, "a refused change leaves the epoch");

    let group = |name| match map.relation(&TableName::new("public", name)) {
        Some(RelationKind::Sharded(table)) => match table.kind {
            TableKind::Distributed { group, .. } => map.group(group).unwrap(),
            TableKind::Reference => panic!("{name}"),
        },
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(group("r").id, group("s").id);
    assert_eq!(group("r").placement.distribution(), Distribution::Range);
    for (name, key, expected) in [
        ("r", "2024-01-01 14:59:59.999999Z", Some(1)),
        ("r", "2024-01-01 15:00:00Z", Some(2)),
        ("r", "2024-01-02 15:00:00+00", None),
        ("r", "-infinity", Some(1)),
        ("l", "1.5", Some(1)),
        ("l", "nan", Some(2)),
        ("l", "2", None),
    ] {
        let found = group(name).shard_for(KeyInput::Text(key.as_bytes()));
        assert_eq!(found, expected.map(ShardId).ok_or(KeyError::Uncovered), "{name} {key}");
        for shard in map.shards() {
            let predicate = group(name).shard_predicate(shard.id, "k").unwrap();
            let column_type = if name == "r" { "timestamptz" } else { "numeric" };
            let sql = format!("SELECT {predicate} FROM (SELECT '{key}'::{column_type}) t(k)");
            let owns: bool = client.query_one(&sql, &[]).await.unwrap().get(0);
            assert_eq!(owns, found == Ok(shard.id), "{name} {key}: {sql}");
        }
    }
}

#[tokio::test]
async fn an_ordinary_user_can_load_the_map_but_not_change_the_catalog() {
    let (server, client, _catalog) = cluster().await;
    client.batch_execute("CREATE ROLE alice LOGIN; CREATE TABLE t (k int)").await.unwrap();
    let alice = connect(&server, "postgres").await;
    alice.batch_execute("SET SESSION AUTHORIZATION alice").await.unwrap();
    let answer = alice.simple_query(store::LOAD_SQL).await.unwrap();
    let json = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert_eq!(ShardMap::from_json(json.unwrap()).unwrap().shards().len(), 3);
    for sql in [
        "UPDATE pgherd.cluster SET epoch = 9",
        "INSERT INTO pgherd.shard_list VALUES (9, 'postgres://evil/db')",
        "SELECT pgherd.add_shard('postgres://evil/db', 3)",
        "SELECT pgherd.set_dsn(0, 'postgres://evil/db', 3)",
        "SELECT pgherd.remove_shard(1, 3)",
        "SELECT pgherd.move_hash_range(1, 0, 5, 1, 3)",
        "SELECT pgherd.register_distributed('public.t', 'k', NULL, 'hash')",
        "SELECT pgherd.assign_value('public.t', '1', 1)",
        "UPDATE pgherd.tx SET state = 'aborted'",
        "DELETE FROM pgherd.tx",
        "UPDATE pgherd.local SET epoch = 99",
    ] {
        assert_eq!(refusal(&alice, sql).await.0, "42501", "{sql}");
    }
}

#[tokio::test]
async fn tables_of_one_key_type_share_a_group_until_they_are_unregistered_or_dropped() {
    let (_server, client, catalog) = cluster().await;
    client
        .batch_execute(
            "CREATE TABLE a (k int); CREATE TABLE b (k int); CREATE TABLE c (k bigint);
             CREATE TABLE l (k int); CREATE TABLE m (k int);
             SELECT pgherd.register_distributed('a', 'k', NULL, 'hash');
             SELECT pgherd.register_distributed('b', 'k', NULL, 'hash');
             SELECT pgherd.register_distributed('c', 'k', NULL, 'hash');
             SELECT pgherd.register_distributed('l', 'k', NULL, 'list');
             SELECT pgherd.register_distributed('m', 'k', NULL, 'list');
             SELECT pgherd.assign_value('l', '1', 1)",
        )
        .await
        .unwrap();
    let group = |map: &ShardMap, name| match map.relation(&TableName::new("public", name)) {
        Some(RelationKind::Sharded(table)) => match table.kind {
            TableKind::Distributed { group, .. } => Some(group),
            TableKind::Reference => None,
        },
        _ => None,
    };
    let map = catalog.load().await.unwrap();
    assert_eq!(group(&map, "a"), group(&map, "b"));
    assert_ne!(group(&map, "a"), group(&map, "c"));
    // Values are placed by hand, so nobody shares them unasked.
    assert_ne!(group(&map, "l"), group(&map, "m"));
    let sql = "SELECT pgherd.register_distributed('a', 'k', NULL, 'hash')";
    assert_eq!(refusal(&client, sql).await.0, "23505");

    let gone = "SELECT pgherd.unregister('a'); DROP TABLE l; SELECT pgherd.unregister('m')";
    client.batch_execute(gone).await.unwrap();
    let map = catalog.load().await.unwrap();
    assert_eq!((group(&map, "a"), group(&map, "m")), (None, None));
    assert!(group(&map, "b").is_some());
    let by_list = map.groups().filter(|g| g.placement.distribution() == Distribution::List);
    assert_eq!(by_list.count(), 0);
}

#[tokio::test]
async fn views_load_with_their_queries_and_what_postgresql_knows_of_them() {
    let (_server, client, catalog) = cluster().await;
    client
        .batch_execute(
            "CREATE TABLE a (k int, v text); CREATE TABLE guarded (k int);
             ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
             CREATE FUNCTION writes(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN i; END';
             CREATE VIEW plain AS SELECT k AS key, v FROM a;
             CREATE VIEW counted AS SELECT count(*) FROM plain;
             CREATE VIEW numbered AS SELECT row_number() OVER () FROM a, guarded;
             CREATE VIEW calling AS SELECT writes(k) FROM a;
             CREATE VIEW ruled AS SELECT k FROM a;
             CREATE RULE extra AS ON DELETE TO ruled DO ALSO NOTIFY x;
             CREATE MATERIALIZED VIEW kept AS SELECT k FROM a;
             CREATE VIEW constant AS SELECT 1 AS one;
             SELECT pgherd.register_distributed('a', 'k', NULL, 'hash');
             SELECT pgherd.register_distributed('guarded', 'k', NULL, 'hash')",
        )
        .await
        .unwrap();
    let map = catalog.load().await.unwrap();
    let body = |name| match map.relation(&TableName::new("public", name)) {
        Some(RelationKind::View(view)) => view.body.clone(),
        other => panic!("{name}: {other:?}"),
    };
    let marks = |name| {
        let body = body(name);
        (body.folds, body.row_security, body.may_write, body.updatable)
    };
    assert_eq!(marks("plain"), (false, false, false, true));
    assert_eq!(marks("counted"), (true, false, false, false));
    assert_eq!(marks("numbered"), (true, true, false, false));
    // It shows no column that could be updated.
    assert_eq!(marks("calling"), (false, false, true, false));
    assert_eq!(marks("ruled"), (false, false, false, false));
    assert!(body("plain").query.contains("public.a"), "{}", body("plain").query);
    assert_eq!(&*body("counted").reads, [TableName::new("public", "plain")]);
    assert_eq!(body("numbered").reads.len(), 2);
    assert_eq!(&*body("calling").functions, ["writes".into()]);
    let Some(RelationKind::View(plain)) = map.relation(&TableName::new("public", "plain")) else {
        panic!("no view");
    };
    let columns: Vec<(&str, &str)> =
        plain.columns.iter().map(|column| (&*column.name, &*column.type_name)).collect();
    assert_eq!(columns, [("key", "integer"), ("v", "text")]);
    let kind = |name| map.relation(&TableName::new("public", name));
    assert!(matches!(kind("kept"), Some(RelationKind::ViewOverDistributed)));
    assert!(matches!(kind("constant"), Some(RelationKind::Home)));
}

#[tokio::test]
async fn a_view_over_a_locked_table_waits_for_nobody_and_is_read_later() {
    let (server, client, catalog) = cluster().await;
    client
        .batch_execute(
            "CREATE TABLE a (k int, n serial); CREATE TABLE b (k int);
             CREATE VIEW over_a AS SELECT k FROM a; CREATE VIEW over_b AS SELECT k FROM b;
             SELECT pgherd.register_distributed('a', 'k', NULL, 'hash');
             SELECT pgherd.register_distributed('b', 'k', NULL, 'hash')",
        )
        .await
        .unwrap();
    let known = |map: &ShardMap, name| {
        matches!(map.relation(&TableName::new("public", name)), Some(RelationKind::View(_)))
    };
    client.batch_execute("BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let map = catalog.load().await.unwrap();
    assert_eq!((known(&map, "over_a"), known(&map, "over_b")), (false, true));
    assert!(map.locked_views);
    // Whoever has the lock reads it, and takes no others.
    client.simple_query(store::LOAD_SQL).await.unwrap();
    let sql =
        "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'b'::regclass";
    let locks: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(locks, 0);
    let (mut maps, watch) = watching(&server, std::time::Duration::from_millis(20));
    assert!(next(&mut maps).await.locked_views);
    client.batch_execute("ROLLBACK").await.unwrap();
    // At the same epoch, and then no more.
    let whole = loop {
        let map = next(&mut maps).await;
        if !map.locked_views {
            break map;
        }
    };
    assert!(known(&whole, "over_a"));
    watch.abort();
}
