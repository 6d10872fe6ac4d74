//! How much a set of moves is: estimated from the sizes that the source's catalog tells, and from
//! the part of its hash space that moves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgherd_shard_map::store::Move;
use pgherd_shard_map::{GroupId, HashRange, Placement, ShardId, ShardMap};
use serde::Serialize;
use tokio_postgres::Client;

use super::proposal::{Estimate, Weights};
use super::stream::quoted;
use super::{Problem, Shards, preflight, throttle};

/// What a copy does in a second, where nothing has been measured yet.
const BYTES_PER_SECOND: f64 = 20e6;

/// Statements one after another while writers wait, about; and what they do beside travelling.
const PAUSE_TRIPS: u32 = 9;
const PAUSE_WORK: Duration = Duration::from_millis(15);

/// One move, with what it means.
#[derive(Debug, Clone, Serialize)]
pub struct Sized {
    #[serde(flatten)]
    pub part: Move,
    pub rows: u64,
    pub bytes: u64,
}

/// A set of moves, with what it means.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    pub moves: Vec<Sized>,
    pub tables: Vec<String>,
    pub rows: u64,
    pub bytes: u64,
    /// Streams run side by side, and the largest is the last to be done.
    pub copy_seconds: f64,
    pub pause_ms: f64,
    /// Of what was to be balanced, if anything was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub balance: Vec<Estimate>,
}

/// What the moves mean, after all that could be in the way has been looked at.
///
/// # Errors
/// What is in the way.
pub async fn plan(shards: &mut Shards, map: &ShardMap, moves: &[Move]) -> Result<Plan, Problem> {
    let home = shards.get(map.home).await?;
    let tables = preflight::tables(&home, map, moves).await?;
    preflight::servers(shards, moves, &tables).await?;
    let mut sized = Vec::new();
    let mut trip = Duration::ZERO;
    for part in moves {
        let client = shards.get(part.from).await?;
        let started = Instant::now();
        client.query_one("SELECT 1", &[]).await?;
        trip = trip.max(started.elapsed());
        let own = tables.iter().filter(|table| table.group == part.group);
        let mut all = Size::default();
        for table in own {
            all = all.plus(of_table(&client, &quoted(table)).await?);
        }
        let share = share(map, part.group, part.from, part.range());
        let Size { rows, bytes } = all.times(share);
        sized.push(Sized { part: *part, rows, bytes });
    }
    let bytes = sized.iter().map(|part| part.bytes).sum();
    let mut pairs = BTreeMap::<_, u64>::new();
    for part in &sized {
        *pairs.entry((part.part.from, part.part.to)).or_default() += part.bytes;
    }
    let mut coming = BTreeMap::<ShardId, u64>::new();
    for ((_, to), bytes) in &pairs {
        *coming.entry(*to).or_default() += bytes;
    }
    for (shard, bytes) in coming {
        let free = throttle::disk(&*shards.get(shard).await?).await?;
        if let Some(free) = free.filter(|free| *free < bytes) {
            return Err(Problem::new(
                format!(
                    "about {bytes} bytes are to come to shard {shard}, and its disk has {free} left"
                ),
                "Make room there, or move less at a time (--range).",
            ));
        }
    }
    let largest = pairs.into_values().max().unwrap_or_default();
    Ok(Plan {
        tables: tables.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect(),
        rows: sized.iter().map(|part| part.rows).sum(),
        bytes,
        copy_seconds: largest as f64 / BYTES_PER_SECOND,
        pause_ms: (trip * PAUSE_TRIPS + PAUSE_WORK).as_secs_f64() * 1000.0,
        moves: sized,
        balance: Vec::new(),
    })
}

/// What the shards are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    Bytes,
    /// Scans that were begun and rows that were written within a time; or since statistics were
    /// reset, where it is nothing.
    Load(Duration),
}

