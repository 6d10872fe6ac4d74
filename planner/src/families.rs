//! Partitions and inheritance children: their rows are rows of their parents, so all of a family are
//! sharded alike. The catalog knows a family by its eldest; it is told who leaves and who joins.

use pgherd_shard_map::{Table, TableKind, TableName};

use crate::token::{Kind, Range, Tokens};
use crate::{Context, FamilyChange, PlanError};

/// What one action of ALTER TABLE does to families with sharded tables.
pub(crate) fn altered(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    table: &[&str],
    action: &Range,
) -> Result<Option<FamilyChange>, PlanError> {
    let at = action.start;
    let (other, joins, is_parent) = match () {
        () if tokens.are(at, &["attach", "partition"]) => (at + 2, true, true),
        () if tokens.are(at, &["detach", "partition"]) => (at + 2, false, true),
        () if tokens.is(at, "inherit") => (at + 1, true, false),
        () if tokens.are(at, &["no", "inherit"]) => (at + 2, false, false),
        () => return Ok(None),
    };
    let Some((other, _)) = tokens.qualified(other) else { return Ok(None) };
    let (parent, child) = if is_parent { (table, &*other) } else { (&*other, table) };
    // PostgreSQL says that one of them does not exist.
    let (Some((parent_name, _)), Some((child_name, _))) =
        (context.relation(parent), context.relation(child))
    else {
        return Ok(None);
    };
    match (context.sharded(parent), context.sharded(child)) {
        (None, Some(_)) if joins => Err(mixed(&parent_name)),
        (None, _) => Ok(None),
        (Some(_), _) => Ok(Some(FamilyChange { parent: parent_name, child: child_name, joins })),
    }
}

/// A new table's parents: with one that is sharded, all must be, and alike. Whether one is.
pub(crate) fn created(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    after_name: usize,
) -> Result<bool, PlanError> {
    let mut parents: Vec<Vec<&str>> = Vec::new();
    if tokens.are(after_name, &["partition", "of"]) {
        parents.extend(tokens.qualified(after_name + 2).map(|(parts, _)| parts));
    } else if tokens.kind(after_name) == Some(Kind::Open) {
        let after = tokens.after(after_name);
        if tokens.is(after, "inherits") && tokens.kind(after + 1) == Some(Kind::Open) {
            let inside = after + 2..tokens.list[after + 1].close;
            let named = tokens.split(&inside).into_iter();
            parents.extend(named.filter_map(|part| tokens.qualified(part.start)).map(|p| p.0));
        }
    }
    let Some(first) = parents.iter().find_map(|parent| context.sharded(parent)) else {
        return Ok(false);
    };
    let alike = |parent: &Vec<&str>| context.sharded(parent).is_some_and(|t| same_shards(t, first));
    if !parents.iter().all(alike) {
        return Err(mixed(&first.name));
    }
    if tokens.is(1, "foreign") {
        return Err(PlanError::unsupported(
            "foreign tables cannot belong to a sharded table",
            "Every shard would read the same rows.",
            "Copy its rows into a table that is a partition.",
        ));
    }
    Ok(true)
}

fn same_shards(a: &Table, b: &Table) -> bool {
    let key = |table: &Table| table.key_column().map(|column| column.name.clone());
    match (a.kind, b.kind) {
        (TableKind::Distributed { group, .. }, TableKind::Distributed { group: other, .. }) => {
            group == other && key(a) == key(b)
        }
        (TableKind::Reference, TableKind::Reference) => true,
        _ => false,
    }
}

fn mixed(parent: &TableName) -> PlanError {
    PlanError::unsupported(
        "a table cannot inherit from tables whose rows are elsewhere",
        format!("Rows of {parent} and of the other table are on different shards."),
        "Distribute all of a family by the same column, in one colocation group.",
    )
}
