//! INSERT of rows that are made on the home shard, in a scratch table, before they go where they
//! belong.
//!
//! The scratch table has the columns of the table that the rows are for, and its defaults, so that
//! PostgreSQL casts and computes every value as it would have. Its rows come back as text and
//! become an INSERT of literals for each shard, all in the client's transaction.

use pgherd_planner::{Borrow, Gather, GatherPlace, Make, ShardSet, TEMPORARY_SCHEMA};
use pgherd_shard_map::{KeyError, KeyInput, ShardId};
use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::insert::{Value, regclass};
use super::many::Task;
use super::own_sequences::OwnSequence;
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::wire::{HEADER, backend, frontend};

pub(super) const SCRATCH: &str = "pg_temp.pgherd_new";

/// One INSERT's text, where more than one will do.
const PIECE: usize = 1 << 20;

/// One INSERT's text, where ON CONFLICT and RETURNING must see all rows at once.
const WHOLE_MAX: usize = 64 << 20;

/// Forms of values that every session reads alike.
pub(super) const PLAIN_FORMS: &str = "SET datestyle = ISO; SET intervalstyle = postgres; \
    SET extra_float_digits = 1; SET bytea_output = hex";

/// The INSERT of one shard (of all, for a reference table) while it grows.
struct Piece {
    shard: ShardId,
    sql: String,
}

impl Conn {
    pub(super) async fn run_gather(
        &mut self,
        gather: &Gather,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        self.take_ticket().await?;
        self.open_implicit();
        let home = self.planning.map.home;
        let at = self.server_for(home).await?;
        self.refuse_unseen(&gather.borrow, at)?;
        self.parse_first(at, statement).await?;
        self.check_views(&gather.borrow, at).await?;
        let columns = self.columns_of(gather, at).await?;
        let sources = self.sources(&gather.borrow, statement).await?;
        // All that the rows may need, before the connection that must be the last.
        for shard in self.shard_list(&ShardSet::All) {
            if gather.place != GatherPlace::Home {
                self.server_for(shard).await?;
            }
        }
        let scratch = self.open_scratch(at, gather.borrow.local).await?;
        let mut own = Vec::new();
        let mut made = self.make_new_rows(scratch, gather, &columns, &mut own).await;
        if made.is_ok() {
            let borrow = &gather.borrow;
            made = self.fill_scratch(scratch, borrow, &borrow.sql, &sources, statement).await;
        }
        let mut texts = Vec::new();
        let mut total = 0;
        if made.is_ok() {
            made = self.place_new_rows(scratch, gather, &columns, &mut texts, &mut total).await;
        }
        if made.is_ok() {
            made = self.count_on(at, scratch, &own).await;
        }
        self.close_scratch();
        // What the scratch server called nextval() for is not known here.
        let numbers = gather.columns.iter().any(|c| matches!(c.make, Some(Make::Number { .. })))
            || gather.place == GatherPlace::Home
            || gather.borrow.sql.to_ascii_lowercase().contains("nextval");
        if numbers {
            self.forget_drawn();
        }
        made?;
        self.insert_texts(gather, texts, total, statement).await
    }

    /// The columns of the scratch table: those of the plan, or all that the home shard's table has.
    async fn columns_of(&mut self, gather: &Gather, home: usize) -> Result<Vec<Box<str>>, Failure> {
        if !gather.columns.is_empty() {
            return Ok(gather.columns.iter().map(|column| column.name.clone()).collect());
        }
        let sql = format!(
            "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = {} AND attnum > 0 \
             AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
            regclass(&gather.table)
        );
        let reply = self.query(home, &sql).await?;
        let names = super::insert::texts(&reply).map(|name| name.unwrap_or_default().into());
        Ok(names.collect())
    }

