//! Statements that go to one shard with their own text, and the checks that every plan passes.

use pgherd_shard_map::{GroupId, TableName};

use crate::analyze::{Analysis, Use};
use crate::query::{Cte, Query, Unread, keyword};
use crate::sequences::{self, Sequences};
use crate::token::{Range, Tokens};
use crate::witness::{unread, witness};
use crate::{
    Access, Action, Carried, CarriedTo, Context, Gather, KeySource, KeyUse, ManyShards, Merge,
    OneShard, Otherwise, Plan, PlanError, Reuse, StatementKind, Target, borrow, broadcast,
    functions, scatter, table_from_query, view, with,
};

pub(crate) fn plan_of(
    context: &Context<'_>,
    action: Action,
    access: Access,
    reuse: Reuse,
    kind: StatementKind,
) -> Plan {
    let epoch = context.map.epoch;
    Plan {
        epoch,
        access,
        reuse,
        action,
        then: None,
        kind,
        place: 0,
        consistency: None,
        touches: None,
    }
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
    // On one server it costs nothing to think that a function of a user could write, whatever it
    // says; on several it is taken at its word, and held to it over copies.
    let copies = functions::reads_at_most(tokens, &all);
    let reads = functions::reads_only(tokens, &all) && sequences == Sequences::Nothing;
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
        return table_from_query::select_into(tokens, context);
    }
    if let Some(view) = &analysis.view_over_distributed {
        return Err(view_refused(view));
    }
    if analysis.data_modifying_cte {
        return with::plan(tokens, context, kind);
    }
    if let Some(name) = analysis.view_read_whole() {
        if !copies || sequences != Sequences::Nothing || analysis.locks {
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
    let borrowed = |error: PlanError| {
        // A copy must not be what a statement writes on or locks.
        if copies && !analysis.locks && error.sqlstate == "0A000" {
            return over_copies(why_borrowed(&error));
        }
        Err(error)
    };
    if copies && !analysis.locks && sequences != Sequences::Nothing {
        let why = "numbers of a sequence".to_owned();
        let action = Action::Borrow(over_copies(why)?);
        let sets = sequences == Sequences::Sets;
        let access = if sets { Access::Schema } else { Access::Write };
        return Ok(plan_of(context, action, access, Reuse::SameText, kind));
    }
    if several_shards && (!copies || analysis.locks) {
        return Err(unread(tokens));
    }
    let together = if copies && !analysis.locks { Access::Read } else { Access::Write };
    if let Err(error) = refuse_home(&analysis) {
        let action = Action::Borrow(borrowed(error)?);
        return Ok(plan_of(context, action, together, Reuse::SameText, kind));
    }
    if several_shards {
        let why = match on_each_shard(tokens, &query, &analysis) {
            Err(error) => why_borrowed(&error),
            Ok(_) => "arrays or rows that must be combined".to_owned(),
        };
        let action = Action::Borrow(over_copies(why)?);
        return Ok(plan_of(context, action, together, Reuse::SameText, kind));
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
    Ok(plan_of(context, action, together, reuse, kind))
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

/// The one shard of rows that are looked for by these keys and of new ones with those.
pub(crate) fn with_new_keys(target: Target, new: &[KeySource]) -> Target {
    match target {
        Target::Keys { group, keys, .. } if !new.is_empty() => {
            let filters = keys.len() as u32;
            let keys = keys.iter().chain(new).cloned().collect();
            Target::Keys { group, keys, why: KeyUse::Both { filters } }
        }
        target => target,
    }
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
        Action::Carried(Carried { to: CarriedTo::All | CarriedTo::ByKey { .. }, .. }) => true,
        Action::Gather(Gather { borrow, .. })
        | Action::Carried(Carried { borrow, .. })
        | Action::Borrow(borrow) => borrow.pulls.iter().any(|pull| pull.target == Target::All),
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
    !matches!(
        many.merge,
        Merge::Same | Merge::SameInBlock | Merge::EachAlone(_) | Merge::Numbered(_)
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
