//! `text`, `varchar`, `char(n)` under deterministic collations, where equal means equal bytes.
//!
//! Trailing blanks count in `text` and `varchar`; they never do in `char(n)`. `varchar(n)` cuts
//! blanks that are over its length when a row is stored, so such a value has no certain key.

use super::KeyInput;

/// `char(n)` without its padding: blanks only, no other white space.
pub(super) fn without_blanks(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    &text[..end]
}

impl KeyInput<'_> {
    /// Whether a `varchar(limit)` column might store this text without some trailing blanks. The
    /// server counts characters, or bytes in a database of encoding SQL_ASCII; as there are never
    /// more characters than bytes, counting bytes is safe for both.
    pub(crate) fn may_lose_blanks(self, limit: usize) -> bool {
        let (Self::Text(text) | Self::Param { bytes: text, .. }) = self;
        text.len() > limit && text.ends_with(b" ")
    }
}
