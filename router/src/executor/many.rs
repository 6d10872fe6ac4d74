//! One statement on several shards, its answers made into one.
//!
//! All shards get the statement before any answer is read, so they work at once. Rows that need
//! no order are passed on as they arrive (`streamed`). An error of one shard is the statement's error.

use std::borrow::Cow;

use pgherd_planner::{Access, Limit, ManyShards, Merge, Params, Role, RowCount, ShardSet};
use pgherd_shard_map::ShardId;

use postgres_protocol::escape::escape_literal;

use super::turned::MOVED_MEANWHILE;
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::merge::Counter;
use crate::pool::server::Reply;
use crate::scram::Verifier;
use crate::session::{Portal, Transaction};
use crate::wire::reply::Expect;
use crate::wire::{backend, frontend};

/// What one shard is asked, and on which checked-out server.
pub(super) struct Task {
    pub(super) at: usize,
    pub(super) sql: Option<String>,
    /// It is bound already, and its snapshot taken.
    pub(super) portal: Option<&'static [u8]>,
}

impl Task {
    pub(super) fn new(at: usize, sql: Option<&str>) -> Self {
        Self { at, sql: sql.map(str::to_owned), portal: None }
    }
}

/// How rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows<'a> {
    /// As the client wants them.
    AsAsked,
    Binary,
    /// In these formats, as Bind has them.
    Formats(&'a [u8]),
}

impl Conn {
    pub(super) async fn run_many(
        &mut self,
        many: &ManyShards,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let shards = self.shards_of(&many.target, statement)?;
        if self.session.drawn.is_some() {
            self.note_home_write(statement.plan);
        }
        if statement.plan.access == Access::Schema
            && let Some(block) = self.session.transaction.block_mut()
        {
            block.schema_changed = true;
        }
        // Copies that go with it have been read by then, in the same snapshots.
        if statement.copies.is_none()
            && matches!(many.merge, Merge::Concat { .. } | Merge::Ordered(_) | Merge::Combine(_))
        {
            self.read_together(&shards, statement.plan).await?;
        }
        match &many.merge {
            Merge::EachAlone(alone) => Box::pin(self.each_alone(&shards, alone, statement)).await,
            Merge::Numbered(numbering) => {
                self.open_for(statement.plan);
                Box::pin(self.run_numbered(numbering, &shards, statement)).await
            }
            // PostgreSQL says it in the statement's own words.
            Merge::SameInBlock if matches!(self.session.transaction, Transaction::Idle) => {
                self.run_one(self.planning.map.home, statement).await
            }
            Merge::Same | Merge::SameInBlock => {
                self.open_for(statement.plan);
                let tasks = self.tasks(&shards, many.sql.as_deref()).await?;
                if !self.may_name_temporary(statement.sql) {
                    return self.run_same(tasks, statement).await;
                }
                let others: Vec<usize> = tasks.iter().skip(1).map(|task| task.at).collect();
                self.check_bodies(&others, "off").await?;
                self.run_same(tasks, statement).await?;
                self.check_bodies(&others, "DEFAULT").await
            }
            Merge::HomeFills { elsewhere } => {
                self.open_implicit();
                let mut tasks = self.tasks(&shards, None).await?;
                for (task, shard) in tasks.iter_mut().zip(&shards) {
                    task.sql = (*shard != self.planning.map.home).then(|| elsewhere.to_string());
                }
                self.run_same(tasks, statement).await
            }
            Merge::Sum => {
                self.open_implicit();
                let tasks = self.tasks(&shards, many.sql.as_deref()).await?;
                self.stream(tasks, statement, None).await
            }
            Merge::Rekeyed(rekey) => Box::pin(self.run_rekeyed(rekey, &shards, statement)).await,
            Merge::Concat { limit } => {
                if statement.plan.access != Access::Read {
                    self.open_implicit();
                }
                let limit = row_counter(limit, statement.portal)?;
                let mut tasks = self.tasks(&shards, many.sql.as_deref()).await?;
                self.bind_together(&mut tasks, statement, Rows::AsAsked).await?;
                self.stream(tasks, statement, Some(limit)).await
            }
            Merge::Ordered(ordered) => {
                let sql = many.sql.as_deref().unwrap_or(statement.sql);
                Box::pin(self.run_ordered(&shards, sql, ordered, statement)).await
            }
            Merge::Combine(combine) => {
                let tasks = self.tasks(&shards, many.sql.as_deref()).await?;
                Box::pin(self.run_combined(tasks, statement, combine)).await
            }
        }
    }

