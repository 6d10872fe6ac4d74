//! Tokens → the clauses of a SELECT: where each begins and ends, its FROM items, its subqueries.
//!
//! Only structure, no meaning: expressions stay ranges of tokens. Whatever does not fit is
//! [`Unread`], and the statement is refused if it names a sharded table.

mod from;

pub(crate) use from::{From, JoinKind, JoinOn, read_from_item};

use crate::token::{Kind, Range, Tokens};

/// The statement's clauses could not be told apart with certainty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread;

#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) ctes: Vec<Cte>,
    pub(crate) recursive: bool,
    pub(crate) body: Vec<Body>,
    pub(crate) order: Vec<Range>,
    /// From ORDER BY, LIMIT, … (whichever is first) to the end.
    pub(crate) tail: Range,
    pub(crate) limit: Option<Range>,
    pub(crate) offset: Option<Range>,
    pub(crate) with_ties: bool,
    pub(crate) locks: Option<Range>,
}

#[derive(Debug)]
pub(crate) struct Cte {
    pub(crate) name: String,
    /// The token of its name.
    pub(crate) start: usize,
    /// `None`: INSERT, UPDATE, DELETE or MERGE.
    pub(crate) query: Option<Query>,
    pub(crate) range: Range,
}

/// One operand of a set operation (or the only one).
#[derive(Debug)]
pub(crate) enum Body {
    Select(Box<Select>),
    Values(Range),
    Nested(Query),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distinct {
    No,
    Yes,
    On,
}

#[derive(Debug)]
pub(crate) struct Select {
    pub(crate) distinct: Distinct,
    /// What stands in the parentheses of DISTINCT ON.
    pub(crate) on: Range,
    pub(crate) items: Vec<Range>,
    pub(crate) into: bool,
    /// The FROM clause with its word, empty where there is none.
    pub(crate) from_range: Range,
    pub(crate) from: Vec<From>,
    pub(crate) filter: Option<Range>,
    pub(crate) group: Option<Vec<Range>>,
    pub(crate) having: Option<Range>,
    /// Behind WINDOW.
    pub(crate) window: Option<Range>,
}

/// Words that end a FROM item, an alias or an expression: none of them can be an alias without AS.
const CLAUSES: &[&str] = &[
    "from",
    "where",
    "group",
    "having",
    "window",
    "union",
    "intersect",
    "except",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "into",
    "returning",
    "on",
    "using",
    "join",
    "inner",
    "left",
    "right",
    "full",
    "cross",
    "natural",
    "set",
    "tablesample",
    "when",
    "values",
];

/// A keyword in its role, not a label or a column of that name (`AS "from"`, `t.order`).
pub(crate) fn keyword(tokens: &Tokens<'_>, at: usize, word: &str) -> bool {
    tokens.is(at, word) && !(at > 0 && (tokens.sign(at - 1, ".") || tokens.is(at - 1, "as")))
}

fn any_keyword(tokens: &Tokens<'_>, at: usize, words: &[&str]) -> bool {
    words.iter().any(|word| keyword(tokens, at, word))
}

/// A WITH query may hide a table of this name.
pub(crate) fn may_be_cte(tokens: &Tokens<'_>, name: &str) -> bool {
    tokens.all().any(|at| {
        at > 0
            && tokens.name(at) == Some(name)
            && (tokens.is_any(at - 1, &["with", "recursive"]) || tokens.sign(at - 1, ","))
            && (tokens.is(at + 1, "as") || tokens.kind(at + 1) == Some(Kind::Open))
    })
}

/// `FETCH FIRST … ROWS WITH TIES` and its kin, wherever they stand.
pub(crate) fn fetches(tokens: &Tokens<'_>) -> Vec<Range> {
    let end = |at: usize| {
        let rows = tokens.find(&(at..tokens.len()), |at| tokens.is_any(at, &["row", "rows"]))?;
        match (tokens.is(rows + 1, "only"), tokens.are(rows + 1, &["with", "ties"])) {
            (true, _) => Some(rows + 2),
            (_, true) => Some(rows + 3),
            _ => None,
        }
    };
    let starts =
        |at: &usize| keyword(tokens, *at, "fetch") && tokens.is_any(at + 1, &["first", "next"]);
    tokens.all().filter(starts).filter_map(|at| Some(at..end(at)?)).collect()
}

pub(crate) fn starts_query(tokens: &Tokens<'_>, at: usize) -> bool {
    let mut at = at;
    while tokens.kind(at) == Some(Kind::Open) {
        at += 1;
    }
    tokens.is_any(at, &["select", "with", "values", "table"])
        // `table` and `values` are names only where quoted; `with` cannot start an expression.
        && !tokens.sign(at + 1, ".")
}

/// `FROM` that starts the clause, not that of `IS DISTINCT FROM` and of `ROWS FROM (function(), …)`.
fn is_from(tokens: &Tokens<'_>, at: usize) -> bool {
    let functions = at > 1
        && tokens.is(at - 1, "rows")
        && (tokens.is_any(at - 2, &["from", "join", "lateral"]) || tokens.sign(at - 2, ","))
        && tokens.kind(at + 1) == Some(Kind::Open)
        && !starts_query(tokens, at + 2);
    keyword(tokens, at, "from") && !functions && !(at > 0 && tokens.is(at - 1, "distinct"))
}

impl Query {
    pub(crate) fn read(tokens: &Tokens<'_>, range: Range) -> Result<Self, Unread> {
        let mut at = range.start;
        let mut ctes = Vec::new();
        let mut recursive = false;
        if tokens.is(at, "with") {
            (ctes, recursive, at) = read_ctes(tokens, at)?;
        }
        let tail_at = tail_start(tokens, &(at..range.end));
        let body = read_set(tokens, at..tail_at)?;
        let mut query = Self {
            ctes,
            recursive,
            body,
            order: Vec::new(),
            tail: tail_at..range.end,
            limit: None,
            offset: None,
            with_ties: false,
            locks: None,
        };
        query.read_tail(tokens)?;
        Ok(query)
    }

