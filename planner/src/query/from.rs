//! Items of FROM: tables, subqueries, functions, and the tree of their joins.

use super::{CLAUSES, Query, Unread, starts_query};
use crate::token::{Kind, Range, Tokens};

#[derive(Debug)]
pub(crate) enum From {
    Table {
        parts: Vec<String>,
        /// The tokens of the name.
        place: Range,
        alias: Option<String>,
        /// `AS t(a, b)`: columns are not called as the table's own.
        odd: bool,
        /// ONLY, TABLESAMPLE: not all of its rows.
        part: bool,
    },
    Subquery {
        query: Query,
        alias: Option<String>,
        lateral: bool,
    },
    /// A function, ROWS FROM, XMLTABLE, …: its tokens.
    Function {
        range: Range,
        alias: Option<String>,
    },
    Join {
        left: Box<Self>,
        right: Box<Self>,
        kind: JoinKind,
        on: JoinOn,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
}

#[derive(Debug)]
pub(crate) enum JoinOn {
    Condition(Range),
    Using(Vec<String>),
    Natural,
    Nothing,
}

/// One item of a FROM list with its joins.
pub(crate) fn read_from_item(tokens: &Tokens<'_>, range: &Range) -> Result<From, Unread> {
    let mut reader = FromReader { tokens, at: range.start, end: range.end, joins: 0 };
    let item = reader.joined()?;
    if reader.at != range.end { Err(Unread) } else { Ok(item) }
}

struct FromReader<'t, 'a> {
    tokens: &'t Tokens<'a>,
    at: usize,
    end: usize,
    joins: u32,
}

/// Joins become a tree that is walked recursively.
const JOINS_MAX: u32 = 200;

impl FromReader<'_, '_> {
    fn is(&self, word: &str) -> bool {
        self.at < self.end && self.tokens.is(self.at, word)
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.is(word);
        self.at += usize::from(found);
        found
    }

    /// `primary (JOIN primary …)*`
    fn joined(&mut self) -> Result<From, Unread> {
        let mut left = self.primary()?;
        while let Some((kind, natural, bare)) = self.join_words()? {
            let right = if natural || bare { self.primary()? } else { self.nested_right()? };
            let on = match natural {
                true => JoinOn::Natural,
                false if bare => JoinOn::Nothing,
                false => self.condition()?,
            };
            left = From::Join { left: Box::new(left), right: Box::new(right), kind, on };
        }
        Ok(left)
    }

    /// `a JOIN b JOIN c ON … ON …`: a join whose right side is a join is told by the next word.
    fn nested_right(&mut self) -> Result<From, Unread> {
        let mut right = self.primary()?;
        while !self.is("on") && !self.is("using") && self.at < self.end {
            let before = self.at;
            let Some((kind, natural, bare)) = self.join_words()? else { break };
            if natural || bare {
                // Belongs to the left: CROSS and NATURAL bind no ON.
                self.at = before;
                break;
            }
            // Only where an ON is left over afterwards is it nested; a chain of plain joins
            // always has its ON before the next JOIN.
            let inner = self.nested_right()?;
            let on = self.condition()?;
            right = From::Join { left: Box::new(right), right: Box::new(inner), kind, on };
        }
        Ok(right)
    }

    fn join_words(&mut self) -> Result<Option<(JoinKind, bool, bool)>, Unread> {
        let natural = self.eat("natural");
        let cross = self.eat("cross");
        let kind = if self.eat("inner") {
            Some(JoinKind::Inner)
        } else if self.eat("left") {
            self.eat("outer");
            Some(JoinKind::Left)
        } else if self.eat("right") {
            self.eat("outer");
            Some(JoinKind::Right)
        } else if self.eat("full") {
            self.eat("outer");
            Some(JoinKind::Full)
        } else {
            None
        };
        if self.eat("join") {
            self.joins += 1;
            if self.joins > JOINS_MAX {
                return Err(Unread);
            }
            return Ok(Some((kind.unwrap_or(JoinKind::Inner), natural, cross)));
        }
        if natural || cross || kind.is_some() { Err(Unread) } else { Ok(None) }
    }

