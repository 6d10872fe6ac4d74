//! Rows of several shards in one order: ORDER BY, DISTINCT and DISTINCT ON.
//!
//! Each shard sorts its own rows and sends what it has sorted by in front of them; the router merges
//! the streams ([`Ordered`]). So DISTINCT is a sort, too, by all columns that the client sees: equal
//! rows meet, and the first of them is the one. Its order is free, which lets texts be sorted by
//! their bytes.

use pgherd_shard_map::quoted;

use crate::aggregate;
use crate::analyze::Analysis;
use crate::functions::{self, Nature};
use crate::query::{Distinct, From, JoinKind, JoinOn, Query, Select};
use crate::scatter::{refuse, shard_limit};
use crate::token::{Kind, Range, Tokens};
use crate::{Limit, Ordered, PlanError, SortKey, moment};

pub(crate) fn plan(
    tokens: &Tokens<'_>,
    query: &Query,
    select: &Select,
    analysis: &Analysis,
    limit: Limit,
) -> Result<Ordered, PlanError> {
    let mut builder = Builder {
        tokens,
        select,
        analysis,
        keys: Vec::new(),
        ranges: Vec::new(),
        outputs: Vec::new(),
    };
    for item in &query.order {
        builder.order(item)?;
    }
    let mut width = None;
    let (head, distinct) = match select.distinct {
        Distinct::No => ("SELECT ".to_owned(), 0),
        Distinct::Yes => {
            width = Some(builder.all_outputs()?);
            ("SELECT DISTINCT ".to_owned(), builder.keys.len())
        }
        Distinct::On => {
            let leading = builder.distinct_on()?;
            let places: Vec<String> = (1..=leading).map(|place| place.to_string()).collect();
            (format!("SELECT DISTINCT ON ({}) ", places.join(", ")), leading)
        }
    };
    if builder.keys.is_empty() {
        return Err(refuse("this form of SELECT over several shards is not supported"));
    }
    if query.with_ties && builder.keys.len() != query.order.len() {
        return Err(refuse("DISTINCT with FETCH … WITH TIES over several shards is not supported"));
    }
    let locks = query.locks.as_ref().map_or(String::new(), |l| format!(" {}", tokens.text(l)));
    let text = [
        head.into(),
        builder.body(query).into(),
        format!("{}{locks}", shard_limit(tokens, query)).into(),
    ];
    let too_many = |_| refuse("so many columns over several shards are not supported");
    let distinct = u16::try_from(distinct).map_err(too_many)?;
    let known_by = builder.keys.iter().take(usize::from(distinct));
    if known_by.map(|key| Tokens::new(&key.expression)).any(|key| moment::is_own(&key, &key.all()))
    {
        return Err(refuse("DISTINCT by what each shard says for itself is not supported"));
    }
    let selected = match (distinct, &query.locks) {
        (0, None) => builder.selected(),
        _ => None,
    };
    let (keys, ties) = (builder.keys.into(), query.with_ties);
    Ok(Ordered { keys, distinct, width, limit, ties, text, selected })
}

struct Builder<'q, 't, 'a> {
    tokens: &'t Tokens<'a>,
    select: &'q Select,
    analysis: &'q Analysis,
    keys: Vec<SortKey>,
    /// Where the expressions of ORDER BY stand.
    ranges: Vec<Range>,
    /// The item of the select list that each key is, if it is one.
    outputs: Vec<Option<usize>>,
}

