//! Databases and catalog of a local cluster: made at the first start, addresses renewed at others.

use pgherd_shard_map::{ShardId, store};
use tokio_postgres::{Client, NoTls};

use super::file::{ClusterFile, ShardEntry};

/// Makes the databases where they are missing, and tells the catalog where the shards are.
pub(super) fn register(file: &ClusterFile) -> Result<(), String> {
    let work = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?
            .block_on(register_shards(file))
    };
    // On a thread of its own, since the caller may be inside another runtime.
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|_| Err("a panic".to_owned()))
        .map_err(|error| format!("cannot make the catalog: {error}"))
}

async fn register_shards(file: &ClusterFile) -> Result<(), String> {
    let databases = file.shards.iter().map(|shard| create_database(shard.port, &file.database));
    futures_util::future::join_all(databases).await.into_iter().collect::<Result<(), _>>()?;
    let home = connect(&file.catalog.dsn).await?;
    let address_of = |shard: &ShardEntry| address(shard.port, &file.database);
    let address = address_of(&file.shards[0]);
    store::init_catalog(&home, "dev", &address).await.map_err(|error| error.to_string())?;
    let target = store::Target::plain(&file.catalog.dsn).map_err(|error| error.to_string())?;
    let catalog = store::Catalog::connect(target).await.map_err(|error| error.to_string())?;
    for shard in file.shards.iter().skip(1) {
        let address = address_of(shard);
        let id = ShardId(shard.id);
        store::init_shard(&connect(&shard.dsn).await?, "dev", id)
            .await
            .map_err(|error| error.to_string())?;
        let map = catalog.load().await.map_err(|error| error.to_string())?;
        match map.shard(id) {
            Some(known) if *known.dsn == *address => {}
            Some(_) => {
                let renewed = catalog.set_dsn(id, &address, map.epoch).await;
                renewed.map_err(|error| error.to_string())?;
            }
            None => {
                catalog.add_shard(&address, map.epoch).await.map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(())
}

async fn create_database(port: u16, name: &str) -> Result<(), String> {
    let client = connect(&format!("postgres://postgres@127.0.0.1:{port}/postgres")).await?;
    let there = client
        .query_opt("SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1", &[&name])
        .await
        .map_err(|error| error.to_string())?;
    if there.is_none() {
        let name = postgres_protocol::escape::escape_identifier(name);
        client
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn connect(dsn: &str) -> Result<Client, String> {
    let (client, connection) =
        tokio_postgres::connect(dsn, NoTls).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(client)
}

/// Clients log in to shards as themselves, so the catalog keeps addresses only.
fn address(port: u16, database: &str) -> String {
    format!("postgres://127.0.0.1:{port}/{database}")
}
