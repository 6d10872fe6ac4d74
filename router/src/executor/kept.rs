//! Servers that stay with their client beyond a transaction.
//!
//! Temporary tables, session advisory locks, cursors WITH HOLD and LISTEN live in one server's
//! session. The planner sends what makes or ends them to the home shard ([`Stateful`]); afterwards
//! the router looks what that server holds, and keeps it for as long as it holds anything. With
//! `[pool] mode = "session"` every server stays. One that has been kept is made clean before it
//! goes back to its pool.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use pgherd_planner::{Stateful, StatementKind, number_calls};
use smallvec::SmallVec;

use super::observed::count_answer;
use super::released::give_back;
use super::touched::{LOOK_AT_SETTINGS, Touched};
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::pool::Server;
use crate::session::{Sequences, Transaction};

/// What is known of the servers that stay.
#[derive(Debug, Default)]
pub struct Kept {
    /// `[pool] mode = "session"`.
    pub session: bool,
    /// A server went away with what it held: the client's session cannot go on.
    pub lost: bool,
    /// Where settings may have been changed out of sight.
    pub(super) touched: Touched,
}

/// All that may be left in the session, by kind and name. The locks of one class are our own:
/// a gate's (`reshard`).
const LOOK: &str = "\
    SELECT 'relation', relname::text, NULL, NULL FROM pg_catalog.pg_class \
        WHERE relnamespace = pg_catalog.pg_my_temp_schema() \
    UNION ALL SELECT 'function', proname::text, NULL, NULL FROM pg_catalog.pg_proc \
        WHERE pronamespace = pg_catalog.pg_my_temp_schema() \
    UNION ALL SELECT 'type', typname::text, NULL, NULL FROM pg_catalog.pg_type \
        WHERE typnamespace = pg_catalog.pg_my_temp_schema() \
    UNION ALL SELECT 'lock', objid::text, NULL, NULL FROM pg_catalog.pg_locks \
        WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid() \
        AND NOT (objsubid = 2 AND classid = 1885825124) \
    UNION ALL SELECT 'cursor', name, NULL, NULL FROM pg_catalog.pg_cursors WHERE is_holdable \
    UNION ALL SELECT 'statement', name, NULL, NULL FROM pg_catalog.pg_prepared_statements \
        WHERE from_sql \
    UNION ALL SELECT 'channel', channel, NULL, NULL \
        FROM pg_catalog.pg_listening_channels() AS channel";

impl Conn {
    /// `[pool] mode = "session"`: the session's servers stay until it ends.
    pub fn keep_all(&mut self) {
        self.kept = Some(Box::new(Kept { session: true, ..Kept::default() }));
    }

    pub(super) async fn run_stateful(
        &mut self,
        state: &Stateful,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let home = self.planning.map.home;
        match state {
            Stateful::Settings { calls, anywhere } => {
                Box::pin(self.set_config(calls, *anywhere, statement)).await
            }
            Stateful::Sequences if self.session.drawn.is_some() => {
                Box::pin(self.run_drawn(statement)).await
            }
            Stateful::Closes if self.kept.is_none() => self.run_one(home, statement).await,
            Stateful::Sequences => self.run_on_sequences(statement).await,
            Stateful::Leaves | Stateful::Closes => {
                self.take_ticket().await?;
                self.kept.get_or_insert_default();
                let at = self.server_for(home).await?;
                let server = &self.servers[at];
                if server.others_numbers
                    && !server.wrote
                    && self.session.sequences == Sequences::Unused
                {
                    // It may stay, and then nobody can tell whose they are.
                    self.join(at).await?;
                    self.forget_numbers(at).await?;
                }
                let ran = self.run_one(home, statement).await;
                if statement.plan.kind == StatementKind::Ddl {
                    // What is prepared there may be of temporary tables as they were.
                    let server = self.servers.iter_mut().find(|server| server.shard == home);
                    server.into_iter().for_each(|server| server.forget = true);
                }
                // Also after an error: a lock that was taken before it stays.
                let looked = Box::pin(self.look()).await;
                ran.and(looked)
            }
        }
    }

