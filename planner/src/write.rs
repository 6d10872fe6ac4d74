//! UPDATE, DELETE, and what all writes have in common.

use std::sync::Arc;

use pgherd_shard_map::{ColumnDefault, KeyType, RelationKind, Table, TableKind, TableName};

use crate::analyze::{self, Analysis, HomeUse, Scope, Side};
use crate::functions::Nature;
use crate::query::{Cte, Unread, read_from_item, starts_query};
use crate::route::{home, keys, keys_of, plan_of, view_refused};
use crate::token::{Kind, Range, Tokens};
use crate::view::{self, Part, Parts};
use crate::witness::{unread, witness};
use crate::{
    Access, Action, Context, Informed, ManyShards, Merge, OneShard, Otherwise, Plan, PlanError,
    Rekey, Reuse, StatementKind, Target, borrow, functions, scatter,
};

/// Before anything sharded is written.
fn check(tokens: &Tokens<'_>) -> Result<(), PlanError> {
    tokens.check_limits()?;
    refuse_sequences(tokens, &tokens.all())
}

/// Shards have sequences of their own, which nobody must ask.
pub(crate) fn refuse_sequences(tokens: &Tokens<'_>, range: &Range) -> Result<(), PlanError> {
    for at in range.clone() {
        if let Some((Some(name @ ("nextval" | "currval" | "lastval" | "setval")), _)) =
            functions::call(tokens, at)
        {
            return Err(PlanError::unsupported(
                format!("{name}() is not supported here in statements on sharded tables"),
                "Each shard has a sequence of its own, which would give the same numbers.",
                "Fetch the number first with SELECT nextval(…), and write it as a value.",
            ));
        }
    }
    Ok(())
}

/// The table that a statement writes, or the view that stands for one.
pub(crate) fn sharded_target(
    context: &Context<'_>,
    parts: &[&str],
    kind: StatementKind,
) -> Result<Option<Arc<Table>>, PlanError> {
    match context.relation(parts) {
        Some((name, RelationKind::View(view))) => {
            let part = view::part(view, context, &mut Parts::default());
            let sure = |part: &Part| match kind {
                StatementKind::Insert => part.takes_rows,
                StatementKind::Merge => false,
                _ => part.writable,
            };
            part.filter(sure).map(|part| Some(part.table)).ok_or_else(|| view_not_written(&name))
        }
        Some((name, RelationKind::ViewOverDistributed)) => Err(view_not_written(&name)),
        Some((name, RelationKind::ViewOverReference)) => Err(PlanError::unsupported(
            "writing through a view over reference tables is not supported",
            format!("The view {name} would write on one shard only."),
            "Write to the table itself.",
        )),
        Some((_, RelationKind::Sharded(table))) => Ok(Some(Arc::clone(table))),
        _ => Ok(None),
    }
}

fn is_view(context: &Context<'_>, parts: &[&str]) -> bool {
    matches!(context.relation(parts), Some((_, RelationKind::View(_))))
}

