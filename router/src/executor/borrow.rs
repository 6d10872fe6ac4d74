//! Tier 3: rows are copied to the home shard, and PostgreSQL runs the statement there.
//!
//! The scratch tables are temporary ones on a connection of their own, which is closed afterwards:
//! so nothing is left behind, whatever happens, and a transaction that is to be prepared has never
//! touched a temporary table. Shards send their rows all at once, through the connections of the
//! client's transaction if there is one, so its own changes are among them. Nothing is read from
//! them faster than the home shard takes it.
//!
//! First of all the home shard describes the client's statement as it was written: what is wrong
//! with it is told with its place in the client's text, before any row has moved.

use std::rc::Rc;

use pgherd_planner::{Borrow, Isolation, Pull, TEMPORARY_SCHEMA};
use pgherd_shard_map::TableName;
use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::copy::CopyStream;
use super::many::Task;
use super::prepared::without_place;
use super::pulled::pull_query;
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::merge::Counter;
use crate::session::Portal;
use crate::wire::{backend, frontend};

/// Rows go to the scratch table in pieces of this size.
const BATCH: usize = 64 * 1024;

/// From so many rows on it is worth telling PostgreSQL's planner what is in a scratch table.
const ANALYZE_FROM: u64 = 1000;

/// For functions that say that they only read, and could call one that writes.
const READ_ONLY: &str = "SET default_transaction_read_only = on; SET transaction_read_only = on";

/// Of copies: the client's encoding may lack some of their characters.
pub(super) const IN_UTF8: &str = "ENCODING 'UTF8'";

const LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";

/// A table to be copied, and the checked-out servers that have its rows.
pub(super) struct Source<'a> {
    pub(super) pull: &'a Pull,
    pub(super) servers: Vec<usize>,
    /// With the values of its conditions' parameters.
    pub(super) portal: Option<&'a Portal>,
}

impl Conn {
    pub(super) async fn run_borrowed(
        &mut self,
        borrow: &Borrow,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        self.take_ticket().await?;
        let home = self.planning.map.home;
        let at = self.server_for(home).await?;
        // What has been on that way already has come back from it.
        let utf8 = self.planning.encoding.is_none();
        let broadcast = utf8 && !borrow.broadcasts.is_empty() && statement.copies.is_none();
        let statement = Statement { copies: None, ..statement };
        if !broadcast {
            self.refuse_unseen(borrow, at)?;
        }
        self.parse_first(at, statement).await?;
        self.check_views(borrow, at).await?;
        self.read_copies_together(borrow, statement).await?;
        if broadcast {
            if Box::pin(self.run_broadcast(borrow, statement)).await? {
                return Ok(());
            }
            self.refuse_unseen(borrow, at)?;
        }
        let sources = self.sources(borrow, statement).await?;
        let scratch = self.open_scratch(at, borrow.local).await?;
        let result = self.run_on(scratch, &sources, borrow, statement).await;
        self.close_scratch();
        result
    }

    /// The statement that runs has views' queries instead of their names: PostgreSQL is asked whether
    /// the user may read the views themselves.
    pub(super) async fn check_views(
        &mut self,
        borrow: &Borrow,
        home: usize,
    ) -> Result<(), Failure> {
        if borrow.views.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = borrow.views.iter().map(TableName::quoted).collect();
        self.join(home).await?;
        let sql = format!("SELECT FROM {} WHERE false", names.join(", "));
        self.query(home, &sql).await.map(drop)
    }

    /// The scratch connection sees what is committed. The transaction's own changes of tables that
    /// are not copied, and of the schema, it does not see.
    pub(super) fn refuse_unseen(&self, borrow: &Borrow, home: usize) -> Result<(), Failure> {
        let Some(block) = self.session.transaction.block().filter(|block| !block.implicit) else {
            return Ok(());
        };
        // A snapshot that is kept can be handed over, but not from behind a savepoint.
        let own_view = self.servers[home].wrote
            || block.is_serializable()
            || block.isolation() == Isolation::RepeatableRead && block.last_savepoint().is_some();
        let detail = if borrow.local && block.schema_changed {
            "Tables that are not distributed are read through another connection, which does not \
             see the new schema."
        } else if borrow.local && own_view {
            "Tables that are not distributed are read through another connection."
        } else {
            return Ok(());
        };
        Err(ErrorInfo::new(
            "0A000",
            "the statement cannot see what this transaction sees on the home shard",
        )
        .detail(detail)
        .hint("Run it before the transaction, or after its commit.")
        .into())
    }

