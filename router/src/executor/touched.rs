//! Servers in whose session a function, a trigger or a DO block may have changed settings.
//!
//! Nobody sees such a change go by, so the servers that ran the statement are asked what they have
//! become ([`LOOK_AT_SETTINGS`], together with what they hold). What differs from what the session had
//! follows the client from then on. Inside a transaction nobody can tell what is there to stay from
//! what is local to it: until its end all of it is taken as local, and then the servers are asked again.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use pgherd_planner::{Action, Touches};
use pgherd_shard_map::ShardId;
use postgres_protocol::escape::escape_literal;

use super::{Conn, Statement};
use crate::error::Failure;
use crate::pool::server::Reply;
use crate::session::Transaction;
use crate::session::settings::{IDLE_SESSION_TIMEOUT, SEARCH_PATH, Settings, startup_value};
use crate::session::transaction::Replay;

/// A setting as the catalog has it and as SHOW does, where the session has set it.
pub(super) const LOOK_AT_SETTINGS: &str = " \
    UNION ALL SELECT 'setting', name, setting, pg_catalog.current_setting(name) \
        FROM pg_catalog.pg_settings \
        WHERE source = 'session' AND context IN ('user', 'superuser') \
        AND name NOT IN ('transaction_isolation', 'transaction_read_only', \
        'transaction_deferrable') \
    UNION ALL SELECT 'who', 'role', pg_catalog.current_setting('role'), NULL \
    UNION ALL SELECT 'who', 'session_authorization', session_user::text, NULL";

/// What has been touched, and may have to be asked again.
#[derive(Debug, Default)]
pub(super) struct Touched {
    shards: Vec<ShardId>,
    /// Any of them.
    all: bool,
    /// Settings of an application's own that may have been changed.
    settings: BTreeSet<Box<str>>,
    /// Here settings were changed that nobody can name: these servers stay until DISCARD ALL.
    pub(super) stay: Vec<ShardId>,
}

impl Touched {
    pub(super) fn names(&self, shard: ShardId) -> bool {
        self.all || self.shards.contains(&shard)
    }

    /// Asks for the settings that no catalog lists.
    pub(super) fn look_at_own(&self) -> String {
        if self.settings.is_empty() {
            return String::new();
        }
        let names: Vec<String> = self.settings.iter().map(|name| escape_literal(name)).collect();
        format!(
            " UNION ALL SELECT 'own', n, pg_catalog.current_setting(n, true), NULL \
             FROM pg_catalog.unnest(ARRAY[{}]) AS n WHERE NOT EXISTS \
             (SELECT FROM pg_catalog.pg_settings s WHERE pg_catalog.lower(s.name) = n)",
            names.join(", ")
        )
    }

    pub(super) fn forget(&mut self) {
        self.shards.clear();
        self.all = false;
        self.settings.clear();
    }
}

impl Conn {
    /// A statement that may change its servers' settings.
    pub(super) async fn run_touching(
        &mut self,
        touches: &Touches,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        self.take_ticket().await?;
        let started = Instant::now();
        // A cursor's query runs when its rows are fetched.
        self.touch(touches, matches!(statement.plan.action, Action::Cursor(_)));
        let ran = Box::pin(self.run_untouched(statement)).await;
        let kept = self.kept.get_or_insert_default();
        for server in &self.servers {
            if server.answered_after(started).is_some() {
                if !kept.touched.shards.contains(&server.shard) {
                    kept.touched.shards.push(server.shard);
                }
                if touches.stays && !kept.touched.stay.contains(&server.shard) {
                    kept.touched.stay.push(server.shard);
                }
            }
        }
        // Also after an error: a lock that was taken before it stays.
        let looked = Box::pin(self.look()).await;
        ran.and(looked)
    }

    /// At the end of the transaction servers are asked; `all`: whichever they are.
    pub(super) fn touch(&mut self, touches: &Touches, all: bool) {
        let touched = &mut self.kept.get_or_insert_default().touched;
        touched.settings.extend(touches.settings.iter().cloned());
        touched.all |= all;
        if all && touches.stays {
            touched.stay.extend(self.planning.map.shards().map(|shard| shard.id));
        }
    }

    /// A function of the home shard is called that nobody knows.
    pub fn touch_home(&mut self) {
        let effects = self.planning.map.session_effects().functions.values();
        let settings = effects.flat_map(|effect| effect.settings.iter().cloned()).collect();
        let touched = &mut self.kept.get_or_insert_default().touched;
        touched.settings = settings;
        touched.shards.push(self.planning.map.home);
    }

