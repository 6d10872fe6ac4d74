//! Records of data on its way from shard to shard: read and changed by `pgherd reshard`.
//!
//! What the phases mean is not known here, but that one follows another only if nobody else was
//! first ([`StoreError::OtherPhase`]), and that moving ranges change owners in the same transaction.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Catalog, StoreError, bounded};
use crate::{Epoch, GroupId, HashRange, KeyHash, ShardId};

/// One part of the hash space that changes its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    #[serde(rename = "group_id")]
    pub group: GroupId,
    start_hash: KeyHash,
    end_hash: Option<KeyHash>,
    #[serde(rename = "from_shard")]
    pub from: ShardId,
    #[serde(rename = "to_shard")]
    pub to: ShardId,
}

/// A table whose rows move, as it was when the run began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedTable {
    pub schema: String,
    pub name: String,
    pub group: GroupId,
    pub key_column: String,
    /// The primary key's columns; empty where there is none.
    pub identity: Vec<String>,
    /// The whole row has to identify it while it moves: set for the run, and taken back.
    pub whole_row: bool,
    pub partitioned: bool,
}

/// One run of `pgherd reshard`.
#[derive(Debug, Clone)]
pub struct Record {
    pub id: i32,
    pub phase: String,
    pub moves: Vec<Move>,
    pub tables: Vec<MovedTable>,
    pub paused: bool,
    /// What its rows leave to others, in the words of whoever moves them.
    pub limits: serde_json::Value,
    pub progress: serde_json::Value,
    pub problem: Option<String>,
    pub certificates: Vec<serde_json::Value>,
    pub started_by: String,
    /// ISO 8601, UTC.
    pub started: String,
    /// The epoch at which the moving ranges have last changed owners.
    pub owners_epoch: Option<Epoch>,
}

/// The key of the advisory lock that whoever drives a run holds in the catalog's database.
const DRIVER_LOCK: i64 = 7_307_218_114_352_343_402;

const SELECT: &str = "SELECT id, phase, moves::text, tables::text, paused, progress::text, problem, \
    certificates::text, started_by, \
    pg_catalog.to_char(started AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
    owners_epoch, limits::text FROM pgherd.reshard_list";

impl Move {
    #[must_use]
    pub const fn new(group: GroupId, range: HashRange, from: ShardId, to: ShardId) -> Self {
        Self { group, start_hash: range.start, end_hash: range.end, from, to }
    }

    #[must_use]
    pub const fn range(&self) -> HashRange {
        HashRange { start: self.start_hash, end: self.end_hash }
    }
}

