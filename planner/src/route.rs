//! Statements that go to one shard with their own text, and the checks that every plan passes.

use pgherd_shard_map::{GroupId, TableName};

use crate::analyze::{Analysis, Use};
use crate::query::{Cte, Query, Unread, fetches, keyword, may_be_cte};
use crate::sequences::{self, Sequences};
use crate::token::{Range, Tokens};
use crate::{
    Access, Action, Context, Gather, KeySource, KeyUse, ManyShards, Merge, OneShard, Otherwise,
    Plan, PlanError, Reuse, StatementKind, Target, borrow, broadcast, functions, parse, scatter,
    table_from_query, view, with,
};

pub(crate) fn plan_of(
    context: &Context<'_>,
    action: Action,
    access: Access,
    reuse: Reuse,
    kind: StatementKind,
) -> Plan {
    let epoch = context.map.epoch;
    Plan { epoch, access, reuse, action, then: None, kind, place: 0, consistency: None }
}

pub(crate) fn one(
    context: &Context<'_>,
    target: Target,
    access: Access,
    kind: StatementKind,
) -> Plan {
    let action = Action::One(OneShard { target, otherwise: None });
    plan_of(context, action, access, Reuse::AnyLiterals, kind)
}

/// A statement that names nothing sharded.
pub(crate) fn home(context: &Context<'_>, access: Access, kind: StatementKind) -> Plan {
    one(context, Target::Home, access, kind)
}

/// SELECT, VALUES, TABLE, WITH … SELECT.
pub(crate) fn select(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    select_as(tokens, context, false)
}

/// With `several_shards` the statement has turned out to need rows of several shards together: what
/// [`select`] leaves to [`Otherwise::Borrow`].
pub(crate) fn select_as(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    several_shards: bool,
) -> Result<Plan, PlanError> {
    let all = tokens.all();
    let named = context.may_name_sharded(tokens, &all);
    let read = if tokens.balanced { strip(tokens, &all) } else { all.clone() };
    let query = match tokens.check_limits() {
        Ok(()) => Query::read(tokens, read.clone()).ok(),
        Err(error) if named.is_some() => return Err(error),
        Err(_) => None,
    };
    let kind = StatementKind::Select;
    let writes = |query: &Query| query.locks.is_some() || query.ctes.iter().any(writing);
    let sequences = sequences::used(tokens, context);
    let copies = functions::reads_only(tokens, &all);
    let reads = copies && sequences == Sequences::Nothing;
    let Some(_) = named else {
        if sequences == Sequences::Sets {
            return Ok(set_sequence(context));
        }
        if tokens.find(&read, |at| keyword(tokens, at, "into")).is_some() {
            return table_from_query::select_into(tokens, context);
        }
        let Some(query) = query else { return Ok(home(context, Access::Write, kind)) };
        let constants = functions::calls_nothing(tokens, &all)
            && !all.clone().any(|at| tokens.is_any(at, &["from", "table"]));
        if constants {
            return Ok(one(context, Target::Any, Access::Read, kind));
        }
        let access = if reads && !writes(&query) { Access::Read } else { Access::Write };
        return Ok(home(context, access, kind));
    };
    let query = query.ok_or_else(|| unread(tokens))?;
    let analysis = Analysis::of_query(tokens, context, &query).map_err(|Unread| unread(tokens))?;
    if analysis.into {
        return Err(table_from_query::unsupported());
    }
    if let Some(view) = &analysis.view_over_distributed {
        return Err(view_refused(view));
    }
    if analysis.data_modifying_cte {
        return with::plan(tokens, context, kind);
    }
    if let Some(name) = analysis.view_read_whole() {
        if !reads || analysis.locks {
            return Err(view_refused(name));
        }
        let why = format!("the view {name}");
        let action = Action::Borrow(view::borrow(tokens, context, why)?);
        return Ok(plan_of(context, action, Access::Read, Reuse::SameText, kind));
    }
    witness(tokens, context, &analysis, query.locks.as_ref())?;
    let access = if reads && !analysis.locks { Access::Read } else { Access::Write };
    if analysis.uses.is_empty() && sequences == Sequences::Sets {
        return Ok(set_sequence(context));
    }
    if analysis.uses.is_empty() {
        let any = analysis.references > 0 && analysis.home.is_empty() && !analysis.locks && reads;
        let target = if any { Target::Any } else { Target::Home };
        return Ok(one(context, target, access, kind));
    }
    let over_copies = |why: String| match analysis.ordered_view {
        true => view::borrow(tokens, context, why),
        false => {
            let mut borrow = borrow::plan(tokens, context, &analysis, why)?;
            if analysis.home.is_empty() && !analysis.locks {
                borrow.broadcasts = broadcast::ways(tokens, context, &query, &analysis).into();
            }
            Ok(borrow)
        }
    };
    let borrowed = |error: PlanError| match access {
        // A copy must not be what a statement writes on or locks.
        Access::Read if error.sqlstate == "0A000" => over_copies(why_borrowed(&error)),
        _ => Err(error),
    };
    if copies && !analysis.locks && sequences != Sequences::Nothing {
        let why = "numbers of a sequence".to_owned();
        let action = Action::Borrow(over_copies(why)?);
        let sets = sequences == Sequences::Sets;
        let access = if sets { Access::Schema } else { Access::Write };
        return Ok(plan_of(context, action, access, Reuse::SameText, kind));
    }
    if several_shards && access != Access::Read {
        return Err(unread(tokens));
    }
    if let Err(error) = refuse_home(&analysis) {
        let action = Action::Borrow(borrowed(error)?);
        return Ok(plan_of(context, action, access, Reuse::SameText, kind));
    }
    if several_shards {
        let why = match on_each_shard(tokens, &query, &analysis) {
            Err(error) => why_borrowed(&error),
            Ok(_) => "arrays or rows that must be combined".to_owned(),
        };
        let action = Action::Borrow(over_copies(why)?);
        return Ok(plan_of(context, action, access, Reuse::SameText, kind));
    }
    if let Some(target) = keys(&analysis.uses) {
        let several = matches!(&target, Target::Keys { keys, .. } if several(keys));
        // One key that cannot be hashed needs all shards too, but a routed statement must not
        // lose its plan for other literals over that.
        let otherwise = match on_each_shard(tokens, &query, &analysis) {
            Ok((mut many, reuse)) => {
                many.target = target.clone();
                Some((Otherwise::Many(many), reuse))
            }
            Err(error) if several => {
                borrowed(error).ok().map(|_| (Otherwise::Borrow, Reuse::AnyLiterals))
            }
            Err(_) => None,
        };
        let otherwise = otherwise.filter(|(_, reuse)| several || *reuse == Reuse::AnyLiterals);
        let reuse = otherwise.as_ref().map_or(Reuse::AnyLiterals, |(_, reuse)| *reuse);
        let otherwise = otherwise.map(|(otherwise, _)| Box::new(otherwise));
        let action = Action::One(OneShard { target, otherwise });
        return Ok(plan_of(context, action, access, reuse, kind));
    }
    let (action, reuse) = match on_each_shard(tokens, &query, &analysis) {
        Ok((many, reuse)) => (Action::Many(many), reuse),
        Err(error) => (Action::Borrow(borrowed(error)?), Reuse::SameText),
    };
    Ok(plan_of(context, action, access, reuse, kind))
}

