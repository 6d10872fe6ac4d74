//! CREATE TABLE AS and SELECT INTO: the table is made on every shard, and its rows are on the home
//! shard.
//!
//! Where the home shard can answer the query, it runs the client's own statement, and the others the
//! same one WITH NO DATA: the columns are what PostgreSQL makes of the query on each of them. Else
//! all of them make the table so, and an INSERT fills it in the same transaction. A temporary table is
//! made in the client's session on the home shard alone.

use crate::query::{keyword, starts_query};
use crate::route::{plan_of, select};
use crate::token::{Range, Tokens};
use crate::witness::may_name;
use crate::{
    Access, Action, Context, MadeTable, ManyShards, Merge, NewName, Plan, PlanError, Reuse,
    StatementKind, Target,
};

/// `CREATE TABLE name … AS query`.
struct Created {
    name: Range,
    /// The statement without WITH [NO] DATA.
    whole: Range,
    query: Range,
    no_data: bool,
    if_not_exists: bool,
}

impl Created {
    /// `table` is where that word is; `None` is a CREATE TABLE without a query.
    fn read(tokens: &Tokens<'_>, table: usize) -> Result<Option<Self>, PlanError> {
        let end = tokens.len();
        let if_not_exists = tokens.are(table + 1, &["if", "not", "exists"]);
        let start = table + 1 + 3 * usize::from(if_not_exists);
        let Some((_, after)) = tokens.qualified(start) else { return Ok(None) };
        let word =
            tokens.find(&(after..end), |at| tokens.is(at, "as") && starts_query(tokens, at + 1));
        let Some(word) = word else { return Ok(None) };
        let no_data = tokens.are(end.saturating_sub(3), &["with", "no", "data"]);
        let with_data = tokens.are(end.saturating_sub(2), &["with", "data"]);
        let end = end - 3 * usize::from(no_data) - 2 * usize::from(with_data && !no_data);
        let (name, whole, query) = (start..after, 0..end, word + 1..end);
        Ok(Some(Self { name, whole, query, no_data, if_not_exists }))
    }

    fn without_data(&self, tokens: &Tokens<'_>) -> String {
        format!("{}\nWITH NO DATA", tokens.text(&self.whole))
    }

    /// The table is made empty, and filled.
    fn filled(
        &self,
        tokens: &Tokens<'_>,
        context: &Context<'_>,
        temporary: bool,
    ) -> Result<Plan, PlanError> {
        let (name, query) = (tokens.text(&self.name), tokens.text(&self.query));
        let kind = (self.if_not_exists, temporary);
        made(context, self.without_data(tokens), name, query, kind)
    }
}

/// `CREATE TABLE name … AS query`, where `table` is that word; `None` is one without a query.
pub(crate) fn create_as(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    table: usize,
) -> Result<Option<Plan>, PlanError> {
    let Some(created) = Created::read(tokens, table)? else { return Ok(None) };
    let at_home = answered_at_home(tokens.text(&created.query), context)?;
    if created.no_data {
        // Only the query's columns matter, which are the same everywhere.
        return Ok(Some(plan(context, Merge::Same)));
    }
    if at_home {
        let elsewhere = created.without_data(tokens).into();
        return Ok(Some(plan(context, Merge::HomeFills { elsewhere })));
    }
    created.filled(tokens, context, false).map(Some)
}

/// The same of a temporary table; `None` where the session's server can run it as it is.
pub(crate) fn create_temporary(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    table: usize,
) -> Result<Option<Plan>, PlanError> {
    let Some(created) = Created::read(tokens, table)? else { return Ok(None) };
    if created.no_data || reads_at_home(tokens.text(&created.query), context)? {
        return Ok(None);
    }
    created.filled(tokens, context, true).map(Some)
}