    /// A function's body may name temporary tables, which only the home shard has: that it is right,
    /// the home shard says.
    fn may_name_temporary(&self, sql: &str) -> bool {
        let mut words = sql.split_ascii_whitespace().skip(1);
        let makes = words.find(|word| {
            !["or", "replace"].iter().any(|skipped| word.eq_ignore_ascii_case(skipped))
        });
        !self.session.temporary.is_empty()
            && makes.is_some_and(|word| {
                ["function", "procedure"].iter().any(|made| word.eq_ignore_ascii_case(made))
            })
            && self.session.settings.value("check_function_bodies").is_none()
    }

    async fn check_bodies(&mut self, servers: &[usize], value: &str) -> Result<(), Failure> {
        for at in servers {
            self.join(*at).await?;
            self.query(*at, &format!("SET LOCAL check_function_bodies TO {value}")).await?;
        }
        Ok(())
    }

    /// CREATE or ALTER ROLE with a password: every shard gets the same verifier, so that a client's
    /// login can be passed on to all of them.
    pub(super) async fn run_role(
        &mut self,
        role: &Role,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let md5 = role.password.strip_prefix("md5").is_some_and(|rest| {
            rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        let hashed = md5 || Verifier::parse(&role.password).is_some();
        let verifier = if hashed || role.password.is_empty() {
            role.password.to_string()
        } else {
            let password = role.password.clone();
            // Thousands of hashes: not on a thread that serves clients.
            let control = &self.worker.shared.control;
            let hashing = control.spawn_blocking(move || {
                postgres_protocol::password::scram_sha_256(password.as_bytes())
            });
            hashing.await.map_err(|_| ErrorInfo::new("XX000", "the password was not hashed"))?
        };
        let (head, tail) = (
            &statement.sql[..role.literal.start as usize],
            &statement.sql[role.literal.end as usize..],
        );
        let sql = format!("{head}{}{tail}", escape_literal(&verifier));
        self.open_implicit();
        let shards = self.shard_list(&ShardSet::All);
        let tasks = self.tasks(&shards, Some(&sql)).await?;
        self.run_same(tasks, statement).await
    }

    pub(super) async fn tasks(
        &mut self,
        shards: &[ShardId],
        sql: Option<&str>,
    ) -> Result<Vec<Task>, Failure> {
        if shards.len() > 1 {
            self.take_ticket().await?;
        }
        let mut tasks = Vec::with_capacity(shards.len());
        for shard in shards {
            let at = self.server_for(*shard).await?;
            tasks.push(Task::new(at, sql));
        }
        if self.is_planned_late() && !self.planning.map.moving.is_empty() {
            // It has waited for a connection while rows changed owners.
            if shards.len() < self.planning.map.shards().len() {
                return Err(ErrorInfo::new("40001", MOVED_MEANWHILE)
                    .hint("Run the transaction again.")
                    .into());
            }
            self.refresh_planning();
        }
        Ok(tasks)
    }

    /// The text for one of several shards while rows move between them, if it is another one.
    pub(super) fn own_rows(&self, sql: &str, shard: ShardId) -> Result<Option<String>, Failure> {
        if self.planning.map.moving.is_empty() {
            return Ok(None);
        }
        let live = self.worker.live.borrow();
        let context = self.planning.context(&live.auto_distribute);
        Ok(pgherd_planner::owned_rows(sql, &context, shard)?)
    }

    /// The same for each task that is not bound yet.
    pub(super) fn keep_to_own(&self, tasks: &mut [Task], sql: &str) -> Result<(), Failure> {
        for task in tasks.iter_mut().filter(|task| task.portal.is_none()) {
            let shard = self.servers[task.at].shard;
            if let Some(own) = self.own_rows(task.sql.as_deref().unwrap_or(sql), shard)? {
                task.sql = Some(own);
            }
        }
        Ok(())
    }

    /// Sends each task; servers join the open block first.
    pub(super) async fn send_tasks(
        &mut self,
        tasks: &[Task],
        statement: Statement<'_>,
    ) -> Result<Vec<u32>, Failure> {
        let mut hidden = Vec::with_capacity(tasks.len());
        for task in tasks {
            let shard = self.servers[task.at].shard;
            let text = task.sql.as_deref().unwrap_or(statement.sql);
            let own = match task.portal {
                None => self.own_rows(text, shard)?,
                Some(_) => None,
            };
            let own = own.map(|sql| Task { sql: Some(sql), ..Task::new(task.at, None) });
            let task = own.as_ref().unwrap_or(task);
            let mut request = Vec::new();
            hidden.push(self.put_join(task.at, &mut request));
            let sql = task.sql.as_deref().unwrap_or_else(|| statement.written());
            match (statement.portal, &task.sql) {
                _ if task.portal.is_some() => {
                    put_run(&mut request, task, statement.portal.is_none());
                }
                // A piece of the statement may use some of its parameters only.
                (Some(_), Some(_)) => {
                    put_bound(&mut request, b"", task, shard, statement, Rows::AsAsked)?;
                    put_run(&mut request, task, false);
                }
                (None, Some(_)) if statement.copies.is_some() => {
                    put_bound(&mut request, b"", task, shard, statement, Rows::AsAsked)?;
                    put_run(&mut request, task, true);
                }
                _ => self.put_statement(&mut request, shard, sql, statement.portal),
            }
            let server = &mut self.servers[task.at];
            server.wrote |= statement.plan.access != Access::Read;
            if let Err(error) = server.send(&request).await {
                return Err(self.lost(task.at, &error));
            }
        }
        Ok(hidden)
    }

    /// The replies to BEGIN and its kin.
    pub(super) async fn collect_joins(&mut self, at: usize, hidden: u32) -> Result<(), Failure> {
        for _ in 0..hidden {
            match self.servers[at].collect().await {
                Ok(Reply { error: None, .. }) => {}
                Ok(Reply { error: Some(error), .. }) => {
                    self.servers[at].spoiled = true;
                    return Err(Failure::Shard(error));
                }
                Err(error) => return Err(self.lost(at, &error)),
            }
        }
        // The statement itself is at work.
        self.servers[at].status = 0;
        Ok(())
    }

    /// One request in the protocol that the client used.
    pub fn put_statement(
        &self,
        request: &mut Vec<u8>,
        shard: ShardId,
        sql: &str,
        portal: Option<&Portal>,
    ) {
        match portal {
            None => frontend::put_query(request, sql),
            Some(portal) => {
                let tail = portal.tail_on(shard);
                let Ok(tail) = frontend::BindTail::new(&tail) else { return };
                frontend::put_parse(request, b"", sql, portal.statement.types_on(shard));
                frontend::put_bind(request, b"", b"", tail.parameters, tail.results);
                frontend::put_execute(request, b"", 0);
                request.extend_from_slice(frontend::SYNC);
            }
        }
    }

    /// What the client is not to see of the reply to [`Self::put_statement`]: its own Parse and Bind
    /// have been answered.
    pub fn expect_statement(&mut self, portal: Option<&Portal>) {
        self.scanner.expects.clear();
        if portal.is_some() {
            self.scanner.expects.extend([Expect::HiddenParse, Expect::HiddenBind]);
        }
    }

    /// The same on every shard, one answer. The home shard goes first where locks are taken, so
    /// that two clients who change the schema meet there and not crosswise.
    pub(super) async fn run_same(
        &mut self,
        tasks: Vec<Task>,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let mut first: Option<Reply> = None;
        let split = usize::from(statement.plan.access == Access::Schema).min(tasks.len());
        for group in [&tasks[..split], &tasks[split..]] {
            let hidden = self.send_tasks(group, statement).await?;
            let mut failure = None;
            for (task, hidden) in group.iter().zip(hidden) {
                if let Err(error) = self.collect_joins(task.at, hidden).await {
                    failure.get_or_insert(error);
                    continue;
                }
                match self.servers[task.at].collect().await {
                    Ok(Reply { error: Some(error), notices, .. }) => {
                        if first.is_none() && failure.is_none() {
                            self.client.out.extend_from_slice(&notices);
                        }
                        let state = backend::sqlstate(&error);
                        let told =
                            match first.is_some() && self.lacks_temporary(state, statement.sql) {
                                true => only_at_home().into(),
                                false => Failure::Shard(error),
                            };
                        failure.get_or_insert(told);
                    }
                    Ok(reply) => match &first {
                        // CREATE MATERIALIZED VIEW counts rows, which the home shard alone has.
                        Some(first)
                            if first.tags != reply.tags
                                && statement.plan.access != Access::Schema =>
                        {
                            failure.get_or_insert_with(|| disagree(first, &reply).into());
                        }
                        Some(_) => {}
                        None => first = Some(reply),
                    },
                    Err(error) => {
                        let lost = self.lost(task.at, &error);
                        failure.get_or_insert(lost);
                    }
                }
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
        }
        if statement.plan.access == Access::Schema {
            self.schema_changed().await?;
        }
        let Some(reply) = first else { return Ok(()) };
        let out = &mut self.client.out;
        out.extend_from_slice(&reply.notices);
        if let (Some(description), None) = (&reply.description, statement.portal) {
            out.extend_from_slice(description);
        }
        for row in &reply.rows {
            crate::wire::put_frame(out, b'D', |out| out.extend_from_slice(row));
        }
        if let Some(tag) = reply.tags.last() {
            self.client.complete(tag);
        }
        Ok(())
    }

    /// Whether a shard does not know what the home shard does: where the session has temporary
    /// relations, the statement names the row type of one, or what was made of it.
    fn lacks_temporary(&self, sqlstate: [u8; 5], sql: &str) -> bool {
        let word = sql.trim_start().get(..4).unwrap_or_default();
        // What is dropped is simply not there.
        !word.eq_ignore_ascii_case("drop")
            && !self.session.temporary.is_empty()
            && matches!(&sqlstate, b"42704" | b"42P01" | b"42883")
    }
}

fn only_at_home() -> ErrorInfo {
    ErrorInfo::new("0A000", "what is of a temporary relation's type cannot be made on every shard")
        .detail("A temporary relation lives in this session on the home shard only.")
        .hint("Make a type with CREATE TYPE, and use that.")
}

impl<'a> Rows<'a> {
    /// Result formats, where the client has asked for these.
    fn formats(self, asked: &'a [u8]) -> &'a [u8] {
        match self {
            Self::AsAsked => asked,
            Self::Binary => &[0, 1, 0, 1],
            Self::Formats(formats) => formats,
        }
    }
}

/// Parses and binds a task's statement, the client's parameters with it.
pub(super) fn put_bound(
    request: &mut Vec<u8>,
    name: &[u8],
    task: &Task,
    shard: ShardId,
    statement: Statement<'_>,
    rows: Rows<'_>,
) -> Result<(), Failure> {
    let sql = task.sql.as_deref().unwrap_or(statement.sql);
    let binary = rows == Rows::Binary;
    let Some(portal) = statement.portal else {
        let results = rows.formats(&[0, 0]);
        let parameters = with_copies(&[0, 0, 0, 0], statement)?;
        frontend::put_parse(request, b"", sql, &[]);
        frontend::put_bind(request, name, b"", &parameters, results);
        return Ok(());
    };
    let types = match task.sql.is_some() && !binary {
        true => Cow::Owned(piece_types(sql, portal, shard)?),
        false => Cow::Borrowed(portal.statement.types_on(shard)),
    };
    let tail = portal.tail_on(shard);
    let tail = frontend::BindTail::new(&tail);
    let tail = tail.map_err(|error| ErrorInfo::protocol(error.to_string()))?;
    let results = rows.formats(tail.results);
    frontend::put_parse(request, b"", sql, &types);
    frontend::put_bind(request, name, b"", &with_copies(tail.parameters, statement)?, results);
    Ok(())
}

/// Bind's parameters with the copies that go with the statement.
fn with_copies<'a>(
    parameters: &'a [u8],
    statement: Statement<'_>,
) -> Result<Cow<'a, [u8]>, ErrorInfo> {
    match statement.copies {
        None => Ok(Cow::Borrowed(parameters)),
        Some(copies) => copies.behind(parameters).map(Cow::Owned),
    }
}

/// Runs what [`put_bound`] has bound.
pub(super) fn put_run(request: &mut Vec<u8>, task: &Task, described: bool) {
    let name = task.portal.unwrap_or_default();
    if described {
        frontend::put_describe(request, b'P', name);
    }
    frontend::put_execute(request, name, 0);
    if task.portal.is_some() {
        frontend::put_close(request, b'P', name);
    }
    request.extend_from_slice(frontend::SYNC);
}

/// The types that the parameters of a piece are declared with: PostgreSQL cannot infer those of
/// parameters that this part does not name, so these are declared as what takes any value.
pub(super) fn piece_types(sql: &str, portal: &Portal, shard: ShardId) -> Result<Vec<u8>, Failure> {
    let tail = portal.params()?.tail;
    let named = pgherd_planner::parameters(sql);
    let declared = portal.statement.types_on(shard);
    let mut types = Vec::with_capacity(tail.count() * 4);
    for number in 1..=tail.count() as u16 {
        let at = usize::from(number - 1) * 4;
        let own = declared.get(at..at + 4).unwrap_or(&[0; 4]);
        let binary = tail.value(number).is_some_and(|(_, binary)| binary);
        if named.contains(&number) || own != [0; 4] {
            types.extend_from_slice(own);
        } else {
            let any = if binary { backend::BYTEA_OID } else { backend::TEXT_OID };
            types.extend_from_slice(&any.to_be_bytes());
        }
    }
    Ok(types)
}

/// LIMIT and OFFSET with their parameters' values.
pub(super) fn row_counter(limit: &Limit, portal: Option<&Portal>) -> Result<Counter, Failure> {
    let (offset, count) = row_counts(limit, portal)?;
    Ok(Counter::new(offset.unwrap_or(0), count))
}

/// OFFSET and LIMIT.
pub(super) fn row_counts(
    limit: &Limit,
    portal: Option<&Portal>,
) -> Result<(Option<u64>, Option<u64>), Failure> {
    let value = |count: &Option<RowCount>, negative: (&'static str, &'static str)| match count {
        None => Ok(None),
        Some(RowCount::Rows(rows)) => Ok(Some(*rows)),
        Some(RowCount::Param(number)) => param_count(portal, *number, negative),
    };
    let offset = value(&limit.offset, ("2201X", "OFFSET must not be negative"))?;
    let count = value(&limit.count, ("2201W", "LIMIT must not be negative"))?;
    Ok((offset, count))
}

/// A row count that is a parameter: an integer in text or binary.
/// PostgreSQL's error where it is `negative`.
fn param_count(
    portal: Option<&Portal>,
    number: u16,
    negative: (&'static str, &'static str),
) -> Result<Option<u64>, Failure> {
    let unknown = || {
        Failure::from(
            ErrorInfo::new(
                "0A000",
                format!("parameter ${number} of LIMIT or OFFSET is no integer"),
            )
            .hint("Send it as an integer."),
        )
    };
    let params = portal.ok_or_else(unknown)?.params()?;
    let param = params.param(number).ok_or_else(unknown)?;
    let Some(bytes) = param.bytes else { return Ok(None) };
    let value = match (param.binary, bytes.len()) {
        (true, 8) => bytes.try_into().map(i64::from_be_bytes).ok(),
        (true, 4) => bytes.try_into().map(|b| i64::from(i32::from_be_bytes(b))).ok(),
        (true, 2) => bytes.try_into().map(|b| i64::from(i16::from_be_bytes(b))).ok(),
        (true, _) => None,
        (false, _) => std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok()),
    };
    let rows = u64::try_from(value.ok_or_else(unknown)?);
    rows.map(Some).map_err(|_| ErrorInfo::new(negative.0, negative.1).into())
}

fn disagree(a: &Reply, b: &Reply) -> ErrorInfo {
    ErrorInfo::new("XX000", "shards gave different answers to a statement that runs on all of them")
        .detail(format!("One answered {:?}, another {:?}.", a.tags, b.tags))
        .hint("Their schemas or reference tables differ: compare them on the shards themselves.")
}
