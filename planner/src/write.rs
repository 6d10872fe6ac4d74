//! INSERT, UPDATE, DELETE.

use std::sync::Arc;

use pgherd_shard_map::{GroupId, KeyType, RelationKind, Table, TableKind};

use crate::analyze::{Analysis, Side, value};
use crate::functions::Nature;
use crate::query::{Query, Unread, read_from_item, starts_query};
use crate::route::{home, keys, plan_of, refuse_home, target_scope, unread, view_refused, witness};
use crate::token::{Kind, Range, Tokens};
use crate::{
    Access, Action, Context, KeyUse, Limit, ManyShards, Merge, OneShard, Otherwise, Plan,
    PlanError, Reuse, SplitInsert, StatementKind, Target, borrow, functions, scatter,
};

/// More rows than this are not worth a place in the plan cache.
const ROWS_KEPT: usize = 20;

/// WITH … INSERT, UPDATE, DELETE
pub(crate) fn with(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    crate::classify::only_home(
        tokens,
        context,
        StatementKind::Update,
        "WITH before a writing statement",
    )
}

/// Before anything sharded is written.
fn check(tokens: &Tokens<'_>) -> Result<(), PlanError> {
    tokens.check_limits()?;
    for at in tokens.all() {
        if let Some((Some(name @ ("nextval" | "currval" | "lastval" | "setval")), _)) =
            functions::call(tokens, at)
        {
            return Err(PlanError::unsupported(
                format!("{name}() is not supported in writes to sharded tables"),
                "Each shard has a sequence of its own, which would give the same numbers.",
                "Fetch the number first with SELECT nextval(…), and write it as a value.",
            ));
        }
    }
    Ok(())
}

fn sharded_target<'c>(
    context: &'c Context<'_>,
    parts: &[&str],
) -> Result<Option<&'c Arc<Table>>, PlanError> {
    match context.relation(parts) {
        Some((name, RelationKind::ViewOverDistributed)) => Err(view_refused(&name.to_string())),
        Some((name, RelationKind::ViewOverReference)) => Err(PlanError::unsupported(
            "writing through a view over reference tables is not supported",
            format!("The view {name} would write on one shard only."),
            "Write to the table itself.",
        )),
        Some((_, RelationKind::Sharded(table))) => Ok(Some(table)),
        _ => Ok(None),
    }
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

pub(crate) struct Insert<'t> {
    table: Vec<&'t str>,
    columns: Option<Vec<&'t str>>,
    /// VALUES or a query.
    pub(crate) source: usize,
    /// ON CONFLICT, RETURNING.
    pub(crate) tail: usize,
}

pub(crate) fn read_insert<'t>(tokens: &'t Tokens<'_>) -> Option<Insert<'t>> {
    if !tokens.is(1, "into") {
        return None;
    }
    let (table, mut at) = tokens.qualified(2)?;
    if tokens.is(at, "as") {
        at += 2;
    }
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
    if tokens.is(at, "overriding") {
        at += 3;
    }
    let end = tokens.len();
    let tail = tokens
        .find(&(at..end), |t| tokens.are(t, &["on", "conflict"]) || tokens.is(t, "returning"))
        .unwrap_or(end);
    Some(Insert { table, columns, source: at, tail })
}

pub(crate) fn insert(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    let kind = StatementKind::Insert;
    if context.may_name_sharded(tokens, &tokens.all()).is_none() {
        return Ok(home(context, Access::Write, kind));
    }
    check(tokens)?;
    let insert = read_insert(tokens).ok_or_else(|| unread(tokens))?;
    let values = tokens.is(insert.source, "values");
    let queries = has_query(tokens, &(insert.source + usize::from(!values)..insert.tail))
        || has_query(tokens, &(insert.tail..tokens.len()));
    match sharded_target(context, &insert.table)? {
        None => insert_home(tokens, context, &insert),
        Some(table) => match table.kind {
            TableKind::Distributed { key, key_type, group } => {
                on_conflict(tokens, &insert, &table.columns[key].name)?;
                if !values {
                    return insert_select(tokens, context, &insert, table);
                }
                if queries {
                    return Err(no_subqueries());
                }
                insert_values(tokens, context, &insert, table, key, key_type, group)
            }
            TableKind::Reference => {
                if queries || !values {
                    return Err(PlanError::unsupported(
                        "INSERT … SELECT into a reference table is not supported",
                        "Every shard must get the same rows.",
                        "Run the SELECT, and insert its rows with VALUES.",
                    ));
                }
                insert_reference(tokens, context, &insert, table)
            }
        },
    }
}