impl Builder<'_, '_, '_> {
    /// One item of ORDER BY.
    fn order(&mut self, item: &Range) -> Result<(), PlanError> {
        let (range, key) = sort_key(self.tokens, item)?;
        let output = output_column(self.tokens, self.select, self.analysis, &range)?;
        let range = match output {
            Some(column) => self.item(column)?,
            None => range,
        };
        let collation = self.collation(&range)?;
        self.keys.push(SortKey { expression: self.tokens.text(&range).into(), collation, ..key });
        self.ranges.push(range);
        self.outputs.push(output);
        Ok(())
    }

    /// Keys for all columns of DISTINCT that ORDER BY has not named, and how many there are.
    fn all_outputs(&mut self) -> Result<u16, PlanError> {
        let ordered = self.keys.len();
        let mut width = 0_u16;
        for (number, item) in self.select.items.iter().enumerate() {
            if is_star(self.tokens, item) {
                let columns = star_columns(self.tokens, self.select, self.analysis, item)
                    .ok_or_else(|| {
                        refuse("this form of DISTINCT * over several shards is not supported")
                    })?;
                for (expression, collation) in columns {
                    width = width.saturating_add(1);
                    for (key, output) in self.keys.iter().zip(&mut self.outputs[..ordered]) {
                        let column = expression.rsplit_once('.').map_or("", |(_, column)| column);
                        if output.is_none()
                            && column.trim_matches('"') == key.expression.trim_matches('"')
                        {
                            *output = Some(number);
                        }
                    }
                    self.free(expression, collation, None);
                }
                continue;
            }
            width = width.saturating_add(1);
            if !self.outputs[..ordered].contains(&Some(number)) {
                let range = self.item(number)?;
                let collation = self.collation(&range)?;
                self.free(self.tokens.text(&range).to_owned(), collation, Some(number));
            }
        }
        if self.outputs[..ordered].contains(&None) {
            return Err(refuse(
                "ORDER BY an expression that is not selected, with DISTINCT, is not supported",
            ));
        }
        Ok(width)
    }

    /// How many of the first keys make up DISTINCT ON. ORDER BY must begin with its expressions, in
    /// any order; those that it does not name come behind.
    fn distinct_on(&mut self) -> Result<usize, PlanError> {
        let mut open: Vec<(Option<usize>, Range)> = Vec::new();
        for expression in self.tokens.split(&self.select.on) {
            let output = output_column(self.tokens, self.select, self.analysis, &expression)?;
            let range = match output {
                Some(column) => self.item(column)?,
                None => expression,
            };
            open.push((output, range));
        }
        let all = open.clone();
        for (leading, (key, output)) in self.keys.iter().zip(&self.outputs).enumerate() {
            let same = |(on, range): &(Option<usize>, Range)| {
                (output.is_some() && on == output) || *self.tokens.text(range) == *key.expression
            };
            if !all.iter().any(same) {
                return if open.is_empty() {
                    Ok(leading)
                } else {
                    Err(refuse("this form of DISTINCT ON over several shards is not supported"))
                };
            }
            open.retain(|on| !same(on));
        }
        for (output, range) in open {
            let collation = self.collation(&range)?;
            self.free(self.tokens.text(&range).to_owned(), collation, output);
        }
        Ok(self.keys.len())
    }

    fn free(&mut self, expression: String, collation: Option<Box<str>>, output: Option<usize>) {
        self.keys.push(SortKey {
            expression: expression.into(),
            descending: false,
            nulls_first: false,
            free: collation.is_none(),
            collation,
        });
        self.outputs.push(output);
    }

    /// The expression of an item of the select list. It is evaluated twice, so it must not differ.
    fn item(&self, number: usize) -> Result<Range, PlanError> {
        let range = aggregate::unlabelled(self.tokens, &self.select.items[number]);
        match functions::worst_of(self.tokens, &range, Nature::Volatile) {
            None => Ok(range),
            Some(_) => Err(refuse(
                "sorting by a selected volatile function over several shards is not supported",
            )),
        }
    }

    /// The collation of an expression, where it is not the database's default one.
    fn collation(&self, range: &Range) -> Result<Option<Box<str>>, PlanError> {
        let tokens = self.tokens;
        let refused = || {
            refuse("ORDER BY and DISTINCT with this collation over several shards is not supported")
        };
        if range.clone().any(|at| cast_may_collate(tokens, at)) {
            return Err(refused());
        }
        if range.clone().any(|at| tokens.is(at, "collate")) {
            let at = tokens.find(range, |at| tokens.is(at, "collate")).ok_or_else(refused)?;
            let (_, end) = tokens.qualified(at + 1).ok_or_else(refused)?;
            let only = end == range.end && (range.start..at).all(|at| !tokens.is(at, "collate"));
            return only.then(|| Some(tokens.text(&(at + 1..end)).into())).ok_or_else(refused);
        }
        if !own_collation(tokens, self.analysis, range) {
            return Ok(None);
        }
        let column = tokens.strip_parens(range);
        let (parts, end) = tokens.qualified(column.start).ok_or_else(refused)?;
        if end != column.end {
            return Err(refused());
        }
        let named = self.analysis.known.iter().flat_map(|table| table.columns.iter());
        let mut collations =
            named.filter(|c| parts.last() == Some(&&*c.name)).map(|c| c.collation.clone());
        let first = collations.next().flatten().ok_or_else(refused)?;
        collations
            .all(|other| other.as_deref() == Some(&first))
            .then_some(Some(first))
            .ok_or_else(refused)
    }

    /// The names of the keys among the client's columns, where each is a plain column of the one
    /// table that is read, and so are all that the client gets.
    fn selected(&self) -> Option<Box<[Box<str>]>> {
        let (tokens, select) = (self.tokens, self.select);
        let [From::Table { parts, alias, odd: false, part: false, .. }] = &*select.from else {
            return None;
        };
        if select.group.is_some() || select.having.is_some() || select.window.is_some() {
            return None;
        }
        let called = alias.as_ref().or_else(|| parts.last())?;
        let last = parts.last()?;
        let table = self.analysis.known.first().filter(|table| **last == *table.name.name)?;
        let column = |range: &Range| {
            let (name, end) = tokens.qualified(range.start)?;
            let own = match *name {
                [column] => Some(column),
                [of, column] if of == called => Some(column),
                _ => None,
            };
            let own = own
                .filter(|name| end == range.end && table.columns.iter().any(|c| *c.name == **name));
            own.map(Box::<str>::from)
        };
        let mut outputs: Vec<Box<str>> = Vec::new();
        let all = table.columns.iter().map(|column| column.name.clone());
        if select.items.is_empty() {
            outputs.extend(all.clone());
        }
        for item in &select.items {
            match is_star(tokens, item) {
                true => {
                    star_columns(tokens, select, self.analysis, item)?;
                    outputs.extend(all.clone());
                }
                false => outputs.push(column(item)?),
            }
        }
        let keys = self.ranges.iter().map(|range| {
            let name = column(range)?;
            (outputs.iter().filter(|output| **output == name).count() == 1).then_some(name)
        });
        keys.collect()
    }

    /// The client's columns and everything up to the end of HAVING, where positions of GROUP BY
    /// move behind the keys.
    fn body(&self, query: &Query) -> String {
        let tokens = self.tokens;
        let end = tokens.bytes(&query.tail).start;
        let Some(first) = self.select.items.first() else {
            let from = tokens.text(&self.select.from_range);
            // TABLE t is SELECT * FROM t; `SELECT FROM t` has no columns.
            return match tokens.is(self.select.from_range.start, "table") {
                true => format!("* FROM {}", from.get("table".len()..).unwrap_or_default().trim()),
                false => format!(
                    " {}",
                    tokens.sql[tokens.bytes(&self.select.from_range).start..end].trim_end()
                ),
            };
        };
        let mut text = String::new();
        let mut from = tokens.bytes(first).start;
        for group in self.select.group.iter().flatten() {
            let place = tokens.strip_parens(group);
            if let (1, Some(Kind::Literal { .. })) = (place.len(), tokens.kind(place.start))
                && let Ok(position) = tokens.list[place.start].text.parse::<usize>()
            {
                let bytes = tokens.bytes(&place);
                text.push_str(&tokens.sql[from..bytes.start]);
                text.push_str(&(position + self.keys.len()).to_string());
                from = bytes.end;
            }
        }
        text.push_str(tokens.sql[from..end].trim_end());
        text
    }
}

