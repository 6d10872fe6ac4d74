//! What texts mean to a client that does not speak UTF-8.
//!
//! Such a client's servers have its `client_encoding`, so values pass through as they are, and
//! PostgreSQL converts and checks them. Only what the router reads or writes itself is UTF-8 here:
//! statements are converted when they arrive and again when they leave for a server, where they are
//! the client's own bytes again; keys are converted before they are hashed.
//!
//! SQL_ASCII converts nothing: to a database in UTF-8 it is UTF-8.

mod tables;

use std::borrow::Cow;
use std::sync::LazyLock;

use pgherd_planner::{Coding, Encoding as Known, HighBytes};

use super::{HEADER, put_frame};
use crate::error::ErrorInfo;

/// An encoding of one byte for each character, the first 128 of them ASCII.
#[derive(Debug)]
pub struct Encoding {
    pub name: &'static str,
    pub high: HighBytes,
    /// The characters of `high`, in order.
    bytes: Vec<(char, u8)>,
}

static ENCODINGS: LazyLock<Vec<Encoding>> =
    LazyLock::new(|| tables::TABLES.iter().map(|(name, high)| Encoding::new(name, high)).collect());

/// What a value of `client_encoding` names.
#[derive(Debug, Clone, Copy)]
pub enum Named {
    /// UTF8 or SQL_ASCII.
    AsIs,
    Single(&'static Encoding),
    /// Characters of several bytes.
    Wide,
    /// Nothing that PostgreSQL knows.
    Unknown,
    /// It is written in a way that is not read here.
    Unread,
}

impl Named {
    /// Reads a value as it is written after `SET client_encoding TO`.
    #[must_use]
    pub fn of(value: &str) -> Self {
        // PostgreSQL looks at letters and digits only: asyncpg sends quotes in the name.
        let quoted = |quote: char| {
            let inside = value.strip_prefix(quote)?.strip_suffix(quote)?;
            Some(inside.replace(&quote.to_string().repeat(2), " "))
        };
        let word = quoted('\'').or_else(|| quoted('"')).unwrap_or_else(|| value.to_owned());
        if word.contains(['\'', '"', '$', '\\']) {
            return Self::Unread;
        }
        match Known::named(word.as_bytes()) {
            None => Self::Unknown,
            Some(Known { coding: Coding::Utf8, .. }) => Self::AsIs,
            Some(known) => of(known).map_or(Self::Wide, Self::Single),
        }
    }
}

/// The one of single bytes that is meant.
#[must_use]
pub fn of(known: Known) -> Option<&'static Encoding> {
    all().find(|encoding| encoding.name == known.name)
}

/// The encoding of a server whose ParameterStatus says so; `None` for one without conversions.
#[must_use]
pub fn reported(value: &str) -> Option<&'static Encoding> {
    match Named::of(value) {
        Named::Single(encoding) => Some(encoding),
        _ => None,
    }
}

/// All that are converted here.
pub fn all() -> impl Iterator<Item = &'static Encoding> {
    ENCODINGS.iter()
}

impl Encoding {
    fn new(name: &'static str, table: &str) -> Self {
        let named = table.chars().count();
        let controls = (0x80..).map_while(char::from_u32).take(128 - named.min(128));
        let mut high = [char::REPLACEMENT_CHARACTER; 128];
        for (place, character) in high.iter_mut().zip(controls.chain(table.chars())) {
            *place = character;
        }
        let high = HighBytes(high);
        let known = (0x80..=0xff).filter_map(|byte| Some((high.character(byte)?, byte)));
        let mut bytes: Vec<(char, u8)> = known.collect();
        bytes.sort_unstable();
        Self { name, high, bytes }
    }

