//! Small tables go to the shards of a large one with the statement, which runs there: tier 3 without
//! the one server that has all the work.
//!
//! How large the tables are PostgreSQL says (EXPLAIN of what would be copied, its conditions
//! included); what is larger than that told is read over, and the statement runs over copies on the
//! home shard instead. The rows are kept as one array for each column, in binary, and are parameters of
//! each shard's statement, whose WITH makes them rows again: no table is made, so nothing can be left
//! behind, and the client's transaction may do what it likes.
//!
//! PostgreSQL knows nothing of what is in such an array but how much. A column that is compared and
//! has no value twice is said to have none, with DISTINCT ON: a hash table over it is then cheap in
//! PostgreSQL's eyes, as it is.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use bytes::Bytes;
use pgherd_planner::{Borrow, Broadcast, CopiedTable, Pull};
use postgres_protocol::escape::escape_identifier;

use super::combine::put_array_head;
use super::prepared::without_place;
use super::pulled::pull_query;
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::wire::{HEADER, Reader, backend, frontend};

/// Values in binary, with their lengths before them.
#[derive(Debug)]
struct Values {
    oid: u32,
    count: usize,
    bytes: Vec<u8>,
}

/// What goes with a statement to every shard.
#[derive(Debug)]
pub struct Copies {
    /// Columns of all tables.
    columns: Vec<Values>,
    /// As the client is told of its columns: the shards do not know what copies are of.
    pub(super) description: Bytes,
}

impl Copies {
    /// No rows at all.
    pub(super) fn none(way: &Broadcast) -> Self {
        let columns = way.tables.iter().flat_map(|table| &table.columns);
        let empty = |oid| Values { oid, count: 0, bytes: Vec::new() };
        Self {
            columns: columns.map(|column| empty(column.oid)).collect(),
            description: Bytes::new(),
        }
    }

    /// Rows and bytes of some columns.
    pub(super) fn size_of(&self, columns: Range<usize>) -> (usize, usize) {
        let columns = &self.columns[columns];
        let rows = columns.first().map_or(0, |column| column.count);
        (rows, columns.iter().map(|column| column.bytes.len()).sum())
    }

    /// Bind's parameters, with these behind them.
    pub(super) fn behind(&self, parameters: &[u8]) -> Result<Vec<u8>, ErrorInfo> {
        let wrong = |_| ErrorInfo::new("XX000", "the statement's parameters cannot be read again");
        let mut reader = Reader::new(parameters);
        let formats = reader.count().map_err(wrong)?;
        let formats = reader.bytes(formats * 2).map_err(wrong)?;
        let own = reader.count().map_err(wrong)?;
        let values = reader.rest();
        let all = ((own + self.columns.len()) as u16).to_be_bytes();
        let size: usize = self.columns.iter().map(|column| column.bytes.len() + 24).sum();
        let mut out = Vec::with_capacity(parameters.len() + size + 64);
        out.extend_from_slice(&all);
        match formats.len() / 2 {
            0 => out.extend(std::iter::repeat_n([0, 0], own).flatten()),
            1 => out.extend(formats.iter().copied().cycle().take(2 * own)),
            _ => out.extend_from_slice(formats),
        }
        out.extend(std::iter::repeat_n([0, 1], self.columns.len()).flatten());
        out.extend_from_slice(&all);
        out.extend_from_slice(values);
        for column in &self.columns {
            let mut head = Vec::with_capacity(20);
            put_array_head(column.oid, column.count, &mut head);
            out.extend_from_slice(&((head.len() + column.bytes.len()) as i32).to_be_bytes());
            out.extend_from_slice(&head);
            out.extend_from_slice(&column.bytes);
        }
        Ok(out)
    }
}

impl Conn {
    /// Runs the statement on the shards of some of its tables, where the others are small enough.
    /// `false`: it has not run.
    pub(super) async fn run_broadcast(
        &mut self,
        borrow: &Borrow,
        statement: Statement<'_>,
    ) -> Result<bool, Failure> {
        let Some(way) = self.smallest_way(borrow, statement).await? else { return Ok(false) };
        let Some(mut copies) = self.read_copied(way, statement).await? else { return Ok(false) };
        let clause = with_clause(way, &copies);
        let many = way.many.with(&clause);
        let shards = self.shards_of(&many.target, statement)?;
        let at = self.server_for(shards[0]).await?;
        let whole = format!("{clause}{}", way.sql);
        let mut described = self.describe(at, &[statement.sql, &whole], statement).await?;
        let (Some(over_copies), Some(original)) = (described.pop(), described.pop()) else {
            return Err(Failure::Torn);
        };
        let original = original?;
        let alike = match over_copies {
            Ok(over_copies) => same_columns(&original, &over_copies),
            // In a block an error is the block's end.
            Err(failure) if self.session.transaction.block().is_some() => return Err(failure),
            Err(_) => false,
        };
        if !alike {
            return Ok(false);
        }
        copies.description = self.with_home_oids(at, original).await;
        let statement = Statement { copies: Some(&copies), ..statement };
        Box::pin(self.run_many(&many, statement)).await.map(|()| true)
    }