/// What each shard does by itself, where rows that follow each other as they come are the answer.
fn on_each_shard(
    tokens: &Tokens<'_>,
    query: &Query,
    analysis: &Analysis,
) -> Result<(ManyShards, Reuse), PlanError> {
    match scatter::select(tokens, query, analysis)? {
        (ManyShards { merge: Merge::Concat { .. }, .. }, _) if analysis.ordered_view => {
            Err(scatter::refuse("the order of a view's rows over several shards is not supported"))
        }
        done => Ok(done),
    }
}

/// `setval()` at home, and a new epoch: routers forget the numbers that they have taken.
fn set_sequence(context: &Context<'_>) -> Plan {
    let many = ManyShards { target: Target::Home, sql: None, merge: Merge::Same };
    let (action, kind) = (Action::Many(many), StatementKind::Select);
    plan_of(context, action, Access::Schema, Reuse::AnyLiterals, kind)
}

/// A refusal to run on each shard by itself, as the name of what needs more than that.
fn why_borrowed(error: &PlanError) -> String {
    let message = &error.message;
    [" over several shards are not supported", " over several shards is not supported"]
        .iter()
        .find_map(|end| message.strip_suffix(end))
        .unwrap_or(message)
        .to_owned()
}

/// The shards that all distributed tables are pinned to, if all are.
pub(crate) fn keys<'a>(uses: impl IntoIterator<Item = &'a Use, IntoIter: Clone>) -> Option<Target> {
    let uses = uses.into_iter();
    let first = uses.clone().next()?;
    if uses.clone().any(|u| !u.pinned || u.group != first.group || u.odd) {
        return None;
    }
    Some(keys_of(first.group, uses.flat_map(|u| u.pins.iter().cloned())))
}

/// The shards of these keys.
pub(crate) fn keys_of(group: GroupId, pins: impl Iterator<Item = KeySource>) -> Target {
    let mut keys: Vec<KeySource> = Vec::new();
    for key in pins {
        // Doubles come from several tables pinned alike, not from long lists.
        if keys.len() > 64 || !keys.contains(&key) {
            keys.push(key);
        }
    }
    Target::Keys { group, keys: keys.into(), why: KeyUse::Filter }
}

