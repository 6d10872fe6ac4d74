//! PostgreSQL's lexical rules over bytes: the next lexeme, without allocating and without failing.
//!
//! Assumes `standard_conforming_strings = on` (the router refuses to switch it off). What is not
//! well formed (an open quote or comment) runs to the end of the text: PostgreSQL will refuse it.

use memchr::{memchr, memchr2};

use crate::LiteralKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lexeme {
    Word,
    /// `"…"` or `U&"…"`.
    Quoted,
    Literal(LiteralKind),
    Param(u16),
    /// An operator or any other sign; several characters where PostgreSQL takes them as one.
    Operator,
    Open,
    Close,
    Semicolon,
    /// `/* pgherd: … */`
    Hint,
}

pub(crate) struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(sql: &'a [u8]) -> Self {
        Self { sql, at: 0 }
    }

    fn peek(&self, offset: usize) -> u8 {
        self.sql.get(self.at + offset).copied().unwrap_or(0)
    }

    /// The lexeme with its first byte and the one after its last.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<(Lexeme, usize, usize)> {
        loop {
            let start = self.at;
            let byte = *self.sql.get(start)?;
            let lexeme = match byte {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C => {
                    self.at += 1;
                    continue;
                }
                b'-' if self.peek(1) == b'-' => {
                    self.line_comment();
                    continue;
                }
                b'/' if self.peek(1) == b'*' => {
                    self.block_comment();
                    if !is_hint(&self.sql[start..self.at]) {
                        continue;
                    }
                    Lexeme::Hint
                }
                b'\'' => {
                    self.quoted(b'\'', 0);
                    Lexeme::Literal(LiteralKind::String)
                }
                b'"' => {
                    self.quoted(b'"', 0);
                    Lexeme::Quoted
                }
                b'$' => self.dollar(),
                b'0'..=b'9' => Lexeme::Literal(self.number()),
                b'.' if self.peek(1).is_ascii_digit() => Lexeme::Literal(self.number()),
                b'(' => self.one(Lexeme::Open),
                b')' => self.one(Lexeme::Close),
                b';' => self.one(Lexeme::Semicolon),
                b':' => {
                    self.at += if matches!(self.peek(1), b':' | b'=') { 2 } else { 1 };
                    Lexeme::Operator
                }
                _ if is_word_start(byte) => self.word(byte),
                _ if is_operator(byte) => self.operator(),
                _ => self.one(Lexeme::Operator),
            };
            return Some((lexeme, start, self.at));
        }
    }

    fn one(&mut self, lexeme: Lexeme) -> Lexeme {
        self.at += 1;
        lexeme
    }

    fn line_comment(&mut self) {
        let rest = &self.sql[self.at..];
        self.at += memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
    }

    fn block_comment(&mut self) {
        let mut depth = 1_u32;
        self.at += 2;
        while depth > 0 && self.at < self.sql.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        self.at = self.at.min(self.sql.len());
    }

    /// From the opening quote, `skip` bytes ahead, to after the closing one.
    fn quoted(&mut self, quote: u8, skip: usize) {
        self.at = (self.at + skip + 1).min(self.sql.len());
        loop {
            let Some(found) = memchr(quote, &self.sql[self.at..]) else {
                self.at = self.sql.len();
                return;
            };
            self.at += found + 1;
            if self.peek(0) != quote {
                return;
            }
            self.at += 1;
        }
    }

    /// `E'…'`, with its continuations on later lines: they keep the escapes, so `'b\'c'` there is
    /// not what it would be on its own.
    fn escape_string(&mut self) {
        self.at += 2;
        loop {
            match memchr2(b'\'', b'\\', &self.sql[self.at.min(self.sql.len())..]) {
                None => {
                    self.at = self.sql.len();
                    return;
                }
                Some(found) => self.at += found,
            }
            if self.peek(0) == b'\\' || self.peek(1) == b'\'' {
                self.at = (self.at + 2).min(self.sql.len());
                continue;
            }
            self.at += 1;
            let Some(next) = self.continuation() else { return };
            self.at = next;
        }
    }

    /// Where a string goes on: white space with a line break (comments to the line's end count),
    /// then a quote.
    fn continuation(&self) -> Option<usize> {
        let mut at = self.at;
        let mut line_break = false;
        loop {
            match self.sql.get(at)? {
                b'\n' | b'\r' => line_break = true,
                b' ' | b'\t' | 0x0B | 0x0C => {}
                b'-' if self.sql.get(at + 1) == Some(&b'-') => {
                    at += memchr2(b'\n', b'\r', &self.sql[at..])?;
                    continue;
                }
                b'\'' if line_break => return Some(at + 1),
                _ => return None,
            }
            at += 1;
        }
    }

    fn dollar(&mut self) -> Lexeme {
        let rest = &self.sql[self.at..];
        let digits = rest[1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits > 0 {
            let number = rest[1..=digits].iter().try_fold(0_u16, |n, digit| {
                n.checked_mul(10)?.checked_add(u16::from(digit - b'0'))
            });
            self.at += 1 + digits;
            return number.map_or(Lexeme::Operator, Lexeme::Param);
        }
        let tag = rest[1..].iter().take_while(|b| is_word_part(**b) && **b != b'$').count();
        if rest.get(1 + tag) != Some(&b'$') {
            return self.one(Lexeme::Operator);
        }
        let mark = &rest[..tag + 2];
        let body = &rest[mark.len()..];
        let length = memchr::memmem::find(body, mark).map_or(body.len(), |end| end + mark.len());
        self.at += mark.len() + length;
        Lexeme::Literal(LiteralKind::DollarString)
    }

    fn number(&mut self) -> LiteralKind {
        let mut kind = LiteralKind::Integer;
        loop {
            match self.peek(0) {
                b'0'..=b'9' => {}
                b'.' if self.peek(1) != b'.' && kind == LiteralKind::Integer => {
                    kind = LiteralKind::Decimal;
                }
                b'e' | b'E' if matches!(self.peek(1), b'+' | b'-') => {
                    kind = LiteralKind::Decimal;
                    self.at += 1;
                }
                // 1e5, 0xFF, 1_000: not digits only.
                byte if is_word_part(byte) && byte != b'$' => kind = LiteralKind::Decimal,
                _ => return kind,
            }
            self.at += 1;
        }
    }

    #[inline]
    fn word(&mut self, first: u8) -> Lexeme {
        match (first, self.peek(1)) {
            (b'e' | b'E', b'\'') => {
                self.escape_string();
                return Lexeme::Literal(LiteralKind::EscapeString);
            }
            (b'b' | b'B' | b'x' | b'X' | b'n' | b'N', b'\'') => {
                self.quoted(b'\'', 1);
                return Lexeme::Literal(LiteralKind::OtherString);
            }
            (b'u' | b'U', b'&') if self.peek(2) == b'\'' => {
                self.quoted(b'\'', 2);
                return Lexeme::Literal(LiteralKind::OtherString);
            }
            (b'u' | b'U', b'&') if self.peek(2) == b'"' => {
                self.quoted(b'"', 2);
                return Lexeme::Quoted;
            }
            _ => {}
        }
        let rest = &self.sql[self.at..];
        self.at += rest.iter().position(|b| !is_word_part(*b)).unwrap_or(rest.len());
        Lexeme::Word
    }

    /// A run of operator characters, cut where a comment starts; as in PostgreSQL, one of several
    /// characters ends in a sign only if it holds a character that standard SQL does not use
    /// (so `=-1` is `=` and `-`).
    fn operator(&mut self) -> Lexeme {
        let rest = &self.sql[self.at..];
        let mut length = rest.iter().position(|b| !is_operator(*b)).unwrap_or(rest.len());
        if let Some(cut) = rest[..length].windows(2).position(|w| w == b"--" || w == b"/*") {
            length = cut.max(1);
        }
        let extended = |op: &[u8]| op.iter().any(|b| b"~!@#%^&|`?".contains(b));
        while length > 1 && matches!(rest[length - 1], b'+' | b'-') && !extended(&rest[..length]) {
            length -= 1;
        }
        self.at += length;
        Lexeme::Operator
    }
}

fn is_hint(comment: &[u8]) -> bool {
    comment.get(2..).is_some_and(|text| text.trim_ascii_start().starts_with(b"pgherd:"))
}

#[inline]
fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

#[inline]
fn is_word_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[inline]
fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'+' | b'-'
            | b'*'
            | b'/'
            | b'<'
            | b'>'
            | b'='
            | b'~'
            | b'!'
            | b'@'
            | b'#'
            | b'%'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
    )
}
