//! `uuid`.

use super::{Read, Unread, bytea};

/// As `uuid_in` reads it: hyphens after any group of four digits, braces around, no blanks.
pub(super) fn text(text: &[u8]) -> Read<[u8; 16]> {
    let mut rest = match text {
        [b'{', inner @ .., b'}'] => inner,
        text => text,
    };
    let mut value = [0; 16];
    for (at, byte) in value.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else { return Err(Unread::Invalid) };
        *byte = bytea::hex(*high, *low).ok_or(Unread::Invalid)?;
        rest = after;
        if at % 2 == 1 && at < 15 && rest.first() == Some(&b'-') {
            rest = &rest[1..];
        }
    }
    if rest.is_empty() { Ok(value) } else { Err(Unread::Invalid) }
}

pub(super) fn binary(bytes: &[u8]) -> Read<[u8; 16]> {
    bytes.try_into().map_err(|_| Unread::Invalid)
}
