//! INSERT of rows that the planner has cut apart: each shard gets those of its keys.
//!
//! What no shard may make for itself ([`Make`]) is made first. Numbers come from the home shard's
//! sequence, in blocks; a default is computed there in the client's own session.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use pgherd_planner::{Literal, Make, Params, RowKey, RowPart, SplitInsert};
use pgherd_shard_map::{KeyError, KeyInput, ShardId, ShardMap, TableName};
use postgres_protocol::escape::escape_literal;

use super::many::Task;
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::numbers::Wanted;
use crate::pool::server::Reply;
use crate::session::Transaction;
use crate::wire::backend;

/// A value as text; `None` is NULL.
pub(super) type Value = Option<String>;

/// The values of each [`Make`], in the order in which rows use them.
pub(super) type Made = Vec<VecDeque<Value>>;

impl Conn {
    pub(super) async fn run_split_insert(
        &mut self,
        insert: &SplitInsert,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let mut made = Made::new();
        if !insert.makes.is_empty() {
            made = Box::pin(self.make_values(insert)).await?;
        }
        let params = statement.params()?;
        let texts = split_rows(insert, &self.planning.map, statement, &params, made)?;
        let shards: Vec<ShardId> = match insert.group {
            Some(_) => Vec::new(),
            None => self.shard_list(&pgherd_planner::ShardSet::All),
        };
        if texts.len() + shards.len() > 1 {
            self.open_implicit();
        }
        if insert.group.is_none() {
            let sql = texts.first().map_or("", |(_, sql)| sql);
            let tasks = self.tasks(&shards, Some(sql)).await?;
            return self.run_same(tasks, statement).await;
        }
        let mut tasks = Vec::with_capacity(texts.len());
        for (shard, sql) in texts {
            tasks.push(Task::new(self.server_for(shard).await?, Some(&sql)));
        }
        self.stream(tasks, statement, None).await
    }

    pub(super) async fn make_values(&mut self, insert: &SplitInsert) -> Result<Made, Failure> {
        let mut made = Made::with_capacity(insert.makes.len());
        for (at, make) in insert.makes.iter().enumerate() {
            let parts = insert.rows.iter().flat_map(|row| &row.parts);
            let count = parts.filter(|part| **part == RowPart::Made(at as u16)).count();
            made.push(match make {
                Make::Number { sequence, identity } => {
                    let numbers = self.numbers(sequence, identity.as_ref(), count as u32).await?;
                    if let Some(last) = numbers.back() {
                        self.note_drawn(sequence, *last);
                    }
                    numbers.into_iter().map(|number| Some(number.to_string())).collect()
                }
                Make::RandomUuid => (0..count).map(|_| random_uuid()).collect::<Result<_, _>>()?,
                Make::Default { table, column } => self.defaults(table, column, count).await?,
            });
        }
        Ok(made)
    }

    /// The next numbers of a sequence.
    async fn numbers(
        &mut self,
        sequence: &TableName,
        identity: Option<&(TableName, Box<str>)>,
        count: u32,
    ) -> Result<VecDeque<i64>, Failure> {
        let mut numbers = self.numbers_ahead(sequence, identity, count, 0).await?;
        if numbers.len() > count as usize {
            self.keep_numbers(sequence, numbers.drain(count as usize..));
        }
        Ok(numbers)
    }

    /// Whether numbers may be kept: another role may have other rights, and what a transaction does
    /// to a sequence is undone if it rolls back.
    fn shares_numbers(&self) -> bool {
        let private = self.session.transaction.block().is_some_and(|block| block.map.is_some());
        !private && self.session.settings.value("role").is_none()
    }

    pub(super) fn keep_numbers(&self, sequence: &TableName, rest: impl Iterator<Item = i64>) {
        if self.shares_numbers() {
            let epoch = self.planning.map.epoch;
            self.worker.shared.numbers.keep(&self.login.user, sequence, epoch, rest);
        }
    }

