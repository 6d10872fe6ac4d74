//! Aggregates and GROUP BY over several shards: each shard sends partial rows, and
//! PostgreSQL finishes them on one shard.
//!
//! The partial row is the group's expressions, then what the aggregates need: `count(x)` sends its
//! count, `avg(x)` sends sum, count and (for its type) average. In the final statement an
//! aggregate becomes an expression over those columns and a group's expression its column. A word
//! that is neither is a column outside of GROUP BY: refused.

use crate::analyze::Analysis;
use crate::functions::{self, Nature};
use crate::ordered::{output_column, own_collation, sort_key};
use crate::query::{Body, Distinct, From, Query, Select};
use crate::scatter::{refuse, unlimited};
use crate::token::{Kind, Range, Tokens};
use crate::{
    Combine, Limit, ManyShards, Merge, PartialSum, Piece, PlanError, RowCount, Target, moment,
};

pub(crate) struct Builder<'q, 't, 'a> {
    pub(crate) tokens: &'t Tokens<'a>,
    pub(crate) query: &'q Query,
    pub(crate) select: &'q Select,
    pub(crate) analysis: &'q Analysis,
}

/// Words of expressions that are no columns.
const EXPRESSION_WORDS: &[&str] = &[
    "and",
    "or",
    "not",
    "case",
    "when",
    "then",
    "else",
    "end",
    "is",
    "null",
    "true",
    "false",
    "in",
    "like",
    "ilike",
    "similar",
    "between",
    "symmetric",
    "distinct",
    "from",
    "to",
    "escape",
    "at",
    "time",
    "zone",
    "interval",
    "as",
    "precision",
    "varying",
    "with",
    "without",
    "unknown",
    "array",
    "current_date",
    "current_timestamp",
    "current_time",
    "localtime",
    "localtimestamp",
    "current_user",
    "for",
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "second",
    "epoch",
    "dow",
    "doy",
    "week",
    "quarter",
    "isnull",
    "notnull",
    "any",
    "some",
    "all",
    "row",
];

#[derive(Default)]
struct Parts {
    /// The partial row's expressions.
    columns: Vec<String>,
    /// The column of the aggregate that was met last, if that is all that it needs.
    last: Option<usize>,
    /// For each of the client's columns, the partial column that it is.
    direct: Vec<Option<u16>>,
    statement: Vec<Piece>,
}

impl Parts {
    fn column(&mut self, expression: String) -> usize {
        if let Some(at) = self.columns.iter().position(|known| *known == expression) {
            return at;
        }
        self.columns.push(expression);
        self.columns.len() - 1
    }

    fn text(&mut self, text: &str) {
        match self.statement.last_mut() {
            Some(Piece::Text(last)) => *last = format!("{last}{text}").into(),
            _ => self.statement.push(Piece::Text(text.into())),
        }
    }
}