fn is_star(tokens: &Tokens<'_>, item: &Range) -> bool {
    tokens.sign(item.end - 1, "*") && (item.len() == 1 || tokens.sign(item.end - 2, "."))
}

fn has_star(tokens: &Tokens<'_>, select: &Select) -> bool {
    select.items.iter().any(|item| is_star(tokens, item)) || select.items.is_empty()
}

/// What `*` or `t.*` stands for, as far as the map knows all tables: SQL, and a collation of its own.
fn star_columns(
    tokens: &Tokens<'_>,
    select: &Select,
    analysis: &Analysis,
    item: &Range,
) -> Option<Vec<(String, Option<Box<str>>)>> {
    let wanted = if item.len() > 1 { Some(tokens.name(item.start)?) } else { None };
    if wanted.is_some() && item.len() != 3 {
        return None;
    }
    let mut tables = Vec::new();
    for from in &select.from {
        plain_tables(from, &mut tables)?;
    }
    let mut columns = Vec::new();
    let mut known = analysis.known.iter();
    for (name, alias) in tables {
        // Those of the FROM clause come first, in its order, or nothing is known for certain.
        let table = known.next().filter(|table| *table.name.name == *name)?;
        if wanted.is_none_or(|wanted| wanted == alias) {
            columns.extend(table.columns.iter().map(|column| {
                (format!("{}.{}", quoted(alias), quoted(&column.name)), column.collation.clone())
            }));
        }
    }
    (!columns.is_empty()).then_some(columns)
}

