//! INSERT: which shard each new row belongs to, and what must be made before that is known.
//!
//! A number of a sequence, a default of the distribution column, a default of a reference table:
//! such values are made once, by the router or on the home shard, and written into the rows before
//! these are placed ([`Make`]). No shard ever asks a sequence of its own, and all copies of a
//! reference table get the same row.

mod values;

use std::sync::Arc;

use pgherd_shard_map::{Column, ColumnDefault, Identity, Table, TableKind};

use self::values::insert_values;
use crate::analyze::{Analysis, Scope};
use crate::query::{Query, Unread, starts_query};
use crate::route::{home, keys, plan_of};
use crate::token::{Kind, Range, Tokens};
use crate::witness::{unread, witness};
use crate::write::{refuse_default, refuse_key_change, refuse_sequences, sharded_target};
use crate::{
    Access, Action, Context, Limit, Make, ManyShards, Merge, OneShard, Plan, PlanError, Reuse,
    StatementKind, Target, gather, scatter,
};

pub(crate) struct Insert<'t> {
    pub(crate) table: Vec<&'t str>,
    /// Where a list of columns stands or would stand, and its names.
    pub(crate) list: usize,
    pub(crate) columns: Option<Vec<&'t str>>,
    overriding: Option<Overriding>,
    /// VALUES, DEFAULT VALUES or a query.
    pub(crate) source: usize,
    /// ON CONFLICT, RETURNING.
    pub(crate) tail: usize,
}

