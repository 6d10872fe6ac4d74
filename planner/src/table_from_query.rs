//! CREATE TABLE AS and SELECT INTO: the table is made on every shard, and the home shard alone
//! fills it.
//!
//! The home shard runs the client's own statement, the others the same one WITH NO DATA: the
//! columns are what PostgreSQL makes of the query on each of them.

use crate::query::{keyword, starts_query};
use crate::route::{plan_of, select};
use crate::token::{Range, Tokens};
use crate::{
    Access, Action, Context, ManyShards, Merge, Plan, PlanError, Reuse, StatementKind, Target,
};

/// `CREATE TABLE name [(…)] … AS query`, where `after` is the token after the name; `None` is a
/// CREATE TABLE without a query.
pub(crate) fn create_as(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    after: usize,
) -> Result<Option<Plan>, PlanError> {
    let end = tokens.len();
    let word = tokens.find(&(after..end), |at| {
        tokens.is(at, "as") && (starts_query(tokens, at + 1) || tokens.is(at + 1, "execute"))
    });
    let Some(word) = word else { return Ok(None) };
    if tokens.is(word + 1, "execute") {
        return Err(of_prepared());
    }
    let no_data = tokens.are(end.saturating_sub(3), &["with", "no", "data"]);
    let with_data = tokens.are(end.saturating_sub(2), &["with", "data"]);
    let query_end = end - 3 * usize::from(no_data) - 2 * usize::from(with_data);
    let query = word + 1..query_end;
    only_home(tokens.text(&query), context)?;
    if no_data {
        return Ok(Some(plan(context, Merge::Same)));
    }
    let elsewhere = format!("{}\nWITH NO DATA", tokens.text(&(0..query_end)));
    Ok(Some(plan(context, Merge::HomeFills { elsewhere: elsewhere.into() })))
}

/// `SELECT … INTO name …`, of a query that reads nothing sharded.
pub(crate) fn select_into(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    let all = tokens.all();
    let into = tokens.find(&all, |at| keyword(tokens, at, "into"));
    let Some(into) = into else { return Err(unsupported()) };
    let mut at = into + 1;
    let unlogged = tokens.is(at, "unlogged");
    at += usize::from(unlogged);
    if tokens.is_any(at, &["temp", "temporary", "local", "global"]) {
        return Err(unsupported());
    }
    at += usize::from(tokens.is(at, "table"));
    let Some((_, after)) = tokens.qualified(at) else { return Err(unsupported()) };
    let text = |range: &Range| tokens.text(range);
    let query = format!("{} {}", text(&(0..into)), text(&(after..tokens.len())));
    only_home(&query, context)?;
    let elsewhere = format!(
        "CREATE {}TABLE {} AS {query}\nWITH NO DATA",
        if unlogged { "UNLOGGED " } else { "" },
        text(&(at..after)),
    );
    Ok(plan(context, Merge::HomeFills { elsewhere: elsewhere.into() }))
}

fn plan(context: &Context<'_>, merge: Merge) -> Plan {
    let many = ManyShards { target: Target::All, sql: None, merge };
    plan_of(context, Action::Many(many), Access::Schema, Reuse::Once, StatementKind::Ddl)
}

/// The home shard can answer the query by itself, and nothing has to be distributed afterwards.
fn only_home(query: &str, context: &Context<'_>) -> Result<(), PlanError> {
    if !context.auto_distribute.is_empty() {
        return Err(PlanError::unsupported(
            "a table cannot be made from a query where auto_distribute is set",
            "Whether it has a distribution column is known after it was filled.",
            "Use CREATE TABLE and then INSERT … SELECT.",
        ));
    }
    match select(&Tokens::known(query, context), context)?.action {
        Action::One(one) if matches!(one.target, Target::Home | Target::Any) => Ok(()),
        _ => Err(unsupported()),
    }
}

pub(crate) fn unsupported() -> PlanError {
    PlanError::unsupported(
        "a table cannot be made from a query over distributed tables",
        "The new table must exist on every shard, its rows on one.",
        "Use CREATE TABLE and then INSERT … SELECT.",
    )
}

/// What is prepared the router has, and no server.
pub(crate) fn of_prepared() -> PlanError {
    PlanError::unsupported(
        "CREATE TABLE AS EXECUTE is not supported",
        "The prepared statement is not known on every shard.",
        "Write the query into the statement.",
    )
}
