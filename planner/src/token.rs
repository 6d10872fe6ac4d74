//! A statement as a list of tokens with byte spans: what cold planning reads and splices.

use pgherd_shard_map::UserFunctions;

use crate::lex::{Lexeme, Lexer};
use crate::literal::unquote_identifier;
use crate::{Context, LiteralKind, PlanError, Span};

/// Beyond this, planning refuses what names a sharded table: nothing here is worse than linear,
/// but the parser that checks the reading is not ours.
pub(crate) const TOKENS_MAX: usize = 200_000;
pub(crate) const DEPTH_MAX: u16 = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Word,
    Quoted,
    Literal { kind: LiteralKind, index: u32 },
    Param(u16),
    Operator,
    Open,
    Close,
    Semicolon,
}

#[derive(Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Folded to lower case (words) or without quotes (quoted identifiers), else as written.
    pub(crate) text: std::borrow::Cow<'a, str>,
    /// Parentheses and brackets around it.
    pub(crate) depth: u16,
    /// Of an opening parenthesis or bracket: the number of its closing token, else its own.
    pub(crate) close: usize,
}

#[derive(Debug)]
pub(crate) struct Tokens<'a> {
    pub(crate) sql: &'a str,
    pub(crate) list: Vec<Token<'a>>,
    /// `/* pgherd: … */`, without the signs.
    pub(crate) hints: Vec<&'a str>,
    /// Every parenthesis has its other one.
    pub(crate) balanced: bool,
    pub(crate) depth: u16,
    /// What is known of functions that are not PostgreSQL's own.
    pub(crate) functions: Option<&'a UserFunctions>,
}

pub(crate) type Range = std::ops::Range<usize>;

impl<'a> Tokens<'a> {
    /// With what the map knows of the functions that are called.
    pub(crate) fn known(sql: &'a str, context: &Context<'a>) -> Self {
        Self { functions: Some(&context.map.functions), ..Self::new(sql) }
    }

    pub(crate) fn new(sql: &'a str) -> Self {
        let mut tokens = Self {
            sql,
            list: Vec::new(),
            hints: Vec::new(),
            balanced: true,
            depth: 0,
            functions: None,
        };
        let mut lexer = Lexer::new(sql.as_bytes());
        let mut open: Vec<usize> = Vec::new();
        let mut literals = 0;
        while let Some((lexeme, start, end)) = lexer.next() {
            let text = sql.get(start..end).unwrap_or_default();
            let number = tokens.list.len();
            let mut depth = open.len();
            let mut folded = std::borrow::Cow::Borrowed(text);
            let kind = match lexeme {
                Lexeme::Hint => {
                    let inner = text.trim_start_matches("/*").trim_end_matches("*/").trim();
                    tokens.hints.push(inner.strip_prefix("pgherd:").unwrap_or_default().trim());
                    continue;
                }
                Lexeme::Word => {
                    if text.bytes().any(|b| b.is_ascii_uppercase()) {
                        folded = text.to_ascii_lowercase().into();
                    }
                    Kind::Word
                }
                Lexeme::Quoted => {
                    if let Some(name) = unquote_identifier(text) {
                        folded = name.into();
                    }
                    Kind::Quoted
                }
                Lexeme::Literal(kind) => {
                    literals += 1;
                    Kind::Literal { kind, index: literals - 1 }
                }
                Lexeme::Param(n) => Kind::Param(n),
                Lexeme::Operator if text == "[" => {
                    open.push(number);
                    Kind::Operator
                }
                Lexeme::Operator if text == "]" => {
                    tokens.close(&mut open, number, "[");
                    depth = open.len();
                    Kind::Operator
                }
                Lexeme::Operator => Kind::Operator,
                Lexeme::Open => {
                    open.push(number);
                    Kind::Open
                }
                Lexeme::Close => {
                    tokens.close(&mut open, number, "(");
                    depth = open.len();
                    Kind::Close
                }
                Lexeme::Semicolon => Kind::Semicolon,
            };
            let depth = u16::try_from(depth).unwrap_or(u16::MAX);
            tokens.depth = tokens.depth.max(depth);
            tokens.list.push(Token { kind, start, end, text: folded, depth, close: number });
        }
        tokens.balanced &= open.is_empty();
        // `scan` cuts at the semicolon and may leave it on.
        while tokens.list.last().is_some_and(|t| t.kind == Kind::Semicolon) {
            tokens.list.pop();
        }
        tokens
    }

