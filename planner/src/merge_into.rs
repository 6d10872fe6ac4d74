//! MERGE: on one shard, or on every shard by itself where source and target are co-located. Else
//! the source's rows are carried to the target's (`merge_from`).
//!
//! A source row that finds no match becomes a new row, and its shard must be the one that looked
//! for the match: the new row's key is the source's own, or a value that pins the shard.

use pgherd_shard_map::{Table, TableKind};

use crate::analyze::{Analysis, Scope, Side, value};
use crate::insert::made_by_shards;
use crate::query::{From, Unread, read_from_item};
use crate::route::{home, keys, plan_of, with_new_keys};
use crate::token::{Kind, Range, Tokens};
use crate::witness::{unread, witness};
use crate::write::{
    refuse_default, refuse_differing_subqueries, refuse_key_change, refuse_rounded_key,
    refuse_sequences, same_everywhere, sharded_target,
};
use crate::{
    Access, Action, Context, KeySource, ManyShards, Merge, OneShard, Plan, PlanError, Reuse,
    StatementKind, Target, borrow, merge_from, scatter,
};

const KIND: StatementKind = StatementKind::Merge;

pub(crate) struct Statement<'t> {
    pub(crate) table: Vec<&'t str>,
    pub(crate) alias: Option<&'t str>,
    pub(crate) source: Range,
    pub(crate) on: Range,
    /// What each WHEN does: behind its THEN.
    actions: Vec<Range>,
}

fn read<'t>(tokens: &'t Tokens<'_>) -> Option<Statement<'t>> {
    if !tokens.is(1, "into") {
        return None;
    }
    let (table, mut at) = tokens.qualified(2 + usize::from(tokens.is(2, "only")))?;
    at += usize::from(tokens.sign(at, "*"));
    let mut alias = None;
    if !tokens.is(at, "using") {
        at += usize::from(tokens.is(at, "as"));
        alias = Some(tokens.name(at)?);
        at += 1;
    }
    let end = tokens.len();
    if !tokens.is(at, "using") {
        return None;
    }
    let (first, actions) = read_actions(tokens, &(at + 1..end))?;
    // Those of joins in the source come before the statement's own.
    let on = (at + 1..first).rev().find(|t| {
        tokens.is(*t, "on") && tokens.find(&(at + 1..first), |top| top == *t).is_some()
    })?;
    Some(Statement { table, alias, source: at + 1..on, on: on + 1..first, actions })
}

/// Where the first WHEN of the statement's own stands, and what is behind the THEN of each: not
/// those of a CASE in a condition.
fn read_actions(tokens: &Tokens<'_>, range: &Range) -> Option<(usize, Vec<Range>)> {
    let mut cases = 0_u32;
    // WHEN, and its THEN once that has come.
    let mut clauses: Vec<(usize, Option<usize>)> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let own = cases == 0 && !tokens.sign(at - 1, ".");
        match tokens.word(at) {
            Some("case") if !tokens.sign(at - 1, ".") => cases += 1,
            Some("end") if cases > 0 && !tokens.sign(at - 1, ".") => cases -= 1,
            Some("when") if own => clauses.push((at, None)),
            Some("then") if own => {
                let (_, then) = clauses.last_mut()?;
                then.is_none().then(|| *then = Some(at))?;
            }
            _ => {}
        }
        at = tokens.after(at);
    }
    let ends = clauses.iter().skip(1).map(|(when, _)| *when).chain([range.end]);
    let actions = clauses.iter().zip(ends).map(|((_, then), end)| Some(then.as_ref()? + 1..end));
    Some((clauses.first()?.0, actions.collect::<Option<Vec<_>>>()?))
}

pub(crate) fn plan(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    if context.may_name_sharded(tokens, &tokens.all()).is_none() {
        return Ok(home(context, Access::Write, KIND));
    }
    tokens.check_limits()?;
    plan_after(tokens, context, "")
}

/// `with`: what stands before the MERGE.
pub(crate) fn plan_after(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    with: &str,
) -> Result<Plan, PlanError> {
    refuse_sequences(tokens, &tokens.all())?;
    let statement = read(tokens).ok_or_else(|| unread(tokens))?;
    let table = sharded_target(context, &statement.table, KIND)?;
    let (analysis, scope) =
        analyze(tokens, context, &statement).map_err(|Unread| unread(tokens))?;
    let known = for_parser(tokens, &statement);
    witness(&Tokens::new(&known), context, &analysis, None)?;
    let Some(table) = table else {
        if with.is_empty() && analysis.uses.is_empty() && analysis.view_read_whole().is_none() {
            return Ok(home(context, Access::Write, KIND));
        }
        return merge_from::plan(tokens, context, with, &statement, None, None);
    };
    let rows = check_actions(tokens, &statement, &table)?;
    let alone = with.is_empty() && analysis.view_read_whole().is_none();
    if alone && analysis.home.is_empty() {
        let plan = Here { tokens, context, statement: &statement, table: &table, rows: &rows }
            .plan(&analysis, &scope);
        match plan {
            Err(error) if error.sqlstate == "0A000" => {}
            plan => return plan,
        }
    }
    // Literals of the WITH are not counted here.
    let own = analysis.uses.get(..1).filter(|own| with.is_empty() && own[0].place.is_none());
    let looked_for = own.and_then(keys);
    merge_from::plan(tokens, context, with, &statement, Some((&table, &rows)), looked_for)
}

