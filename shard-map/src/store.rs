//! The catalog: a schema `pgherd` in the home shard's database.
//!
//! Base tables hold what cannot be derived (shards, groups, ranges, which table has which key);
//! everything else (columns, views, partitions) is read from PostgreSQL's own catalog at load, so
//! it cannot disagree with it. Every change raises `pgherd.cluster.epoch` in its own transaction:
//! that row is the lock and the compare-and-swap.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use thiserror::Error;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::{Epoch, MapError, ShardId, ShardMap};

/// What every shard needs: the markers of two-phase commit, and who it is.
const SHARD_SQL: &str = include_str!("store/shard.sql");

/// What the catalog's database needs beside.
const CATALOG_SQL: &str = include_str!("store/catalog.sql");

/// One row, one text column: the whole map as JSON, for [`ShardMap::from_json`].
pub const LOAD_SQL: &str = include_str!("store/load.sql");

/// Tells other routers at once; polling finds the change without it. Not part of the functions
/// that change the catalog: PREPARE TRANSACTION refuses transactions that notified.
pub const NOTIFY_SQL: &str = "NOTIFY pgherd_epoch";

#[derive(Debug, Error)]
pub enum StoreError {
    #[error("{0}")]
    Postgres(String),
    #[error(transparent)]
    Map(#[from] MapError),
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = match error.as_db_error() {
            Some(db) => format!("{} ({})", db.message(), db.code().code()),
            None => match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
        };
        Self::Postgres(text)
    }
}

/// A connection to the catalog.
#[derive(Debug)]
pub struct Catalog {
    client: Client,
}

/// Creates what every shard needs. Can be run again.
///
/// # Errors
/// PostgreSQL's.
pub async fn init_shard(client: &Client) -> Result<(), StoreError> {
    client.batch_execute(SHARD_SQL).await?;
    Ok(())
}

/// Makes this database the catalog and the home shard, number 0. Can be run again.
///
/// # Errors
/// PostgreSQL's.
pub async fn init_catalog(client: &Client, name: &str, dsn: &str) -> Result<(), StoreError> {
    init_shard(client).await?;
    client.batch_execute(CATALOG_SQL).await?;
    client
        .execute(
            "INSERT INTO pgherd.cluster (name, epoch, home) VALUES ($1, 1, 0) \
             ON CONFLICT DO NOTHING",
            &[&name],
        )
        .await?;
    client
        .execute(
            "INSERT INTO pgherd.shard_list (id, dsn) VALUES (0, $1) \
             ON CONFLICT (id) DO UPDATE SET dsn = excluded.dsn",
            &[&dsn],
        )
        .await?;
    Ok(())
}

impl Catalog {
    /// # Errors
    /// PostgreSQL's.
    pub async fn connect(dsn: &str) -> Result<Self, StoreError> {
        Ok(Self { client: connect(dsn).await? })
    }

    /// # Errors
    /// PostgreSQL's, or a catalog that contradicts itself.
    pub async fn load(&self) -> Result<ShardMap, StoreError> {
        let row = self.client.query_one(LOAD_SQL, &[]).await?;
        Ok(ShardMap::from_json(row.get(0))?)
    }

    /// # Errors
    /// PostgreSQL's.
    pub async fn announce(&self) -> Result<(), StoreError> {
        self.client.batch_execute(NOTIFY_SQL).await?;
        Ok(())
    }

    /// Adds a shard, prepared with [`init_shard`] before, if the catalog still is at `expected`.
    ///
    /// # Errors
    /// [`MapError::StaleEpoch`] when somebody else changed the catalog meanwhile.
    pub async fn add_shard(
        &self,
        dsn: &str,
        expected: Epoch,
    ) -> Result<(ShardId, Epoch), StoreError> {
        let row = self
            .client
            .query_one(
                "SELECT id, epoch FROM pgherd.add_shard($1, $2)",
                &[&dsn, &(expected.0 as i64)],
            )
            .await?;
        let (id, epoch): (Option<i32>, i64) = (row.get(0), row.get(1));
        let epoch = Epoch(epoch as u64);
        match id {
            Some(id) => Ok((ShardId(id as u32), epoch)),
            None => Err(MapError::StaleEpoch { current: epoch, expected }.into()),
        }
    }

    /// Gives a shard another address (a restart on another port).
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn set_dsn(&self, shard: ShardId, dsn: &str) -> Result<(), StoreError> {
        self.client
            .execute(
                "UPDATE pgherd.shard_list SET dsn = $2 WHERE id = $1",
                &[&(shard.0 as i32), &dsn],
            )
            .await?;
        self.client.batch_execute("SELECT pgherd.bump_epoch()").await?;
        self.announce().await
    }
}

async fn connect(dsn: &str) -> Result<Client, StoreError> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    tokio::spawn(async move {
        // Its end is seen by whoever uses the client.
        drop(connection.await);
    });
    Ok(client)
}

/// Calls `on_map` with every newer map, forever: at once when it is announced, else within `poll`.
pub async fn watch(dsn: String, poll: Duration, mut on_map: impl FnMut(Arc<ShardMap>) + Send) {
    let mut seen = None;
    loop {
        if let Err(error) = follow(&dsn, poll, &mut seen, &mut on_map).await {
            tracing::warn!(%error, "catalog not reachable; serving with the map at hand");
        }
        tokio::time::sleep(poll).await;
    }
}

async fn follow(
    dsn: &str,
    poll: Duration,
    seen: &mut Option<Epoch>,
    on_map: &mut (impl FnMut(Arc<ShardMap>) + Send),
) -> Result<(), StoreError> {
    let (client, mut connection) = tokio_postgres::connect(dsn, NoTls).await?;
    let (told, mut news) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if matches!(message, AsyncMessage::Notification(_)) {
                // Full means that a change is announced already.
                let _ = told.try_send(());
            }
        }
    });
    client.batch_execute("LISTEN pgherd_epoch").await?;
    loop {
        let row = client.query_one("SELECT epoch FROM pgherd.cluster", &[]).await?;
        let epoch = Epoch(row.get::<_, i64>(0) as u64);
        if *seen != Some(epoch) {
            let map = ShardMap::from_json(client.query_one(LOAD_SQL, &[]).await?.get(0))?;
            *seen = Some(map.epoch);
            on_map(Arc::new(map));
        }
        if let Ok(None) = tokio::time::timeout(poll, news.recv()).await {
            return Err(StoreError::Postgres("the connection was closed".to_owned()));
        }
    }
}
