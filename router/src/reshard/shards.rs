//! Connections to the shards of a run, made when first asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgherd_shard_map::{ShardId, ShardMap};
use tokio_postgres::Client;

use super::Problem;
use crate::config::Dsn;
use crate::dial::Dialer;

/// What rows look like as text must not depend on a server's settings, and no name on a search
/// path. A setting of our own tells our triggers who we are.
const SETTINGS: &str = "SET search_path = pg_catalog; SET \"DateStyle\" = 'ISO, YMD'; \
    SET \"TimeZone\" = 'UTC'; SET \"IntervalStyle\" = 'postgres'; SET extra_float_digits = 1; \
    SET bytea_output = 'hex'; SET statement_timeout = 0; SET lock_timeout = '10s'; \
    SET idle_in_transaction_session_timeout = '60s'; SET default_transaction_read_only = off; \
    SET default_transaction_isolation = 'read committed'; SET pgherd.mover = 'on'; SET client_min_messages = 'warning'";

/// The way to every shard, as the catalog's user.
#[derive(Debug)]
pub struct Shards {
    dialer: Arc<Dialer>,
    addresses: BTreeMap<ShardId, String>,
    clients: BTreeMap<ShardId, Arc<Client>>,
}

impl Shards {
    #[must_use]
    pub fn new(dialer: Arc<Dialer>, catalog: &Dsn, map: &ShardMap) -> Self {
        let addresses =
            map.shards().map(|shard| (shard.id, catalog.login_for(&shard.dsn))).collect();
        Self { dialer, addresses, clients: BTreeMap::new() }
    }

    /// The URL of a shard, with the catalog's user.
    ///
    /// # Errors
    /// There is no such shard.
    pub fn url(&self, shard: ShardId) -> Result<&str, Problem> {
        let url = self.addresses.get(&shard);
        Ok(url.ok_or_else(|| format!("shard {shard} is not in the catalog"))?)
    }

    /// A connection that is kept for the run.
    ///
    /// # Errors
    /// The shard cannot be reached.
    pub async fn get(&mut self, shard: ShardId) -> Result<Arc<Client>, Problem> {
        if let Some(client) = self.clients.get(&shard)
            && !client.is_closed()
        {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.open(shard).await?);
        self.clients.insert(shard, Arc::clone(&client));
        Ok(client)
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// The shard cannot be reached.
    pub async fn open(&self, shard: ShardId) -> Result<Client, Problem> {
        let url = self.url(shard)?;
        let opened = self.dialer.client(url).await;
        let client = opened.map_err(|error| {
            Problem::new(
                format!("shard {shard} cannot be reached: {error}"),
                "Nothing is lost: the same command goes on when the shard is back.",
            )
        })?;
        client.batch_execute(SETTINGS).await?;
        Ok(client)
    }
}