    /// A client's text.
    ///
    /// # Errors
    /// 22P05, as PostgreSQL says it.
    pub fn decode<'a>(&self, text: &'a [u8]) -> Result<Cow<'a, str>, ErrorInfo> {
        if text.is_ascii()
            && let Ok(text) = std::str::from_utf8(text)
        {
            return Ok(text.into());
        }
        self.high.text(text).map(Cow::Owned).ok_or_else(|| {
            let lacking = text.iter().find(|byte| self.high.character(**byte).is_none());
            let message = format!(
                "character with byte sequence {:#04x} in encoding \"{}\" has no equivalent in \
                 encoding \"UTF8\"",
                lacking.copied().unwrap_or_default(),
                self.name
            );
            ErrorInfo::new("22P05", message)
        })
    }

    /// A text from a server of this encoding.
    #[must_use]
    pub fn decode_lossy(&self, text: &[u8]) -> String {
        let character = |byte: &u8| self.high.character(*byte);
        text.iter().map(|byte| character(byte).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    }

    fn byte(&self, character: char) -> Option<u8> {
        if character.is_ascii() {
            return Some(character as u8);
        }
        let found = self.bytes.binary_search_by_key(&character, |(known, _)| *known);
        found.ok().map(|at| self.bytes[at].1)
    }

    /// A text as the client has it.
    ///
    /// # Errors
    /// 22P05, as PostgreSQL says it.
    pub fn encode(&self, text: &str) -> Result<Vec<u8>, ErrorInfo> {
        let encoded: Option<Vec<u8>> = text.chars().map(|character| self.byte(character)).collect();
        encoded.ok_or_else(|| {
            let lacking = text.chars().find(|character| self.byte(*character).is_none());
            let mut buffer = [0; 4];
            let bytes = lacking.unwrap_or_default().encode_utf8(&mut buffer).bytes();
            let bytes: Vec<String> = bytes.map(|byte| format!("{byte:#04x}")).collect();
            let message = format!(
                "character with byte sequence {} in encoding \"UTF8\" has no equivalent in \
                 encoding \"{}\"",
                bytes.join(" "),
                self.name
            );
            ErrorInfo::new("22P05", message)
        })
    }

    /// The body of a client's message, its statement in UTF-8: of Query and Parse; others stay as
    /// they are.
    ///
    /// # Errors
    /// That of [`Self::decode`].
    pub fn decode_message<'a>(&self, tag: u8, body: &'a [u8]) -> Result<Cow<'a, [u8]>, ErrorInfo> {
        let Some((from, to)) = statement_in(tag, body).filter(|_| !body.is_ascii()) else {
            return Ok(body.into());
        };
        let statement = self.decode(&body[from..to])?;
        Ok([&body[..from], statement.as_bytes(), &body[to..]].concat().into())
    }

    /// Whole messages for a server of this encoding, their statements converted.
    ///
    /// # Errors
    /// That of [`Self::encode`].
    pub fn encode_messages<'a>(&self, messages: &'a [u8]) -> Result<Cow<'a, [u8]>, ErrorInfo> {
        if messages.is_ascii() {
            return Ok(messages.into());
        }
        let mut out = Vec::with_capacity(messages.len());
        let mut rest = messages;
        while let Ok(Some((tag, size))) = super::whole(rest) {
            let (frame, more) = rest.split_at(size);
            let body = &frame[HEADER..];
            let statement =
                statement_in(tag, body).filter(|(from, to)| !body[*from..*to].is_ascii());
            match statement
                .and_then(|(from, to)| Some((from, std::str::from_utf8(&body[from..to]).ok()?, to)))
            {
                Some((from, text, to)) => {
                    let text = self.encode(text)?;
                    put_frame(&mut out, tag, |out| {
                        out.extend_from_slice(&body[..from]);
                        out.extend_from_slice(&text);
                        out.extend_from_slice(&body[to..]);
                    });
                }
                None => out.extend_from_slice(frame),
            }
            rest = more;
        }
        out.extend_from_slice(rest);
        Ok(out.into())
    }

    /// Rewrites the texts of one report (ErrorResponse, NoticeResponse) that the router has made,
    /// from `at` to the end of `out`. What the encoding does not have is a question mark.
    pub fn encode_report(&self, out: &mut Vec<u8>, at: usize) {
        let Some(frame) = out.get(at..).filter(|frame| frame.len() > HEADER && !frame.is_ascii())
        else {
            return;
        };
        let text = String::from_utf8_lossy(&frame[HEADER..]);
        let body: Vec<u8> =
            text.chars().map(|character| self.byte(character).unwrap_or(b'?')).collect();
        let tag = frame[0];
        out.truncate(at);
        put_frame(out, tag, |out| out.extend_from_slice(&body));
    }
}

