//! UPDATE that changes distribution columns. Each shard changes its own rows, and answers as
//! PostgreSQL would; then those that are no longer the shard's own go to theirs, by COPY, in the
//! same transaction.
//!
//! Rows are deleted on every shard before any is written: a row that comes back must not meet the
//! one that it replaces. What would act on the move itself (foreign keys that refer to the table,
//! triggers, rules) is refused before anything is changed.

use std::collections::BTreeMap;

use pgherd_planner::{KeySource, Params, Rekey};
use pgherd_shard_map::{
    Column, ColumnDefault, KeyError, KeyInput, KeyType, RelationKind, ShardId, Table,
};
use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::gather::read_field;
use super::insert::no_key;
use super::{Conn, Statement, verb};
use crate::error::{ErrorInfo, Failure};
use crate::wire::{HEADER, frontend};

/// The most that one statement moves.
const MOVED_MAX: usize = 64 << 20;

/// CopyData messages for each shard.
type Moving = BTreeMap<ShardId, Vec<u8>>;

impl Conn {
    pub(super) async fn run_rekeyed(
        &mut self,
        rekey: &Rekey,
        shards: &[ShardId],
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let leaving = self.shards_to_leave(rekey, shards, statement)?;
        if let ([shard], true) = (shards, leaving.is_empty()) {
            return self.run_one(*shard, statement).await;
        }
        self.open_implicit();
        let tasks = self.tasks(shards, None).await?;
        if !leaving.is_empty() {
            let table = self.rekeyed_table(rekey)?;
            self.refuse_immovable(&table, rekey, tasks[0].at).await?;
        }
        let total = self.stream_rows(tasks, statement, None).await?;
        if total > 0 && !leaving.is_empty() {
            let table = self.rekeyed_table(rekey)?;
            let mut moving = Moving::new();
            let key_type = self.planning.map.group(rekey.group).map(|group| group.key_type);
            let to = new_key(rekey, key_type, statement)?;
            self.take_strangers(&table, rekey, &leaving, to.as_deref(), &mut moving).await?;
            self.bring_home(&table, rekey, moving).await?;
        }
        self.client.complete(&format!("{} {total}", verb(statement.plan.kind)));
        Ok(())
    }

    /// Those of the shards on which rows may get keys of other shards.
    fn shards_to_leave(
        &self,
        rekey: &Rekey,
        shards: &[ShardId],
        statement: Statement<'_>,
    ) -> Result<Vec<ShardId>, Failure> {
        let map = &self.planning.map;
        let to = match &rekey.to {
            None => None,
            Some(key) => {
                let (sql, literals) = (statement.sql.as_bytes(), statement.literals);
                let params = statement.params()?;
                key.shard_of_new_row(map, rekey.group, sql, literals, &params)?
            }
        };
        let leaving: Vec<ShardId> =
            shards.iter().copied().filter(|shard| Some(*shard) != to).collect();
        if !leaving.is_empty() && map.moving.contains(&rekey.group) {
            return Err(ErrorInfo::new(
                "55006",
                "rows cannot get distribution columns of other shards while their table is moved",
            )
            .hint("Run it when the rows have moved: pgherd.reshards shows how far they are.")
            .into());
        }
        Ok(leaving)
    }

    fn rekeyed_table(&self, rekey: &Rekey) -> Result<std::sync::Arc<Table>, Failure> {
        match self.planning.map.relation(&rekey.table) {
            Some(RelationKind::Sharded(table)) => Ok(table.clone()),
            _ => Err(ErrorInfo::new("XX000", "the table is not distributed any more").into()),
        }
    }

    async fn refuse_immovable(
        &mut self,
        table: &Table,
        rekey: &Rekey,
        at: usize,
    ) -> Result<(), Failure> {
        let key = escape_literal(&table.columns[usize::from(rekey.key)].name);
        self.join(at).await?;
        self.refuse_odd_forms(at)?;
        let table = escape_literal(&rekey.table.quoted());
        let sql = format!(
            "SELECT CASE \
             WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_constraint \
               WHERE contype = 'f' AND confrelid = t.oid) THEN 'Foreign keys refer to it, and would act on the move' \
             WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_constraint c \
               JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (c.conkey) \
               WHERE c.contype = 'f' AND c.conrelid = t.oid AND a.attname = {key}) \
               THEN 'A foreign key of its is checked where the row was' \
             WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_trigger \
               WHERE NOT tgisinternal AND (tgrelid = t.oid OR tgrelid IN \
                 (SELECT relid FROM pg_catalog.pg_partition_tree(t.oid)))) \
               THEN 'It has triggers, which would act on the move' \
             WHEN t.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_catalog.pg_inherits \
               WHERE inhparent = t.oid) THEN 'Other tables inherit from it, and their rows would become its own' \
             WHEN t.relhasrules THEN 'It has rules, which would act on the move' \
             WHEN t.relrowsecurity THEN 'It has row-level security, which would act on the move' END \
             FROM pg_catalog.pg_class t WHERE t.oid = {table}::pg_catalog.regclass"
        );
        let Some(why) = self.query(at, &sql).await?.scalar() else { return Ok(()) };
        let table = &rekey.table.name;
        Err(ErrorInfo::new(
            "0A000",
            format!("rows of table \"{table}\" cannot move to the shard of another key"),
        )
        .detail(format!("{why}."))
        .hint("Delete the rows and insert them anew, in one transaction.")
        .into())
    }