    /// On the server that called `nextval()` for this session.
    pub(super) async fn run_on_sequences(
        &mut self,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let home = self.planning.map.home;
        self.worker.shared.asks_numbers.store(true, Ordering::Relaxed);
        let wrote = self.servers.iter().any(|server| server.shard == home && server.wrote);
        if !wrote && self.session.sequences == Sequences::Unused {
            // What a server knows is another session's: it forgets, and says what is wrong.
            let at = self.server_for(home).await?;
            self.join(at).await?;
            self.forget_numbers(at).await?;
            return self.run_one(home, statement).await;
        }
        if wrote || self.has_sequences(home) {
            // Nobody had asked when this session got the server. What it wrote there in an earlier
            // transaction is taken to have drawn what it asks for: else drivers would fail that ask
            // for the number of a row, until the first of them has.
            let ours = self.session.sequences;
            let unsure = |server: &Server| {
                let others = server.others_numbers && !server.kept;
                server.shard == home && others && ours != Sequences::On(server.pid)
            };
            if let Some(at) = self.servers.iter().position(unsure)
                && !self.has_drawn_now(at, statement).await?
            {
                return Err(ErrorInfo::new("0A000", "currval() and lastval() are not known here")
                    .detail("The server may still have had another session's numbers.")
                    .hint("Ask in the transaction that calls nextval(), or use INSERT … RETURNING.")
                    .into());
            }
            return self.run_one(home, statement).await;
        }
        Err(ErrorInfo::new("0A000", "currval() and lastval() need a transaction")
            .detail("The server that called nextval() has not stayed with this session.")
            .hint("Use INSERT … RETURNING, or run both in one transaction.")
            .into())
    }

    /// Whether the open transaction has called `nextval()` for all the numbers that a statement asks
    /// for: a sequence stays locked until its end.
    async fn has_drawn_now(
        &mut self,
        at: usize,
        statement: Statement<'_>,
    ) -> Result<bool, Failure> {
        let calls = number_calls(statement.sql);
        if calls.is_empty() || !self.servers[at].joined {
            return Ok(false);
        }
        let drawn = "EXISTS (SELECT FROM pg_catalog.pg_locks l \
                     JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.relkind = 'S' \
                     WHERE l.pid = pg_catalog.pg_backend_pid() AND l.granted \
                     AND l.mode = 'RowExclusiveLock'";
        let asked = calls.iter().map(|call| match &call.sequence {
            Some(argument) => {
                let name = &statement.sql[argument.clone()];
                format!("{drawn} AND c.oid = ({name})::pg_catalog.regclass)")
            }
            None => format!("{drawn})"),
        });
        let asked: Vec<String> = asked.collect();
        let reply = self.query(at, &format!("SELECT {}", asked.join(" AND "))).await?;
        Ok(reply.scalar().as_deref() == Some("t"))
    }

    /// The numbers that another session's `nextval()` has left on a server, and with them what this
    /// one has there of an earlier transaction.
    pub(super) async fn forget_numbers(&mut self, at: usize) -> Result<(), Failure> {
        self.query(at, "DISCARD SEQUENCES").await?;
        let server = &mut self.servers[at];
        server.drew = false;
        server.others_numbers = false;
        if self.session.sequences == Sequences::On(server.pid) {
            self.session.sequences = Sequences::Forgotten;
        }
        Ok(())
    }

    /// Whether the session has the server that called `nextval()` for it, or can have it again.
    pub(super) fn has_sequences(&mut self, home: pgherd_shard_map::ShardId) -> bool {
        let ours = self.session.sequences;
        if let Some(server) = self.servers.iter().find(|server| server.shard == home) {
            return server.kept || (server.same_user && ours == Sequences::On(server.pid));
        }
        let Sequences::On(pid) = ours else { return false };
        let again = self.worker.pools.idle_again(home, &self.login, pid, self.cancel.pid);
        let Some(mut server) = again else { return false };
        server.same_user = true;
        self.cancel.servers.borrow_mut().push(super::servers::cancel_target(&server));
        self.servers.push(server);
        true
    }

    /// After the end of a transaction: it may have ended what a server was kept for.
    pub async fn look_again(&mut self) {
        if self.kept.is_some() {
            // A server that is lost is found lost when it is released.
            drop(Box::pin(self.look()).await);
        }
    }

