//! Placements by value: half-open ranges, or single values, each on one shard.
//!
//! The catalog keeps them as text in PostgreSQL's own output form; they are read once, when the
//! map is made, so that a lookup compares values and not spellings.

use std::cmp::Ordering;

use crate::key::KeyValue;
use crate::{KeyError, KeyInput, KeyType, MapError, ShardId, ValueRange};

/// Ranges of values, ascending, without overlap. Gaps are allowed and refuse rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueRanges {
    ranges: Box<[ValueRange]>,
    bounds: Box<[Bounds]>,
}

/// `start <= value < end`; `None` is open.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bounds {
    start: Option<KeyValue<'static>>,
    end: Option<KeyValue<'static>>,
}

/// Single values and their shards. What is not listed is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueList {
    values: Box<[(Box<str>, ShardId)]>,
    /// Sorted, for the search.
    keys: Box<[(KeyValue<'static>, ShardId)]>,
}

impl ValueRanges {
    /// From ranges in any order.
    ///
    /// # Errors
    /// [`MapError`] when a bound is no value of the type, its values have no order here, or ranges
    /// are empty or overlap.
    pub fn try_new(key_type: KeyType, ranges: Vec<ValueRange>) -> Result<Self, MapError> {
        if !key_type.is_ordered() {
            return Err(invalid(format!("values of type {key_type:?} have no order here")));
        }
        let mut both = Vec::with_capacity(ranges.len());
        for range in ranges {
            let bound = |text: &Option<Box<str>>| {
                text.as_deref().map(|text| read(key_type, text)).transpose()
            };
            let bounds = Bounds { start: bound(&range.start)?, end: bound(&range.end)? };
            if bounds.start.is_some() && bounds.end.is_some() && bounds.start >= bounds.end {
                return Err(invalid("a range of values is empty".to_owned()));
            }
            both.push((bounds, range));
        }
        both.sort_by(|(left, _), (right, _)| left.start.cmp(&right.start));
        let apart = both.windows(2).all(|pair| match (&pair[0].0.end, &pair[1].0.start) {
            (Some(end), Some(start)) => end <= start,
            _ => false,
        });
        if !apart {
            return Err(invalid("ranges of values overlap".to_owned()));
        }
        let (bounds, ranges): (Vec<_>, Vec<_>) = both.into_iter().unzip();
        Ok(Self { ranges: ranges.into(), bounds: bounds.into() })
    }

    /// All ranges, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ValueRange> + '_ {
        self.ranges.iter()
    }

    fn shard_for(&self, value: &KeyValue<'_>) -> Option<ShardId> {
        // `None` is less than every `Some`, as an open start should be.
        let after = self.bounds.partition_point(|bounds| {
            bounds.start.as_ref().is_none_or(|start| start.cmp(value) != Ordering::Greater)
        });
        let at = after.checked_sub(1)?;
        let inside = self.bounds[at].end.as_ref().is_none_or(|end| value.cmp(end).is_lt());
        inside.then(|| self.ranges[at].shard)
    }

    fn predicate(&self, key_type: KeyType, shard: ShardId, column: &str) -> String {
        let column = key_type.comparable(column);
        any_of(self.iter().filter(|range| range.shard == shard).map(|range| {
            let parts: Vec<String> = [(">=", &range.start), ("<", &range.end)]
                .into_iter()
                .filter_map(|(sign, bound)| {
                    let literal = key_type.literal(bound.as_deref()?);
                    Some(format!("{column} {sign} {literal}"))
                })
                .collect();
            if parts.is_empty() { format!("{column} IS NOT NULL") } else { parts.join(" AND ") }
        }))
    }
}

impl ValueList {
    /// # Errors
    /// [`MapError`] when a value is none of the type or stands there twice.
    pub fn try_new(key_type: KeyType, values: Vec<(Box<str>, ShardId)>) -> Result<Self, MapError> {
        let mut keys = values
            .iter()
            .map(|(text, shard)| Ok((read(key_type, text)?, *shard)))
            .collect::<Result<Vec<_>, MapError>>()?;
        keys.sort_by(|(left, _), (right, _)| left.cmp(right));
        if keys.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(invalid("a value is assigned twice".to_owned()));
        }
        Ok(Self { values: values.into(), keys: keys.into() })
    }

    /// All values, in the catalog's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, ShardId)> + '_ {
        self.values.iter().map(|(value, shard)| (&**value, *shard))
    }

    fn shard_for(&self, value: &KeyValue<'_>) -> Option<ShardId> {
        let at = self.keys.binary_search_by(|(key, _)| key.cmp(value)).ok()?;
        Some(self.keys[at].1)
    }

    fn predicate(&self, key_type: KeyType, shard: ShardId, column: &str) -> String {
        let column = key_type.comparable(column);
        let mine = self.iter().filter(|(_, owner)| *owner == shard);
        let literals: Vec<String> = mine.map(|(value, _)| key_type.literal(value)).collect();
        if literals.is_empty() {
            "false".to_owned()
        } else {
            format!("({column} IN ({}))", literals.join(", "))
        }
    }
}

/// How values of a group's key are mapped to shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    Hash(crate::RangeMap),
    Range(ValueRanges),
    List(ValueList),
}

impl Placement {
    #[must_use]
    pub const fn distribution(&self) -> crate::Distribution {
        match self {
            Self::Hash(_) => crate::Distribution::Hash,
            Self::Range(_) => crate::Distribution::Range,
            Self::List(_) => crate::Distribution::List,
        }
    }

