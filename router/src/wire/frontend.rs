//! Messages from client to server: what sessions read, and what the router sends to shards.

use super::{Malformed, Reader, put_cstr, put_frame};

pub const SYNC: &[u8] = &[b'S', 0, 0, 0, 4];
pub const FLUSH: &[u8] = &[b'H', 0, 0, 0, 4];
pub const TERMINATE: &[u8] = &[b'X', 0, 0, 0, 4];
pub const COPY_DONE: &[u8] = &[b'c', 0, 0, 0, 4];
/// Bind of the unnamed portal needs no name; Describe and Execute of it neither.
pub const DESCRIBE_UNNAMED_PORTAL: &[u8] = &[b'D', 0, 0, 0, 6, b'P', 0];
pub const DESCRIBE_UNNAMED_STATEMENT: &[u8] = &[b'D', 0, 0, 0, 6, b'S', 0];
pub const EXECUTE_UNNAMED: &[u8] = &[b'E', 0, 0, 0, 9, 0, 0, 0, 0, 0];

#[derive(Debug, Clone, Copy)]
pub struct Parse<'a> {
    pub name: &'a [u8],
    pub query: &'a str,
    /// Declared types, four bytes each.
    pub types: &'a [u8],
}

pub fn parse(body: &[u8]) -> Result<Parse<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let name = reader.cstr()?;
    let query = reader.str()?;
    let count = reader.count()?;
    let types = reader.bytes(count * 4)?;
    reader.end()?;
    Ok(Parse { name, query, types })
}

/// A Bind message, its values not yet looked at.
#[derive(Debug, Clone, Copy)]
pub struct Bind<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    /// Everything after the names: parameter formats, values, result formats.
    pub tail: &'a [u8],
}

pub fn bind(body: &[u8]) -> Result<Bind<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let portal = reader.cstr()?;
    let statement = reader.cstr()?;
    let tail = reader.rest();
    BindTail::new(tail)?;
    Ok(Bind { portal, statement, tail })
}

/// The parts of a Bind after its names, checked.
#[derive(Debug, Clone, Copy)]
pub struct BindTail<'a> {
    formats: &'a [u8],
    values: &'a [u8],
    count: usize,
    /// With the count before it: as it is sent on.
    pub results: &'a [u8],
    /// Parameter formats and values with their counts: as they are sent on.
    pub parameters: &'a [u8],
}

impl<'a> BindTail<'a> {
    pub fn new(tail: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(tail);
        let format_count = reader.count()?;
        let formats = reader.bytes(format_count * 2)?;
        let count = reader.count()?;
        if format_count > 1 && format_count != count {
            return Err(Malformed::Formats { formats: format_count, values: count });
        }
        let values = reader.rest();
        for _ in 0..count {
            reader.value()?;
        }
        let results = reader.rest();
        let parameters = &tail[..tail.len() - results.len()];
        let result_count = reader.count()?;
        reader.bytes(result_count * 2)?;
        reader.end()?;
        Ok(Self { formats, values, count, results, parameters })
    }

    /// How many parameters are bound.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The value and format of `$number` (from 1).
    #[must_use]
    pub fn value(&self, number: u16) -> Option<(Option<&'a [u8]>, bool)> {
        let index = usize::from(number).checked_sub(1).filter(|i| *i < self.count)?;
        let mut reader = Reader::new(self.values);
        for _ in 0..index {
            reader.value().ok()?;
        }
        let format = match self.formats.len() / 2 {
            0 => 0,
            1 => self.formats[1],
            _ => self.formats[index * 2 + 1],
        };
        Some((reader.value().ok()?, format == 1))
    }
}

/// `D` and `C`: what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

