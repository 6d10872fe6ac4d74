//! Half-open ranges of the hash space, and the proof that they cover all of it exactly once.

use serde::{Deserialize, Serialize};

use crate::{KeyHash, MapError, ShardId};

/// `start <= hash < end`; `end = None` means up to and including `i64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HashRange {
    pub start: KeyHash,
    pub end: Option<KeyHash>,
}

impl HashRange {
    /// SQL that is true where `hash`, an expression, lies in the range.
    #[must_use]
    pub fn predicate(&self, hash: &str) -> String {
        let start = format!("{hash} >= '{}'::pg_catalog.int8", self.start);
        match self.end {
            Some(end) => format!("{start} AND {hash} < '{end}'::pg_catalog.int8"),
            None => start,
        }
    }

    /// Whether the two have a hash in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.end.is_none_or(|end| other.start < end) && other.end.is_none_or(|end| self.start < end)
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The ranges between the cuts, with shards 0, 1, 2, …
    fn between(cuts: &BTreeSet<i64>) -> Vec<(HashRange, ShardId)> {
        let starts: Vec<i64> = std::iter::once(i64::MIN)
            .chain(cuts.iter().copied().filter(|cut| *cut > i64::MIN))
            .collect();
        let ends = starts[1..].iter().map(|end| Some(KeyHash(*end))).chain([None]);
        let ranges = starts.iter().zip(ends);
        (0..)
            .zip(ranges)
            .map(|(shard, (start, end))| {
                (HashRange { start: KeyHash(*start), end }, ShardId(shard))
            })
            .collect()
    }

    fn contains(range: &HashRange, hash: i64) -> bool {
        range.start.0 <= hash && range.end.is_none_or(|end| hash < end.0)
    }

    proptest! {
        #[test]
        fn ranges_in_any_order_cover_every_hash_once(
            cuts in prop::collection::btree_set(any::<i64>(), 0..20),
            hashes in prop::collection::vec(any::<i64>(), 20),
            turn in any::<prop::sample::Index>(),
        ) {
            let ranges = between(&cuts);
            let mut turned = ranges.clone();
            turned.rotate_left(turn.index(ranges.len()));
            let map = RangeMap::try_new(turned).unwrap();
            prop_assert_eq!(map.iter().collect::<Vec<_>>(), ranges.clone());
            let edges = cuts.iter().flat_map(|cut| [*cut, cut.saturating_sub(1)]);
            for hash in hashes.iter().copied().chain(edges).chain([i64::MIN, i64::MAX]) {
                let owners: Vec<ShardId> = ranges
                    .iter()
                    .filter(|(range, _)| contains(range, hash))
                    .map(|(_, shard)| *shard)
                    .collect();
                prop_assert_eq!(owners, vec![map.shard_for(KeyHash(hash))]);
            }
        }

        #[test]
        fn ranges_with_a_gap_or_an_overlap_are_refused(
            cuts in prop::collection::btree_set(any::<i64>(), 1..20),
            which in any::<prop::sample::Index>(),
            other in any::<i64>(),
        ) {
            let ranges = between(&cuts);
            let at = which.index(ranges.len());
            let mut missing = ranges.clone();
            missing.remove(at);
            prop_assert!(RangeMap::try_new(missing).is_err());
            let mut twice = ranges.clone();
            twice.push(ranges[at]);
            prop_assert!(RangeMap::try_new(twice).is_err());
            let mut moved = ranges.clone();
            if moved[at].0.start != KeyHash(other) {
                moved[at].0.start = KeyHash(other);
                prop_assert!(RangeMap::try_new(moved).is_err());
            }
        }

        #[test]
        fn even_ranges_differ_in_size_by_one_at_most(count in 1..200_u32) {
            let shards: Vec<ShardId> = (0..count).map(ShardId).collect();
            let map = RangeMap::even(&shards).unwrap();
            prop_assert_eq!(RangeMap::try_new(map.iter().collect()).unwrap(), map.clone());
            let sizes: Vec<i128> = map
                .iter()
                .map(|(range, _)| {
                    let end = range.end.map_or(1 << 63, |end| i128::from(end.0));
                    end - i128::from(range.start.0)
                })
                .collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            prop_assert!(most - least <= 1);
        }
    }
}
