//! SELECT on many shards: which shapes can run on each shard by itself, and how the answers are
//! put together.

use crate::aggregate;
use crate::analyze::Analysis;
use crate::borrow;
use crate::functions::{self, Nature};
use crate::ordered;
use crate::query::{Distinct, From, JoinKind, Query, Select};
use crate::token::{Kind, Range, Tokens};
use crate::{Limit, ManyShards, Merge, PlanError, Reuse, RowCount, Target, windows};

pub(crate) fn refuse(what: impl Into<std::borrow::Cow<'static, str>>) -> PlanError {
    PlanError::unsupported(
        what,
        "The statement needs rows of several shards together.",
        "Compare the distribution column with one value, so that one shard has all the rows.",
    )
}

pub(crate) fn select(
    tokens: &Tokens<'_>,
    query: &Query,
    analysis: &Analysis,
) -> Result<(ManyShards, Reuse), PlanError> {
    if tokens.all().any(|at| borrow::is_system_column(tokens, at) && !is_named_table(tokens, at)) {
        return Err(refuse("system columns over several shards are not supported"));
    }
    let select = shape(tokens, query, analysis)?;
    let limit = limit(tokens, query)?;
    let mut ranges = select.items.iter().chain(&query.order);
    let aggregated = select.group.is_some()
        || select.having.is_some()
        || ranges.any(|range| windows::aggregates(tokens, range));
    let distinct = select.distinct != Distinct::No;
    if query.locks.is_some() && (aggregated || distinct) {
        return Err(refuse("FOR UPDATE is not supported with aggregates or DISTINCT"));
    }
    if aggregated && !groups_stay(tokens, select, analysis) {
        let builder = aggregate::Builder { tokens, query, select, analysis };
        return Ok((builder.build(&limit)?, Reuse::SameText));
    }
    let limited = limit.count.is_some() || limit.offset.is_some();
    if limited && query.locks.is_some() {
        return Err(refuse("FOR UPDATE with LIMIT over several shards is not supported"));
    }
    let unique = select.distinct == Distinct::Yes && rows_stay(tokens, select, analysis);
    if !query.order.is_empty() || (distinct && !unique) || query.with_ties {
        let merge = ordered::plan(tokens, query, select, analysis, limit)?;
        let sql = Some(merge.shard_query(|_| false).into());
        let merge = Merge::Ordered(merge);
        return Ok((ManyShards { target: Target::All, sql, merge }, Reuse::SameText));
    }
    let sql = limited.then(|| {
        let head = &tokens.sql[..tokens.bytes(&query.tail).start];
        format!("{}{}", head.trim_end(), shard_limit(tokens, query)).into()
    });
    let reuse = if limited { Reuse::SameText } else { Reuse::AnyLiterals };
    Ok((ManyShards { target: Target::All, sql, merge: Merge::Concat { limit } }, reuse))
}

/// Rows of one group are all on one shard, since its key is a part of what they are grouped by.
pub(crate) fn groups_stay(tokens: &Tokens<'_>, select: &Select, analysis: &Analysis) -> bool {
    select.group.iter().flatten().any(|group| {
        let range = tokens.strip_parens(group);
        let range = match ordered::output_column(tokens, select, analysis, &range) {
            // A name is that of a column first.
            Ok(Some(item)) if tokens.name(range.start).is_none() => {
                aggregate::unlabelled(tokens, &select.items[item])
            }
            _ => range,
        };
        ordered::is_key(tokens, select, analysis, &range)
    })
}

/// Rows that are alike are all on one shard, since the client gets the key.
pub(crate) fn rows_stay(tokens: &Tokens<'_>, select: &Select, analysis: &Analysis) -> bool {
    let is_key = |item: &Range| {
        ordered::is_key(tokens, select, analysis, &aggregate::unlabelled(tokens, item))
    };
    select.items.iter().any(is_key)
}

/// `tableoid::regclass`, or `tableoid = 'name'::regclass`: each shard has another number for a table, but
/// the same name. Where such values meet, the shards' numbers must not be compared: the types of the
/// rows tell.
fn is_named_table(tokens: &Tokens<'_>, at: usize) -> bool {
    let regclass = |at: usize| tokens.sign(at, "::") && tokens.is(at + 1, "regclass");
    let compared =
        tokens.sign(at + 1, "=") && matches!(tokens.kind(at + 2), Some(Kind::Literal { .. }));
    tokens.is(at, "tableoid") && (regclass(at + 1) || compared && regclass(at + 3))
}