fn has_query(tokens: &Tokens<'_>, range: &Range) -> bool {
    range.clone().any(|at| tokens.kind(at) == Some(Kind::Open) && starts_query(tokens, at + 1))
}

fn no_subqueries() -> PlanError {
    PlanError::unsupported(
        "subqueries in INSERT … VALUES are not supported on sharded tables",
        "The subquery could need another shard than the row.",
        "Run the subquery first, and insert its result as a value.",
    )
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
    if !analysis.uses.is_empty()
        || analysis.view_over_distributed.is_some()
        || (analysis.data_modifying_cte && analysis.sharded() > 0)
    {
        return Err(PlanError::unsupported(
            "a table that is not distributed cannot be filled from a distributed one",
            "Its rows live on the home shard, the others on every shard.",
            "Run the SELECT, and insert its rows with VALUES.",
        ));
    }
    witness(tokens, context, &analysis, None)?;
    Ok(home(context, Access::Write, StatementKind::Insert))
}

fn on_conflict(tokens: &Tokens<'_>, insert: &Insert<'_>, key: &str) -> Result<(), PlanError> {
    let tail = insert.tail..tokens.len();
    let Some(set) = tokens.find(&tail, |at| tokens.is(at, "set")) else { return Ok(()) };
    let end = tokens
        .find(&(set..tail.end), |at| tokens.is_any(at, &["where", "returning"]))
        .unwrap_or(tail.end);
    refuse_key_change(tokens, &(set + 1..end), key)
}

fn refuse_key_change(tokens: &Tokens<'_>, set: &Range, key: &str) -> Result<(), PlanError> {
    for part in tokens.split(set) {
        let targets = match tokens.kind(part.start) {
            Some(Kind::Open) => part.start + 1..tokens.list[part.start].close,
            _ => part.start..part.start + 1,
        };
        if targets.clone().any(|at| tokens.name(at) == Some(key)) {
            return Err(PlanError::unsupported(
                "the distribution column cannot be updated",
                format!("A row with another \"{key}\" belongs to another shard."),
                "Delete the row and insert it anew, in one transaction.",
            ));
        }
    }
    Ok(())
}

fn value_rows(tokens: &Tokens<'_>, insert: &Insert<'_>) -> Option<Vec<Range>> {
    let rows = tokens.split(&(insert.source + 1..insert.tail));
    let row = |range: &Range| {
        tokens.kind(range.start) == Some(Kind::Open)
            && tokens.list[range.start].close + 1 == range.end
    };
    rows.iter().all(row).then_some(rows)
}

