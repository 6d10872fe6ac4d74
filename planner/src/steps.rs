//! WITH queries that write on several shards: they run one after another in one transaction, each
//! planned by itself, and what they return stands in the later parts as rows.
//!
//! In PostgreSQL all parts have one snapshot: none sees what another has written but through
//! RETURNING. One after another they would see it; so a table that one part writes must not be named
//! by any other.

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
    let mut writes = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let Some(table) = written(tokens, context, part)? else { continue };
        let others = parts.iter().enumerate().filter(|(other, _)| *other != at);
        for (_, other) in others {
            refuse_naming(tokens, context, other, &table)?;
        }
        writes.push(table);
    }
    // A query that two parts read, or that locks its rows, is run once, too.
    let alone: Vec<bool> = ctes
        .iter()
        .enumerate()
        .map(|(at, cte)| {
            let readers = parts[at + 1..].iter().filter(|part| names(tokens, part, cte)).count();
            cte.query.as_ref().is_none_or(|query| query.locks.is_some() || readers > 1)
        })
        .collect();
    let parts = Parts { tokens, ctes, alone: &alone };
    let mut steps = Vec::new();
    for (at, cte) in ctes.iter().enumerate().filter(|(at, _)| alone[*at]) {
        let text = parts.text(at, &cte.range);
        steps.push(WriteStep { name: head(tokens, cte).into(), text });
    }
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

fn refuse_naming(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    part: &Range,
    table: &TableName,
) -> Result<(), PlanError> {
    for at in part.clone() {
        let Some((parts, _)) = tokens.qualified(at) else { continue };
        for length in 1..=parts.len().min(3) {
            match context.relation(&parts[..length]) {
                Some((name, _)) if name == *table => {
                    return Err(refused(&format!(
                        "Two parts name the table {}, and none may see what another writes.",
                        table.name
                    )));
                }
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
    Ok(())
}

struct Parts<'a> {
    tokens: &'a Tokens<'a>,
    ctes: &'a [Cte],
    /// Those that are steps.
    alone: &'a [bool],
}

impl Parts<'_> {
    /// A part with those of the first `count` WITH queries that it needs.
    fn text(&self, count: usize, part: &Range) -> Box<[StepPart]> {
        let Self { tokens, ctes, alone } = *self;
        let mut needed = vec![false; count];
        for at in (0..count).rev() {
            // Those that stand in the text bring what they need themselves.
            let mut within = (at + 1..count).filter(|later| needed[*later] && !alone[*later]);
            needed[at] = names(tokens, part, &ctes[at])
                || within.any(|later| names(tokens, &ctes[later].range, &ctes[at]));
        }
        let mut parts = Vec::new();
        let mut step = 0;
        for at in 0..count {
            let number = step;
            step += u16::from(alone[at]);
            if !needed[at] {
                continue;
            }
            let separator = if parts.is_empty() { "WITH " } else { ", " };
            parts.push(StepPart::Text(separator.into()));
            parts.push(match alone[at] {
                true => StepPart::Rows(number),
                false => {
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