pub(crate) fn view_not_written(name: &TableName) -> PlanError {
    PlanError::unsupported(
        "writing through this view over distributed tables is not supported",
        format!("It is not certain that {name} stands for rows of one table with the same keys."),
        "Write to the table itself.",
    )
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

/// `SET column = DEFAULT`, where each shard would make a value of its own that must not.
pub(crate) fn refuse_default(
    tokens: &Tokens<'_>,
    set: &Range,
    table: &Table,
) -> Result<(), PlanError> {
    let refused = |column: &&pgherd_shard_map::Column| match column.default {
        ColumnDefault::None | ColumnDefault::Constant | ColumnDefault::Generated => false,
        ColumnDefault::Sequence(_) => true,
        ColumnDefault::RandomUuid | ColumnDefault::Expression => table.kind == TableKind::Reference,
    };
    let mut written = table.columns.iter().filter(refused).filter(|column| {
        set.clone().any(|at| tokens.is(at, "default"))
            && set.clone().any(|at| tokens.name(at) == Some(&*column.name))
    });
    match written.next() {
        None => Ok(()),
        Some(column) => Err(PlanError::unsupported(
            "SET … = DEFAULT is not supported for this column of a sharded table",
            format!("Each shard would compute column \"{}\" by itself.", column.name),
            "Compute the value first, and write it as a literal or a parameter.",
        )),
    }
}

pub(crate) fn refuse_key_change(
    tokens: &Tokens<'_>,
    set: &Range,
    key: &str,
) -> Result<(), PlanError> {
    match key_set(tokens, set, key) {
        None => Ok(()),
        Some(_) => Err(PlanError::unsupported(
            "the distribution column cannot be updated here",
            format!("A row with another \"{key}\" belongs to another shard."),
            "Delete the row and insert it anew, in one transaction.",
        )),
    }
}

/// The part of SET that names the distribution column.
fn key_set(tokens: &Tokens<'_>, set: &Range, key: &str) -> Option<Range> {
    tokens.split(set).into_iter().find(|part| {
        let mut targets = match tokens.kind(part.start) {
            Some(Kind::Open) => part.start + 1..tokens.list[part.start].close,
            _ => part.start..part.start + 1,
        };
        targets.any(|at| tokens.name(at) == Some(key))
    })
}

/// What becomes of rows when their distribution column is set, if it is.
fn rekey(tokens: &Tokens<'_>, set: &Range, table: &Table) -> Result<Option<Rekey>, PlanError> {
    let TableKind::Distributed { key, key_type, group } = table.kind else { return Ok(None) };
    let column = &table.columns[key];
    let Some(part) = key_set(tokens, set, &column.name) else { return Ok(None) };
    refuse_rounded_key(table)?;
    let single = tokens.kind(part.start) != Some(Kind::Open) && tokens.sign(part.start + 1, "=");
    let to = single.then(|| analyze::value(tokens, &(part.start + 2..part.end), key_type));
    let key = u16::try_from(key).map_err(|_| unread(tokens))?;
    Ok(Some(Rekey { table: table.name.clone(), group, key, to: to.flatten() }))
}

/// Of a view, the key may be none of the columns.
fn refuse_own_key_change(tokens: &Tokens<'_>, set: &Range, table: &Table) -> Result<(), PlanError> {
    table.key_column().map_or(Ok(()), |key| refuse_key_change(tokens, set, &key.name))
}

/// A write that every shard must do alike.
pub(crate) fn same_everywhere(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    kind: StatementKind,
    table: &Table,
    range: &Range,
) -> Result<Plan, PlanError> {
    refuse_differing(tokens, table, range)?;
    let many = ManyShards { target: Target::All, sql: None, merge: Merge::Same };
    Ok(plan_of(context, Action::Many(many), Access::Write, Reuse::AnyLiterals, kind))
}

/// Refuses what could be something else on each shard.
pub(crate) fn refuse_differing(
    tokens: &Tokens<'_>,
    table: &Table,
    range: &Range,
) -> Result<(), PlanError> {
    let (nature, name) = functions::worst(tokens, range);
    // The words without parentheses: CURRENT_TIMESTAMP, CURRENT_USER, ….
    let stable = range.clone().find(|at| {
        tokens.word(*at).is_some_and(|w| w.starts_with("current_") || w.starts_with("localtime"))
    });
    // 'now', 'today' and their kin are read as a time by each shard for itself.
    let timed = table
        .columns
        .iter()
        .any(|column| column.type_name.starts_with("time") || column.type_name.starts_with("date"));
    let stable =
        stable.or_else(|| timed.then(|| range.clone().find(|at| is_moving_time(tokens, *at)))?);
    let limited = range.clone().any(|at| tokens.is_any(at, &["limit", "fetch", "for"]));
    let aggregate = matches!(nature, Nature::Combined);
    if (nature <= Nature::Immutable || aggregate) && stable.is_none() && !limited {
        return Ok(());
    }
    let what = match stable {
        Some(at) => tokens.list[at].text.to_string(),
        None if limited => "LIMIT".into(),
        None => format!("{name}()"),
    };
    Err(PlanError::unsupported(
        format!("{what} is not supported in writes to reference tables"),
        "Every shard must write the same, and this may differ from shard to shard.",
        "Compute the value first, and write it as a literal or a parameter.",
    ))
}

/// A string that date and time types read as a moment of now: its first word says so.
fn is_moving_time(tokens: &Tokens<'_>, at: usize) -> bool {
    let Some(Kind::Literal { kind, .. }) = tokens.kind(at) else { return false };
    let Some(text) = crate::literal::decode_str(&tokens.list[at].text, kind) else { return true };
    let text = text.trim().to_ascii_lowercase();
    let word = text.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    ["now", "today", "tomorrow", "yesterday"].contains(&word)
}

pub(crate) struct Change<'t> {
    pub(crate) table: Vec<&'t str>,
    pub(crate) alias: Option<&'t str>,
    pub(crate) set: Range,
    pub(crate) from: Range,
    pub(crate) filter: Range,
    pub(crate) tail: Range,
}

pub(crate) fn read_change<'t>(
    tokens: &'t Tokens<'_>,
    range: Range,
    update: bool,
) -> Option<Change<'t>> {
    let end = range.end;
    let mut at = range.start + if update { 1 } else { 2 };
    if !update && !tokens.is(range.start + 1, "from") {
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
    change_after(tokens, context, kind, &Ahead { ctes: &[], recursive: false, main: 0 })
}

