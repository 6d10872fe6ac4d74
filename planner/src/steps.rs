//! WITH queries that write on several shards: they run one after another in one transaction, each
//! planned by itself, and what they return stands in the later parts as rows.
//!
//! In PostgreSQL all parts have one snapshot: none sees what another has written but through
//! RETURNING. One after another they would see it; so queries of tables that are written run before
//! the first write, and a part that writes what another one names comes after it only to add rows.

use pgherd_shard_map::{RelationKind, TableName};

use crate::change::read_change;
use crate::insert::read_insert;
use crate::query::Cte;
use crate::route::plan_of;
use crate::token::{Range, Tokens};
use crate::witness::unread;
use crate::{
    Access, Action, Context, Plan, PlanError, Reuse, StatementKind, StepPart, Steps, WriteStep,
};

pub(crate) fn plan(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    kind: StatementKind,
    ctes: &[Cte],
    recursive: bool,
    main: usize,
) -> Result<Plan, PlanError> {
    if recursive {
        return Err(refused("WITH RECURSIVE and WITH queries that write cannot be told apart."));
    }
    let main = main..tokens.len();
    let mut parts: Vec<Range> = ctes.iter().map(|cte| cte.range.clone()).collect();
    parts.push(main.clone());
    let depends = dependencies(tokens, ctes, &parts);
    let mut written_by = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        written_by.extend(written(tokens, context, part)?.map(|table| (at, table)));
    }
    let mut early = vec![false; ctes.len()];
    for (writer, table) in &written_by {
        for (other, part) in parts.iter().enumerate().filter(|(other, _)| other != writer) {
            if !named(tokens, context, part, table)? {
                continue;
            }
            let after_it = |other: usize| {
                written_by.iter().any(|(writer, _)| depends[other].get(*writer) == Some(&true))
            };
            if ctes.get(other).is_some_and(|cte| cte.query.is_some()) && !after_it(other) {
                early[other] = true;
            } else if !only_inserts_after(tokens, context, &parts, &depends, (*writer, other))? {
                return Err(refused(&format!(
                    "Two parts name the table {}, and none may see what another writes.",
                    table.name
                )));
            }
        }
    }
    // A query that two parts read, or that locks its rows, is run once, too.
    let alone: Vec<bool> = ctes
        .iter()
        .enumerate()
        .map(|(at, cte)| {
            let readers = parts[at + 1..].iter().filter(|part| names(tokens, part, cte)).count();
            let Some(query) = &cte.query else { return true };
            // As in PostgreSQL, one that nobody reads does not run.
            readers > 1 || readers > 0 && (query.locks.is_some() || early[at])
        })
        .collect();
    // What a step before the first write needs comes before it, too.
    for at in (0..ctes.len()).rev().filter(|at| early[*at]).collect::<Vec<_>>() {
        (0..at).filter(|needed| depends[at][*needed]).for_each(|needed| early[needed] = true);
    }
    let (first, then): (Vec<usize>, Vec<usize>) =
        (0..ctes.len()).filter(|at| alone[*at]).partition(|at| early[*at]);
    let order: Vec<usize> = first.into_iter().chain(then).collect();
    let parts = Parts { tokens, ctes, order: &order };
    let mut steps = Vec::new();
    for at in &order {
        let text = parts.text(*at, &ctes[*at].range);
        steps.push(WriteStep { name: head(tokens, &ctes[*at]).into(), text });
    }
    let writes: Vec<TableName> = written_by.into_iter().map(|(_, table)| table).collect();
    let last = parts.text(ctes.len(), &main);
    let steps = Steps { steps: steps.into(), last, writes: writes.into() };
    Ok(plan_of(context, Action::Steps(steps), Access::Write, Reuse::SameText, kind))
}

/// A part speaks of a WITH query, or of something else by the same name.
fn names(tokens: &Tokens<'_>, part: &Range, cte: &Cte) -> bool {
    part.clone().any(|at| tokens.name(at) == Some(&*cte.name))
}

/// The table that a part writes; `None` for a query.
fn written(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    part: &Range,
) -> Result<Option<TableName>, PlanError> {
    let parts = match tokens.word(part.start) {
        Some("insert") => read_insert(tokens, part.clone()).map(|insert| insert.table),
        Some(word @ ("update" | "delete")) => {
            read_change(tokens, part.clone(), word == "update").map(|change| change.table)
        }
        Some("select" | "values" | "table") => return Ok(None),
        _ => None,
    };
    let parts = parts.ok_or_else(|| unread(tokens))?;
    match context.relation(&parts) {
        Some((name, RelationKind::Sharded(_) | RelationKind::Home)) => Ok(Some(name)),
        _ => Err(refused("A part of it writes to something else than a table.")),
    }
}

