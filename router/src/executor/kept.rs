//! Servers that stay with their client beyond a transaction.
//!
//! Temporary tables, session advisory locks, cursors WITH HOLD and LISTEN live in one server's
//! session. The planner sends what makes or ends them to the home shard ([`Stateful`]); afterwards
//! the router looks what that server holds, and keeps it for as long as it holds anything. With
//! `[pool] mode = "session"` every server stays. One that has been kept is made clean before it
//! goes back to its pool.

use std::rc::Rc;

use pgherd_planner::Stateful;
use smallvec::SmallVec;

use super::observed::count_answer;
use super::released::give_back;
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::session::settings::{Settings, startup_value};
use crate::session::{Sequences, Transaction};

/// What is known of the servers that stay.
#[derive(Debug, Default)]
pub struct Kept {
    /// `[pool] mode = "session"`.
    pub session: bool,
    /// A server went away with what it held: the client's session cannot go on.
    pub lost: bool,
    /// A procedure ran, which may have changed settings.
    settings: bool,
}

/// All that may be left in the session, by kind and name. The locks of one class are our own:
/// a gate's (`reshard`).
const LOOK: &str = "\
    SELECT 'relation', relname::text, NULL FROM pg_catalog.pg_class \
        WHERE relnamespace = pg_catalog.pg_my_temp_schema() \
    UNION ALL SELECT 'function', proname::text, NULL FROM pg_catalog.pg_proc \
        WHERE pronamespace = pg_catalog.pg_my_temp_schema() \
    UNION ALL SELECT 'type', typname::text, NULL FROM pg_catalog.pg_type \
        WHERE typnamespace = pg_catalog.pg_my_temp_schema() \
    UNION ALL SELECT 'lock', objid::text, NULL FROM pg_catalog.pg_locks \
        WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid() \
        AND NOT (objsubid = 2 AND classid = 1885825124) \
    UNION ALL SELECT 'cursor', name, NULL FROM pg_catalog.pg_cursors WHERE is_holdable \
    UNION ALL SELECT 'channel', channel, NULL FROM pg_catalog.pg_listening_channels() AS channel";

/// And what its settings are.
const LOOK_AT_SETTINGS: &str = " \
    UNION ALL SELECT 'setting', name, setting FROM pg_catalog.pg_settings \
        WHERE source = 'session' AND context IN ('user', 'superuser') \
    UNION ALL SELECT 'setting', 'role', pg_catalog.current_setting('role') \
        WHERE pg_catalog.current_setting('role') <> 'none'";

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
            Stateful::Leaves | Stateful::Procedure | Stateful::Closes => {
                self.take_ticket().await?;
                let kept = self.kept.get_or_insert_default();
                kept.settings |= *state == Stateful::Procedure;
                let ran = self.run_one(home, statement).await;
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
        if self.session.transaction.block().is_some() || self.has_sequences(home) {
            return self.run_one(home, statement).await;
        }
        Err(ErrorInfo::new("0A000", "currval() and lastval() need a transaction")
            .detail("The server that called nextval() has not stayed with this session.")
            .hint("Use INSERT … RETURNING, or run both in one transaction.")
            .into())
    }

    /// Whether the session has the server that called `nextval()` for it, or can have it again.
    fn has_sequences(&mut self, home: pgherd_shard_map::ShardId) -> bool {
        let ours = self.session.sequences;
        if let Some(server) = self.servers.iter().find(|server| server.shard == home) {
            return server.kept || (server.same_user && ours == Sequences::On(server.pid));
        }
        let Sequences::On(pid) = ours else { return false };
        let again = self.worker.pools.idle_again(home, &self.login, pid, self.cancel.pid);
        let Some(mut server) = again else { return false };
        server.same_user = true;
        self.cancel.servers.borrow_mut().push(super::cancel_target(&server));
        self.servers.push(server);
        true
    }

    /// After the end of a transaction: it may have ended what a server was kept for.
    pub(super) async fn look_again(&mut self) {
        if self.kept.is_some() {
            // A server that is lost is found lost when it is released.
            drop(Box::pin(self.look()).await);
        }
    }

    /// Looks what the home shard's server holds of this session.
    async fn look(&mut self) -> Result<(), Failure> {
        let home = self.planning.map.home;
        let Some(at) = self.servers.iter().position(|server| server.shard == home) else {
            return Ok(());
        };
        // In a failed transaction nothing can be asked: its end will look again.
        if self.servers[at].spoiled || !matches!(self.servers[at].status, b'I' | b'T') {
            return Ok(());
        }
        let idle = matches!(self.session.transaction, Transaction::Idle);
        let ask_settings = idle && self.kept.as_ref().is_some_and(|kept| kept.settings);
        let sql = match ask_settings {
            true => [LOOK, LOOK_AT_SETTINGS].concat(),
            false => LOOK.to_owned(),
        };
        let reply = self.query(at, &sql).await?;
        let mut temporary: Vec<Box<str>> = Vec::new();
        let mut settings = Settings::default();
        let mut holds = false;
        for row in reply.text_rows() {
            let [Some(kind), Some(name), value] = row.as_slice() else { continue };
            match (kind.as_str(), value) {
                ("setting", Some(value)) => {
                    let name = name.to_lowercase();
                    settings.set(&name, Some(&startup_value(&name, value)));
                }
                ("relation", _) => temporary.push(name.as_str().into()),
                _ => {}
            }
            holds |= kind != "setting";
        }
        self.servers[at].kept = holds;
        temporary.sort_unstable();
        if *self.session.temporary != *temporary {
            self.session.temporary = temporary.into();
        }
        if ask_settings {
            if let Some(kept) = &mut self.kept {
                kept.settings = false;
            }
            settings.keep_own(&self.session.settings);
            let settings = self.worker.intern(settings);
            self.servers[at].settings = Rc::clone(&settings);
            self.session.settings = settings;
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
        *self.cancel.servers.borrow_mut() = self.servers.iter().map(super::cancel_target).collect();
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
        self.session.temporary = Rc::new([]);
        Ok(())
    }
}
