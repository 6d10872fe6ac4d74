//! One pass over a statement's bytes: where it ends, its literals, and its fingerprint.
//!
//! The hot path of the simple protocol is this function and one lookup, so it allocates nothing
//! once its buffers have grown. The fingerprint is a 128-bit xxh3 over the statement with
//! literals replaced by their kind, unquoted words folded to lower case, comments and white space
//! reduced to nothing (hints `/* pgherd: … */` kept).

use crate::lex::{Lexeme, Lexer};

/// What one [`scan`](crate::scan()) found. Reused from statement to statement.
#[derive(Debug, Default)]
pub struct Scan {
    /// Equal for statements that differ in literals, case of words, comments and white space only.
    pub fingerprint: u128,
    /// The literals in order, offsets counted from the statement's first byte.
    pub literals: Vec<Literal>,
    /// The highest `$n`.
    pub params: u16,
    normalized: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Literal {
    pub start: u32,
    pub end: u32,
    pub kind: LiteralKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiteralKind {
    /// Digits only.
    Integer,
    /// With a point or an exponent.
    Decimal,
    /// `'…'` without a backslash or with it as a plain character.
    String,
    /// `E'…'`.
    EscapeString,
    /// `$tag$…$tag$`.
    DollarString,
    /// `B'…'`, `X'…'`, `U&'…'`, `N'…'`.
    OtherString,
}

impl Scan {
    /// Nothing but white space and comments.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.normalized.is_empty()
    }
}

pub(crate) fn scan(sql: &[u8], from: usize, seed: u64, out: &mut Scan) -> usize {
    out.literals.clear();
    out.normalized.clear();
    out.params = 0;
    let from = from.min(sql.len());
    let text = &sql[from..];
    let mut lexer = Lexer::new(text);
    let mut split = Splitter::default();
    let mut next = text.len();
    while let Some((lexeme, start, end)) = lexer.next() {
        let bytes = &text[start..end];
        match lexeme {
            Lexeme::Literal(kind) => {
                out.literals.push(Literal { start: start as u32, end: end as u32, kind });
                // Bytes that no text in UTF-8 can hold, so that nothing else looks like them.
                out.normalized.push(0xF8 + kind as u8);
            }
            Lexeme::Word => {
                let at = out.normalized.len();
                out.normalized.extend_from_slice(bytes);
                out.normalized[at..].make_ascii_lowercase();
                split.word(&out.normalized[at..]);
            }
            Lexeme::Param(number) => {
                out.params = out.params.max(number);
                out.normalized.extend_from_slice(bytes);
            }
            Lexeme::Semicolon if split.ends_here() => {
                next = end;
                break;
            }
            Lexeme::Open => {
                split.depth += 1;
                out.normalized.push(b'(');
            }
            Lexeme::Close => {
                split.depth = split.depth.saturating_sub(1);
                out.normalized.push(b')');
            }
            Lexeme::Quoted | Lexeme::Operator | Lexeme::Semicolon | Lexeme::Hint => {
                out.normalized.extend_from_slice(bytes);
            }
        }
        out.normalized.push(b' ');
    }
    out.fingerprint = xxhash_rust::xxh3::xxh3_128_with_seed(&out.normalized, seed);
    from + next
}

pub(crate) fn parameters(sql: &[u8]) -> std::collections::BTreeSet<u16> {
    let mut lexer = Lexer::new(sql);
    let mut found = std::collections::BTreeSet::new();
    while let Some((lexeme, ..)) = lexer.next() {
        if let Lexeme::Param(number) = lexeme {
            found.insert(number);
        }
    }
    found
}

/// The text with something else in the place of each of its parameters.
pub(crate) fn with_parameters(sql: &str, value: impl Fn(u16) -> String) -> String {
    let mut lexer = Lexer::new(sql.as_bytes());
    let mut text = String::with_capacity(sql.len());
    let mut copied = 0;
    while let Some((lexeme, start, end)) = lexer.next() {
        if let Lexeme::Param(number) = lexeme {
            text.push_str(&sql[copied..start]);
            text.push_str(&value(number));
            copied = end;
        }
    }
    text.push_str(&sql[copied..]);
    text
}

/// Tells a statement's semicolon from those inside: rule actions in parentheses, and SQL-standard
/// routine bodies (`CREATE FUNCTION … BEGIN ATOMIC …; … END`).
#[derive(Default)]
struct Splitter {
    depth: u32,
    words: u32,
    create: bool,
    routine: bool,
    body: u32,
}

impl Splitter {
    #[inline]
    fn word(&mut self, word: &[u8]) {
        if self.words == 0 {
            self.create = word == b"create";
        }
        self.words += 1;
        if self.create {
            self.inside_create(word);
        }
    }

    #[cold]
    fn inside_create(&mut self, word: &[u8]) {
        if !self.routine {
            // CREATE [OR REPLACE] FUNCTION | PROCEDURE
            self.routine =
                self.words <= 4 && (word == b"function" || word == b"procedure") && self.depth == 0;
            return;
        }
        match word {
            b"begin" => self.body += 1,
            b"case" if self.body > 0 => self.body += 1,
            b"end" => self.body = self.body.saturating_sub(1),
            _ => {}
        }
    }

    fn ends_here(&self) -> bool {
        self.depth == 0 && self.body == 0
    }
}