fn several(keys: &[KeySource]) -> bool {
    keys.len() > 1 || keys.iter().any(|key| matches!(key, KeySource::ParamArray { .. }))
}

fn writing(cte: &Cte) -> bool {
    cte.query.as_ref().is_none_or(|query| query.locks.is_some() || query.ctes.iter().any(writing))
}

/// `(SELECT …)` is that SELECT.
fn strip(tokens: &Tokens<'_>, range: &Range) -> Range {
    tokens.strip_parens(range)
}

/// The parser must accept the statement and name as many sharded relations as we found.
pub(crate) fn witness(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    analysis: &Analysis,
    locks: Option<&Range>,
) -> Result<(), PlanError> {
    // Nor does it know all forms of FETCH.
    let fetches = fetches(tokens).into_iter();
    let fetches = fetches.map(|fetch| (tokens.bytes(&fetch), String::new())).collect();
    let mut sql = match locks {
        Some(_) => tokens.sql.to_owned(),
        None => borrow::spliced(tokens, fetches),
    };
    if tokens.is(0, "table") {
        sql.insert_str(tokens.list[0].start, "SELECT * FROM ");
        let word = tokens.list[0].start + "SELECT * FROM ".len();
        sql.replace_range(word..word + "table".len(), "");
    } else if let Some(locks) = locks {
        // Locking clauses hold table names only, and the parser knows few of their forms.
        let bytes = tokens.bytes(locks);
        sql.replace_range(bytes, "");
    }
    let seen = parse::relations(&sql).map_err(|error| {
        unread(tokens)
            .with_detail(format!("It names a sharded table and cannot be parsed: {error}."))
    })?;
    let sharded = |parts: &Vec<String>| {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        context.spread(&parts).is_some()
    };
    let seen: Vec<&Vec<String>> = seen.iter().filter(|parts| sharded(parts)).collect();
    // A CTE may have the name of a sharded table: then the parser counts more.
    let hidden = |parts: &&&Vec<String>| matches!(&parts[..], [name] if may_be_cte(tokens, name));
    let least = seen.len() - seen.iter().filter(hidden).count();
    if !(least..=seen.len()).contains(&analysis.sharded()) {
        return Err(unread(tokens));
    }
    Ok(())
}

pub(crate) fn refuse_home(analysis: &Analysis) -> Result<(), PlanError> {
    match analysis.home.first() {
        None => Ok(()),
        Some(name) => Err(PlanError::unsupported(
            "distributed tables cannot be joined with tables that are not distributed",
            format!("The relation {name} lives on the home shard only."),
            "Make it a reference table with create_reference_table(), or distribute it.",
        )),
    }
}

/// `pgherd.scatter = off`, and statements that were sent to a given shard.
pub(crate) fn check_scatter(plan: Plan, context: &Context<'_>) -> Result<Plan, PlanError> {
    let all = |many: &ManyShards| many.target == Target::All;
    let action = match &plan.action {
        Action::CopyQuery(copy) => &copy.plan.action,
        action => action,
    };
    let refused = match action {
        Action::Many(many) => all(many) && plan.access != Access::Schema && scattered(many),
        Action::CopyOut(out) => out.target == Target::All,
        Action::Informed(informed) => {
            let mut pulls = informed.pulls.iter();
            (informed.target == Target::All && !informed.same)
                || pulls.any(|pull| pull.target == Target::All)
        }
        Action::Gather(Gather { borrow, .. }) | Action::Borrow(borrow) => {
            borrow.pulls.iter().any(|pull| pull.target == Target::All)
        }
        _ => false,
    };
    if refused && !context.scatter {
        return Err(PlanError::unsupported(
            "the statement would touch every shard",
            "The setting pgherd.scatter is off.",
            "Compare the distribution column with a value, or set pgherd.scatter to on.",
        ));
    }
    Ok(plan)
}

fn scattered(many: &ManyShards) -> bool {
    !matches!(many.merge, Merge::Same | Merge::SameInBlock | Merge::EachAlone)
}

pub(crate) fn unread(tokens: &Tokens<'_>) -> PlanError {
    let start: String = tokens.sql.trim_start().chars().take(40).collect();
    PlanError::unsupported(
        "the statement is not supported on sharded tables",
        format!("Its clauses cannot be told apart with certainty: \"{start}\"."),
        "Write it in a simpler form, or pin it to one shard with SET pgherd.shard.",
    )
}

/// A view in a place where rows of several shards cannot be put together for it.
pub(crate) fn view_refused(name: &TableName) -> PlanError {
    PlanError::unsupported(
        "this view over distributed tables is not supported here",
        format!("The rows of {name} are made of those of several shards together."),
        "Write the view's query into the statement; in the view, let GROUP BY, DISTINCT, PARTITION \
         BY and joins include the distribution column.",
    )
}