/// Refuses what cannot run on each shard by itself.
fn shape<'q>(
    tokens: &Tokens<'_>,
    query: &'q Query,
    analysis: &Analysis,
) -> Result<&'q Select, PlanError> {
    if !query.ctes.is_empty() {
        return Err(refuse("WITH queries over several shards are not supported"));
    }
    let select = query.only_select().ok_or_else(|| {
        refuse("UNION, INTERSECT and EXCEPT over several shards are not supported")
    })?;
    for range in select.group.iter().flatten() {
        if tokens.is_any(range.start, &["rollup", "cube", "grouping"]) {
            return Err(refuse(
                "GROUPING SETS, ROLLUP and CUBE over several shards are not supported",
            ));
        }
    }
    let stay = groups_stay(tokens, select, analysis);
    for range in select.items.iter().chain(&query.order).chain(&select.having) {
        functions_allowed(tokens, select, analysis, range, stay)?;
    }
    for range in select.group.iter().flatten().chain([&select.on]) {
        functions_allowed(tokens, select, analysis, range, false)?;
    }
    joins_stay(select, analysis)?;
    Ok(select)
}

/// Refuses a FROM clause whose rows are not those that the shards have of it, each by itself.
pub(crate) fn joins_stay(select: &Select, analysis: &Analysis) -> Result<(), PlanError> {
    if select.from.iter().any(has_subquery) {
        return Err(refuse("subqueries in FROM over several shards are not supported"));
    }
    let mut inside = 0;
    for item in &select.from {
        spread(item, analysis, &mut inside)?;
    }
    if analysis.uses.iter().any(|u| u.odd) {
        return Err(refuse("column aliases over several shards are not supported"));
    }
    if analysis.part_of_reference {
        return Err(refuse("a part of a reference table over several shards is not supported"));
    }
    if !connected(analysis, inside) {
        return Err(refuse("distributed tables can be joined only on their distribution columns"));
    }
    if !subqueries_stay(analysis, inside) {
        return Err(refuse(
            "subqueries on distributed tables over several shards are not supported",
        ));
    }
    Ok(())
}

/// `stay`: rows of one group are on one shard.
fn functions_allowed(
    tokens: &Tokens<'_>,
    select: &Select,
    analysis: &Analysis,
    range: &Range,
    stay: bool,
) -> Result<(), PlanError> {
    let windows_refused = || refuse("window functions over several shards are not supported");
    let is_key = |range: &Range| ordered::is_key(tokens, select, analysis, range);
    let (mut nature, mut name) = (Nature::Immutable, "");
    for at in range.clone() {
        let called = functions::called(tokens, at);
        if let Some((own, open)) = called
            && let Some(over) = windows::over(tokens, open)
        {
            let folds = [Nature::Combined, Nature::OtherAggregate, Nature::Window];
            if !folds.contains(&own) || !windows::stay(tokens, select, over, &is_key) {
                return Err(windows_refused());
            }
        } else if let Some((own, _)) = called
            && own > nature
        {
            (nature, name) = (own, &tokens.list[at].text);
        }
    }
    match nature {
        Nature::Window => Err(windows_refused()),
        Nature::OtherAggregate | Nature::Reading | Nature::Unknown if stay => Ok(()),
        Nature::OtherAggregate => {
            Err(refuse(format!("the aggregate {name}() over several shards is not supported")))
        }
        Nature::Reading => {
            Err(refuse(format!("the function {name}() over several shards is not supported")))
        }
        Nature::Sequence | Nature::Unknown => Err(PlanError::unsupported(
            format!("the function {name}() over several shards is not supported: it could write"),
            "The statement needs rows of several shards together.",
            "Declare a function that only reads STABLE or IMMUTABLE; or compare the distribution \
             column with one value, so that one shard has all the rows.",
        )),
        _ => Ok(()),
    }
}

fn has_subquery(from: &From) -> bool {
    match from {
        From::Subquery { .. } => true,
        From::Join { left, right, .. } => has_subquery(left) || has_subquery(right),
        From::Table { .. } | From::Function { .. } => false,
    }
}

/// True where the item's rows are spread over the shards, false where every shard has all.
/// Counts distributed tables in the order in which the analysis met them.
fn spread(from: &From, analysis: &Analysis, seen: &mut usize) -> Result<bool, PlanError> {
    match from {
        From::Table { parts, .. } => {
            let last = parts.last().map_or("", String::as_str);
            let used = analysis.uses.get(*seen).is_some_and(|u| &*u.table.name.name == last);
            *seen += usize::from(used);
            Ok(used)
        }
        From::Function { .. } => Ok(false),
        From::Subquery { .. } => Err(refuse("subqueries in FROM are not supported")),
        From::Join { left, right, kind, .. } => {
            let left = spread(left, analysis, seen)?;
            let right = spread(right, analysis, seen)?;
            let lost = match kind {
                JoinKind::Inner => false,
                // A row that every shard has would be kept by every shard.
                JoinKind::Left => !left && right,
                JoinKind::Right => left && !right,
                JoinKind::Full => left || right,
            };
            if lost {
                return Err(refuse(
                    "an outer join that keeps rows which every shard has, and FULL JOIN, are not supported over several shards",
                ));
            }
            Ok(left || right)
        }
    }
}

