//! MERGE whose source rows are not where the target's are: PostgreSQL makes them on the home shard,
//! over copies of what they are read from, and they go to the shards with the statement, as a WITH
//! query in the place of the source.
//!
//! A row that finds no match must not become one on every shard. So where a MERGE makes rows, each
//! source row goes to one shard only: that of the value which the target's distribution column must
//! equal, and which the new row gets as its key.

use pgherd_shard_map::{Table, TableKind, quoted};

use crate::analyze::{Analysis, Scope, split_and};
use crate::gather::made_at_home;
use crate::insert::{has_query, make_of, must_make};
use crate::merge_into::{NewKey, NewRow, Statement, refused, refused_row};
use crate::query::{From, Unread, read_from_item};
use crate::route::{plan_of, with_new_keys};
use crate::token::{Range, Tokens};
use crate::witness::unread;
use crate::write::{refuse_differing, refuse_differing_subqueries};
use crate::{
    Access, Action, Carried, CarriedTo, Context, Make, Plan, PlanError, Reuse, StatementKind,
    Target, borrow,
};

/// What its columns with numbers are called: with their place in [`Carried::numbers`].
pub const NUMBER: &str = "pgherd_number_";

/// What the source is called in the shards' statement.
pub const SOURCE: &str = "pgherd_source";

/// `with` stands before the statement, and is for its source alone. `target` is the table, if it is
/// sharded, and the rows that are made for it; `looked_for` its keys, if ON says them.
pub(crate) fn plan(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    with: &str,
    statement: &Statement<'_>,
    target: Option<(&Table, &[NewRow])>,
    looked_for: Option<Target>,
) -> Result<Plan, PlanError> {
    let item = read_from_item(tokens, &statement.source).map_err(|Unread| unread(tokens))?;
    let source = called(&item).ok_or_else(|| {
        refused("Its source is not one table, query or function with a name of its own.")
            .with_hint("Write USING (SELECT … FROM … JOIN …) AS s.")
    })?;
    let rest = statement.on.start..tokens.len();
    refuse_other_rows(tokens, context, &rest, with, target.is_none())?;
    if borrow::names_system_column(tokens) {
        return Err(refused("System columns have other values on each shard."));
    }
    let (to, inserts) = match target {
        None => (CarriedTo::Home, false),
        Some((table, rows)) => {
            refuse_differing_subqueries(tokens, &(0..0))?;
            (to(tokens, statement, table, rows, source, looked_for)?, !rows.is_empty())
        }
    };
    if let (CarriedTo::Same, Some((table, _))) = (&to, target) {
        refuse_differing(tokens, table, &rest)?;
    }
    let bytes = tokens.bytes(&statement.source);
    let mut edits = vec![(bytes, format!("{SOURCE} AS {}", quoted(source)))];
    let mut numbers = Vec::new();
    if let Some((table, rows)) = target {
        for row in rows {
            number(tokens, table, row, source, &mut numbers, &mut edits)?;
        }
    }
    let made = format!("{with}SELECT * FROM {}", tokens.text(&statement.source));
    let carried = Carried {
        // Its literals are the statement's first ones.
        borrow: made_at_home(&made, context, 0)?,
        sql: borrow::edited(tokens, edits).into(),
        numbers: numbers.into(),
        to,
        inserts,
        everywhere: tokens.all().any(|at| tokens.are(at, &["by", "source"])),
    };
    let (action, kind) = (Action::Carried(carried), StatementKind::Merge);
    Ok(plan_of(context, action, Access::Write, Reuse::SameText, kind))
}

/// Numbers for what a new row leaves out come with the source's rows: no shard asks a sequence.
fn number(
    tokens: &Tokens<'_>,
    table: &Table,
    row: &NewRow,
    source: &str,
    numbers: &mut Vec<Make>,
    edits: &mut Vec<(std::ops::Range<usize>, String)>,
) -> Result<(), PlanError> {
    let (mut names, mut values) = (String::new(), String::new());
    let mut overrides = false;
    for (at, column) in table.columns.iter().enumerate() {
        if !must_make(table, at) || row.gives(tokens, table, at) {
            continue;
        }
        let make = make_of(table, column);
        let Make::Number { identity, .. } = &make else {
            return row.refuse_made(tokens, table);
        };
        overrides |= identity.is_some();
        let known = numbers.iter().position(|known| *known == make);
        let place = known.unwrap_or_else(|| {
            numbers.push(make);
            numbers.len() - 1
        });
        let value = format!("{}.{NUMBER}{place}", quoted(source));
        match row.value_of(table, at) {
            // DEFAULT
            Some(range) => edits.push((tokens.bytes(range), value)),
            None => {
                names.push_str(&format!(", {}", quoted(&column.name)));
                values.push_str(&format!(", {value}"));
            }
        }
    }
    if row.values.is_empty() {
        return row.refuse_made(tokens, table);
    }
    let start = tokens.list[row.word].start;
    if overrides && !row.overrides {
        edits.push((start..start, "OVERRIDING SYSTEM VALUE ".to_owned()));
    }
    if names.is_empty() {
        return Ok(());
    }
    match &row.columns {
        Some(_) => {
            // The list ends before VALUES, or before OVERRIDING.
            let words = if row.overrides { 3 } else { 0 };
            let close = tokens.list[row.word - words - 1].start;
            edits.push((close..close, names));
        }
        None => {
            let given = table.columns.iter().take(row.values.len());
            let given: Vec<String> = given.map(|column| quoted(&column.name)).collect();
            let words = if row.overrides { 3 } else { 0 };
            let place = tokens.list[row.word - words].start;
            let list = format!("({}{names}) ", given.join(", "));
            // Before OVERRIDING, whoever says it.
            edits.insert(0, (place..place, list));
        }
    }
    let open = row.word + 1;
    let close = tokens.list[tokens.list[open].close].start;
    edits.push((close..close, values));
    Ok(())
}