/// Where the statement of a Query or Parse stands in its body.
fn statement_in(tag: u8, body: &[u8]) -> Option<(usize, usize)> {
    let from = match tag {
        b'Q' => 0,
        b'P' => memchr::memchr(0, body)? + 1,
        _ => return None,
    };
    let length = memchr::memchr(0, &body[from..])?;
    Some((from, from + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frontend;

    fn single(name: &str) -> &'static Encoding {
        match Named::of(name) {
            Named::Single(encoding) => encoding,
            other => panic!("{name} is {other:?}"),
        }
    }

    #[test]
    fn names_are_read_as_postgres_reads_them() {
        assert_eq!(single("'iso-8859-1'").name, "LATIN1");
        assert_eq!(single("\"Windows-1252\"").name, "WIN1252");
        assert_eq!(single("latin_9").name, "LATIN9");
        for name in ["utf8", "'UTF-8'", "'''utf-8'''", "unicode", "'SQL_ASCII'"] {
            assert!(matches!(Named::of(name), Named::AsIs), "{name}");
        }
        for name in ["SJIS", "'Shift_JIS'", "euc_jp", "win950", "GB18030"] {
            assert!(matches!(Named::of(name), Named::Wide), "{name}");
        }
        for name in ["klingon", "''"] {
            assert!(matches!(Named::of(name), Named::Unknown), "{name}");
        }
        for name in ["E'LATIN1'", "'LATIN' '1'", "$$LATIN1$$"] {
            assert!(matches!(Named::of(name), Named::Unread), "{name}");
        }
    }

    #[test]
    fn every_byte_comes_back() {
        for encoding in all() {
            for byte in 0..=u8::MAX {
                if let Ok(text) = encoding.decode(&[byte]) {
                    let again = encoding.encode(&text).expect("it was decoded");
                    assert_eq!(again, [byte], "{} {byte:#04x}", encoding.name);
                }
            }
        }
    }

    #[test]
    fn statements_are_converted_and_values_are_not() {
        let latin = single("LATIN1");
        let mut client = Vec::new();
        frontend::put_parse(&mut client, b"\xe9", "SELECT '", &[0, 0, 0, 25]);
        let at = client.len() - 7;
        client.splice(at..at, *b"\xfc'");
        let body = &client[HEADER..];
        let decoded = latin.decode_message(b'P', body).expect("all bytes mean something");
        assert_eq!(frontend::parse(&decoded).expect("well formed").query, "SELECT 'ü'");
        let mut request = Vec::new();
        put_frame(&mut request, b'P', |out| out.extend_from_slice(&decoded));
        let mut value = Vec::new();
        frontend::put_bind(&mut value, b"", b"", &[0, 0, 0, 1, 0, 0, 0, 1, 0xfc], &[0, 0]);
        request.extend_from_slice(&value);
        let encoded = latin.encode_messages(&request).expect("all characters are there");
        assert_eq!(&encoded[HEADER..encoded.len() - value.len()], body);
        assert!(encoded.ends_with(&value));
    }

    #[test]
    fn what_has_no_equivalent_is_said() {
        let error = single("WIN1252").decode(b"a\x81").expect_err("it is no character");
        assert_eq!(
            error.message,
            "character with byte sequence 0x81 in encoding \"WIN1252\" has no equivalent in \
             encoding \"UTF8\""
        );
        let error = single("LATIN1").encode("\u{20ac}").expect_err("LATIN1 has no euro");
        assert_eq!(
            error.message,
            "character with byte sequence 0xe2 0x82 0xac in encoding \"UTF8\" has no equivalent in \
             encoding \"LATIN1\""
        );
    }
}
