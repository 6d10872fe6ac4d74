//! SET, RESET, SHOW, DISCARD and `set_config`: the client's settings, whatever servers work for it.
//!
//! A server checks a change first. In a transaction all servers that have joined run it, and it is
//! said again to those that join later, in its place between the savepoints: so what a rollback
//! undoes on the servers and what it undoes here is the same.

use std::rc::Rc;

use pgherd_planner::{Discard, Params, SetConfig, SettingName};
use postgres_protocol::escape::escape_literal;

use super::encoded::check_encoding;
use super::{Conn, Statement};
use crate::consistent_read::ReadConsistency;
use crate::error::{ErrorInfo, Failure};
use crate::session::settings::{ENCODING, IDLE_SESSION_TIMEOUT, Settings, startup_value};
use crate::session::transaction::Replay;
use crate::session::{Portal, Transaction};
use crate::wire::backend;

impl Conn {
    /// SET [LOCAL] name TO value
    pub(super) async fn set(
        &mut self,
        name: &str,
        value: Option<&str>,
        local: bool,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let Some(value) = value else { return self.reset(name, "SET", local).await };
        self.check_setting(name, Some(value))?;
        if name == IDLE_SESSION_TIMEOUT {
            return self.set_idle_limit(statement.sql, local).await;
        }
        self.say(statement.sql, needs_check(name, value)).await?;
        self.settings_become(local, |settings| settings.set(name, Some(value)));
        self.client.complete("SET");
        Ok(())
    }

    /// Of the router's own minding: a server says what the value means, but does not mind it.
    async fn set_idle_limit(&mut self, sql: &str, local: bool) -> Result<(), Failure> {
        let at = self.server_for(self.any_shard()).await?;
        self.join(at).await?;
        let scope = if local { "LOCAL " } else { "" };
        let sql = format!(
            "{sql};SELECT current_setting('{IDLE_SESSION_TIMEOUT}');\
             SET {scope}{IDLE_SESSION_TIMEOUT} TO 0"
        );
        let reply = self.query(at, &sql).await?;
        let value = reply.scalar().unwrap_or_default();
        if !(local && matches!(self.session.transaction, Transaction::Idle)) {
            let value = startup_value(IDLE_SESSION_TIMEOUT, &value);
            self.settings_become(local, |settings| {
                settings.set(IDLE_SESSION_TIMEOUT, Some(&value));
            });
        }
        self.client.complete("SET");
        Ok(())
    }

    /// SET SESSION CHARACTERISTICS
    pub(super) async fn set_characteristics(
        &mut self,
        values: &[(Box<str>, Box<str>)],
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        self.say(statement.sql, true).await?;
        self.settings_become(false, |settings| {
            for (name, value) in values {
                settings.set(name, Some(value));
            }
        });
        self.client.complete("SET");
        Ok(())
    }

    /// RESET name and SET name TO DEFAULT: back to what the startup packet said, which servers do
    /// not know as their default.
    pub(super) async fn reset(
        &mut self,
        name: &str,
        tag: &'static str,
        local: bool,
    ) -> Result<(), Failure> {
        let startup = Rc::clone(&self.session.startup);
        if name == IDLE_SESSION_TIMEOUT {
            // No server has it.
            self.settings_become(local, |settings| settings.set(name, startup.value(name)));
            self.client.complete(tag);
            return Ok(());
        }
        let mut sql = startup.statement(name);
        if local {
            sql = match sql.strip_prefix("SET ") {
                Some(rest) => format!("SET LOCAL {rest}"),
                None => format!("SET LOCAL {} TO DEFAULT", &sql["RESET ".len()..sql.len() - 1]),
            };
        }
        self.say(&sql, true).await?;
        self.settings_become(local, |settings| settings.set(name, startup.value(name)));
        self.client.complete(tag);
        Ok(())
    }

    pub(super) async fn reset_all(&mut self) -> Result<(), Failure> {
        let startup = Rc::clone(&self.session.startup);
        let mut own_path = Settings::default();
        own_path.set("search_path", Some(""));
        let sql = format!("RESET ALL;{}", startup.change_from(&own_path).concat());
        self.say(&sql, true).await?;
        self.settings_become(false, |settings| {
            settings.clear();
            settings.add_missing(&startup);
        });
        Ok(())
    }

