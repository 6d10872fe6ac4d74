//! The simple protocol: a Query message with one statement or several.

use bytes::Buf;
use pgherd_planner::{Action, NoParams, Scan, SessionStatement, scan};

use crate::error::{ErrorInfo, Failure};
use crate::executor::{Conn, Ready, Route, Statement, runs_in_block};
use crate::session::Transaction;
use crate::wire::{HEADER, backend, frontend};

impl Conn {
    /// Runs the Query frame at the start of the client's buffer, ReadyForQuery included.
    pub(super) async fn simple_query(&mut self, size: usize) -> Result<(), Failure> {
        self.refresh_planning();
        match self.try_fast(size).await? {
            Fast::Done => Ok(()),
            Fast::Failed(failure) => {
                self.client.inbuf.advance(size);
                self.tell(failure)?;
                Box::pin(self.end_simple()).await
            }
            Fast::Other => Box::pin(self.simple_slowly(size)).await,
        }
    }

    /// One statement for one shard: its frame is passed on as it is.
    async fn try_fast(&mut self, size: usize) -> Result<Fast, Failure> {
        if self.session.transaction.failed() {
            return Ok(Fast::Other);
        }
        let (plan, shard) = {
            let Ok(sql) = frontend::query(&self.client.inbuf[HEADER..size]) else {
                return Ok(Fast::Other);
            };
            let mut scanned = self.worker.scan.borrow_mut();
            let end = scan(sql.as_bytes(), 0, self.planning.seed, &mut scanned);
            if end < sql.len() && !sql.as_bytes()[end..].iter().all(u8::is_ascii_whitespace) {
                return Ok(Fast::Other);
            }
            let plan = match self.find_plan(without_semicolon(sql), &scanned) {
                Ok(plan) => plan,
                Err(failure) => return Ok(Fast::Failed(failure)),
            };
            match self.route(&plan, sql, &scanned.literals, &NoParams) {
                Ok(Route::One(shard)) => (plan, shard),
                Ok(Route::Other) => return Ok(Fast::Other),
                Err(failure) => return Ok(Fast::Failed(failure)),
            }
        };
        let at = match self.server_for(shard).await {
            Ok(at) => at,
            Err(failure @ (Failure::Statement(_) | Failure::Shard(_))) => {
                return Ok(Fast::Failed(failure));
            }
            Err(failure) => return Err(failure),
        };
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        let hidden = self.put_join(at, &mut request);
        request.extend_from_slice(&self.client.inbuf[..size]);
        self.client.inbuf.advance(size);
        let started = self.worker.metrics.start();
        let end = self.relay(at, &request, hidden, Ready::Pass, &plan).await;
        match end {
            Ok(_) => {
                // The client's own frame ends the request.
                let sql = &request[request.len() + HEADER - size..request.len() - 1];
                self.observe(&plan, Some(shard), started, sql);
                self.keep_request(request);
                self.release();
            }
            Err(failure) => {
                self.keep_request(request);
                self.tell(failure)?;
                Box::pin(self.end_simple()).await?;
            }
        }
        Ok(Fast::Done)
    }

    /// Several statements, or one that is more than a relay.
    async fn simple_slowly(&mut self, size: usize) -> Result<(), Failure> {
        let frame = self.client.inbuf.split_to(size).freeze();
        let result = match frontend::query(&frame[HEADER..]) {
            Ok(sql) => self.run_string(sql).await,
            Err(error) => Err(Failure::Statement(ErrorInfo::protocol(error.to_string()))),
        };
        if let Err(failure) = result {
            self.tell(failure)?;
        }
        Box::pin(self.end_simple()).await
    }

    /// The statements of one string, in one implicit transaction if there are several.
    async fn run_string(&mut self, sql: &str) -> Result<(), Failure> {
        let mut scanned = Scan::default();
        let mut from = 0;
        let mut several = false;
        let mut empty = true;
        while from < sql.len() {
            self.refresh_planning();
            let end = scan(sql.as_bytes(), from, self.planning.seed, &mut scanned);
            let text = without_semicolon(&sql[from..end]);
            several |= end < sql.len();
            from = end;
            let plan = self.find_plan(text, &scanned)?;
            if matches!(plan.action, Action::Empty) {
                continue;
            }
            empty = false;
            self.refuse_if_failed(&plan.action)?;
            // Statements of one string share a transaction, unless they are transaction control
            // themselves.
            if several && runs_in_block(&plan.action) {
                self.open_implicit();
            }
            let started = self.worker.metrics.start();
            let statement =
                Statement { sql: text, plan: &plan, literals: &scanned.literals, portal: None };
            self.run_statement(statement).await?;
            self.observe(&plan, None, started, text.as_bytes());
        }
        if empty {
            self.client.out.extend_from_slice(backend::EMPTY_QUERY);
        }
        Ok(())
    }

    /// In a failed transaction only its end is accepted (25P02).
    pub(super) fn refuse_if_failed(&self, action: &Action) -> Result<(), Failure> {
        let ends = matches!(
            action,
            Action::Session(
                SessionStatement::Commit { .. }
                    | SessionStatement::Rollback { .. }
                    | SessionStatement::RollbackToSavepoint(_)
            )
        );
        if self.session.transaction.failed() && !ends {
            return Err(ErrorInfo::new(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            )
            .into());
        }
        Ok(())
    }

    /// Ends the router's own block, if one is open, and writes ReadyForQuery.
    async fn end_simple(&mut self) -> Result<(), Failure> {
        if let Err(failure) = self.end_implicit().await {
            self.tell(failure)?;
            self.end_implicit().await.or_else(|failure| self.tell(failure))?;
        }
        self.release();
        self.ready();
        self.client.flush().await?;
        Ok(())
    }

    /// Commits or rolls back a block that the router opened.
    pub(super) async fn end_implicit(&mut self) -> Result<(), Failure> {
        match &self.session.transaction {
            Transaction::Open(block) if block.implicit && block.failed => {
                self.roll_back_all().await;
                Ok(())
            }
            Transaction::Open(block) if block.implicit => self.commit_all().await,
            _ => Ok(()),
        }
    }
}

enum Fast {
    Done,
    /// Nothing was sent; the frame is still in the buffer.
    Failed(Failure),
    Other,
}

/// The planner takes a statement without its semicolon.
fn without_semicolon(sql: &str) -> &str {
    let trimmed = sql.trim_end();
    trimmed.strip_suffix(';').unwrap_or(trimmed)
}