/// The weight of each group by hash on each shard.
///
/// # Errors
/// A shard cannot be reached.
pub async fn by_shard(
    shards: &mut Shards,
    map: &ShardMap,
    weight: Weight,
) -> Result<Weights, Problem> {
    match weight {
        Weight::Bytes => sums(shards, map, BYTES_SQL).await,
        Weight::Load(Duration::ZERO) => sums(shards, map, LOAD_SQL).await,
        Weight::Load(within) => {
            let before = sums(shards, map, LOAD_SQL).await?;
            tokio::time::sleep(within).await;
            let mut after = sums(shards, map, LOAD_SQL).await?;
            for (of, load) in &mut after {
                // Statistics may have been reset meanwhile.
                *load = load.saturating_sub(before.get(of).copied().unwrap_or_default());
            }
            Ok(after)
        }
    }
}

/// Of a table without partitions.
const BYTES_SQL: &str = "SELECT pg_table_size($1::text::regclass)";

/// What sessions have done tells itself within a second, or when they are idle.
const LOAD_SQL: &str = "SELECT coalesce(sum(coalesce(seq_scan, 0) + coalesce(idx_scan, 0) \
    + n_tup_ins + n_tup_upd + n_tup_del), 0)::int8 FROM pg_stat_all_tables \
    WHERE relid = $1::text::regclass";

async fn sums(shards: &mut Shards, map: &ShardMap, sql: &str) -> Result<Weights, Problem> {
    let mut weights = Weights::new();
    for shard in map.shards() {
        let client = shards.get(shard.id).await?;
        for (name, _) in map.relations() {
            let group = map.group_of(name);
            let Some(group) = group.filter(|g| matches!(g.placement, Placement::Hash(_))) else {
                continue;
            };
            // Of a partitioned table and its partitions: the latter.
            let leaf = "SELECT relkind = 'r' FROM pg_class WHERE oid = $1::text::regclass";
            if client.query_one(leaf, &[&name.quoted()]).await?.get(0) {
                let weight: i64 = client.query_one(sql, &[&name.quoted()]).await?.get(0);
                *weights.entry((group.id, shard.id)).or_default() += weight.cast_unsigned();
            }
        }
    }
    Ok(weights)
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl Size {
    const fn plus(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, bytes: self.bytes + other.bytes }
    }

    pub(super) fn times(self, share: f64) -> Self {
        let part = |all: u64| (all as f64 * share).round() as u64;
        Self { rows: part(self.rows), bytes: part(self.bytes) }
    }
}

/// All of a table on one shard, its partitions included. Rows are PostgreSQL's own estimates: what ANALYZE
/// has found, or, before that, what was counted as it was written.
pub(super) async fn of_table(client: &Client, quoted: &str) -> Result<Size, Problem> {
    let sql = "SELECT coalesce(sum(CASE WHEN c.reltuples >= 0 THEN c.reltuples \
            ELSE pg_stat_get_live_tuples(c.oid) END), 0)::int8, \
        coalesce(sum(pg_table_size(c.oid)), 0)::int8 FROM pg_class c \
        WHERE c.oid = $1::text::regclass AND c.relkind = 'r' \
        OR c.oid IN (SELECT relid FROM pg_partition_tree($1::text::regclass) WHERE isleaf)";
    let row = client.query_one(sql, &[&quoted]).await?;
    Ok(Size { rows: row.get::<_, i64>(0) as u64, bytes: row.get::<_, i64>(1) as u64 })
}

/// Which part of a shard's hash space in a group a range is.
pub(super) fn share(map: &ShardMap, group: GroupId, shard: ShardId, range: HashRange) -> f64 {
    let Some(Placement::Hash(ranges)) = map.group(group).map(|group| &group.placement) else {
        return 0.0;
    };
    let owned: f64 =
        ranges.iter().filter(|(_, owner)| *owner == shard).map(|(range, _)| width(range)).sum();
    if owned > 0.0 { (width(range) / owned).min(1.0) } else { 0.0 }
}

fn width(range: HashRange) -> f64 {
    range.end.map_or_else(|| 2_f64.powi(63), |end| end.0 as f64) - range.start.0 as f64
}
