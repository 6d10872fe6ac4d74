//! SELECT on many shards: which shapes can run on each shard by itself, and how the answers are
//! put together.

use crate::aggregate;
use crate::analyze::Analysis;
use crate::borrow;
use crate::functions::{self, Nature};
use crate::query::{Distinct, From, JoinKind, Query, Select};
use crate::token::{Kind, Range, Tokens};
use crate::{Limit, ManyShards, Merge, Ordered, PlanError, Reuse, RowCount, SortKey, Target};

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
    if borrow::names_system_column(tokens) && !tokens.all().any(|at| tokens.is(at, "tableoid")) {
        return Err(refuse("system columns over several shards are not supported"));
    }
    let select = shape(tokens, query, analysis)?;
    let limit = limit(tokens, query)?;
    let aggregated = select.group.is_some()
        || select.having.is_some()
        || select.items.iter().chain(&query.order).any(|range| {
            matches!(functions::worst_of(tokens, range, Nature::Combined), Some(Nature::Combined))
        });
    if aggregated || select.distinct == Distinct::Yes {
        if query.locks.is_some() {
            return Err(refuse("FOR UPDATE is not supported with aggregates or DISTINCT"));
        }
        let builder = aggregate::Builder { tokens, query, select, analysis };
        return Ok((builder.build(&limit, aggregated)?, Reuse::SameText));
    }
    let limited = limit.count.is_some() || limit.offset.is_some();
    if limited && query.locks.is_some() {
        return Err(refuse("FOR UPDATE with LIMIT over several shards is not supported"));
    }
    if query.order.is_empty() {
        let sql = limited.then(|| {
            let head = &tokens.sql[..tokens.bytes(&query.tail).start];
            format!("{}{}", head.trim_end(), shard_limit(tokens, query)).into()
        });
        let reuse = if limited { Reuse::SameText } else { Reuse::AnyLiterals };
        return Ok((
            ManyShards { target: Target::All, sql, merge: Merge::Concat { limit } },
            reuse,
        ));
    }
    ordered(tokens, query, select, analysis, limit).map(|many| (many, Reuse::SameText))
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
    if query.with_ties {
        return Err(refuse("FETCH … WITH TIES over several shards is not supported"));
    }
    if select.distinct == Distinct::On {
        return Err(refuse("DISTINCT ON over several shards is not supported"));
    }
    for range in select.group.iter().flatten() {
        if tokens.is_any(range.start, &["rollup", "cube", "grouping"]) {
            return Err(refuse(
                "GROUPING SETS, ROLLUP and CUBE over several shards are not supported",
            ));
        }
    }
    for range in select.items.iter().chain(&query.order).chain(&select.having) {
        functions_allowed(tokens, range)?;
    }
    for range in select.group.iter().flatten() {
        functions_allowed(tokens, range)?;
    }
    if select.window {
        return Err(refuse("window functions over several shards are not supported"));
    }
    if select.from.iter().any(has_subquery) {
        return Err(refuse("subqueries in FROM over several shards are not supported"));
    }
    let mut inside = 0;
    for item in &select.from {
        spread(item, analysis, &mut inside)?;
    }
    if analysis.uses.len() != inside {
        return Err(refuse(
            "subqueries on distributed tables over several shards are not supported",
        ));
    }
    if analysis.uses.iter().any(|u| u.odd) {
        return Err(refuse(
            "column aliases, ONLY and TABLESAMPLE over several shards are not supported",
        ));
    }
    if !connected(analysis) {
        return Err(refuse("distributed tables can be joined only on their distribution columns"));
    }
    Ok(select)
}

