//! Which routers have which map, and what becomes of those that do not hear of a new one.
//!
//! A router that is cut off from the catalog alone still has sessions on the shards, and would go on
//! by its old map. So each session is noted on its shard with its router and the epoch of the map that
//! it was opened with, before the router is told which epoch the shard is at; and whoever moves rows
//! raises the shard's epoch, waits for the routers that follow the catalog, and ends the sessions of
//! all others ([`Catalog::settle`]). They come back with the new map only.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio_postgres::Client;

use super::watch::FOLLOWER;
use super::{Catalog, StoreError, bounded, raise_local_epoch};
use crate::Epoch;

/// How often it is looked whether routers have a new map.
const LOOK: Duration = Duration::from_millis(2);

/// How long sessions that are being ended are waited for.
const END_WAIT: Duration = Duration::from_secs(10);

/// What a router says on a connection that it opens. The last of its results is one row, one column:
/// the epoch that the shard is at. `router` is made of letters and digits.
#[must_use]
pub fn enter_sql(router: &str, epoch: Epoch) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pgherd.enter('{router}', {epoch}); COMMIT; \
         SELECT epoch FROM pgherd.local"
    )
}

impl Catalog {
    /// How many routers follow the catalog that have an older map than this.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn followers_behind(&self, epoch: Epoch) -> Result<usize, StoreError> {
        let all = self.followers().await?;
        Ok(all.iter().filter(|(_, has)| *has < epoch).count())
    }

    /// The routers that follow the catalog, by the epoch of their maps. One whose connection broke may
    /// be there with an old one beside.
    async fn followers(&self) -> Result<Vec<(String, Epoch)>, StoreError> {
        let sql = "SELECT pg_catalog.split_part(rest, ' ', 2), \
            pg_catalog.max(pg_catalog.split_part(rest, ' ', 1)::bigint) \
            FROM (SELECT pg_catalog.substr(application_name, pg_catalog.length($1) + 1) AS rest \
                FROM pg_catalog.pg_stat_activity \
                WHERE datname = pg_catalog.current_database() \
                AND application_name ~ ('^' || $1 || '[0-9]+ [0-9a-z]+$')) AS follower GROUP BY 1";
        let rows = bounded(self.client.query(sql, &[&FOLLOWER])).await?;
        Ok(rows.iter().map(|row| (row.get(0), Epoch(row.get::<_, i64>(1) as u64))).collect())
    }

    /// Has only routers that know of an epoch in the shards: raises the shards' epochs, waits until
    /// all routers that follow the catalog have a map that new, `wait` at most, and ends the sessions
    /// of those that do not. How many were ended.
    ///
    /// # Errors
    /// PostgreSQL's; [`StoreError::Timeout`] where a session does not end.
    pub async fn settle(
        &self,
        shards: &[&Client],
        epoch: Epoch,
        wait: Duration,
    ) -> Result<i64, StoreError> {
        let started = Instant::now();
        try_join_all(shards.iter().map(|shard| raise_local_epoch(shard, epoch))).await?;
        let mut ended = 0;
        loop {
            let followers = self.followers().await?;
            let heard: Vec<&str> =
                followers.iter().filter(|(_, has)| *has >= epoch).map(|(id, _)| &**id).collect();
            let late = started.elapsed() >= wait;
            // Whoever follows is given time, also where it has no session: it may wait for one.
            let mut left = i64::from(heard.len() < followers.len() && !late);
            for shard in shards {
                let sql = "SELECT pgherd.older_sessions($1, $2, $3)";
                let wanted = epoch.0 as i64;
                let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                    [&wanted, &heard, &late];
                let older: i64 = bounded(shard.query_one(sql, &params)).await?.get(0);
                left += older;
                if late {
                    ended = ended.max(older);
                }
            }
            if left == 0 {
                return Ok(ended);
            }
            if started.elapsed() >= wait + END_WAIT {
                return Err(StoreError::Timeout);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