    fn close(&mut self, open: &mut Vec<usize>, number: usize, sign: &str) {
        match open.pop() {
            Some(at) if self.list[at].text == sign => self.list[at].close = number,
            _ => self.balanced = false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn all(&self) -> Range {
        0..self.list.len()
    }

    pub(crate) fn kind(&self, at: usize) -> Option<Kind> {
        self.list.get(at).map(|t| t.kind)
    }

    /// The word here is this one (in lower case), unquoted.
    pub(crate) fn is(&self, at: usize, word: &str) -> bool {
        self.list.get(at).is_some_and(|t| t.kind == Kind::Word && t.text == word)
    }

    pub(crate) fn is_any(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    pub(crate) fn are(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| self.is(at + i, word))
    }

    /// The operator or sign here is this one.
    pub(crate) fn sign(&self, at: usize, sign: &str) -> bool {
        self.list.get(at).is_some_and(|t| {
            matches!(t.kind, Kind::Operator | Kind::Open | Kind::Close) && t.text == sign
        })
    }

    /// The unquoted word here, in lower case.
    pub(crate) fn word(&self, at: usize) -> Option<&str> {
        self.list.get(at).filter(|t| t.kind == Kind::Word).map(|t| &*t.text)
    }

    /// The name here: an unquoted word in lower case or a quoted one as it is.
    pub(crate) fn name(&self, at: usize) -> Option<&str> {
        self.list.get(at).filter(|t| matches!(t.kind, Kind::Word | Kind::Quoted)).map(|t| &*t.text)
    }

    /// `a.b.c` from here: its parts, and the token after it.
    pub(crate) fn qualified(&self, mut at: usize) -> Option<(Vec<&str>, usize)> {
        let mut parts = vec![self.name(at)?];
        at += 1;
        while self.sign(at, ".")
            && let Some(name) = self.name(at + 1)
        {
            parts.push(name);
            at += 2;
        }
        Some((parts, at))
    }

    /// The text of some tokens, as written.
    pub(crate) fn text(&self, range: &Range) -> &'a str {
        let span = self.bytes(range);
        self.sql.get(span.start..span.end).unwrap_or_default()
    }

    pub(crate) fn bytes(&self, range: &Range) -> std::ops::Range<usize> {
        if range.is_empty() {
            let at = self.list.get(range.start).map_or(self.sql.len(), |t| t.start);
            return at..at;
        }
        self.list[range.start].start..self.list[range.end - 1].end
    }

    pub(crate) fn span(&self, range: &Range) -> Span {
        let bytes = self.bytes(range);
        Span { start: bytes.start as u32, end: bytes.end as u32 }
    }

    /// The first token in `range` outside inner parentheses for which `wanted` holds.
    pub(crate) fn find(&self, range: &Range, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        let mut at = range.start;
        while at < range.end {
            if wanted(at) {
                return Some(at);
            }
            at = self.after(at);
        }
        None
    }

    /// The token after this one, or after its closing parenthesis.
    pub(crate) fn after(&self, at: usize) -> usize {
        self.list.get(at).map_or(at + 1, |t| t.close + 1)
    }

    /// `range` cut at commas outside inner parentheses.
    pub(crate) fn split(&self, range: &Range) -> Vec<Range> {
        let mut parts = Vec::new();
        let mut start = range.start;
        let mut at = range.start;
        while at < range.end {
            if self.sign(at, ",") {
                parts.push(start..at);
                start = at + 1;
            }
            at = self.after(at);
        }
        parts.push(start..range.end);
        parts
    }

    /// Without parentheses around the whole.
    pub(crate) fn strip_parens(&self, range: &Range) -> Range {
        let mut range = range.clone();
        while range.len() >= 2
            && self.kind(range.start) == Some(Kind::Open)
            && self.list[range.start].close == range.end - 1
        {
            range = range.start + 1..range.end - 1;
        }
        range
    }

    /// The same tokens, whatever white space and literals' positions.
    pub(crate) fn same(&self, a: &Range, b: &Range) -> bool {
        let alike = |x: &Token<'_>, y: &Token<'_>| {
            let quoted = |t: &Token<'_>| matches!(t.kind, Kind::Word | Kind::Quoted);
            (std::mem::discriminant(&x.kind) == std::mem::discriminant(&y.kind)
                || (quoted(x) && quoted(y)))
                && x.text == y.text
        };
        a.len() == b.len()
            && self.list[a.clone()].iter().zip(&self.list[b.clone()]).all(|(x, y)| alike(x, y))
    }

    /// For statements whose inside must be understood.
    pub(crate) fn check_limits(&self) -> Result<(), PlanError> {
        if self.list.len() > TOKENS_MAX || self.depth > DEPTH_MAX {
            return Err(PlanError::new("54001", "the statement is too complex to be planned")
                .with_detail(format!(
                    "At most {TOKENS_MAX} tokens and {DEPTH_MAX} levels of parentheses are read."
                ))
                .with_hint("Split the statement, or pass long lists as an array parameter."));
        }
        if !self.balanced {
            return Err(PlanError::new("42601", "syntax error: parentheses do not match"));
        }
        Ok(())
    }
}