/// The first `inside` distributed tables hang together by equal keys: those of one FROM list.
pub(crate) fn connected(analysis: &Analysis, inside: usize) -> bool {
    let mut reached = vec![false; inside];
    if reached.is_empty() || analysis.uses.iter().any(|u| u.odd) {
        return false;
    }
    reached[0] = true;
    let mut changed = true;
    while changed {
        changed = false;
        for (a, b) in &analysis.edges {
            if *a < inside && *b < inside && reached[*a] != reached[*b] {
                reached[*a] = true;
                reached[*b] = true;
                changed = true;
            }
        }
    }
    reached.iter().all(|r| *r)
}

/// Of the distributed tables in subqueries, only rows matter whose key is that of the row outside:
/// they are on its shard. That one key follows from another is said from outside inwards only: two
/// tables that one NOT EXISTS compares with a third have not the same key.
fn subqueries_stay(analysis: &Analysis, inside: usize) -> bool {
    let mut reached: Vec<bool> = (0..analysis.uses.len()).map(|used| used < inside).collect();
    let mut changed = true;
    while changed {
        changed = false;
        for (from, to) in &analysis.edges {
            if reached[*from] && !reached[*to] {
                reached[*to] = true;
                changed = true;
            }
        }
    }
    reached.iter().all(|r| *r)
}

fn limit(tokens: &Tokens<'_>, query: &Query) -> Result<Limit, PlanError> {
    let rows = |range: &Option<Range>| -> Result<Option<RowCount>, PlanError> {
        let Some(range) = range else { return Ok(None) };
        if range.is_empty() {
            return Ok(Some(RowCount::Rows(1))); // FETCH FIRST ROW ONLY
        }
        let mut inner = tokens.strip_parens(range);
        if let Some(at) = tokens.find(&inner, |at| tokens.sign(at, "::"))
            && tokens.is_any(at + 1, &["int", "int4", "int8", "integer", "bigint"])
            && at + 2 == inner.end
        {
            inner = tokens.strip_parens(&(inner.start..at));
        }
        let single = if inner.len() == 1 { tokens.kind(inner.start) } else { None };
        match single {
            Some(Kind::Literal { .. }) => tokens.list[inner.start]
                .text
                .parse()
                .ok()
                .filter(|n| *n <= u64::MAX / 4)
                .map(|n| Some(RowCount::Rows(n)))
                .ok_or_else(|| refuse("this LIMIT or OFFSET over several shards is not supported")),
            Some(Kind::Param(n)) => Ok(Some(RowCount::Param(n))),
            Some(Kind::Word) if tokens.is_any(inner.start, &["all", "null"]) => Ok(None),
            _ => Err(refuse("LIMIT and OFFSET over several shards must be numbers or parameters")),
        }
    };
    Ok(Limit { count: rows(&query.limit)?, offset: rows(&query.offset)? })
}

/// What the shards get for LIMIT and OFFSET: enough rows for both, all parameters mentioned.
pub(crate) fn shard_limit(tokens: &Tokens<'_>, query: &Query) -> String {
    let Ok(Limit { count, offset }) = limit(tokens, query) else { return String::new() };
    if query.with_ties {
        let count = count.as_ref().map_or_else(|| "NULL".to_owned(), int8);
        let offset = offset.as_ref().map_or_else(String::new, |rows| format!(" + {}", int8(rows)));
        return format!(" FETCH FIRST ({count}{offset}) ROWS WITH TIES");
    }
    match (count, offset) {
        (Some(RowCount::Rows(a)), None) => format!(" LIMIT {a}"),
        (Some(RowCount::Rows(a)), Some(RowCount::Rows(b))) => format!(" LIMIT {}", a + b),
        (Some(a), Some(b)) => format!(" LIMIT {} + {}", int8(&a), int8(&b)),
        (Some(a), None) => format!(" LIMIT {}", int8(&a)),
        (None, Some(RowCount::Param(n))) => unlimited(n),
        (None, _) => String::new(),
    }
}

fn int8(rows: &RowCount) -> String {
    match rows {
        RowCount::Rows(n) => format!("{n}::int8"),
        RowCount::Param(n) => format!("(${n})::int8"),
    }
}

/// No limit, but the parameter is there and has a type.
pub(crate) fn unlimited(param: u16) -> String {
    format!(" LIMIT CASE WHEN false THEN (${param})::int8 END")
}
