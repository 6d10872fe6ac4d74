//! Statements that refuse transaction blocks (VACUUM, CREATE INDEX CONCURRENTLY): on each shard by
//! itself, all at once.
//!
//! What can be left half done has a row in `pgherd.unfinished` until all shards have it. The same
//! statement said again goes on with the others: an index that is not valid where it failed is
//! dropped there first. An advisory lock keeps two sessions from going on with one statement.

use pgherd_planner::Alone;
use pgherd_shard_map::ShardId;
use postgres_protocol::escape::escape_literal;

use super::many::Task;
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::pool::server::Reply;
use crate::wire::{HEADER, backend, frontend};

/// What has become of a statement on the shards where it was tried.
#[derive(Default)]
struct Tried {
    finished: Vec<ShardId>,
    /// With their places in `Conn::servers`.
    failed: Vec<(usize, Failure)>,
    first: Option<Reply>,
}

/// A statement's row in `pgherd.unfinished`: SQL that makes its id, its text and search_path.
struct Row {
    id: String,
    text: String,
    path: String,
}

impl Conn {
    pub(super) async fn each_alone(
        &mut self,
        shards: &[ShardId],
        alone: &Alone,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        if self.session.transaction.block().is_some() {
            // PostgreSQL says it in the statement's own words.
            self.run_one(self.planning.map.home, statement).await?;
            return Err(ErrorInfo::new(
                "25001",
                "this statement cannot run inside a transaction block",
            )
            .into());
        }
        let tasks = self.tasks(shards, None).await?;
        let tried = match alone {
            Alone::Again => {
                let mut tried = self.try_alone(&tasks, statement).await?;
                match tried.failed.is_empty() {
                    true => tried,
                    false => return Err(tried.failed.swap_remove(0).1),
                }
            }
            Alone::Unnamed(index) => {
                let (name, sql) = self.named_index(tasks[0].at, index, statement.sql).await?;
                let alone = Alone::Index { name: name.into(), table: index.table.clone() };
                let statement = Statement { sql: &sql, written: None, ..statement };
                self.resume(tasks, &alone, statement).await?
            }
            _ => self.resume(tasks, alone, statement).await?,
        };
        let reply = tried.first.unwrap_or_default();
        self.client.out.extend_from_slice(&reply.notices);
        let tag = reply.tags.last().cloned().unwrap_or_else(|| tag_of(statement.sql));
        self.client.complete(&tag);
        Ok(())
    }

    async fn try_alone(
        &mut self,
        tasks: &[Task],
        statement: Statement<'_>,
    ) -> Result<Tried, Failure> {
        for task in tasks {
            let mut request = Vec::new();
            frontend::put_query(&mut request, statement.sql);
            if let Err(error) = self.servers[task.at].send(&request).await {
                return Err(self.lost(task.at, &error));
            }
        }
        let mut tried = Tried::default();
        for task in tasks {
            match self.servers[task.at].collect().await {
                Ok(Reply { error: Some(error), .. }) => {
                    tried.failed.push((task.at, Failure::Shard(error)));
                }
                Ok(reply) => {
                    tried.finished.push(self.servers[task.at].shard);
                    tried.first.get_or_insert(reply);
                }
                Err(error) => {
                    let lost = self.lost(task.at, &error);
                    tried.failed.push((task.at, lost));
                }
            }
        }
        Ok(tried)
    }

    /// Under its lock.
    async fn resume(
        &mut self,
        tasks: Vec<Task>,
        alone: &Alone,
        statement: Statement<'_>,
    ) -> Result<Tried, Failure> {
        // The home shard is the first of all.
        let home = tasks[0].at;
        let text = escape_literal(statement.sql.trim().trim_end_matches(';').trim_end());
        let path = "pg_catalog.current_setting('search_path')".to_owned();
        let id = format!(
            "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({text} || ' ' || {path}, \
             'UTF8')), 'hex')"
        );
        let row = Row { id, text, path };
        let key = format!("pg_catalog.hashtextextended('pgherd.unfinished ' || {}, 0)", row.id);
        let locked = format!("SELECT pg_catalog.pg_try_advisory_lock({key})");
        if self.query(home, &locked).await?.scalar().as_deref() != Some("t") {
            return Err(ErrorInfo::new("55006", "another session is running the same statement")
                .hint("Wait until it has ended: pgherd.unfinished shows what it has done.")
                .into());
        }
        let result = self.resume_locked(tasks, alone, &row, statement).await;
        let unlock = format!("SELECT pg_catalog.pg_advisory_unlock({key})");
        if self.quietly(home, &unlock).await.is_err() {
            self.servers[home].spoiled = true;
        }
        result
    }

