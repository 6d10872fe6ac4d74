//! Statements with several parts that write: `WITH … AS (DELETE … RETURNING …) INSERT …`, and WITH
//! before INSERT, UPDATE, DELETE and MERGE.
//!
//! Parts see each other's rows, so they run as they are on one shard: every distributed table that
//! any part reads or writes is pinned to the same key, new rows by the value that they give to their
//! distribution column. Else the parts that write run one after another (`steps`); and WITH queries
//! that only read become a part of what the statement reads.

use pgherd_shard_map::{Table, TableKind};

use crate::analyze::{Analysis, Scope, Use, value};
use crate::change::{Ahead, change_after, read_change, read_change_into};
use crate::insert::{Insert, made_by_shards, read_insert, value_rows};
use crate::query::{Cte, Query, Unread, read_ctes, starts_query};
use crate::route::{home, keys, keys_of, plan_of, refuse_home, view_refused, with_new_keys};
use crate::token::{Range, Tokens};
use crate::witness::{unread, witness};
use crate::write::{refuse_default, refuse_key_change, refuse_rounded_key, refuse_sequences};
use crate::{
    Access, Action, Context, KeySource, OneShard, Plan, PlanError, Reuse, StatementKind,
    merge_into, steps,
};

/// A statement that begins with WITH and writes somewhere. `kind` is that of its main part.
pub(crate) fn plan(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    kind: StatementKind,
) -> Result<Plan, PlanError> {
    if context.may_name_sharded(tokens, &tokens.all()).is_none() {
        return Ok(home(context, Access::Write, kind));
    }
    tokens.check_limits()?;
    match on_one_shard(tokens, context, kind) {
        Err(error) if error.sqlstate == "0A000" => over_shards(tokens, context, kind, error),
        plan => plan,
    }
}

/// `error` says why one shard cannot have it.
fn over_shards(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    kind: StatementKind,
    error: PlanError,
) -> Result<Plan, PlanError> {
    let (ctes, recursive, main) = read_ctes(tokens, 0).map_err(|Unread| unread(tokens))?;
    // Rows that are locked are those of one query, which is run once.
    let once = |cte: &Cte| cte.query.as_ref().is_none_or(|query| query.locks.is_some());
    if ctes.iter().any(once) && !tokens.is(main, "merge") || ctes.iter().any(|c| c.query.is_none())
    {
        return steps::plan(tokens, context, kind, &ctes, recursive, main);
    }
    match tokens.word(main) {
        Some("insert") => insert_from(tokens, context, main),
        Some("update" | "delete") => {
            change_after(tokens, context, kind, &Ahead { ctes: &ctes, recursive, main })
        }
        Some("merge") => {
            let merge = Tokens::known(tokens.text(&(main..tokens.len())), context);
            let with = format!("{} ", tokens.text(&(0..main)));
            merge_into::plan_after(&merge, context, &with)
        }
        _ => Err(error),
    }
}

/// WITH goes where the rows are made.
fn insert_from(tokens: &Tokens<'_>, context: &Context<'_>, main: usize) -> Result<Plan, PlanError> {
    let all = main..tokens.len();
    let insert = read_insert(tokens, all.clone()).ok_or_else(|| unread(tokens))?;
    let source = insert.source..insert.tail;
    // DEFAULT stands in the VALUES of an INSERT only.
    if source.clone().any(|at| tokens.is(at, "default")) {
        return Err(unread(tokens));
    }
    let (with, rows) = (tokens.text(&(0..main)), tokens.text(&source));
    // Of two WITHs one is made: the second may name what is in the first.
    let rows = match tokens.is(source.start, "with") {
        true if tokens.is(source.start + 1, "recursive") => return Err(unread(tokens)),
        true => format!(", {}", tokens.text(&(source.start + 1..source.end))),
        false => rows.to_owned(),
    };
    let head = tokens.text(&(main..source.start));
    let sql = format!("{head} {with} {rows} {}", tokens.text(&(source.end..all.end)));
    crate::insert::insert(&Tokens::known(&sql, context), context)
}

