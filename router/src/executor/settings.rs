//! Statements that change or read the session, and of these BEGIN to ROLLBACK TO.
//!
//! What the router can answer by itself it does: a BEGIN costs no round trip, since shards hear of
//! it when they join.

use std::rc::Rc;

use pgherd_planner::{Action, BeginWord, Isolation, SessionStatement};

use super::{Conn, Statement};
use crate::consistent_read::ReadConsistency;
use crate::error::{ErrorInfo, Failure};
use crate::session::transaction::Replay;
use crate::session::{Block, Transaction};
use crate::wire::backend;

impl Conn {
    pub(super) async fn run_session(
        &mut self,
        session: &SessionStatement,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        // What comes before a transaction's first query may still change its isolation level.
        let block = self.session.transaction.block_mut().filter(|_| is_before_query(session));
        let due = block.is_some_and(|block| std::mem::take(&mut block.cut_due));
        let ran = self.run_session_now(session, statement).await;
        if let Some(block) = self.session.transaction.block_mut() {
            block.cut_due |= due;
        }
        ran
    }

    async fn run_session_now(
        &mut self,
        session: &SessionStatement,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        match session {
            SessionStatement::Begin { start_word, isolation, modes, .. } => {
                let modes = modes.of(statement.sql);
                Box::pin(self.begin(*start_word, *isolation, modes, statement.sql)).await
            }
            SessionStatement::Commit { and_chain } => self.commit(*and_chain).await,
            SessionStatement::Rollback { and_chain } => self.roll_back(*and_chain).await,
            SessionStatement::Savepoint(name) => self.savepoint(name, statement).await,
            SessionStatement::ReleaseSavepoint(name) => {
                self.need_savepoint("RELEASE SAVEPOINT", name)?;
                self.on_joined(statement.sql).await?;
                if let Some(block) = self.session.transaction.block_mut() {
                    block.release(name);
                }
                self.release_cursors();
                self.client.complete("RELEASE");
                Ok(())
            }
            SessionStatement::RollbackToSavepoint(name) => {
                self.need_savepoint("ROLLBACK TO SAVEPOINT", name)?;
                self.on_joined(statement.sql).await?;
                if let Some(block) = self.session.transaction.block_mut()
                    && let Some(settings) = block.roll_back_to(name)
                {
                    self.session.settings = settings;
                }
                self.roll_back_cursors();
                // What was made since is gone, temporary tables among it.
                self.look_again().await;
                self.client.complete("ROLLBACK");
                Ok(())
            }
            SessionStatement::Set { name, value, local } => {
                Box::pin(self.set(name, value.as_deref(), *local, statement)).await
            }
            SessionStatement::SetTransaction { isolation } => {
                self.set_in_block("SET", *isolation, statement).await
            }
            SessionStatement::SetConstraints { named } => {
                if *named && !self.servers.iter().any(|server| server.joined) {
                    self.open_on_home().await?;
                }
                self.set_in_block("SET CONSTRAINTS", None, statement).await
            }
            SessionStatement::SetCharacteristics(settings) => {
                Box::pin(self.set_characteristics(settings, statement)).await
            }
            SessionStatement::Reset(Some(name)) => Box::pin(self.reset(name, "RESET", false)).await,
            SessionStatement::Reset(None) => {
                Box::pin(self.reset_all()).await?;
                self.client.complete("RESET");
                Ok(())
            }
            SessionStatement::Show(name) => Box::pin(self.show(name, statement)).await,
            SessionStatement::Discard(what) => Box::pin(self.discard(*what, statement)).await,
            SessionStatement::Prepare { name, types, statement: span } => {
                Box::pin(self.prepare_by_sql(name, types, *span, statement)).await
            }
            SessionStatement::Execute { name, arguments } => {
                Box::pin(self.execute_by_sql(name, arguments, statement)).await
            }
            SessionStatement::CreateAsExecute { create, name, arguments, data } => {
                Box::pin(self.create_as_execute(*create, name, arguments, *data, statement)).await
            }
            SessionStatement::Deallocate(name) => self.deallocate(name.as_deref()),
        }
    }

