//! Splits the data of COPY FROM STDIN into rows and finds each row's key, without changing a byte.
//!
//! The rules are those of PostgreSQL's own reader, one file per format; only where a row ends and
//! which bytes are the key is looked at. Data arrives in pieces cut anywhere: a row that is not
//! whole yet is kept until the rest comes, and the search goes on where it stopped. What
//! PostgreSQL would refuse in a way that any shard can see (a row without the key, a torn binary
//! row) is handed on as a row with [`Key::Unreadable`], so that a shard says so in PostgreSQL's
//! words; what only the whole of the data shows (two kinds of line ends) is a [`SplitError`].

mod binary;
mod csv;
mod encoding;
mod line_end;
mod lines;
#[cfg(test)]
mod tests;
mod text;
mod written;

use std::borrow::Cow;

use pgherd_planner::{CopyFormat, Encoding};
use pgherd_shard_map::KeyInput;

use binary::Binary;
use csv::Csv;
use encoding::Mask;
pub use lines::LineMap;
use text::Text;
pub use written::RowWriter;

use crate::wire;

/// The longest row that is buffered, in bytes.
pub const ROW_MAX: usize = 256 << 20;

#[derive(Debug)]
pub struct CopySplitter {
    rules: Rules,
    key_field: usize,
    row_max: usize,
    /// The first line is a header.
    header: bool,
    pending: Vec<u8>,
    /// Encodings of single bytes: what they are.
    single: Option<&'static wire::encoding::Encoding>,
    /// Encodings of longer characters: what of the data is ASCII, and that of `pending`.
    mask: Option<Mask>,
    shown: Vec<u8>,
    /// How much of the row at hand has been searched for its end.
    scanned: usize,
    /// Lines (binary: rows) that have been read.
    line: u64,
    ended: bool,
}

#[derive(Debug)]
enum Rules {
    Text(Text),
    Csv(Csv),
    Binary(Binary),
}