    /// The way that copies least, if that is little.
    pub(super) async fn smallest_way<'a>(
        &mut self,
        borrow: &'a Borrow,
        statement: Statement<'_>,
    ) -> Result<Option<&'a Broadcast>, Failure> {
        let most = self.worker.live.borrow().broadcast_max;
        let bound = match statement.portal {
            None => 0,
            Some(portal) => portal.params()?.tail.count(),
        };
        let in_block = self.session.transaction.block().is_some_and(|block| !block.implicit);
        let mut known = BTreeMap::new();
        let mut best: Option<(&Broadcast, f64)> = None;
        for way in &borrow.broadcasts {
            if usize::from(way.first) != bound + 1 || (way.needs_key && in_block) {
                continue;
            }
            let mut bytes = 0.0;
            for table in &way.tables {
                let name = &*table.pull.scratch;
                bytes += match known.get(name) {
                    Some(bytes) => *bytes,
                    None => {
                        let size = self.expected_size(&table.pull, statement).await?;
                        *known.entry(name).or_insert(size)
                    }
                };
            }
            if bytes <= most as f64 && best.is_none_or(|(_, least)| bytes < least) {
                best = Some((way, bytes));
            }
        }
        Ok(best.map(|(way, _)| way))
    }

    /// How many bytes PostgreSQL expects: what one shard says, for all of them.
    async fn expected_size(
        &mut self,
        pull: &Pull,
        statement: Statement<'_>,
    ) -> Result<f64, Failure> {
        let shards = self.shards_of(&pull.target, statement)?;
        let at = self.server_for(shards[0]).await?;
        self.join(at).await?;
        let sql = format!("EXPLAIN {}", pull_query(pull, statement.portal));
        let reply = self.query(at, &sql).await.map_err(without_place)?;
        let line = reply.scalar().unwrap_or_default();
        let number = |name: &str| {
            let (_, rest) = line.split_once(name)?;
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse::<f64>().ok()
        };
        let (Some(rows), Some(width)) = (number("rows="), number("width=")) else {
            return Ok(f64::INFINITY);
        };
        let row = width + 4.0 * pull.columns.len() as f64;
        Ok(rows * row * shards.len() as f64)
    }

    /// The rows of all tables that a way copies, column by column. `None`: they are too many.
    pub(super) async fn read_copied(
        &mut self,
        way: &Broadcast,
        statement: Statement<'_>,
    ) -> Result<Option<Copies>, Failure> {
        // PostgreSQL guesses wrong at times; four times as much costs less than to begin anew.
        let mut left = self.worker.live.borrow().broadcast_max.saturating_mul(4) as usize;
        let mut copies = Copies::none(way);
        let mut start = 0;
        for table in &way.tables {
            let columns = &mut copies.columns[start..start + table.columns.len()];
            let read = self.read_table(table, columns, &mut left, statement).await;
            if !read.map_err(without_place)? {
                return Ok(None);
            }
            start += table.columns.len();
        }
        Ok(Some(copies))
    }

    /// One table's rows from all of its shards at once. `false`: they are more than `left` bytes, and
    /// have been read over.
    async fn read_table(
        &mut self,
        table: &CopiedTable,
        columns: &mut [Values],
        left: &mut usize,
        statement: Statement<'_>,
    ) -> Result<bool, Failure> {
        let shards = self.shards_of(&table.pull.target, statement)?;
        let tasks = self.tasks(&shards, None).await?;
        let query = pull_query(&table.pull, statement.portal);
        let mut open = Vec::with_capacity(tasks.len());
        for task in &tasks {
            let mut request = Vec::new();
            let own = self.own_rows(&query, self.servers[task.at].shard)?;
            let joins = self.put_join(task.at, &mut request);
            frontend::put_parse(&mut request, b"", own.as_deref().unwrap_or(&query), &[]);
            frontend::put_bind(&mut request, b"", b"", &[0, 0, 0, 0], &[0, 1, 0, 1]);
            request.extend_from_slice(frontend::EXECUTE_UNNAMED);
            request.extend_from_slice(frontend::SYNC);
            if let Err(error) = self.servers[task.at].send(&request).await {
                return Err(self.lost(task.at, &error));
            }
            open.push((task.at, joins));
        }
        let read = self.read_rows(open, columns, left).await;
        if read.is_err() {
            // What shards still send nobody will read.
            for task in &tasks {
                self.servers[task.at].spoiled |= self.servers[task.at].status == 0;
            }
        }
        read
    }

    async fn read_rows(
        &mut self,
        mut open: Vec<(usize, u32)>,
        columns: &mut [Values],
        left: &mut usize,
    ) -> Result<bool, Failure> {
        let mut failure = None;
        let mut fits = true;
        while !open.is_empty() {
            let position = self.fill_any(&open).await?;
            let (at, mut joins) = open[position];
            let mut ended = false;
            while let Some((tag, frame)) = self.next_frame(at)? {
                match tag {
                    b'Z' => {
                        self.servers[at].ready(&frame);
                        if joins == 0 {
                            ended = true;
                            break;
                        }
                        joins -= 1;
                    }
                    b'E' if failure.is_none() => {
                        failure = Some(Failure::Shard(frame));
                        self.cancel_others(at, &open);
                    }
                    b'D' if failure.is_none() && fits => match left.checked_sub(frame.len()) {
                        Some(rest) => {
                            *left = rest;
                            put_values(&frame, columns)?;
                        }
                        None => {
                            fits = false;
                            columns.iter_mut().for_each(|column| column.bytes = Vec::new());
                        }
                    },
                    _ => {}
                }
            }
            open[position].1 = joins;
            if ended {
                open.swap_remove(position);
            }
        }
        failure.map_or(Ok(fits), Err)
    }
}