    fn read_tail(&mut self, tokens: &Tokens<'_>) -> Result<(), Unread> {
        let end = self.tail.end;
        let mut at = self.tail.start;
        while at < end {
            let start = at;
            let stop = tokens
                .find(&(at + 1..end), |t| {
                    any_keyword(tokens, t, &["order", "limit", "offset", "fetch", "for"])
                })
                .unwrap_or(end);
            let once = |slot: &Option<Range>| if slot.is_some() { Err(Unread) } else { Ok(()) };
            match tokens.word(start) {
                Some("order") if tokens.is(start + 1, "by") && self.order.is_empty() => {
                    self.order = tokens.split(&(start + 2..stop));
                }
                Some("limit") => {
                    once(&self.limit)?;
                    self.limit = Some(start + 1..stop);
                }
                Some("offset") => {
                    once(&self.offset)?;
                    let rows = usize::from(tokens.is_any(stop - 1, &["row", "rows"]));
                    self.offset = Some(start + 1..stop - rows);
                }
                Some("fetch") => {
                    once(&self.limit)?;
                    // FETCH FIRST|NEXT [n] ROW|ROWS ONLY|WITH TIES
                    let rows = tokens
                        .find(&(start..stop), |t| tokens.is_any(t, &["row", "rows"]))
                        .ok_or(Unread)?;
                    self.with_ties = tokens.is(rows + 1, "with");
                    self.limit = Some(start + 2..rows);
                }
                Some("for") => {
                    let first = self.locks.as_ref().map_or(start, |locks| locks.start);
                    self.locks = Some(first..stop);
                }
                _ => return Err(Unread),
            }
            at = stop;
        }
        Ok(())
    }