impl Builder<'_, '_, '_> {
    pub(crate) fn build(&self, limit: &Limit) -> Result<ManyShards, PlanError> {
        let mut parts = Parts::default();
        let groups = self.aggregated(&mut parts, limit)?;
        let sums = parts.columns.iter().skip(groups.len()).map(|column| partial_sum(column));
        let limited = limit.count.is_some() || limit.offset.is_some();
        let columns = parts.columns[groups.len()..].join(", ");
        let mut body = format!("{columns} {}", self.tokens.text(&self.select.from_range));
        if let Some(filter) = &self.select.filter {
            body.push_str(" WHERE ");
            body.push_str(self.tokens.text(filter));
        }
        let whole = limited
            || !self.query.order.is_empty()
            || self.select.distinct == Distinct::Yes
            || groups.is_empty();
        let direct = parts.direct.iter().copied().collect::<Option<Box<[u16]>>>();
        let combine = Combine {
            direct: direct.filter(|_| !whole && self.select.having.is_none()),
            groups: groups.iter().map(|group| self.tokens.text(group).into()).collect(),
            sums: sums.collect(),
            whole,
            head: Box::default(),
            text: [body.into(), self.mention_limits(limit).into()],
            statement: parts.statement.clone().into(),
        };
        let sql = combine.shard_query(None);
        self.check_params(&parts, &sql)?;
        Ok(ManyShards {
            target: Target::All,
            sql: Some(sql.into()),
            merge: Merge::Combine(combine),
        })
    }

    /// The final statement and the partial columns; returns what the rows are grouped by.
    fn aggregated(&self, parts: &mut Parts, limit: &Limit) -> Result<Vec<Range>, PlanError> {
        let tokens = self.tokens;
        let groups = self.groups()?;
        for group in &groups {
            if own_collation(tokens, self.analysis, group) {
                return Err(own_collation_refused());
            }
            // Not `column()`: equal expressions must keep their numbers.
            parts.columns.push(tokens.text(group).to_owned());
        }
        let distinct = self.select.distinct == Distinct::Yes;
        parts.text(if distinct { "SELECT DISTINCT " } else { "SELECT " });
        for (number, item) in self.select.items.iter().enumerate() {
            if number > 0 {
                parts.text(", ");
            }
            let item = unlabelled(tokens, item);
            parts.last = None;
            self.rewrite(parts, &groups, &item)?;
            let group = self.group_at(&groups, &item, item.start);
            let group = group.filter(|(_, after)| *after == item.end).map(|(group, _)| group);
            let alone = group.or_else(|| parts.last.filter(|_| self.is_call(&item)));
            parts.direct.push(alone.map(|column| column as u16));
        }
        if self.select.items.is_empty() {
            return Err(refuse("this form of SELECT over several shards is not supported"));
        }
        parts.text(" FROM ");
        parts.statement.push(Piece::Source);
        if !groups.is_empty() {
            let names: Vec<String> = (0..groups.len()).map(|n| format!("c{n}")).collect();
            parts.text(&format!(" GROUP BY {}", names.join(", ")));
        }
        if let Some(having) = &self.select.having {
            parts.text(" HAVING ");
            self.rewrite(parts, &groups, having)?;
        }
        self.order(parts, &groups, distinct)?;
        final_limit(parts, limit, self.query.with_ties);

        if parts.columns.is_empty() {
            return Err(refuse("HAVING without aggregates over several shards is not supported"));
        }
        Ok(groups)
    }

    /// GROUP BY's expressions, positions and output names replaced by what they mean.
    fn groups(&self) -> Result<Vec<Range>, PlanError> {
        let tokens = self.tokens;
        let mut groups = Vec::new();
        for item in self.select.group.iter().flatten() {
            if item.is_empty()
                || tokens.is_any(item.start, &["rollup", "cube", "grouping", "all", "distinct"])
                || tokens.strip_parens(item).is_empty()
                || tokens.split(&tokens.strip_parens(item)).len() > 1
            {
                return Err(refuse(
                    "GROUPING SETS, ROLLUP and CUBE over several shards are not supported",
                ));
            }
            let mut range = tokens.strip_parens(item);
            if let (1, Some(Kind::Literal { .. })) = (range.len(), tokens.kind(range.start)) {
                let position = tokens.list[range.start].text.parse::<usize>().ok();
                let star =
                    self.select.items.iter().any(|i| tokens.sign(i.end - 1, "*") && i.len() < 4);
                range = position
                    .filter(|_| !star)
                    .and_then(|n| self.select.items.get(n.checked_sub(1)?))
                    .map(|item| unlabelled(tokens, item))
                    .ok_or_else(|| refuse("this GROUP BY position is not supported"))?;
            } else if let (1, Some(name)) = (range.len(), tokens.name(range.start)) {
                let column = self
                    .analysis
                    .known
                    .iter()
                    .any(|table| table.columns.iter().any(|c| &*c.name == name));
                let mut labels =
                    self.select.items.iter().filter(|i| label(tokens, i) == Some(name));
                let hidden = self.select.items.iter().any(|item| hides_its_label(tokens, item));
                if !column && hidden {
                    return Err(refuse("this GROUP BY name is not supported"));
                }
                if !column && let Some(item) = labels.next() {
                    if labels.next().is_some() || self.select.from.iter().any(has_function) {
                        return Err(refuse("this GROUP BY name is not supported"));
                    }
                    range = unlabelled(tokens, item);
                }
            }
            let (nature, name) = functions::worst(tokens, &range);
            if nature >= Nature::SetReturning {
                return Err(refuse(format!(
                    "{name}() in GROUP BY over several shards is not supported"
                )));
            }
            if moment::is_own(tokens, &range) {
                return Err(refuse("GROUP BY what each shard says for itself is not supported"));
            }
            if has_query(tokens, &range) {
                return Err(refuse("subqueries in GROUP BY over several shards are not supported"));
            }
            groups.push(range);
        }
        Ok(groups)
    }

    fn order(&self, parts: &mut Parts, groups: &[Range], distinct: bool) -> Result<(), PlanError> {
        let tokens = self.tokens;
        for (number, item) in self.query.order.iter().enumerate() {
            parts.text(if number == 0 { " ORDER BY " } else { ", " });
            let (range, key) = sort_key(tokens, item)?;
            let plain = match tokens.find(&range, |at| tokens.is(at, "collate")) {
                Some(at) => range.start..at,
                None => range.clone(),
            };
            match output_column(tokens, self.select, self.analysis, &plain)? {
                // A position takes no COLLATE.
                Some(column) if key.collation.is_none() => parts.text(&(column + 1).to_string()),
                _ if distinct => {
                    return Err(refuse(
                        "ORDER BY an expression that is not selected, with DISTINCT, is not supported",
                    ));
                }
                _ => self.rewrite(parts, groups, &plain)?,
            }
            if let Some(collation) = &key.collation {
                parts.text(&format!(" COLLATE {collation}"));
            }
            parts.text(if key.descending { " DESC" } else { "" });
            if key.nulls_first != key.descending {
                parts.text(if key.nulls_first { " NULLS FIRST" } else { " NULLS LAST" });
            }
        }
        Ok(())
    }

    /// An expression of the statement as one over partial columns.
    fn rewrite(&self, parts: &mut Parts, groups: &[Range], range: &Range) -> Result<(), PlanError> {
        let tokens = self.tokens;
        if has_query(tokens, range) {
            return Err(refuse(
                "subqueries beside aggregates over several shards are not supported",
            ));
        }
        let mut at = range.start;
        while at < range.end {
            if at > range.start {
                parts.text(" ");
            }
            if let Some((group, after)) = self.group_at(groups, range, at) {
                parts.text(&format!("c{group}"));
                at = after;
                continue;
            }
            if let Some((nature, open)) = functions::called(tokens, at) {
                match nature {
                    Nature::Combined => {
                        let name = tokens.name(at).unwrap_or_default();
                        at = self.partial(parts, name, open)?;
                        continue;
                    }
                    Nature::Immutable | Nature::Stable | Nature::Volatile => {}
                    _ => {
                        return Err(refuse(format!(
                            "{}() beside aggregates over several shards is not supported",
                            tokens.list[at].text
                        )));
                    }
                }
                parts.text(&tokens.sql[tokens.bytes(&(at..at + 1))]);
                at += 1;
                continue;
            }
            match tokens.kind(at) {
                Some(Kind::Param(number)) => parts.statement.push(Piece::Param(number)),
                Some(Kind::Word | Kind::Quoted) if !self.harmless(at) => {
                    return Err(refuse(format!(
                        "the column \"{}\" outside of GROUP BY over several shards is not supported",
                        tokens.list[at].text
                    )));
                }
                _ => parts.text(&tokens.sql[tokens.bytes(&(at..at + 1))]),
            }
            at += 1;
        }
        Ok(())
    }

    /// A word that is part of the language here: a keyword, a type's name, a schema of a function.
    fn harmless(&self, at: usize) -> bool {
        let tokens = self.tokens;
        let literal = matches!(tokens.kind(at + 1), Some(Kind::Literal { .. }));
        let pg_catalog = tokens.is(at, "pg_catalog") && tokens.sign(at + 1, ".");
        let kind = at > 0 && (tokens.sign(at - 1, "::") || tokens.is(at - 1, "as"));
        let keyword = tokens.word(at).is_some_and(|word| EXPRESSION_WORDS.contains(&word));
        kind || pg_catalog
            || (keyword && !tokens.sign(at + 1, "."))
            || (tokens.is_any(at, &["date", "timestamp", "time", "timestamptz", "numeric"])
                && literal)
    }

    /// The group's expression that stands here as a whole, and the token after it.
    fn group_at(&self, groups: &[Range], range: &Range, at: usize) -> Option<(usize, usize)> {
        let tokens = self.tokens;
        if at > 0 && tokens.sign(at - 1, ".") {
            return None;
        }
        groups.iter().enumerate().find_map(|(number, group)| {
            let end = at + group.len();
            if end > range.end || !tokens.same(group, &(at..end)) {
                // `x` where GROUP BY says `t.x`, or the other way, with one table only.
                return self.same_column(group, at, range.end).map(|after| (number, after));
            }
            let column = tokens.qualified(at).is_some_and(|(_, after)| after == end);
            if column {
                let more = tokens.sign(end, ".") || tokens.kind(end) == Some(Kind::Open);
                return (!more || end >= range.end).then_some((number, end));
            }
            let call = functions::call(tokens, at)
                .is_some_and(|(_, open)| tokens.list[open].close + 1 == end);
            let opens = at == range.start
                || tokens.kind(at - 1) == Some(Kind::Open)
                || tokens.sign(at - 1, ",");
            let closes =
                end == range.end || tokens.kind(end) == Some(Kind::Close) || tokens.sign(end, ",");
            let filter = tokens.is_any(end, &["filter", "over", "within"]) && end < range.end;
            ((call && !filter) || (opens && closes)).then_some((number, end))
        })
    }

    fn same_column(&self, group: &Range, at: usize, end: usize) -> Option<usize> {
        let tokens = self.tokens;
        let [From::Table { .. }] = self.select.from.as_slice() else { return None };
        let (a, a_end) = tokens.qualified(group.start)?;
        let (b, b_end) = tokens.qualified(at)?;
        let call = tokens.kind(b_end) == Some(Kind::Open) && b_end < end;
        (a_end == group.end && b_end <= end && !call && a.last() == b.last()).then_some(b_end)
    }

    /// An aggregate's partial columns, and its end in the statement.
    fn partial(&self, parts: &mut Parts, name: &str, open: usize) -> Result<usize, PlanError> {
        let tokens = self.tokens;
        let close = tokens.list[open].close;
        let mut inside = open + 1..close;
        if tokens.is_any(close + 1, &["within", "over"]) {
            return Err(refuse(format!(
                "this form of {name}() over several shards is not supported"
            )));
        }
        let (mut filter, mut after) = (String::new(), close + 1);
        if tokens.is(after, "filter") && tokens.kind(after + 1) == Some(Kind::Open) {
            let end = tokens.after(after + 1);
            filter = format!(" {}", tokens.text(&(after..end)));
            after = end;
        }
        if tokens.find(&inside, |at| tokens.are(at, &["order", "by"])).is_some() {
            return Err(refuse(format!(
                "ORDER BY in {name}() over several shards is not supported"
            )));
        }
        let distinct = tokens.is(inside.start, "distinct");
        if distinct || tokens.is(inside.start, "all") {
            inside.start += 1;
        }
        if functions::worst(tokens, &(open + 1..after)).0 >= Nature::SetReturning {
            return Err(refuse(format!(
                "this argument of {name}() over several shards is not supported"
            )));
        }
        let idempotent = matches!(name, "min" | "max" | "bool_and" | "bool_or" | "every");
        if distinct && !idempotent && !(name == "count" && self.is_key(&inside)) {
            return Err(refuse(format!("{name}(DISTINCT …) over several shards is not supported")));
        }
        if matches!(name, "min" | "max") && own_collation(tokens, self.analysis, &inside) {
            return Err(own_collation_refused());
        }
        let argument = tokens.text(&inside);
        let keep = if distinct && name == "count" { "DISTINCT " } else { "" };
        let mut column =
            |function: &str| parts.column(format!("{function}({keep}{argument}){filter}"));
        match name {
            "count" => {
                let n = column("count");
                parts.last = Some(n);
                parts.text(&format!("coalesce(sum(c{n}), 0)::int8"));
            }
            "sum" => {
                let n = column("sum");
                parts.last = Some(n);
                parts.text(&format!("sum(c{n})::"));
                parts.statement.push(Piece::TypeOf(n as u16));
            }
            "avg" => {
                let (sum, count, avg) = (column("sum"), column("count"), column("avg"));
                parts.last = None;
                parts.text(&format!("(sum(c{sum}) / nullif(sum(c{count}), 0))::"));
                parts.statement.push(Piece::TypeOf(avg as u16));
            }
            _ => {
                let n = column(name);
                parts.last = Some(n);
                parts.text(&format!("{name}(c{n})"));
            }
        }
        Ok(after)
    }

    /// One call of an aggregate, with its FILTER, and nothing around it.
    fn is_call(&self, range: &Range) -> bool {
        let tokens = self.tokens;
        let Some((_, open)) = functions::call(tokens, range.start) else { return false };
        let mut after = tokens.after(open);
        if tokens.is(after, "filter") && after < range.end {
            after = tokens.after(after + 1);
        }
        after == range.end
    }

    /// Values of the distribution column are on one shard each, so their numbers add up.
    fn is_key(&self, range: &Range) -> bool {
        let [used] = self.analysis.uses.as_slice() else { return false };
        let [From::Table { .. }] = self.select.from.as_slice() else { return false };
        self.tokens.qualified(range.start).is_some_and(|(parts, end)| {
            end == range.end && parts.last().copied() == used.key_name()
        })
    }

    /// Shards are given no LIMIT, but every parameter must be mentioned.
    fn mention_limits(&self, limit: &Limit) -> String {
        match (&limit.count, &limit.offset) {
            (Some(RowCount::Param(a)), Some(RowCount::Param(b))) if a != b => {
                format!(" LIMIT CASE WHEN false THEN (${a})::int8 + (${b})::int8 END")
            }
            (Some(RowCount::Param(n)), _) | (_, Some(RowCount::Param(n))) => unlimited(*n),
            _ => String::new(),
        }
    }

    fn check_params(&self, parts: &Parts, sql: &str) -> Result<(), PlanError> {
        let shard = Tokens::new(sql);
        let mentioned = |number: u16| shard.list.iter().any(|t| t.kind == Kind::Param(number));
        let lost = parts.statement.iter().any(|p| matches!(p, Piece::Param(n) if !mentioned(*n)))
            || self.tokens.list.iter().any(|t| matches!(t.kind, Kind::Param(n) if !mentioned(n)));
        if lost {
            return Err(refuse(
                "a parameter that stands beside aggregates only is not supported over several shards",
            )
            .with_hint("Write the value as a literal."));
        }
        Ok(())
    }
}