    /// Deletes rows whose keys are other shards' now, and keeps them. `to` is the key that all of
    /// them have, so that an index finds them.
    async fn take_strangers(
        &mut self,
        table: &Table,
        rekey: &Rekey,
        leaving: &[ShardId],
        to: Option<&str>,
        moving: &mut Moving,
    ) -> Result<(), Failure> {
        let key = escape_identifier(&table.columns[usize::from(rekey.key)].name);
        let columns = columns(table, rekey);
        let name = rekey.table.quoted();
        let known = to.map(|to| format!("{key} = {to} AND ")).unwrap_or_default();
        let mut open = Vec::with_capacity(leaving.len());
        for shard in leaving {
            let group = self.planning.map.group(rekey.group);
            let own = group.and_then(|group| group.shard_predicate(*shard, &key));
            let own = own.unwrap_or_else(|| "false".to_owned());
            let at = self.server_for(*shard).await?;
            let sql = format!(
                "COPY (DELETE FROM {name} WHERE {known}({own}) IS NOT TRUE RETURNING {columns}) \
                 TO STDOUT"
            );
            let mut request = Vec::new();
            frontend::put_query(&mut request, &sql);
            if let Err(error) = self.servers[at].send(&request).await {
                return Err(self.lost(at, &error));
            }
            open.push(at);
        }
        let mut failure = None;
        let mut size = 0;
        for at in open {
            loop {
                let (tag, frame) = match self.servers[at].frame().await {
                    Ok(frame) => frame,
                    Err(error) => return Err(self.lost(at, &error)),
                };
                match tag {
                    b'd' if failure.is_none() => {
                        size += frame.len();
                        let placed = match size > MOVED_MAX {
                            true => Err(too_much()),
                            false => self.shard_of_stranger(rekey, &frame[HEADER..]),
                        };
                        match placed {
                            Ok(shard) => {
                                moving.entry(shard).or_default().extend_from_slice(&frame);
                            }
                            Err(error) => failure = Some(error),
                        }
                    }
                    b'E' => {
                        failure.get_or_insert(Failure::Shard(frame));
                    }
                    b'Z' => {
                        self.servers[at].ready(&frame);
                        break;
                    }
                    _ => {}
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Its key is the first field.
    fn shard_of_stranger(&self, rekey: &Rekey, line: &[u8]) -> Result<ShardId, Failure> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let field = line.split(|byte| *byte == b'\t').next().unwrap_or_default();
        if field == b"\\N" {
            return Err(no_key(KeyError::Null));
        }
        let key = read_field(field)?;
        let shard = self.planning.map.shard_for(rekey.group, KeyInput::Text(key.as_bytes()));
        shard.map_err(no_key)
    }

    async fn bring_home(
        &mut self,
        table: &Table,
        rekey: &Rekey,
        moving: Moving,
    ) -> Result<(), Failure> {
        let sql = format!("COPY {} ({}) FROM STDIN", rekey.table.quoted(), columns(table, rekey));
        for (shard, rows) in moving {
            let at = self.server_for(shard).await?;
            self.join(at).await?;
            let mut request = Vec::with_capacity(rows.len() + sql.len() + 16);
            frontend::put_query(&mut request, &sql);
            request.extend_from_slice(&rows);
            request.extend_from_slice(frontend::COPY_DONE);
            let server = &mut self.servers[at];
            server.wrote = true;
            if let Err(error) = server.send(&request).await {
                return Err(self.lost(at, &error));
            }
            self.collect_ok(at).await?;
        }
        Ok(())
    }
}

/// The one key that all rows get, as SQL, where that is known.
fn new_key(
    rekey: &Rekey,
    key_type: Option<KeyType>,
    statement: Statement<'_>,
) -> Result<Option<String>, Failure> {
    let integer = matches!(key_type, Some(KeyType::Int2 | KeyType::Int4 | KeyType::Int8));
    Ok(match rekey.to {
        Some(KeySource::Literal { index, negative }) => {
            let literal = statement.literals.get(index as usize);
            let text = literal.and_then(|literal| {
                statement.sql.get(literal.start as usize..literal.end as usize)
            });
            text.map(|text| format!("{}{text}", if negative { "-" } else { "" }))
        }
        Some(KeySource::Param { number, .. }) => {
            let params = statement.params()?;
            let value = params.param(number);
            value.and_then(|value| match (value.binary, value.bytes?) {
                (false, text) => std::str::from_utf8(text).ok().map(escape_literal),
                (true, &[a, b]) if integer => Some(i16::from_be_bytes([a, b]).to_string()),
                (true, &[a, b, c, d]) if integer => {
                    Some(i32::from_be_bytes([a, b, c, d]).to_string())
                }
                (true, bytes) if integer => {
                    bytes.try_into().ok().map(|bytes| i64::from_be_bytes(bytes).to_string())
                }
                (true, _) => None,
            })
        }
        _ => None,
    })
}

/// All that are stored, the distribution column first.
fn columns(table: &Table, rekey: &Rekey) -> String {
    let stored = |(_, column): &(usize, &Column)| column.default != ColumnDefault::Generated;
    let mut stored: Vec<_> = table.columns.iter().enumerate().filter(stored).collect();
    stored.sort_by_key(|(at, _)| *at != usize::from(rekey.key));
    let names = stored.iter().map(|(_, column)| escape_identifier(&column.name));
    names.collect::<Vec<_>>().join(", ")
}

fn too_much() -> Failure {
    ErrorInfo::new("54000", "the statement would move too many rows between shards")
        .detail(format!("At most {} MB can be moved by one statement.", MOVED_MAX >> 20))
        .hint("Change the distribution column in portions.")
        .into()
}