    pub(crate) fn shard_for(
        &self,
        key_type: KeyType,
        key: KeyInput<'_>,
    ) -> Result<ShardId, KeyError> {
        let value = key_type.value(key)?;
        match self {
            Self::Hash(ranges) => Ok(ranges.shard_for(value.hash())),
            Self::Range(ranges) => ranges.shard_for(&value).ok_or(KeyError::Uncovered),
            Self::List(values) => values.shard_for(&value).ok_or(KeyError::Uncovered),
        }
    }

    pub(crate) fn predicate(
        &self,
        key_type: KeyType,
        shard: ShardId,
        column: &str,
    ) -> Option<String> {
        Some(match self {
            Self::Hash(ranges) => {
                let hash = key_type.hash_expression(column)?;
                let mine = ranges.iter().filter(|(_, owner)| *owner == shard);
                any_of(mine.map(|(range, _)| range.predicate(&hash)))
            }
            Self::Range(ranges) => ranges.predicate(key_type, shard, column),
            Self::List(values) => values.predicate(key_type, shard, column),
        })
    }

    /// All shards that are named.
    pub(crate) fn shards(&self) -> Vec<ShardId> {
        match self {
            Self::Hash(ranges) => ranges.iter().map(|(_, shard)| shard).collect(),
            Self::Range(ranges) => ranges.iter().map(|range| range.shard).collect(),
            Self::List(values) => values.iter().map(|(_, shard)| shard).collect(),
        }
    }
}

/// Conditions joined by OR, in parentheses; none of them is `false`.
fn any_of(conditions: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = conditions.map(|condition| format!("({condition})")).collect();
    match &parts[..] {
        [] => "false".to_owned(),
        [one] => one.clone(),
        several => format!("({})", several.join(" OR ")),
    }
}

fn read(key_type: KeyType, text: &str) -> Result<KeyValue<'static>, MapError> {
    match key_type.value(KeyInput::Text(text.as_bytes())) {
        Ok(value) => Ok(value.into_owned()),
        Err(error) => Err(invalid(format!("value {text:?} in the catalog: {error}"))),
    }
}

fn invalid(message: String) -> MapError {
    MapError::Invalid(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: Option<&str>, end: Option<&str>, shard: u32) -> ValueRange {
        ValueRange { start: start.map(Into::into), end: end.map(Into::into), shard: ShardId(shard) }
    }

    fn look(placement: &Placement, key_type: KeyType, text: &str) -> Result<ShardId, KeyError> {
        placement.shard_for(key_type, KeyInput::Text(text.as_bytes()))
    }

    #[test]
    fn a_value_lies_in_the_range_whose_start_it_reaches_and_whose_end_it_does_not() {
        let ranges = vec![
            range(Some("10"), Some("20"), 1),
            range(None, Some("0"), 0),
            range(Some("20"), None, 2),
        ];
        let placement = Placement::Range(ValueRanges::try_new(KeyType::Int4, ranges).unwrap());
        for (value, shard) in [("-5", 0), ("-1", 0), ("10", 1), ("019", 1), ("20", 2), ("9999", 2)]
        {
            assert_eq!(look(&placement, KeyType::Int4, value), Ok(ShardId(shard)), "{value}");
        }
        for value in ["0", "9"] {
            assert_eq!(look(&placement, KeyType::Int4, value), Err(KeyError::Uncovered), "{value}");
        }
        assert_eq!(
            placement.predicate(KeyType::Int4, ShardId(1), "k").unwrap(),
            "(k >= '10'::pg_catalog.int4 AND k < '20'::pg_catalog.int4)"
        );
        assert_eq!(placement.predicate(KeyType::Int4, ShardId(7), "k").unwrap(), "false");
    }

    #[test]
    fn ranges_that_overlap_or_are_empty_are_refused() {
        for ranges in [
            vec![range(Some("1"), Some("5"), 0), range(Some("4"), Some("9"), 0)],
            vec![range(Some("1"), None, 0), range(Some("4"), Some("9"), 0)],
            vec![range(None, Some("1"), 0), range(None, Some("9"), 0)],
            vec![range(None, None, 0), range(Some("1"), Some("9"), 0)],
            vec![range(Some("5"), Some("5"), 0)],
            vec![range(Some("x"), None, 0)],
        ] {
            assert!(ValueRanges::try_new(KeyType::Int4, ranges.clone()).is_err(), "{ranges:?}");
        }
        assert!(ValueRanges::try_new(KeyType::Inet, vec![]).is_err());
    }

    #[test]
    fn a_list_finds_a_value_in_any_spelling_and_refuses_the_rest() {
        let values = vec![("1.50".into(), ShardId(1)), ("-2".into(), ShardId(2))];
        let placement = Placement::List(ValueList::try_new(KeyType::Numeric, values).unwrap());
        assert_eq!(look(&placement, KeyType::Numeric, "1.5"), Ok(ShardId(1)));
        assert_eq!(look(&placement, KeyType::Numeric, "-2e0"), Ok(ShardId(2)));
        assert_eq!(look(&placement, KeyType::Numeric, "2"), Err(KeyError::Uncovered));
        let twice = vec![("1.50".into(), ShardId(1)), ("1.5".into(), ShardId(1))];
        assert!(ValueList::try_new(KeyType::Numeric, twice).is_err());
    }
}
