//! While rows move between shards, a shard may hold copies of rows that are another one's. A
//! statement for one key never meets them; one that goes to several shards must not: each shard's
//! text gets, for every moving table that it names, the condition that the row's key is the
//! shard's own by the map.
//!
//! The condition is spliced into WHERE; where a table is on the side of an outer join that may be
//! missing, the table's name becomes a subquery. A shape for which neither is certain is refused,
//! and so is a view that does not show the key.

use std::sync::Arc;

use pgherd_shard_map::{Column, ColumnDefault, Placement, ShardId, Table, TableKind, quoted};

use crate::change::read_change;
use crate::insert::read_insert;
use crate::query::{Body, From, JoinKind, Query, Select, read_from_item, starts_query};
use crate::token::{Kind, Range, Tokens};
use crate::{Context, PlanError};

/// The text for one shard; `None` where it is the statement as it is.
pub(crate) fn rows(
    sql: &str,
    context: &Context<'_>,
    shard: ShardId,
) -> Result<Option<String>, PlanError> {
    let tokens = Tokens::new(sql);
    let mut own = Own { tokens: &tokens, context, shard, edits: Vec::new() };
    own.statement(0).map_err(|Refused| {
        PlanError::new(
            "55006",
            "the statement cannot run on several shards while rows of its tables are being moved",
        )
        .with_detail("Its shape does not show where the copies of moving rows are to be left out.")
        .with_hint("Run it when the rows have moved: pgherd.reshards shows how far they are.")
    })?;
    Ok(own.apply())
}

/// No certain place for the condition.
struct Refused;

impl std::convert::From<crate::query::Unread> for Refused {
    fn from(_: crate::query::Unread) -> Self {
        Self
    }
}

struct Own<'a> {
    tokens: &'a Tokens<'a>,
    context: &'a Context<'a>,
    shard: ShardId,
    /// Bytes of the text, and what stands there instead.
    edits: Vec<(std::ops::Range<usize>, String)>,
}

