//! `pgherd.transactions`: rows that are nobody's, since every shard has its own. The router gathers
//! them and puts them before the statement as `WITH transactions AS (…)`; the rest is PostgreSQL's.

use crate::query::keyword;
use crate::route::plan_of;
use crate::token::Tokens;
use crate::{Access, Action, Context, Live, Plan, PlanError, Reuse, Span, StatementKind};

const SCHEMA: &str = "pgherd";
const VIEW: &str = "transactions";

/// The plan, if the statement is a query that names the view.
pub(crate) fn read(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Option<Plan>, PlanError> {
    let named: Vec<usize> = tokens
        .all()
        .filter(|at| {
            tokens.name(*at) == Some(SCHEMA)
                && tokens.sign(at + 1, ".")
                && tokens.name(at + 2) == Some(VIEW)
        })
        .collect();
    if named.is_empty() {
        return Ok(None);
    }
    if !tokens.is_any(0, &["select", "with", "values", "table"]) {
        return Err(refusal("Only a SELECT may name it."));
    }
    // What is on one shard only, at home or not, cannot be read together with it.
    let recursive = tokens.is(0, "with") && keyword(tokens, 1, "recursive");
    if context.may_name_sharded(tokens, &tokens.all()).is_some() {
        return Err(refusal("The statement reads distributed tables, too."));
    }
    let head = match (tokens.is(0, "with"), recursive) {
        (true, true) => tokens.list[1].end,
        (true, false) => tokens.list[0].end,
        (false, _) => tokens.list[0].start,
    };
    let schemas = named.iter().map(|at| Span {
        start: tokens.list[*at].start as u32,
        end: tokens.list[at + 1].end as u32,
    });
    let live =
        Live { head: head as u32, extends_with: tokens.is(0, "with"), schemas: schemas.collect() };
    let (access, kind) = (Access::Read, StatementKind::Select);
    Ok(Some(plan_of(context, Action::Live(live), access, Reuse::Once, kind)))
}

fn refusal(detail: &'static str) -> PlanError {
    PlanError::unsupported(
        "pgherd.transactions cannot be read by this statement",
        detail,
        "Read it in a SELECT of its own.",
    )
}
