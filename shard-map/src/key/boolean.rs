//! `boolean`.

use super::{Read, Unread, trim};

/// As `boolin` reads it: any prefix of true, false, yes, no; on, of(f), 1, 0.
pub(super) fn text(text: &[u8]) -> Read<bool> {
    let word = trim(text).to_ascii_lowercase();
    let prefix = |of: &[u8]| !word.is_empty() && of.starts_with(&word);
    match &*word {
        b"on" | b"1" => Ok(true),
        b"off" | b"of" | b"0" => Ok(false),
        _ if prefix(b"true") || prefix(b"yes") => Ok(true),
        _ if prefix(b"false") || prefix(b"no") => Ok(false),
        _ => Err(Unread::Invalid),
    }
}

pub(super) const fn binary(bytes: &[u8]) -> Read<bool> {
    match bytes {
        [byte] => Ok(*byte != 0),
        _ => Err(Unread::Invalid),
    }
}