    fn condition(&mut self) -> Result<JoinOn, Unread> {
        if self.eat("on") {
            let start = self.at;
            let stop = self
                .tokens
                .find(&(start..self.end), |t| {
                    self.tokens.is_any(t, &["join", "inner", "cross", "natural", "full", "on"])
                        // left(x, 1) and right(x, 1) are functions
                        || (self.tokens.is_any(t, &["left", "right"])
                            && self.tokens.is_any(t + 1, &["join", "outer"]))
                })
                .unwrap_or(self.end);
            self.at = stop;
            return if stop > start { Ok(JoinOn::Condition(start..stop)) } else { Err(Unread) };
        }
        if self.eat("using") {
            if self.tokens.kind(self.at) != Some(Kind::Open) {
                return Err(Unread);
            }
            let inside = self.at + 1..self.tokens.list[self.at].close;
            let columns = self
                .tokens
                .split(&inside)
                .iter()
                .map(|part| self.tokens.name(part.start).map(str::to_owned).ok_or(Unread))
                .collect::<Result<_, _>>()?;
            self.at = self.tokens.after(self.at);
            if self.is("as") {
                return Err(Unread);
            }
            return Ok(JoinOn::Using(columns));
        }
        Err(Unread)
    }

    fn primary(&mut self) -> Result<From, Unread> {
        let lateral = self.eat("lateral");
        let start = self.at;
        if start >= self.end {
            return Err(Unread);
        }
        if self.tokens.kind(start) == Some(Kind::Open) {
            let inside = start + 1..self.tokens.list[start].close;
            self.at = self.tokens.after(start);
            // `((SELECT …) UNION …)` starts a query too; `(a JOIN b ON …)` does not.
            if starts_query(self.tokens, inside.start)
                && let Ok(query) = Query::read(self.tokens, inside.clone())
            {
                let (alias, odd) = self.alias()?;
                let _ = odd;
                return Ok(From::Subquery { query, alias, lateral });
            }
            let inner = read_from_item(self.tokens, &inside)?;
            let (alias, odd) = self.alias()?;
            // An alias hides the tables inside.
            return if alias.is_some() || odd { Err(Unread) } else { Ok(inner) };
        }
        let only = self.eat("only");
        if only && self.tokens.kind(self.at) == Some(Kind::Open) {
            return Err(Unread);
        }
        let (parts, after) = self.tokens.qualified(self.at).ok_or(Unread)?;
        let parts: Vec<String> = parts.into_iter().map(str::to_owned).collect();
        let place = self.at..after;
        self.at = after;
        let is_function = self.tokens.kind(after) == Some(Kind::Open) && after < self.end
            || (self.tokens.are(start, &["rows", "from"]));
        if is_function {
            if self.tokens.are(start, &["rows", "from"]) {
                self.at = start + 2;
            }
            self.at = self.tokens.after(self.at);
            if self.eat("with") && !self.eat("ordinality") {
                return Err(Unread);
            }
            let range = start..self.at;
            let (alias, _) = self.alias()?;
            return Ok(From::Function { range, alias });
        }
        if self.at < self.end && self.tokens.sign(self.at, "*") {
            self.at += 1;
        }
        let (alias, odd) = self.alias()?;
        let mut part = only;
        if self.eat("tablesample") {
            part = true;
            self.at = self.tokens.after(self.at + 1);
            if self.eat("repeatable") {
                self.at = self.tokens.after(self.at);
            }
        }
        Ok(From::Table { parts, place, alias, odd, part })
    }

    /// `[AS] alias [(columns)]`; the flag tells of columns.
    fn alias(&mut self) -> Result<(Option<String>, bool), Unread> {
        let as_word = self.eat("as");
        let mut alias = None;
        if self.at < self.end
            && let Some(name) = self.tokens.name(self.at)
            && (as_word
                || self.tokens.kind(self.at) == Some(Kind::Quoted)
                || !CLAUSES.contains(&name))
        {
            alias = Some(name.to_owned());
            self.at += 1;
        }
        let mut odd = false;
        if self.at < self.end && self.tokens.kind(self.at) == Some(Kind::Open) {
            odd = true;
            self.at = self.tokens.after(self.at);
        }
        if as_word && alias.is_none() && !odd { Err(Unread) } else { Ok((alias, odd)) }
    }
}