/// `SELECT … INTO name …`.
pub(crate) fn select_into(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    let all = tokens.all();
    let into = tokens.find(&all, |at| keyword(tokens, at, "into"));
    let Some(into) = into else { return Err(unsupported()) };
    let mut at = into + 1;
    let unlogged = tokens.is(at, "unlogged");
    at += usize::from(unlogged || tokens.is_any(at, &["local", "global"]));
    let temporary = tokens.is_any(at, &["temp", "temporary"]);
    at += usize::from(temporary);
    at += usize::from(tokens.is(at, "table"));
    let Some((_, after)) = tokens.qualified(at) else { return Err(unsupported()) };
    let text = |range: &Range| tokens.text(range);
    let query = format!("{} {}", text(&(0..into)), text(&(after..tokens.len())));
    let kind = match (unlogged, temporary) {
        (true, _) => "UNLOGGED ",
        (_, true) => "TEMP ",
        _ => "",
    };
    let name = text(&(at..after));
    let create = format!("CREATE {kind}TABLE {name} AS {query}\nWITH NO DATA");
    if temporary {
        reads_at_home(&query, context)?;
    } else if answered_at_home(&query, context)? {
        return Ok(plan(context, Merge::HomeFills { elsewhere: create.into() }));
    }
    made(context, create, name, &query, (false, temporary))
}

fn plan(context: &Context<'_>, merge: Merge) -> Plan {
    let many = ManyShards { target: Target::All, sql: None, merge };
    plan_of(context, Action::Many(many), Access::Schema, Reuse::Once, StatementKind::Ddl)
}

fn made(
    context: &Context<'_>,
    create: String,
    name: &str,
    query: &str,
    (if_not_exists, temporary): (bool, bool),
) -> Result<Plan, PlanError> {
    let target = Tokens::new(name);
    let parts = target.qualified(0).map(|(parts, _)| parts);
    let last = parts.as_ref().and_then(|parts| parts.last().copied());
    // The query is read again when the table is there, and could hide what it reads.
    if last.is_none_or(|last| may_name(&Tokens::new(query), last)) {
        return Err(PlanError::unsupported(
            "a table cannot be made from rows of several shards of a relation with its own name",
            format!("The query names {name} without a schema, which could be the new table."),
            "Write the schema before the name in the query.",
        ));
    }
    let fill = format!("INSERT INTO {name} {query}").into();
    let unless = match parts.as_deref() {
        Some([name]) if if_not_exists => Some((temporary.then_some("pg_temp"), name)),
        Some([.., schema, name]) if if_not_exists => Some((Some(*schema), name)),
        _ => None,
    };
    let unless = unless
        .map(|(schema, name)| NewName { schema: schema.map(Into::into), name: (*name).into() });
    let action = Action::MadeTable(MadeTable { create: create.into(), fill, unless });
    Ok(plan_of(context, action, Access::Write, Reuse::Once, StatementKind::Ddl))
}

/// The home shard can answer the query by itself. Nothing may have to be distributed afterwards.
fn answered_at_home(query: &str, context: &Context<'_>) -> Result<bool, PlanError> {
    if !context.auto_distribute.is_empty() {
        return Err(PlanError::unsupported(
            "a table cannot be made from a query where auto_distribute is set",
            "Whether it has a distribution column is known after it was filled.",
            "Use CREATE TABLE and then INSERT … SELECT.",
        ));
    }
    reads_at_home(query, context)
}

fn reads_at_home(query: &str, context: &Context<'_>) -> Result<bool, PlanError> {
    Ok(match select(&Tokens::known(query, context), context)?.action {
        Action::One(one) => matches!(one.target, Target::Home | Target::Any),
        Action::Many(_) | Action::Borrow(_) => false,
        _ => return Err(unsupported()),
    })
}

pub(crate) fn unsupported() -> PlanError {
    PlanError::unsupported(
        "a table cannot be made from this query",
        "The new table must exist on every shard, its rows on one.",
        "Use CREATE TABLE and then INSERT … SELECT.",
    )
}
