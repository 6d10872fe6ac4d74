//! What can be asked of one table's rows before they are copied: conditions that these alone decide.
//!
//! They are those of WHERE, and of the joins that leave out a row for which they do not hold. On the
//! side of an outer join that is filled with NULLs, that is its own ON and no more.

use crate::Context;
use crate::analyze::{Use, split_and};
use crate::functions::{self, Nature};
use crate::query::{Body, From, JoinKind, JoinOn, Query, Select, may_be_cte, starts_query};
use crate::token::{Kind, Range, Tokens};

use super::called;

/// The conditions that rows of this use of a table must pass, where they stand: those without
/// parameters, and those with.
pub(super) fn of(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    used: &Use,
) -> (Vec<Range>, Vec<Range>) {
    let all = read(tokens, context, used).unwrap_or_default();
    all.into_iter().partition(|part| parameters(tokens, part).next().is_none())
}

/// The parameters that an expression names.
pub(super) fn parameters<'a>(
    tokens: &'a Tokens<'_>,
    part: &Range,
) -> impl Iterator<Item = u16> + use<'a> {
    part.clone().filter_map(|at| match tokens.kind(at) {
        Some(Kind::Param(number)) => Some(number),
        _ => None,
    })
}

fn read(tokens: &Tokens<'_>, context: &Context<'_>, used: &Use) -> Option<Vec<Range>> {
    let place = used.place.as_ref()?;
    let select = &block(tokens, place)?;
    let filter = Filter { tokens, context, used, place };
    let mut items = Vec::new();
    let mut conditions = Vec::new();
    for item in &select.from {
        filter.items(item, &mut items);
        if filter.reach(item, &mut conditions) == Some(true) {
            conditions.extend(select.filter.iter());
        }
    }
    let name = called(used);
    if items.iter().filter(|item| item.name == Some(name)).count() != 1 {
        return None;
    }
    let parts = conditions.into_iter().flat_map(|condition| split_and(tokens, condition));
    Some(parts.filter(|part| filter.decides(part, &items)).collect())
}

/// The innermost query in parentheses, or the statement itself.
fn query_around(tokens: &Tokens<'_>, place: &Range) -> Option<Query> {
    let around = (0..place.start).rev().find(|at| {
        tokens.kind(*at) == Some(Kind::Open)
            && tokens.list[*at].close > place.start
            && tokens.kind(at + 1) != Some(Kind::Open)
            && starts_query(tokens, at + 1)
    });
    let range = match around {
        Some(open) => open + 1..tokens.list[open].close,
        None => tokens.strip_parens(&tokens.all()),
    };
    Query::read(tokens, range).ok()
}

/// The innermost block in whose FROM the place is.
pub(super) fn block(tokens: &Tokens<'_>, place: &Range) -> Option<Box<Select>> {
    query_around(tokens, place)?.body.into_iter().find_map(|body| match body {
        Body::Select(select) if select.from_range.contains(&place.start) => Some(select),
        _ => None,
    })
}

struct Filter<'a> {
    tokens: &'a Tokens<'a>,
    context: &'a Context<'a>,
    used: &'a Use,
    place: &'a Range,
}

/// Something in FROM.
struct Named<'q> {
    name: Option<&'q str>,
    /// `None`: they are not known.
    columns: Option<Vec<Box<str>>>,
}

impl Filter<'_> {
    fn items<'q>(&self, from: &'q From, out: &mut Vec<Named<'q>>) {
        match from {
            From::Table { parts, alias, odd, .. } => {
                let name = alias.as_deref().or_else(|| parts.last().map(String::as_str));
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                let hidden = matches!(&*parts, [name] if may_be_cte(self.tokens, name));
                let known = !odd && !hidden;
                let table = if known { self.context.spread(&parts) } else { None };
                let names = |table: std::sync::Arc<pgherd_shard_map::Table>| {
                    table.columns.iter().map(|column| column.name.clone()).collect()
                };
                out.push(Named { name, columns: table.map(names) });
            }
            From::Join { left, right, .. } => {
                self.items(left, out);
                self.items(right, out);
            }
            From::Subquery { alias, .. } | From::Function { alias, .. } => {
                out.push(Named { name: alias.as_deref(), columns: None });
            }
        }
    }

    /// Collects the joins' conditions. `Some(true)`: a row of the table is never filled with NULLs;
    /// `None`: it is not in here.
    fn reach<'q>(&self, from: &'q From, conditions: &mut Vec<&'q Range>) -> Option<bool> {
        match from {
            From::Table { place, .. } => (place == self.place).then_some(true),
            From::Join { left, right, kind, on } => {
                let on_left = self.reach(left, conditions);
                let sure = on_left.or_else(|| self.reach(right, conditions))?;
                let (drops, keeps) = match (kind, on_left.is_some()) {
                    (JoinKind::Inner, _) => (true, true),
                    (JoinKind::Left, true) | (JoinKind::Right, false) => (false, true),
                    (JoinKind::Left, false) | (JoinKind::Right, true) => (true, false),
                    (JoinKind::Full, _) => (false, false),
                };
                if let JoinOn::Condition(condition) = on
                    && sure
                    && drops
                {
                    conditions.push(condition);
                }
                Some(sure && keeps)
            }
            From::Subquery { .. } | From::Function { .. } => None,
        }
    }

    fn decides(&self, part: &Range, items: &[Named<'_>]) -> bool {
        let tokens = self.tokens;
        let mut at = part.start;
        while at < part.end {
            if tokens.kind(at) == Some(Kind::Open) && starts_query(tokens, at + 1) {
                return false;
            }
            if let Some((nature, open)) = functions::called(tokens, at) {
                if nature != Nature::Immutable {
                    return false;
                }
                at = open;
                continue;
            }
            match tokens.kind(at) {
                Some(Kind::Semicolon) => return false,
                Some(Kind::Word) if PLAIN_WORDS.contains(&&*tokens.list[at].text) => {}
                Some(Kind::Word | Kind::Quoted) => {
                    let Some((parts, after)) = tokens.qualified(at) else { return false };
                    if !self.is_own(&parts, items) {
                        return false;
                    }
                    at = after;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        true
    }

    fn is_own(&self, parts: &[&str], items: &[Named<'_>]) -> bool {
        let has = |column: &str| self.used.table.columns.iter().any(|c| *c.name == *column);
        match parts {
            [alias, column] => *alias == called(self.used) && has(column),
            [column] => {
                let owns = |item: &Named<'_>| {
                    let columns = item.columns.as_ref();
                    columns.is_none_or(|columns| columns.iter().any(|c| **c == **column))
                };
                has(column) && items.iter().filter(|item| owns(item)).count() == 1
            }
            _ => false,
        }
    }
}

/// Words of conditions that are no columns and mean the same everywhere.
const PLAIN_WORDS: &[&str] = &[
    "and",
    "or",
    "not",
    "null",
    "true",
    "false",
    "is",
    "in",
    "like",
    "ilike",
    "between",
    "case",
    "when",
    "then",
    "else",
    "end",
    "distinct",
    "from",
    "unknown",
    "date",
    "interval",
    "timestamp",
    "similar",
    "to",
    "escape",
    "symmetric",
    "any",
    "all",
    "some",
    "array",
];