/// One part of the data, in its order.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// For every shard, before its rows: a header line, or the header of the binary format.
    /// `height` is its number of lines.
    Head {
        bytes: &'a [u8],
        height: u64,
    },
    Row(Row<'a>),
    /// For every shard, after its rows.
    Tail(&'a [u8]),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The row as it came, its line end included.
    pub bytes: &'a [u8],
    pub key: Key<'a>,
    /// Where it ends in the client's data, from 1, as PostgreSQL counts lines.
    pub line: u64,
    /// How many lines a shard counts for it.
    pub height: u64,
    /// The same where it is the first that the shard gets: line ends are not known yet then.
    pub first_height: u64,
}

/// The value of the distribution column.
#[derive(Debug, PartialEq, Eq)]
pub enum Key<'a> {
    Text(Cow<'a, [u8]>),
    Binary(&'a [u8]),
    Null,
    /// The row is not well formed: PostgreSQL will refuse it.
    Unreadable,
    /// It has characters of an encoding that the router does not read.
    Foreign,
}

/// Why the data cannot be split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitError {
    /// The line in the client's data, from 1.
    pub line: u64,
    pub fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    RowTooLong,
    /// A carriage return where lines end otherwise.
    Return {
        csv: bool,
    },
    /// A newline where lines end otherwise.
    Newline {
        csv: bool,
    },
    MarkerCorrupt,
    /// `\.` with another line end than the lines before.
    MarkerStyle,
}

/// What a format's rules say of the row at hand.
#[derive(Debug, PartialEq, Eq)]
enum Scan {
    /// Not whole; everything before this offset need not be looked at again.
    More(usize),
    Found(Found),
}

#[derive(Debug, PartialEq, Eq)]
struct Found {
    kind: Kind,
    /// The row's bytes without its line end.
    body: usize,
    /// With it.
    sent: usize,
    /// With what is dropped after it: the end-of-data marker.
    used: usize,
    height: u64,
    first_height: u64,
    /// Nothing after it counts.
    last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Row,
    Head,
    Tail,
    Broken,
}

impl CopySplitter {
    /// `key_field` counts from 0, `columns` is the number of fields in a row.
    #[must_use]
    pub fn new(format: &CopyFormat, key_field: u16, columns: u16) -> Self {
        let rules = match format {
            CopyFormat::Text { delimiter, null, .. } => Rules::Text(Text::new(*delimiter, null)),
            CopyFormat::Csv { .. } => Rules::Csv(Csv::new(format)),
            CopyFormat::Binary => Rules::Binary(Binary::new(columns)),
        };
        Self {
            rules,
            key_field: key_field.into(),
            row_max: ROW_MAX,
            header: format.has_header(),
            pending: Vec::new(),
            single: None,
            mask: None,
            shown: Vec::new(),
            scanned: 0,
            line: 0,
            ended: false,
        }
    }

    /// Of data in this encoding. Rows go on as they are; keys are read as UTF-8.
    #[must_use]
    pub fn in_encoding(self, encoding: Encoding) -> Self {
        let (single, mask) = (wire::encoding::of(encoding), Mask::of(encoding.coding));
        Self { single, mask, ..self }
    }

    /// The line that was read last, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Calls `take` with each part that `data` completes.
    ///
    /// # Errors
    /// [`SplitError`], or what `take` answers.
    pub fn feed<E: From<SplitError>>(
        &mut self,
        data: &[u8],
        take: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(mask) = &mut self.mask {
            let mut shown = std::mem::take(&mut self.shown);
            mask.put(data, &mut shown);
            let mut pending = std::mem::take(&mut self.pending);
            pending.extend_from_slice(data);
            let used = self.pieces(&pending, &shown, false, take)?;
            self.pending = without(pending, used);
            self.shown = without(shown, used);
        } else if self.pending.is_empty() {
            let used = self.pieces(data, data, false, take)?;
            self.pending.extend_from_slice(&data[used..]);
        } else {
            let mut pending = std::mem::take(&mut self.pending);
            pending.extend_from_slice(data);
            let used = self.pieces(&pending, &pending, false, take)?;
            self.pending = without(pending, used);
        }
        if self.pending.len() > self.row_max {
            return Err(self.error(Fault::RowTooLong).into());
        }
        Ok(())
    }

    /// The data has ended: what is left is the last row.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn finish<E: From<SplitError>>(
        &mut self,
        take: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let last = std::mem::take(&mut self.pending);
        let shown = std::mem::take(&mut self.shown);
        let shown = if self.mask.is_some() { &shown } else { &last };
        self.pieces(&last, shown, true, take).map(drop)
    }

    /// Takes whole parts off the start of `data` and says how many bytes they were. `shown` is what
    /// is read of it.
    fn pieces<E: From<SplitError>>(
        &mut self,
        data: &[u8],
        shown: &[u8],
        eof: bool,
        take: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut from = 0;
        while from < data.len() && !self.ended {
            let (rest, read) = (&data[from..], &shown[from..]);
            let found = match self.scan(read, eof) {
                Ok(Scan::Found(found)) => found,
                Ok(Scan::More(scanned)) => {
                    self.scanned = scanned;
                    return Ok(from);
                }
                Err(fault) => return Err(self.error(fault).into()),
            };
            self.scanned = 0;
            self.ended = found.last;
            from += found.used;
            if found.sent == 0 {
                continue;
            }
            let bytes = &rest[..found.sent];
            self.line += found.height;
            match found.kind {
                Kind::Tail => take(Piece::Tail(bytes))?,
                Kind::Head => take(Piece::Head { bytes, height: found.height })?,
                Kind::Row if std::mem::take(&mut self.header) => {
                    take(Piece::Head { bytes, height: found.first_height })?;
                }
                Kind::Row | Kind::Broken => {
                    let key = match found.kind {
                        Kind::Row => self.key(&read[..found.body]),
                        _ => Key::Unreadable,
                    };
                    take(Piece::Row(Row {
                        bytes,
                        key,
                        line: self.line,
                        height: found.height,
                        first_height: found.first_height,
                    }))?;
                }
            }
        }
        // What follows the end is dropped, as PostgreSQL does.
        Ok(if self.ended { data.len() } else { from })
    }

    fn scan(&mut self, row: &[u8], eof: bool) -> Result<Scan, Fault> {
        match &mut self.rules {
            Rules::Text(text) => text.scan(row, self.scanned, eof),
            Rules::Csv(csv) => csv.scan(row, self.scanned, eof),
            Rules::Binary(binary) => Ok(binary.scan(row, self.scanned, eof)),
        }
    }

    fn key<'a>(&self, body: &'a [u8]) -> Key<'a> {
        if let Some(single) = self.single {
            return match encoding::decoded(single, body) {
                Some(Cow::Borrowed(body)) => self.field(body),
                Some(Cow::Owned(body)) => self.field(&body).owned(),
                None => Key::Unreadable,
            };
        }
        match self.field(body) {
            Key::Text(text) if self.mask.is_some() && !text.is_ascii() => Key::Foreign,
            key => key,
        }
    }

    fn field<'a>(&self, body: &'a [u8]) -> Key<'a> {
        match &self.rules {
            Rules::Text(text) => text.field(body, self.key_field),
            Rules::Csv(csv) => csv.field(body, self.key_field),
            Rules::Binary(_) => binary::field(body, self.key_field),
        }
    }

    fn error(&self, fault: Fault) -> SplitError {
        SplitError { line: self.line + 1, fault }
    }
}

