//! Tier 3: PostgreSQL itself runs the statement, over copies of the rows that it reads.
//!
//! What cannot run on each shard by itself (joins on other columns, subqueries, window functions,
//! set operations, grouping sets, any aggregate) runs on one server: each distributed table that
//! the statement names is copied there into a scratch table, and its name in the statement's own
//! text is replaced by that table's. So the answer is PostgreSQL's, whatever the statement's shape.
//!
//! Less is copied where that is certainly enough: only columns whose names stand in the statement
//! (unless a `*`, a whole row or a NATURAL join needs all), only the shards of the keys that a table
//! is pinned to, and only rows that pass the conditions of WHERE that speak of that table alone.

mod filter;

use std::collections::BTreeSet;

use pgherd_shard_map::{Column, Table, TableName, quoted};

use crate::analyze::{Analysis, HomeUse, Use};
use crate::functions;
use crate::plan::{Borrow, BoundCondition, HomeCopy, Pull};
use crate::route::refuse_home;
use crate::temporary::TEMPORARY_SCHEMA;
use crate::token::{Kind, Range, Tokens};
use crate::{Context, PlanError, Target, portable, route};

/// A scratch table's columns differ from these: a statement that names them is refused.
const SYSTEM_COLUMNS: &[&str] = &["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"];

/// `ctid` and its kin say something of one shard's file only.
pub(crate) fn names_system_column(tokens: &Tokens<'_>) -> bool {
    tokens.all().any(|at| is_system_column(tokens, at))
}

pub(crate) fn is_system_column(tokens: &Tokens<'_>, at: usize) -> bool {
    tokens.name(at).is_some_and(|name| SYSTEM_COLUMNS.contains(&name))
}

fn refuse(what: &'static str, why: &'static str) -> PlanError {
    PlanError::unsupported(
        what,
        why,
        "Compare the distribution column with one value, so that one shard has all the rows.",
    )
}

/// The plan of a SELECT that reads and takes no locks.
pub(crate) fn plan(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    analysis: &Analysis,
    why: String,
) -> Result<Borrow, PlanError> {
    if names_system_column(tokens) {
        return Err(refuse(
            "system columns are not supported where rows of several shards are needed together",
            "They would be those of a copy.",
        ));
    }
    let temporary = |used: &HomeUse| {
        let parts = tokens.qualified(used.place.start);
        parts.is_some_and(|(parts, _)| context.names_temporary(&parts))
    };
    let mut edits = Vec::new();
    let is_temporary =
        |name: &&String| context.names_temporary(&name.split('.').collect::<Vec<_>>());
    let temporaries = analysis.home.iter().filter(is_temporary).count();
    let own = match temporaries {
        0 => Vec::new(),
        _ => home_copies(tokens, analysis, "pg_temp.", temporary, &mut edits)?,
    };
    let own: Vec<Pull> = own.iter().map(own_pull).collect();
    let (pulls, sql) = copies(tokens, context, analysis, "pg_temp.", edits)?;
    let held_to_reading = !functions::reads_only(tokens, &tokens.all())
        && functions::reads_at_most(tokens, &tokens.all());
    Ok(Borrow {
        why: why.into(),
        pulls: pulls.into(),
        own: own.into(),
        sql: sql.into(),
        local: analysis.home.len() > temporaries || analysis.references > 0 || held_to_reading,
        held_to_reading,
        grouped: tokens.all().any(|at| tokens.are(at, &["group", "by"])),
        views: Box::default(),
        broadcasts: Box::default(),
    })
}