#[allow(clippy::too_many_arguments, reason = "one call, all of it parts of the table's kind")]
fn insert_values(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    insert: &Insert<'_>,
    table: &Arc<Table>,
    key: usize,
    key_type: KeyType,
    group: GroupId,
) -> Result<Plan, PlanError> {
    let key_name = &table.columns[key].name;
    let field = match &insert.columns {
        Some(names) => names.iter().position(|name| *name == &**key_name),
        None => Some(key),
    };
    refuse_rounded_key(table)?;
    let missing = || {
        PlanError::unsupported(
            "INSERT must give a value for the distribution column",
            format!("The row of {} goes to the shard of column \"{key_name}\".", table.name),
            format!("Write \"{key_name}\" as a literal or a parameter."),
        )
    };
    let field = field.ok_or_else(missing)?;
    let rows = value_rows(tokens, insert).ok_or_else(|| unread(tokens))?;
    let mut split = Vec::with_capacity(rows.len());
    let mut width = None;
    for row in &rows {
        let fields = tokens.split(&(row.start + 1..row.end - 1));
        if *width.get_or_insert(fields.len()) != fields.len() {
            // Any server refuses this, and says where it stands.
            return Ok(home(context, Access::Write, StatementKind::Insert));
        }
        let source = fields
            .get(field)
            .and_then(|field| value(tokens, field, key_type))
            .ok_or_else(missing)?;
        split.push((tokens.span(row), source));
    }
    // One row shows the parser all that the others are.
    let last = tokens.bytes(&(0..rows[0].end)).end;
    let tail = tokens.bytes(&(insert.tail..tokens.len()));
    let sample = format!("{} {}", &tokens.sql[..last], &tokens.sql[tail.start..]);
    let seen = crate::parse::relations(&sample)
        .map_err(|error| unread(tokens).with_detail(format!("It cannot be parsed: {error}.")))?;
    if seen.len() != 1 {
        return Err(unread(tokens));
    }
    let kind = StatementKind::Insert;
    if let [(_, source)] = split.as_slice() {
        let target = Target::Keys { group, keys: Box::new([source.clone()]), why: KeyUse::NewRow };
        let action = Action::One(OneShard { target, otherwise: None });
        return Ok(plan_of(context, action, Access::Write, Reuse::AnyLiterals, kind));
    }
    let reuse = if split.len() > ROWS_KEPT { Reuse::Once } else { Reuse::SameText };
    let head = tokens.bytes(&(0..insert.source + 1)).end as u32;
    let end = split.last().map_or(head, |(span, _)| span.end);
    let action = Action::Insert(SplitInsert {
        table: table.name.clone(),
        group,
        head: crate::Span { start: 0, end: head },
        rows: split.into(),
        tail: crate::Span { start: end, end: tokens.sql.len() as u32 },
    });
    Ok(plan_of(context, action, Access::Write, reuse, kind))
}

fn insert_reference(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    insert: &Insert<'_>,
    table: &Table,
) -> Result<Plan, PlanError> {
    let rows = value_rows(tokens, insert).ok_or_else(|| unread(tokens))?;
    let width = rows.first().map_or(0, |row| tokens.split(&(row.start + 1..row.end - 1)).len());
    let names: Vec<&str> = match &insert.columns {
        Some(names) => names.clone(),
        None => table.columns.iter().map(|c| &*c.name).take(width).collect(),
    };
    let uses_default = (insert.source..insert.tail).any(|at| tokens.is(at, "default"));
    let filled = table
        .columns
        .iter()
        .find(|column| column.has_default && (uses_default || !names.contains(&&*column.name)));
    if let Some(column) = filled {
        return Err(PlanError::unsupported(
            "INSERT into a reference table must give a value for every column with a default",
            format!("Each shard would compute column \"{}\" by itself.", column.name),
            "Write the value as a literal or a parameter.",
        ));
    }
    // Not the head: `t (columns)` looks like a call.
    same_everywhere(tokens, context, StatementKind::Insert, table, &(insert.source..tokens.len()))
}

/// A write that every shard must do alike.
fn same_everywhere(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    kind: StatementKind,
    table: &Table,
    range: &Range,
) -> Result<Plan, PlanError> {
    let all = range.clone();
    let (nature, name) = functions::worst(tokens, range);
    // The words without parentheses: CURRENT_TIMESTAMP, CURRENT_USER, ….
    let stable = all.clone().find(|at| {
        tokens.word(*at).is_some_and(|w| w.starts_with("current_") || w.starts_with("localtime"))
    });
    // 'now', 'today' and their kin are read as a time by each shard for itself.
    let timed = table
        .columns
        .iter()
        .any(|column| column.type_name.starts_with("time") || column.type_name.starts_with("date"));
    let stable =
        stable.or_else(|| timed.then(|| all.clone().find(|at| is_moving_time(tokens, *at)))?);
    let limited = all.clone().any(|at| tokens.is_any(at, &["limit", "fetch", "for"]));
    let aggregate = matches!(nature, Nature::Combined);
    if (nature > Nature::Immutable && !aggregate) || stable.is_some() || limited {
        let what = match stable {
            Some(at) => tokens.list[at].text.to_string(),
            None if limited => "LIMIT".into(),
            None => format!("{name}()"),
        };
        return Err(PlanError::unsupported(
            format!("{what} is not supported in writes to reference tables"),
            "Every shard must write the same, and this may differ from shard to shard.",
            "Compute the value first, and write it as a literal or a parameter.",
        ));
    }
    let many = ManyShards { target: Target::All, sql: None, merge: Merge::Same };
    Ok(plan_of(context, Action::Many(many), Access::Write, Reuse::AnyLiterals, kind))
}