impl Catalog {
    /// Whether this connection is now the only one that drives a run. Given back with it.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn lock_reshard(&self) -> Result<bool, StoreError> {
        let sql = "SELECT pg_catalog.pg_try_advisory_lock($1)";
        Ok(bounded(self.client.query_one(sql, &[&DRIVER_LOCK])).await?.get(0))
    }

    /// The run under way, or the last one.
    ///
    /// # Errors
    /// PostgreSQL's; a record that cannot be read.
    pub async fn reshard(&self) -> Result<Option<Record>, StoreError> {
        let sql = format!("{SELECT} ORDER BY id DESC LIMIT 1");
        let row = bounded(self.client.query_opt(&sql, &[])).await?;
        row.map(|row| {
            Ok(Record {
                id: row.get(0),
                phase: row.get(1),
                moves: parsed(row.get(2))?,
                tables: parsed(row.get(3))?,
                paused: row.get(4),
                progress: parsed(row.get(5))?,
                problem: row.get(6),
                certificates: parsed(row.get(7))?,
                started_by: row.get(8),
                started: row.get(9),
                limits: parsed(row.get(11))?,
                owners_epoch: row.get::<_, Option<i64>>(10).map(|epoch| Epoch(epoch as u64)),
            })
        })
        .transpose()
    }

    /// Records a run before anything is made for it. The tables join another group in its end,
    /// if one is named.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`]; PostgreSQL's 23505 while another run is under way.
    pub async fn begin_reshard(
        &self,
        moves: &[Move],
        tables: &[MovedTable],
        joins: Option<GroupId>,
        who: &str,
        expected: Epoch,
    ) -> Result<i32, StoreError> {
        let sql = "SELECT pgherd.begin_reshard($1::text::jsonb, $2::text::jsonb, $3, $4, $5)";
        let (moves, tables, epoch) = (json(&moves)?, json(&tables)?, expected.0 as i64);
        let joins = joins.map(|group| group.0 as i32);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&moves, &tables, &who, &epoch, &joins];
        let row = bounded(self.client.query_one(sql, &params)).await;
        Ok(row.map_err(|error| error.expecting(expected))?.get(0))
    }

    /// From one phase to the next; `owners` is the side that gets the moving ranges.
    ///
    /// # Errors
    /// [`StoreError::OtherPhase`] when the run is not in `old` any more.
    pub async fn advance_reshard(
        &self,
        id: i32,
        old: &str,
        new: &str,
        owners: Option<&str>,
    ) -> Result<Epoch, StoreError> {
        let sql = "SELECT pgherd.advance_reshard($1, $2, $3, $4)";
        let row = bounded(self.client.query_one(sql, &[&id, &old, &new, &owners])).await?;
        Ok(Epoch(row.get::<_, i64>(0) as u64))
    }

    /// Opens a transaction that nobody else's change of the map comes before: whoever has one open
    /// is waited for now, and not when others wait for this one. [`Self::advance_reshard`] is a
    /// part of it, up to [`Self::commit_map`] or [`Self::release_map`].
    ///
    /// # Errors
    /// PostgreSQL's 55P03 where another change does not end in time.
    pub async fn hold_map(&self, wait: Duration) -> Result<(), StoreError> {
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = {}; SELECT epoch FROM pgherd.cluster FOR UPDATE; \
             SET LOCAL lock_timeout = 0",
            wait.as_millis().max(1)
        );
        bounded(self.client.batch_execute(&sql)).await
    }

    /// # Errors
    /// PostgreSQL's: then nobody knows whether it was done.
    pub async fn commit_map(&self) -> Result<(), StoreError> {
        bounded(self.client.batch_execute("COMMIT")).await
    }

    /// Nothing has been changed.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn release_map(&self) -> Result<(), StoreError> {
        bounded(self.client.batch_execute("ROLLBACK")).await
    }

    /// What was seen last, for `pgherd.reshards`.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn note_reshard(
        &self,
        id: i32,
        progress: &serde_json::Value,
        problem: Option<&str>,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE pgherd.reshard_list SET progress = $2::text::jsonb, problem = $3 \
                   WHERE id = $1";
        let text = progress.to_string();
        bounded(self.client.execute(sql, &[&id, &text, &problem])).await?;
        Ok(())
    }

    /// Keeps a certificate beside the earlier ones.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn certify_reshard(
        &self,
        id: i32,
        certificate: &serde_json::Value,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE pgherd.reshard_list \
                   SET certificates = certificates || pg_catalog.jsonb_build_array($2::text::jsonb \
                       || pg_catalog.jsonb_build_object('at', pg_catalog.clock_timestamp())) \
                   WHERE id = $1";
        let text = certificate.to_string();
        bounded(self.client.execute(sql, &[&id, &text])).await?;
        Ok(())
    }

    /// # Errors
    /// PostgreSQL's.
    pub async fn limit_reshard(
        &self,
        id: i32,
        limits: &serde_json::Value,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE pgherd.reshard_list SET limits = $2::text::jsonb WHERE id = $1";
        let text = limits.to_string();
        bounded(self.client.execute(sql, &[&id, &text])).await?;
        Ok(())
    }

    /// A router tells what statements have taken lately, by shard.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn tell_answers(
        &self,
        router: &str,
        p99s: &[(ShardId, f64)],
    ) -> Result<(), StoreError> {
        let (shards, p99s): (Vec<i32>, Vec<f64>) =
            p99s.iter().map(|(shard, p99)| (shard.0.cast_signed(), *p99)).unzip();
        // Routers that have died take nothing back.
        let sql = "WITH old AS (DELETE FROM pgherd.answer_list \
                WHERE at < pg_catalog.clock_timestamp() - interval '5 minutes' AND router <> $1) \
            INSERT INTO pgherd.answer_list (router, shard, p99_ms) \
            SELECT $1, t.* FROM unnest($2::integer[], $3::float8[]) AS t (shard, p99) \
            ON CONFLICT (router, shard) DO UPDATE SET p99_ms = excluded.p99_ms, at = excluded.at";
        bounded(self.client.execute(sql, &[&router, &shards, &p99s])).await?;
        Ok(())
    }

    /// The slowest 99th percentile of these shards that a router has told of within a time.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn slowest_answers(
        &self,
        shards: &[ShardId],
        within: Duration,
    ) -> Result<Option<f64>, StoreError> {
        let sql = "SELECT pg_catalog.max(p99_ms) FROM pgherd.answer_list \
            WHERE shard = ANY ($1) AND at > pg_catalog.clock_timestamp() \
                - pg_catalog.make_interval(secs => $2)";
        let shards: Vec<i32> = shards.iter().map(|shard| shard.0.cast_signed()).collect();
        let row = bounded(self.client.query_one(sql, &[&shards, &within.as_secs_f64()])).await?;
        Ok(row.get(0))
    }

    /// # Errors
    /// PostgreSQL's.
    pub async fn pause_reshard(&self, id: i32, paused: bool) -> Result<(), StoreError> {
        let sql = "UPDATE pgherd.reshard_list SET paused = $2 WHERE id = $1";
        bounded(self.client.execute(sql, &[&id, &paused])).await?;
        Ok(())
    }
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| unreadable(&error))
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> StoreError {
    crate::MapError::Invalid(format!("a run's record: {error}").into()).into()
}