/// What is copied of the distributed tables, and the statement with the copies' names in their
/// places. `schema` is where the copies will be; `edits` are others of the text.
pub(crate) fn copies(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    analysis: &Analysis,
    schema: &str,
    mut edits: Vec<(std::ops::Range<usize>, String)>,
) -> Result<(Vec<Pull>, String), PlanError> {
    let read = Reading::of(tokens, analysis)?;
    let mut pulls: Vec<Pull> = Vec::new();
    let mut named: Vec<&TableName> = Vec::new();
    for used in &analysis.uses {
        let place = place(tokens, used)?;
        let number = match pulls.iter().position(|pull| pull.table == used.table.name) {
            Some(number) => number,
            None => {
                let name = &used.table.name;
                let uses = analysis.uses.iter();
                let same: Vec<&Use> = uses.filter(|other| other.table.name == *name).collect();
                let scratch = format!("pgherd_scratch_{}", pulls.len());
                pulls.push(read.pull(tokens, context, analysis, &same, scratch));
                pulls.len() - 1
            }
        };
        if used.alias.is_none() && !named.contains(&&used.table.name) {
            named.push(&used.table.name);
            let same = analysis.uses.iter().filter(|other| other.table.name == used.table.name);
            let places: Vec<Range> = same.filter_map(|other| other.place.clone()).collect();
            edits.extend(without_schema(tokens, &used.table.name, &places)?);
        }
        let scratch = &pulls[number].scratch;
        // `TABLE t` takes no alias, and nothing else can speak of its name.
        let bare = place.start > 0 && tokens.is(place.start - 1, "table");
        let text = match &used.alias {
            None if !bare => {
                format!("{schema}{scratch} AS {}", quoted(&used.table.name.name))
            }
            _ => format!("{schema}{scratch}"),
        };
        edits.push((tokens.bytes(&place), text));
    }
    Ok((pulls, edited(tokens, edits)))
}

/// The statement's text with others in some places. What is put at one place stays in order.
pub(crate) fn edited(
    tokens: &Tokens<'_>,
    mut edits: Vec<(std::ops::Range<usize>, String)>,
) -> String {
    edits.sort_by_key(|(bytes, _)| bytes.start);
    let mut sql = String::with_capacity(tokens.sql.len() + 64);
    let mut from = 0;
    for (bytes, text) in &edits {
        sql.push_str(&tokens.sql[from..bytes.start]);
        sql.push_str(text);
        from = bytes.end;
    }
    sql.push_str(&tokens.sql[from..]);
    sql
}

fn own_pull(copy: &HomeCopy) -> Pull {
    let name = Tokens::new(&copy.name);
    let name = name
        .qualified(0)
        .and_then(|(parts, _)| Some(TableName::new(TEMPORARY_SCHEMA, parts.last()?)));
    Pull {
        table: name.unwrap_or_else(|| TableName::new(TEMPORARY_SCHEMA, &copy.name)),
        scratch: copy.scratch.clone(),
        columns: Box::default(),
        alias: copy.scratch.clone(),
        filter: None,
        bound: Box::default(),
        target: Target::Home,
        binary: false,
    }
}

/// Copies of relations of the home shard, for servers that do not see them. `schema` is where the
/// copies will be; their names are added to `edits`.
pub(crate) fn home_copies(
    tokens: &Tokens<'_>,
    analysis: &Analysis,
    schema: &str,
    wanted: impl Fn(&HomeUse) -> bool,
    edits: &mut Vec<(std::ops::Range<usize>, String)>,
) -> Result<Vec<HomeCopy>, PlanError> {
    // One that stands elsewhere, `TABLE t` say, has no place that is known.
    let sure = |used: &HomeUse| {
        !used.odd && !tokens.sign(used.place.end, "*") && !tokens.is(used.place.start - 1, "table")
    };
    if analysis.home_uses.len() != analysis.home.len()
        || !analysis.home_uses.iter().filter(|used| wanted(used)).all(sure)
    {
        refuse_home(analysis)?;
    }
    let mut copies: Vec<HomeCopy> = Vec::new();
    for used in analysis.home_uses.iter().filter(|used| wanted(used)) {
        let name = tokens.text(&used.place);
        let known = copies.iter().position(|copy| *copy.name == *name);
        let number = known.unwrap_or_else(|| {
            let scratch = format!("pgherd_home_{}", copies.len()).into();
            copies.push(HomeCopy { name: name.into(), scratch });
            copies.len() - 1
        });
        let scratch = &copies[number].scratch;
        let last = tokens.name(used.place.end - 1).unwrap_or_default();
        let text = match &used.alias {
            None => format!("{schema}{scratch} AS {}", quoted(last)),
            Some(_) => format!("{schema}{scratch}"),
        };
        edits.push((tokens.bytes(&used.place), text));
    }
    Ok(copies)
}

