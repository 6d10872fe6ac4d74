//! Tier 3 without the one server: small tables are copied to the shards of a large one, and the
//! statement runs there.
//!
//! To each shard a copy is what a reference table is: all rows are there. So the statement is
//! planned a second time, with a copy's name in the place of each table but those that stay where
//! they are, as what may run on each shard by itself (`scatter`): which sides of an outer join may be
//! copied, which subqueries, what the router merges is decided there and nowhere else.
//!
//! A copy is no table: its rows go with the statement, as an array for each column, and a WITH query
//! makes them rows again. So it works in any transaction, and nothing is to be cleaned up.

use std::sync::Arc;

use pgherd_shard_map::{Column, RelationKind, Table, TableKind, TableName, quoted};

use crate::analyze::{Analysis, Use};
use crate::borrow::{Reading, called, edited, passed, place, schemas_of_columns};
use crate::functions::{self, Nature};
use crate::query::{Query, Select};
use crate::route::keys;
use crate::token::Tokens;
use crate::witness::witness;
use crate::{
    Broadcast, Context, CopiedColumn, CopiedTable, ManyShards, Merge, Target, portable, scan,
    scatter,
};

/// Ways that are worth keeping: each is a plan of its own.
const WAYS_MAX: usize = 4;

/// The ways in which the statement can run on the shards of some of its tables.
pub(crate) fn ways(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    query: &Query,
    analysis: &Analysis,
) -> Vec<Broadcast> {
    let Some(select) = query.only_select().filter(|_| !differs(tokens)) else { return Vec::new() };
    let Ok(read) = Reading::of(tokens, analysis) else { return Vec::new() };
    let with_schema = |used: &Use| schemas_of_columns(tokens, &used.table.name).next().is_some();
    if analysis.uses.iter().any(with_schema) {
        return Vec::new();
    }
    let outermost = outermost(select, analysis);
    let mut ways = Vec::new();
    let mut tried: Vec<Vec<bool>> = Vec::new();
    for first in 0..outermost {
        let stays = group_of(first, outermost, analysis);
        if tried.contains(&stays) || stays.iter().all(|stays| *stays) {
            continue;
        }
        ways.extend(Way { tokens, context, analysis, read: &read, stays: &stays }.plan());
        tried.push(stays);
        if ways.len() == WAYS_MAX {
            break;
        }
    }
    ways
}

/// What each shard computes from copies alone must come out the same on all of them.
fn differs(tokens: &Tokens<'_>) -> bool {
    tokens.all().any(|at| {
        // A user's function could read tables that are on the home shard only.
        let volatile = functions::called(tokens, at).is_some_and(|(nature, _)| {
            let differs = [Nature::Volatile, Nature::Reading, Nature::Sequence, Nature::Unknown];
            differs.contains(&nature)
        });
        // Of rows in no certain order.
        let cut =
            tokens.is_any(at, &["limit", "offset", "fetch"]) || tokens.are(at, &["distinct", "on"]);
        volatile || cut && tokens.list[at].depth > 0
    })
}

/// How many of the uses stand in the statement's own FROM: they come first.
fn outermost(select: &Select, analysis: &Analysis) -> usize {
    let here = |used: &&Use| {
        used.place.as_ref().is_some_and(|place| select.from_range.contains(&place.start))
    };
    analysis.uses.iter().take_while(here).count()
}

/// The uses that are joined with this one by their keys, directly or through others.
fn group_of(first: usize, outermost: usize, analysis: &Analysis) -> Vec<bool> {
    let mut stays = vec![false; analysis.uses.len()];
    stays[first] = true;
    let mut changed = true;
    while changed {
        changed = false;
        for (a, b) in &analysis.edges {
            // From another query outwards nothing follows: see `scatter`.
            let (in_a, in_b) = (stays[*a], stays[*b]);
            if in_a && !in_b || in_b && !in_a && *b < outermost && *a < outermost {
                (stays[*a], stays[*b]) = (true, true);
                changed = true;
            }
        }
    }
    stays
}

/// One set of tables that stay where they are.
struct Way<'a> {
    tokens: &'a Tokens<'a>,
    context: &'a Context<'a>,
    analysis: &'a Analysis,
    read: &'a Reading<'a>,
    stays: &'a [bool],
}

