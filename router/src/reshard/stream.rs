//! Streams of a run: which rows flow from which shard to which, and what its objects are called.

use std::collections::BTreeMap;

use pgherd_shard_map::store::{Move, MovedTable, Record};
use pgherd_shard_map::{HashRange, KeyType, ShardId, ShardMap};
use postgres_protocol::escape::escape_identifier;

use super::Problem;

/// The way that rows flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the new shards.
    Forward,
    /// Back, while the new shards are in charge.
    Backward,
}

impl Direction {
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }
}

/// All rows that flow between two shards, one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub source: ShardId,
    pub target: ShardId,
    /// Of its publication, slot and subscription; a part of all its other names.
    pub name: String,
    pub tables: Vec<StreamTable>,
}

/// One table's part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTable {
    pub table: MovedTable,
    pub key_type: KeyType,
    pub ranges: Vec<HashRange>,
}

/// The streams of a run, one for each pair of shards.
///
/// # Errors
/// A group that the map does not have.
pub fn streams(
    record: &Record,
    map: &ShardMap,
    direction: Direction,
) -> Result<Vec<Stream>, Problem> {
    let mut pairs: BTreeMap<(ShardId, ShardId), Vec<Move>> = BTreeMap::new();
    for part in &record.moves {
        let pair = match direction {
            Direction::Forward => (part.from, part.to),
            Direction::Backward => (part.to, part.from),
        };
        pairs.entry(pair).or_default().push(*part);
    }
    let mut streams = Vec::new();
    for ((source, target), moves) in pairs {
        let mut tables = Vec::new();
        for table in &record.tables {
            let ranges: Vec<HashRange> =
                moves.iter().filter(|m| m.group == table.group).map(Move::range).collect();
            let Some(group) = map.group(table.group) else {
                return Err(format!("colocation group {} is gone", table.group).into());
            };
            if !ranges.is_empty() {
                tables.push(StreamTable { table: table.clone(), key_type: group.key_type, ranges });
            }
        }
        let name = format!("pgherd_{}_{source}_{target}", record.id);
        streams.push(Stream { source, target, name, tables });
    }
    Ok(streams)
}

impl Stream {
    /// The gate's sequence.
    #[must_use]
    pub fn gate(&self) -> String {
        format!("pgherd.{}_gate", self.name)
    }

    /// The brake's sequence, on the target.
    #[must_use]
    pub fn brake(&self) -> String {
        format!("pgherd.{}_brake", self.name)
    }

    /// Where beats are written, on the source, and arrive.
    #[must_use]
    pub fn beats(&self) -> String {
        format!("pgherd.{}_beat", self.name)
    }
}

impl StreamTable {
    /// Its name, quoted.
    #[must_use]
    pub fn quoted(&self) -> String {
        quoted(&self.table)
    }

    /// SQL for the hash of its key.
    ///
    /// # Errors
    /// A key type that has none.
    pub fn hash(&self, row: &str) -> Result<String, Problem> {
        let column = format!("{row}{}", escape_identifier(&self.table.key_column));
        self.key_type.hash_expression(&column).ok_or_else(|| {
            Problem::new(
                format!("rows of table {} cannot be told apart by their hash", self.quoted()),
                "Tables with such a key stay where they are.",
            )
        })
    }

    /// SQL that is true for exactly the moving rows. `row` is empty, or a name with its dot.
    ///
    /// # Errors
    /// As [`Self::hash`].
    pub fn predicate(&self, row: &str) -> Result<String, Problem> {
        let hash = self.hash(row)?;
        let parts: Vec<String> =
            self.ranges.iter().map(|range| format!("({})", range.predicate(&hash))).collect();
        Ok(format!("({})", parts.join(" OR ")))
    }
}

/// A table's name, quoted.
#[must_use]
pub(super) fn quoted(table: &MovedTable) -> String {
    format!("{}.{}", escape_identifier(&table.schema), escape_identifier(&table.name))
}
