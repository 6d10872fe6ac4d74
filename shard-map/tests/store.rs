//! The catalog on a real server: every change is a compare-and-swap, watchers see it at once when
//! it is announced and by polling when it is not, and what the map says is what the server says.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/server.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use pgherd_shard_map::store::{self, Catalog, StoreError};
use pgherd_shard_map::{
    Distribution, Epoch, GroupId, HashRange, KeyError, KeyHash, KeyInput, KeyType, MapError,
    RelationKind, ShardId, ShardMap, TableKind, TableName,
};
use server::Server;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Far longer than anything here takes, far shorter than a test may hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Never within a test.
const NO_POLL: Duration = Duration::from_secs(3_600);

async fn connect(server: &Server, database: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.dsn(database), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A server with a catalog of three shards (only the home shard exists).
async fn cluster() -> (Server, Client, Catalog) {
    let server = Server::start();
    let client = connect(&server, "postgres").await;
    store::init_catalog(&client, "test", "postgres://home/db").await.unwrap();
    let catalog = Catalog::connect(&server.dsn("postgres")).await.unwrap();
    for address in ["postgres://one/db", "postgres://two/db"] {
        catalog.add_shard(address, catalog.epoch().await.unwrap()).await.unwrap();
    }
    (server, client, catalog)
}

/// SQLSTATE and hint of a statement that must fail.
async fn refusal(client: &Client, sql: &str) -> (String, String) {
    let Err(error) = client.batch_execute(sql).await else { panic!("accepted: {sql}") };
    let error = error.as_db_error().unwrap();
    (error.code().code().to_owned(), error.hint().unwrap_or_default().to_owned())
}

fn watching(server: &Server, poll: Duration) -> (UnboundedReceiver<Arc<ShardMap>>, JoinHandle<()>) {
    let (told, maps) = unbounded_channel();
    let watch = store::watch(server.dsn("postgres"), poll, move |map| {
        told.send(map).ok();
    });
    (maps, tokio::spawn(watch))
}

async fn next(maps: &mut UnboundedReceiver<Arc<ShardMap>>) -> Arc<ShardMap> {
    tokio::time::timeout(PATIENCE, maps.recv()).await.expect("no map came").unwrap()
}

#[tokio::test]
async fn of_two_changes_for_one_epoch_only_the_first_is_made() {
    let (server, _client, first) = cluster().await;
    let second = Catalog::connect(&server.dsn("postgres")).await.unwrap();
    let seen = first.epoch().await.unwrap();
    assert_eq!(second.epoch().await.unwrap(), seen);
    let (left, right) = tokio::join!(
        first.add_shard("postgres://left/db", seen),
        second.add_shard("postgres://right/db", seen)
    );
    let (won, lost) = if left.is_ok() { (left, right) } else { (right, left) };
    assert_eq!(won.unwrap(), (ShardId(3), seen.next()));
    match lost {
        Err(StoreError::StaleEpoch { current, expected }) => {
            assert_eq!((current, expected), (seen.next(), seen));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(first.load().await.unwrap().shards().len(), 4);
}

#[tokio::test]
async fn every_change_of_an_operator_is_refused_for_a_stale_epoch() {
    let (_server, _client, catalog) = cluster().await;
    let stale = Epoch::FIRST;
    let range = HashRange { start: KeyHash(0), end: None };
    let before = catalog.epoch().await.unwrap();
    for result in [
        catalog.add_shard("postgres://x/db", stale).await.map(|(_, epoch)| epoch),
        catalog.set_dsn(ShardId(1), "postgres://x/db", stale).await,
        catalog.remove_shard(ShardId(1), stale).await,
        catalog.move_hash_range(GroupId(1), range, ShardId(1), stale).await,
    ] {
        assert!(matches!(result, Err(StoreError::StaleEpoch { .. })), "{result:?}");
    }
    assert_eq!(catalog.epoch().await.unwrap(), before);
}

#[tokio::test]
async fn a_shard_is_added_once_moved_and_removed_and_its_number_never_used_again() {
    let (_server, _client, catalog) = cluster().await;
    let epoch = catalog.epoch().await.unwrap();
    let known = catalog.add_shard("postgres://one/db", epoch).await;
    assert!(matches!(known, Err(StoreError::KnownShard(ShardId(1)))), "{known:?}");
    let secret = catalog.add_shard("postgres://u:secret@x/db", epoch).await;
    assert!(matches!(secret, Err(StoreError::PasswordInAddress)), "{secret:?}");
    assert_eq!(catalog.epoch().await.unwrap(), epoch, "a refused change leaves the epoch");

    let epoch = catalog.set_dsn(ShardId(2), "postgres://elsewhere/db", epoch).await.unwrap();
    let map = catalog.load().await.unwrap();
    assert_eq!(map.epoch, epoch);
    assert_eq!(&*map.shard(ShardId(2)).unwrap().dsn, "postgres://elsewhere/db");
    let nobody = catalog.set_dsn(ShardId(9), "postgres://x/db", epoch).await;
    let unknown = MapError::UnknownShard(ShardId(9));
    assert!(matches!(nobody, Err(StoreError::Map(error)) if error == unknown));

    let epoch = catalog.remove_shard(ShardId(2), epoch).await.unwrap();
    assert_eq!(catalog.next_shard().await.unwrap(), ("test".to_owned(), ShardId(3)));
    let (id, _) = catalog.add_shard("postgres://three/db", epoch).await.unwrap();
    assert_eq!(id, ShardId(3));
}

#[tokio::test]
async fn a_watcher_sees_a_change_of_another_router_by_its_announcement() {
    let (server, _client, catalog) = cluster().await;
    let (mut maps, watch) = watching(&server, NO_POLL);
    let map = next(&mut maps).await;
    let (_, epoch) = catalog.add_shard("postgres://new/db", map.epoch).await.unwrap();
    let map = next(&mut maps).await;
    assert_eq!((map.epoch, map.shards().len()), (epoch, 4));
    watch.abort();
}

#[tokio::test]
async fn a_watcher_sees_a_change_that_nobody_announced_at_its_next_poll() {
    let (server, client, _catalog) = cluster().await;
    let (mut maps, watch) = watching(&server, Duration::from_millis(20));
    let first = next(&mut maps).await;
    client.batch_execute("CREATE TABLE t (k int); SELECT pgherd.bump_epoch()").await.unwrap();
    let map = next(&mut maps).await;
    assert_eq!(map.epoch, first.epoch.next());
    assert!(map.relation(&TableName::new("public", "t")).is_some());
    watch.abort();
}

#[tokio::test]
async fn a_watcher_comes_back_after_its_connection_was_cut() {
    let (server, client, catalog) = cluster().await;
    let (mut maps, watch) = watching(&server, Duration::from_millis(20));
    let map = next(&mut maps).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE query ~ 'epoch' AND pid <> pg_backend_pid() AND application_name = 'pgherd'";
    client.batch_execute(cut).await.unwrap();
    let catalog = match catalog.epoch().await {
        Ok(_) => catalog,
        Err(_) => Catalog::connect(&server.dsn("postgres")).await.unwrap(),
    };
    let (_, epoch) = catalog.add_shard("postgres://new/db", map.epoch).await.unwrap();
    assert_eq!(next(&mut maps).await.epoch, epoch);
    watch.abort();
}

#[tokio::test]
async fn a_database_without_a_catalog_says_so_and_one_of_another_cluster_is_refused() {
    let server = Server::start();
    let client = connect(&server, "postgres").await;
    let catalog = Catalog::connect(&server.dsn("postgres")).await.unwrap();
    assert!(matches!(catalog.load().await, Err(StoreError::NotInitialized)));
    assert!(matches!(catalog.epoch().await, Err(StoreError::NotInitialized)));
    assert_eq!(store::read_local(&client).await.unwrap(), None);

    store::init_shard(&client, "ours", ShardId(3)).await.unwrap();
    store::init_shard(&client, "ours", ShardId(3)).await.unwrap();
    assert!(matches!(catalog.load().await, Err(StoreError::NotInitialized)));
    let other = store::init_shard(&client, "theirs", ShardId(1)).await;
    assert!(
        matches!(&other, Err(StoreError::OtherCluster { found, .. }) if found == "ours"),
        "{other:?}"
    );
    let home = store::init_catalog(&client, "ours", "postgres://x/db").await;
    assert!(matches!(home, Err(StoreError::KnownShard(ShardId(3)))), "{home:?}");

    store::raise_local_epoch(&client, Epoch(7)).await.unwrap();
    store::raise_local_epoch(&client, Epoch(5)).await.unwrap();
    let local = store::read_local(&client).await.unwrap().unwrap();
    assert_eq!((&*local.cluster, local.shard, local.epoch), ("ours", ShardId(3), Epoch(7)));
}

#[tokio::test]
async fn making_the_catalog_again_keeps_it() {
    let (_server, client, catalog) = cluster().await;
    let before = catalog.epoch().await.unwrap();
    store::init_catalog(&client, "test", "postgres://home/db").await.unwrap();
    assert_eq!(catalog.epoch().await.unwrap(), before);
    store::init_catalog(&client, "test", "postgres://moved/db").await.unwrap();
    let map = catalog.load().await.unwrap();
    assert_eq!(map.epoch, before.next());
    assert_eq!(&*map.shard(map.home).unwrap().dsn, "postgres://moved/db");
    assert_eq!(map.shards().len(), 3);
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
    assert!(matches!(view, Some(RelationKind::ViewOverDistributed)));

    // varchar(5) cuts what varchar(9) keeps, so only shorter values have a certain place.
    let varchar = |text: &str| map.shard_for(kind("b").1, KeyInput::Text(text.as_bytes()));
    assert!(varchar("abc  ").is_ok());
    assert!(varchar("ééééé").is_ok());
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
async fn a_moved_hash_range_has_its_new_shard_and_the_rest_keeps_its_own() {
    let (_server, client, catalog) = cluster().await;
    client
        .batch_execute(
            "CREATE TABLE t (k int); SELECT pgherd.register_distributed('t', 'k', NULL, 'hash')",
        )
        .await
        .unwrap();
    let before = catalog.load().await.unwrap();
    let group = before.groups().next().unwrap().id;
    let range = HashRange { start: KeyHash(-50), end: Some(KeyHash(50)) };
    let epoch = catalog.move_hash_range(group, range, ShardId(2), before.epoch).await.unwrap();
    let after = catalog.load().await.unwrap();
    assert_eq!(after.epoch, epoch);
    let owner = |map: &ShardMap, hash| {
        let pgherd_shard_map::Placement::Hash(ranges) = &map.group(group).unwrap().placement else {
            panic!("not by hash");
        };
        ranges.shard_for(KeyHash(hash))
    };
    for hash in [i64::MIN, -51, 50, 51, i64::MAX] {
        assert_eq!(owner(&after, hash), owner(&before, hash), "{hash}");
    }
    for hash in [-50, 0, 49] {
        assert_eq!(owner(&after, hash), ShardId(2), "{hash}");
    }
    // Back again: the ranges are joined.
    let epoch = catalog.move_hash_range(group, range, ShardId(1), epoch).await.unwrap();
    let again = catalog.load().await.unwrap();
    assert_eq!(again.group(group), before.group(group));
    for range in [
        HashRange { start: KeyHash(5), end: Some(KeyHash(5)) },
        HashRange { start: KeyHash(5), end: Some(KeyHash(-5)) },
    ] {
        assert!(catalog.move_hash_range(group, range, ShardId(2), epoch).await.is_err());
    }
    assert!(catalog.move_hash_range(GroupId(99), range, ShardId(2), epoch).await.is_err());
    // What ranges name cannot be removed.
    assert!(catalog.remove_shard(ShardId(1), epoch).await.is_err());
    assert_eq!(catalog.epoch().await.unwrap(), epoch);
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