impl Way<'_> {
    fn plan(&self) -> Option<Broadcast> {
        let Self { tokens, analysis, .. } = *self;
        let mut tables = Vec::new();
        let mut known = Vec::new();
        let mut edits = Vec::new();
        for (number, used) in analysis.uses.iter().enumerate() {
            if self.stays[number] {
                continue;
            }
            let copied = self.table(number, used)?;
            let place = place(tokens, used).ok()?;
            let name = &copied.pull.scratch;
            let text = match used.alias {
                Some(_) => name.to_string(),
                None => format!("{name} AS {}", quoted(&used.table.name.name)),
            };
            edits.push((tokens.bytes(&place), text));
            // PostgreSQL would think that it leaves out most of the copy.
            let passed = passed(tokens, self.context, used);
            edits.extend(passed.iter().map(|part| (tokens.bytes(part), "TRUE".to_owned())));
            let columns = used.table.columns.iter();
            let has = |column: &&Column| copied.pull.columns.contains(&column.name);
            let name = TableName::new("pg_temp", name);
            let table = Table {
                name: name.clone(),
                kind: TableKind::Reference,
                columns: columns.filter(has).cloned().collect(),
            };
            known.push((name, RelationKind::Sharded(Arc::new(table))));
            tables.push(copied);
        }
        let sql = edited(tokens, edits);
        let (many, needs_key) = self.on_shards(&sql, &known)?;
        let parameters = scan::parameters(sql.as_bytes());
        let first = parameters.last().copied().unwrap_or(0).checked_add(1)?;
        Some(Broadcast { tables: tables.into(), first, sql: sql.into(), many, needs_key })
    }

    /// What each shard does, to which a copy is a reference table.
    fn on_shards(
        &self,
        sql: &str,
        known: &[(TableName, RelationKind)],
    ) -> Option<(ManyShards, bool)> {
        let context = Context { copies: known, ..*self.context };
        let tokens = Tokens::new(sql);
        tokens.check_limits().ok()?;
        let read = tokens.strip_parens(&tokens.all());
        // What is put before it makes it a statement with WITH.
        let query = Query::read(&tokens, read.clone()).ok().filter(|_| read == tokens.all())?;
        let analysis = Analysis::of_query(&tokens, &context, &query).ok()?;
        if !analysis.home.is_empty() {
            return None;
        }
        witness(&tokens, &context, &analysis, None).ok()?;
        let (mut many, _) = scatter::select(&tokens, &query, &analysis).ok()?;
        // Its keys are literals of the client's text.
        let stay = self.analysis.uses.iter().zip(self.stays).filter(|(_, stays)| **stays);
        many.target = keys(stay.map(|(used, _)| used)).unwrap_or(Target::All);
        many.sql.get_or_insert_with(|| sql.into());
        let grouped = query.only_select().is_some_and(|select| select.group.is_some());
        let needs_key = grouped && !matches!(many.merge, Merge::Combine(_));
        Some((many, needs_key))
    }

    fn table(&self, number: usize, used: &Use) -> Option<CopiedTable> {
        let Self { tokens, context, analysis, read, .. } = *self;
        // A row of it would be of no type; and columns are what they are called.
        if used.odd || read.whole_row(tokens, called(used)) {
            return None;
        }
        let pull = read.pull(tokens, context, analysis, &[used], format!("pgherd_copy_{number}"));
        let columns = pull.columns.iter().map(|name| {
            let column = used.table.columns.iter().find(|column| column.name == *name)?;
            let (portable, modifiers) = portable::find(&column.type_name)?;
            column.collation.is_none().then(|| CopiedColumn {
                oid: portable.oid,
                type_name: portable.name,
                modifiers: modifiers.into(),
                exact: portable.exact,
                compared: self.is_compared(used, name),
            })
        });
        let columns = columns.collect::<Option<Box<[CopiedColumn]>>>()?;
        Some(CopiedTable { pull, columns })
    }

    /// `column = …`, as far as it can be told: it makes a plan better, not right.
    fn is_compared(&self, used: &Use, column: &str) -> bool {
        let tokens = self.tokens;
        let passed = passed(tokens, self.context, used);
        let left = tokens.all().filter(|at| !passed.iter().any(|part| part.contains(at)));
        left.filter(|at| tokens.name(*at) == Some(column)).any(|at| {
            let qualified = at > 1 && tokens.sign(at - 1, ".");
            let own = !qualified || tokens.name(at - 2) == Some(called(used));
            let start = if qualified { at - 2 } else { at };
            own && (tokens.sign(at + 1, "=") || start > 0 && tokens.sign(start - 1, "="))
        })
    }
}
