//! The text format: fields end at the delimiter, rows at a line end, and a backslash takes the
//! byte after it out of either role.

use std::borrow::Cow;

use super::line_end::{LineEnd, Marker};
use super::{Fault, Found, Key, Scan};

#[derive(Debug)]
pub(super) struct Text {
    delimiter: u8,
    null: Box<[u8]>,
    line_end: LineEnd,
}

impl Text {
    pub(super) fn new(delimiter: u8, null: &[u8]) -> Self {
        Self { delimiter, null: null.into(), line_end: LineEnd::default() }
    }

    /// The end of the row at the start of `row`; its first `at` bytes do not hold it.
    pub(super) fn scan(&mut self, row: &[u8], mut at: usize, eof: bool) -> Result<Scan, Fault> {
        loop {
            let rest = row.get(at..).unwrap_or_default();
            let Some(found) = memchr::memchr3(b'\n', b'\r', b'\\', rest) else {
                return Ok(unended(row.len().max(at), row.len(), eof));
            };
            at += found;
            if row[at] != b'\\' {
                return Ok(match self.line_end.after(row, at, eof, false)? {
                    None => Scan::More(at),
                    Some(end) => Scan::Found(Found::row(at, end)),
                });
            }
            match row.get(at + 1) {
                None => return Ok(unended(at, row.len(), eof)),
                Some(b'.') => match self.line_end.marker(&row[at + 2..], eof) {
                    Marker::More => return Ok(Scan::More(at)),
                    Marker::End => return Ok(Scan::Found(Found::before_marker(at))),
                    Marker::Corrupt => return Err(Fault::MarkerCorrupt),
                    Marker::Early | Marker::Style => return Err(Fault::MarkerStyle),
                },
                Some(_) => at += 2,
            }
        }
    }

    /// The field with the number, from 0.
    pub(super) fn field<'a>(&self, row: &'a [u8], number: usize) -> Key<'a> {
        let mut left = number;
        let mut start = 0;
        let mut at = 0;
        loop {
            let rest = row.get(at..).unwrap_or_default();
            match memchr::memchr2(self.delimiter, b'\\', rest) {
                Some(found) if rest[found] == b'\\' => {
                    at += found + 2;
                    continue;
                }
                Some(found) => at += found,
                None if left == 0 => at = row.len(),
                None => return Key::Unreadable,
            }
            if left == 0 {
                let field = &row[start..at];
                return if *field == *self.null { Key::Null } else { Key::Text(unescape(field)) };
            }
            left -= 1;
            at += 1;
            start = at;
        }
    }
}

/// A row whose end is not in sight: at the end of the data that is its end.
fn unended(scanned: usize, length: usize, eof: bool) -> Scan {
    if eof { Scan::Found(Found::row(length, length)) } else { Scan::More(scanned) }
}

/// COPY's backslash escapes.
fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', field).is_none() {
        return Cow::Borrowed(field);
    }
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let Some((escaped, after)) = rest.split_first() else { break };
        rest = after;
        match escaped {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'0'..=b'7' => {
                let more = rest.iter().take(2).take_while(|d| matches!(d, b'0'..=b'7')).count();
                let value = rest[..more]
                    .iter()
                    .fold(u32::from(escaped - b'0'), |value, d| value * 8 + u32::from(d - b'0'));
                rest = &rest[more..];
                out.push(value as u8);
            }
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                let more = rest.iter().take(2).take_while(|d| d.is_ascii_hexdigit()).count();
                let digit = |d: &u8| char::from(*d).to_digit(16).unwrap_or(0);
                out.push(rest[..more].iter().fold(0, |value, d| value * 16 + digit(d)) as u8);
                rest = &rest[more..];
            }
            other => out.push(*other),
        }
    }
    Cow::Owned(out)
}
