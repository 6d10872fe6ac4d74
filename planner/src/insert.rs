//! INSERT: which shard each new row belongs to, and what must be made before that is known.
//!
//! A number of a sequence, a default of the distribution column, a default of a reference table:
//! such values are made once, by the router or on the home shard, and written into the rows before
//! these are placed ([`Make`]). No shard ever asks a sequence of its own, and all copies of a
//! reference table get the same row.

use std::sync::Arc;

use pgherd_shard_map::{Column, ColumnDefault, Identity, Table, TableKind, quoted};

use smallvec::SmallVec;

use crate::analyze::{Analysis, value};
use crate::literal::decode_str;
use crate::query::{Query, Unread, starts_query};
use crate::route::{home, keys, plan_of};
use crate::token::{Kind, Range, Tokens};
use crate::witness::{unread, witness};
use crate::write::{
    refuse_default, refuse_differing, refuse_key_change, refuse_rounded_key, refuse_sequences,
    same_everywhere, sharded_target,
};
use crate::{
    Access, Action, Context, KeyUse, Limit, Make, ManyShards, Merge, NewRow, OneShard, Plan,
    PlanError, Reuse, RowKey, RowPart, SplitInsert, StatementKind, Target, functions, gather,
    scatter,
};

/// More rows than this are not worth a place in the plan cache.
const ROWS_KEPT: usize = 20;

pub(crate) struct Insert<'t> {
    pub(crate) table: Vec<&'t str>,
    /// Where a list of columns stands or would stand, and its names.
    pub(crate) list: usize,
    pub(crate) columns: Option<Vec<&'t str>>,
    overriding: Option<Overriding>,
    /// VALUES, DEFAULT VALUES or a query.
    pub(crate) source: usize,
    /// ON CONFLICT, RETURNING.
    pub(crate) tail: usize,
}