/// Which aggregate a partial column begins with: [`Builder::partial`] has written it.
fn partial_sum(column: &str) -> PartialSum {
    match column.split_once('(').map_or("", |(function, _)| function) {
        "count" | "sum" => PartialSum::Sum,
        "min" => PartialSum::Min,
        "max" => PartialSum::Max,
        "bool_and" | "every" => PartialSum::And,
        "bool_or" => PartialSum::Or,
        _ => PartialSum::Any,
    }
}

fn final_limit(parts: &mut Parts, limit: &Limit, with_ties: bool) {
    let (fetch, rows) =
        if with_ties { (" FETCH FIRST ", " ROWS WITH TIES") } else { (" LIMIT ", "") };
    for (before, count, after) in [(" OFFSET ", &limit.offset, ""), (fetch, &limit.count, rows)] {
        match count {
            None => {}
            Some(RowCount::Rows(n)) => parts.text(&format!("{before}{n}{after}")),
            Some(RowCount::Param(n)) => {
                parts.text(&format!("{before}("));
                parts.statement.push(Piece::Param(*n));
                parts.text(&format!(")::int8{after}"));
            }
        }
    }
}

fn own_collation_refused() -> PlanError {
    refuse(
        "grouping and comparing a column with a collation of its own over several shards is not supported",
    )
}

