//! What all writes have in common: the table that they write, and what no shard may make up for itself.

use std::sync::Arc;

use pgherd_shard_map::{ColumnDefault, KeyType, RelationKind, Table, TableKind, TableName};

use crate::functions::Nature;
use crate::query::starts_query;
use crate::route::plan_of;
use crate::token::{Kind, Range, Tokens};
use crate::view::{self, Part, Parts};
use crate::{
    Access, Action, Context, ManyShards, Merge, Plan, PlanError, Reuse, StatementKind, Target,
    functions,
};

/// Shards have sequences of their own, which nobody must ask.
pub(crate) fn refuse_sequences(tokens: &Tokens<'_>, range: &Range) -> Result<(), PlanError> {
    for at in range.clone() {
        if let Some((Some(name @ ("nextval" | "currval" | "lastval" | "setval")), _)) =
            functions::call(tokens, at)
        {
            return Err(PlanError::unsupported(
                format!("{name}() is not supported here in statements on sharded tables"),
                "Each shard has a sequence of its own, which would give the same numbers.",
                "Fetch the number first with SELECT nextval(…), and write it as a value.",
            ));
        }
    }
    Ok(())
}

/// The table that a statement writes, or the view that stands for one.
pub(crate) fn sharded_target(
    context: &Context<'_>,
    parts: &[&str],
    kind: StatementKind,
) -> Result<Option<Arc<Table>>, PlanError> {
    match context.relation(parts) {
        Some((name, RelationKind::View(view))) => {
            let part = view::part(view, context, &mut Parts::default());
            let sure = |part: &Part| match kind {
                StatementKind::Insert => part.takes_rows,
                StatementKind::Merge => false,
                _ => part.writable,
            };
            part.filter(sure).map(|part| Some(part.table)).ok_or_else(|| view_not_written(&name))
        }
        Some((name, RelationKind::ViewOverDistributed)) => Err(view_not_written(&name)),
        Some((name, RelationKind::ViewOverReference)) => Err(PlanError::unsupported(
            "writing through a view over reference tables is not supported",
            format!("The view {name} would write on one shard only."),
            "Write to the table itself.",
        )),
        Some((_, RelationKind::Sharded(table))) => Ok(Some(Arc::clone(table))),
        _ => Ok(None),
    }
}

pub(crate) fn view_not_written(name: &TableName) -> PlanError {
    PlanError::unsupported(
        "writing through this view over distributed tables is not supported",
        format!("It is not certain that {name} stands for rows of one table with the same keys."),
        "Write to the table itself.",
    )
}

/// `numeric(10, 2)` and `timestamp(3)` round what is written: the row's key would not be the value
/// that was hashed.
pub(crate) fn refuse_rounded_key(table: &Table) -> Result<(), PlanError> {
    let rounds = [KeyType::Numeric, KeyType::Time, KeyType::Timestamp, KeyType::Timestamptz];
    match (table.key_column(), table.kind) {
        (Some(column), TableKind::Distributed { key_type, .. })
            if rounds.contains(&key_type) && column.type_name.contains('(') =>
        {
            Err(PlanError::unsupported(
                "rows cannot be routed by a distribution column that rounds its values",
                format!("The column \"{}\" has the type {}.", column.name, column.type_name),
                "Give the distribution column a type without precision.",
            ))
        }
        _ => Ok(()),
    }
}

/// `SET column = DEFAULT`, where each shard would make a value of its own that must not.
pub(crate) fn refuse_default(
    tokens: &Tokens<'_>,
    set: &Range,
    table: &Table,
) -> Result<(), PlanError> {
    let refused = |column: &&pgherd_shard_map::Column| match column.default {
        ColumnDefault::None | ColumnDefault::Constant | ColumnDefault::Generated => false,
        ColumnDefault::Sequence(_) => true,
        ColumnDefault::RandomUuid | ColumnDefault::Expression => table.kind == TableKind::Reference,
    };
    let mut written = table.columns.iter().filter(refused).filter(|column| {
        set.clone().any(|at| tokens.is(at, "default"))
            && set.clone().any(|at| tokens.name(at) == Some(&*column.name))
    });
    match written.next() {
        None => Ok(()),
        Some(column) => Err(PlanError::unsupported(
            "SET … = DEFAULT is not supported for this column of a sharded table",
            format!("Each shard would compute column \"{}\" by itself.", column.name),
            "Compute the value first, and write it as a literal or a parameter.",
        )),
    }
}

pub(crate) fn refuse_key_change(
    tokens: &Tokens<'_>,
    set: &Range,
    key: &str,
) -> Result<(), PlanError> {
    match key_set(tokens, set, key) {
        None => Ok(()),
        Some(_) => Err(PlanError::unsupported(
            "the distribution column cannot be updated here",
            format!("A row with another \"{key}\" belongs to another shard."),
            "Delete the row and insert it anew, in one transaction.",
        )),
    }
}

