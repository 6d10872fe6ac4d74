//! Window functions over partitions that are on one shard each: the distribution column is a part
//! of their PARTITION BY.

use crate::functions::{self, Nature};
use crate::query::Select;
use crate::token::{Kind, Range, Tokens};

/// Where OVER stands behind a call with this parenthesis, and its FILTER and WITHIN GROUP.
pub(crate) fn over(tokens: &Tokens<'_>, open: usize) -> Option<usize> {
    let mut at = tokens.after(open);
    while tokens.is_any(at, &["within", "filter"]) {
        at = tokens.after(at + 1 + usize::from(tokens.is(at, "within")));
    }
    tokens.is(at, "over").then_some(at)
}

/// An aggregate that the router can combine is called in these tokens, and not over a window.
pub(crate) fn aggregates(tokens: &Tokens<'_>, range: &Range) -> bool {
    range.clone().any(|at| {
        functions::called(tokens, at).is_some_and(|(nature, open)| {
            nature == Nature::Combined && over(tokens, open).is_none()
        })
    })
}

/// Whether rows of one partition are all on one shard. `over` is the word; `is_key` knows the
/// distribution column.
pub(crate) fn stay(
    tokens: &Tokens<'_>,
    select: &Select,
    over: usize,
    is_key: &impl Fn(&Range) -> bool,
) -> bool {
    let inside = match tokens.kind(over + 1) {
        Some(Kind::Open) => Some(over + 2..tokens.list[over + 1].close),
        _ => tokens.name(over + 1).and_then(|name| defined(tokens, select, name)),
    };
    // A definition may begin with the name of another one, which is before it.
    let mut inside = inside;
    for _ in 0..DEFINITIONS_MAX {
        let Some(range) = inside else { return false };
        if tokens.are(range.start, &["partition", "by"]) {
            let list = range.start + 2..range.end;
            let stop = tokens.find(&list, |at| {
                tokens.are(at, &["order", "by"]) || tokens.is_any(at, &["rows", "range", "groups"])
            });
            let list = list.start..stop.unwrap_or(range.end);
            return tokens.split(&list).iter().any(is_key);
        }
        let named = !range.is_empty() && !tokens.is_any(range.start, NO_NAMES);
        let name = tokens.name(range.start).filter(|_| named);
        inside = name.and_then(|name| defined(tokens, select, name));
    }
    false
}

const DEFINITIONS_MAX: usize = 16;

/// Words that a window's definition begins with where it names no other window.
const NO_NAMES: &[&str] = &["partition", "order", "rows", "range", "groups"];

/// What stands in the parentheses of this name in WINDOW.
fn defined(tokens: &Tokens<'_>, select: &Select, name: &str) -> Option<Range> {
    let parts = tokens.split(select.window.as_ref()?);
    let part = parts.into_iter().find(|part| tokens.name(part.start) == Some(name))?;
    let open = part.start + 2;
    let whole = tokens.is(part.start + 1, "as") && tokens.kind(open) == Some(Kind::Open);
    (whole && tokens.after(open) == part.end).then(|| open + 1..part.end - 1)
}