    async fn resume_locked(
        &mut self,
        tasks: Vec<Task>,
        alone: &Alone,
        row: &Row,
        statement: Statement<'_>,
    ) -> Result<Tried, Failure> {
        let home = tasks[0].at;
        let Row { id, text, path } = row;
        let begun = format!("SELECT pgherd.begin_unfinished({id}, {text}, {path})");
        let before = self.query(home, &begun).await?.scalar();
        let mut done: Vec<ShardId> = Vec::new();
        let mut open = Vec::new();
        for task in tasks {
            let noted = before.as_ref().is_some_and(|list| {
                let shard = self.servers[task.at].shard.to_string();
                list.trim_matches(['{', '}']).split(',').any(|known| *known == shard)
            });
            match before.is_some() && self.is_done(task.at, alone, noted).await? {
                true => done.push(self.servers[task.at].shard),
                false => open.push(task),
            }
        }
        let mut tried = self.try_alone(&open, statement).await?;
        if tried.failed.is_empty() {
            self.query(home, &format!("SELECT pgherd.end_unfinished({id})")).await?;
            if !done.is_empty() {
                self.tell_resumed(&done);
            }
            return Ok(tried);
        }
        let (at, failure) = tried.failed.swap_remove(0);
        if before.is_none() && tried.finished.is_empty() {
            // Alike everywhere, as on one server.
            self.query(home, &format!("SELECT pgherd.end_unfinished({id})")).await?;
            return Err(failure);
        }
        let list: Vec<String> = tried.finished.iter().map(ToString::to_string).collect();
        let noted = format!(
            "SELECT pgherd.note_finished({id}, ARRAY[{}]::pg_catalog.int4[])",
            list.join(", ")
        );
        self.query(home, &noted).await?;
        done.extend(tried.finished);
        done.sort_unstable();
        let mut missing = vec![self.servers[at].shard];
        missing.extend(tried.failed.iter().map(|(at, _)| self.servers[*at].shard));
        missing.sort_unstable();
        Err(self.stopped(at, failure, &done, &missing).await)
    }

    /// Whether a shard needs no more, as far as can be seen there. An index that is not valid is
    /// dropped.
    async fn is_done(&mut self, at: usize, alone: &Alone, noted: bool) -> Result<bool, Failure> {
        match alone {
            Alone::Again | Alone::Unnamed(_) => Ok(false),
            Alone::Rest => Ok(noted),
            Alone::NoIndex { name } => {
                let sql =
                    format!("SELECT pg_catalog.to_regclass({}) IS NULL", escape_literal(name));
                Ok(self.query(at, &sql).await?.scalar().as_deref() == Some("t"))
            }
            Alone::Index { name, table } => {
                let sql = format!(
                    "SELECT i.indisvalid, pg_catalog.format('%I.%I', n.nspname, c.relname) \
                     FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
                     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                     WHERE i.indrelid = pg_catalog.to_regclass({}) \
                       AND c.relname = (pg_catalog.parse_ident({}))[1]",
                    escape_literal(table),
                    escape_literal(name)
                );
                match self.query(at, &sql).await?.first_row().as_slice() {
                    [Some(valid), Some(name)] if valid == "f" => {
                        self.quietly(at, &format!("DROP INDEX CONCURRENTLY {name}")).await?;
                        Ok(false)
                    }
                    [] => Ok(false),
                    _ => Ok(true),
                }
            }
        }
    }

    fn tell_resumed(&mut self, done: &[ShardId]) {
        let text = "the statement has gone on where it had stopped";
        let notice =
            ErrorInfo::new("00000", text).detail(format!("It had run on {} before.", shards(done)));
        self.notice("NOTICE", &notice);
    }

    /// The first shard's error, and where all of them stand.
    async fn stopped(
        &mut self,
        at: usize,
        failure: Failure,
        done: &[ShardId],
        missing: &[ShardId],
    ) -> Failure {
        let (mut state, mut message) = (*b"08006", "a shard was lost".to_owned());
        let mut details = Vec::new();
        if let Failure::Shard(frame) = &failure {
            let body = &frame[HEADER.min(frame.len())..];
            let field = |code| backend::report_field(body, code).map(str::to_owned);
            state = backend::sqlstate(frame);
            message = field(b'M').unwrap_or_default();
            details.extend(field(b'D'));
        } else if let Failure::Statement(info) = &failure {
            message = info.message.to_string();
        }
        details.push(match done.is_empty() {
            true => format!("The statement has not run on {}.", shards(missing)),
            false => {
                format!("It has run on {}, and not on {}.", shards(done), shards(missing))
            }
        });
        let invalid = "SELECT pg_catalog.string_agg(indexrelid::pg_catalog.regclass::text, ', ') \
                       FROM pg_catalog.pg_index WHERE NOT indisvalid";
        if !self.servers[at].spoiled
            && let Ok(reply) = self.query(at, invalid).await
            && let Some(names) = reply.scalar()
        {
            details.push(format!("Not valid on {}: {names}.", shards(&[self.servers[at].shard])));
        }
        let sqlstate = String::from_utf8_lossy(&state).into_owned().into();
        ErrorInfo { sqlstate, ..ErrorInfo::new("XX000", message) }
            .detail(details.join("\n"))
            .hint("Repeat the statement: it goes on with the others. pgherd.unfinished shows it.")
            .into()
    }
}

fn shards(list: &[ShardId]) -> String {
    let names: Vec<String> = list.iter().map(ToString::to_string).collect();
    let word = if list.len() == 1 { "shard" } else { "shards" };
    format!("{word} {}", names.join(", "))
}

/// Where no shard had anything to do any more: `CREATE INDEX`.
fn tag_of(sql: &str) -> String {
    let mut words = sql.split_whitespace().map(str::to_ascii_uppercase);
    match (words.next(), words.next()) {
        (Some(verb), Some(_)) if verb == "REINDEX" => verb,
        (Some(verb), Some(object)) if object == "UNIQUE" => format!("{verb} INDEX"),
        (Some(verb), Some(object)) => format!("{verb} {object}"),
        _ => String::new(),
    }
}