    /// The only block, if there is no set operation.
    pub(crate) fn only_select(&self) -> Option<&Select> {
        match self.body.as_slice() {
            [Body::Select(select)] => Some(select),
            _ => None,
        }
    }
}

/// The WITH queries, whether they are RECURSIVE, and where the statement goes on.
pub(crate) fn read_ctes(
    tokens: &Tokens<'_>,
    with: usize,
) -> Result<(Vec<Cte>, bool, usize), Unread> {
    let mut at = with + 1;
    let recursive = tokens.is(at, "recursive");
    at += usize::from(recursive);
    let mut ctes = Vec::new();
    loop {
        let name = tokens.name(at).ok_or(Unread)?.to_owned();
        let start = at;
        at += 1;
        if tokens.kind(at) == Some(Kind::Open) {
            at = tokens.after(at);
        }
        if !tokens.is(at, "as") {
            return Err(Unread);
        }
        at += 1;
        if tokens.is(at, "not") {
            at += 1;
        }
        if tokens.is(at, "materialized") {
            at += 1;
        }
        if tokens.kind(at) != Some(Kind::Open) {
            return Err(Unread);
        }
        let range = at + 1..tokens.list[at].close;
        let query = match starts_query(tokens, range.start) {
            true => Some(Query::read(tokens, range.clone())?),
            false => None,
        };
        ctes.push(Cte { name, start, query, range });
        at = tokens.after(at);
        at = after_walk(tokens, at).ok_or(Unread)?;
        if !tokens.sign(at, ",") {
            return Ok((ctes, recursive, at));
        }
        at += 1;
    }
}

/// What follows SEARCH and CYCLE of a recursive query that may stand here; `None`: they are not whole.
pub(crate) fn after_walk(tokens: &Tokens<'_>, mut at: usize) -> Option<usize> {
    let names = |mut at: usize| {
        tokens.name(at)?;
        while tokens.sign(at + 1, ",") {
            tokens.name(at + 2)?;
            at += 2;
        }
        Some(at + 1)
    };
    if tokens.is(at, "search") {
        let orders = tokens.is_any(at + 1, &["depth", "breadth"]);
        let set = names(at + 4).filter(|_| orders && tokens.are(at + 2, &["first", "by"]))?;
        tokens.name(set + 1).filter(|_| tokens.is(set, "set"))?;
        at = set + 2;
    }
    if tokens.is(at, "cycle") {
        let set = names(at + 1)?;
        tokens.name(set + 1).filter(|_| tokens.is(set, "set"))?;
        let using = (set + 2..tokens.len()).take(16).find(|at| tokens.is(*at, "using"))?;
        tokens.name(using + 1)?;
        at = using + 2;
    }
    Some(at)
}

fn tail_start(tokens: &Tokens<'_>, range: &Range) -> usize {
    tokens
        .find(range, |at| {
            (keyword(tokens, at, "order") && tokens.is(at + 1, "by"))
                || any_keyword(tokens, at, &["limit", "offset", "fetch"])
                || (keyword(tokens, at, "for")
                    && tokens.is_any(at + 1, &["update", "share", "no", "key"]))
        })
        .unwrap_or(range.end)
}

fn read_set(tokens: &Tokens<'_>, range: Range) -> Result<Vec<Body>, Unread> {
    let mut bodies = Vec::new();
    let mut start = range.start;
    loop {
        let operator = tokens.find(&(start..range.end), |at| {
            any_keyword(tokens, at, &["union", "intersect", "except"])
        });
        bodies.push(read_operand(tokens, start..operator.unwrap_or(range.end))?);
        let Some(at) = operator else { return Ok(bodies) };
        start = at + 1 + usize::from(tokens.is_any(at + 1, &["all", "distinct"]));
    }
}

fn read_operand(tokens: &Tokens<'_>, range: Range) -> Result<Body, Unread> {
    match tokens.word(range.start) {
        Some("select") => Ok(Body::Select(Box::new(Select::read(tokens, range)?))),
        Some("values") => Ok(Body::Values(range)),
        // TABLE t is SELECT * FROM t.
        Some("table") => Ok(Body::Select(Box::new(Select {
            distinct: Distinct::No,
            on: range.start..range.start,
            items: Vec::new(),
            into: false,
            from: vec![read_from_item(tokens, &(range.start + 1..range.end))?],
            from_range: range,
            filter: None,
            group: None,
            having: None,
            window: None,
        }))),
        _ => {
            let inner = tokens.strip_parens(&range);
            if inner == range || range.is_empty() {
                return Err(Unread);
            }
            Ok(Body::Nested(Query::read(tokens, range.start + 1..range.end - 1)?))
        }
    }
}

impl Select {
    fn read(tokens: &Tokens<'_>, range: Range) -> Result<Self, Unread> {
        let end = range.end;
        let mut at = range.start + 1;
        let mut distinct = Distinct::No;
        let mut on = at..at;
        if tokens.is(at, "all") {
            at += 1;
        } else if tokens.is(at, "distinct") {
            at += 1;
            distinct = Distinct::Yes;
            if tokens.is(at, "on") && tokens.kind(at + 1) == Some(Kind::Open) {
                distinct = Distinct::On;
                on = at + 2..tokens.list[at + 1].close;
                at = tokens.after(at + 1);
            }
        }
        let starts = |t: usize| {
            is_from(tokens, t)
                || any_keyword(tokens, t, &["where", "having", "window", "into"])
                || (keyword(tokens, t, "group") && tokens.is(t + 1, "by"))
        };
        let next = |from: usize| tokens.find(&(from..end), starts).unwrap_or(end);
        let list_end = next(at);
        let items = if list_end > at { tokens.split(&(at..list_end)) } else { Vec::new() };
        let mut select = Self {
            distinct,
            on,
            items,
            into: false,
            from_range: list_end..list_end,
            from: Vec::new(),
            filter: None,
            group: None,
            having: None,
            window: None,
        };
        let mut rank = 0;
        at = list_end;
        while at < end {
            let stop = next(at + 1);
            let this = match tokens.word(at) {
                Some("into") => {
                    select.into = true;
                    1
                }
                Some("from") => {
                    select.from_range = at..stop;
                    for part in tokens.split(&(at + 1..stop)) {
                        select.from.push(read_from_item(tokens, &part)?);
                    }
                    2
                }
                Some("where") => {
                    select.filter = Some(at + 1..stop);
                    3
                }
                Some("group") => {
                    select.group = Some(tokens.split(&(at + 2..stop)));
                    4
                }
                Some("having") => {
                    select.having = Some(at + 1..stop);
                    5
                }
                Some("window") => {
                    select.window = Some(at + 1..stop);
                    6
                }
                _ => return Err(Unread),
            };
            // Clauses come once and in order, or one of them was something else.
            if this <= rank || stop == at + 1 {
                return Err(Unread);
            }
            rank = this;
            at = stop;
        }
        Ok(select)
    }
}