/// A string that date and time types read as a moment of now: its first word says so.
fn is_moving_time(tokens: &Tokens<'_>, at: usize) -> bool {
    let Some(Kind::Literal { kind, .. }) = tokens.kind(at) else { return false };
    let Some(text) = crate::literal::decode_str(&tokens.list[at].text, kind) else { return true };
    let text = text.trim().to_ascii_lowercase();
    let word = text.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    ["now", "today", "tomorrow", "yesterday"].contains(&word)
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
    let same_group = analysis.uses.iter().all(|u| u.group == group);
    // A row that an outer join adds has no key.
    let may_miss = tokens.all().any(|at| tokens.is_any(at, &["left", "right", "full"]));
    if !matches!(fed, Some((_, 0)))
        || may_miss
        || !same_group
        || !analysis.home.is_empty()
        || analysis.data_modifying_cte
        || analysis.view_over_distributed.is_some()
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

pub(crate) struct Change<'t> {
    pub(crate) table: Vec<&'t str>,
    pub(crate) alias: Option<&'t str>,
    set: Range,
    pub(crate) from: Range,
    pub(crate) filter: Range,
    pub(crate) tail: Range,
}

pub(crate) fn read_change<'t>(tokens: &'t Tokens<'_>, update: bool) -> Option<Change<'t>> {
    let end = tokens.len();
    let mut at = if update { 1 } else { 2 };
    if !update && !tokens.is(1, "from") {
        return None;
    }
    if tokens.is(at, "only") {
        at += 1;
    }
    let (table, mut at) = tokens.qualified(at)?;
    at += usize::from(tokens.sign(at, "*"));
    let as_word = tokens.is(at, "as");
    at += usize::from(as_word);
    let clause = tokens.is_any(at, &["set", "using", "where", "returning"]);
    let mut alias = None;
    if at < end && (as_word || !clause) {
        alias = Some(tokens.name(at)?);
        at += 1;
    }
    let stop = |from: usize, words: &[&str]| {
        tokens
            .find(&(from..end), |t| {
                tokens.is_any(t, words)
                    && !(t > 0 && (tokens.is(t - 1, "distinct") || tokens.sign(t - 1, ".")))
            })
            .unwrap_or(end)
    };
    let mut set = at..at;
    if update {
        if !tokens.is(at, "set") {
            return None;
        }
        let next = stop(at + 1, &["from", "where", "returning"]);
        set = at + 1..next;
        at = next;
    }
    let mut from = at..at;
    if tokens.is(at, if update { "from" } else { "using" }) {
        let next = stop(at + 1, &["where", "returning"]);
        from = at + 1..next;
        at = next;
    }
    let mut filter = at..at;
    if tokens.is(at, "where") {
        let next = stop(at + 1, &["returning"]);
        filter = at + 1..next;
        at = next;
    }
    if at < end && !tokens.is(at, "returning") {
        return None;
    }
    Some(Change { table, alias, set, from, filter, tail: at..end })
}

pub(crate) fn update(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    change(tokens, context, StatementKind::Update)
}

pub(crate) fn delete(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    change(tokens, context, StatementKind::Delete)
}

