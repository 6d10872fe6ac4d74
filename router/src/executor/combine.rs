//! Partial aggregates of several shards: PostgreSQL itself finishes.
//!
//! The shards' rows are collected (bounded), turned into one array per column, and one of the shards
//! runs the final statement over `unnest` of these arrays. So sums are exact numerics, text sorts by
//! the database's collation, and HAVING means what it means. Values move in binary: text would
//! depend on the session's DateStyle and its kin. The columns that the client sees are those of a
//! Describe of its own statement; the final statement must give the same types.

use pgherd_planner::{Combine, Params, Piece};
use postgres_protocol::escape::escape_literal;

use super::grouped::Grouped;
use super::many::{Rows, Task, put_bound, put_run};
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::pool::server::Reply;
use crate::session::Portal;
use crate::wire::backend::ColumnDescription;
use crate::wire::{backend, frontend, put_frame};

/// The most that all shards' rows together may hold.
const BYTES_MAX: usize = 256 << 20;

impl Conn {
    pub(super) async fn run_combined(
        &mut self,
        mut tasks: Vec<Task>,
        statement: Statement<'_>,
        combine: &Combine,
    ) -> Result<(), Failure> {
        let at = tasks[0].at;
        let sql = tasks[0].sql.as_deref().unwrap_or(statement.sql);
        let mut described = self.describe(at, &[statement.sql, sql], statement).await?.into_iter();
        let (original, partial) = match (described.next(), described.next()) {
            (Some(original), Some(partial)) => (original?, partial?),
            _ => return Err(Failure::Torn),
        };
        let types = self.types_of(at, &partial).await?;
        if types.iter().any(PartialType::stays_apart) {
            let plan = self.plan_borrowed(statement)?;
            return Box::pin(self.run_statement(Statement { plan: &plan, ..statement })).await;
        }
        let bytewise = self.planning.map.bytewise_collation;
        let unconverted = self.sends_texts_as_they_are(at);
        if let Some(grouped) = Grouped::of(combine, &types, bytewise, unconverted) {
            return self.run_grouped(tasks, &grouped, combine, &types, &original, statement).await;
        }
        self.bind_together(&mut tasks, statement, Rows::Binary).await?;
        let mut begun = false;
        let replies = match self.collect_partials(&tasks, statement, &mut begun).await {
            Err(failure) if begun && statement.portal.is_none() => {
                // The statement ran: PostgreSQL would have described its rows.
                let shown = self.with_home_oids(at, original).await;
                self.client.out.extend_from_slice(&shown);
                return Err(failure);
            }
            collected => collected?,
        };
        let arrays = arrays(&replies, &types)?;
        let sql = final_statement(combine, &types, statement.portal)?;
        drop(replies);
        let tail = statement.portal.map(|portal| frontend::BindTail::new(&portal.tail));
        let results = match &tail {
            Some(Ok(tail)) => tail.results,
            _ => &[0, 0],
        };
        let reply = self.request(at, &final_request(&sql, &arrays, results)).await?;
        check_columns(&reply, &original)?;
        if statement.portal.is_none() {
            let shown = self.with_home_oids(at, original).await;
            self.client.out.extend_from_slice(&shown);
        }
        for row in &reply.rows {
            put_frame(&mut self.client.out, b'D', |out| out.extend_from_slice(row));
            self.client.flush_if_high().await?;
        }
        self.client.complete(&format!("SELECT {}", reply.rows.len()));
        Ok(())
    }