/// The statement as the parser knows it: OVERRIDING in an INSERT of its own only, a join as source in
/// parentheses only, no ONLY.
fn for_parser(tokens: &Tokens<'_>, statement: &Statement<'_>) -> String {
    let overriding = |at: &usize| tokens.is(*at, "overriding") && tokens.is(*at + 2, "value");
    let cut = tokens.all().filter(overriding).map(|at| at..at + 3);
    let only = tokens.is(2, "only").then_some(2..3);
    let mut edits: Vec<_> =
        cut.chain(only).map(|range| (tokens.bytes(&range), String::new())).collect();
    if matches!(read_from_item(tokens, &statement.source), Ok(From::Join { .. })) {
        let source = tokens.bytes(&statement.source);
        edits.push((source.start..source.start, "(".to_owned()));
        edits.push((source.end..source.end, ")".to_owned()));
    }
    borrow::edited(tokens, edits)
}

/// What no MERGE on sharded tables may do, and the rows that it makes.
fn check_actions(
    tokens: &Tokens<'_>,
    statement: &Statement<'_>,
    table: &Table,
) -> Result<Vec<NewRow>, PlanError> {
    let mut rows = Vec::new();
    for action in &statement.actions {
        if tokens.are(action.start, &["update", "set"]) {
            let set = action.start + 2..action.end;
            refuse_default(tokens, &set, table)?;
            if let Some(key) = table.key_column() {
                refuse_key_change(tokens, &set, &key.name)?;
            }
        }
        if let Some(row) = NewRow::read(tokens, action, table)? {
            rows.push(row);
        }
    }
    if matches!(table.kind, TableKind::Distributed { .. }) {
        refuse_rounded_key(table)?;
    }
    Ok(rows)
}

/// A MERGE whose source rows are where the target's are.
struct Here<'a, 'c> {
    tokens: &'a Tokens<'a>,
    context: &'a Context<'c>,
    statement: &'a Statement<'a>,
    table: &'a Table,
    rows: &'a [NewRow],
}

impl Here<'_, '_> {
    fn plan(&self, analysis: &Analysis, scope: &Scope) -> Result<Plan, PlanError> {
        let Self { tokens, context, statement, table, .. } = self;
        if table.kind == TableKind::Reference {
            if !analysis.uses.is_empty() {
                return Err(refused("Every shard would have to read rows of all the others."));
            }
            for row in self.rows {
                row.refuse_made(tokens, table)?;
            }
            return same_everywhere(tokens, context, KIND, table, &tokens.all());
        }
        for row in self.rows {
            row.refuse_made(tokens, table)?;
        }
        let (fed, pins) = self.new_keys(analysis, scope)?;
        if let Some(target) = keys(&analysis.uses) {
            // Where all of them name one shard, the match is looked for where the new row goes.
            let target = with_new_keys(target, &pins);
            let action = Action::One(OneShard { target, otherwise: None });
            return Ok(plan_of(context, action, Access::Write, Reuse::AnyLiterals, KIND));
        }
        let alone = analysis.uses.len() == 1;
        let inserts = !self.rows.is_empty();
        if inserts && (!fed || alone)
            || !alone && !scatter::connected(analysis, analysis.uses.len())
        {
            return Err(refused(
                "Source and target are not joined on their distribution columns, so that matches \
                 may be on other shards.",
            ));
        }
        // A subquery could need rows of other shards.
        if analysis.blocks > 0 && analysis.uses.len() > 1
            || analysis.uses.iter().any(|used| used.odd || used.part)
        {
            return Err(refused("It reads distributed tables in subqueries."));
        }
        if borrow::names_system_column(tokens) {
            return Err(refused("System columns have other values on each shard."));
        }
        refuse_differing_subqueries(tokens, &statement.source)?;
        let many = ManyShards { target: Target::All, sql: None, merge: Merge::Sum };
        Ok(plan_of(context, Action::Many(many), Access::Write, Reuse::AnyLiterals, KIND))
    }

    /// Whether all new rows have the source's own keys, and the values that are the keys of others.
    fn new_keys(
        &self,
        analysis: &Analysis,
        scope: &Scope,
    ) -> Result<(bool, Vec<KeySource>), PlanError> {
        let mut pins = Vec::new();
        for row in self.rows {
            match row.key(self.tokens, self.table)? {
                NewKey::Value(pin) => pins.push(pin),
                NewKey::Column(name) => {
                    // The source's distribution column, not the target's own.
                    let column = analysis.column(self.tokens, scope, &name);
                    if !matches!(column, Some((1.., _))) {
                        return Err(refused_row(self.table));
                    }
                }
            }
        }
        Ok((pins.is_empty(), pins))
    }
}