/// WITH queries before a statement's main part, none of which writes.
pub(crate) struct Ahead<'a> {
    pub(crate) ctes: &'a [Cte],
    pub(crate) recursive: bool,
    pub(crate) main: usize,
}

pub(crate) fn change_after(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    kind: StatementKind,
    ahead: &Ahead<'_>,
) -> Result<Plan, PlanError> {
    check(tokens)?;
    let range = ahead.main..tokens.len();
    let change =
        read_change(tokens, range, kind == StatementKind::Update).ok_or_else(|| unread(tokens))?;
    let table = sharded_target(context, &change.table, kind)?;
    let analysis = read(tokens, context, &change, ahead).map_err(|_| unread(tokens))?;
    if analysis.locks {
        return Err(PlanError::unsupported(
            "row locks are not supported in a write on several shards",
            "The rows that it reads are copied.",
            "Compare the distribution columns of all tables with one value.",
        ));
    }
    // What each shard computes by itself, beside its own rows.
    let beside = if ahead.ctes.is_empty() { change.from.clone() } else { tokens.all() };
    if let Some(view) = analysis.view_read_whole() {
        return Err(view_refused(view));
    }
    if tokens.are(change.filter.start, &["current", "of"]) {
        return Err(PlanError::unsupported(
            "WHERE CURRENT OF is not supported on sharded tables",
            "A cursor of the router's has no current row on any shard.",
            "Fetch the distribution column and the primary key, and compare with these.",
        ));
    }
    if analysis.data_modifying_cte {
        return Err(unread(tokens));
    }
    witness(tokens, context, &analysis, None)?;
    let Some(table) = table else {
        if !analysis.uses.is_empty() {
            return informed(tokens, context, kind, analysis, ahead, Target::Home);
        }
        return Ok(home(context, Access::Write, kind));
    };
    refuse_default(tokens, &change.set, &table)?;
    // Which default it is, the view's or its table's, is not known here.
    if is_view(context, &change.table) && change.set.clone().any(|at| tokens.is(at, "default")) {
        return Err(view_not_written(&table.name));
    }
    let TableKind::Distributed { .. } = table.kind else {
        if !analysis.uses.is_empty() || !analysis.home.is_empty() {
            refuse_differing(tokens, &table, &tokens.all())?;
            return informed(tokens, context, kind, analysis, ahead, Target::All);
        }
        return same_everywhere(tokens, context, kind, &table, &tokens.all());
    };
    let everywhere = analysis.home.is_empty() && colocated(&analysis);
    let rekey = match is_view(context, &change.table) {
        true => refuse_own_key_change(tokens, &change.set, &table).map(|()| None)?,
        false => rekey(tokens, &change.set, &table)?,
    };
    let merge = rekey.map_or(Merge::Sum, Merge::Rekeyed);
    let moves = matches!(merge, Merge::Rekeyed(_));
    let sum = |target| ManyShards { target, sql: None, merge: merge.clone() };
    if analysis.home.is_empty()
        && let Some(target) = keys(&analysis.uses)
    {
        let differs = refuse_differing_subqueries(tokens, &beside);
        if moves && everywhere {
            differs?;
            let action = Action::Many(sum(target));
            return Ok(plan_of(context, action, Access::Write, Reuse::AnyLiterals, kind));
        }
        refuse_own_key_change(tokens, &change.set, &table)?;
        let otherwise =
            (everywhere && differs.is_ok()).then(|| Box::new(Otherwise::Many(sum(target.clone()))));
        let action = Action::One(OneShard { target, otherwise });
        return Ok(plan_of(context, action, Access::Write, Reuse::AnyLiterals, kind));
    }
    if !everywhere {
        refuse_own_key_change(tokens, &change.set, &table)?;
        let target = match &analysis.uses[0] {
            own if own.pinned => keys_of(own.group, own.pins.iter().cloned()),
            _ => Target::All,
        };
        return informed(tokens, context, kind, analysis, ahead, target);
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
    refuse_differing_subqueries(tokens, &beside)?;
    let action = Action::Many(sum(Target::All));
    Ok(plan_of(context, action, Access::Write, Reuse::AnyLiterals, kind))
}

fn read(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    change: &Change<'_>,
    ahead: &Ahead<'_>,
) -> Result<Analysis, Unread> {
    let mut analysis = Analysis::default();
    let mut scope = Scope::default();
    scope.add_ctes(ahead.ctes.iter().map(|cte| cte.name.clone()));
    read_change_into(&mut analysis, tokens, context, change, &scope)?;
    if matches!(context.relation(&change.table), None | Some((_, RelationKind::Home))) {
        // The target itself is no reason to refuse.
        analysis.home.clear();
        analysis.home_uses.clear();
    }
    let mut scope = Scope::default();
    if ahead.recursive {
        scope.add_ctes(ahead.ctes.iter().map(|cte| cte.name.clone()));
    }
    for cte in ahead.ctes {
        let query = cte.query.as_ref().ok_or(Unread)?;
        analysis.query(tokens, context, query, &scope)?;
        scope.add_ctes([cte.name.clone()]);
    }
    analysis.settle();
    Ok(analysis)
}

/// What an UPDATE or DELETE reads and writes, its target first.
pub(crate) fn read_change_into(
    analysis: &mut Analysis,
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    change: &Change<'_>,
    outer: &Scope,
) -> Result<(), Unread> {
    let mut scope = outer.clone();
    analysis.table(context, &change.table, change.alias, false, &mut scope)?;
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
    Ok(())
}

/// A function that gives something else each time, called in these tokens.
fn moving_call<'t>(tokens: &'t Tokens<'_>, range: &Range) -> Option<&'t str> {
    let moving = ["random", "gen_random_uuid", "clock_timestamp", "timeofday"];
    range.clone().find_map(|at| {
        functions::call(tokens, at).and_then(|(name, _)| name).filter(|name| moving.contains(name))
    })
}

/// Refuses subqueries that PostgreSQL runs once, and that could come out otherwise on each shard.
/// `from` is what the statement reads beside its target.
pub(crate) fn refuse_differing_subqueries(
    tokens: &Tokens<'_>,
    from: &Range,
) -> Result<(), PlanError> {
    for at in tokens.all() {
        if tokens.kind(at) != Some(Kind::Open) || !starts_query(tokens, at + 1) {
            continue;
        }
        let inside = at + 1..tokens.list[at].close;
        let called = moving_call(tokens, &inside).map(|name| format!("{name}()"));
        let limits = |at| tokens.is_any(at, &["limit", "offset", "fetch"]);
        let cut = from.contains(&at)
            && tokens.find(&inside, limits).is_some()
            && tokens.find(&inside, |at| tokens.are(at, &["order", "by"])).is_none();
        if let Some(what) = called.or_else(|| cut.then(|| "LIMIT without ORDER BY".to_owned())) {
            return Err(PlanError::unsupported(
                format!("{what} in a subquery is not supported in a write on several shards"),
                "Each shard would compute it by itself, and the parts would not fit together.",
                "Compute the value first, or compare the distribution column with one value.",
            ));
        }
    }
    Ok(())
}

/// Each shard changes its own rows, and is told of the others that the statement reads.
fn informed(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    kind: StatementKind,
    mut analysis: Analysis,
    ahead: &Ahead<'_>,
    target: Target,
) -> Result<Plan, PlanError> {
    if borrow::names_system_column(tokens) || !functions::reads_at_most(tokens, &tokens.all()) {
        return Err(PlanError::unsupported(
            "system columns and functions that could write are not supported in a write that reads other shards",
            "The rows that it reads are copied.",
            "Compare the distribution columns of all tables with one value.",
        ));
    }
    if analysis.ordered_view {
        return Err(PlanError::unsupported(
            "a view with an ORDER BY is not supported in a write that reads other shards",
            "The rows that it reads are copied, in no order.",
            "Write ORDER BY into the statement, and leave it out of the view.",
        ));
    }
    if let Some(name) = moving_call(tokens, &tokens.all()) {
        return Err(PlanError::unsupported(
            format!("{name}() is not supported in a write that reads other shards"),
            "Each shard would compute it by itself, and the parts would not fit together.",
            "Compute the value first, and write it as a literal or a parameter.",
        ));
    }
    let own = usize::from(
        target != Target::Home && analysis.uses.first().is_some_and(|u| u.place.is_none()),
    );
    analysis.uses.drain(..own);
    let mut edits = Vec::new();
    if !ahead.ctes.is_empty() {
        // They stand behind the copies.
        edits.push((tokens.bytes(&(0..1 + usize::from(ahead.recursive))), ",".to_owned()));
    }
    let all = |_: &HomeUse| true;
    let home = borrow::home_copies(tokens, &analysis, "", all, &mut edits)?;
    let (pulls, sql) = borrow::copies(tokens, context, &analysis, "", edits)?;
    let informed = Informed {
        same: own == 0 && target == Target::All,
        target,
        pulls: pulls.into(),
        home: home.into(),
        sql: sql.into(),
        recursive: ahead.recursive,
    };
    Ok(plan_of(context, Action::Informed(informed), Access::Write, Reuse::SameText, kind))
}

/// Every shard can do its part: one distributed table, or several joined on their keys, none of
/// them in a subquery.
fn colocated(analysis: &Analysis) -> bool {
    match analysis.uses.len() {
        1 => !analysis.uses[0].odd && !analysis.uses[0].part,
        _ => analysis.blocks == 0 && scatter::connected(analysis, analysis.uses.len()),
    }
}