/// A DataRow's values, each behind those of its column.
fn put_values(frame: &[u8], columns: &mut [Values]) -> Result<(), ErrorInfo> {
    let wrong = |_| ErrorInfo::new("XX000", "a shard sent a row of another shape");
    let mut reader = Reader::new(&frame[HEADER..]);
    if reader.count().map_err(wrong)? != columns.len() {
        return Err(ErrorInfo::new("XX000", "a shard sent a row of another shape"));
    }
    for column in columns {
        let value = reader.value().map_err(wrong)?;
        let length = value.map_or(-1, |value| value.len() as i32);
        column.bytes.extend_from_slice(&length.to_be_bytes());
        column.bytes.extend_from_slice(value.unwrap_or_default());
        column.count += 1;
    }
    Ok(())
}

/// `WITH copy AS (SELECT … FROM ROWS FROM (unnest($1), …))`, what the shards' statements begin with.
pub(super) fn with_clause(way: &Broadcast, copies: &Copies) -> String {
    let mut clause = String::from("WITH ");
    let mut start = 0;
    for (number, table) in way.tables.iter().enumerate() {
        let values = &copies.columns[start..start + table.columns.len()];
        let (mut arrays, mut names, mut shown) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (column, name)) in table.columns.iter().zip(&table.pull.columns).enumerate() {
            let parameter = usize::from(way.first) + start + at;
            let of = format!("pg_catalog.{}", column.type_name);
            arrays.push(format!("pg_catalog.unnest(${parameter}::{of}[])"));
            names.push(format!("c{at}"));
            let cast = match &*column.modifiers {
                "" => String::new(),
                modifiers => format!("::{of}{modifiers}"),
            };
            shown.push(format!("c{at}{cast} AS {}", escape_identifier(name)));
        }
        let mut compared = table.columns.iter().zip(values).enumerate();
        let unique = compared.find_map(|(at, (column, values))| {
            (column.compared && column.exact && values.are_all_different()).then_some(at)
        });
        let distinct = unique.map_or_else(String::new, |at| format!("DISTINCT ON (c{at}) "));
        clause.push_str(&format!(
            "{}{} AS (SELECT {distinct}{} FROM ROWS FROM ({}) AS pgherd_rows({}))",
            if number > 0 { ", " } else { "" },
            table.pull.scratch,
            shown.join(", "),
            arrays.join(", "),
            names.join(", "),
        ));
        start += table.columns.len();
    }
    clause.push(' ');
    clause
}

impl Values {
    fn are_all_different(&self) -> bool {
        let mut seen = HashSet::with_capacity(self.count);
        let mut reader = Reader::new(&self.bytes);
        (0..self.count).all(|_| reader.value().is_ok_and(|value| seen.insert(value)))
    }
}

/// Names, types and lengths of two RowDescriptions.
fn same_columns(a: &[u8], b: &[u8]) -> bool {
    let columns = |frame| backend::column_shapes(frame).ok();
    columns(a).is_some_and(|of_a| columns(b) == Some(of_a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(values: &[&[u8]]) -> Copies {
        let mut column = Values { oid: 25, count: 0, bytes: Vec::new() };
        for value in values {
            column.bytes.extend_from_slice(&(value.len() as i32).to_be_bytes());
            column.bytes.extend_from_slice(value);
            column.count += 1;
        }
        Copies { columns: vec![column], description: Bytes::new() }
    }

    #[test]
    fn arrays_stand_behind_the_clients_parameters() {
        // One value in text format, which no format says.
        let all = copies(&[b"x"]).behind(&[0, 0, 0, 1, 0, 0, 0, 1, b'5']).expect("well formed");
        let tail = [&all[..], &[0, 0]].concat();
        let tail = frontend::BindTail::new(&tail).expect("well formed");
        assert_eq!(tail.count(), 2);
        assert_eq!(tail.value(1), Some((Some(&b"5"[..]), false)));
        let (array, binary) = tail.value(2).expect("the array");
        let wanted =
            [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 25, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, b'x'];
        assert_eq!((array, binary), (Some(&wanted[..]), true));
    }

    #[test]
    fn a_value_that_comes_twice_is_seen() {
        assert!(copies(&[b"a", b"b", b""]).columns[0].are_all_different());
        assert!(!copies(&[b"a", b"b", b"a"]).columns[0].are_all_different());
    }
}