/// For each part, which WITH queries it reads, by others or by itself.
fn dependencies(tokens: &Tokens<'_>, ctes: &[Cte], parts: &[Range]) -> Vec<Vec<bool>> {
    let mut all: Vec<Vec<bool>> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let mut depends = vec![false; ctes.len()];
        for other in (0..at).filter(|other| names(tokens, part, &ctes[*other])) {
            depends[other] = true;
            all[other].iter().zip(&mut depends).for_each(|(theirs, own)| *own |= theirs);
        }
        all.push(depends);
    }
    all
}

/// Two parts write one table: the second only adds rows to it, and not before the first has
/// changed those that were there.
fn only_inserts_after(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    parts: &[Range],
    depends: &[Vec<bool>],
    (one, other): (usize, usize),
) -> Result<bool, PlanError> {
    let (first, second) = (one.min(other), one.max(other));
    let adds = |at: usize| -> Result<bool, PlanError> {
        let part = &parts[at];
        let Some(insert) = read_insert(tokens, part.clone()) else { return Ok(false) };
        let table = written(tokens, context, part)?;
        let conflict = part.clone().any(|at| tokens.are(at, &["on", "conflict"]));
        let rest = insert.list..part.end;
        Ok(!conflict
            && table.is_some_and(|table| named(tokens, context, &rest, &table) == Ok(false)))
    };
    Ok(adds(second)? && (depends[second].get(first) == Some(&true) || adds(first)?))
}

/// Whether a part names a table that another one writes.
fn named(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    part: &Range,
    table: &TableName,
) -> Result<bool, PlanError> {
    for at in part.clone() {
        let Some((parts, _)) = tokens.qualified(at) else { continue };
        for length in 1..=parts.len().min(3) {
            match context.relation(&parts[..length]) {
                Some((name, _)) if name == *table => return Ok(true),
                Some((name, RelationKind::View(_) | RelationKind::ViewOverDistributed))
                | Some((name, RelationKind::ViewOverReference)) => {
                    return Err(refused(&format!(
                        "The view {} could show what another part writes.",
                        name.name
                    )));
                }
                _ => {}
            }
        }
    }
    Ok(false)
}

struct Parts<'a> {
    tokens: &'a Tokens<'a>,
    ctes: &'a [Cte],
    /// Those that are steps, as they run.
    order: &'a [usize],
}

impl Parts<'_> {
    /// A part with those of the first `count` WITH queries that it needs.
    fn text(&self, count: usize, part: &Range) -> Box<[StepPart]> {
        let Self { tokens, ctes, order } = *self;
        let step = |at: usize| order.iter().position(|step| *step == at);
        let mut needed = vec![false; count];
        for at in (0..count).rev() {
            // Those that stand in the text bring what they need themselves.
            let mut within =
                (at + 1..count).filter(|later| needed[*later] && step(*later).is_none());
            needed[at] = names(tokens, part, &ctes[at])
                || within.any(|later| names(tokens, &ctes[later].range, &ctes[at]));
        }
        let mut parts = Vec::new();
        for at in (0..count).filter(|at| needed[*at]) {
            let separator = if parts.is_empty() { "WITH " } else { ", " };
            parts.push(StepPart::Text(separator.into()));
            parts.push(match step(at) {
                Some(number) => StepPart::Rows(number as u16),
                None => {
                    let query = ctes[at].start..ctes[at].range.end + 1;
                    StepPart::Text(tokens.text(&query).into())
                }
            });
        }
        let space = if parts.is_empty() { "" } else { " " };
        parts.push(StepPart::Text(format!("{space}{}", tokens.text(part)).into()));
        parts.into()
    }
}

/// `name` or `name (columns)`.
fn head<'t>(tokens: &Tokens<'t>, cte: &Cte) -> &'t str {
    let name = cte.start..cte.start + 1;
    let listed = tokens.kind(name.end) == Some(crate::token::Kind::Open);
    let end = if listed { tokens.after(name.end) } else { name.end };
    tokens.text(&(name.start..end))
}

fn refused(detail: &str) -> PlanError {
    PlanError::unsupported(
        "this statement whose WITH queries write is not supported over several shards",
        detail.to_owned(),
        "Give the distribution column of every table the same value, or run the parts one after \
         another in a transaction.",
    )
}
