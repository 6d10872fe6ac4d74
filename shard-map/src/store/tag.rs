//! Which sessions of a shard are whose: each router has a number, and every session that it opens
//! holds a shared advisory lock on it. So the sessions of a router that has not taken a map can be
//! ended, whatever has become of it, and nobody else's.

use tokio_postgres::Client;

use super::{Catalog, FOLLOWER, StoreError, bounded};
use crate::Epoch;

/// The first half of the locks' keys. The number (1885825138) only has to be nobody
/// else's; the router leaves it out where it looks for its clients' locks.
const CLASS: i32 = 0x7067_6872;

/// A router, for as long as its process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterTag(pub i32);

impl RouterTag {
    /// What marks a session.
    #[must_use]
    pub fn sql(self) -> String {
        format!("SELECT pg_catalog.pg_advisory_lock_shared({CLASS}, {})", self.0)
    }
}

impl Catalog {
    /// The routers that follow the catalog and have a map at least this new.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn routers_at(&self, epoch: Epoch) -> Result<Vec<RouterTag>, StoreError> {
        let sql = "SELECT l.objid::int8 FROM pg_catalog.pg_locks l \
            JOIN pg_catalog.pg_stat_activity a USING (pid) \
            WHERE l.locktype = 'advisory' AND l.classid = $1::int4::oid AND l.objsubid = 2 \
            AND a.datname = pg_catalog.current_database() \
            AND CASE WHEN a.application_name ~ ('^' || $2 || '[0-9]+$') \
                THEN pg_catalog.substr(a.application_name, pg_catalog.length($2) + 1)::int8 >= $3 \
                ELSE false END";
        let rows = bounded(self.client.query(sql, &[&CLASS, &FOLLOWER, &(epoch.0 as i64)])).await?;
        Ok(rows.iter().map(|row| RouterTag(row.get::<_, i64>(0) as i32)).collect())
    }
}

/// Ends the sessions on a shard of all routers but these. How many there were.
///
/// # Errors
/// PostgreSQL's.
pub async fn end_sessions_of_others(
    shard: &Client,
    routers: &[RouterTag],
) -> Result<i64, StoreError> {
    let sql = "SELECT pg_catalog.count(*) FILTER (WHERE pg_catalog.pg_terminate_backend(pid)) \
        FROM (SELECT DISTINCT l.pid FROM pg_catalog.pg_locks l \
            JOIN pg_catalog.pg_database d ON d.oid = l.database \
            WHERE l.locktype = 'advisory' AND l.classid = $1::int4::oid AND l.objsubid = 2 \
            AND d.datname = pg_catalog.current_database() AND l.pid IS NOT NULL \
            AND NOT l.objid::int8 = ANY ($2)) p";
    let known: Vec<i64> = routers.iter().map(|tag| i64::from(tag.0.cast_unsigned())).collect();
    let row = bounded(shard.query_one(sql, &[&CLASS, &known])).await?;
    Ok(row.get(0))
}
