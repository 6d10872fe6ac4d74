//! Data in other encodings than UTF-8: PostgreSQL converts it before it looks for rows, so what is
//! ASCII is what counts, and what only looks like ASCII, inside of a longer character, does not.
//!
//! Where each byte is a character, PostgreSQL's own tables (`encodings.txt`) say which. Of other
//! encodings no table is kept: their characters are only told from ASCII.

use std::borrow::Cow;

use pgherd_planner::{Coding, Encoding};

/// A line for each encoding: its name, then the code points of the bytes from 0x80, `----` where
/// there is none.
const TABLES: &str = include_str!("encodings.txt");

/// Stands for each byte of a character that is not known.
const UNKNOWN: u8 = 0x80;

/// The characters of an encoding of single bytes.
#[derive(Debug)]
pub(super) struct Table([Option<char>; 128]);

impl Table {
    /// `None` for an encoding without a table.
    pub(super) fn of(encoding: Encoding) -> Option<Self> {
        let line = |line: &'static str| line.strip_prefix(encoding.name)?.strip_prefix(' ');
        let codes = TABLES.lines().find_map(line)?;
        let mut chars = [None; 128];
        for (char, code) in chars.iter_mut().zip(codes.split(' ')) {
            *char = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
        }
        Some(Self(chars))
    }

    /// The text as UTF-8; `None` if a byte of it is no character.
    pub(super) fn decoded<'a>(&self, text: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if text.is_ascii() {
            return Some(Cow::Borrowed(text));
        }
        let mut out = String::with_capacity(text.len() * 2);
        for byte in text {
            out.push(match byte.checked_sub(128) {
                None => char::from(*byte),
                Some(high) => self.0[usize::from(high)]?,
            });
        }
        Some(Cow::Owned(out.into_bytes()))
    }
}

/// Writes text in an encoding of single bytes.
#[derive(Debug)]
pub(super) struct Encoder {
    encoding: Encoding,
    /// Ascending.
    bytes: Vec<(char, u8)>,
}

impl Encoder {
    /// `None`: the text is as it is wanted.
    pub(super) fn of(encoding: Encoding) -> Option<Self> {
        let Table(chars) = Table::of(encoding)?;
        let bytes = chars.iter().zip(128..=255).filter_map(|(char, byte)| Some(((*char)?, byte)));
        let mut bytes: Vec<(char, u8)> = bytes.collect();
        bytes.sort_unstable();
        Some(Self { encoding, bytes })
    }

    /// Else what PostgreSQL says of a character that the encoding does not have.
    pub(super) fn put(&self, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
        for char in text.chars() {
            if char.is_ascii() {
                out.push(char as u8);
                continue;
            }
            let found = self.bytes.binary_search_by_key(&char, |(char, _)| *char);
            let Ok(at) = found else {
                let mut buffer = [0; 4];
                let bytes = char.encode_utf8(&mut buffer).bytes();
                let bytes: Vec<String> = bytes.map(|byte| format!("0x{byte:02x}")).collect();
                return Err(format!(
                    "character with byte sequence {} in encoding \"UTF8\" has no equivalent in \
                     encoding \"{}\"",
                    bytes.join(" "),
                    self.encoding.name
                ));
            };
            out.push(self.bytes[at].1);
        }
        Ok(())
    }
}

/// Shows the ASCII characters of data that arrives in pieces.
#[derive(Debug)]
pub(super) struct Mask {
    coding: Coding,
    /// Bytes of the character at hand that are still to come.
    left: u8,
    /// The next one says how many there are.
    second: bool,
}

impl Mask {
    /// `None` where data can be read as it is.
    pub(super) fn of(coding: Coding) -> Option<Self> {
        // Rows of odd ones are not looked for.
        let plain = matches!(coding, Coding::Utf8 | Coding::Single | Coding::Odd);
        (!plain).then_some(Self { coding, left: 0, second: false })
    }

    /// Appends as many bytes as the data has.
    pub(super) fn put(&mut self, data: &[u8], out: &mut Vec<u8>) {
        out.reserve(data.len());
        for byte in data {
            if self.left > 0 {
                self.left -= 1;
                if std::mem::take(&mut self.second) && byte.is_ascii_digit() {
                    self.left = 2;
                }
                out.push(UNKNOWN);
            } else if byte.is_ascii() {
                out.push(*byte);
            } else {
                self.left = match (self.coding, byte) {
                    (Coding::High | Coding::Utf8 | Coding::Single, _)
                    | (Coding::Sjis, 0xa1..=0xdf) => 0,
                    _ => 1,
                };
                self.second = self.coding == Coding::Gb18030;
                out.push(UNKNOWN);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(name: &'static str, coding: Coding) -> Encoding {
        Encoding { name, coding }
    }

    #[test]
    fn single_bytes_are_read_and_written() {
        let latin9 = encoding("LATIN9", Coding::Single);
        let table = Table::of(latin9).expect("a table");
        assert_eq!(table.decoded(b"a\xa4\xe9").as_deref(), Some("a€é".as_bytes()));
        assert_eq!(table.decoded(b"plain").as_deref(), Some(&b"plain"[..]));
        let greek = Table::of(encoding("ISO_8859_7", Coding::Single)).expect("a table");
        assert_eq!(greek.decoded(b"\xae"), None);
        let encoder = Encoder::of(latin9).expect("a table");
        let mut out = Vec::new();
        assert_eq!(encoder.put("a€é", &mut out), Ok(()));
        assert_eq!(out, b"a\xa4\xe9");
        let error = "character with byte sequence 0xc4 0x85 in encoding \"UTF8\" has no equivalent \
                     in encoding \"LATIN9\"";
        assert_eq!(encoder.put("ą", &mut out), Err(error.into()));
        assert!(Encoder::of(Encoding::UTF8).is_none());
    }

    #[test]
    fn ascii_within_a_character_is_none() {
        let masked = |coding, data: &[u8], cut: usize| {
            let mut mask = Mask::of(coding).expect("a mask");
            let mut out = Vec::new();
            data.chunks(cut).for_each(|piece| mask.put(piece, &mut out));
            String::from_utf8_lossy(&out).replace('\u{fffd}', "_")
        };
        for cut in 1..5 {
            assert_eq!(masked(Coding::High, b"a\xa4\xa2b", cut), "a__b");
            assert_eq!(masked(Coding::Double, b"\xa4\\b\\\xff\xff\\", cut), "__b\\__\\");
            assert_eq!(masked(Coding::Sjis, b"\x83\\\xb1\\\xe0|", cut), "___\\__");
            assert_eq!(masked(Coding::Gb18030, b"\x810\x81012\x81|3", cut), "____12__3");
        }
    }
}
