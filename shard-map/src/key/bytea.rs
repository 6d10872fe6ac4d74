//! `bytea`: the hex form and the older escape form.

use smallvec::SmallVec;

use super::value::KeyBytes;
use super::{Read, Unread};

/// As `byteain` reads it.
pub(super) fn text(text: &[u8]) -> Read<KeyBytes<'_>> {
    match text {
        [b'\\', b'x', digits @ ..] => hex_form(digits),
        text if !text.contains(&b'\\') => Ok(text.into()),
        text => escape_form(text),
    }
}

/// `\x` is taken off. White space may stand between the bytes, not within one.
fn hex_form(mut digits: &[u8]) -> Read<KeyBytes<'static>> {
    let mut value = SmallVec::with_capacity(digits.len() / 2);
    loop {
        match digits {
            [] => return Ok(KeyBytes::Owned(value)),
            [b' ' | b'\n' | b'\t' | b'\r', rest @ ..] => digits = rest,
            [high, low, rest @ ..] => {
                value.push(hex(*high, *low).ok_or(Unread::Invalid)?);
                digits = rest;
            }
            _ => return Err(Unread::Invalid),
        }
    }
}

/// `\\` is a backslash, `\ooo` a byte in octal, every other byte itself.
fn escape_form(mut text: &[u8]) -> Read<KeyBytes<'static>> {
    let mut value = SmallVec::with_capacity(text.len());
    loop {
        match text {
            [] => return Ok(KeyBytes::Owned(value)),
            [b'\\', b'\\', rest @ ..] => {
                value.push(b'\\');
                text = rest;
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                value.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                text = rest;
            }
            [b'\\', ..] => return Err(Unread::Invalid),
            [byte, rest @ ..] => {
                value.push(*byte);
                text = rest;
            }
        }
    }
}

/// The byte of two hexadecimal digits.
pub(super) fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}
