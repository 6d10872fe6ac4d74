//! The catalog on a real server: every change is a compare-and-swap, and watchers see it at once
//! when it is announced and by polling when it is not.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/server.rs"]
mod server;

#[path = "support/cluster.rs"]
mod cluster;

use std::time::Duration;

use cluster::{NO_POLL, cluster, connect, next, target, watching};
use pgherd_shard_map::store::{self, Catalog, StoreError};
use pgherd_shard_map::{
    Epoch, GroupId, HashRange, KeyHash, MapError, Placement, ShardId, ShardMap, TableName,
};
use server::Server;

#[tokio::test]
async fn of_two_changes_for_one_epoch_only_the_first_is_made() {
    let (server, _client, first) = cluster().await;
    let second = Catalog::connect(target(&server.dsn("postgres"))).await.unwrap();
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
    let (id, _) = catalog.add_shard("postgres://three/db", epoch).await.unwrap();
    assert_eq!(id, ShardId(3));
}

/// A router takes the map that the transaction of a schema change has read, at its commit.
#[tokio::test]
async fn a_change_of_the_schema_reads_the_map_that_everybody_reads_after_it() {
    let (server, client, _catalog) = cluster().await;
    client
        .batch_execute(
            "SET search_path = app, public; BEGIN; CREATE SCHEMA app;
             CREATE TYPE app.mood AS ENUM ('low', 'high');
             CREATE DOMAIN app.named AS text COLLATE \"C\";
             CREATE TABLE app.t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m app.mood,
                 n app.named, u uuid DEFAULT gen_random_uuid(), s serial);
             SELECT pgherd.register_distributed('app.t', 'id', NULL, 'hash');
             CREATE VIEW app.v AS SELECT id, m FROM app.t WHERE m = 'low';
             CREATE FUNCTION app.reads() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t';
             SELECT pgherd.bump_epoch(), pgherd.check_sharded()",
        )
        .await
        .unwrap();
    let read = async |client: &tokio_postgres::Client| {
        let map: String = client.query_one(store::LOAD_SQL, &[]).await.unwrap().get(0);
        assert!(ShardMap::from_json(&map).unwrap().is_final());
        map
    };
    let inside = read(&client).await;
    assert!(inside.contains("app.mood"), "{inside}");
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(inside, read(&connect(&server, "postgres").await).await);
}

/// Each schema change waits for the map.
#[tokio::test]
async fn the_map_of_many_tables_reads_no_catalog_once_for_each_column() {
    let (server, client, _catalog) = cluster().await;
    for n in 0..30 {
        client
            .batch_execute(&format!(
                "CREATE TABLE t{n} (id serial PRIMARY KEY, a text DEFAULT 'a', b bigint GENERATED \
                 ALWAYS AS IDENTITY, c int); \
                 SELECT pgherd.register_distributed('t{n}', 'id', NULL, 'hash')"
            ))
            .await
            .unwrap();
    }
    // What it has read before is counted with a transaction, until it is reported.
    let client = connect(&server, "postgres").await;
    client.batch_execute("BEGIN").await.unwrap();
    client.query_one(store::LOAD_SQL, &[]).await.unwrap();
    let sql = "SELECT relname::text, seq_scan FROM pg_stat_xact_sys_tables \
               WHERE seq_scan > 20 AND pg_relation_size(relid) > 8192";
    let often: Vec<(String, i64)> =
        client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(often.is_empty(), "{often:?}");
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
        Err(_) => Catalog::connect(target(&server.dsn("postgres"))).await.unwrap(),
    };
    let (_, epoch) = catalog.add_shard("postgres://new/db", map.epoch).await.unwrap();
    assert_eq!(next(&mut maps).await.epoch, epoch);
    watch.abort();
}

#[tokio::test]
async fn a_catalog_of_an_older_version_says_so_and_is_brought_up_to_date() {
    let server = Server::start();
    let client = connect(&server, "postgres").await;
    store::init_catalog(&client, "ours", "postgres://x/db").await.unwrap();
    let catalog = Catalog::connect(target(&server.dsn("postgres"))).await.unwrap();
    let epoch = catalog.load().await.unwrap().epoch;
    for missing in ["FUNCTION pgherd.shard_map()", "TABLE pgherd.change_list"] {
        client.batch_execute(&format!("DROP {missing} CASCADE")).await.unwrap();
        let old = catalog.load().await;
        assert!(matches!(old, Err(StoreError::OldCatalog)), "{missing}: {old:?}");
        store::init_catalog(&client, "ours", "postgres://x/db").await.unwrap();
        assert_eq!(catalog.load().await.unwrap().epoch, epoch, "{missing}");
    }
}

#[tokio::test]
async fn a_database_without_a_catalog_says_so_and_one_of_another_cluster_is_refused() {
    let server = Server::start();
    let client = connect(&server, "postgres").await;
    let catalog = Catalog::connect(target(&server.dsn("postgres"))).await.unwrap();
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

    let latin = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    client.batch_execute(latin).await.unwrap();
    let latin = store::init_shard(&connect(&server, "latin").await, "ours", ShardId(4)).await;
    assert!(matches!(&latin, Err(StoreError::Encoding(name)) if name == "LATIN1"), "{latin:?}");

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
        let Placement::Hash(ranges) = &map.group(group).unwrap().placement else {
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
async fn a_catalog_that_accepts_and_says_nothing_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let dsn = format!("host=127.0.0.1 port={port} user=x dbname=x connect_timeout=1");
    let given_up = Catalog::connect(target(&dsn)).await;
    assert!(matches!(given_up, Err(StoreError::Timeout)), "{given_up:?}");
}

#[tokio::test]
async fn a_server_is_prepared_with_the_number_that_it_gets_and_never_becomes_two_shards() {
    let (server, client, catalog) = cluster().await;
    client.batch_execute("CREATE DATABASE fresh").await.unwrap();
    let fresh = connect(&server, "fresh").await;
    // Prepared, not added, prepared again.
    assert_eq!(catalog.prepare_shard(&fresh).await.unwrap(), ShardId(3));
    assert_eq!(catalog.prepare_shard(&fresh).await.unwrap(), ShardId(3));
    let epoch = catalog.epoch().await.unwrap();
    let (id, _) = catalog.add_shard("postgres://fresh/db", epoch).await.unwrap();
    let local = store::read_local(&fresh).await.unwrap().unwrap();
    assert_eq!((&*local.cluster, local.shard), ("test", id));
    for (server, number) in [(&fresh, id), (&client, ShardId(0))] {
        let again = catalog.prepare_shard(server).await;
        assert!(
            matches!(again, Err(StoreError::KnownShard(known)) if known == number),
            "{again:?}"
        );
    }
}
