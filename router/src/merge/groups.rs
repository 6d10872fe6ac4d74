//! Groups of several shards in a hash table: each of them once, what belongs to it added up.
//!
//! A group is known by the bytes of its key ([`super::key`]): equal strings are equal groups. Nearly
//! all the time goes into waiting for memory, a row's group being anywhere in the table. So all that
//! a row needs of its group stands together: the cells of its key and of each column, 16 bytes each,
//! in which numbers and short values have their place. Only what is longer stands elsewhere.

use std::borrow::Cow;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::fold::{Fold, Unfolded};
use super::numeric::Sum;

/// The longest value that a cell itself holds.
const SHORT: usize = 14;

#[derive(Debug)]
pub struct Groups {
    entries: HashTable<Entry>,
    hasher: RandomState,
    columns: Box<[Column]>,
    /// Of each group: its key's, then one for each column.
    cells: Vec<Cell>,
    /// Keys and values that are long.
    heap: Vec<u8>,
    sums: Vec<Sum>,
    folded: Vec<Vec<u8>>,
    folded_bytes: usize,
}

/// A group in the table. With its hash, the table grows without a look at any key.
#[derive(Debug)]
struct Entry {
    group: u32,
    hash: u32,
}

/// What becomes of a column's values.
#[derive(Debug, Clone, Copy)]
enum Column {
    /// As the first row had it.
    Kept,
    Integers,
    Numerics,
    Folded(Fold),
}

#[derive(Debug, Clone, Copy)]
enum Cell {
    Null,
    Integer(i64),
    Short {
        length: u8,
        bytes: [u8; SHORT],
    },
    /// A part of `heap`.
    Long {
        start: u32,
        length: u32,
    },
    /// One of `sums`.
    Sum(u32),
    /// One of `folded`.
    Folded(u32),
}

impl Groups {
    /// The first `known` columns are the group's own, the others are added up.
    #[must_use]
    pub fn new(known: usize, folds: &[Fold]) -> Self {
        let of = |fold: &Fold| match fold {
            Fold::First => Column::Kept,
            Fold::AddInteger => Column::Integers,
            Fold::AddNumeric => Column::Numerics,
            fold => Column::Folded(*fold),
        };
        Self {
            entries: HashTable::new(),
            hasher: RandomState::default(),
            columns: std::iter::repeat_n(Column::Kept, known).chain(folds.iter().map(of)).collect(),
            cells: Vec::new(),
            heap: Vec::new(),
            sums: Vec::new(),
            folded: Vec::new(),
            folded_bytes: 0,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how much memory they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * (size_of::<Entry>() + 1)
            + self.cells.capacity() * size_of::<Cell>()
            + self.heap.capacity()
            + self.sums.capacity() * size_of::<Sum>()
            + self.folded_bytes
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
        let hash = self.hasher.hash_one(key) as u32;
        let stride = self.columns.len() + 1;
        let (cells, heap) = (&self.cells, &self.heap);
        let same = |entry: &Entry| {
            entry.hash == hash && cells[entry.group as usize * stride].is(key, heap)
        };
        let Some(entry) = self.entries.find(spread(hash), same) else {
            let group = u32::try_from(self.len()).map_err(|_| Unfolded::Malformed)?;
            let key = self.kept(Some(key))?;
            self.cells.push(key);
            for number in 0..self.columns.len() {
                let cell = self.first(self.columns[number], value()?)?;
                self.cells.push(cell);
            }
            let entry = Entry { group, hash };
            self.entries.insert_unique(spread(hash), entry, |entry| spread(entry.hash));
            return Ok(());
        };
        let first = entry.group as usize * stride + 1;
        for number in 0..self.columns.len() {
            self.fold(self.columns[number], first + number, value()?)?;
        }
        Ok(())
    }

    /// A value in its binary form.
    #[must_use]
    pub fn value(&self, column: usize, group: usize) -> Option<Cow<'_, [u8]>> {
        Some(match &self.cells[group * (self.columns.len() + 1) + 1 + column] {
            Cell::Null => return None,
            Cell::Integer(sum) => Cow::Owned(sum.to_be_bytes().to_vec()),
            Cell::Sum(number) => Cow::Owned(self.sums[*number as usize].bytes()),
            Cell::Folded(number) => Cow::Borrowed(&self.folded[*number as usize]),
            kept => Cow::Borrowed(kept.bytes(&self.heap)),
        })
    }