    /// Every shard's rows, in binary. `begun`: a shard has described them, so it was bound.
    pub(super) async fn collect_partials(
        &mut self,
        tasks: &[Task],
        statement: Statement<'_>,
        begun: &mut bool,
    ) -> Result<Vec<Reply>, Failure> {
        let mut joins = Vec::with_capacity(tasks.len());
        for task in tasks {
            let mut request = Vec::new();
            joins.push(self.put_join(task.at, &mut request));
            let shard = self.servers[task.at].shard;
            if task.portal.is_none() {
                put_bound(&mut request, b"", task, shard, statement, Rows::Binary)?;
            }
            put_run(&mut request, task, true);
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
                Ok(Reply { error: Some(error), description, .. }) => {
                    *begun |= description.is_some();
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

    /// The types of the columns that a shard has described.
    pub(super) async fn types_of(
        &mut self,
        at: usize,
        description: &[u8],
    ) -> Result<Vec<PartialType>, Failure> {
        let columns = backend::columns(description).map_err(|error| {
            ErrorInfo::new("XX000", format!("a shard described its rows wrongly: {error}"))
        })?;
        self.types(at, &columns).await
    }

    /// The types of some columns as the shard's SQL names them.
    pub(super) async fn types(
        &mut self,
        at: usize,
        columns: &[ColumnDescription],
    ) -> Result<Vec<PartialType>, Failure> {
        let own = |column: &ColumnDescription| {
            let oid = column.type_oid;
            let name = built_in(oid)?.to_owned();
            Some(PartialType { oid, name, composite: false })
        };
        if let Some(types) = columns.iter().map(own).collect() {
            return Ok(types);
        }
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
        Ok(columns
            .iter()
            .zip(reply.first_row().chunks(2))
            .map(|(column, told)| {
                let text = |at: usize| told.get(at).and_then(Option::as_deref).unwrap_or_default();
                let (name, composite) = (text(0).to_owned(), text(1) == "c");
                PartialType { oid: column.type_oid, name, composite }
            })
            .collect())
    }

    /// Sends messages of the router's own and collects the reply.
    pub(super) async fn request(&mut self, at: usize, request: &[u8]) -> Result<Reply, Failure> {
        if let Err(error) = self.servers[at].send(request).await {
            return Err(self.lost(at, &error));
        }
        self.collect_reply(at).await
    }

    /// A reply, or the error that it is.
    pub(super) async fn collect_reply(&mut self, at: usize) -> Result<Reply, Failure> {
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
    pub(super) oid: u32,
    pub(super) name: String,
    composite: bool,
}

impl PartialType {
    /// Whether values of several shards cannot meet in one statement: an array or a row would be taken
    /// apart by `unnest`, and of an `oid`, `regclass` or their kin each shard has other numbers.
    pub(super) fn stays_apart(&self) -> bool {
        let numbered = [24, 26, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191];
        self.composite
            || self.name.ends_with("[]")
            || self.name.starts_with("record")
            || numbered.contains(&self.oid)
    }
}

/// Types that PostgreSQL need not be asked for.
pub(super) fn built_in(oid: u32) -> Option<&'static str> {
    Some(match oid {
        16 => "boolean",
        20 => "bigint",
        21 => "smallint",
        23 => "integer",
        25 => "text",
        700 => "real",
        701 => "double precision",
        1043 => "character varying",
        1082 => "date",
        1114 => "timestamp without time zone",
        1184 => "timestamp with time zone",
        1186 => "interval",
        1700 => "numeric",
        2950 => "uuid",
        _ => return None,
    })
}

/// The final statement must give the columns of the client's own.
pub(super) fn check_columns(reply: &Reply, original: &[u8]) -> Result<(), ErrorInfo> {
    let oids = |frame: &[u8]| -> Vec<u32> {
        let columns = backend::columns(frame).unwrap_or_default();
        columns.iter().map(|column| column.type_oid).collect()
    };
    if reply.description.as_deref().map(oids) == Some(oids(original)) {
        return Ok(());
    }
    Err(ErrorInfo::new(
        "0A000",
        "the rows of several shards cannot be combined into the statement's types",
    )
    .hint("Cast the aggregates to a type, or pin the statement to one key."))
}

pub(super) fn too_many(most: usize) -> ErrorInfo {
    ErrorInfo::new("54000", "the rows of the shards are too many to combine")
        .detail(format!("They hold more than {} MB.", most >> 20))
        .hint("Use a narrower condition or a LIMIT.")
}

/// The final statement, over the partial rows.
pub(super) fn final_statement(
    combine: &Combine,
    types: &[PartialType],
    portal: Option<&Portal>,
) -> Result<String, Failure> {
    let arrays: Vec<String> =
        (1..).zip(types).map(|(number, of)| format!("${number}::{}[]", of.name)).collect();
    let columns: Vec<String> = (0..types.len()).map(|column| format!("c{column}")).collect();
    let mut sql = String::new();
    for piece in &combine.statement {
        match piece {
            Piece::Text(text) => sql.push_str(text),
            Piece::Source => sql.push_str(&format!(
                "unnest({}) AS pgherd_partial({})",
                arrays.join(", "),
                columns.join(", ")
            )),
            Piece::TypeOf(column) => {
                sql.push_str(types.get(usize::from(*column)).map_or("", |of| &of.name));
            }
            Piece::Param(number) => sql.push_str(&param_literal(portal, *number)?),
        }
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
        (false, _, _) => match params.encoding {
            None => std::str::from_utf8(bytes).map(escape_literal).map_err(|_| unknown()),
            Some(encoding) => Ok(escape_literal(&encoding.decode(bytes)?)),
        },
        (true, 8, 20) => Ok(bytes.try_into().map_or(0, i64::from_be_bytes).to_string()),
        (true, 4, 23) => Ok(bytes.try_into().map_or(0, i32::from_be_bytes).to_string()),
        (true, 2, 21) => Ok(bytes.try_into().map_or(0, i16::from_be_bytes).to_string()),
        _ => Err(unknown()),
    }
}

/// The start of an array's binary form: dimensions, whether there are NULLs, the elements' type,
/// length and lower bound. The elements follow.
pub(super) fn put_array_head(oid: u32, length: usize, out: &mut Vec<u8>) {
    let head = [i32::from(length > 0), 1, oid as i32, length as i32, 1];
    // An empty array has no dimension, and so no length and bound.
    let words = if length > 0 { 5 } else { 3 };
    out.extend(head[..words].iter().flat_map(|word| word.to_be_bytes()));
}

/// The rows of all shards, column by column, as arrays in their binary form.
pub(super) fn arrays(replies: &[Reply], types: &[PartialType]) -> Result<Vec<Vec<u8>>, Failure> {
    let rows: usize = replies.iter().map(|reply| reply.rows.len()).sum();
    let mut arrays = Vec::with_capacity(types.len());
    for of in types {
        let mut array = Vec::new();
        put_array_head(of.oid, rows, &mut array);
        arrays.push(array);
    }
    let mut size = 0;
    for row in replies.iter().flat_map(|reply| &reply.rows) {
        size += row.len();
        if size > BYTES_MAX {
            return Err(too_many(BYTES_MAX).into());
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
