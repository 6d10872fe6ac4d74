//! Half-open ranges of the hash space, and the proof that they cover all of it exactly once.

use serde::{Deserialize, Serialize};

use crate::{KeyHash, MapError, ShardId};

/// `start <= hash < end`; `end = None` means up to and including `i64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HashRange {
    pub start: KeyHash,
    pub end: Option<KeyHash>,
}

/// Ranges and their shards, ordered, without gap or overlap: so a lookup always finds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeMap {
    /// The start of each range, ascending; the first is `i64::MIN`.
    starts: Box<[i64]>,
    shards: Box<[ShardId]>,
}

impl RangeMap {
    /// The whole space cut into `shards.len()` equal ranges, one for each shard in order.
    ///
    /// # Errors
    /// [`MapError`] when there is no shard.
    pub fn even(shards: &[ShardId]) -> Result<Self, MapError> {
        let count = shards.len() as u128;
        if count == 0 {
            return Err(MapError::NoShards);
        }
        let starts = (0..count)
            .map(|i| (((i << 64) / count) as i128 + i128::from(i64::MIN)) as i64)
            .collect();
        Ok(Self { starts, shards: shards.into() })
    }

    /// From ranges in any order.
    ///
    /// # Errors
    /// [`MapError`] when the ranges leave a gap, overlap, or are empty.
    pub fn try_new(mut ranges: Vec<(HashRange, ShardId)>) -> Result<Self, MapError> {
        ranges.sort_by_key(|(range, _)| range.start);
        let mut expected = Some(KeyHash(i64::MIN));
        for (range, _) in &ranges {
            if expected != Some(range.start) || range.end.is_some_and(|end| end <= range.start) {
                return Err(MapError::Uncovered { at: range.start });
            }
            expected = range.end;
        }
        if ranges.is_empty() {
            return Err(MapError::NoShards);
        }
        if let Some(at) = expected {
            return Err(MapError::Uncovered { at });
        }
        Ok(Self {
            starts: ranges.iter().map(|(range, _)| range.start.0).collect(),
            shards: ranges.iter().map(|(_, shard)| *shard).collect(),
        })
    }

    /// The shard of a hash. Total: `try_new` proved that the ranges cover everything.
    #[must_use]
    pub fn shard_for(&self, hash: KeyHash) -> ShardId {
        self.shards[self.starts.partition_point(|start| *start <= hash.0) - 1]
    }

    /// All ranges, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (HashRange, ShardId)> + '_ {
        (0..self.starts.len()).map(|i| {
            let end = self.starts.get(i + 1).map(|end| KeyHash(*end));
            (HashRange { start: KeyHash(self.starts[i]), end }, self.shards[i])
        })
    }
}
