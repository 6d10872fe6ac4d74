//! The CSV format. As in PostgreSQL there are two readers: one that finds the end of a row, for
//! which every quote turns quoting on or off, and one that takes a row's fields apart.

use std::borrow::Cow;

use pgherd_planner::CopyFormat;

use super::line_end::{LineEnd, Marker};
use super::{Fault, Found, Key, Scan};

#[derive(Debug)]
pub(super) struct Csv {
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: Box<[u8]>,
    force_not_null: bool,
    force_null: bool,
    line_end: LineEnd,
    row: RowState,
}

/// Where the search for the end of the row stands.
#[derive(Debug, Default)]
struct RowState {
    quoted: bool,
    /// The byte before was an escape.
    escaped: bool,
    /// Of those within quotes.
    returns: u64,
    newlines: u64,
}

impl Csv {
    /// Of a format that is [`CopyFormat::Csv`]; of another one, CSV with the usual signs.
    pub(super) fn new(format: &CopyFormat) -> Self {
        let mut csv = Self {
            delimiter: b',',
            quote: b'"',
            escape: b'"',
            null: Box::default(),
            force_not_null: false,
            force_null: false,
            line_end: LineEnd::default(),
            row: RowState::default(),
        };
        if let CopyFormat::Csv {
            delimiter,
            quote,
            escape,
            null,
            force_not_null_key,
            force_null_key,
            ..
        } = format
        {
            csv.delimiter = *delimiter;
            csv.quote = *quote;
            csv.escape = *escape;
            csv.null = null.clone();
            csv.force_not_null = *force_not_null_key;
            csv.force_null = *force_null_key;
        }
        csv
    }

    /// The end of the row at the start of `row`; its first `at` bytes do not hold it.
    pub(super) fn scan(&mut self, row: &[u8], mut at: usize, eof: bool) -> Result<Scan, Fault> {
        while let Some(byte) = row.get(at).copied() {
            let marker = at == 0 && byte == b'\\';
            let marker = match (marker, row.get(1)) {
                (true, None) if !eof => return Ok(Scan::More(0)),
                (true, Some(b'.')) => self.line_end.marker(&row[2..], eof),
                _ => Marker::Corrupt,
            };
            if marker == Marker::More || (byte == b'\r' && at + 1 == row.len() && !eof) {
                return Ok(Scan::More(at));
            }
            self.row.turn(byte, self.quote, self.escape);
            match marker {
                Marker::End => {
                    self.row = RowState::default();
                    return Ok(Scan::Found(Found::before_marker(0)));
                }
                Marker::Style => return Err(Fault::MarkerStyle),
                Marker::More | Marker::Corrupt | Marker::Early => {}
            }
            if matches!(byte, b'\r' | b'\n') {
                if !self.row.quoted {
                    let before = self.line_end;
                    if let Some(end) = self.line_end.after(row, at, eof, true)? {
                        return Ok(self.found(at, end, before));
                    }
                } else if byte == b'\r' {
                    self.row.returns += 1;
                } else {
                    self.row.newlines += 1;
                }
            }
            at += 1;
        }
        if eof {
            return Ok(self.found(row.len(), row.len(), self.line_end));
        }
        Ok(Scan::More(at))
    }

    /// `line_end` is what was known of it when the row began.
    fn found(&mut self, body: usize, end: usize, line_end: LineEnd) -> Scan {
        let RowState { returns, newlines, .. } = std::mem::take(&mut self.row);
        let inside = if line_end == LineEnd::Newline { newlines } else { returns };
        let mut found = Found::row(body, end);
        found.height += inside;
        found.first_height += returns;
        Scan::Found(found)
    }

    /// The field with the number, from 0.
    pub(super) fn field<'a>(&self, row: &'a [u8], number: usize) -> Key<'a> {
        let mut rest = row;
        for _ in 0..number {
            match self.take_field(rest, &mut None) {
                Some(Field { after: Some(after), .. }) => rest = after,
                _ => return Key::Unreadable,
            }
        }
        let mut value = Some(Vec::new());
        let Some(field) = self.take_field(rest, &mut value) else { return Key::Unreadable };
        let null = !field.quoted && *field.raw == *self.null;
        let value = match value {
            Some(value) if field.quoted => Cow::Owned(value),
            _ => Cow::Borrowed(field.raw),
        };
        if null && !self.force_not_null || self.force_null && *value == *self.null && !null {
            return Key::Null;
        }
        Key::Text(value)
    }

    /// The field at the start of `row`; `None` where a quote is not closed. A quoted one's value
    /// is written to `value`, if there is one.
    fn take_field<'a>(&self, row: &'a [u8], value: &mut Option<Vec<u8>>) -> Option<Field<'a>> {
        let mut put = |bytes: &[u8]| {
            if let Some(value) = value {
                value.extend_from_slice(bytes);
            }
        };
        let mut at = 0;
        let mut quoted = false;
        loop {
            let plain = row[at..].iter().position(|b| *b == self.delimiter || *b == self.quote);
            let end = plain.map_or(row.len(), |plain| at + plain);
            put(&row[at..end]);
            if end == row.len() || row[end] == self.delimiter {
                return Some(Field { raw: &row[..end], quoted, after: row.get(end + 1..) });
            }
            quoted = true;
            at = end + 1;
            loop {
                let byte = *row.get(at)?;
                at += 1;
                match row.get(at) {
                    Some(next)
                        if byte == self.escape && (*next == self.escape || *next == self.quote) =>
                    {
                        put(&[*next]);
                        at += 1;
                    }
                    _ if byte == self.quote => break,
                    _ => put(&[byte]),
                }
            }
        }
    }
}

struct Field<'a> {
    raw: &'a [u8],
    quoted: bool,
    /// What follows its delimiter; `None` for the row's last.
    after: Option<&'a [u8]>,
}

impl RowState {
    fn turn(&mut self, byte: u8, quote: u8, escape: u8) {
        let escapes = byte == escape && escape != quote;
        if self.quoted && escapes {
            self.escaped = !self.escaped;
        }
        if byte == quote && !self.escaped {
            self.quoted = !self.quoted;
        }
        if !escapes {
            self.escaped = false;
        }
    }
}
