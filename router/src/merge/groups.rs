//! Groups of several shards in a hash table: each of them once, what belongs to it added up.
//!
//! A group is known by the bytes of its key ([`super::key`]): equal strings are equal groups. Nearly
//! all the time goes into waiting for memory, a row's group being anywhere in the table. So all that
//! a row needs of its group stands together: the cells of its key and of each column, 16 bytes each,
//! in which numbers and short values have their place. Only what is longer stands elsewhere. And rows
//! are added many at once, step by step, so that the processor waits for the memory of many of them
//! at the same time.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::fold::{Fold, Unfolded};
use super::numeric::{Short, Sum};
use crate::wire::Reader;

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

/// Rows to be added together.
#[derive(Debug, Default)]
pub struct Rows<'a> {
    keys: Vec<u8>,
    list: Vec<Row<'a>>,
}

#[derive(Debug)]
struct Row<'a> {
    key: Range<usize>,
    hash: u32,
    group: Option<u32>,
    values: Reader<'a>,
}

/// So many rows are added together: their groups' memory has room in the processor's fastest cache.
const TOGETHER: usize = 64;

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
    Number(Short),
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

impl<'a> Rows<'a> {
    /// One more: `key` appends the bytes of its group's key.
    pub fn push<E>(
        &mut self,
        values: Reader<'a>,
        key: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.keys.len();
        key(&mut self.keys)?;
        let key = start..self.keys.len();
        self.list.push(Row { key, hash: 0, group: None, values });
        Ok(())
    }

    /// Whether they are to be added before more of them come.
    #[must_use]
    pub fn are_enough(&self) -> bool {
        self.list.len() >= TOGETHER
    }
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

    /// Adds rows of a shard: a value for each column.
    ///
    /// # Errors
    /// [`Unfolded`]
    pub fn add(&mut self, rows: &mut Rows<'_>) -> Result<(), Unfolded> {
        let stride = self.columns.len() + 1;
        for row in &mut rows.list {
            row.hash = self.hasher.hash_one(&rows.keys[row.key.clone()]) as u32;
        }
        for row in &mut rows.list {
            let same = |entry: &Entry| entry.hash == row.hash;
            row.group = self.entries.find(spread(row.hash), same).map(|entry| entry.group);
        }
        for row in &mut rows.list {
            // Another key may have the same hash.
            let is = |group: &u32| {
                self.cells[*group as usize * stride].is(&rows.keys[row.key.clone()], &self.heap)
            };
            row.group = row.group.filter(is);
        }
        for row in rows.list.drain(..) {
            let key = &rows.keys[row.key];
            match row.group.or_else(|| self.find(key, row.hash)) {
                Some(group) => self.fold_row(group, row.values)?,
                None => self.add_group(key, row.hash, row.values)?,
            }
        }
        rows.keys.clear();
        Ok(())
    }

    fn find(&self, key: &[u8], hash: u32) -> Option<u32> {
        let stride = self.columns.len() + 1;
        let same = |entry: &Entry| {
            entry.hash == hash && self.cells[entry.group as usize * stride].is(key, &self.heap)
        };
        self.entries.find(spread(hash), same).map(|entry| entry.group)
    }

    fn add_group(&mut self, key: &[u8], hash: u32, mut values: Reader<'_>) -> Result<(), Unfolded> {
        let group = u32::try_from(self.len()).map_err(|_| Unfolded::Malformed)?;
        let key = self.kept(Some(key))?;
        self.cells.push(key);
        for number in 0..self.columns.len() {
            let cell = self.first(self.columns[number], values.value()?)?;
            self.cells.push(cell);
        }
        let entry = Entry { group, hash };
        self.entries.insert_unique(spread(hash), entry, |entry| spread(entry.hash));
        Ok(())
    }

    fn fold_row(&mut self, group: u32, mut values: Reader<'_>) -> Result<(), Unfolded> {
        let first = group as usize * (self.columns.len() + 1) + 1;
        for number in 0..self.columns.len() {
            self.fold(self.columns[number], first + number, values.value()?)?;
        }
        Ok(())
    }

    /// A value in its binary form.
    #[must_use]
    pub fn value(&self, column: usize, group: usize) -> Option<Cow<'_, [u8]>> {
        Some(match &self.cells[group * (self.columns.len() + 1) + 1 + column] {
            Cell::Null => return None,
            Cell::Integer(sum) => Cow::Owned(sum.to_be_bytes().to_vec()),
            Cell::Number(sum) => Cow::Owned(sum.bytes()),
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
            Column::Numerics => match Short::of(value) {
                Some(short) => Ok(Cell::Number(short)),
                None => {
                    self.sums.push(Sum::of(value).ok_or(Unfolded::Malformed)?);
                    last(self.sums.len()).map(Cell::Sum)
                }
            },
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
            (_, Cell::Number(sum)) => {
                let Some(added) = Short::of(more).and_then(|more| sum.plus(more)) else {
                    let mut sum = Sum::from(*sum);
                    sum.add(more).ok_or(Unfolded::Malformed)?;
                    self.sums.push(sum);
                    self.cells[at] = Cell::Sum((self.sums.len() - 1) as u32);
                    return Ok(());
                };
                *sum = added;
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

    /// Values as DataRow has them.
    fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut row = Vec::new();
        for value in values {
            let length = value.map_or(-1, |value| value.len() as i32);
            row.extend_from_slice(&length.to_be_bytes());
            row.extend_from_slice(value.unwrap_or_default());
        }
        row
    }

    /// A key and values.
    type Whole<'a> = (&'a [u8], &'a [Option<&'a [u8]>]);

    fn add(groups: &mut Groups, rows: &[Whole<'_>]) -> Result<(), Unfolded> {
        let values: Vec<Vec<u8>> = rows.iter().map(|(_, values)| row(values)).collect();
        let mut batch = Rows::default();
        for ((key, _), values) in rows.iter().zip(&values) {
            let put = |out: &mut Vec<u8>| -> Result<(), Unfolded> {
                out.extend_from_slice(key);
                Ok(())
            };
            batch.push(Reader::new(values), put)?;
        }
        groups.add(&mut batch)
    }

    #[test]
    fn rows_of_one_group_are_added_up() {
        let one: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 1];
        let mut groups = Groups::new(1, &[Fold::AddInteger, Fold::Or]);
        let first: [Whole<'_>; 3] = [
            (b"a", &[Some(b"A"), Some(one), Some(&[0])]),
            (b"", &[None, Some(one), None]),
            (b"a", &[Some(b"other"), Some(one), Some(&[1])]),
        ];
        assert_eq!(add(&mut groups, &first), Ok(()));
        assert_eq!(add(&mut groups, &[(b"a", &[None, None, None])]), Ok(()));
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
                let values = [Some(&name[..]), Some(one), Some(last)];
                assert_eq!(add(&mut groups, &[(name, &values)]), Ok(()));
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
        assert_eq!(add(&mut groups, &[(b"", &[Some(most)])]), Ok(()));
        assert_eq!(add(&mut groups, &[(b"", &[Some(most)])]), Err(Unfolded::OutOfRange));
        assert_eq!(add(&mut groups, &[(b"", &[Some(&[1])])]), Err(Unfolded::Malformed));
    }
}
