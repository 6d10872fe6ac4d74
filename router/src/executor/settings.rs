//! Statements that change or read the session: BEGIN to ROLLBACK TO, SET, RESET, SHOW, DISCARD.
//!
//! What the router can answer by itself it does: a BEGIN costs no round trip, since shards hear of
//! it when they join. What PostgreSQL must check (the value of a SET) goes to a server first.

use std::rc::Rc;

use pgherd_planner::{BeginWord, Isolation, SessionStatement};

use super::{Conn, Ready, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::session::settings::Settings;
use crate::session::transaction::Replay;
use crate::session::{Block, Transaction};
use crate::wire::backend;

impl Conn {
    pub(super) async fn run_session(
        &mut self,
        session: &SessionStatement,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        match session {
            SessionStatement::Begin { start_word, isolation, .. } => {
                self.begin(*start_word, *isolation, statement.sql)
            }
            SessionStatement::Commit { and_chain } => self.commit(*and_chain).await,
            SessionStatement::Rollback { and_chain } => self.roll_back(*and_chain).await,
            SessionStatement::Savepoint(name) => self.savepoint(name, statement).await,
            SessionStatement::ReleaseSavepoint(name) => {
                self.need_savepoint("RELEASE SAVEPOINT", name)?;
                self.on_joined(statement).await?;
                if let Some(block) = self.session.transaction.block_mut() {
                    block.release(name);
                }
                self.client.complete("RELEASE");
                Ok(())
            }
            SessionStatement::RollbackToSavepoint(name) => {
                self.need_savepoint("ROLLBACK TO SAVEPOINT", name)?;
                self.on_joined(statement).await?;
                if let Some(block) = self.session.transaction.block_mut()
                    && let Some(settings) = block.roll_back_to(name)
                {
                    self.settings_are(settings);
                }
                self.client.complete("ROLLBACK");
                Ok(())
            }
            SessionStatement::Set { name, value, local: true } => {
                let _ = (name, value);
                self.set_in_block("SET LOCAL", statement).await
            }
            SessionStatement::SetTransaction => {
                self.set_in_block("SET TRANSACTION", statement).await
            }
            SessionStatement::Set { name, value, local: false } => {
                let mut settings = (*self.session.settings).clone();
                settings.set(name, value.as_deref());
                self.check_setting(name, value.as_deref())?;
                self.change_settings(settings, statement).await
            }
            SessionStatement::SetCharacteristics => Err(ErrorInfo::new(
                "0A000",
                "SET SESSION CHARACTERISTICS is not supported",
            )
            .hint("SET default_transaction_isolation or default_transaction_read_only instead.")
            .into()),
            SessionStatement::Reset(name) => {
                let mut settings = (*self.session.settings).clone();
                match name {
                    Some(name) => settings.set(name, None),
                    None => settings.clear(),
                }
                self.change_settings(settings.clone(), statement).await?;
                self.back_to_startup(settings, name.as_deref()).await
            }
            SessionStatement::Show(name) => self.show(name, statement).await,
            SessionStatement::DiscardAll => {
                if !matches!(self.session.transaction, Transaction::Idle) {
                    return Err(ErrorInfo::new(
                        "25001",
                        "DISCARD ALL cannot run inside a transaction block",
                    )
                    .into());
                }
                self.session.statements.clear();
                self.session.portals.clear();
                let startup = (*self.session.startup).clone();
                if !Rc::ptr_eq(&self.session.settings, &self.session.startup) {
                    // So that the client hears of the parameters that change by it.
                    self.server_for(self.any_shard()).await?;
                    self.back_to_startup(startup, None).await?;
                }
                self.client.complete("DISCARD ALL");
                Ok(())
            }
            SessionStatement::Deallocate(name) => {
                match name {
                    Some(name) => {
                        if self.session.statements.remove(name.as_bytes()).is_none() {
                            return Err(ErrorInfo::new(
                                "26000",
                                format!("prepared statement \"{name}\" does not exist"),
                            )
                            .into());
                        }
                        self.client.complete("DEALLOCATE");
                    }
                    None => {
                        self.session.statements.clear();
                        self.client.complete("DEALLOCATE ALL");
                    }
                }
                Ok(())
            }
        }
    }

    fn begin(
        &mut self,
        word: BeginWord,
        isolation: Option<Isolation>,
        sql: &str,
    ) -> Result<(), Failure> {
        let tag = match word {
            BeginWord::Begin => "BEGIN",
            BeginWord::StartTransaction => "START TRANSACTION",
        };
        match self.session.transaction.block_mut() {
            // BEGIN after other statements of one string turns its block into the client's.
            Some(block) if block.implicit => block.implicit = false,
            Some(_) => {
                let notice = ErrorInfo::new("25001", "there is already a transaction in progress");
                backend::notice_response(&mut self.client.out, "WARNING", &notice);
            }
            None => {
                let settings = Rc::clone(&self.session.settings);
                let mut block = Block::new(sql, false, settings);
                block.serializable = isolation == Some(Isolation::Serializable);
                self.session.transaction = Transaction::Open(Box::new(block));
            }
        }
        self.client.complete(tag);
        Ok(())
    }

    fn need_block(&self, what: &str) -> Result<(), Failure> {
        match &self.session.transaction {
            Transaction::Open(block) if !block.implicit => Ok(()),
            _ => Err(ErrorInfo::new(
                "25P01",
                format!("{what} can only be used in transaction blocks"),
            )
            .into()),
        }
    }

    fn need_savepoint(&self, what: &str, name: &str) -> Result<(), Failure> {
        self.need_block(what)?;
        match self.session.transaction.block() {
            Some(block) if block.has_savepoint(name) => Ok(()),
            _ => {
                Err(ErrorInfo::new("3B001", format!("savepoint \"{name}\" does not exist")).into())
            }
        }
    }

    async fn savepoint(&mut self, name: &str, statement: Statement<'_>) -> Result<(), Failure> {
        self.need_block("SAVEPOINT")?;
        self.on_joined(statement).await?;
        let settings = Rc::clone(&self.session.settings);
        if let Some(block) = self.session.transaction.block_mut() {
            block.save(name, statement.sql, settings);
        }
        self.client.complete("SAVEPOINT");
        Ok(())
    }

    /// SET LOCAL and SET TRANSACTION: now where the transaction runs, later where it will.
    async fn set_in_block(&mut self, what: &str, statement: Statement<'_>) -> Result<(), Failure> {
        if matches!(self.session.transaction, Transaction::Idle) {
            let notice =
                ErrorInfo::new("25P01", format!("{what} can only be used in transaction blocks"));
            backend::notice_response(&mut self.client.out, "WARNING", &notice);
            self.client.complete("SET");
            return Ok(());
        }
        self.on_joined(statement).await?;
        if let Some(block) = self.session.transaction.block_mut() {
            block.replay.push(Replay::Statement(statement.sql.into()));
        }
        self.client.complete("SET");
        Ok(())
    }

    /// Runs the statement on every shard that the transaction has joined, unseen by the client.
    async fn on_joined(&mut self, statement: Statement<'_>) -> Result<(), Failure> {
        for at in 0..self.servers.len() {
            if self.servers[at].joined {
                let reply = self.servers[at].run(statement.sql).await;
                match reply {
                    Ok(reply) => {
                        if let Some(error) = reply.error {
                            return Err(Failure::Shard(error));
                        }
                    }
                    Err(error) => return Err(self.lost(at, &error)),
                }
            }
        }
        Ok(())
    }

    /// Values that the router itself must understand.
    fn check_setting(&self, name: &str, value: Option<&str>) -> Result<(), Failure> {
        let Some(value) = value else { return Ok(()) };
        let word = value.trim_matches('\'').to_lowercase();
        let bad = |hint: &'static str| {
            let message = format!("invalid value for parameter \"{name}\": \"{word}\"");
            Err(Failure::from(ErrorInfo::new("22023", message).hint(hint)))
        };
        match name {
            "client_encoding" if !matches!(&*word, "utf8" | "utf-8" | "unicode") => {
                Err(ErrorInfo::new("0A000", "the router speaks UTF8 only").into())
            }
            "standard_conforming_strings" if !matches!(&*word, "on" | "true" | "1") => {
                Err(ErrorInfo::new("0A000", "standard_conforming_strings must stay on").into())
            }
            "pgherd.scatter" if !matches!(&*word, "on" | "off" | "true" | "false") => {
                bad("It is on or off.")
            }
            "pgherd.multi_shard_commit" if !matches!(&*word, "2pc" | "1pc") => {
                bad("It is 2pc or 1pc.")
            }
            "pgherd.read_consistency" if word != "shard" => {
                Err(ErrorInfo::new("0A000", "only the read consistency \"shard\" is supported")
                    .into())
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

    /// A server checks the change first; then it is the session's.
    async fn change_settings(
        &mut self,
        settings: Settings,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let shard = self.any_shard();
        let at = self.server_for(shard).await?;
        let mut request = Vec::new();
        let hidden = self.put_join(at, &mut request);
        self.put_statement(&mut request, statement.sql, statement.portal);
        self.expect_statement(statement.portal);
        let end = self.relay(at, &request, hidden, Ready::Keep, statement.plan).await?;
        if end.failed {
            return Err(Failure::Told);
        }
        for other in 0..self.servers.len() {
            if other != at {
                let reply = self.servers[other].run(statement.sql).await;
                if let Err(error) = reply {
                    return Err(self.lost(other, &error));
                }
            }
        }
        let settings = self.worker.intern(settings);
        self.settings_are(settings);
        Ok(())
    }

    /// After a RESET the servers have their own defaults; the client's are those of its startup
    /// packet.
    async fn back_to_startup(
        &mut self,
        mut settings: Settings,
        name: Option<&str>,
    ) -> Result<(), Failure> {
        match name {
            Some(name) => settings.set(name, self.session.startup.value(name)),
            None => settings = (*self.session.startup).clone(),
        }
        self.session.settings = self.worker.intern(settings);
        for at in 0..self.servers.len() {
            self.bring_settings(at).await?;
        }
        self.session.news = self.servers.first().map(|server| Rc::clone(&server.parameters));
        Ok(())
    }

    /// The session's settings and, alike, those of the servers that work for it: all of them have
    /// run the change.
    pub(super) fn settings_are(&mut self, settings: Rc<Settings>) {
        for server in &mut self.servers {
            server.settings = Rc::clone(&settings);
        }
        self.session.settings = settings;
    }

    async fn show(&mut self, name: &str, statement: Statement<'_>) -> Result<(), Failure> {
        let own = match name {
            "pgherd.scatter" => Some("on"),
            "pgherd.multi_shard_commit" => Some("2pc"),
            "pgherd.read_consistency" => Some("shard"),
            "pgherd.read_preference" => Some("primary"),
            "pgherd.shard" | "pgherd.sharding_key" => Some(""),
            _ => None,
        };
        let Some(default) = own else {
            let shard = self.any_shard();
            return self.run_one(shard, statement).await.map(drop);
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
