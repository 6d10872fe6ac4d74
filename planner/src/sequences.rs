//! Sequences live on the home shard, whatever a statement reads beside them.

use pgherd_shard_map::{ColumnDefault, RelationKind, TableName};

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
            Some(name) if !feeds_sharded(context, &name) => Sequences::Takes,
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

fn feeds_sharded(context: &Context<'_>, name: &TableName) -> bool {
    context.map.relations().any(|(_, kind)| {
        match kind {
        RelationKind::Sharded(table) => table.columns.iter().any(|column| {
            matches!(&column.default, ColumnDefault::Sequence(sequence) if sequence.name == *name)
        }),
        _ => false,
    }
    })
}