    async fn begin(
        &mut self,
        word: BeginWord,
        isolation: Option<Isolation>,
        modes: &str,
        sql: &str,
    ) -> Result<(), Failure> {
        let tag = match word {
            BeginWord::Begin => "BEGIN",
            BeginWord::StartTransaction => "START TRANSACTION",
        };
        match self.session.transaction.block().map(|block| block.implicit) {
            Some(implicit) => {
                if !implicit {
                    let notice =
                        ErrorInfo::new("25001", "there is already a transaction in progress");
                    self.notice("WARNING", &notice);
                }
                if !modes.is_empty() {
                    self.change_modes(&format!("SET TRANSACTION {modes}"), isolation).await?;
                }
                // BEGIN after other statements of one string turns its block into the client's.
                if let Some(block) = self.session.transaction.block_mut() {
                    block.implicit = false;
                }
            }
            None => {
                let settings = Rc::clone(&self.session.settings);
                let mut block = Block::new(sql, false, settings);
                block.isolation = isolation;
                if self.planning.consistency == ReadConsistency::Snapshot {
                    block.keep_snapshot();
                }
                self.session.transaction = Transaction::Open(Box::new(block));
            }
        }
        self.client.complete(tag);
        Ok(())
    }

    /// Says something beside the answer, if the session wants to hear it.
    pub(super) fn notice(&mut self, severity: &str, notice: &ErrorInfo) {
        let least = self.session.settings.word("client_min_messages").unwrap_or("notice");
        let wanted = match &*least.to_lowercase() {
            "error" | "fatal" | "panic" => false,
            "warning" => severity == "WARNING",
            _ => true,
        };
        if wanted {
            let from = self.client.out.len();
            backend::notice_response(&mut self.client.out, severity, notice);
            if let Some(encoding) = self.planning.encoding {
                encoding.encode_report(&mut self.client.out, from);
            }
        }
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
        self.on_joined(statement.sql).await?;
        let settings = Rc::clone(&self.session.settings);
        if let Some(block) = self.session.transaction.block_mut() {
            block.save(name, statement.sql, settings);
        }
        self.client.complete("SAVEPOINT");
        Ok(())
    }

    /// SET TRANSACTION and SET CONSTRAINTS: now where the transaction runs, later where it will.
    async fn set_in_block(
        &mut self,
        tag: &'static str,
        isolation: Option<Isolation>,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        if matches!(self.session.transaction, Transaction::Idle) {
            // A server has the warning for it.
            let at = self.server_for(self.any_shard()).await?;
            let mut reply = self.query(at, statement.sql).await?;
            self.pass_on_asides(at, &mut reply);
            self.client.complete(tag);
            return Ok(());
        }
        self.change_modes(statement.sql, isolation).await?;
        self.client.complete(tag);
        Ok(())
    }

    /// What a SET says of the open transaction: now where it runs, later where it will.
    async fn change_modes(
        &mut self,
        sql: &str,
        isolation: Option<Isolation>,
    ) -> Result<(), Failure> {
        self.on_joined(sql).await?;
        if let Some(block) = self.session.transaction.block_mut() {
            block.isolation = isolation.or(block.isolation);
            block.replay.push(Replay::Statement(sql.into()));
        }
        Ok(())
    }

    async fn open_on_home(&mut self) -> Result<(), Failure> {
        if matches!(self.session.transaction, Transaction::Idle) {
            return Ok(());
        }
        let home = self.server_for(self.planning.map.home).await?;
        self.join(home).await
    }

    /// Runs the statement on every shard that the transaction has joined; the client sees what one
    /// of them has to say beside.
    async fn on_joined(&mut self, sql: &str) -> Result<(), Failure> {
        let mut told = false;
        for at in 0..self.servers.len() {
            if self.servers[at].joined {
                let mut reply = self.query(at, sql).await?;
                if !std::mem::replace(&mut told, true) {
                    self.pass_on_asides(at, &mut reply);
                }
            }
        }
        Ok(())
    }
}

/// Whether PostgreSQL takes no snapshot for it.
fn is_before_query(session: &SessionStatement) -> bool {
    matches!(
        session,
        SessionStatement::Set { .. }
            | SessionStatement::SetTransaction { .. }
            | SessionStatement::SetConstraints { .. }
            | SessionStatement::SetCharacteristics(_)
            | SessionStatement::Reset(_)
            | SessionStatement::Show(_)
    )
}

/// Whether a statement that is not alone in its pipeline shares a transaction with its neighbours.
#[must_use]
pub fn runs_in_block(action: &Action) -> bool {
    match action {
        Action::Session(session) => matches!(
            session,
            SessionStatement::Set { .. }
                | SessionStatement::SetTransaction { .. }
                | SessionStatement::SetConstraints { .. }
                | SessionStatement::SetCharacteristics(_)
                | SessionStatement::Reset(_)
                | SessionStatement::Execute { .. }
                | SessionStatement::CreateAsExecute { .. }
        ),
        _ => true,
    }
}