    /// Looks what the servers hold of this session: the home shard's, those that hold something
    /// already, and those where anything may have happened.
    pub(super) async fn look(&mut self) -> Result<(), Failure> {
        let home = self.planning.map.home;
        for at in 0..self.servers.len() {
            let server = &self.servers[at];
            let touched = self.kept.as_ref().is_some_and(|kept| kept.touched.names(server.shard));
            if server.shard == home || server.kept || touched {
                self.look_at(at, touched).await?;
            }
        }
        if matches!(self.session.transaction, Transaction::Idle)
            && let Some(kept) = &mut self.kept
        {
            kept.touched.forget();
        }
        Ok(())
    }

    async fn look_at(&mut self, at: usize, touched: bool) -> Result<(), Failure> {
        // In a failed transaction nothing can be asked: its end will look again.
        if self.servers[at].spoiled || !matches!(self.servers[at].status, b'I' | b'T') {
            return Ok(());
        }
        let shard = self.servers[at].shard;
        let own = self.kept.as_ref().map(|kept| kept.touched.look_at_own()).unwrap_or_default();
        let sql = match touched {
            true => [LOOK, LOOK_AT_SETTINGS, &own].concat(),
            false => LOOK.to_owned(),
        };
        let reply = self.query(at, &sql).await?;
        let mut temporary: Vec<Box<str>> = Vec::new();
        let mut holds = self.kept.as_ref().is_some_and(|kept| kept.touched.stay.contains(&shard));
        for row in reply.text_rows() {
            let [Some(kind), Some(name), ..] = row.as_slice() else { continue };
            if kind == "relation" {
                temporary.push(name.as_str().into());
            }
            holds |= !matches!(kind.as_str(), "setting" | "who" | "own");
        }
        self.servers[at].kept = holds;
        temporary.sort_unstable();
        if shard == self.planning.map.home && *self.session.temporary != *temporary {
            self.session.temporary = temporary.into();
        }
        if touched {
            self.follow(at, &reply).await?;
        }
        Ok(())
    }

    /// Outside a transaction: gives back the servers that hold nothing of the session's.
    pub(super) fn release_but_kept(&mut self) {
        let whole = self.kept.as_ref().is_some_and(|kept| kept.session);
        let cancelled = self.cancel.sent.replace(false);
        self.cancel.deadlock.set(false);
        let (mut lost, mut stay) = (false, SmallVec::new());
        for mut server in self.servers.drain(..) {
            if server.wrote && server.shard == self.planning.map.home {
                self.session.sequences.written(server.pid, server.same_user);
                server.drew = true;
            }
            // As long as it stays, nobody else uses it.
            server.same_user |= server.kept;
            server.wrote = false;
            server.joined &= server.status != b'I';
            server.kept |= whole;
            server.cancelled |= cancelled;
            self.client.out.append(&mut server.seldom.news);
            if server.kept && !server.spoiled && server.status == b'I' {
                self.worker.pools.count(&mut server);
                stay.push(server);
                continue;
            }
            lost |= server.kept;
            server.spoiled |= server.cancelled;
            count_answer(&self.worker, self.running, &server);
            give_back(&self.worker, &self.login, server);
        }
        self.servers = stay;
        // A cancel that is late hits this session's next statement, as it would on PostgreSQL.
        *self.cancel.servers.borrow_mut() =
            self.servers.iter().map(super::servers::cancel_target).collect();
        if self.servers.is_empty() {
            self.ticket = None;
        }
        match &mut self.kept {
            Some(kept) if lost => kept.lost = true,
            Some(kept) if !kept.session && self.servers.is_empty() => {
                self.kept = None;
                if !self.session.temporary.is_empty() {
                    self.session.temporary = Rc::new([]);
                }
            }
            _ => {}
        }
    }

    /// DISCARD ALL: nothing is left anywhere, and nothing has to stay.
    pub(super) async fn clean_kept(&mut self) -> Result<(), Failure> {
        for at in 0..self.servers.len() {
            if self.servers[at].kept
                && let Err(error) = self.servers[at].make_clean().await
            {
                return Err(self.lost(at, &error));
            }
        }
        if let Some(kept) = &mut self.kept {
            kept.touched = Touched::default();
        }
        self.session.temporary = Rc::new([]);
        Ok(())
    }
}