impl Insert<'_> {
    pub(crate) fn overrides_by_user(&self) -> bool {
        self.overriding == Some(Overriding::User)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overriding {
    System,
    User,
}

pub(crate) fn read_insert<'t>(tokens: &'t Tokens<'_>, range: Range) -> Option<Insert<'t>> {
    if !tokens.is(range.start + 1, "into") {
        return None;
    }
    let (table, mut at) = tokens.qualified(range.start + 2)?;
    if tokens.is(at, "as") {
        at += 2;
    }
    let list = at;
    let mut columns = None;
    if tokens.kind(at) == Some(Kind::Open) && !starts_query(tokens, at) {
        let inside = at + 1..tokens.list[at].close;
        let names: Option<Vec<&str>> = tokens
            .split(&inside)
            .iter()
            .map(|part| tokens.name(part.start).filter(|_| part.len() == 1))
            .collect();
        columns = Some(names?);
        at = tokens.after(at);
    }
    let mut overriding = None;
    if tokens.is(at, "overriding") {
        overriding = Some(match tokens.word(at + 1)? {
            "system" => Overriding::System,
            _ => Overriding::User,
        });
        at += 3;
    }
    let end = range.end;
    let tail = tokens
        .find(&(at..end), |t| tokens.are(t, &["on", "conflict"]) || tokens.is(t, "returning"))
        .unwrap_or(end);
    Some(Insert { table, list, columns, overriding, source: at, tail })
}

pub(crate) fn insert(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    let kind = StatementKind::Insert;
    if context.may_name_sharded(tokens, &tokens.all()).is_none() {
        return Ok(home(context, Access::Write, kind));
    }
    tokens.check_limits()?;
    let insert = read_insert(tokens, tokens.all()).ok_or_else(|| unread(tokens))?;
    let values = tokens.is(insert.source, "values");
    let defaults = tokens.are(insert.source, &["default", "values"]);
    let queries = has_query(tokens, &(insert.source + usize::from(!values)..insert.tail))
        || has_query(tokens, &(insert.tail..tokens.len()));
    let Some(table) = sharded_target(context, &insert.table, kind)? else {
        return insert_home(tokens, context, &insert);
    };
    let table = &table;
    on_conflict(tokens, &insert, table, tokens.len())?;
    refuse_sequences(tokens, &(insert.tail..tokens.len()))?;
    if queries || (!values && !defaults) {
        if let TableKind::Distributed { .. } = table.kind
            && let Ok(plan) = insert_select(tokens, context, &insert, table)
        {
            return Ok(plan);
        }
        return gather::plan(tokens, context, &insert);
    }
    let rows = match defaults {
        true => Vec::new(),
        false => value_rows(tokens, &insert).ok_or_else(|| unread(tokens))?,
    };
    match insert_values(tokens, context, &insert, table, &rows) {
        // A key that is computed, a value that every shard would compute for itself.
        Err(error) if error.sqlstate == "0A000" && values => {
            gather::plan(tokens, context, &insert).map_err(|_| error)
        }
        plan => plan,
    }
}

pub(crate) fn has_query(tokens: &Tokens<'_>, range: &Range) -> bool {
    range.clone().any(|at| tokens.kind(at) == Some(Kind::Open) && starts_query(tokens, at + 1))
}

/// A home table that may be filled from home and reference tables.
fn insert_home(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    insert: &Insert<'_>,
) -> Result<Plan, PlanError> {
    let source = insert.source..insert.tail;
    let mut analysis = Analysis::default();
    let unread = |_: Unread| unread(tokens);
    if starts_query(tokens, source.start) && !tokens.is(source.start, "values") {
        let range = tokens.strip_parens(&source);
        let query = Query::read(tokens, range).map_err(unread)?;
        analysis.query(tokens, context, &query, &Default::default()).map_err(unread)?;
    }
    analysis
        .expression(tokens, context, &(insert.tail..tokens.len()), &Default::default())
        .map_err(unread)?;
    if tokens.is(source.start, "values") {
        analysis.expression(tokens, context, &source, &Default::default()).map_err(unread)?;
    }
    let whole = analysis.view_read_whole().is_some();
    if analysis.data_modifying_cte && (whole || analysis.sharded() > 0) {
        return Err(crate::witness::unread(tokens));
    }
    if whole || !analysis.uses.is_empty() {
        return gather::plan(tokens, context, insert);
    }
    witness(tokens, context, &analysis, None)?;
    Ok(home(context, Access::Write, StatementKind::Insert))
}

pub(crate) fn on_conflict(
    tokens: &Tokens<'_>,
    insert: &Insert<'_>,
    table: &Table,
    end: usize,
) -> Result<(), PlanError> {
    let tail = insert.tail..end;
    let Some(set) = tokens.find(&tail, |at| tokens.is(at, "set")) else { return Ok(()) };
    let end = tokens
        .find(&(set..tail.end), |at| tokens.is_any(at, &["where", "returning"]))
        .unwrap_or(tail.end);
    refuse_default(tokens, &(set + 1..end), table)?;
    match table.key_column() {
        Some(key) => refuse_key_change(tokens, &(set + 1..end), &key.name),
        None => Ok(()),
    }
}

pub(crate) fn value_rows(tokens: &Tokens<'_>, insert: &Insert<'_>) -> Option<Vec<Range>> {
    let rows = tokens.split(&(insert.source + 1..insert.tail));
    let row = |range: &Range| {
        tokens.kind(range.start) == Some(Kind::Open)
            && tokens.list[range.start].close + 1 == range.end
    };
    rows.iter().all(row).then_some(rows)
}

/// One column of the new rows.
struct Field<'c> {
    column: &'c Column,
    is_key: bool,
    /// A shard must not compute its default by itself.
    must_make: bool,
}

impl Field<'_> {
    fn identity(&self) -> Identity {
        match &self.column.default {
            ColumnDefault::Sequence(sequence) => sequence.identity,
            _ => Identity::None,
        }
    }
}

/// `INSERT … VALUES` on its way to a plan.
struct Values<'a, 'c> {
    tokens: &'a Tokens<'a>,
    context: &'c Context<'c>,
    insert: &'a Insert<'a>,
    table: &'c Table,
    /// As the statement names or counts them, and those that it leaves out.
    given: Vec<Field<'c>>,
    added: Vec<Field<'c>>,
    makes: Vec<Make>,
    /// A number is written into an identity column.
    overrides: bool,
    /// The plan is for one statement only.
    once: bool,
}

