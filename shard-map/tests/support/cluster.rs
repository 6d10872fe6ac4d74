//! A catalog of three shards, of which only the home shard exists, and what tests do with it.

use std::sync::Arc;
use std::time::Duration;

use pgherd_shard_map::ShardMap;
use pgherd_shard_map::store::{self, Catalog, Target};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::server::Server;

/// Far longer than anything here takes, far shorter than a test may hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Never within a test.
pub(crate) const NO_POLL: Duration = Duration::from_secs(3_600);

pub(crate) async fn connect(server: &Server, database: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.dsn(database), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) fn target(dsn: &str) -> Target<NoTls> {
    Target::plain(dsn).unwrap()
}

pub(crate) async fn cluster() -> (Server, Client, Catalog) {
    let server = Server::start();
    let client = connect(&server, "postgres").await;
    store::init_catalog(&client, "test", "postgres://home/db").await.unwrap();
    let catalog = Catalog::connect(target(&server.dsn("postgres"))).await.unwrap();
    for address in ["postgres://one/db", "postgres://two/db"] {
        catalog.add_shard(address, catalog.epoch().await.unwrap()).await.unwrap();
    }
    (server, client, catalog)
}

pub(crate) fn watching(
    server: &Server,
    poll: Duration,
) -> (UnboundedReceiver<Arc<ShardMap>>, JoinHandle<()>) {
    let (told, maps) = unbounded_channel();
    let dsn = server.dsn("postgres");
    let find = move || Target::plain(&dsn).map_err(|error| error.to_string());
    let on_map = move |map| {
        told.send(map).ok();
    };
    let watch = store::watch(find, "test", poll, || None, on_map, |_| {});
    (maps, tokio::spawn(watch))
}

pub(crate) async fn next(maps: &mut UnboundedReceiver<Arc<ShardMap>>) -> Arc<ShardMap> {
    tokio::time::timeout(PATIENCE, maps.recv()).await.expect("no map came").unwrap()
}