impl Insert<'_> {
    pub(crate) fn overrides_by_user(&self) -> bool {
        self.overriding == Some(Overriding::User)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overriding {
    System,
    User,
}

pub(crate) fn read_insert<'t>(tokens: &'t Tokens<'_>, range: Range) -> Option<Insert<'t>> {
    if !tokens.is(range.start + 1, "into") {
        return None;
    }
    let (table, mut at) = tokens.qualified(range.start + 2)?;
    if tokens.is(at, "as") {
        at += 2;
    }
    let list = at;
    let mut columns = None;
    if tokens.kind(at) == Some(Kind::Open) && !starts_query(tokens, at) {
        let inside = at + 1..tokens.list[at].close;
        let names: Option<Vec<&str>> = tokens
            .split(&inside)
            .iter()
            .map(|part| tokens.name(part.start).filter(|_| part.len() == 1))
            .collect();
        columns = Some(names?);
        at = tokens.after(at);
    }
    let mut overriding = None;
    if tokens.is(at, "overriding") {
        overriding = Some(match tokens.word(at + 1)? {
            "system" => Overriding::System,
            _ => Overriding::User,
        });
        at += 3;
    }
    let end = range.end;
    let tail = tokens
        .find(&(at..end), |t| tokens.are(t, &["on", "conflict"]) || tokens.is(t, "returning"))
        .unwrap_or(end);
    Some(Insert { table, list, columns, overriding, source: at, tail })
}

pub(crate) fn insert(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    let kind = StatementKind::Insert;
    if context.may_name_sharded(tokens, &tokens.all()).is_none() {
        return Ok(home(context, Access::Write, kind));
    }
    tokens.check_limits()?;
    let insert = read_insert(tokens, tokens.all()).ok_or_else(|| unread(tokens))?;
    let values = tokens.is(insert.source, "values");
    let defaults = tokens.are(insert.source, &["default", "values"]);
    let queries = has_query(tokens, &(insert.source + usize::from(!values)..insert.tail))
        || has_query(tokens, &(insert.tail..tokens.len()))
            && !tail_is_answered(tokens, context, &insert);
    let Some(table) = sharded_target(context, &insert.table, kind)? else {
        return insert_home(tokens, context, &insert);
    };
    let table = &table;
    on_conflict(tokens, &insert, table, tokens.len())?;
    refuse_sequences(tokens, &(insert.tail..tokens.len()))?;
    if queries || (!values && !defaults) {
        if let TableKind::Distributed { .. } = table.kind
            && let Ok(plan) = insert_select(tokens, context, &insert, table)
        {
            return Ok(plan);
        }
        return gather::plan(tokens, context, &insert);
    }
    let rows = match defaults {
        true => Vec::new(),
        false => value_rows(tokens, &insert).ok_or_else(|| unread(tokens))?,
    };
    match insert_values(tokens, context, &insert, table, &rows) {
        // A key that is computed, a value that every shard would compute for itself.
        Err(error) if error.sqlstate == "0A000" && values => {
            gather::plan(tokens, context, &insert).map_err(|_| error)
        }
        plan => plan,
    }
}

pub(crate) fn has_query(tokens: &Tokens<'_>, range: &Range) -> bool {
    range.clone().any(|at| tokens.kind(at) == Some(Kind::Open) && starts_query(tokens, at + 1))
}

/// Subqueries of ON CONFLICT and RETURNING run where the rows go: they must find there what they read.
pub(crate) fn tail_is_answered(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    insert: &Insert<'_>,
) -> bool {
    let target = context.sharded(&insert.table);
    let mut analysis = Analysis::default();
    let tail = insert.tail..tokens.len();
    target.is_some_and(|table| matches!(table.kind, TableKind::Distributed { .. }))
        && analysis.expression(tokens, context, &tail, &Scope::default()).is_ok()
        && analysis.uses.is_empty()
        && analysis.home.is_empty()
        && analysis.view_read_whole().is_none()
        && !analysis.data_modifying_cte
        && !analysis.locks
}

/// A home table that may be filled from home and reference tables.
fn insert_home(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    insert: &Insert<'_>,
) -> Result<Plan, PlanError> {
    let source = insert.source..insert.tail;
    let mut analysis = Analysis::default();
    let unread = |_: Unread| unread(tokens);
    if starts_query(tokens, source.start) && !tokens.is(source.start, "values") {
        let range = tokens.strip_parens(&source);
        let query = Query::read(tokens, range).map_err(unread)?;
        analysis.query(tokens, context, &query, &Default::default()).map_err(unread)?;
    }
    analysis
        .expression(tokens, context, &(insert.tail..tokens.len()), &Default::default())
        .map_err(unread)?;
    if tokens.is(source.start, "values") {
        analysis.expression(tokens, context, &source, &Default::default()).map_err(unread)?;
    }
    let whole = analysis.view_read_whole().is_some();
    if analysis.data_modifying_cte && (whole || analysis.sharded() > 0) {
        return Err(crate::witness::unread(tokens));
    }
    if whole || !analysis.uses.is_empty() {
        return gather::plan(tokens, context, insert);
    }
    witness(tokens, context, &analysis, None)?;
    Ok(home(context, Access::Write, StatementKind::Insert))
}

pub(crate) fn on_conflict(
    tokens: &Tokens<'_>,
    insert: &Insert<'_>,
    table: &Table,
    end: usize,
) -> Result<(), PlanError> {
    let tail = insert.tail..end;
    let Some(set) = tokens.find(&tail, |at| tokens.is(at, "set")) else { return Ok(()) };
    let end = tokens
        .find(&(set..tail.end), |at| tokens.is_any(at, &["where", "returning"]))
        .unwrap_or(tail.end);
    refuse_default(tokens, &(set + 1..end), table)?;
    match table.key_column() {
        Some(key) => refuse_key_change(tokens, &(set + 1..end), &key.name),
        None => Ok(()),
    }
}

pub(crate) fn value_rows(tokens: &Tokens<'_>, insert: &Insert<'_>) -> Option<Vec<Range>> {
    let rows = tokens.split(&(insert.source + 1..insert.tail));
    let row = |range: &Range| {
        tokens.kind(range.start) == Some(Kind::Open)
            && tokens.list[range.start].close + 1 == range.end
    };
    rows.iter().all(row).then_some(rows)
}

/// Whether a shard must not compute the default of this column by itself.
pub(crate) fn must_make(table: &Table, at: usize) -> bool {
    let is_key = matches!(table.kind, TableKind::Distributed { key, .. } if key == at);
    match table.columns[at].default {
        ColumnDefault::None | ColumnDefault::Generated => false,
        ColumnDefault::Sequence(_) => true,
        ColumnDefault::Constant => is_key,
        ColumnDefault::RandomUuid | ColumnDefault::Expression => {
            is_key || table.kind == TableKind::Reference
        }
    }
}

/// A column that the new rows are not given and that a shard must not fill by itself.
pub(crate) fn made_by_shards(table: &Table, given: impl Fn(usize) -> bool) -> Option<&Column> {
    let at = (0..table.columns.len()).find(|at| must_make(table, *at) && !given(*at))?;
    Some(&table.columns[at])
}

pub(crate) fn make_of(table: &Table, column: &Column) -> Make {
    let of = (table.name.clone(), column.name.clone());
    match &column.default {
        ColumnDefault::Sequence(sequence) => {
            let identity = (sequence.identity != Identity::None).then_some(of);
            Make::Number { sequence: sequence.name.clone(), identity }
        }
        ColumnDefault::RandomUuid => Make::RandomUuid,
        _ => Make::Default { table: of.0, column: of.1 },
    }
}

/// INSERT … SELECT whose rows stay on the shard that they are read from.
fn insert_select(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    insert: &Insert<'_>,
    table: &Arc<Table>,
) -> Result<Plan, PlanError> {
    let TableKind::Distributed { key, group, .. } = table.kind else { return Err(unread(tokens)) };
    let refused = || {
        PlanError::unsupported(
            "this INSERT … SELECT is not supported",
            format!(
                "Rows for {} can be inserted where they are read only if the SELECT reads co-located tables and feeds their distribution column into \"{}\".",
                table.name, table.columns[key].name
            ),
            "Run the SELECT, and insert its rows with VALUES or COPY.",
        )
    };
    if !starts_query(tokens, insert.source) {
        return Err(refused());
    }
    refuse_sequences(tokens, &tokens.all())?;
    let range = tokens.strip_parens(&(insert.source..insert.tail));
    let query = Query::read(tokens, range).map_err(|_| refused())?;
    let mut analysis = Analysis::default();
    let scope = analysis.query_with_scope(tokens, context, &query).map_err(|_| refused())?;
    analysis.settle();
    let select = query.only_select().ok_or_else(refused)?;
    let field = match &insert.columns {
        Some(names) => names.iter().position(|name| *name == &*table.columns[key].name),
        None => Some(key),
    };
    let item = field.and_then(|field| select.items.get(field)).ok_or_else(refused)?;
    if select.items.iter().any(|item| tokens.sign(item.end - 1, "*")) {
        return Err(refused());
    }
    let fed = tokens
        .qualified(item.start)
        .map(|(_, end)| item.start..end)
        .filter(|name| {
            name.end == item.end || tokens.is(name.end, "as") || name.end + 1 == item.end
        })
        .and_then(|name| analysis.column(tokens, &scope, &name));
    // What the shards would take from sequences of their own.
    let numbers = table.columns.iter().enumerate().any(|(at, column)| {
        matches!(column.default, ColumnDefault::Sequence(_))
            && match &insert.columns {
                Some(names) => !names.contains(&&*column.name),
                None => at >= select.items.len(),
            }
    });
    let same_group = !numbers && analysis.uses.iter().all(|u| u.group == group);
    // A row that an outer join adds has no key.
    let may_miss = tokens.all().any(|at| tokens.is_any(at, &["left", "right", "full"]));
    if !matches!(fed, Some((_, 0)))
        || may_miss
        || !same_group
        || !analysis.home.is_empty()
        || analysis.data_modifying_cte
        || analysis.view_read_whole().is_some()
    {
        return Err(refused());
    }
    let mut counted = Analysis::default();
    let _ = counted.table(context, &insert.table, None, false, &mut Default::default());
    counted.uses.extend(std::mem::take(&mut analysis.uses));
    counted.references = analysis.references;
    witness(tokens, context, &counted, None)?;
    counted.uses.remove(0);
    analysis.uses = counted.uses;
    let kind = StatementKind::Insert;
    if let Some(target) = keys(&analysis.uses) {
        let action = Action::One(OneShard { target, otherwise: None });
        return Ok(plan_of(context, action, Access::Write, Reuse::AnyLiterals, kind));
    }
    let (many, _) = scatter::select(tokens, &query, &analysis)?;
    let plain = Merge::Concat { limit: Limit { count: None, offset: None } };
    if many.sql.is_some() || many.merge != plain {
        return Err(refused());
    }
    let many = ManyShards { target: Target::All, sql: None, merge: Merge::Sum };
    Ok(plan_of(context, Action::Many(many), Access::Write, Reuse::AnyLiterals, kind))
}