/// Names and aliases of the tables of a FROM item whose columns follow each other in `*`.
fn plain_tables<'q>(from: &'q From, tables: &mut Vec<(&'q str, &'q str)>) -> Option<()> {
    match from {
        From::Table { parts, alias, odd: false, .. } => {
            let name = parts.last()?;
            tables.push((name, alias.as_ref().unwrap_or(name)));
            Some(())
        }
        From::Join { left, right, on: JoinOn::Condition(_) | JoinOn::Nothing, .. } => {
            plain_tables(left, tables)?;
            plain_tables(right, tables)
        }
        _ => None,
    }
}

/// Whether these tokens are the distribution column of a table that no outer join fills with NULLs:
/// rows that are alike in it are on one shard.
pub(crate) fn is_key(
    tokens: &Tokens<'_>,
    select: &Select,
    analysis: &Analysis,
    range: &Range,
) -> bool {
    let Some((parts, end)) = tokens.qualified(range.start) else { return false };
    let (Some(column), true) = (parts.last(), end == range.end && !range.is_empty()) else {
        return false;
    };
    let mut full = Vec::new();
    for from in &select.from {
        never_null(from, &mut full);
    }
    let named = |alias: &str| parts.len() == 1 || parts[parts.len() - 2] == alias;
    if parts.len() == 1 {
        // A name that only one table has, all of whose neighbours are known.
        let has = |table: &&std::sync::Arc<pgherd_shard_map::Table>| {
            table.columns.iter().any(|known| *known.name == **column)
        };
        if analysis.known.iter().filter(has).count() != 1 {
            return false;
        }
    }
    // Not one of a subquery, which may be called the same.
    let here = |place: &Range| select.from_range.contains(&place.start);
    analysis.uses.iter().filter(|used| used.place.as_ref().is_some_and(here)).any(|used| {
        let alias = used.alias.as_deref().unwrap_or(&used.table.name.name);
        !used.odd && used.key_name() == Some(*column) && named(alias) && full.contains(&alias)
    })
}

/// The aliases of tables whose rows come as they are.
fn never_null<'q>(from: &'q From, full: &mut Vec<&'q str>) {
    match from {
        From::Table { parts, alias, .. } => {
            full.extend(alias.as_ref().or_else(|| parts.last()).map(String::as_str));
        }
        From::Join { left, right, kind, .. } => {
            if matches!(kind, JoinKind::Inner | JoinKind::Left) {
                never_null(left, full);
            }
            if matches!(kind, JoinKind::Inner | JoinKind::Right) {
                never_null(right, full);
            }
        }
        From::Subquery { .. } | From::Function { .. } => {}
    }
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
    let key = SortKey { expression: "".into(), descending, nulls_first, collation, free: false };
    Ok((range, key))
}