    /// At least `count` numbers, and up to `ahead` more where that is no waste.
    pub(super) async fn numbers_ahead(
        &mut self,
        sequence: &TableName,
        identity: Option<&(TableName, Box<str>)>,
        count: u32,
        ahead: u32,
    ) -> Result<VecDeque<i64>, Failure> {
        let (shared, epoch) = (self.worker.shared.clone(), self.planning.map.epoch);
        let mut taken = VecDeque::with_capacity(count as usize);
        let wanted = match self.shares_numbers() {
            true => {
                let user = &self.login.user;
                shared.numbers.take(user, sequence, epoch, count, Instant::now(), &mut taken)
            }
            false => Some(Wanted { needed: count, wanted: count }),
        };
        if let Some(Wanted { needed, wanted }) = wanted {
            let wanted = wanted.max(needed.saturating_add(ahead));
            let sql = match identity {
                None => format!("pgherd.numbers({}, {needed}, {wanted})", regclass(sequence)),
                Some((table, column)) => format!(
                    "pgherd.identity_numbers({}, {}, {needed}, {wanted})",
                    regclass(table),
                    escape_literal(column)
                ),
            };
            let reply = self.ask_home(&format!("SELECT {sql}")).await?;
            taken.extend(texts(&reply).filter_map(|text| text?.parse::<i64>().ok()));
        }
        if taken.len() < count as usize {
            return Err(
                ErrorInfo::new("XX000", "a sequence gave fewer numbers than were asked").into()
            );
        }
        Ok(taken)
    }

    /// The default of a column, once for each of `count` rows, as the client's own session has it.
    async fn defaults(
        &mut self,
        table: &TableName,
        column: &str,
        count: usize,
    ) -> Result<VecDeque<Value>, Failure> {
        if matches!(self.session.transaction, Transaction::Idle) {
            self.open_implicit();
        }
        let at = self.server_for(self.planning.map.home).await?;
        self.join(at).await?;
        let sql =
            format!("SELECT pgherd.default_of({}, {})", regclass(table), escape_literal(column));
        let Some(expression) = self.query(at, &sql).await?.scalar() else {
            return Ok((0..count).map(|_| None).collect());
        };
        let sql = format!(
            "SELECT ({expression})::text, pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL \
             FROM pg_catalog.generate_series(1, {count})"
        );
        let reply = self.query(at, &sql).await?;
        let wrote = reply.rows.last().is_some_and(|row| {
            backend::row_values(row).is_ok_and(|values| values.get(1) == Some(&Some(b"t")))
        });
        self.servers[at].wrote |= wrote;
        Ok(texts(&reply).collect())
    }

    /// Asks the home shard, on the client's connection to it if there is one, without making it a
    /// part of the client's transaction. One that is in the middle of a COPY cannot be asked.
    async fn ask_home(&mut self, sql: &str) -> Result<Reply, Failure> {
        let home = self.planning.map.home;
        let own = self.servers.iter().position(|server| server.shard == home);
        match own {
            Some(at) if self.servers[at].status != 0 => return self.query(at, sql).await,
            Some(busy) => {
                let at = self.open_scratch(busy, false).await?;
                let reply = self.query(at, sql).await;
                self.close_scratch();
                return reply;
            }
            None => {}
        }
        self.take_ticket().await?;
        let pools = Rc::clone(&self.worker.pools);
        let server = match pools.idle(home, &self.login) {
            Some(server) => server,
            None => self.wait_for_server(home).await?,
        };
        self.cancel.servers.borrow_mut().push(super::servers::cancel_target(&server));
        self.servers.push(server);
        let at = self.servers.len() - 1;
        let reply = match self.bring_settings(at).await {
            Ok(()) => self.query(at, sql).await,
            Err(failure) => Err(failure),
        };
        self.cancel.servers.borrow_mut().pop();
        if let Some(mut server) = self.servers.pop() {
            server.spoiled |= self.cancel.sent.get();
            // What another session has there of its own numbers is gone.
            server.last_user = 0;
            pools.give_back(&self.login, server);
        }
        reply
    }
}

pub(super) fn regclass(name: &TableName) -> String {
    format!("{}::pg_catalog.regclass", escape_literal(&name.quoted()))
}

/// The first column.
pub(super) fn texts(reply: &Reply) -> impl Iterator<Item = Value> + '_ {
    reply.text_rows().map(|row| row.into_iter().next().flatten())
}

pub(super) fn random_uuid() -> Result<Value, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| ErrorInfo::new("XX000", format!("no random numbers: {error}")))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    Ok(Some(text))
}

