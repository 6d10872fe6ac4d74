//! Groups of several shards in a hash table: each of them once, what belongs to it added up.
//!
//! A group is known by the bytes of its key ([`super::key`]): equal strings are equal groups. Values
//! that do not change stand behind each other in one string for each column, since a group of its
//! own allocations would be mostly these.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::fold::{Fold, Unfolded};
use super::numeric::Sum;

/// What a group costs beside its values, about.
const OVERHEAD: usize = 64;

#[derive(Debug)]
pub struct Groups {
    numbers: HashMap<Box<[u8]>, u32, RandomState>,
    columns: Vec<Column>,
    bytes: usize,
}

#[derive(Debug)]
enum Column {
    /// As the first row had it: where it begins and how long it is, -1 for NULL.
    Kept {
        places: Vec<(u32, i32)>,
        bytes: Vec<u8>,
    },
    Integers(Vec<Option<i64>>),
    Numerics(Vec<Option<Sum>>),
    Folded(Fold, Vec<Option<Vec<u8>>>),
}

impl Groups {
    /// The first `known` columns are the group's own, the others are added up.
    #[must_use]
    pub fn new(known: usize, folds: &[Fold]) -> Self {
        let kept = || Column::Kept { places: Vec::new(), bytes: Vec::new() };
        let of = |fold: &Fold| match fold {
            Fold::First => kept(),
            Fold::AddInteger => Column::Integers(Vec::new()),
            Fold::AddNumeric => Column::Numerics(Vec::new()),
            fold => Column::Folded(*fold, Vec::new()),
        };
        let columns = (0..known).map(|_| kept()).chain(folds.iter().map(of)).collect();
        Self { numbers: HashMap::default(), columns, bytes: 0 }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// About how much memory they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds one row of a shard: a value for each column.
    ///
    /// # Errors
    /// [`Unfolded`]
    pub fn add<'a>(
        &mut self,
        key: &[u8],
        mut value: impl FnMut() -> Result<Option<&'a [u8]>, Unfolded>,
    ) -> Result<(), Unfolded> {
        let known = self.numbers.get(key).copied();
        let number = known.unwrap_or(self.numbers.len() as u32);
        if known.is_none() {
            self.bytes += OVERHEAD + key.len();
            self.numbers.insert(key.into(), number);
        }
        for column in &mut self.columns {
            let value = value()?;
            match known {
                None => self.bytes += column.push(value)?,
                Some(number) => column.fold(number as usize, value)?,
            }
        }
        Ok(())
    }

    /// A value in its binary form.
    #[must_use]
    pub fn value(&self, column: usize, group: usize) -> Option<Cow<'_, [u8]>> {
        match &self.columns[column] {
            Column::Kept { places, bytes } => {
                let (start, length) = places[group];
                let length = usize::try_from(length).ok()?;
                let start = start as usize;
                Some(Cow::Borrowed(&bytes[start..start + length]))
            }
            Column::Integers(values) => values[group].map(|sum| sum.to_be_bytes().to_vec().into()),
            Column::Numerics(values) => values[group].as_ref().map(|sum| sum.bytes().into()),
            Column::Folded(_, values) => values[group].as_deref().map(Cow::Borrowed),
        }
    }
}

impl Column {
    /// A new group's value; returns how much memory it takes.
    fn push(&mut self, value: Option<&[u8]>) -> Result<usize, Unfolded> {
        let length = value.map_or(0, <[u8]>::len);
        match self {
            Self::Kept { places, bytes } => {
                let start = u32::try_from(bytes.len()).map_err(|_| Unfolded::Malformed)?;
                places.push((start, value.map_or(-1, |_| length as i32)));
                bytes.extend_from_slice(value.unwrap_or_default());
                Ok(8 + length)
            }
            Self::Integers(values) => {
                values.push(value.map(integer).transpose()?);
                Ok(16)
            }
            Self::Numerics(values) => {
                let sum = value.map(|value| Sum::of(value).ok_or(Unfolded::Malformed));
                values.push(sum.transpose()?);
                Ok(48)
            }
            Self::Folded(_, values) => {
                values.push(value.map(<[u8]>::to_vec));
                Ok(40 + length)
            }
        }
    }

    fn fold(&mut self, group: usize, value: Option<&[u8]>) -> Result<(), Unfolded> {
        match self {
            Self::Kept { .. } => Ok(()),
            Self::Integers(values) => {
                let Some(more) = value.map(integer).transpose()? else { return Ok(()) };
                let sum = values[group].unwrap_or(0).checked_add(more);
                values[group] = Some(sum.ok_or(Unfolded::OutOfRange)?);
                Ok(())
            }
            Self::Numerics(values) => {
                let Some(more) = value else { return Ok(()) };
                let added = match &mut values[group] {
                    Some(sum) => sum.add(more),
                    none => Sum::of(more).map(|sum| *none = Some(sum)),
                };
                added.ok_or(Unfolded::Malformed)
            }
            Self::Folded(fold, values) => fold.add(&mut values[group], value),
        }
    }
}

fn integer(bytes: &[u8]) -> Result<i64, Unfolded> {
    bytes.try_into().map(i64::from_be_bytes).map_err(|_| Unfolded::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(groups: &mut Groups, key: &[u8], values: &[Option<&'static [u8]>]) {
        let mut values = values.iter().copied();
        groups.add(key, || Ok(values.next().flatten())).expect("values of their types");
    }

    #[test]
    fn rows_of_one_group_are_added_up() {
        let one: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 1];
        let mut groups = Groups::new(1, &[Fold::AddInteger, Fold::Or]);
        add(&mut groups, b"a", &[Some(b"A"), Some(one), Some(&[0])]);
        add(&mut groups, b"", &[None, Some(one), None]);
        add(&mut groups, b"a", &[Some(b"other"), Some(one), Some(&[1])]);
        add(&mut groups, b"a", &[None, None, None]);
        assert_eq!(groups.len(), 2);
        assert_eq!(groups.value(0, 0).as_deref(), Some(&b"A"[..]));
        assert_eq!(groups.value(1, 0).as_deref(), Some(&[0, 0, 0, 0, 0, 0, 0, 2][..]));
        assert_eq!(groups.value(2, 0).as_deref(), Some(&[1][..]));
        assert_eq!((groups.value(0, 1), groups.value(2, 1)), (None, None));
        assert!(groups.bytes() > 2 * OVERHEAD);
    }

    #[test]
    fn a_sum_that_is_no_bigint_is_an_error() {
        let most: &[u8] = &[0x7f, 255, 255, 255, 255, 255, 255, 255];
        let mut groups = Groups::new(0, &[Fold::AddInteger]);
        add(&mut groups, b"", &[Some(most)]);
        assert_eq!(groups.add(b"", || Ok(Some(most))), Err(Unfolded::OutOfRange));
        assert_eq!(groups.add(b"", || Ok(Some(&[1]))), Err(Unfolded::Malformed));
    }
}