/// The part of SET that names the distribution column.
pub(crate) fn key_set(tokens: &Tokens<'_>, set: &Range, key: &str) -> Option<Range> {
    tokens.split(set).into_iter().find(|part| {
        let mut targets = match tokens.kind(part.start) {
            Some(Kind::Open) => part.start + 1..tokens.list[part.start].close,
            _ => part.start..part.start + 1,
        };
        targets.any(|at| tokens.name(at) == Some(key))
    })
}

/// A write that every shard must do alike.
pub(crate) fn same_everywhere(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    kind: StatementKind,
    table: &Table,
    range: &Range,
) -> Result<Plan, PlanError> {
    refuse_differing(tokens, table, range)?;
    let many = ManyShards { target: Target::All, sql: None, merge: Merge::Same };
    Ok(plan_of(context, Action::Many(many), Access::Write, Reuse::AnyLiterals, kind))
}

/// Refuses what could be something else on each shard.
pub(crate) fn refuse_differing(
    tokens: &Tokens<'_>,
    table: &Table,
    range: &Range,
) -> Result<(), PlanError> {
    let (nature, name) = functions::worst(tokens, range);
    // The words without parentheses: CURRENT_TIMESTAMP, CURRENT_USER, ….
    let stable = range.clone().find(|at| {
        tokens.word(*at).is_some_and(|w| w.starts_with("current_") || w.starts_with("localtime"))
    });
    // 'now', 'today' and their kin are read as a time by each shard for itself.
    let timed = table
        .columns
        .iter()
        .any(|column| column.type_name.starts_with("time") || column.type_name.starts_with("date"));
    let stable =
        stable.or_else(|| timed.then(|| range.clone().find(|at| is_moving_time(tokens, *at)))?);
    let limited = range.clone().any(|at| tokens.is_any(at, &["limit", "fetch", "for"]));
    let aggregate = matches!(nature, Nature::Combined);
    if (nature <= Nature::Immutable || aggregate) && stable.is_none() && !limited {
        return Ok(());
    }
    let what = match stable {
        Some(at) => tokens.list[at].text.to_string(),
        None if limited => "LIMIT".into(),
        None => format!("{name}()"),
    };
    Err(PlanError::unsupported(
        format!("{what} is not supported in writes to reference tables"),
        "Every shard must write the same, and this may differ from shard to shard.",
        "Compute the value first, and write it as a literal or a parameter.",
    ))
}

/// A string that date and time types read as a moment of now: its first word says so.
fn is_moving_time(tokens: &Tokens<'_>, at: usize) -> bool {
    let Some(Kind::Literal { kind, .. }) = tokens.kind(at) else { return false };
    let Some(text) = crate::literal::decode_str(&tokens.list[at].text, kind) else { return true };
    let text = text.trim().to_ascii_lowercase();
    let word = text.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    ["now", "today", "tomorrow", "yesterday"].contains(&word)
}

/// A function that gives something else each time, called in these tokens.
pub(crate) fn moving_call<'t>(tokens: &'t Tokens<'_>, range: &Range) -> Option<&'t str> {
    let moving = ["random", "gen_random_uuid", "clock_timestamp", "timeofday"];
    range.clone().find_map(|at| {
        functions::call(tokens, at).and_then(|(name, _)| name).filter(|name| moving.contains(name))
    })
}

/// Refuses subqueries that PostgreSQL runs once, and that could come out otherwise on each shard.
/// `from` is what the statement reads beside its target.
pub(crate) fn refuse_differing_subqueries(
    tokens: &Tokens<'_>,
    from: &Range,
) -> Result<(), PlanError> {
    for at in tokens.all() {
        if tokens.kind(at) != Some(Kind::Open) || !starts_query(tokens, at + 1) {
            continue;
        }
        let inside = at + 1..tokens.list[at].close;
        let called = moving_call(tokens, &inside).map(|name| format!("{name}()"));
        let limits = |at| tokens.is_any(at, &["limit", "offset", "fetch"]);
        let cut = from.contains(&at)
            && tokens.find(&inside, limits).is_some()
            && tokens.find(&inside, |at| tokens.are(at, &["order", "by"])).is_none();
        if let Some(what) = called.or_else(|| cut.then(|| "LIMIT without ORDER BY".to_owned())) {
            return Err(PlanError::unsupported(
                format!("{what} in a subquery is not supported in a write on several shards"),
                "Each shard would compute it by itself, and the parts would not fit together.",
                "Compute the value first, or compare the distribution column with one value.",
            ));
        }
    }
    Ok(())
}
