//! Rows on their way give way: when a server that is involved is behind, its disk is nearly full, or
//! statements take too long at the routers, nothing more is copied, or deleted, until that is over.
//!
//! What follows is not held up: it would only be more behind. Limits are looked at every time, so that
//! they can be changed while a command is at work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgherd_shard_map::ShardId;
use pgherd_shard_map::store::Catalog;
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::Problem;

/// How often the disk is looked at, which takes a program on its server.
const DISK_LOOK: Duration = Duration::from_secs(5);

/// What routers have told longer ago than this does not count.
pub(super) const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// Limits, as the catalog keeps them. One that is not there does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of log that a standby, or the target of a stream, may be behind.
    pub max_lag: Option<u64>,
    /// Bytes that must be free where a server has its data.
    pub min_free: Option<u64>,
    /// The 99th percentile of what statements take at the routers, in milliseconds.
    pub max_p99_ms: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_lag: Some(1 << 30), min_free: Some(1 << 30), max_p99_ms: None }
    }
}

/// What is measured. `None`: it could not be.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Load {
    pub shards: Vec<ShardLoad>,
    /// Of the slowest of these shards, as the slowest router sees it.
    pub p99_ms: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ShardLoad {
    pub shard: ShardId,
    /// Bytes that the slowest of its standbys, and of the run's streams from it, is behind.
    pub lag: u64,
    /// Bytes of log that its slots keep.
    pub kept: u64,
    pub free: Option<u64>,
}

impl Limits {
    /// Why rows are held, if they are.
    #[must_use]
    pub fn exceeded(&self, load: &Load) -> Option<String> {
        for ShardLoad { shard, lag, free, .. } in &load.shards {
            if let Some(max) = self.max_lag.filter(|max| lag > max) {
                return Some(format!(
                    "what follows shard {shard} is {lag} bytes behind, and --max-lag is {max}"
                ));
            }
            if let (Some(free), Some(min)) = (free, self.min_free)
                && *free < min
            {
                return Some(format!(
                    "the disk of shard {shard} has {free} bytes left, and --min-free is {min}"
                ));
            }
        }
        let (Some(p99), Some(max)) = (load.p99_ms, self.max_p99_ms) else { return None };
        (p99 > max).then(|| {
            format!("one of a hundred statements takes {p99} ms or more, and --max-p99 is {max} ms")
        })
    }
}

/// Measures, with connections to the shards that are involved.
#[derive(Debug)]
pub(super) struct Meter {
    shards: Vec<(ShardId, Arc<Client>)>,
    free: Vec<Option<u64>>,
    looked: Option<Instant>,
}

impl Meter {
    pub(super) fn new(shards: Vec<(ShardId, Arc<Client>)>) -> Self {
        Self { free: vec![None; shards.len()], shards, looked: None }
    }

    pub(super) async fn look(&mut self, catalog: &Catalog) -> Result<Load, Problem> {
        if self.looked.is_none_or(|at| at.elapsed() >= DISK_LOOK) {
            for ((_, client), free) in self.shards.iter().zip(&mut self.free) {
                *free = disk(client).await?;
            }
            self.looked = Some(Instant::now());
        }
        let mut shards = Vec::new();
        for ((shard, client), free) in self.shards.iter().zip(&self.free) {
            let (lag, kept) = behind(client).await?;
            shards.push(ShardLoad { shard: *shard, lag, kept, free: *free });
        }
        let ids: Vec<ShardId> = self.shards.iter().map(|(shard, _)| *shard).collect();
        let p99_ms = catalog.slowest_answers(&ids, HEARD_WITHIN).await?;
        Ok(Load { shards, p99_ms })
    }
}

/// How far standbys and the run's streams are behind, and what slots keep.
async fn behind(client: &Client) -> Result<(u64, u64), Problem> {
    // The streams of tables that are being copied are as far as they can be.
    let sql = "SELECT greatest(0, \
        (SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(r.replay_lsn, r.flush_lsn))) \
            FROM pg_stat_replication r \
            WHERE NOT EXISTS (SELECT FROM pg_replication_slots s \
                WHERE s.active_pid = r.pid AND s.slot_type = 'logical')), \
        (SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)) \
            FROM pg_replication_slots WHERE slot_name ~ '^pgherd_[0-9]+_[0-9]+_[0-9]+$'))::int8, \
        (SELECT greatest(0, max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))) \
            FROM pg_replication_slots)::int8";
    let row = client.query_one(sql, &[]).await?;
    let bytes = |at| row.get::<_, Option<i64>>(at).unwrap_or_default().cast_unsigned();
    Ok((bytes(0), bytes(1)))
}

/// Bytes that are free where a server has its data and its log: the smaller. SQL does not tell, a
/// program does, where it is there and the login may run it.
pub(super) async fn disk(client: &Client) -> Result<Option<u64>, Problem> {
    let sql = "CREATE TEMP TABLE IF NOT EXISTS _pgherd_disk (line text); \
        TRUNCATE pg_temp._pgherd_disk; \
        COPY pg_temp._pgherd_disk FROM PROGRAM 'df -Pk . pg_wal' WITH (DELIMITER E'\\x01')";
    if let Err(error) = client.batch_execute(sql).await {
        // Only a lost connection is a reason to stop.
        return if client.is_closed() { Err(error.into()) } else { Ok(None) };
    }
    let sql = "SELECT line FROM pg_temp._pgherd_disk";
    let lines = client.query(sql, &[]).await?;
    Ok(lines.iter().filter_map(|row| available(row.get(0))).min())
}

/// The bytes that one line of `df -Pk` names as available: before the percentage.
fn available(line: &str) -> Option<u64> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let percent = words.iter().position(|word| word.ends_with('%'))?;
    let blocks: u64 = words.get(percent.checked_sub(1)?)?.parse().ok()?;
    blocks.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_limit_that_is_exceeded_is_named() {
        let shard = |lag, free| ShardLoad { shard: ShardId(1), lag, kept: 0, free };
        let load = |lag, free, p99_ms| Load { shards: vec![shard(lag, free)], p99_ms };
        let limits = Limits { max_lag: Some(100), min_free: Some(1000), max_p99_ms: Some(5.0) };
        for (load, named) in [
            (load(100, Some(1000), Some(5.0)), None),
            (load(0, None, None), None),
            (load(101, Some(1000), None), Some("--max-lag is 100")),
            (load(0, Some(999), Some(9.0)), Some("--min-free is 1000")),
            (load(0, None, Some(5.1)), Some("--max-p99 is 5 ms")),
        ] {
            let held = limits.exceeded(&load);
            assert_eq!(held.is_some(), named.is_some(), "{load:?}: {held:?}");
            assert!(held.unwrap_or_default().contains(named.unwrap_or_default()));
        }
        let none = Limits { max_lag: None, min_free: None, max_p99_ms: None };
        assert_eq!(none.exceeded(&load(u64::MAX, Some(0), Some(1e9))), None);
    }

    #[test]
    fn what_is_kept_is_read_whatever_it_lacks() {
        assert_eq!(serde_json::from_str::<Limits>("{}").unwrap(), Limits::default());
        let none: Limits = serde_json::from_str(r#"{"max_lag": null}"#).unwrap();
        assert_eq!(none, Limits { max_lag: None, ..Limits::default() });
    }

    #[test]
    fn df_names_what_is_available() {
        let line = "/dev/my disk        263174212  61500000  33554432      65% /data of ours";
        assert_eq!(available(line), Some(33_554_432 * 1024));
        let head = "Filesystem     1024-blocks     Used Available Capacity Mounted on";
        assert_eq!(available(head), None);
    }
}