impl<'c> Values<'_, 'c> {
    fn field(&self, at: usize, column: &'c Column) -> Field<'c> {
        let is_key = matches!(self.table.kind, TableKind::Distributed { key, .. } if key == at);
        Field { column, is_key, must_make: must_make(self.table, at) }
    }

    fn make(&mut self, make: Make) -> u16 {
        let at = self.makes.iter().position(|known| *known == make).unwrap_or_else(|| {
            self.makes.push(make);
            self.makes.len() - 1
        });
        at as u16
    }

    fn make_default(&mut self, column: &Column) -> u16 {
        let make = make_of(self.table, column);
        self.overrides |= matches!(make, Make::Number { identity: Some(_), .. });
        self.make(make)
    }

    /// `nextval('sequence')` and nothing else.
    fn explicit_number(&mut self, field: &Range) -> Option<u16> {
        let tokens = self.tokens;
        let start = field.start + if tokens.is(field.start, "pg_catalog") { 2 } else { 0 };
        let (Some("nextval"), open) = functions::call(tokens, start)? else { return None };
        let close = tokens.list[open].close;
        let cast = tokens.sign(open + 2, "::") && tokens.is(open + 3, "regclass");
        if close + 1 != field.end || open + 2 + usize::from(cast) * 2 != close {
            return None;
        }
        let Kind::Literal { kind, .. } = tokens.kind(open + 1)? else { return None };
        let text = decode_str(&tokens.list[open + 1].text, kind)?;
        let inner = Tokens::known(&text, self.context);
        let (parts, end) = inner.qualified(0)?;
        let (sequence, _) = self.context.relation(&parts).filter(|_| end == inner.len())?;
        Some(self.make(Make::Number { sequence, identity: None }))
    }

    /// What is made in the place of what a row says, if anything.
    fn made(&mut self, at: usize, range: &Range) -> Option<u16> {
        let default = range.len() == 1 && self.tokens.is(range.start, "default");
        let field = &self.given[at];
        let ignored =
            self.insert.overriding == Some(Overriding::User) && field.identity() != Identity::None;
        if field.must_make && (default || ignored) {
            let column = field.column;
            return Some(self.make_default(column));
        }
        self.explicit_number(range)
    }

    /// The key of rows that do not name it.
    fn added_key(&mut self) -> Option<RowKey> {
        if self.table.kind == TableKind::Reference {
            return Some(RowKey::Everywhere);
        }
        let column = self.added.iter().find(|field| field.is_key)?.column;
        Some(RowKey::Made(self.make_default(column)))
    }

    /// The statement's own text: for a plan that is kept, with its literals apart.
    fn put_text(&self, parts: &mut SmallVec<[RowPart; 1]>, range: Range) {
        let tokens = self.tokens;
        if range.is_empty() {
            return;
        }
        if self.once {
            return parts.push(RowPart::Text(tokens.span(&range)));
        }
        let bytes = tokens.bytes(&range);
        let mut from = bytes.start;
        let words = |from: usize, to: usize| RowPart::Words(tokens.sql[from..to].into());
        for at in range {
            if let Some(Kind::Literal { index, .. }) = tokens.kind(at) {
                let token = &tokens.list[at];
                if from < token.start {
                    parts.push(words(from, token.start));
                }
                parts.push(RowPart::Literal(index));
                from = token.end;
            }
        }
        if from < bytes.end {
            parts.push(words(from, bytes.end));
        }
    }

    fn put_added(&mut self, parts: &mut SmallVec<[RowPart; 1]>, mut first: bool) {
        let columns: Vec<&Column> = self.added.iter().map(|field| field.column).collect();
        for column in columns {
            if !std::mem::take(&mut first) {
                parts.push(RowPart::Words(", ".into()));
            }
            parts.push(RowPart::Made(self.make_default(column)));
        }
        parts.push(RowPart::Words(")".into()));
    }

    /// One row; `None` is one that any server refuses.
    fn row(&mut self, row: &Range, fields: &[Range]) -> Result<Option<NewRow>, PlanError> {
        let tokens = self.tokens;
        let mut parts = SmallVec::new();
        let mut key = self.added_key();
        let mut from = row.start;
        for (at, range) in fields.iter().enumerate() {
            let made = self.made(at, range);
            let field = &self.given[at];
            let overriding = self.insert.overriding.is_some();
            if field.identity() == Identity::Always && !overriding && made.is_none() {
                return Ok(None);
            }
            if let (true, TableKind::Distributed { key_type, .. }) = (field.is_key, self.table.kind)
            {
                key = match made {
                    Some(make) => Some(RowKey::Made(make)),
                    None => value(tokens, range, key_type).map(RowKey::Given),
                };
            }
            match made {
                Some(make) => {
                    self.put_text(&mut parts, from..range.start);
                    parts.push(RowPart::Made(make));
                    from = range.end;
                }
                None => refuse_sequences(tokens, range)?,
            }
        }
        if from < row.end - 1 || self.added.is_empty() {
            let end = row.end - usize::from(!self.added.is_empty());
            self.put_text(&mut parts, from..end);
        }
        if !self.added.is_empty() {
            self.put_added(&mut parts, fields.is_empty());
        }
        Ok(Some(NewRow { parts, key: key.ok_or_else(|| missing_key(self.table))? }))
    }

    /// Everything before the first row, with the columns that are added.
    fn head(&self) -> String {
        let (tokens, insert) = (self.tokens, self.insert);
        if self.makes.is_empty() {
            return tokens.sql[..tokens.bytes(&(0..insert.source + 1)).end].to_owned();
        }
        let mut text = tokens.sql[..tokens.bytes(&(0..insert.list)).end].to_owned();
        let list: Vec<String> =
            self.given.iter().chain(&self.added).map(|f| quoted(&f.column.name)).collect();
        text.push_str(&format!(" ({})", list.join(", ")));
        match (self.overrides, insert.overriding) {
            (true, _) | (false, Some(Overriding::System)) => {
                text.push_str(" OVERRIDING SYSTEM VALUE");
            }
            (false, Some(Overriding::User)) => text.push_str(" OVERRIDING USER VALUE"),
            (false, None) => {}
        }
        text.push_str(" VALUES");
        text
    }
}

