//! Which ranges to move: pure, from the map and the sizes of the shards.

use std::collections::BTreeMap;

use pgherd_shard_map::store::Move;
use pgherd_shard_map::{
    ColocationGroup, GroupId, HashRange, KeyHash, Placement, RangeMap, ShardId, ShardMap,
};
use serde::Serialize;

/// Differences below such a part of a shard's share are not worth a move.
const BALANCE_PARTS: u64 = 20;

/// What each shard has of each group by hash.
pub type Weights = BTreeMap<(GroupId, ShardId), u64>;

/// What a shard has of a group, and what it has after the moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Estimate {
    pub group: GroupId,
    pub shard: ShardId,
    pub now: u64,
    pub then: u64,
}

/// What the operator wants to come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Half of each range of a shard goes to another.
    Split { from: ShardId, to: ShardId },
    /// Everything of a shard goes to others.
    Drain { from: ShardId, to: Vec<ShardId> },
    /// Every shard of these gets the same part of the hash space.
    Spread { over: Vec<ShardId> },
    /// Every shard of these gets about the same of what is weighed: bytes, or load.
    Balance { over: Vec<ShardId>, weights: Weights },
    /// One key's point of the hash space.
    Isolate { group: GroupId, hash: KeyHash, to: ShardId },
    /// One range.
    Range { group: GroupId, range: HashRange, to: ShardId },
}

/// The moves that fulfil a wish; none where it is fulfilled. Only groups by hash move.
#[must_use]
pub fn propose(map: &ShardMap, wish: &Wish) -> Vec<Move> {
    let mut moves = Vec::new();
    for group in map.groups() {
        let Placement::Hash(ranges) = &group.placement else { continue };
        let owned: Vec<(HashRange, ShardId)> = ranges.iter().collect();
        let mut give = |range: HashRange, from: ShardId, to: ShardId| {
            if from != to {
                moves.push(Move::new(group.id, range, from, to));
            }
        };
        match wish {
            Wish::Split { from, to } => {
                for (range, owner) in owned.iter().filter(|(_, owner)| owner == from) {
                    if let Some(upper) = upper_half(*range) {
                        give(upper, *owner, *to);
                    }
                }
            }
            Wish::Drain { from, to } => {
                for (range, owner) in owned.iter().filter(|(_, owner)| owner == from) {
                    for (part, to) in cut(*range, to.len()).into_iter().zip(to) {
                        give(part, *owner, *to);
                    }
                }
            }
            Wish::Spread { over } => spread(&owned, over, &mut give),
            Wish::Balance { over, weights } => {
                let of = |shard| weights.get(&(group.id, shard)).copied().unwrap_or_default();
                balance(&owned, over, &of, &mut give);
            }
            Wish::Isolate { group: wanted, hash, to } if *wanted == group.id => {
                let point = HashRange { start: *hash, end: hash.0.checked_add(1).map(KeyHash) };
                part_of(&owned, point, *to, &mut give);
            }
            Wish::Range { group: wanted, range, to } if *wanted == group.id => {
                part_of(&owned, *range, *to, &mut give);
            }
            Wish::Isolate { .. } | Wish::Range { .. } => {}
        }
    }
    moves
}

/// What comes of moves for each shard and group that has any weight, if a shard's is spread evenly over
/// its part of the hash space.
#[must_use]
pub fn estimate(map: &ShardMap, weights: &Weights, moves: &[Move]) -> Vec<Estimate> {
    let mut list = Vec::new();
    for group in map.groups() {
        let Placement::Hash(ranges) = &group.placement else { continue };
        let mut then: BTreeMap<ShardId, f64> = BTreeMap::new();
        let now = |shard| weights.get(&(group.id, shard)).copied().unwrap_or_default();
        for shard in map.shards() {
            then.insert(shard.id, now(shard.id) as f64);
        }
        for part in moves.iter().filter(|part| part.group == group.id) {
            let owned: u128 = ranges
                .iter()
                .filter(|(_, owner)| *owner == part.from)
                .map(|(range, _)| width(range))
                .sum();
            let share = width(part.range()) as f64 / owned.max(1) as f64;
            let weight = now(part.from) as f64 * share;
            *then.entry(part.from).or_default() -= weight;
            *then.entry(part.to).or_default() += weight;
        }
        for (shard, then) in then {
            let then = then.round().max(0.0) as u64;
            if now(shard) > 0 || then > 0 {
                list.push(Estimate { group: group.id, shard, now: now(shard), then });
            }
        }
    }
    list
}