fn on_one_shard(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    kind: StatementKind,
) -> Result<Plan, PlanError> {
    refuse_sequences(tokens, &tokens.all())?;
    let mut parts = Parts { tokens, context, analysis: Analysis::default(), new: Vec::new() };
    parts.all()?;
    let Parts { mut analysis, new, .. } = parts;
    if let Some(view) = analysis.view_read_whole() {
        return Err(view_refused(view));
    }
    analysis.settle();
    witness(tokens, context, &analysis, None)?;
    if analysis.sharded() == 0 {
        // A name that only looked like a table's.
        return Ok(home(context, Access::Write, kind));
    }
    refuse_home(&analysis)?;
    if keys(&analysis.uses).is_none() {
        return Err(several_shards(&analysis));
    }
    let pins = |wanted: bool| -> Vec<KeySource> {
        let uses = analysis.uses.iter().enumerate();
        let uses = uses.filter(|(at, _)| new.contains(at) == wanted);
        uses.flat_map(|(_, used)| used.pins.iter().cloned()).collect()
    };
    let looked_for = keys_of(analysis.uses[0].group, pins(false).into_iter());
    let target = with_new_keys(looked_for, &pins(true));
    let action = Action::One(OneShard { target, otherwise: None });
    Ok(plan_of(context, action, Access::Write, Reuse::AnyLiterals, kind))
}

fn several_shards(analysis: &Analysis) -> PlanError {
    let free = analysis.uses.iter().find(|used| !used.pinned || used.odd);
    let detail = match free {
        Some(used) => {
            let column = used.key_name().unwrap_or_default();
            format!("\"{column}\" of {} is not compared with one value.", used.table.name)
        }
        None => "Its tables are not co-located.".to_owned(),
    };
    PlanError::unsupported(
        "a statement whose WITH queries write, or that writes after WITH, runs on one shard only",
        detail,
        "Give the distribution column of every table the same value, or run the parts one after \
         another in a transaction.",
    )
}

struct Parts<'a, 'c> {
    tokens: &'a Tokens<'a>,
    context: &'a Context<'c>,
    analysis: Analysis,
    /// Those of the uses that are tables which get new rows.
    new: Vec<usize>,
}

impl Parts<'_, '_> {
    fn all(&mut self) -> Result<(), PlanError> {
        let tokens = self.tokens;
        let (ctes, recursive, main) = read_ctes(tokens, 0).map_err(|_| unread(tokens))?;
        let mut scope = Scope::default();
        if recursive {
            scope.add_ctes(ctes.iter().map(|cte| cte.name.clone()));
        }
        for cte in ctes {
            match &cte.query {
                Some(query) => self.query(query, &scope)?,
                None => self.write(cte.range.clone(), &scope)?,
            }
            scope.add_ctes([cte.name]);
        }
        match starts_query(tokens, main) {
            true => {
                let query = Query::read(tokens, main..tokens.len());
                self.query(&query.map_err(|_| unread(tokens))?, &scope)
            }
            false => self.write(main..tokens.len(), &scope),
        }
    }

    fn query(&mut self, query: &Query, scope: &Scope) -> Result<(), PlanError> {
        self.analysis
            .query(self.tokens, self.context, query, scope)
            .map_err(|Unread| unread(self.tokens))?;
        // PostgreSQL has these at the top only.
        if self.analysis.data_modifying_cte || self.analysis.into {
            return Err(unread(self.tokens));
        }
        Ok(())
    }

    fn write(&mut self, range: Range, scope: &Scope) -> Result<(), PlanError> {
        match self.tokens.word(range.start) {
            Some("update") => self.change(range, scope, true),
            Some("delete") => self.change(range, scope, false),
            Some("insert") => self.insert(range, scope),
            _ => Err(unread(self.tokens)),
        }
    }

    fn change(&mut self, range: Range, scope: &Scope, update: bool) -> Result<(), PlanError> {
        let tokens = self.tokens;
        let change = read_change(tokens, range, update).ok_or_else(|| unread(tokens))?;
        if tokens.are(change.filter.start, &["current", "of"]) {
            return Err(unread(tokens));
        }
        let table = self.target(&change.table, scope)?;
        refuse_default(tokens, &change.set, &table)?;
        if let Some(key) = table.key_column() {
            refuse_key_change(tokens, &change.set, &key.name)?;
        }
        read_change_into(&mut self.analysis, tokens, self.context, &change, scope)
            .map_err(|Unread| unread(tokens))
    }

    /// The table that a part writes, distributed for certain.
    fn target(&self, parts: &[&str], scope: &Scope) -> Result<std::sync::Arc<Table>, PlanError> {
        let hidden = matches!(parts, [name] if scope.names_cte(name));
        match self.context.sharded(parts).filter(|_| !hidden) {
            Some(table) if table.kind != TableKind::Reference => Ok(table.clone()),
            _ => Err(PlanError::unsupported(
                "a statement with several parts can write distributed tables only",
                format!("{} is not one.", parts.join(".")),
                "Run the parts one after another in a transaction.",
            )),
        }
    }

