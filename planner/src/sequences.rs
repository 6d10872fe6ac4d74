//! Sequences live on the home shard, whatever a statement reads beside them.

use pgherd_shard_map::TableName;

use crate::literal::decode_str;
use crate::token::{Kind, Tokens};
use crate::{Context, functions};

/// What a statement does with sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sequences {
    Nothing,
    /// `nextval()`
    Takes,
    /// `setval()` of one from which routers may have taken numbers: they must forget these.
    Sets,
}

pub(crate) fn used(tokens: &Tokens<'_>, context: &Context<'_>) -> Sequences {
    let used = tokens.all().filter_map(|at| match functions::call(tokens, at)? {
        (Some("nextval"), _) => Some(Sequences::Takes),
        (Some("setval"), open) => Some(match sequence(tokens, context, open) {
            Some(name) if !context.map.feeds_sharded(&name) => Sequences::Takes,
            _ => Sequences::Sets,
        }),
        _ => None,
    });
    used.max().unwrap_or(Sequences::Nothing)
}

/// The sequence that a call names, where a literal does.
fn sequence(tokens: &Tokens<'_>, context: &Context<'_>, open: usize) -> Option<TableName> {
    let Kind::Literal { kind, .. } = tokens.kind(open + 1)? else { return None };
    let text = decode_str(&tokens.list[open + 1].text, kind)?;
    let inner = Tokens::new(&text);
    let (parts, end) = inner.qualified(0)?;
    context.relation(&parts).filter(|_| end == inner.len()).map(|(name, _)| name)
}

/// A call of `currval()` or `lastval()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberCall {
    /// All of it, with its parentheses and a schema before it.
    pub whole: std::ops::Range<usize>,
    /// What says which sequence; `lastval()` has none.
    pub sequence: Option<std::ops::Range<usize>>,
}

/// Where in a text the session's own numbers are asked for.
#[must_use]
pub fn number_calls(sql: &str) -> Vec<NumberCall> {
    let tokens = Tokens::new(sql);
    let calls = tokens.all().filter_map(|at| {
        let (name, open) = functions::call(&tokens, at)?;
        let close = tokens.list[open].close;
        let qualified = at > 1 && tokens.sign(at - 1, ".");
        let whole = tokens.list[if qualified { at - 2 } else { at }].start..tokens.list[close].end;
        let inside = tokens.bytes(&(open + 1..close));
        match name? {
            "currval" => Some(NumberCall { whole, sequence: Some(inside) }),
            "lastval" => Some(NumberCall { whole, sequence: None }),
            _ => None,
        }
    });
    calls.collect()
}