/// The INSERT that each shard gets: the statement's own text, with its rows only. Of a reference
/// table all rows are together.
pub(super) fn split_rows(
    insert: &SplitInsert,
    map: &ShardMap,
    statement: Statement<'_>,
    params: &dyn Params,
    made: Made,
) -> Result<Vec<(ShardId, String)>, Failure> {
    let mut rows = Rows { insert, map, statement, literals: statement.literals, params, made };
    let mut texts: Vec<(ShardId, String)> = Vec::new();
    let mut row = String::new();
    for at in 0..insert.rows.len() {
        row.clear();
        let shard = rows.next(at, &mut row)?;
        match texts.iter_mut().find(|(other, _)| *other == shard) {
            Some((_, text)) => {
                text.push_str(", ");
                text.push_str(&row);
            }
            None => texts.push((shard, format!("{} {row}", insert.head))),
        }
    }
    let mut tail = String::from(" ");
    insert.tail.iter().for_each(|part| rows.put(part, &mut tail));
    texts.iter_mut().for_each(|(_, text)| text.push_str(&tail));
    Ok(texts)
}

struct Rows<'a> {
    insert: &'a SplitInsert,
    map: &'a ShardMap,
    statement: Statement<'a>,
    literals: &'a [Literal],
    params: &'a dyn Params,
    made: Made,
}

impl Rows<'_> {
    /// What the client wrote.
    fn put(&self, part: &RowPart, out: &mut String) {
        let sql = self.statement.sql;
        match part {
            RowPart::Text(span) => out.push_str(&sql[span.start as usize..span.end as usize]),
            RowPart::Words(words) => out.push_str(words),
            RowPart::Literal(index) => {
                if let Some(literal) = self.literals.get(*index as usize) {
                    out.push_str(&sql[literal.start as usize..literal.end as usize]);
                }
            }
            RowPart::Made(_) => {}
        }
    }

    /// Writes the next row down and says where it goes.
    fn next(&mut self, at: usize, out: &mut String) -> Result<ShardId, Failure> {
        let row = &self.insert.rows[at];
        let mut key = None;
        for part in &row.parts {
            let RowPart::Made(make) = part else {
                self.put(part, out);
                continue;
            };
            // EXPLAIN makes nothing.
            let Some(value) = self.made.get_mut(usize::from(*make)) else {
                out.push_str("DEFAULT");
                continue;
            };
            let value = value.pop_front().flatten();
            match (&value, &self.insert.makes[usize::from(*make)]) {
                (None, _) => out.push_str("NULL"),
                (Some(number), Make::Number { .. }) => out.push_str(number),
                (Some(text), _) => out.push_str(&escape_literal(text)),
            }
            if row.key == RowKey::Made(*make) {
                key = value;
            }
        }
        // PostgreSQL will refuse a value that is none of the type: any shard says so.
        let Some(group) = self.insert.group else { return Ok(self.map.home) };
        let shard = match &row.key {
            RowKey::Given(source) => source.shard_of_new_row(
                self.map,
                group,
                self.statement.sql.as_bytes(),
                self.literals,
                self.params,
            )?,
            RowKey::Made(_) if self.made.is_empty() => None,
            RowKey::Made(_) => match key {
                None => return Err(no_key(KeyError::Null)),
                Some(text) => match self.map.shard_for(group, KeyInput::Text(text.as_bytes())) {
                    Ok(shard) => Some(shard),
                    Err(KeyError::Invalid { .. }) => None,
                    Err(error) => return Err(no_key(error)),
                },
            },
            RowKey::Everywhere => None,
        };
        Ok(shard.unwrap_or(self.map.home))
    }
}

/// Of a key that PostgreSQL has made, not the client.
pub(super) fn no_key(error: KeyError) -> Failure {
    without_shard(&error)
        .detail("The distribution column decides which shard holds the row.")
        .into()
}

/// Why no shard was found for a key.
pub(super) fn without_shard(error: &KeyError) -> ErrorInfo {
    let code = match error {
        KeyError::Null => "23502",
        KeyError::Uncovered => "23514",
        _ => "0A000",
    };
    let refused = ErrorInfo::new(code, error.to_string());
    match error.hint() {
        Some(hint) => refused.hint(hint),
        None => refused,
    }
}