/// Where the table's name stands.
pub(crate) fn place(tokens: &Tokens<'_>, used: &Use) -> Result<Range, PlanError> {
    let place = used.place.clone().filter(|place| {
        // `t *` is an old way to say that children count, too.
        !used.part && !tokens.sign(place.end, "*")
    });
    place.ok_or_else(|| {
        refuse(
            "ONLY and TABLESAMPLE over several shards are not supported",
            "They would speak of a copy.",
        )
    })
}

/// What the statement says of columns in general.
pub(crate) struct Reading<'a> {
    names: BTreeSet<&'a str>,
    /// Tokens that define a table's name or alias.
    defining: BTreeSet<usize>,
    /// A `*` means the columns of other things than the tables.
    stars_elsewhere: bool,
}

impl<'a> Reading<'a> {
    pub(crate) fn of(tokens: &'a Tokens<'_>, analysis: &Analysis) -> Result<Self, PlanError> {
        let names = tokens.all().filter_map(|at| tokens.name(at)).collect();
        let mut defining = BTreeSet::new();
        for used in &analysis.uses {
            let place = place(tokens, used)?;
            let alias = used.alias.is_some();
            let end =
                place.end + usize::from(alias) + usize::from(alias && tokens.is(place.end, "as"));
            defining.extend(place.start..end);
        }
        Ok(Self { names, defining, stars_elsewhere: analysis.stars_elsewhere })
    }

    /// The table's name or alias stands by itself: its whole row is meant, or a column.
    pub(crate) fn whole_row(&self, tokens: &Tokens<'_>, name: &str) -> bool {
        tokens.all().any(|at| {
            tokens.name(at) == Some(name)
                && !self.defining.contains(&at)
                && !tokens.sign(at + 1, ".")
        })
    }

    /// Every column of the table may be meant: by a `*` or NATURAL of the block that reads it, by its
    /// own `alias.*`, by its row, or by aliases that are given in the order of the columns.
    fn all_columns(&self, tokens: &Tokens<'_>, used: &Use) -> bool {
        let star = |at: usize| tokens.sign(at, "*") && is_star(tokens, at);
        let own_star = |at: usize| {
            star(at)
                && at > 1
                && tokens.sign(at - 1, ".")
                && tokens.name(at - 2).is_none_or(|name| name == called(used))
        };
        let block = used.place.as_ref().and_then(|place| filter::block(tokens, place));
        let by_block = match &block {
            Some(select) => {
                let natural = |at: usize| tokens.is_any(at, &["natural", "table"]);
                let bare = |item: &Range| item.len() == 1 && tokens.sign(item.start, "*");
                select.from_range.clone().any(natural)
                    || !self.stars_elsewhere && select.items.iter().any(bare)
            }
            None => tokens.all().any(|at| {
                tokens.is_any(at, &["natural", "table"]) || !self.stars_elsewhere && star(at)
            }),
        };
        by_block
            || !self.stars_elsewhere && tokens.all().any(own_star)
            || used.odd
            || self.whole_row(tokens, called(used))
    }

    /// What is copied of a table for these uses of it.
    pub(crate) fn pull(
        &self,
        tokens: &Tokens<'_>,
        context: &Context<'_>,
        analysis: &Analysis,
        same: &[&Use],
        scratch: String,
    ) -> Pull {
        let table = &same[0].table;
        let columns = self.columns(tokens, analysis, table);
        let (conditions, bound) = match same {
            [used] if !used.odd => filter::of(tokens, context, used),
            _ => Default::default(),
        };
        let conditions: Vec<&str> = conditions.iter().map(|part| tokens.text(part)).collect();
        Pull {
            table: table.name.clone(),
            scratch: scratch.into(),
            binary: columns.iter().all(|column| is_portable(&column.type_name)),
            columns: columns.into_iter().map(|column| column.name).collect(),
            alias: called(same[0]).into(),
            filter: (!conditions.is_empty())
                .then(|| format!("({})", conditions.join(") AND (")).into()),
            bound: bound.iter().map(|part| bound_condition(tokens, part)).collect(),
            target: target(same),
        }
    }