fn functions_allowed(tokens: &Tokens<'_>, range: &Range) -> Result<(), PlanError> {
    for at in range.clone() {
        if tokens.is(at, "over") && at > 0 && tokens.kind(at - 1) == Some(Kind::Close) {
            return Err(refuse("window functions over several shards are not supported"));
        }
    }
    let (nature, name) = functions::worst(tokens, range);
    match nature {
        Nature::Window => Err(refuse("window functions over several shards are not supported")),
        Nature::OtherAggregate => {
            Err(refuse(format!("the aggregate {name}() over several shards is not supported")))
        }
        Nature::Sequence | Nature::Unknown => Err(refuse(format!(
            "the function {name}() over several shards is not supported: it could be an aggregate"
        ))),
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

/// All distributed tables hang together by equal keys.
pub(crate) fn connected(analysis: &Analysis) -> bool {
    let mut reached = vec![false; analysis.uses.len()];
    if reached.is_empty() || analysis.uses.iter().any(|u| u.odd) {
        return false;
    }
    reached[0] = true;
    let mut changed = true;
    while changed {
        changed = false;
        for (a, b) in &analysis.edges {
            if reached[*a] != reached[*b] {
                reached[*a] = true;
                reached[*b] = true;
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

/// One ORDER BY item without its ASC, DESC, NULLS FIRST, NULLS LAST.
pub(crate) fn sort_key(tokens: &Tokens<'_>, item: &Range) -> Result<(Range, SortKey), PlanError> {
    let mut end = item.end;
    let mut nulls = None;
    if end >= item.start + 3 && tokens.is(end - 2, "nulls") {
        nulls = Some(tokens.is(end - 1, "first"));
        end -= 2;
    }
    let mut descending = false;
    if end > item.start + 1 && tokens.is_any(end - 1, &["asc", "desc"]) {
        descending = tokens.is(end - 1, "desc");
        end -= 1;
    }
    let range = item.start..end;
    if tokens.find(&range, |at| tokens.is(at, "using")).is_some() {
        return Err(refuse("ORDER BY … USING over several shards is not supported"));
    }
    let mut collation = None;
    if let Some(at) = tokens.find(&range, |at| tokens.is(at, "collate")) {
        collation = Some(tokens.text(&(at + 1..end)).into());
    }
    let nulls_first = nulls.unwrap_or(descending);
    Ok((range, SortKey { column: 0, descending, nulls_first, collation }))
}

/// Number of output columns; `*` counts the columns of the tables that are known.
pub(crate) fn width(tokens: &Tokens<'_>, select: &Select, analysis: &Analysis) -> Option<u16> {
    let star = |item: &Range| {
        tokens.sign(item.end - 1, "*") && (item.len() == 1 || tokens.sign(item.end - 2, "."))
    };
    if !select.items.iter().any(star) {
        return u16::try_from(select.items.len()).ok();
    }
    // One distributed table and nothing else: every star is its columns.
    let [From::Table { .. }] = select.from.as_slice() else { return None };
    let columns = analysis.uses.first()?.table.columns.len();
    let total: usize = select.items.iter().map(|item| if star(item) { columns } else { 1 }).sum();
    u16::try_from(total).ok()
}

/// The output column that an ORDER BY item means: a position, an output name, or the same
/// expression.
pub(crate) fn output_column(
    tokens: &Tokens<'_>,
    select: &Select,
    key: &Range,
) -> Result<Option<usize>, PlanError> {
    let stars = select
        .items
        .iter()
        .any(|i| tokens.sign(i.end - 1, "*") && (i.len() == 1 || tokens.sign(i.end - 2, ".")));
    // `ORDER BY (1)` is a position, too.
    let key = &tokens.strip_parens(key);
    if let (1, Some(Kind::Literal { .. })) = (key.len(), tokens.kind(key.start)) {
        let position: Option<usize> = tokens.list[key.start].text.parse().ok();
        let position = position.filter(|n| *n > 0 && *n <= select.items.len() && !stars);
        return match position {
            Some(n) => Ok(Some(n - 1)),
            None => Err(refuse("this ORDER BY position over several shards is not supported")),
        };
    }
    if stars {
        // A hidden column is added; but a bare name could be the label of another item.
        let label = key.len() == 1
            && select.items.iter().any(|i| aggregate::label(tokens, i) == tokens.name(key.start));
        return if label {
            Err(refuse("ORDER BY an output name beside * over several shards is not supported"))
        } else {
            Ok(None)
        };
    }
    if key.len() == 1
        && let Some(name) = tokens.name(key.start)
    {
        let mut named = select
            .items
            .iter()
            .enumerate()
            .filter(|(_, item)| aggregate::label(tokens, item) == Some(name));
        match (named.next(), named.next()) {
            (Some((at, _)), None) => return Ok(Some(at)),
            (Some(_), Some(_)) => {
                return Err(refuse("this ORDER BY name over several shards is not supported"));
            }
            _ => {}
        }
    }
    Ok(select.items.iter().position(|item| tokens.same(&aggregate::unlabelled(tokens, item), key)))
}

/// Names a column that has a collation of its own.
pub(crate) fn own_collation(tokens: &Tokens<'_>, analysis: &Analysis, range: &Range) -> bool {
    let collated = |name: &str| analysis.collated.iter().any(|column| **column == *name);
    range.clone().any(|at| tokens.name(at).is_some_and(collated))
}

fn ordered(
    tokens: &Tokens<'_>,
    query: &Query,
    select: &Select,
    analysis: &Analysis,
    limit: Limit,
) -> Result<ManyShards, PlanError> {
    let width = width(tokens, select, analysis).filter(|width| *width > 0).ok_or_else(|| {
        refuse("ORDER BY with * of several tables over several shards is not supported")
    })?;
    let mut keys = Vec::new();
    let mut added: Vec<String> = Vec::new();
    for item in &query.order {
        let (range, mut key) = sort_key(tokens, item)?;
        let expression = match output_column(tokens, select, &range)? {
            Some(column) => {
                key.column = column as u16;
                select.items[column].clone()
            }
            None => {
                key.column = width + added.len() as u16;
                added.push(format!(", {} AS pgherd_s{}", tokens.text(&range), added.len()));
                range
            }
        };
        if key.collation.is_none()
            && (own_collation(tokens, analysis, &expression)
                || tokens.find(&expression, |at| tokens.is(at, "collate")).is_some())
        {
            return Err(refuse(
                "ORDER BY a column with a collation of its own over several shards is not supported",
            ));
        }
        keys.push(key);
    }
    let limited = limit.count.is_some() || limit.offset.is_some();
    let sql = (limited || !added.is_empty()).then(|| {
        let list_end = match select.items.last() {
            Some(item) => tokens.bytes(item).end,
            None => 0,
        };
        let order_end = tokens.bytes(query.order.last().unwrap_or(&query.tail)).end;
        let locks = query.locks.as_ref().map_or(String::new(), |l| format!(" {}", tokens.text(l)));
        format!(
            "{}{}{}{}{locks}",
            &tokens.sql[..list_end],
            added.concat(),
            &tokens.sql[list_end..order_end],
            shard_limit(tokens, query),
        )
        .into()
    });
    if select.items.is_empty() && !added.is_empty() {
        return Err(refuse("TABLE with ORDER BY over several shards is not supported"));
    }
    let merge = Merge::Ordered(Ordered { keys: keys.into(), hidden: added.len() as u16, limit });
    Ok(ManyShards { target: Target::All, sql, merge })
}
