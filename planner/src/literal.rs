//! A literal's text → the bytes of its value.

use smallvec::SmallVec;

use crate::LiteralKind;

/// Long enough for every key that is a number, a uuid or a short name.
pub(crate) type Value = SmallVec<[u8; 64]>;

/// The value of a literal as written. `None` for forms whose value is not told here with certainty
/// (`B''`, `X''`, `U&''`, continued strings, broken escapes).
pub(crate) fn decode(text: &[u8], kind: LiteralKind, into: &mut Value) -> Option<()> {
    into.clear();
    match kind {
        LiteralKind::Integer | LiteralKind::Decimal => into.extend_from_slice(text),
        LiteralKind::String => {
            let inner = text.strip_prefix(b"'")?.strip_suffix(b"'")?;
            unquote(inner, b'\'', into)?;
        }
        LiteralKind::DollarString => {
            let tag = memchr::memchr(b'$', text.get(1..)?)? + 2;
            into.extend_from_slice(text.get(tag..text.len().checked_sub(tag)?)?);
        }
        LiteralKind::EscapeString => {
            let inner = text.get(1..)?.strip_prefix(b"'")?.strip_suffix(b"'")?;
            unescape(inner, into)?;
        }
        LiteralKind::OtherString => return None,
    }
    Some(())
}

/// The literal as text, for names and options.
pub(crate) fn decode_str(text: &str, kind: LiteralKind) -> Option<Box<str>> {
    let mut value = Value::new();
    decode(text.as_bytes(), kind, &mut value)?;
    std::str::from_utf8(&value).ok().map(Into::into)
}

/// The name in a quoted identifier, doubled quotes halved.
pub(crate) fn unquote_identifier(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.replace("\"\"", "\""))
}

/// Halves doubled quotes; a single one inside is a mistake.
fn unquote(inner: &[u8], quote: u8, into: &mut Value) -> Option<()> {
    let mut rest = inner;
    while let Some(at) = memchr::memchr(quote, rest) {
        into.extend_from_slice(&rest[..=at]);
        rest = rest[at + 1..].strip_prefix(&[quote])?;
    }
    into.extend_from_slice(rest);
    Some(())
}

fn unescape(inner: &[u8], into: &mut Value) -> Option<()> {
    let mut bytes = inner.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' => {
                (bytes.next()? == b'\'').then_some(())?;
                into.push(b'\'');
            }
            b'\\' => match bytes.next()? {
                b'n' => into.push(b'\n'),
                b't' => into.push(b'\t'),
                b'r' => into.push(b'\r'),
                b'b' => into.push(8),
                b'f' => into.push(12),
                // Octal, hexadecimal and Unicode escapes make bytes that must be checked as a
                // whole; keys are not written so.
                b'0'..=b'7' | b'x' | b'u' | b'U' => return None,
                other => into.push(other),
            },
            other => into.push(other),
        }
    }
    Some(())
}