    fn kept(&mut self, value: Option<&[u8]>) -> Result<Cell, Unfolded> {
        let Some(value) = value else { return Ok(Cell::Null) };
        let mut bytes = [0; SHORT];
        if let Some(short) = bytes.get_mut(..value.len()) {
            short.copy_from_slice(value);
            return Ok(Cell::Short { length: value.len() as u8, bytes });
        }
        let at = |length: usize| u32::try_from(length).map_err(|_| Unfolded::Malformed);
        let cell = Cell::Long { start: at(self.heap.len())?, length: at(value.len())? };
        self.heap.extend_from_slice(value);
        Ok(cell)
    }

    /// The first value that a group has in a column, NULL aside.
    fn first(&mut self, column: Column, value: Option<&[u8]>) -> Result<Cell, Unfolded> {
        let Some(value) = value else { return Ok(Cell::Null) };
        let last = |length: usize| u32::try_from(length - 1).map_err(|_| Unfolded::Malformed);
        match column {
            Column::Kept => self.kept(Some(value)),
            Column::Integers => integer(value).map(Cell::Integer),
            Column::Numerics => {
                self.sums.push(Sum::of(value).ok_or(Unfolded::Malformed)?);
                last(self.sums.len()).map(Cell::Sum)
            }
            Column::Folded(_) => {
                self.folded_bytes += size_of::<Vec<u8>>() + 16 + value.len();
                self.folded.push(value.to_vec());
                last(self.folded.len()).map(Cell::Folded)
            }
        }
    }

    fn fold(&mut self, column: Column, at: usize, value: Option<&[u8]>) -> Result<(), Unfolded> {
        let Some(more) = value else { return Ok(()) };
        match (column, &mut self.cells[at]) {
            (Column::Kept, _) => {}
            (_, Cell::Integer(sum)) => {
                *sum = sum.checked_add(integer(more)?).ok_or(Unfolded::OutOfRange)?;
            }
            (_, Cell::Sum(number)) => {
                self.sums[*number as usize].add(more).ok_or(Unfolded::Malformed)?;
            }
            (Column::Folded(fold), Cell::Folded(number)) => {
                let sum = &mut self.folded[*number as usize];
                let before = sum.len();
                fold.add_to(sum, more)?;
                self.folded_bytes += sum.len().saturating_sub(before);
            }
            _ => self.cells[at] = self.first(column, value)?,
        }
        Ok(())
    }
}

impl Cell {
    /// Of a key, or of a value that is kept.
    fn bytes<'a>(&'a self, heap: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long { start, length } => {
                &heap[*start as usize..*start as usize + *length as usize]
            }
            _ => &[],
        }
    }

    fn is(&self, key: &[u8], heap: &[u8]) -> bool {
        self.bytes(heap) == key
    }
}

/// The table looks at the highest bits, too.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn integer(bytes: &[u8]) -> Result<i64, Unfolded> {
    bytes.try_into().map(i64::from_be_bytes).map_err(|_| Unfolded::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::key::Kind;

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
        assert!(groups.bytes() > 2 * 4 * size_of::<Cell>());
    }

    #[test]
    fn long_values_and_many_groups_are_kept_apart() {
        let one: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 1];
        let mut groups = Groups::new(1, &[Fold::AddInteger, Fold::Greatest(Kind::Bytes)]);
        let names: Vec<Vec<u8>> = (0..5000_u32)
            .map(|number| {
                let name = number.to_be_bytes();
                name.iter().copied().cycle().take(number as usize % 40).chain(name).collect()
            })
            .collect();
        for last in [&b"a"[..], b"longer than a cell", b"c"] {
            for name in &names {
                let mut values = [Some(&name[..]), Some(one), Some(last)].into_iter();
                groups.add(name, || Ok(values.next().flatten())).expect("values of their types");
            }
        }
        assert_eq!(groups.len(), names.len());
        for (group, name) in names.iter().enumerate() {
            assert_eq!(groups.value(0, group).as_deref(), Some(&name[..]));
            assert_eq!(groups.value(1, group).as_deref(), Some(&[0, 0, 0, 0, 0, 0, 0, 3][..]));
            assert_eq!(groups.value(2, group).as_deref(), Some(&b"longer than a cell"[..]));
        }
        assert_eq!(size_of::<Cell>(), 16);
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