/// The output column that an ORDER BY item means: a position, an output name, or the same
/// expression.
pub(crate) fn output_column(
    tokens: &Tokens<'_>,
    select: &Select,
    analysis: &Analysis,
    key: &Range,
) -> Result<Option<usize>, PlanError> {
    let stars = has_star(tokens, select);
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
        // A bare name could be a column of `*`, or the label of another item.
        let name = (key.len() == 1).then(|| tokens.name(key.start)).flatten();
        let labels = |item: &Range| {
            !is_star(tokens, item)
                && name.is_some_and(|name| aggregate::label(tokens, item) == Some(name))
        };
        let label = select.items.iter().position(labels);
        let mut items = select.items.iter();
        if name.is_some() && items.any(|item| aggregate::hides_its_label(tokens, item)) {
            return Err(refuse("this ORDER BY name over several shards is not supported"));
        }
        let column = |name: &str| {
            let mut columns = analysis.known.iter().flat_map(|table| table.columns.iter());
            columns.any(|column| *column.name == *name)
        };
        let every_column_is_known = select
            .items
            .iter()
            .filter(|item| is_star(tokens, item))
            .all(|item| star_columns(tokens, select, analysis, item).is_some());
        return match (label, name) {
            (None, _) => Ok(None),
            (Some(item), Some(name)) if every_column_is_known && !column(name) => {
                match select.items.iter().filter(|item| labels(item)).count() {
                    1 => Ok(Some(item)),
                    _ => Err(refuse("this ORDER BY name over several shards is not supported")),
                }
            }
            _ => {
                Err(refuse("ORDER BY an output name beside * over several shards is not supported"))
            }
        };
    }
    if key.len() == 1
        && let Some(name) = tokens.name(key.start)
    {
        if tokens.is_any(key.start, &["null", "true", "false"]) {
            return Err(refuse("ORDER BY a constant over several shards is not supported"));
        }
        if select.items.iter().any(|item| aggregate::hides_its_label(tokens, item)) {
            return Err(refuse("this ORDER BY name over several shards is not supported"));
        }
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

/// Compares by another collation than the database's, or may do so.
pub(crate) fn own_collation(tokens: &Tokens<'_>, analysis: &Analysis, range: &Range) -> bool {
    let collated = |name: &str| analysis.collated.iter().any(|column| **column == *name);
    range.clone().any(|at| {
        tokens.name(at).is_some_and(collated)
            || tokens.is(at, "collate")
            || cast_may_collate(tokens, at)
    })
}

/// Types whose values are compared without a collation, or by the database's.
const WITHOUT_COLLATION: &[&str] = &[
    "bigint",
    "bit",
    "bool",
    "boolean",
    "bpchar",
    "bytea",
    "char",
    "character",
    "cidr",
    "date",
    "dec",
    "decimal",
    "double",
    "float",
    "float4",
    "float8",
    "inet",
    "int",
    "int2",
    "int4",
    "int8",
    "integer",
    "interval",
    "json",
    "jsonb",
    "macaddr",
    "money",
    "national",
    "numeric",
    "oid",
    "real",
    "regclass",
    "regtype",
    "smallint",
    "text",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "uuid",
    "varbit",
    "varchar",
    "xml",
];

/// A type stands here that something is cast to, and that may bring a collation of its own: `name`
/// does, and a domain can.
fn cast_may_collate(tokens: &Tokens<'_>, at: usize) -> bool {
    let cast = at > 0 && (tokens.sign(at - 1, "::") || tokens.is(at - 1, "as"));
    let known = |parts: &[&str]| match parts {
        [name] | ["pg_catalog", name] => WITHOUT_COLLATION.contains(name),
        _ => false,
    };
    cast && tokens.qualified(at).is_none_or(|(parts, _)| !known(&parts))
}