/// Whether a shard must not compute the default of this column by itself.
pub(crate) fn must_make(table: &Table, at: usize) -> bool {
    let is_key = matches!(table.kind, TableKind::Distributed { key, .. } if key == at);
    match table.columns[at].default {
        ColumnDefault::None | ColumnDefault::Generated => false,
        ColumnDefault::Sequence(_) => true,
        ColumnDefault::Constant => is_key,
        ColumnDefault::RandomUuid | ColumnDefault::Expression => {
            is_key || table.kind == TableKind::Reference
        }
    }
}

/// A column that the new rows are not given and that a shard must not fill by itself.
pub(crate) fn made_by_shards(table: &Table, given: impl Fn(usize) -> bool) -> Option<&Column> {
    let at = (0..table.columns.len()).find(|at| must_make(table, *at) && !given(*at))?;
    Some(&table.columns[at])
}

pub(crate) fn make_of(table: &Table, column: &Column) -> Make {
    let of = (table.name.clone(), column.name.clone());
    match &column.default {
        ColumnDefault::Sequence(sequence) => {
            let identity = (sequence.identity != Identity::None).then_some(of);
            Make::Number { sequence: sequence.name.clone(), identity }
        }
        ColumnDefault::RandomUuid => Make::RandomUuid,
        _ => Make::Default { table: of.0, column: of.1 },
    }
}

