//! Data in other encodings than UTF-8: PostgreSQL converts it before it looks for rows, so what is
//! ASCII is what counts, and what only looks like ASCII, inside of a longer character, does not.
//!
//! Where each byte is a character, PostgreSQL's own tables (`wire/encoding`) say which. Of other
//! encodings no table is kept: their characters are only told from ASCII.

use std::borrow::Cow;

use pgherd_planner::Coding;

use crate::wire::encoding::Encoding;

/// Stands for each byte of a character that is not known.
const UNKNOWN: u8 = 0x80;

/// A text as UTF-8; `None` if a byte of it is no character.
pub(super) fn decoded<'a>(encoding: &Encoding, text: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    match text.is_ascii() {
        true => Some(Cow::Borrowed(text)),
        false => Some(Cow::Owned(encoding.high.text(text)?.into_bytes())),
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
