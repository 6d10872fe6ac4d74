//! Rows of several shards that must be sorted or added up: PostgreSQL itself finishes.
//!
//! The shards' rows are collected (bounded), turned into one array per column, and one of the shards
//! runs the final statement over `unnest` of these arrays. So sums are exact numerics, text sorts by
//! the database's collation, and HAVING means what it means. Values move in binary: text would
//! depend on the session's DateStyle and its kin. The columns that the client sees are those of a
//! Describe of its own statement; the final statement must give the same types.

use pgherd_planner::{Combine, Limit, Ordered, Params, Piece, RowCount};
use postgres_protocol::escape::escape_literal;

use super::many::{Task, param_count};
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::pool::server::Reply;
use crate::session::Portal;
use crate::wire::{backend, frontend, put_frame};

/// The most that all shards' rows together may hold.
const BYTES_MAX: usize = 256 << 20;

impl Conn {
    pub(super) async fn run_combined(
        &mut self,
        tasks: Vec<Task>,
        statement: Statement<'_>,
        finish: Finish<'_>,
    ) -> Result<(), Failure> {
        let replies = self.collect_partials(&tasks, statement).await?;
        let at = tasks[0].at;
        let (original, types) = self.describe_original(at, statement, &replies[0]).await?;
        if types.iter().any(PartialType::is_nested) {
            // `unnest` would take such values apart.
            drop(replies);
            let plan = self.plan_borrowed(statement.sql)?;
            return Box::pin(self.run_statement(Statement { plan: &plan, ..statement })).await;
        }
        let arrays = arrays(&replies, &types)?;
        let sql = finish.render(&types, statement.portal)?;
        drop(replies);
        let tail = statement.portal.map(|portal| frontend::BindTail::new(&portal.tail));
        let results = match &tail {
            Some(Ok(tail)) => tail.results,
            _ => &[0, 0],
        };
        let reply = self.request(at, &final_request(&sql, &arrays, results)).await?;
        let oids = |frame: &[u8]| -> Vec<u32> {
            let columns = backend::columns(frame).unwrap_or_default();
            columns.iter().map(|column| column.type_oid).collect()
        };
        if reply.description.as_deref().map(oids) != Some(oids(&original)) {
            return Err(ErrorInfo::new(
                "0A000",
                "the rows of several shards cannot be combined into the statement's types",
            )
            .hint("Cast the aggregates to a type, or pin the statement to one key.")
            .into());
        }
        if statement.portal.is_none() {
            self.client.out.extend_from_slice(&original);
        }
        for row in &reply.rows {
            put_frame(&mut self.client.out, b'D', |out| out.extend_from_slice(row));
            self.client.flush_if_high().await?;
        }
        self.client.complete(&format!("SELECT {}", reply.rows.len()));
        Ok(())
    }

    /// Every shard's rows, in binary.
    pub(super) async fn collect_partials(
        &mut self,
        tasks: &[Task],
        statement: Statement<'_>,
    ) -> Result<Vec<Reply>, Failure> {
        let mut joins = Vec::with_capacity(tasks.len());
        for task in tasks {
            let mut request = Vec::new();
            joins.push(self.put_join(task.at, &mut request));
            let sql = task.sql.as_deref().unwrap_or(statement.sql);
            let (types, parameters) = match statement.portal {
                None => (&[][..], &[0, 0, 0, 0][..]),
                Some(portal) => {
                    let shard = self.servers[task.at].shard;
                    (portal.statement.types_on(shard), portal.params()?.tail.parameters)
                }
            };
            frontend::put_parse(&mut request, b"", sql, types);
            frontend::put_bind(&mut request, b"", b"", parameters, &[0, 1, 0, 1]);
            request.extend_from_slice(frontend::DESCRIBE_UNNAMED_PORTAL);
            request.extend_from_slice(frontend::EXECUTE_UNNAMED);
            request.extend_from_slice(frontend::SYNC);
            self.servers[task.at].wrote |= statement.plan.access != pgherd_planner::Access::Read;
            if let Err(error) = self.servers[task.at].send(&request).await {
                return Err(self.lost(task.at, &error));
            }
        }
        let mut replies = Vec::with_capacity(tasks.len());
        let mut failure = None;
        for (task, joins) in tasks.iter().zip(joins) {
            for _ in 0..joins {
                if let Err(error) = self.collect_ok(task.at).await {
                    failure.get_or_insert(error);
                }
            }
            match self.servers[task.at].collect().await {
                Ok(Reply { error: Some(error), .. }) => {
                    failure.get_or_insert(Failure::Shard(error));
                }
                Ok(reply) => replies.push(reply),
                Err(error) => {
                    let lost = self.lost(task.at, &error);
                    failure.get_or_insert(lost);
                }
            }
        }
        failure.map_or(Ok(replies), Err)
    }