    async fn make_new_rows(
        &mut self,
        scratch: usize,
        gather: &Gather,
        columns: &[Box<str>],
        own: &mut Vec<OwnSequence>,
    ) -> Result<(), Failure> {
        self.make_table_like(scratch, SCRATCH, &gather.table, columns).await?;
        let home = self.server_for(self.planning.map.home).await?;
        if gather.columns.is_empty() {
            return self.default_new_rows(scratch, gather, columns).await;
        }
        for column in &gather.columns {
            if let Some(Make::Number { sequence, .. }) = &column.make
                && let Some(new) = self.count_apart(home, scratch, sequence, own.len()).await?
            {
                self.set_default(scratch, &column.name, &new.next()).await?;
                own.push(new);
                continue;
            }
            let expression = match &column.make {
                None => continue,
                Some(Make::Number { sequence, identity: None }) => {
                    Some(format!("pg_catalog.nextval({})", regclass(sequence)))
                }
                Some(Make::Number { identity: Some((table, name)), .. }) => Some(format!(
                    "pgherd.identity_number({}, {})",
                    regclass(table),
                    escape_literal(name)
                )),
                Some(Make::RandomUuid) => Some("pg_catalog.gen_random_uuid()".to_owned()),
                Some(Make::Default { table, column }) => {
                    let (table, column) = (regclass(table), escape_literal(column));
                    let sql = format!("SELECT pgherd.default_of({table}, {column})");
                    self.query(home, &sql).await?.scalar()
                }
            };
            if let Some(expression) = expression {
                self.set_default(scratch, &column.name, &expression).await?;
            }
        }
        Ok(())
    }

    /// The defaults of a table that the map knows nothing of.
    async fn default_new_rows(
        &mut self,
        scratch: usize,
        gather: &Gather,
        columns: &[Box<str>],
    ) -> Result<(), Failure> {
        let table = regclass(&gather.table);
        for name in columns {
            let literal = escape_literal(name);
            let sql = format!(
                "SELECT CASE WHEN attidentity <> '' THEN pg_catalog.format( \
                 'pgherd.identity_number(%L, %L)', pg_catalog.format('%I.%I', {}, {}), {literal}) \
                 ELSE pgherd.default_of({table}, {literal}) END FROM pg_catalog.pg_attribute \
                 WHERE attrelid = {table} AND attname = {literal}",
                escape_literal(&gather.table.schema),
                escape_literal(&gather.table.name),
            );
            let home = self.server_for(self.planning.map.home).await?;
            if let Some(expression) = self.query(home, &sql).await?.scalar() {
                let block = self.session.transaction.block();
                let numbers = ["nextval(", "identity_number("];
                let unseen = block.is_some_and(|block| block.schema_changed)
                    || *gather.table.schema == *TEMPORARY_SCHEMA;
                if unseen && numbers.iter().any(|call| expression.contains(call)) {
                    return Err(unseen_sequence(name));
                }
                self.set_default(scratch, name, &expression).await?;
            }
        }
        Ok(())
    }

    async fn set_default(
        &mut self,
        scratch: usize,
        name: &str,
        expression: &str,
    ) -> Result<(), Failure> {
        let name = escape_identifier(name);
        let sql = format!("ALTER TABLE {SCRATCH} ALTER COLUMN {name} SET DEFAULT {expression}");
        self.query(scratch, &sql).await.map(drop)
    }