/// `message` is DESCRIBE or CLOSE.
pub fn named<'a>(message: &'static str, body: &'a [u8]) -> Result<Named<'a>, Malformed> {
    let mut reader = Reader::new(body);
    let kind = reader.u8()?;
    let name = reader.cstr()?;
    reader.end()?;
    match kind {
        b'S' => Ok(Named::Statement(name)),
        b'P' => Ok(Named::Portal(name)),
        _ => Err(Malformed::Subtype { message, kind }),
    }
}

/// Portal and row limit (0 is none).
pub fn execute(body: &[u8]) -> Result<(&[u8], i32), Malformed> {
    let mut reader = Reader::new(body);
    let portal = reader.cstr()?;
    let limit = reader.i32()?;
    reader.end()?;
    Ok((portal, limit))
}

/// Sync, Flush and their kin have no body.
pub fn empty(body: &[u8]) -> Result<(), Malformed> {
    Reader::new(body).end()
}

/// The longest message of a type whose messages are short: more is not waited for.
pub const SHORT_MAX: usize = 10_000;

/// Whether messages of a type carry text or values of any length.
#[must_use]
pub fn is_long(tag: u8) -> bool {
    matches!(tag, b'Q' | b'P' | b'B' | b'F' | b'd')
}

pub fn query(body: &[u8]) -> Result<&str, Malformed> {
    let mut reader = Reader::new(body);
    let text = reader.str()?;
    reader.end()?;
    Ok(text)
}

pub fn put_query(out: &mut Vec<u8>, sql: &str) {
    put_frame(out, b'Q', |out| put_cstr(out, sql.as_bytes()));
}

/// `types` are four bytes each.
pub fn put_parse(out: &mut Vec<u8>, name: &[u8], sql: &str, types: &[u8]) {
    put_frame(out, b'P', |out| {
        put_cstr(out, name);
        put_cstr(out, sql.as_bytes());
        out.extend_from_slice(&((types.len() / 4) as u16).to_be_bytes());
        out.extend_from_slice(types);
    });
}

pub fn put_bind(
    out: &mut Vec<u8>,
    portal: &[u8],
    statement: &[u8],
    parameters: &[u8],
    results: &[u8],
) {
    put_frame(out, b'B', |out| {
        put_cstr(out, portal);
        put_cstr(out, statement);
        out.extend_from_slice(parameters);
        out.extend_from_slice(results);
    });
}

pub fn put_describe(out: &mut Vec<u8>, kind: u8, name: &[u8]) {
    put_frame(out, b'D', |out| {
        out.push(kind);
        put_cstr(out, name);
    });
}

pub fn put_close(out: &mut Vec<u8>, kind: u8, name: &[u8]) {
    put_frame(out, b'C', |out| {
        out.push(kind);
        put_cstr(out, name);
    });
}

pub fn put_execute(out: &mut Vec<u8>, portal: &[u8], limit: i32) {
    put_frame(out, b'E', |out| {
        put_cstr(out, portal);
        out.extend_from_slice(&limit.to_be_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_number() {
        let mut frame = Vec::new();
        let parameters = [0, 1, 0, 1, 0, 2, 0, 0, 0, 1, 7, 0xff, 0xff, 0xff, 0xff];
        put_bind(&mut frame, b"", b"s", &parameters, &[0, 0]);
        let bind = bind(&frame[5..]).expect("well formed");
        let tail = BindTail::new(bind.tail).expect("well formed");
        assert_eq!(tail.value(1), Some((Some(&[7u8][..]), true)));
        assert_eq!(tail.value(2), Some((None, true)));
        assert_eq!(tail.value(3), None);
        assert_eq!(tail.value(0), None);
        assert_eq!(tail.results, &[0, 0]);
    }

    #[test]
    fn a_bind_cut_anywhere_is_malformed() {
        let mut frame = Vec::new();
        put_bind(&mut frame, b"p", b"s", &[0, 0, 0, 1, 0, 0, 0, 2, 1, 2], &[0, 1, 0, 1]);
        for end in 5..frame.len() {
            assert!(bind(&frame[5..end]).is_err(), "cut at {end}");
        }
    }
}