    /// The columns of the client's own statement, and the names of the partial columns' types.
    pub(super) async fn describe_original(
        &mut self,
        at: usize,
        statement: Statement<'_>,
        partial: &Reply,
    ) -> Result<(bytes::Bytes, Vec<PartialType>), Failure> {
        let types = statement.portal.map_or(&[][..], |portal| &portal.statement.types);
        let mut request = Vec::new();
        frontend::put_parse(&mut request, b"", statement.sql, types);
        request.extend_from_slice(frontend::DESCRIBE_UNNAMED_STATEMENT);
        request.extend_from_slice(frontend::SYNC);
        let original = self.request(at, &request).await?.description;
        let (Some(original), Some(partial)) = (original, &partial.description) else {
            return Err(ErrorInfo::new("XX000", "a shard did not describe its rows").into());
        };
        let columns = backend::columns(partial).map_err(|error| {
            ErrorInfo::new("XX000", format!("a shard described its rows wrongly: {error}"))
        })?;
        // -1, not NULL: `bpchar`, and not `character`, which is one character.
        let asked: Vec<String> = columns
            .iter()
            .map(|column| {
                let oid = column.type_oid;
                format!(
                    "pg_catalog.format_type({oid}, -1), \
                     (SELECT typtype FROM pg_catalog.pg_type WHERE oid = {oid})"
                )
            })
            .collect();
        let reply = self.query(at, &format!("SELECT {}", asked.join(", "))).await?;
        let told = reply.rows.first().and_then(|row| backend::row_values(row).ok());
        let types: Vec<PartialType> = columns
            .iter()
            .zip(told.unwrap_or_default().chunks(2))
            .map(|(column, told)| {
                let text = |at: usize| told.get(at).copied().flatten().unwrap_or_default();
                let name = String::from_utf8_lossy(text(0)).into_owned();
                PartialType { oid: column.type_oid, name, composite: text(1) == b"c" }
            })
            .collect();
        Ok((original, types))
    }

    /// Sends messages of the router's own and collects the reply.
    pub(super) async fn request(&mut self, at: usize, request: &[u8]) -> Result<Reply, Failure> {
        if let Err(error) = self.servers[at].send(request).await {
            return Err(self.lost(at, &error));
        }
        match self.servers[at].collect().await {
            Ok(reply) => match reply.error {
                None => Ok(reply),
                Some(error) => Err(Failure::Shard(error)),
            },
            Err(error) => Err(self.lost(at, &error)),
        }
    }
}

/// The final statement with the arrays bound to it.
pub(super) fn final_request(sql: &str, arrays: &[Vec<u8>], results: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    frontend::put_parse(&mut request, b"", sql, &[]);
    // One format for all: binary.
    let mut parameters = vec![0, 1, 0, 1];
    parameters.extend_from_slice(&(arrays.len() as u16).to_be_bytes());
    for array in arrays {
        parameters.extend_from_slice(&(array.len() as i32).to_be_bytes());
        parameters.extend_from_slice(array);
    }
    frontend::put_bind(&mut request, b"", b"", &parameters, results);
    request.extend_from_slice(frontend::DESCRIBE_UNNAMED_PORTAL);
    request.extend_from_slice(frontend::EXECUTE_UNNAMED);
    request.extend_from_slice(frontend::SYNC);
    request
}

/// The type of a column of the partial rows, as the shard that finishes knows it.
pub(super) struct PartialType {
    oid: u32,
    name: String,
    composite: bool,
}

impl PartialType {
    /// An array or a row.
    pub(super) fn is_nested(&self) -> bool {
        self.composite || self.name.ends_with("[]") || self.name.starts_with("record")
    }
}