/// The moves after which a group's ranges lie where those of `target` do.
#[must_use]
pub fn toward(group: &ColocationGroup, target: &RangeMap) -> Vec<Move> {
    let Placement::Hash(ranges) = &group.placement else { return Vec::new() };
    let owned: Vec<(HashRange, ShardId)> = ranges.iter().collect();
    let mut moves = Vec::new();
    for (range, to) in target.iter() {
        part_of(&owned, range, to, &mut |part, from, to| {
            if from != to {
                moves.push(Move::new(group.id, part, from, to));
            }
        });
    }
    moves
}

/// Ranges of those who have too much go to those who have too little, from the start of the space
/// on, so that as little as possible moves.
fn spread(
    owned: &[(HashRange, ShardId)],
    over: &[ShardId],
    give: &mut impl FnMut(HashRange, ShardId, ShardId),
) {
    if over.is_empty() {
        return;
    }
    let share = (1_u128 << 64) / over.len() as u128;
    let has = |shard: &ShardId| -> u128 {
        owned.iter().filter(|(_, owner)| owner == shard).map(|(range, _)| width(*range)).sum()
    };
    let mut wanting: Vec<(ShardId, u128)> =
        over.iter().map(|shard| (*shard, share.saturating_sub(has(shard)))).collect();
    wanting.retain(|(_, missing)| *missing > 0);
    let mut spare: BTreeMap<ShardId, u128> = owned
        .iter()
        .map(|(_, owner)| {
            let keeps = if over.contains(owner) { share } else { 0 };
            (*owner, has(owner).saturating_sub(keeps))
        })
        .collect();
    for (range, owner) in owned {
        let mut rest = *range;
        while let Some((to, missing)) = wanting.first_mut() {
            let Some(left) = spare.get_mut(owner).filter(|left| **left > 0) else { break };
            let amount = (*missing).min(*left).min(width(rest));
            let (part, after) = split_at(rest, amount);
            give(part, *owner, *to);
            *left -= amount;
            *missing -= amount;
            if *missing == 0 {
                wanting.remove(0);
            }
            match after {
                Some(after) => rest = after,
                None => break,
            }
        }
    }
}

/// The same by weight, as if a shard's were spread evenly over its part of the hash space. Small
/// differences stay.
fn balance(
    owned: &[(HashRange, ShardId)],
    over: &[ShardId],
    weight: &impl Fn(ShardId) -> u64,
    give: &mut impl FnMut(HashRange, ShardId, ShardId),
) {
    let mut widths: BTreeMap<ShardId, u128> = over.iter().map(|shard| (*shard, 0)).collect();
    for (range, owner) in owned {
        *widths.entry(*owner).or_default() += width(*range);
    }
    let all: u64 = widths.keys().map(|shard| weight(*shard)).sum();
    let share = all / (over.len() as u64).max(1);
    let least = (share / BALANCE_PARTS).max(1);
    let mut wanting: Vec<(ShardId, u64)> =
        over.iter().map(|shard| (*shard, share.saturating_sub(weight(*shard)))).collect();
    wanting.retain(|(_, missing)| *missing >= least);
    let mut spare: BTreeMap<ShardId, u64> = widths
        .keys()
        .map(|owner| {
            let keeps = if over.contains(owner) { share } else { 0 };
            (*owner, weight(*owner).saturating_sub(keeps))
        })
        .collect();
    for (range, owner) in owned {
        let mut rest = *range;
        while let Some((to, missing)) = wanting.first_mut() {
            let (has, space) = (u128::from(weight(*owner)), widths[owner]);
            let Some(left) = spare.get_mut(owner).filter(|left| **left >= least) else { break };
            let wide = (u128::from((*missing).min(*left)) * (space / has.max(1))).min(width(rest));
            if wide == 0 {
                break;
            }
            let (part, after) = split_at(rest, wide);
            give(part, *owner, *to);
            let gone = (width(part) / (space / has.max(1)).max(1)) as u64;
            *left = left.saturating_sub(gone);
            *missing = missing.saturating_sub(gone);
            if *missing < least {
                wanting.remove(0);
            }
            match after {
                Some(after) => rest = after,
                None => break,
            }
        }
    }
}

