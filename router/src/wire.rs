//! Bytes ↔ frames ↔ messages of the PostgreSQL protocol, without any IO.
//!
//! A frame is a type byte, an `i32` length that counts itself, and a body. On the hot path only
//! those five header bytes are read; bodies are parsed only where something has to be decided.
//! Every parser is bounded by its frame and answers [`Malformed`] instead of panicking.

pub mod backend;
pub mod encoding;
pub mod frontend;
pub mod reply;
pub mod startup;

use crate::error::ErrorInfo;

/// The bytes of a frame's header: type and length.
pub const HEADER: usize = 5;

/// The longest frame that is accepted: PostgreSQL's own limit for a message is 1 GB.
pub use crate::config::FRAME_MAX;

/// A frame that breaks the protocol; says which rule, in PostgreSQL's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{0}")]
    Rule(&'static str),
    #[error("bind message has {formats} parameter formats but {values} parameters")]
    Formats { formats: usize, values: usize },
    #[error("invalid {message} message subtype {kind}")]
    Subtype { message: &'static str, kind: u8 },
    #[error("invalid byte sequence for encoding \"UTF8\": {0}")]
    Encoding(BadBytes),
}

/// The first bytes of a text that are no UTF-8, as many as its first byte promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadBytes {
    bytes: [u8; 4],
    count: usize,
}

impl Malformed {
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Encoding(_) => "22021",
            _ => "08P01",
        }
    }
}

impl From<Malformed> for ErrorInfo {
    fn from(malformed: Malformed) -> Self {
        Self::new(malformed.sqlstate(), malformed.to_string())
    }
}

impl BadBytes {
    fn at(text: &[u8], valid: usize) -> Self {
        let rest = text.get(valid..).unwrap_or_default();
        let promised = match rest.first() {
            Some(0xc0..=0xdf) => 2,
            Some(0xe0..=0xef) => 3,
            Some(0xf0..=0xf7) => 4,
            _ => 1,
        };
        let count = promised.min(rest.len());
        let mut bytes = [0; 4];
        bytes[..count].copy_from_slice(&rest[..count]);
        Self { bytes, count }
    }
}

impl std::fmt::Display for BadBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, byte) in self.bytes[..self.count].iter().enumerate() {
            write!(f, "{}{byte:#04x}", if at > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

/// The type and whole size (header included) of the frame at the start of `buf`, if its header has
/// arrived. The body may still be missing.
///
/// # Errors
/// [`Malformed`] for a length below 4 or above [`FRAME_MAX`].
pub fn peek(buf: &[u8]) -> Result<Option<(u8, usize)>, Malformed> {
    let [tag, a, b, c, d, ..] = *buf else { return Ok(None) };
    let length = i32::from_be_bytes([a, b, c, d]);
    match usize::try_from(length) {
        Ok(length) if (4..=FRAME_MAX).contains(&length) => Ok(Some((tag, length + 1))),
        _ => Err(Malformed::Rule("invalid message length")),
    }
}

/// The whole frame at the start of `buf`, if it has arrived.
///
/// # Errors
/// As [`peek`].
pub fn whole(buf: &[u8]) -> Result<Option<(u8, usize)>, Malformed> {
    Ok(peek(buf)?.filter(|(_, size)| buf.len() >= *size))
}

/// Reads the fields of one frame's body, never beyond it.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(Malformed::Rule("insufficient data left in message"));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) =
            self.rest.split_first().ok_or(Malformed::Rule("no data left in message"))?;
        self.rest = rest;
        Ok(*byte)
    }

    pub fn i16(&mut self) -> Result<i16, Malformed> {
        let b = self.bytes(2)?;
        Ok(i16::from_be_bytes([b[0], b[1]]))
    }

    /// A count, which is never negative.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let b = self.bytes(2)?;
        Ok(usize::from(u16::from_be_bytes([b[0], b[1]])))
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        let b = self.bytes(4)?;
        Ok(i32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end =
            memchr::memchr(0, self.rest).ok_or(Malformed::Rule("invalid string in message"))?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    pub fn str(&mut self) -> Result<&'a str, Malformed> {
        let text = self.cstr()?;
        std::str::from_utf8(text)
            .map_err(|error| Malformed::Encoding(BadBytes::at(text, error.valid_up_to())))
    }

    /// A value with its length before it; `None` is NULL.
    pub fn value(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let length = self.i32()?;
        match usize::try_from(length) {
            Ok(length) => Ok(Some(self.bytes(length)?)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(Malformed::Rule("insufficient data left in message")),
        }
    }

    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Rule("invalid message format")) }
    }
}

/// Appends one frame; `body` writes what is inside.
pub fn put_frame(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = (out.len() - at) as i32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a zero-terminated string; a zero inside would end it early, so it is left out.
pub fn put_cstr(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().copied().filter(|b| *b != 0));
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_below_four_is_malformed() {
        assert!(peek(&[b'Q', 0, 0, 0, 3]).is_err());
        assert!(peek(&[b'Q', 0xff, 0, 0, 3]).is_err());
        assert_eq!(peek(&[b'Q', 0, 0, 0]), Ok(None));
        assert_eq!(whole(&[b'S', 0, 0, 0, 4]), Ok(Some((b'S', 5))));
    }

    #[test]
    fn reading_past_the_body_is_malformed() {
        let mut reader = Reader::new(&[0, 0, 0, 9, 1]);
        assert!(reader.value().is_err());
        assert!(Reader::new(b"no end").cstr().is_err());
    }
}