fn has_query(tokens: &Tokens<'_>, range: &Range) -> bool {
    range
        .clone()
        .any(|at| tokens.kind(at) == Some(Kind::Open) && crate::query::starts_query(tokens, at + 1))
}

fn has_function(from: &From) -> bool {
    match from {
        From::Function { .. } => true,
        From::Join { left, right, .. } => has_function(left) || has_function(right),
        _ => false,
    }
}

/// Where an item's own name begins: at AS, or at a name that follows a complete expression.
fn label_start(tokens: &Tokens<'_>, item: &Range) -> Option<usize> {
    let last = item.end.checked_sub(1)?;
    if item.len() >= 3 && tokens.is(last - 1, "as") {
        return Some(last - 1);
    }
    if item.len() < 2 {
        return None;
    }
    let name = tokens.name(last)?;
    let quoted = tokens.kind(last) == Some(Kind::Quoted);
    if !quoted && EXPRESSION_WORDS.contains(&name) {
        return None;
    }
    let before = last - 1;
    let complete = match tokens.kind(before)? {
        Kind::Close | Kind::Literal { .. } | Kind::Param(_) | Kind::Quoted => true,
        Kind::Operator => tokens.sign(before, "]"),
        Kind::Word => {
            !EXPRESSION_WORDS.contains(&tokens.word(before)?)
                || tokens.is_any(before, &["end", "null", "true", "false", "precision", "zone"])
        }
        _ => false,
    };
    // `date '…'` ends in a literal, not in a name; `x::numeric y` has one.
    complete.then_some(last)
}