    /// Tells servers of a change that the session makes: outside a transaction one, the others get
    /// it when they are next used; inside, all that have joined. `now`: if none has, one does.
    async fn say(&mut self, sql: &str, now: bool) -> Result<(), Failure> {
        let joined = self.servers.iter().any(|server| server.joined);
        let in_block = self.session.transaction.block().is_some();
        if joined || now || !in_block {
            let first = self.servers.iter().position(|server| server.joined);
            let at = match first {
                Some(at) => at,
                None => self.server_for(self.any_shard()).await?,
            };
            self.join(at).await?;
            let mut reply = self.query(at, sql).await?;
            self.pass_on_asides(at, &mut reply);
            for other in 0..self.servers.len() {
                if other != at && self.servers[other].joined {
                    self.query(other, sql).await?;
                }
            }
        }
        if let Some(block) = self.session.transaction.block_mut() {
            block.replay.push(Replay::Statement(sql.into()));
        }
        Ok(())
    }

    /// The session's settings after a change that servers have been told of.
    pub(super) fn settings_become(&mut self, local: bool, change: impl Fn(&mut Settings)) {
        let changed = |worker: &crate::worker::Worker, from: &Settings| {
            let mut settings = from.clone();
            change(&mut settings);
            worker.intern(settings)
        };
        match &mut self.session.transaction {
            Transaction::Open(block) => {
                if !local {
                    block.lasting = changed(&self.worker, &block.lasting);
                }
            }
            // There is nothing for it to be local to.
            Transaction::Idle if local => return,
            Transaction::Idle => {}
        }
        let before = Rc::clone(&self.session.settings);
        self.session.settings = changed(&self.worker, &before);
        if matches!(self.session.transaction, Transaction::Idle) {
            // The one that was told; one that stays unused beside it is brought along later.
            let told = self.servers.first_mut();
            if let Some(server) = told.filter(|server| Rc::ptr_eq(&server.settings, &before)) {
                server.settings = Rc::clone(&self.session.settings);
            }
        }
    }

    /// `SELECT set_config(…)`: the server that has run it says what the values are now.
    pub(super) async fn set_config(
        &mut self,
        calls: &[SetConfig],
        anywhere: bool,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let mut settings: Vec<(Box<str>, bool)> = Vec::with_capacity(calls.len());
        let params = statement.portal.map(Portal::params).transpose()?;
        for SetConfig { name, local } in calls {
            let name = match name {
                SettingName::Known(name) => name.clone(),
                SettingName::Param(number) => {
                    let value = params.as_ref().and_then(|params| params.param(*number));
                    let text = value.and_then(|value| std::str::from_utf8(value.bytes?).ok());
                    text.unwrap_or_default().to_lowercase().into()
                }
            };
            settings.push((name, *local));
        }
        let shard = if anywhere { self.any_shard() } else { self.planning.map.home };
        self.run_one(shard, statement).await?;
        let Some(at) = self.servers.iter().position(|server| server.shard == shard) else {
            return Ok(());
        };
        let in_block = self.session.transaction.block().is_some();
        settings.retain(|(name, local)| !name.is_empty() && (in_block || !local));
        if settings.is_empty() {
            return Ok(());
        }
        let asked: Vec<String> = settings
            .iter()
            .map(|(name, _)| format!("current_setting({}, true)", escape_literal(name)))
            .collect();
        let reply = self.query(at, &format!("SELECT {}", asked.join(", "))).await?;
        for ((name, local), value) in settings.iter().zip(reply.first_row()) {
            let Some(value) = value else { continue };
            let value = startup_value(name, &value);
            if let Err(refused) = self.check_setting(name, Some(&value)) {
                // It has it already: outside a transaction nothing takes it back.
                self.servers[at].spoiled |= !in_block;
                return Err(refused);
            }
            let mut one = Settings::default();
            one.set(name, Some(&value));
            let mut sql = one.statement(name);
            if *local {
                sql.insert_str("SET ".len(), "LOCAL ");
            }
            for other in 0..self.servers.len() {
                if other != at && self.servers[other].joined {
                    self.query(other, &sql).await?;
                }
            }
            if let Some(block) = self.session.transaction.block_mut() {
                block.replay.push(Replay::Statement(sql.into()));
            }
            self.settings_become(*local, |settings| settings.set(name, Some(&value)));
            if !in_block {
                self.servers[at].settings = Rc::clone(&self.session.settings);
            }
        }
        Ok(())
    }