impl Own<'_> {
    fn statement(&mut self, start: usize) -> Result<(), Refused> {
        let tokens = self.tokens;
        let end = tokens.len();
        match tokens.word(start) {
            Some("explain") => {
                let verbs = ["select", "with", "values", "table", "insert", "update", "delete"];
                let verb = tokens.find(&(1..end), |at| tokens.is_any(at, &verbs));
                let verb = verb.or_else(|| {
                    (1..end).find(|at| {
                        tokens.kind(*at) == Some(Kind::Open) && starts_query(tokens, *at)
                    })
                });
                self.statement(verb.ok_or(Refused)?)
            }
            Some("insert" | "update" | "delete") if start == 0 => self.write(start..end),
            Some("copy") => self.copy(),
            Some("select" | "with" | "values" | "table") => self.query(start..end),
            _ if starts_query(tokens, start) => self.query(start..end),
            Some("insert" | "update" | "delete" | "merge") => self.unless_named(start..end),
            // Utility statements mean the table, whoever its rows are.
            _ => Ok(()),
        }
    }

    /// What is not understood may go on if it names no moving table.
    fn unless_named(&self, range: Range) -> Result<(), Refused> {
        let named = range.clone().any(|at| {
            self.tokens.qualified(at).is_some_and(|(parts, _)| {
                (1..=parts.len().min(3)).any(|length| self.moving(&parts[..length]).is_some())
            })
        });
        if named { Err(Refused) } else { Ok(()) }
    }

    fn query(&mut self, range: Range) -> Result<(), Refused> {
        let query = Query::read(self.tokens, range.clone())?;
        for cte in &query.ctes {
            // Its name may hide a table, and one that writes has places of its own.
            if self.moving(&[&cte.name]).is_some() {
                return Err(Refused);
            }
            if cte.query.is_none() {
                self.unless_named(cte.range.clone())?;
            }
        }
        for body in &query.body {
            if let Body::Select(select) = body {
                self.select(select)?;
            }
        }
        self.inner(range)
    }

    /// The queries in parentheses.
    fn inner(&mut self, range: Range) -> Result<(), Refused> {
        let mut at = range.start;
        while at < range.end {
            if self.tokens.kind(at) == Some(Kind::Open) {
                let inside = at + 1..self.tokens.list[at].close;
                match starts_query(self.tokens, inside.start)
                    && self.tokens.kind(inside.start) != Some(Kind::Open)
                {
                    true => self.query(inside)?,
                    false => self.inner(inside)?,
                }
            }
            at = self.tokens.after(at);
        }
        Ok(())
    }

    fn select(&mut self, select: &Select) -> Result<(), Refused> {
        let tokens = self.tokens;
        if tokens.is(select.from_range.start, "table") {
            let Some(From::Table { parts, .. }) = select.from.first() else { return Err(Refused) };
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            if let Some(table) = self.moving(&parts) {
                let name = tokens.text(&(select.from_range.start + 1..select.from_range.end));
                let condition = self.condition(&table, "")?;
                let text = format!("SELECT * FROM {name} WHERE {condition}");
                self.edits.push((tokens.bytes(&select.from_range), text));
            }
            return Ok(());
        }
        let mut conditions = Vec::new();
        for item in &select.from {
            self.from(item, true, &mut conditions)?;
        }
        self.add(conditions, select.filter.as_ref(), select.from_range.end);
        Ok(())
    }

    /// `filter` is what stands behind WHERE; without it, the clause is made before token `end`.
    fn add(&mut self, conditions: Vec<String>, filter: Option<&Range>, end: usize) {
        if conditions.is_empty() {
            return;
        }
        let all = conditions.join(" AND ");
        match filter {
            Some(filter) => {
                let bytes = self.tokens.bytes(filter);
                self.edits.push((bytes.start..bytes.start, format!("{all} AND (")));
                self.edits.push((bytes.end..bytes.end, ")".to_owned()));
            }
            None => {
                let at = self.tokens.list[end - 1].end;
                self.edits.push((at..at, format!(" WHERE {all}")));
            }
        }
    }

    /// `sure`: a row without this table's would not be there.
    fn from(
        &mut self,
        item: &From,
        sure: bool,
        conditions: &mut Vec<String>,
    ) -> Result<(), Refused> {
        match item {
            From::Table { parts, place, alias, odd, part } => {
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                let Some(table) = self.moving(&parts) else { return Ok(()) };
                if *odd || *part {
                    return Err(Refused);
                }
                let called = alias.as_deref().unwrap_or(&table.name.name);
                if sure {
                    conditions.push(self.condition(&table, &format!("{}.", quoted(called)))?);
                    return Ok(());
                }
                let condition = self.condition(&table, "")?;
                let name = self.tokens.text(place);
                let mut text = format!("(SELECT * FROM {name} WHERE {condition})");
                if alias.is_none() {
                    text = format!("{text} AS {}", quoted(called));
                }
                self.edits.push((self.tokens.bytes(place), text));
                Ok(())
            }
            From::Join { left, right, kind, .. } => {
                let (left_sure, right_sure) = match kind {
                    JoinKind::Inner => (sure, sure),
                    JoinKind::Left => (sure, false),
                    JoinKind::Right => (false, sure),
                    JoinKind::Full => (false, false),
                };
                self.from(left, left_sure, conditions)?;
                self.from(right, right_sure, conditions)
            }
            // Their own queries stand in parentheses.
            From::Subquery { .. } | From::Function { .. } => Ok(()),
        }
    }

    /// INSERT, UPDATE, DELETE.
    fn write(&mut self, range: Range) -> Result<(), Refused> {
        let tokens = self.tokens;
        match tokens.word(range.start) {
            Some("insert") => {
                let Some(insert) = read_insert(tokens, range.clone()) else {
                    return self.unless_named(range);
                };
                match starts_query(tokens, insert.source) && !tokens.is(insert.source, "values") {
                    true => self.query(insert.source..insert.tail.min(range.end)),
                    false => self.unless_named(insert.source..range.end),
                }
            }
            word => self.change(range, word == Some("update")),
        }
    }

    fn change(&mut self, range: Range, update: bool) -> Result<(), Refused> {
        let tokens = self.tokens;
        let Some(change) = read_change(tokens, range.clone(), update) else {
            return self.unless_named(range);
        };
        let mut conditions = Vec::new();
        if let Some(table) = self.moving(&change.table) {
            let called = change.alias.or_else(|| change.table.last().copied()).ok_or(Refused)?;
            conditions.push(self.condition(&table, &format!("{}.", quoted(called)))?);
        }
        if !change.from.is_empty() {
            for part in tokens.split(&change.from) {
                let item = read_from_item(tokens, &part)?;
                self.from(&item, true, &mut conditions)?;
            }
        }
        let filter = (!change.filter.is_empty()).then_some(&change.filter);
        self.add(conditions, filter, change.tail.start);
        self.inner(range)
    }

    /// `COPY table [(columns)] TO`, `COPY (query) TO`; what comes in goes by its keys.
    fn copy(&mut self) -> Result<(), Refused> {
        let tokens = self.tokens;
        if tokens.kind(1) == Some(Kind::Open) {
            return match tokens.is_any(2, &["insert", "update", "delete"]) {
                true => self.write(2..tokens.list[1].close),
                false => self.inner(0..tokens.after(1)),
            };
        }
        let (parts, at) = tokens.qualified(1).ok_or(Refused)?;
        let listed = tokens.kind(at) == Some(Kind::Open);
        let after = if listed { tokens.after(at) } else { at };
        let Some(table) = self.moving(&parts).filter(|_| tokens.is(after, "to")) else {
            return Ok(());
        };
        let columns = match listed {
            true => tokens.text(&(at + 1..after - 1)).to_owned(),
            false => {
                // Generated columns are not among what COPY gives.
                let given = |column: &&Column| column.default != ColumnDefault::Generated;
                let names = table.columns.iter().filter(given).map(|column| quoted(&column.name));
                names.collect::<Vec<_>>().join(", ")
            }
        };
        let condition = self.condition(&table, "")?;
        let text = format!("(SELECT {columns} FROM {} WHERE {condition})", tokens.text(&(1..at)));
        self.edits.push((tokens.bytes(&(1..after)), text));
        Ok(())
    }

    /// The table that a name means, if some of its rows are on their way.
    fn moving(&self, parts: &[&str]) -> Option<Arc<Table>> {
        let table = self.context.spread(parts)?;
        match table.kind {
            TableKind::Distributed { group, .. } if self.context.map.moving.contains(&group) => {
                Some(table)
            }
            _ => None,
        }
    }

    fn condition(&self, table: &Table, row: &str) -> Result<String, Refused> {
        let TableKind::Distributed { group, .. } = table.kind else { return Err(Refused) };
        let group = self.context.map.group(group).ok_or(Refused)?;
        let column = table.key_column().ok_or(Refused)?;
        debug_assert!(matches!(group.placement, Placement::Hash(_)), "only these move");
        let column = format!("{row}{}", quoted(&column.name));
        group.shard_predicate(self.shard, &column).ok_or(Refused)
    }

    fn apply(mut self) -> Option<String> {
        if self.edits.is_empty() {
            return None;
        }
        // Stable: what is put at one place stays in order.
        self.edits.sort_by_key(|(bytes, _)| bytes.start);
        let sql = self.tokens.sql;
        let mut text = String::with_capacity(sql.len() + 256);
        let mut from = 0;
        for (bytes, instead) in &self.edits {
            text.push_str(&sql[from..bytes.start]);
            text.push_str(instead);
            from = bytes.end;
        }
        text.push_str(&sql[from..]);
        Some(text)
    }
}