    fn columns(&self, tokens: &Tokens<'_>, analysis: &Analysis, table: &Table) -> Vec<Column> {
        let mut uses = analysis.uses.iter().filter(|used| used.table.name == table.name);
        let all = uses.any(|used| self.all_columns(tokens, used));
        let wanted = |column: &&Column| all || self.names.contains(&*column.name);
        let mut columns: Vec<Column> = table.columns.iter().filter(wanted).cloned().collect();
        if columns.is_empty() {
            // Rows are counted only; a table without columns is odd.
            columns.extend(table.key_column().or_else(|| table.columns.first()).cloned());
        }
        columns
    }
}

/// Where columns are called `schema.table.column`, or all of them `schema.table.*`: the schema and its
/// point, which a copy has not.
pub(crate) fn schemas_of_columns<'a>(
    tokens: &'a Tokens<'_>,
    name: &'a TableName,
) -> impl Iterator<Item = Range> + 'a {
    tokens.all().filter_map(|at| {
        let inside = at > 0 && tokens.sign(at - 1, ".");
        let (parts, end) = tokens.qualified(at).filter(|_| !inside)?;
        let [schema, table, rest @ ..] = &*parts else { return None };
        let column = !rest.is_empty() || tokens.sign(end, ".") && tokens.sign(end + 1, "*");
        (column && **schema == *name.schema && **table == *name.name).then_some(at..at + 2)
    })
}

/// The same as edits: columns are then called `table.column`. Refused where another thing could have
/// the table's name, since the schema tells it from that. `places`: where FROM has the table.
pub(crate) fn without_schema(
    tokens: &Tokens<'_>,
    name: &TableName,
    places: &[Range],
) -> Result<Vec<(std::ops::Range<usize>, String)>, PlanError> {
    let edits: Vec<_> = schemas_of_columns(tokens, name)
        .map(|range| (tokens.list[range.start].start..tokens.list[range.end].start, String::new()))
        .collect();
    let alone = |at: usize| {
        tokens.name(at) == Some(&name.name)
            && !tokens.sign(at + 1, ".")
            && !places.iter().any(|place| place.contains(&at))
    };
    if !edits.is_empty() && tokens.all().any(alone) {
        return Err(refuse(
            "columns with the name of their schema are not supported here",
            "The table is read as a copy, and its name stands for something else, too.",
        ));
    }
    Ok(edits)
}

fn bound_condition(tokens: &Tokens<'_>, part: &Range) -> BoundCondition {
    let all: Vec<u16> = filter::parameters(tokens, &tokens.all()).collect();
    let alone = filter::parameters(tokens, part)
        .all(|number| all.iter().filter(|other| **other == number).count() == 1);
    BoundCondition { sql: tokens.text(part).into(), alone }
}

/// A `*` that stands for columns, not for a product and not in `count(*)`.
fn is_star(tokens: &Tokens<'_>, at: usize) -> bool {
    let Some(before) = at.checked_sub(1) else { return true };
    match tokens.kind(before) {
        Some(Kind::Open) => tokens.kind(at + 1) != Some(Kind::Close),
        Some(Kind::Word) => tokens.is_any(before, &["select", "distinct", "all", "returning"]),
        Some(Kind::Quoted | Kind::Literal { .. } | Kind::Param(_)) => false,
        // `DISTINCT ON (…) *` looks like a product.
        _ => true,
    }
}

/// What the statement calls this use of a table.
pub(crate) fn called(used: &Use) -> &str {
    used.alias.as_deref().unwrap_or(&used.table.name.name)
}

/// What rows of this use have passed already where they are copied, as far as it says something of
/// them.
pub(crate) fn passed(tokens: &Tokens<'_>, context: &Context<'_>, used: &Use) -> Vec<Range> {
    let own = |at: usize| {
        let columns = &used.table.columns;
        tokens.name(at).is_some_and(|name| columns.iter().any(|column| *column.name == *name))
    };
    let (mut conditions, _) = filter::of(tokens, context, used);
    conditions.retain(|part| part.clone().any(own));
    conditions
}

/// The shards whose rows can matter: those of the keys, where each use is pinned.
fn target(same: &[&Use]) -> Target {
    if same.iter().any(|used| !used.pinned) {
        return Target::All;
    }
    let keys = same.iter().flat_map(|used| used.pins.iter().cloned());
    route::keys_of(same[0].group, keys)
}

/// Whether values, or arrays of them, have a binary form that every server understands.
fn is_portable(type_name: &str) -> bool {
    portable::find(type_name.trim_end_matches("[]")).is_some()
}