    pub(super) async fn discard(
        &mut self,
        what: Discard,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let tag = match what {
            Discard::All => "DISCARD ALL",
            Discard::Plans => "DISCARD PLANS",
            Discard::Sequences => "DISCARD SEQUENCES",
            Discard::Temp => "DISCARD TEMP",
        };
        match what {
            Discard::All => {
                if !matches!(self.session.transaction, Transaction::Idle) {
                    let message = "DISCARD ALL cannot run inside a transaction block";
                    return Err(ErrorInfo::new("25001", message).into());
                }
                self.forget_sequences().await?;
                self.clean_kept().await?;
                self.session.forget_statements();
                self.session.portals.clear();
                self.cursors = None;
                self.session.drawn = None;
                let startup = Rc::clone(&self.session.startup);
                if !Rc::ptr_eq(&self.session.settings, &startup) {
                    self.reset_all().await?;
                    self.session.settings = startup;
                }
            }
            // Each execution is planned by its server as if the plan were new.
            Discard::Plans => {}
            Discard::Sequences | Discard::Temp => {
                if what == Discard::Sequences {
                    self.session.drawn = None;
                    self.forget_sequences().await?;
                }
                for at in 0..self.servers.len() {
                    if self.servers[at].kept || self.servers[at].joined {
                        self.query(at, statement.sql).await?;
                    }
                }
                self.look_again().await;
            }
        }
        self.client.complete(tag);
        Ok(())
    }

    /// Where the session could have the server again that knows its numbers.
    async fn forget_sequences(&mut self) -> Result<(), Failure> {
        let home = self.planning.map.home;
        if self.has_sequences(home)
            && let Some(at) = self.servers.iter().position(|server| server.shard == home)
        {
            self.query(at, "DISCARD SEQUENCES").await?;
        }
        Ok(())
    }

    /// Values that the router itself must understand.
    pub(super) fn check_setting(&self, name: &str, value: Option<&str>) -> Result<(), Failure> {
        let Some(value) = value else { return Ok(()) };
        let word = value.trim_matches('\'').to_lowercase();
        let bad = |hint: &'static str| {
            let message = format!("invalid value for parameter \"{name}\": \"{word}\"");
            Err(Failure::from(ErrorInfo::new("22023", message).hint(hint)))
        };
        match name {
            ENCODING => Ok(check_encoding(value)?),
            "standard_conforming_strings" if !matches!(&*word, "on" | "true" | "1") => {
                Err(ErrorInfo::new("0A000", "standard_conforming_strings must stay on").into())
            }
            "pgherd.scatter" if !matches!(&*word, "on" | "off" | "true" | "false") => {
                bad("It is on or off.")
            }
            "pgherd.multi_shard_commit" if !matches!(&*word, "2pc" | "1pc") => {
                bad("It is 2pc or 1pc.")
            }
            "pgherd.read_consistency" if ReadConsistency::parse(&word).is_none() => {
                bad("It is shard, atomic or snapshot.")
            }
            "pgherd.read_preference" if word != "primary" => {
                Err(ErrorInfo::new("0A000", "only the read preference \"primary\" is supported")
                    .into())
            }
            "pgherd.shard"
                if word.parse().is_ok_and(|id| {
                    self.planning.map.shard(pgherd_shard_map::ShardId(id)).is_some()
                }) =>
            {
                Ok(())
            }
            "pgherd.shard" => bad("It is the number of a shard; see \"pgherd status\"."),
            "pgherd.sharding_key" => {
                Err(ErrorInfo::new("0A000", "pgherd.sharding_key is not supported yet")
                    .hint("SET pgherd.shard to the shard's number.")
                    .into())
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn show(
        &mut self,
        name: &str,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let own = match name {
            "pgherd.scatter" => Some("on"),
            "pgherd.multi_shard_commit" => Some("2pc"),
            "pgherd.read_consistency" => Some(ReadConsistency::DEFAULT.as_str()),
            "pgherd.read_preference" => Some("primary"),
            "pgherd.shard" | "pgherd.sharding_key" => Some(""),
            IDLE_SESSION_TIMEOUT if self.session.settings.value(name).is_some() => Some("0"),
            _ => None,
        };
        let Some(default) = own else {
            let shard = self.any_shard();
            return self.run_one(shard, statement).await;
        };
        let value = self.session.settings.value(name).map(|value| value.trim_matches('\''));
        let value = value.unwrap_or(default).to_owned();
        if statement.portal.is_none() {
            backend::text_columns(&mut self.client.out, &[name]);
        }
        backend::data_row(&mut self.client.out, &[Some(value.as_bytes())]);
        self.client.complete("SHOW");
        Ok(())
    }
}

/// Whether a server must say now if the value is right. A setting of an application's own takes
/// any; of the others, only what cannot be wrong may wait until a shard joins.
fn needs_check(name: &str, value: &str) -> bool {
    const LIMITS: [&str; 3] =
        ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"];
    let number = value.trim_matches('\'').parse::<u32>().is_ok_and(|value| value < 1_000_000_000);
    !(name.contains('.') || (LIMITS.contains(&name) && number))
}