fn part_of(
    owned: &[(HashRange, ShardId)],
    wanted: HashRange,
    to: ShardId,
    give: &mut impl FnMut(HashRange, ShardId, ShardId),
) {
    for (range, owner) in owned.iter().filter(|(range, _)| range.overlaps(&wanted)) {
        let end = match (range.end, wanted.end) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        give(HashRange { start: range.start.max(wanted.start), end }, *owner, to);
    }
}

/// How many hashes a range has.
fn width(range: HashRange) -> u128 {
    let end = range.end.map_or(1_i128 << 63, |end| i128::from(end.0));
    (end - i128::from(range.start.0)) as u128
}

/// The first so many hashes, and the rest if there is one.
fn split_at(range: HashRange, amount: u128) -> (HashRange, Option<HashRange>) {
    let at = i64::try_from(i128::from(range.start.0) + amount as i128).ok().map(KeyHash);
    match at {
        Some(at) if range.end.is_none_or(|end| at < end) => (
            HashRange { start: range.start, end: Some(at) },
            Some(HashRange { start: at, end: range.end }),
        ),
        _ => (range, None),
    }
}

fn upper_half(range: HashRange) -> Option<HashRange> {
    split_at(range, width(range).div_ceil(2)).1
}

/// Parts of about the same width; fewer where the range is too narrow.
fn cut(range: HashRange, parts: usize) -> Vec<HashRange> {
    let mut rest = range;
    let mut list = Vec::new();
    for left in (2..=parts as u128).rev() {
        match split_at(rest, (width(rest) / left).max(1)) {
            (first, Some(after)) => {
                list.push(first);
                rest = after;
            }
            (_, None) => break,
        }
    }
    list.push(rest);
    list
}

#[cfg(test)]
mod tests {
    use pgherd_shard_map::{ColocationGroup, Epoch, KeyType, RangeMap, Shard};

    use super::*;

    /// A map of one group over so many shards, and `more` without rows.
    fn map(count: u32, more: u32) -> ShardMap {
        let ids: Vec<ShardId> = (0..count).map(ShardId).collect();
        let shards = (0..count + more).map(|id| Shard { id: ShardId(id), dsn: "".into() });
        let placement = Placement::Hash(RangeMap::even(&ids).unwrap());
        let group = ColocationGroup { id: GroupId(1), key_type: KeyType::Int8, placement };
        ShardMap::try_new(Epoch(1), ShardId(0), true, shards.collect(), vec![group], vec![])
            .unwrap()
    }

    /// What each shard has after the moves, in 256ths of the space.
    fn after(map: &ShardMap, moves: &[Move], shards: u32) -> Vec<u128> {
        let Placement::Hash(ranges) = &map.group(GroupId(1)).unwrap().placement else { panic!() };
        let mut has: Vec<i128> = vec![0; shards as usize];
        for (range, owner) in ranges.iter() {
            has[owner.0 as usize] += width(range) as i128;
        }
        for part in moves {
            let owner = ranges.shard_for(part.range().start);
            assert_eq!(owner, part.from, "{part:?}");
            has[part.from.0 as usize] -= width(part.range()) as i128;
            has[part.to.0 as usize] += width(part.range()) as i128;
        }
        has.into_iter().map(|width| ((width + (1 << 55)) >> 56) as u128).collect()
    }