fn insert_values(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    insert: &Insert<'_>,
    table: &Arc<Table>,
    rows: &[Range],
) -> Result<Plan, PlanError> {
    let kind = StatementKind::Insert;
    // Any server refuses this, and says where it stands.
    let refused_by_any = || Ok(home(context, Access::Write, kind));
    let fields_of = |row: &Range| match row.len() {
        2 => Vec::new(),
        _ => tokens.split(&(row.start + 1..row.end - 1)),
    };
    let width = rows.first().map_or(0, |row| fields_of(row).len());
    let names: Vec<&str> = match &insert.columns {
        Some(names) => names.clone(),
        None => table.columns.iter().map(|c| &*c.name).take(width).collect(),
    };
    if names.len() != width && !rows.is_empty() {
        return refused_by_any();
    }
    refuse_rounded_key(table)?;
    let mut values = Values {
        tokens,
        context,
        insert,
        table,
        given: Vec::new(),
        added: Vec::new(),
        makes: Vec::new(),
        overrides: false,
        // Two strings on two lines are one, which only their own text tells.
        once: rows.len() > ROWS_KEPT || two_literals(tokens),
    };
    for name in &names {
        let Some(at) = table.columns.iter().position(|column| *column.name == **name) else {
            return refused_by_any();
        };
        values.given.push(values.field(at, &table.columns[at]));
    }
    for (at, column) in table.columns.iter().enumerate() {
        let field = values.field(at, column);
        if field.must_make && !names.contains(&&*column.name) {
            values.added.push(field);
        }
    }
    let mut placed = Vec::with_capacity(rows.len().max(1));
    for row in rows {
        let fields = fields_of(row);
        if fields.len() != width {
            return refused_by_any();
        }
        match values.row(row, &fields)? {
            Some(row) => placed.push(row),
            None => return refused_by_any(),
        }
    }
    if rows.is_empty() {
        // DEFAULT VALUES
        let key = values.added_key().ok_or_else(|| missing_key(table))?;
        if !values.added.is_empty() {
            let mut parts = SmallVec::new();
            parts.push(RowPart::Words("(".into()));
            values.put_added(&mut parts, true);
            placed.push(NewRow { parts, key });
        }
    }
    if table.kind == TableKind::Reference {
        // What is made is the same everywhere; not the head: `t (columns)` looks like a call.
        for row in rows {
            for (at, field) in fields_of(row).iter().enumerate() {
                if values.made(at, field).is_none() {
                    refuse_differing(tokens, table, field)?;
                }
            }
        }
        let tail = insert.tail..tokens.len();
        if values.makes.is_empty() {
            return same_everywhere(tokens, context, kind, table, &tail);
        }
        refuse_differing(tokens, table, &tail)?;
    }
    witness_values(tokens, insert, rows)?;
    let group = match table.kind {
        TableKind::Distributed { group, .. } => Some(group),
        TableKind::Reference => None,
    };
    if let ([NewRow { key: RowKey::Given(source), .. }], Some(group), true) =
        (placed.as_slice(), group, values.makes.is_empty())
    {
        let target = Target::Keys { group, keys: Box::new([source.clone()]), why: KeyUse::NewRow };
        let action = Action::One(OneShard { target, otherwise: None });
        return Ok(plan_of(context, action, Access::Write, Reuse::AnyLiterals, kind));
    }
    let reuse = if values.once { Reuse::Once } else { Reuse::AnyLiterals };
    let mut tail = SmallVec::new();
    values.put_text(&mut tail, insert.tail..tokens.len());
    let action = Action::Insert(SplitInsert {
        table: table.name.clone(),
        group,
        head: values.head().into(),
        rows: placed.into(),
        tail,
        makes: values.makes.into(),
    });
    Ok(plan_of(context, action, Access::Write, reuse, kind))
}

fn two_literals(tokens: &Tokens<'_>) -> bool {
    let literal = |at| matches!(tokens.kind(at), Some(Kind::Literal { .. }));
    tokens.all().any(|at| literal(at) && literal(at + 1))
}

fn missing_key(table: &Table) -> PlanError {
    let key = table.key_column().map_or("", |key| &*key.name);
    PlanError::unsupported(
        "INSERT must give a value for the distribution column",
        format!("The row of {} goes to the shard of column \"{key}\".", table.name),
        format!("Write \"{key}\" as a literal or a parameter."),
    )
}