    fn insert(&mut self, range: Range, scope: &Scope) -> Result<(), PlanError> {
        let (tokens, context) = (self.tokens, self.context);
        let insert = read_insert(tokens, range.clone()).ok_or_else(|| unread(tokens))?;
        let table = self.target(&insert.table, scope)?;
        refuse_rounded_key(&table)?;
        crate::insert::on_conflict(tokens, &insert, &table, range.end)?;
        let TableKind::Distributed { key_type, group, .. } = table.kind else {
            return Err(unread(tokens));
        };
        let (pins, width) = self.new_keys(&insert, &table)?;
        self.refuse_made(&insert, &table, width)?;
        let used = Use {
            table: table.clone(),
            group,
            key_type,
            odd: false,
            part: false,
            place: None,
            alias: None,
            pins,
            pinned: true,
        };
        self.new.push(self.analysis.uses.len());
        self.analysis.uses.push(used);
        let source = insert.source..insert.tail;
        match starts_query(tokens, source.start) && !tokens.is(source.start, "values") {
            true => {
                let query = Query::read(tokens, tokens.strip_parens(&source));
                self.query(&query.map_err(|Unread| unread(tokens))?, scope)?;
            }
            false => self
                .analysis
                .expression(tokens, context, &source, scope)
                .map_err(|Unread| unread(tokens))?,
        }
        self.analysis
            .expression(tokens, context, &(insert.tail..range.end), scope)
            .map_err(|Unread| unread(tokens))
    }

    /// The keys that new rows get, each a literal or a parameter, and how many columns are given.
    fn new_keys(
        &self,
        insert: &Insert<'_>,
        table: &Table,
    ) -> Result<(Vec<KeySource>, usize), PlanError> {
        let tokens = self.tokens;
        let TableKind::Distributed { key, key_type, .. } = table.kind else {
            return Err(unread(tokens));
        };
        let unknown = || {
            PlanError::unsupported(
                "new rows of a statement with several parts must name their shard",
                format!(
                    "\"{}\" of {} is no literal or parameter.",
                    table.columns[key].name, table.name
                ),
                "Write the distribution column's value as a literal or a parameter.",
            )
        };
        let field = match &insert.columns {
            Some(names) => names.iter().position(|name| *name == &*table.columns[key].name),
            None => Some(key),
        };
        let field = field.ok_or_else(unknown)?;
        let rows: Vec<Vec<Range>> = match tokens.is(insert.source, "values") {
            true => value_rows(tokens, insert)
                .ok_or_else(|| unread(tokens))?
                .iter()
                .map(|row| tokens.split(&(row.start + 1..row.end - 1)))
                .collect(),
            false if starts_query(tokens, insert.source) => {
                let source = tokens.strip_parens(&(insert.source..insert.tail));
                let query = Query::read(tokens, source).map_err(|Unread| unread(tokens))?;
                let select = query.only_select().ok_or_else(unknown)?;
                if select.items.iter().any(|item| tokens.sign(item.end - 1, "*")) {
                    return Err(unknown());
                }
                vec![select.items.clone()]
            }
            false => return Err(unknown()),
        };
        let width = rows.first().map_or(0, Vec::len);
        let pin = |row: &Vec<Range>| {
            let item = row.get(field)?;
            let named = tokens.find(item, |at| tokens.is(at, "as"));
            let casts = tokens.is(item.start, "cast");
            let item = item.start..named.filter(|_| !casts).unwrap_or(item.end);
            value(tokens, &item, key_type).filter(|pin| *pin != KeySource::Null)
        };
        let pins: Option<Vec<KeySource>> = rows.iter().map(pin).collect();
        Ok((pins.ok_or_else(unknown)?, width))
    }

    /// Values that no shard may make for itself.
    fn refuse_made(
        &self,
        insert: &Insert<'_>,
        table: &Table,
        width: usize,
    ) -> Result<(), PlanError> {
        let tokens = self.tokens;
        let word = (insert.source..insert.tail).any(|at| tokens.is(at, "default"));
        let given = |at: usize| match &insert.columns {
            _ if word => false,
            Some(names) => names.contains(&&*table.columns[at].name),
            None => at < width,
        };
        match made_by_shards(table, given) {
            None => Ok(()),
            Some(column) => Err(PlanError::unsupported(
                "a statement with several parts cannot make numbers for new rows",
                format!(
                    "Column \"{}\" of {} has a default that shards must not compute.",
                    column.name, table.name
                ),
                "Fetch the number first with SELECT nextval(…), and write it as a value.",
            )),
        }
    }
}
