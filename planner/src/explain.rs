//! EXPLAIN: its options, and the plan of the statement behind them.
//!
//! The router explains what it does itself; what a shard does, the shard says, asked with the
//! client's own options. So only those are read here that change what the router says. Whether all
//! of them are right, PostgreSQL judges.

use pgherd_shard_map::TableKind;

use crate::query::starts_query;
use crate::route::{self, home, plan_of};
use crate::token::{Kind, Tokens};
use crate::{
    Access, Action, Context, CursorStatement, Explain, ExplainFormat, ExplainOptions, KeyColumn,
    Merge, Plan, PlanError, Reuse, SessionStatement, StatementKind, classify,
};

pub(crate) fn plan(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    let (options, at) = options(tokens);
    if at >= tokens.len() {
        return Ok(home(context, Access::Read, StatementKind::Explain));
    }
    if tokens.is(at, "explain") {
        return Err(PlanError::new("42601", "syntax error at or near \"EXPLAIN\""));
    }
    let statement = tokens.span(&(at..tokens.len()));
    let text = &tokens.sql[statement.start as usize..statement.end as usize];
    let mut inner = Tokens::known(text, context);
    inner.hints.extend(tokens.hints.iter().copied());
    let plan = route::check_scatter(classify::plan(&inner, context)?, context)?;
    if let Action::Cursor(statement) = &plan.action {
        return match statement {
            CursorStatement::Declare(_) => Err(PlanError::unsupported(
                "EXPLAIN of a cursor over several shards is not supported",
                "The router takes care of the cursor; no server declares it.",
                "Explain the query alone.",
            )),
            _ => Ok(home(context, Access::Read, StatementKind::Explain)),
        };
    }
    if let Action::Session(SessionStatement::CreateAsExecute { .. }) = plan.action {
        return Err(PlanError::unsupported(
            "EXPLAIN of CREATE TABLE AS EXECUTE is not supported",
            "The router has the prepared statement, and no server.",
            "Leave CREATE TABLE out: EXPLAIN EXECUTE.",
        ));
    }
    if let Action::MadeTable(_) = plan.action {
        return Err(PlanError::unsupported(
            "EXPLAIN of a table that is made from rows of several shards is not supported",
            "It is made first, and then filled.",
            "Explain the query alone.",
        ));
    }
    if makes_table(&plan) {
        return match options.analyze {
            // The home shard's plan is the query's.
            false => Ok(home(context, Access::Read, StatementKind::Explain)),
            true => Err(PlanError::unsupported(
                "EXPLAIN ANALYZE of a statement that makes a table is not supported",
                "It would make the table on one shard only.",
                "Explain the query alone.",
            )),
        };
    }
    let access = if options.analyze { plan.access } else { Access::Read };
    let action = Action::Explain(Box::new(Explain {
        head: tokens.span(&(0..at)),
        statement,
        options,
        tables: distributed(&inner, context).into(),
        plan,
    }));
    Ok(plan_of(context, action, access, Reuse::SameText, StatementKind::Explain))
}

fn makes_table(plan: &Plan) -> bool {
    matches!(&plan.action, Action::Many(many) if matches!(many.merge, Merge::HomeFills { .. }))
}

/// The options, and where the statement starts.
fn options(tokens: &Tokens<'_>) -> (ExplainOptions, usize) {
    let mut options = ExplainOptions {
        analyze: false,
        verbose: false,
        costs: true,
        summary: None,
        format: ExplainFormat::Text,
    };
    if tokens.kind(1) != Some(Kind::Open) || starts_query(tokens, 1) {
        let mut at = 1;
        while tokens.is_any(at, &["analyze", "analyse", "verbose"]) {
            let verbose = tokens.is(at, "verbose");
            options.verbose |= verbose;
            options.analyze |= !verbose;
            at += 1;
        }
        return (options, at);
    }
    for option in tokens.split(&(2..tokens.list[1].close)) {
        let value = (option.len() > 1)
            .then(|| tokens.list[option.start + 1].text.trim_matches('\'').to_ascii_lowercase());
        let value = value.as_deref();
        let on = !matches!(value, Some("off" | "false" | "0"));
        match tokens.word(option.start) {
            Some("analyze" | "analyse") => options.analyze = on,
            Some("verbose") => options.verbose = on,
            Some("costs") => options.costs = on,
            Some("summary") => options.summary = Some(on),
            Some("format") => {
                options.format = match value {
                    Some("json") => ExplainFormat::Json,
                    Some("yaml") => ExplainFormat::Yaml,
                    Some("xml") => ExplainFormat::Xml,
                    _ => ExplainFormat::Text,
                }
            }
            _ => {}
        }
    }
    (options, tokens.after(1))
}

/// The distributed tables that the tokens name.
fn distributed(tokens: &Tokens<'_>, context: &Context<'_>) -> Vec<KeyColumn> {
    let mut found: Vec<KeyColumn> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some((parts, after)) = tokens.qualified(at) else {
            at += 1;
            continue;
        };
        at = after;
        let Some(table) = context.spread(&parts) else { continue };
        if let (TableKind::Distributed { group, .. }, Some(column)) =
            (table.kind, table.key_column())
            && !found.iter().any(|known| known.table == table.name)
        {
            let (table, column) = (table.name.clone(), column.name.clone());
            found.push(KeyColumn { table, group, column });
        }
    }
    found
}