impl Found {
    fn row(body: usize, end: usize) -> Self {
        Self {
            kind: Kind::Row,
            body,
            sent: end,
            used: end,
            height: 1,
            first_height: 1,
            last: false,
        }
    }

    /// What stands before the end-of-data marker.
    fn before_marker(body: usize) -> Self {
        Self { last: true, ..Self::row(body, body) }
    }
}

impl Key<'_> {
    /// The key as the map takes it; `None` where there is none.
    #[must_use]
    pub fn input(&self) -> Option<KeyInput<'_>> {
        match self {
            Key::Text(text) => Some(KeyInput::Text(text)),
            // Its type is the column's.
            Key::Binary(bytes) => Some(KeyInput::Param { bytes, binary: true, type_oid: 0 }),
            Key::Null | Key::Unreadable | Key::Foreign => None,
        }
    }

    fn owned(self) -> Key<'static> {
        match self {
            Key::Text(text) => Key::Text(Cow::Owned(text.into_owned())),
            Key::Null => Key::Null,
            // Only text has an encoding.
            Key::Binary(_) | Key::Unreadable => Key::Unreadable,
            Key::Foreign => Key::Foreign,
        }
    }
}

/// What is left of the data, in memory that is not kept for the longest row.
fn without(mut data: Vec<u8>, used: usize) -> Vec<u8> {
    if used == data.len() && data.capacity() > (1 << 20) {
        return Vec::new();
    }
    data.drain(..used);
    data
}

impl Fault {
    #[must_use]
    pub fn sqlstate(self) -> &'static str {
        match self {
            Self::RowTooLong => "54000",
            _ => "22P04",
        }
    }

    /// PostgreSQL's words, where it has the same error.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::RowTooLong => "a row of COPY data is too long",
            Self::Return { csv: false } => "literal carriage return found in data",
            Self::Return { csv: true } => "unquoted carriage return found in data",
            Self::Newline { csv: false } => "literal newline found in data",
            Self::Newline { csv: true } => "unquoted newline found in data",
            Self::MarkerCorrupt => "end-of-copy marker corrupt",
            Self::MarkerStyle => "end-of-copy marker does not match previous newline style",
        }
    }

    #[must_use]
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::RowTooLong => {
                Some("A row that is sent to its shard may have up to 256 MB. Check the quotes.")
            }
            Self::Return { csv: false } => Some("Use \"\\r\" to represent carriage return."),
            Self::Return { csv: true } => {
                Some("Use quoted CSV field to represent carriage return.")
            }
            Self::Newline { csv: false } => Some("Use \"\\n\" to represent newline."),
            Self::Newline { csv: true } => Some("Use quoted CSV field to represent newline."),
            Self::MarkerCorrupt | Self::MarkerStyle => None,
        }
    }
}