    /// All copies are of one cut, and so is what is read at home.
    pub(super) async fn read_copies_together(
        &mut self,
        borrow: &Borrow,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let mut shards = Vec::new();
        for pull in &borrow.pulls {
            shards.extend(self.shards_of(&pull.target, statement)?);
        }
        if borrow.local {
            shards.push(self.planning.map.home);
        }
        shards.sort_unstable();
        shards.dedup();
        self.read_together(&shards, statement.plan).await
    }

    /// Finds the shards of each table and checks their servers out, before the scratch connection
    /// is opened: that must be the last.
    pub(super) async fn sources<'a>(
        &mut self,
        borrow: &'a Borrow,
        statement: Statement<'a>,
    ) -> Result<Vec<Source<'a>>, Failure> {
        let mut sources = Vec::with_capacity(borrow.pulls.len());
        for pull in &borrow.pulls {
            let shards = self.shards_of(&pull.target, statement)?;
            let mut servers = Vec::with_capacity(shards.len());
            for shard in shards {
                servers.push(self.server_for(shard).await?);
            }
            sources.push(Source { pull, servers, portal: statement.portal });
        }
        Ok(sources)
    }

    /// A fresh connection, in the last place of `self.servers`.
    pub(super) async fn open_scratch(
        &mut self,
        home_at: usize,
        local: bool,
    ) -> Result<usize, Failure> {
        let home = self.servers[home_at].shard;
        let snapshot = if local { self.export_snapshot(home_at).await? } else { None };
        let pools = Rc::clone(&self.worker.pools);
        let ticket = self.ticket.as_ref();
        let opening = pools.open_apart(home, &self.login, &self.planning.map, ticket);
        let mut server = opening.await?;
        // It is in no transaction of the client's, and must not be put into one.
        server.joined = true;
        self.cancel.servers.borrow_mut().push(super::servers::cancel_target(&server));
        self.servers.push(server);
        let at = self.servers.len() - 1;
        // Those of now, also what a transaction has set: nothing is said again to this one.
        let settings = Rc::clone(&self.session.settings);
        let mut ready = self.give_settings(at, settings).await;
        if ready.is_ok() && self.session.transaction.block().is_some() {
            // What the transaction itself has locked would be waited for without an end.
            ready = self.query(at, LOCK_TIMEOUT).await.map(drop);
        }
        if let (Ok(()), Some(snapshot)) = (&ready, snapshot) {
            let sql = format!("SET TRANSACTION SNAPSHOT {}", escape_literal(&snapshot));
            ready = self.query(at, "BEGIN ISOLATION LEVEL REPEATABLE READ").await.map(drop);
            if ready.is_ok() {
                ready = self.query(at, &sql).await.map(drop);
            }
        }
        match ready {
            Ok(()) => Ok(at),
            Err(failure) => {
                self.close_scratch();
                Err(failure)
            }
        }
    }

    /// The snapshot of a block that keeps one, for the scratch connection to read the home shard's
    /// own tables by. A transaction that has exported one cannot be prepared: the home shard's never
    /// is.
    async fn export_snapshot(&mut self, home_at: usize) -> Result<Option<String>, Failure> {
        let block = self.session.transaction.block();
        if block.is_none_or(|block| block.isolation() != Isolation::RepeatableRead) {
            return Ok(None);
        }
        self.join(home_at).await?;
        let reply = self.query(home_at, "SELECT pg_catalog.pg_export_snapshot()").await?;
        Ok(reply.scalar())
    }

    /// The last that was added; closing it drops the scratch tables.
    pub(super) fn close_scratch(&mut self) {
        if let Some(scratch) = self.servers.pop() {
            self.worker.pools.give_back(&self.login, scratch);
        }
        self.cancel.servers.borrow_mut().pop();
    }

    async fn run_on(
        &mut self,
        scratch: usize,
        sources: &[Source<'_>],
        borrow: &Borrow,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        self.copy_all(scratch, borrow, sources).await?;
        self.hold_to_reading(scratch, borrow).await?;
        let task = Task::new(scratch, Some(&borrow.sql));
        self.stream(vec![task], statement, Some(Counter::unlimited())).await
    }

    /// Makes and fills the scratch tables.
    pub(super) async fn copy_all(
        &mut self,
        scratch: usize,
        borrow: &Borrow,
        sources: &[Source<'_>],
    ) -> Result<(), Failure> {
        let mut left = self.worker.live.borrow().borrow_max;
        self.copy_own(scratch, &borrow.own, &mut left).await?;
        for source in sources {
            self.make_scratch_table(scratch, source.pull).await?;
            self.copy(scratch, source, &mut left).await.map_err(without_place)?;
            if borrow.grouped {
                self.add_primary_key(scratch, source.pull).await?;
            }
        }
        Ok(())
    }

    /// To be said when the copies are there, before what runs over them.
    pub(super) async fn hold_to_reading(
        &mut self,
        scratch: usize,
        borrow: &Borrow,
    ) -> Result<(), Failure> {
        match borrow.held_to_reading {
            true => self.query(scratch, READ_ONLY).await.map(drop),
            false => Ok(()),
        }
    }

    /// An empty table for the copies.
    pub(super) async fn make_scratch_table(
        &mut self,
        scratch: usize,
        pull: &Pull,
    ) -> Result<(), Failure> {
        let name = scratch_name(pull);
        self.make_table_like(scratch, &name, &pull.table, &pull.columns).await
    }

    /// Copies the session's own temporary relations, which the scratch connection does not see.
    pub(super) async fn copy_own(
        &mut self,
        scratch: usize,
        own: &[Pull],
        left: &mut u64,
    ) -> Result<(), Failure> {
        for pull in own {
            let home = self.server_for(self.planning.map.home).await?;
            self.join(home).await?;
            let name = escape_literal(&pull.table.quoted());
            let known = self.columns_spelled(home, &name).await?;
            let columns = known.into_iter().map(|column| column.name.into()).collect();
            let pull = Pull { columns, ..pull.clone() };
            self.make_scratch_table(scratch, &pull).await?;
            let source = Source { pull: &pull, servers: vec![home], portal: None };
            self.copy(scratch, &source, left).await?;
        }
        Ok(())
    }

    /// An empty table with columns of another.
    pub(super) async fn make_table_like(
        &mut self,
        scratch: usize,
        name: &str,
        table: &TableName,
        columns: &[Box<str>],
    ) -> Result<(), Failure> {
        let quoted: Vec<String> = columns.iter().map(|column| escape_identifier(column)).collect();
        let changed = self.session.transaction.block().is_some_and(|block| block.schema_changed);
        if !changed && *table.schema != *TEMPORARY_SCHEMA {
            let (list, table) = (quoted.join(", "), table.quoted());
            let made =
                format!("CREATE TEMP TABLE {name} AS SELECT {list} FROM {table} WITH NO DATA");
            return self.query(scratch, &made).await.map(drop);
        }
        // The scratch connection may not see the table, or would wait for it.
        let home = self.server_for(self.planning.map.home).await?;
        let known = self.columns_spelled(home, &escape_literal(&table.quoted())).await?;
        let defined = columns.iter().filter_map(|column| {
            let known = known.iter().find(|known| *known.name == **column)?;
            Some(known.definition())
        });
        let defined: Vec<String> = defined.collect();
        self.query(scratch, &format!("CREATE TEMP TABLE {name} ({})", defined.join(", ")))
            .await
            .map(drop)
    }

    /// Copies one table, and says how many rows it has. `left` is how many bytes may still be moved.
    pub(super) async fn copy(
        &mut self,
        scratch: usize,
        source: &Source<'_>,
        left: &mut u64,
    ) -> Result<u64, Failure> {
        let pull = source.pull;
        // ENCODING is not minded by the texts in binary rows.
        let binary = pull.binary && self.planning.encoding.is_none();
        if !binary {
            self.refuse_odd_forms(scratch)?;
        }
        let name = scratch_name(pull);
        let format = if binary { "binary" } else { "text" };
        let query = pull_query(pull, source.portal);
        let mut open = Vec::with_capacity(source.servers.len());
        for at in &source.servers {
            let own = self.own_rows(&query, self.servers[*at].shard)?;
            let query = own.as_deref().unwrap_or(&query);
            let out = format!("COPY ({query}) TO STDOUT (FORMAT {format}, {IN_UTF8})");
            let mut request = Vec::new();
            let joins = self.put_join(*at, &mut request);
            frontend::put_query(&mut request, &out);
            if let Err(error) = self.servers[*at].send(&request).await {
                return Err(self.lost(*at, &error));
            }
            open.push((*at, joins));
        }
        let into = format!("COPY {name} FROM STDIN (FORMAT {format}, {IN_UTF8})");
        if let Err(failure) = self.begin_scratch_copy(scratch, &into).await {
            self.close_busy(&open).await;
            return Err(failure);
        }
        let mut stream = CopyStream::onwards(binary);
        if let Err(failure) = self.move_rows(scratch, &mut open, &mut stream, left).await {
            self.close_busy(&open).await;
            return Err(failure);
        }
        let mut end = Vec::new();
        stream.end(&mut end);
        if let Err(error) = self.servers[scratch].send(&end).await {
            return Err(self.lost(scratch, &error));
        }
        let rows = match self.servers[scratch].collect().await {
            Ok(reply) => match reply.error {
                Some(error) => return Err(Failure::Shard(error)),
                None => reply.tags.last().and_then(|tag| backend::tag_count(tag)),
            },
            Err(error) => return Err(self.lost(scratch, &error)),
        };
        let rows = rows.unwrap_or(0);
        if rows >= ANALYZE_FROM {
            self.query(scratch, &format!("ANALYZE {name}")).await?;
        }
        Ok(rows)
    }

    /// The key of the table that was copied, if its columns were.
    pub(super) async fn add_primary_key(
        &mut self,
        scratch: usize,
        pull: &Pull,
    ) -> Result<(), Failure> {
        let sql = format!(
            "SELECT a.attname FROM pg_catalog.pg_index i \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) \
             WHERE i.indisprimary AND i.indrelid = {}::pg_catalog.regclass",
            escape_literal(&pull.table.quoted())
        );
        let home = self.server_for(self.planning.map.home).await?;
        let reply = self.query(home, &sql).await?;
        let mut columns = Vec::with_capacity(reply.rows.len());
        for row in reply.text_rows() {
            let name = row.into_iter().next().flatten().unwrap_or_default();
            if !pull.columns.iter().any(|column| **column == *name) {
                return Ok(());
            }
            columns.push(escape_identifier(&name));
        }
        if columns.is_empty() {
            return Ok(());
        }
        let name = escape_identifier(&pull.scratch);
        let key = columns.join(", ");
        self.query(scratch, &format!("ALTER TABLE pg_temp.{name} ADD PRIMARY KEY ({key})")).await?;
        Ok(())
    }

    async fn begin_scratch_copy(&mut self, scratch: usize, sql: &str) -> Result<(), Failure> {
        let mut request = Vec::new();
        frontend::put_query(&mut request, sql);
        if let Err(error) = self.servers[scratch].send(&request).await {
            return Err(self.lost(scratch, &error));
        }
        loop {
            match self.servers[scratch].frame().await {
                Ok((b'G', _)) => return Ok(()),
                Ok((b'E', error)) => return Err(Failure::Shard(error)),
                Ok(_) => {}
                Err(error) => return Err(self.lost(scratch, &error)),
            }
        }
    }

    /// What shards still send nobody will read: their connections are not used again. One that holds
    /// something of the session's is heard to its end.
    async fn close_busy(&mut self, open: &[(usize, u32)]) {
        for (at, joins) in open {
            let server = &mut self.servers[*at];
            let mut replies = joins + 1;
            while server.kept && replies > 0 {
                match server.frame().await {
                    Ok((b'Z', frame)) => {
                        replies -= 1;
                        if replies == 0 {
                            server.ready(&frame);
                        }
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            server.spoiled |= replies > 0;
        }
    }

    /// Rows of all shards as they arrive, until all have ended.
    async fn move_rows(
        &mut self,
        scratch: usize,
        open: &mut Vec<(usize, u32)>,
        stream: &mut CopyStream,
        left: &mut u64,
    ) -> Result<(), Failure> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut failure = None;
        while !open.is_empty() {
            let position = self.fill_any(open).await?;
            let (at, mut joins) = open[position];
            let mut ended = false;
            while let Some((tag, frame)) = self.next_frame(at)? {
                match tag {
                    b'Z' => {
                        if joins == 0 {
                            self.servers[at].ready(&frame);
                            ended = true;
                            break;
                        }
                        joins -= 1;
                        open[position].1 = joins;
                    }
                    b'E' if failure.is_none() => {
                        failure = Some(Failure::Shard(frame));
                        self.cancel_others(at, open);
                    }
                    b'd' if joins == 0 && failure.is_none() => {
                        // As the shard sent it: what goes on depends on which shard is first.
                        *left = left
                            .checked_sub(frame.len() as u64)
                            .ok_or_else(|| too_much(self.worker.live.borrow().borrow_max))?;
                        stream.pass(tag, &frame, at, &mut batch)?;
                    }
                    _ => {}
                }
                if batch.len() >= BATCH {
                    if let Err(error) = self.servers[scratch].send(&batch).await {
                        return Err(self.lost(scratch, &error));
                    }
                    batch.clear();
                }
            }
            if ended {
                open.swap_remove(position);
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        match self.servers[scratch].send(&batch).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(scratch, &error)),
        }
    }
}

fn scratch_name(pull: &Pull) -> String {
    format!("pg_temp.{}", escape_identifier(&pull.scratch))
}

fn too_much(most: u64) -> ErrorInfo {
    ErrorInfo::new("54000", "the statement would copy too many rows between shards")
        .detail(format!("More than {} MB would move to the home shard.", most >> 20))
        .hint(
            "Give it a narrower condition, join on the distribution columns, or raise [query] \
             borrow_max in the router's configuration.",
        )
}