    #[test]
    fn wishes_give_each_shard_what_they_say() {
        let shard = ShardId;
        for (count, more, wish, expected) in [
            (2, 1, Wish::Split { from: shard(1), to: shard(2) }, vec![128, 64, 64]),
            (3, 0, Wish::Drain { from: shard(1), to: vec![shard(0), shard(2)] }, vec![128, 0, 128]),
            (2, 2, Wish::Spread { over: (0..4).map(shard).collect() }, vec![64, 64, 64, 64]),
            (4, 0, Wish::Spread { over: vec![shard(0)] }, vec![256, 0, 0, 0]),
            (4, 0, Wish::Spread { over: (0..4).map(shard).collect() }, vec![64, 64, 64, 64]),
        ] {
            let map = map(count, more);
            let moves = propose(&map, &wish);
            assert_eq!(after(&map, &moves, count + more), expected, "{wish:?}: {moves:?}");
            let sorted = moves.iter().map(|part| part.range());
            for (at, range) in sorted.enumerate() {
                assert!(!moves[at + 1..].iter().any(|other| other.range().overlaps(&range)));
            }
        }
    }

    #[test]
    fn weights_are_balanced_where_ranges_are_not_equally_full() {
        let group = GroupId(1);
        let map = map(2, 1);
        let weights: Weights = [(0, 900_000_000), (1, 300_000_000)]
            .map(|(at, size)| ((group, ShardId(at)), size))
            .into();
        let over: Vec<ShardId> = (0..3).map(ShardId).collect();
        let wish = Wish::Balance { over: over.clone(), weights: weights.clone() };
        let moves = propose(&map, &wish);
        // 500 of 900 MB go, to the shard that has none and to the other: 400 and 100.
        let mut got = BTreeMap::new();
        for part in &moves {
            assert_eq!(part.from, ShardId(0), "{part:?}");
            let size = width(part.range()) as f64 / 2_f64.powi(63) * 900.0;
            *got.entry(part.to).or_insert(0.0) += size;
        }
        assert!((got[&ShardId(2)] - 400.0).abs() < 1.0, "{got:?}");
        assert!((got[&ShardId(1)] - 100.0).abs() < 1.0, "{got:?}");
        let then: Vec<(u64, u64)> =
            estimate(&map, &weights, &moves).iter().map(|all| (all.now, all.then)).collect();
        let expected = [(900_000_000, 400e6), (300_000_000, 400e6), (0, 400e6)];
        for ((now, then), (expected_now, expected)) in then.iter().zip(expected) {
            assert_eq!(*now, expected_now);
            assert!((*then as f64 - expected).abs() < 1e6, "{then}");
        }
        // About the same is good enough, and empty shards need nothing.
        for sizes in [[100, 103], [0, 0]] {
            let weights = [0, 1].map(|at| ((group, ShardId(at)), sizes[at as usize])).into();
            let over = vec![ShardId(0), ShardId(1)];
            assert_eq!(propose(&map, &Wish::Balance { over, weights }), []);
        }
    }

    #[test]
    fn a_group_goes_where_another_one_lies() {
        let (from, to) = (map(2, 1), RangeMap::even(&[0, 1, 2].map(ShardId)).unwrap());
        let moves = toward(from.group(GroupId(1)).unwrap(), &to);
        assert_eq!(after(&from, &moves, 3), [85, 85, 85]);
        let there = RangeMap::even(&[0, 1].map(ShardId)).unwrap();
        assert_eq!(toward(from.group(GroupId(1)).unwrap(), &there), []);
    }

    #[test]
    fn one_key_is_one_point_of_the_space() {
        let wish = Wish::Isolate { group: GroupId(1), hash: KeyHash(i64::MAX), to: ShardId(2) };
        let moves = propose(&map(2, 1), &wish);
        let point = HashRange { start: KeyHash(i64::MAX), end: None };
        assert_eq!(moves, [Move::new(GroupId(1), point, ShardId(1), ShardId(2))]);
        // It is there already.
        let wish = Wish::Isolate { group: GroupId(1), hash: KeyHash(i64::MAX), to: ShardId(1) };
        assert_eq!(propose(&map(2, 1), &wish), []);
    }
}