    /// The session's settings become those that a server has been found to have.
    pub(super) async fn follow(&mut self, at: usize, reply: &Reply) -> Result<(), Failure> {
        let idle = matches!(self.session.transaction, Transaction::Idle);
        let expected = match idle {
            true => Rc::clone(&self.servers[at].settings),
            false => Rc::clone(&self.session.settings),
        };
        let mut changes = self.changes(at, &expected, reply);
        let mut refused = None;
        for (name, value) in &mut changes {
            if let Err(refusal) = self.check_setting(name, value.as_deref()) {
                // In a block its rollback takes it back.
                if idle {
                    self.query(at, &expected.statement(name)).await?;
                    self.session.news = Some(Rc::clone(&self.servers[at].parameters));
                }
                *value = expected.value(name).map(Into::into);
                refused.get_or_insert(refusal);
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        if let Some(refusal) = refused.take_if(|_| !idle) {
            return Err(refusal);
        }
        if idle {
            let mut actual = (*expected).clone();
            let mut session = (*self.session.settings).clone();
            for (name, value) in &changes {
                let startup = self.session.startup.value(name);
                actual.set(name, value.as_deref().or_else(|| self.own_setting(at, name)));
                session.set(name, value.as_deref().or(startup));
            }
            self.servers[at].settings = self.worker.intern(actual);
            self.session.settings = self.worker.intern(session);
            return refused.map_or(Ok(()), Err);
        }
        for (name, value) in &changes {
            let mut one = Settings::default();
            one.set(name, value.as_deref());
            let sql = match one.statement(name) {
                sql if sql.starts_with("RESET ") => {
                    format!("SET LOCAL {} TO DEFAULT", &sql["RESET ".len()..sql.len() - 1])
                }
                sql => sql.replacen("SET ", "SET LOCAL ", 1),
            };
            for other in 0..self.servers.len() {
                if other != at && self.servers[other].joined {
                    self.query(other, &sql).await?;
                }
            }
            if let Some(block) = self.session.transaction.block_mut() {
                block.replay.push(Replay::Statement(sql.into()));
            }
            self.settings_become(true, |settings| settings.set(name, value.as_deref()));
        }
        Ok(())
    }

    /// What a server has beside the settings that it was given; `None`: it was reset.
    fn changes(
        &self,
        at: usize,
        expected: &Settings,
        reply: &Reply,
    ) -> Vec<(String, Option<Box<str>>)> {
        let mut changes: Vec<(String, Option<Box<str>>)> = Vec::new();
        let mut set = BTreeSet::new();
        for row in reply.text_rows() {
            let [Some(kind), Some(name), Some(value), shown] = row.as_slice() else { continue };
            let name = name.to_lowercase();
            let had = expected.word(&name);
            let same = match kind.as_str() {
                "setting" => {
                    set.insert(name.clone());
                    // The limit of idle sessions is the router's to mind: a server has none.
                    let usual = match name.as_str() {
                        "search_path" => had.is_none() && value == SEARCH_PATH,
                        IDLE_SESSION_TIMEOUT => value == "0",
                        _ => false,
                    };
                    let is = |text: &str| {
                        had.is_some_and(|had| had.replace("''", "'").eq_ignore_ascii_case(text))
                    };
                    usual
                        || is(value)
                        || shown.as_deref().is_some_and(is)
                        || expected.value(&name) == Some(&startup_value(&name, value))
                }
                "who" if name == "role" => had.unwrap_or("none").trim_matches('"') == value,
                "who" => had.unwrap_or(&self.login.user).trim_matches('"') == value,
                "own" if had.is_none() => value.is_empty(),
                "own" => had == Some(value),
                _ => true,
            };
            if !same {
                let value = startup_value(&name, value);
                changes.push((name, Some(value)));
            }
        }
        for (name, value) in expected.plain() {
            let reset = !set.contains(name)
                && !name.contains('.')
                && self.own_setting(at, name) != Some(value);
            if reset {
                changes.push((name.to_owned(), None));
            }
        }
        changes
    }

    /// What a server has without being told.
    fn own_setting(&self, at: usize, name: &str) -> Option<&str> {
        self.servers[at].seldom.own_settings.value(name)
    }
}
