//! INSERT of rows that no shard can make by itself: PostgreSQL makes them on the home shard, over
//! copies of what they are read from, in a scratch table with the columns and defaults of the
//! table that they are for. Then each goes to its shard.
//!
//! So a sequence is asked and a volatile function called once for a row, a value is cast as INSERT
//! casts it, and all copies of a reference table get the same.

use pgherd_shard_map::{ColumnDefault, RelationKind, TableKind, TableName, quoted};

use crate::analyze::Analysis;
use crate::borrow;
use crate::functions::Nature;
use crate::insert::{Insert, has_query, make_of, tail_is_answered};
use crate::query::Query;
use crate::route::plan_of;
use crate::temporary::TEMPORARY_SCHEMA;
use crate::token::{Kind, Tokens};
use crate::witness::{unread, witness};
use crate::write::view_not_written;
use crate::{
    Access, Action, Borrow, Context, Gather, GatherPlace, KeySource, Make, Plan, PlanError, Reuse,
    ScratchColumn, StatementKind, Target, functions, view,
};

/// The scratch table's name, in `pg_temp`.
pub(crate) const NEW_ROWS: &str = "pgherd_new";

pub(crate) fn plan(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    insert: &Insert<'_>,
) -> Result<Plan, PlanError> {
    let source = insert.source..insert.tail;
    let tail = insert.tail..tokens.len();
    if has_query(tokens, &tail) && !tail_is_answered(tokens, context, insert) {
        return Err(unread(tokens)
            .with_detail("A subquery in RETURNING or ON CONFLICT could need another shard."));
    }
    let before = (0..source.start)
        .filter(|at| matches!(tokens.kind(*at), Some(Kind::Literal { .. })))
        .count() as u32;
    let mut borrow = made_at_home(tokens.text(&source), context, before)?;
    let target = Receiver::of(context, insert)?;
    let list = insert.columns.as_ref().map_or_else(String::new, |names| {
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        format!("({}) ", names.join(", "))
    });
    borrow.sql = format!("INSERT INTO pg_temp.{NEW_ROWS} {list}{}", borrow.sql).into();
    let gather = Gather {
        head: tokens.text(&(0..insert.list)).into(),
        tail: tokens.text(&tail).into(),
        table: target.table,
        place: target.place,
        columns: target.columns.into(),
        borrow,
    };
    let (action, kind) = (Action::Gather(gather), StatementKind::Insert);
    Ok(plan_of(context, action, Access::Write, Reuse::SameText, kind))
}

/// What makes the rows of a query on the home shard. `before` is how many of the statement's literals
/// come before it.
pub(crate) fn made_at_home(
    sql: &str,
    context: &Context<'_>,
    before: u32,
) -> Result<Borrow, PlanError> {
    let inner = Tokens::known(sql, context);
    let read = inner.strip_parens(&inner.all());
    let query = Query::read(&inner, read).map_err(|_| unread(&inner))?;
    let analysis = Analysis::of_query(&inner, context, &query).map_err(|_| unread(&inner))?;
    let over_views = analysis.view_read_whole().is_some() || analysis.ordered_view;
    if analysis.data_modifying_cte || analysis.into || analysis.locks {
        return Err(unread(&inner));
    }
    let (worst, name) = functions::worst(&inner, &inner.all());
    let reading = functions::worst_of(&inner, &inner.all(), Nature::Reading);
    if worst == Nature::Unknown || reading.is_some() {
        return Err(PlanError::unsupported(
            format!("the function {name}() is not supported in this statement"),
            "Its rows are made apart from the transaction, where the function could write.",
            "Declare a function that depends on its arguments only IMMUTABLE; or run the SELECT, and \
             write its rows with VALUES.",
        ));
    }
    let why = "rows for other shards than they are read from".to_owned();
    let mut borrow = if over_views {
        view::borrow(&inner, context, why)?
    } else {
        witness(&inner, context, &analysis, None)?;
        borrow::plan(&inner, context, &analysis, why)?
    };
    for pull in &mut borrow.pulls {
        if let Target::Keys { keys, .. } = &mut pull.target {
            keys.iter_mut().for_each(|key| {
                if let KeySource::Literal { index, .. } = key {
                    *index += before;
                }
            });
        }
    }
    Ok(borrow)
}

/// The table that the rows are for.
struct Receiver {
    table: TableName,
    columns: Vec<ScratchColumn>,
    place: GatherPlace,
}

impl Receiver {
    fn of(context: &Context<'_>, insert: &Insert<'_>) -> Result<Self, PlanError> {
        if let Some(name) = insert.table.last().filter(|_| context.names_temporary(&insert.table)) {
            let table = TableName::new(TEMPORARY_SCHEMA, name);
            return Ok(Self { table, columns: Vec::new(), place: GatherPlace::Home });
        }
        let (table, kind) = context.relation(&insert.table).ok_or_else(|| {
            let name = insert.table.join(".");
            PlanError::new("42P01", format!("relation \"{name}\" does not exist"))
        })?;
        if let RelationKind::View(_) = kind {
            return Err(view_not_written(&table));
        }
        let RelationKind::Sharded(known) = kind else {
            return Ok(Self { table, columns: Vec::new(), place: GatherPlace::Home });
        };
        if insert.overrides_by_user() {
            return Err(PlanError::unsupported(
                "OVERRIDING USER VALUE is not supported in this INSERT",
                "Its rows are made in a table of their own, which has no identity columns.",
                "Leave the identity column out of the list of columns.",
            ));
        }
        let generated = known.columns.iter().any(|c| c.default == ColumnDefault::Generated);
        if generated && insert.columns.is_none() {
            return Err(PlanError::unsupported(
                "this INSERT must name its columns",
                "The table has generated columns, which are made on the shards.",
                "Use INSERT INTO table (column, …).",
            ));
        }
        let kept: Vec<usize> = (0..known.columns.len())
            .filter(|at| known.columns[*at].default != ColumnDefault::Generated)
            .collect();
        let place = match known.kind {
            TableKind::Reference => GatherPlace::Everywhere,
            TableKind::Distributed { key, group, .. } => {
                crate::write::refuse_rounded_key(known)?;
                let field = kept.iter().position(|at| *at == key).unwrap_or(0);
                GatherPlace::Split { group, field: field as u16 }
            }
        };
        let columns = kept.iter().map(|at| {
            let column = &known.columns[*at];
            let make = match column.default {
                ColumnDefault::None => None,
                ColumnDefault::Sequence(_) => Some(make_of(known, column)),
                _ => Some(Make::Default { table: table.clone(), column: column.name.clone() }),
            };
            ScratchColumn { name: column.name.clone(), make }
        });
        Ok(Self { columns: columns.collect(), table, place })
    }
}