/// The source's own name. A join has none, and its columns could have the same names.
fn called(item: &From) -> Option<&str> {
    match item {
        From::Table { parts, alias, .. } => {
            alias.as_deref().or_else(|| parts.last().map(String::as_str))
        }
        From::Subquery { alias, lateral: false, .. } | From::Function { alias, .. } => {
            alias.as_deref()
        }
        From::Subquery { .. } | From::Join { .. } => None,
    }
}

/// Conditions and actions are run on the shards, with what these have.
fn refuse_other_rows(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    rest: &Range,
    with: &str,
    at_home: bool,
) -> Result<(), PlanError> {
    if !with.is_empty() && has_query(tokens, rest) {
        return Err(refused("A subquery in it could name a WITH query, which is for the source."));
    }
    let mut analysis = Analysis::default();
    let read = analysis.expression(tokens, context, rest, &Scope::default());
    read.map_err(|Unread| unread(tokens))?;
    let elsewhere = !analysis.uses.is_empty()
        || analysis.view_read_whole().is_some()
        || analysis.data_modifying_cte
        || !at_home && !analysis.home.is_empty();
    match elsewhere {
        true => Err(refused("A subquery in its conditions or actions needs rows of other shards.")),
        false => Ok(()),
    }
}

/// Where the source's rows go.
fn to(
    tokens: &Tokens<'_>,
    statement: &Statement<'_>,
    table: &Table,
    rows: &[NewRow],
    source: &str,
    looked_for: Option<Target>,
) -> Result<CarriedTo, PlanError> {
    let TableKind::Distributed { group, key, .. } = table.kind else { return Ok(CarriedTo::Same) };
    let key = &table.columns[key];
    if let Some(looked_for) = looked_for {
        let value = |row: &NewRow| match row.key(tokens, table) {
            Ok(NewKey::Value(value)) => Some(value),
            _ => None,
        };
        if let Some(new) = rows.iter().map(value).collect::<Option<Vec<_>>>() {
            return Ok(CarriedTo::Keys(with_new_keys(looked_for, &new)));
        }
    }
    let names = Names { tokens, statement, table, key: &key.name, source };
    let Some(column) = names.joined(&statement.on) else {
        return match rows.is_empty() {
            true => Ok(CarriedTo::All),
            false => Err(refused(&format!(
                "Its ON does not compare \"{}\" of {} with a column of the source, so that matches \
                 may be on any shard.",
                key.name, table.name
            ))),
        };
    };
    for row in rows {
        match row.key(tokens, table)? {
            NewKey::Column(range) if names.of_new_row(&range) == Some(column) => {}
            NewKey::Column(_) | NewKey::Value(_) => return Err(refused_row(table)),
        }
    }
    Ok(CarriedTo::ByKey {
        group,
        column: column.into(),
        key: key.name.clone(),
        type_name: key.type_name.clone(),
        table: table.name.clone(),
    })
}

/// What columns are called in ON and in the actions.
struct Names<'a> {
    tokens: &'a Tokens<'a>,
    statement: &'a Statement<'a>,
    table: &'a Table,
    key: &'a str,
    source: &'a str,
}

impl<'a> Names<'a> {
    /// The source's column that the target's distribution column must equal.
    fn joined(&self, condition: &Range) -> Option<&'a str> {
        let tokens = self.tokens;
        split_and(tokens, condition).iter().find_map(|part| {
            let inner = tokens.strip_parens(part);
            if inner != *part {
                return self.joined(&inner);
            }
            let equal = tokens.find(part, |at| tokens.sign(at, "="))?;
            let left = tokens.strip_parens(&(part.start..equal));
            let right = tokens.strip_parens(&(equal + 1..part.end));
            match (self.is_key(&left), self.is_key(&right)) {
                (true, false) => self.of_source(&right),
                (false, true) => self.of_source(&left),
                _ => None,
            }
        })
    }

    /// A name with nothing around it.
    fn name(&self, range: &Range) -> Option<Vec<&'a str>> {
        let (parts, after) = self.tokens.qualified(range.start)?;
        (after == range.end).then_some(parts)
    }

    fn is_key(&self, range: &Range) -> bool {
        let target = self.statement.alias.or_else(|| self.statement.table.last().copied());
        match self.name(range).as_deref() {
            // Were it also a column of the source, PostgreSQL would call it ambiguous.
            Some([column]) => *column == self.key,
            Some([table, column]) => Some(*table) == target && *column == self.key,
            _ => false,
        }
    }

    /// New rows are made of the source's columns only.
    fn of_new_row(&self, range: &Range) -> Option<&'a str> {
        match self.name(range).as_deref()? {
            [column] => Some(column),
            _ => self.of_source(range),
        }
    }

    fn of_source(&self, range: &Range) -> Option<&'a str> {
        match self.name(range).as_deref()? {
            [column] if !self.table.columns.iter().any(|c| *c.name == **column) => Some(column),
            [table, column] if *table == self.source => Some(column),
            _ => None,
        }
    }
}