fn change(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    kind: StatementKind,
) -> Result<Plan, PlanError> {
    if context.may_name_sharded(tokens, &tokens.all()).is_none() {
        return Ok(home(context, Access::Write, kind));
    }
    check(tokens)?;
    let change =
        read_change(tokens, kind == StatementKind::Update).ok_or_else(|| unread(tokens))?;
    let table = sharded_target(context, &change.table)?.cloned();
    let analysis = read(tokens, context, &change).map_err(|_| unread(tokens))?;
    if let Some(view) = &analysis.view_over_distributed {
        return Err(view_refused(&view.to_string()));
    }
    if tokens.are(change.filter.start, &["current", "of"]) || analysis.data_modifying_cte {
        return Err(unread(tokens));
    }
    witness(tokens, context, &analysis, None)?;
    let Some(table) = table else {
        if !analysis.uses.is_empty() {
            return Err(PlanError::unsupported(
                "a table that is not distributed cannot be changed from a distributed one",
                "Its rows live on the home shard, the others on every shard.",
                "Read the rows first, and write their values.",
            ));
        }
        return Ok(home(context, Access::Write, kind));
    };
    refuse_home(&analysis)?;
    let TableKind::Distributed { key, .. } = table.kind else {
        if !analysis.uses.is_empty() {
            return Err(PlanError::unsupported(
                "a reference table cannot be changed from a distributed one",
                "Every shard must write the same, and each sees other rows.",
                "Read the rows first, and write their values.",
            ));
        }
        return same_everywhere(tokens, context, kind, &table, &tokens.all());
    };
    refuse_key_change(tokens, &change.set, &table.columns[key].name)?;
    let everywhere = colocated(&analysis);
    let sum = |target| ManyShards { target, sql: None, merge: Merge::Sum };
    if let Some(target) = keys(&analysis.uses) {
        let otherwise = everywhere.then(|| Box::new(Otherwise::Many(sum(target.clone()))));
        let action = Action::One(OneShard { target, otherwise });
        return Ok(plan_of(context, action, Access::Write, Reuse::AnyLiterals, kind));
    }
    if !everywhere {
        return Err(PlanError::unsupported(
            "distributed tables can be combined in a write only where their distribution columns are equal",
            "Rows of the tables that belong together could be on different shards.",
            "Compare the distribution columns of all tables with one value.",
        ));
    }
    if borrow::names_system_column(tokens) {
        return Err(PlanError::unsupported(
            "system columns are not supported in a write on several shards",
            "Each shard has other rows at the same place.",
            "Compare the distribution column with one value.",
        ));
    }
    if !context.scatter {
        return Err(PlanError::unsupported(
            "the statement would touch every shard",
            "The setting pgherd.scatter is off.",
            "Compare the distribution column with a value, or set pgherd.scatter to on.",
        ));
    }
    let action = Action::Many(sum(Target::All));
    Ok(plan_of(context, action, Access::Write, Reuse::AnyLiterals, kind))
}

fn read(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    change: &Change<'_>,
) -> Result<Analysis, Unread> {
    let mut analysis = Analysis::default();
    let mut scope = target_scope(&mut analysis, context, &change.table, change.alias)?;
    let mut conditions = Vec::new();
    if !change.from.is_empty() {
        for part in tokens.split(&change.from) {
            let item = read_from_item(tokens, &part)?;
            analysis.from(tokens, context, &item, &mut scope, &mut conditions)?;
        }
    }
    analysis.conditions(tokens, context, &scope, &conditions)?;
    if !change.filter.is_empty() {
        analysis.conjuncts(tokens, &scope, &change.filter, &Side::Both);
    }
    for range in [&change.filter, &change.set, &change.tail] {
        analysis.expression(tokens, context, range, &scope)?;
    }
    if matches!(context.relation(&change.table), None | Some((_, RelationKind::Home))) {
        // The target itself is no reason to refuse.
        analysis.home.clear();
    }
    analysis.settle();
    Ok(analysis)
}

/// Every shard can do its part: one distributed table, or several joined on their keys, none of
/// them in a subquery.
fn colocated(analysis: &Analysis) -> bool {
    match analysis.uses.len() {
        1 => !analysis.uses[0].odd,
        _ => analysis.blocks == 0 && scatter::connected(analysis),
    }
}