/// What makes one answer of the partial rows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Finish<'a> {
    Combine(&'a Combine),
    Sort(&'a Ordered),
}

impl Finish<'_> {
    /// The final statement.
    pub(super) fn render(
        self,
        types: &[PartialType],
        portal: Option<&Portal>,
    ) -> Result<String, Failure> {
        let arrays: Vec<String> = types
            .iter()
            .enumerate()
            .map(|(column, of)| format!("${}::{}[]", column + 1, of.name))
            .collect();
        let columns: Vec<String> = (0..types.len()).map(|column| format!("c{column}")).collect();
        let source =
            format!("unnest({}) AS pgherd_partial({})", arrays.join(", "), columns.join(", "));
        let mut sql = String::new();
        match self {
            Self::Combine(combine) => {
                for piece in &combine.statement {
                    match piece {
                        Piece::Text(text) => sql.push_str(text),
                        Piece::Source => sql.push_str(&source),
                        Piece::TypeOf(column) => {
                            sql.push_str(types.get(usize::from(*column)).map_or("", |of| &of.name));
                        }
                        Piece::Param(number) => sql.push_str(&param_literal(portal, *number)?),
                    }
                }
            }
            Self::Sort(ordered) => {
                let shown = columns.len().saturating_sub(ordered.hidden.into());
                sql = format!("SELECT {} FROM {source} ORDER BY ", columns[..shown].join(", "));
                for (place, key) in ordered.keys.iter().enumerate() {
                    let comma = if place > 0 { ", " } else { "" };
                    let collation = key.collation.as_ref();
                    let collation = collation.map_or_else(String::new, |c| format!("COLLATE {c}"));
                    let direction = if key.descending { "DESC" } else { "ASC" };
                    let nulls = if key.nulls_first { "FIRST" } else { "LAST" };
                    sql.push_str(&format!(
                        "{comma}c{} {collation} {direction} NULLS {nulls}",
                        key.column
                    ));
                }
                sql.push_str(&limit(&ordered.limit, portal)?);
            }
        }
        Ok(sql)
    }
}

fn limit(limit: &Limit, portal: Option<&Portal>) -> Result<String, Failure> {
    let mut sql = String::new();
    for (word, count) in [("LIMIT", &limit.count), ("OFFSET", &limit.offset)] {
        let count = match count {
            None => continue,
            Some(RowCount::Rows(rows)) => rows.to_string(),
            Some(RowCount::Param(number)) => match param_count(portal, *number)? {
                Some(rows) => rows.to_string(),
                None => continue,
            },
        };
        sql.push_str(&format!(" {word} {count}"));
    }
    Ok(sql)
}

/// A bound value as a literal.
fn param_literal(portal: Option<&Portal>, number: u16) -> Result<String, Failure> {
    let unknown = || {
        Failure::from(
            ErrorInfo::new("0A000", format!("parameter ${number} cannot be combined over shards"))
                .hint("Send it in text format."),
        )
    };
    let params = portal.ok_or_else(unknown)?.params()?;
    let param = params.param(number).ok_or_else(unknown)?;
    let Some(bytes) = param.bytes else { return Ok("NULL".to_owned()) };
    match (param.binary, bytes.len(), param.type_oid) {
        (false, _, _) => std::str::from_utf8(bytes).map(escape_literal).map_err(|_| unknown()),
        (true, 8, 20) => Ok(bytes.try_into().map_or(0, i64::from_be_bytes).to_string()),
        (true, 4, 23) => Ok(bytes.try_into().map_or(0, i32::from_be_bytes).to_string()),
        (true, 2, 21) => Ok(bytes.try_into().map_or(0, i16::from_be_bytes).to_string()),
        _ => Err(unknown()),
    }
}

/// The rows of all shards, column by column, as arrays in their binary form: dimensions, whether
/// there are NULLs, the elements' type, length and lower bound, then the elements.
pub(super) fn arrays(replies: &[Reply], types: &[PartialType]) -> Result<Vec<Vec<u8>>, Failure> {
    let rows: usize = replies.iter().map(|reply| reply.rows.len()).sum();
    let mut arrays: Vec<Vec<u8>> = types
        .iter()
        .map(|of| {
            let dimensions = i32::from(rows > 0);
            let head = [dimensions, 1, of.oid as i32, rows as i32, 1];
            // An empty array has no dimension, and so no length and bound.
            let words = if rows > 0 { 5 } else { 3 };
            head[..words].iter().flat_map(|word| word.to_be_bytes()).collect()
        })
        .collect();
    let mut size = 0;
    for row in replies.iter().flat_map(|reply| &reply.rows) {
        size += row.len();
        if size > BYTES_MAX {
            return Err(ErrorInfo::new("54000", "the rows of the shards are too many to combine")
                .detail(format!("They hold more than {} MB.", BYTES_MAX >> 20))
                .hint("Use a narrower condition or a LIMIT.")
                .into());
        }
        let values = backend::row_values(row)
            .ok()
            .filter(|values| values.len() == types.len())
            .ok_or_else(|| ErrorInfo::new("XX000", "a shard sent a row of another shape"))?;
        for (array, value) in arrays.iter_mut().zip(values) {
            let length = value.map_or(-1, |value| value.len() as i32);
            array.extend_from_slice(&length.to_be_bytes());
            array.extend_from_slice(value.unwrap_or_default());
        }
    }
    Ok(arrays)
}