    /// Copies what is read, and runs `sql` over it.
    pub(super) async fn fill_scratch(
        &mut self,
        scratch: usize,
        borrow: &Borrow,
        sql: &str,
        sources: &[super::borrow::Source<'_>],
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        self.copy_all(scratch, borrow, sources).await?;
        let task = Task::new(scratch, Some(sql));
        self.send_tasks(&[task], statement).await?;
        self.collect_ok(scratch).await
    }

    /// Reads the new rows and puts each into its shard's INSERT. Where nothing must see all rows
    /// at once, these are sent as they grow.
    async fn place_new_rows(
        &mut self,
        scratch: usize,
        gather: &Gather,
        columns: &[Box<str>],
        pieces: &mut Vec<Piece>,
        total: &mut u64,
    ) -> Result<(), Failure> {
        let list: Vec<String> = columns.iter().map(|name| escape_identifier(name)).collect();
        let list = list.join(", ");
        let head = format!("{} ({list}) OVERRIDING SYSTEM VALUE VALUES ", gather.head);
        let mut request = Vec::new();
        self.query(scratch, PLAIN_FORMS).await?;
        frontend::put_query(&mut request, &format!("COPY {SCRATCH} ({list}) TO STDOUT"));
        if let Err(error) = self.servers[scratch].send(&request).await {
            return Err(self.lost(scratch, &error));
        }
        let mut size = 0;
        loop {
            let (tag, frame) = match self.servers[scratch].frame().await {
                Ok(frame) => frame,
                Err(error) => return Err(self.lost(scratch, &error)),
            };
            match tag {
                b'd' => {
                    let line = &frame[HEADER..];
                    let values = read_row(line.strip_suffix(b"\n").unwrap_or(line))?;
                    let shard = self.shard_of_new(gather, &values)?;
                    let position = pieces.iter().position(|piece| piece.shard == shard);
                    let at = position.unwrap_or_else(|| {
                        pieces.push(Piece { shard, sql: String::new() });
                        pieces.len() - 1
                    });
                    let sql = &mut pieces[at].sql;
                    let before = sql.len();
                    sql.push_str(if sql.is_empty() { &head } else { "," });
                    put_values(sql, &values);
                    size += sql.len() - before;
                    if gather.tail.trim().is_empty() && sql.len() >= PIECE {
                        let sql = std::mem::take(&mut pieces[at].sql);
                        size -= sql.len();
                        *total += self.insert_piece(gather, shard, &sql).await?;
                    }
                    if size > WHOLE_MAX {
                        return Err(too_much());
                    }
                }
                b'E' => return Err(Failure::Shard(frame)),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    fn shard_of_new(&self, gather: &Gather, values: &[Value]) -> Result<ShardId, Failure> {
        let map = &self.planning.map;
        let GatherPlace::Split { group, field } = gather.place else { return Ok(map.home) };
        let key = values.get(usize::from(field)).and_then(Option::as_deref);
        let Some(key) = key else { return Err(super::insert::no_key(KeyError::Null)) };
        match map.shard_for(group, KeyInput::Text(key.as_bytes())) {
            Ok(shard) => Ok(shard),
            Err(error) => Err(super::insert::no_key(error)),
        }
    }

    /// Rows that need not be answered; says how many they were.
    async fn insert_piece(
        &mut self,
        gather: &Gather,
        shard: ShardId,
        sql: &str,
    ) -> Result<u64, Failure> {
        let mut count = 0;
        let shards = match gather.place {
            GatherPlace::Everywhere => self.shard_list(&ShardSet::All),
            GatherPlace::Split { .. } | GatherPlace::Home => vec![shard],
        };
        for shard in shards {
            let at = self.server_for(shard).await?;
            self.join(at).await?;
            self.servers[at].wrote = true;
            let reply = self.query(at, sql).await?;
            count = reply.tags.last().and_then(|tag| backend::tag_count(tag)).unwrap_or(0);
        }
        Ok(count)
    }

    async fn insert_texts(
        &mut self,
        gather: &Gather,
        mut pieces: Vec<Piece>,
        mut total: u64,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        pieces.retain(|piece| !piece.sql.is_empty());
        let answers = !gather.tail.trim().is_empty();
        if !answers {
            for piece in &pieces {
                total += self.insert_piece(gather, piece.shard, &piece.sql).await?;
            }
            self.client.complete(&format!("INSERT 0 {total}"));
            return Ok(());
        }
        for piece in &mut pieces {
            piece.sql.push(' ');
            piece.sql.push_str(&gather.tail);
        }
        if pieces.is_empty() {
            return self.insert_nothing(statement).await;
        }
        if gather.place == GatherPlace::Everywhere {
            let shards = self.shard_list(&ShardSet::All);
            let sql = pieces.first().map(|piece| &*piece.sql);
            let tasks = self.tasks(&shards, sql).await?;
            return self.run_same(tasks, statement).await;
        }
        let mut tasks = Vec::with_capacity(pieces.len());
        for piece in pieces {
            tasks.push(Task::new(self.server_for(piece.shard).await?, Some(&piece.sql)));
        }
        self.stream(tasks, statement, None).await
    }

    /// No rows: the answer still has the columns of RETURNING.
    async fn insert_nothing(&mut self, statement: Statement<'_>) -> Result<(), Failure> {
        if statement.portal.is_none() {
            let at = self.server_for(self.planning.map.home).await?;
            self.join(at).await?;
            let mut request = Vec::new();
            frontend::put_parse(&mut request, b"", statement.sql, &[]);
            request.extend_from_slice(frontend::DESCRIBE_UNNAMED_STATEMENT);
            request.extend_from_slice(frontend::SYNC);
            if let Err(error) = self.servers[at].send(&request).await {
                return Err(self.lost(at, &error));
            }
            match self.servers[at].collect().await {
                Ok(reply) => match (reply.error, reply.description) {
                    (Some(error), _) => return Err(Failure::Shard(error)),
                    (None, Some(columns)) => self.client.out.extend_from_slice(&columns),
                    (None, None) => {}
                },
                Err(error) => return Err(self.lost(at, &error)),
            }
        }
        self.client.complete("INSERT 0 0");
        Ok(())
    }
}

/// Its default is made for every row, whether it is wanted or not.
fn unseen_sequence(column: &str) -> Failure {
    ErrorInfo::new(
        "0A000",
        format!(
            "the column \"{column}\" cannot get numbers from a sequence that is temporary or new"
        ),
    )
    .detail("Its rows are made through another connection, which may not see the sequence.")
    .hint("Give the column its values, or insert the rows after the commit that makes the table.")
    .into()
}

/// One line of COPY's text format.
pub(super) fn read_row(line: &[u8]) -> Result<Vec<Value>, Failure> {
    let fields = line.split(|byte| *byte == b'\t');
    fields
        .map(|field| if field == b"\\N" { Ok(None) } else { read_field(field).map(Some) })
        .collect()
}

pub(super) fn read_field(field: &[u8]) -> Result<String, Failure> {
    let mut out = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        match (byte, byte == &b'\\') {
            (_, false) => out.push(*byte),
            (_, true) => out.push(match bytes.next() {
                Some(b'b') => 0x08,
                Some(b'f') => 0x0c,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'v') => 0x0b,
                Some(other) => *other,
                None => b'\\',
            }),
        }
    }
    String::from_utf8(out).map_err(|_| {
        ErrorInfo::new("0A000", "the statement needs the client encoding UTF8")
            .detail("Its rows go through the router.")
            .hint("SET client_encoding TO 'UTF8'")
            .into()
    })
}

fn put_values(sql: &mut String, values: &[Value]) {
    sql.push('(');
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            sql.push(',');
        }
        match value {
            None => sql.push_str("NULL"),
            Some(text) => sql.push_str(&escape_literal(text)),
        }
    }
    sql.push(')');
}

fn too_much() -> Failure {
    ErrorInfo::new("54000", "the statement would insert too many rows at once")
        .detail(format!("With ON CONFLICT or RETURNING, at most {} MB.", WHOLE_MAX >> 20))
        .hint("Insert them in several statements, or without RETURNING.")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_copy_writes_them() {
        let row = read_row(b"1\t\\N\ta\\tb\\\\N\\n\t").expect("a row");
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(row, [text("1"), None, text("a\tb\\N\n"), text("")]);
    }

    #[test]
    fn values_are_literals() {
        let mut sql = String::new();
        put_values(&mut sql, &[Some("it's".into()), None, Some("a\\b".into())]);
        assert_eq!(sql, r"('it''s',NULL, E'a\\b')");
    }
}
