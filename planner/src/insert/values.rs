//! INSERT … VALUES: each row with what is made for it, and the shard that its key says.

use std::sync::Arc;

use pgherd_shard_map::{Column, ColumnDefault, Identity, Table, TableKind, quoted};
use smallvec::SmallVec;

use super::{Insert, Overriding, make_of, must_make};
use crate::analyze::value;
use crate::literal::decode_str;
use crate::route::{home, plan_of};
use crate::token::{Kind, Range, Tokens};
use crate::witness::unread;
use crate::write::{refuse_differing, refuse_rounded_key, refuse_sequences, same_everywhere};
use crate::{
    Access, Action, Context, KeyUse, Make, NewRow, OneShard, Plan, PlanError, Reuse, RowKey,
    RowPart, SplitInsert, StatementKind, Target, functions,
};

/// More rows than this are not worth a place in the plan cache.
const ROWS_KEPT: usize = 20;

pub(super) fn insert_values(
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
    witness_values(tokens, context, insert, rows)?;
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
    context: &Context<'_>,
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
    // Subqueries of ON CONFLICT and RETURNING may read what every shard has.
    let elsewhere = seen.iter().filter(|parts| {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let table = context.sharded(&parts);
        table.is_none_or(|table| table.kind != TableKind::Reference)
    });
    if seen.len() == 1 || elsewhere.count() == 1 { Ok(()) } else { Err(unread(tokens)) }
}