/// The expression of a select item, without its name.
pub(crate) fn unlabelled(tokens: &Tokens<'_>, item: &Range) -> Range {
    item.start..label_start(tokens, item).unwrap_or(item.end)
}

/// The name of the output column, as far as ORDER BY and GROUP BY can mean it.
pub(crate) fn label<'t>(tokens: &'t Tokens<'_>, item: &Range) -> Option<&'t str> {
    if label_start(tokens, item).is_some() {
        return tokens.name(item.end - 1);
    }
    let mut range = tokens.strip_parens(item);
    if tokens.is(range.start, "case") {
        let last = range.end.checked_sub(2)?;
        return Some(tokens.name(last).filter(|_| tokens.is(last - 1, "else")).unwrap_or("case"));
    }
    if let Some(query) = subquery(tokens, item) {
        return label_of_query(tokens, &query);
    }
    if tokens.is(range.start, "cast")
        && tokens.kind(range.start + 1) == Some(Kind::Open)
        && tokens.after(range.start + 1) == range.end
    {
        range = range.start + 2..range.end - 1;
        range.end = tokens.find(&range, |at| tokens.is(at, "as")).unwrap_or(range.end);
    }
    // The name goes through casts, subscripts and COLLATE, and through nothing else.
    let stop = tokens.find(&range, |at| {
        tokens.sign(at, "::") || tokens.sign(at, "[") || tokens.is(at, "collate")
    });
    let rest = stop.unwrap_or(range.end)..range.end;
    let goes_on = |at: usize| {
        let sign = tokens.kind(at) == Some(Kind::Operator)
            && !["::", "[", "]", "."].iter().any(|sign| tokens.sign(at, sign));
        sign || tokens.is_any(at, BETWEEN_OPERANDS)
    };
    if tokens.find(&rest, goes_on).is_some() {
        return None;
    }
    let whole = range.start..rest.start;
    let inner = tokens.strip_parens(&whole);
    if tokens.kind(inner.start) == Some(Kind::Open) {
        // A field of a row: `(expression).field`.
        let field = inner.end.checked_sub(1).filter(|at| tokens.sign(at - 1, "."))?;
        return tokens.name(field).filter(|_| tokens.after(inner.start) == field - 1);
    }
    let (parts, after) = tokens.qualified(inner.start)?;
    let call = tokens.kind(after) == Some(Kind::Open) && tokens.after(after) == inner.end;
    (after == inner.end || call).then(|| parts.last().copied()).flatten()
}

/// Words that make an expression of two.
const BETWEEN_OPERANDS: &[&str] = &[
    "and", "or", "is", "in", "not", "like", "ilike", "similar", "between", "isnull", "notnull",
    "at", "operator",
];

/// The tokens of a query that is the whole item, in its parentheses.
fn subquery(tokens: &Tokens<'_>, item: &Range) -> Option<Range> {
    let inside = tokens.strip_parens(item);
    (inside != *item && crate::query::starts_query(tokens, inside.start)).then_some(inside)
}

/// A query's first column is called so.
fn label_of_query<'t>(tokens: &'t Tokens<'_>, range: &Range) -> Option<&'t str> {
    let query = Query::read(tokens, range.clone()).ok()?;
    match query.body.first()? {
        Body::Select(select) => label(tokens, select.items.first()?),
        _ => None,
    }
}

/// The item has a name that [`label`] cannot tell.
pub(crate) fn hides_its_label(tokens: &Tokens<'_>, item: &Range) -> bool {
    label_start(tokens, item).is_none()
        && label(tokens, item).is_none()
        && subquery(tokens, item).is_some()
}