/// One row shows the parser all that the others are.
fn witness_values(
    tokens: &Tokens<'_>,
    insert: &Insert<'_>,
    rows: &[Range],
) -> Result<(), PlanError> {
    let last = rows.first().map_or(insert.tail, |row| row.end);
    // OVERRIDING is unknown to the parser, and names nothing.
    let list = if insert.columns.is_some() { tokens.after(insert.list) } else { insert.list };
    let head = tokens.text(&(0..list));
    let row = tokens.text(&(insert.source..last));
    let tail = tokens.text(&(insert.tail..tokens.len()));
    let sample = format!("{head} {row} {tail}");
    let seen = crate::parse::relations(&sample)
        .map_err(|error| unread(tokens).with_detail(format!("It cannot be parsed: {error}.")))?;
    if seen.len() == 1 { Ok(()) } else { Err(unread(tokens)) }
}

/// INSERT … SELECT whose rows stay on the shard that they are read from.
fn insert_select(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    insert: &Insert<'_>,
    table: &Arc<Table>,
) -> Result<Plan, PlanError> {
    let TableKind::Distributed { key, group, .. } = table.kind else { return Err(unread(tokens)) };
    let refused = || {
        PlanError::unsupported(
            "this INSERT … SELECT is not supported",
            format!(
                "Rows for {} can be inserted where they are read only if the SELECT reads co-located tables and feeds their distribution column into \"{}\".",
                table.name, table.columns[key].name
            ),
            "Run the SELECT, and insert its rows with VALUES or COPY.",
        )
    };
    if !starts_query(tokens, insert.source) {
        return Err(refused());
    }
    refuse_sequences(tokens, &tokens.all())?;
    let range = tokens.strip_parens(&(insert.source..insert.tail));
    let query = Query::read(tokens, range).map_err(|_| refused())?;
    let mut analysis = Analysis::default();
    let scope = analysis.query_with_scope(tokens, context, &query).map_err(|_| refused())?;
    analysis.settle();
    let select = query.only_select().ok_or_else(refused)?;
    let field = match &insert.columns {
        Some(names) => names.iter().position(|name| *name == &*table.columns[key].name),
        None => Some(key),
    };
    let item = field.and_then(|field| select.items.get(field)).ok_or_else(refused)?;
    if select.items.iter().any(|item| tokens.sign(item.end - 1, "*")) {
        return Err(refused());
    }
    let fed = tokens
        .qualified(item.start)
        .map(|(_, end)| item.start..end)
        .filter(|name| {
            name.end == item.end || tokens.is(name.end, "as") || name.end + 1 == item.end
        })
        .and_then(|name| analysis.column(tokens, &scope, &name));
    // What the shards would take from sequences of their own.
    let numbers = table.columns.iter().enumerate().any(|(at, column)| {
        matches!(column.default, ColumnDefault::Sequence(_))
            && match &insert.columns {
                Some(names) => !names.contains(&&*column.name),
                None => at >= select.items.len(),
            }
    });
    let same_group = !numbers && analysis.uses.iter().all(|u| u.group == group);
    // A row that an outer join adds has no key.
    let may_miss = tokens.all().any(|at| tokens.is_any(at, &["left", "right", "full"]));
    if !matches!(fed, Some((_, 0)))
        || may_miss
        || !same_group
        || !analysis.home.is_empty()
        || analysis.data_modifying_cte
        || analysis.view_read_whole().is_some()
    {
        return Err(refused());
    }
    let mut counted = Analysis::default();
    let _ = counted.table(context, &insert.table, None, false, &mut Default::default());
    counted.uses.extend(std::mem::take(&mut analysis.uses));
    counted.references = analysis.references;
    witness(tokens, context, &counted, None)?;
    counted.uses.remove(0);
    analysis.uses = counted.uses;
    let kind = StatementKind::Insert;
    if let Some(target) = keys(&analysis.uses) {
        let action = Action::One(OneShard { target, otherwise: None });
        return Ok(plan_of(context, action, Access::Write, Reuse::AnyLiterals, kind));
    }
    let (many, _) = scatter::select(tokens, &query, &analysis)?;
    let plain = Merge::Concat { limit: Limit { count: None, offset: None } };
    if many.sql.is_some() || many.merge != plain {
        return Err(refused());
    }
    let many = ManyShards { target: Target::All, sql: None, merge: Merge::Sum };
    Ok(plan_of(context, Action::Many(many), Access::Write, Reuse::AnyLiterals, kind))
}
