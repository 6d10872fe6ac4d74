//! UPDATE and DELETE: on the one shard of their key, on each shard by itself, or with copies of the rows
//! of others that they read.

use pgherd_shard_map::{RelationKind, Table, TableKind};

use crate::analyze::{self, Analysis, HomeUse, Scope, Side};
use crate::query::{Cte, Unread, read_from_item};
use crate::route::{home, keys, keys_of, plan_of, view_refused};
use crate::token::{Kind, Range, Tokens};
use crate::witness::{unread, witness};
use crate::write::{
    key_set, moving_call, refuse_default, refuse_differing, refuse_differing_subqueries,
    refuse_key_change, refuse_rounded_key, refuse_sequences, same_everywhere, sharded_target,
    view_not_written,
};
use crate::{
    Access, Action, Context, Informed, ManyShards, Merge, OneShard, Otherwise, Plan, PlanError,
    Rekey, Reuse, StatementKind, Target, borrow, functions, moment, scatter,
};

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

/// Before anything sharded is written.
fn check(tokens: &Tokens<'_>) -> Result<(), PlanError> {
    tokens.check_limits()?;
    refuse_sequences(tokens, &tokens.all())
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
        return match same_everywhere(tokens, context, kind, &table, &tokens.all()) {
            Err(error) if ahead.ctes.is_empty() => {
                at_one_moment(tokens, context, kind, &table).ok_or(error)
            }
            plan => plan,
        };
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

fn is_view(context: &Context<'_>, parts: &[&str]) -> bool {
    matches!(context.relation(parts), Some((_, RelationKind::View(_))))
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
        moment: false,
    };
    Ok(plan_of(context, Action::Informed(informed), Access::Write, Reuse::SameText, kind))
}

/// A write to a reference table that differs by nothing but the time.
fn at_one_moment(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    kind: StatementKind,
    table: &Table,
) -> Option<Plan> {
    let sql = moment::read_once(tokens)?;
    let edited = Tokens::known(&sql, context);
    refuse_differing(&edited, table, &edited.all()).ok()?;
    let informed = Informed {
        same: true,
        target: Target::All,
        pulls: Box::default(),
        home: Box::default(),
        sql: sql.as_str().into(),
        recursive: false,
        moment: true,
    };
    Some(plan_of(context, Action::Informed(informed), Access::Write, Reuse::SameText, kind))
}

/// Every shard can do its part: one distributed table, or several joined on their keys, none of
/// them in a subquery.
fn colocated(analysis: &Analysis) -> bool {
    match analysis.uses.len() {
        1 => !analysis.uses[0].odd && !analysis.uses[0].part,
        _ => analysis.blocks == 0 && scatter::connected(analysis, analysis.uses.len()),
    }
}