fn analyze(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    statement: &Statement<'_>,
) -> Result<(Analysis, Scope), Unread> {
    let mut analysis = Analysis::default();
    let mut scope = Scope::default();
    analysis.table(context, &statement.table, statement.alias, false, &mut scope)?;
    let home_target = std::mem::take(&mut analysis.home);
    let target: Vec<usize> = (0..analysis.uses.len()).collect();
    let item = read_from_item(tokens, &statement.source)?;
    let mut conditions = Vec::new();
    analysis.from(tokens, context, &item, &mut scope, &mut conditions)?;
    let source = (target.len()..analysis.uses.len()).collect();
    // Source rows without a match are not left out.
    conditions.push((statement.on.clone(), Side::To(source, target)));
    analysis.conditions(tokens, context, &scope, &conditions)?;
    analysis.expression(tokens, context, &(statement.on.end..tokens.len()), &scope)?;
    if home_target.is_empty() {
        analysis.settle();
    }
    Ok((analysis, scope))
}

/// What one INSERT action makes.
pub(crate) struct NewRow {
    pub(crate) columns: Option<Vec<String>>,
    /// Empty for DEFAULT VALUES.
    pub(crate) values: Vec<Range>,
    pub(crate) overrides: bool,
    /// The word VALUES.
    pub(crate) word: usize,
}

pub(crate) enum NewKey {
    Value(KeySource),
    Column(Range),
}

impl NewRow {
    /// `None`: the action makes no row.
    fn read(tokens: &Tokens<'_>, action: &Range, table: &Table) -> Result<Option<Self>, PlanError> {
        if !tokens.is(action.start, "insert") {
            return Ok(None);
        }
        let mut at = action.start + 1;
        let mut columns = None;
        if tokens.kind(at) == Some(Kind::Open) {
            let inside = at + 1..tokens.list[at].close;
            let names = tokens
                .split(&inside)
                .into_iter()
                .map(|part| tokens.name(part.start).filter(|_| part.len() == 1).map(str::to_owned));
            columns = Some(names.collect::<Option<Vec<_>>>().ok_or_else(|| unread(tokens))?);
            at = tokens.after(at);
        }
        let overrides = tokens.is(at, "overriding");
        if overrides {
            at += 3;
        }
        if tokens.are(at, &["default", "values"]) {
            return Ok(Some(Self { columns, values: Vec::new(), overrides, word: at + 1 }));
        }
        if !tokens.is(at, "values") || tokens.kind(at + 1) != Some(Kind::Open) {
            return Err(unread(tokens));
        }
        let values = tokens.split(&(at + 2..tokens.list[at + 1].close));
        if values.len() > table.columns.len() {
            return Err(unread(tokens));
        }
        Ok(Some(Self { columns, values, overrides, word: at }))
    }

    /// What is written into a column of the table.
    pub(crate) fn value_of(&self, table: &Table, at: usize) -> Option<&Range> {
        let field = match &self.columns {
            Some(names) => names.iter().position(|name| **name == *table.columns[at].name)?,
            None => at,
        };
        self.values.get(field)
    }

    /// Values that no shard may make for itself.
    pub(crate) fn refuse_made(&self, tokens: &Tokens<'_>, table: &Table) -> Result<(), PlanError> {
        match made_by_shards(table, |at| self.gives(tokens, table, at)) {
            None => Ok(()),
            Some(column) => Err(refused(&format!(
                "Column \"{}\" of {} has a default that shards must not compute.",
                column.name, table.name
            ))),
        }
    }

    /// The row says what the column gets.
    pub(crate) fn gives(&self, tokens: &Tokens<'_>, table: &Table, at: usize) -> bool {
        let default = |value: &Range| value.len() == 1 && tokens.is(value.start, "default");
        self.value_of(table, at).is_some_and(|value| !default(value))
    }

    pub(crate) fn key(&self, tokens: &Tokens<'_>, table: &Table) -> Result<NewKey, PlanError> {
        let TableKind::Distributed { key, key_type, .. } = table.kind else {
            return Err(unread(tokens));
        };
        let range = self.value_of(table, key).ok_or_else(|| refused_row(table))?;
        match value(tokens, range, key_type) {
            Some(KeySource::Null) => Err(refused_row(table)),
            Some(source) => Ok(NewKey::Value(source)),
            None => Ok(NewKey::Column(tokens.strip_parens(range))),
        }
    }
}

pub(crate) fn refused(detail: &str) -> PlanError {
    PlanError::unsupported(
        "this MERGE is not supported on sharded tables",
        detail.to_owned(),
        "Join on the target's distribution column, and give new rows the source's column that it is \
         compared with; or use INSERT … ON CONFLICT, UPDATE and DELETE.",
    )
}

pub(crate) fn refused_row(table: &Table) -> PlanError {
    let key = table.key_column().map_or("", |column| &*column.name);
    refused(&format!(
        "A new row's \"{key}\" must be the distribution column of the source, or the value that \
         both are compared with: its shard is the one that looks for the match.",
    ))
}
