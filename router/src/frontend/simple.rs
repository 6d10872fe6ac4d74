//! The simple protocol: a Query message with one statement or several.

use std::borrow::Cow;

use bytes::Buf;
use pgherd_planner::{Action, NoParams, Scan, SessionStatement, scan};

use crate::error::{ErrorInfo, Failure};
use crate::executor::{Conn, Ready, Route, Statement};
use crate::session::Transaction;
use crate::wire::{HEADER, backend, frontend};

impl Conn {
    /// Runs the Query frame at the start of the client's buffer, ReadyForQuery included.
    pub(super) async fn simple_query(&mut self, size: usize) -> Result<(), Failure> {
        if !self.session.statements.is_empty() {
            // PostgreSQL forgets the unnamed statement with each Query.
            self.session.statements.remove(&b""[..]);
        }
        let fast = loop {
            self.refresh_planning();
            if self.must_look()
                && let Err(failure) = Box::pin(self.hold_message(b'Q', size)).await
            {
                break Fast::Failed(failure);
            }
            match self.try_fast(size).await? {
                Fast::Turned => {}
                fast => break fast,
            }
        };
        match fast {
            Fast::Done | Fast::Turned => Ok(()),
            Fast::Failed(failure) => {
                self.client.inbuf.advance(size);
                let failure = Box::pin(self.ask_postgres(failure)).await;
                self.tell(failure)?;
                Box::pin(self.end_simple()).await
            }
            Fast::Other => Box::pin(self.simple_slowly(size)).await,
        }
    }

    /// One statement for one shard: its frame is passed on as it is.
    async fn try_fast(&mut self, size: usize) -> Result<Fast, Failure> {
        // A block of the router's own is what came before in a pipeline: it ends with this.
        if self.session.transaction.block().is_some_and(|block| block.failed || block.implicit) {
            return Ok(Fast::Other);
        }
        let (plan, shard) = {
            let Ok(sql) = frontend::query(&self.client.inbuf[HEADER..size]) else {
                return Ok(Fast::Other);
            };
            if self.planning.encoding.is_some() && !sql.is_ascii() {
                return Ok(Fast::Other);
            }
            let mut scanned = self.worker.scan.borrow_mut();
            let end = scan(sql.as_bytes(), 0, self.planning.seed, &mut scanned);
            if end < sql.len() && !sql.as_bytes()[end..].iter().all(u8::is_ascii_whitespace) {
                return Ok(Fast::Other);
            }
            let plan = match self.find_plan(without_semicolon(sql), &scanned) {
                Ok(plan) => plan,
                Err(failure) => return Ok(Fast::Failed(failure.with_text(sql))),
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
        if self.is_planned_late() {
            self.release();
            return Ok(Fast::Turned);
        }
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        let hidden = self.put_join(at, &mut request);
        request.extend_from_slice(&self.client.inbuf[..size]);
        self.client.inbuf.advance(size);
        let started = self.worker.metrics.start();
        self.may_turn(at, hidden, 0);
        let end = self.relay(at, &request, hidden, Ready::Pass, &plan).await;
        if end.is_ok() && self.is_turned() {
            Box::pin(self.was_turned(at)).await;
            self.client.unread(&request[request.len() - size..]);
            return Ok(Fast::Turned);
        }
        // The client's own frame ends the request.
        let sql = &request[request.len() + HEADER - size..request.len() - 1];
        self.observe(&plan, shard, started, sql);
        self.keep_request(request);
        match end {
            Ok(_) => self.release(),
            Err(failure) => {
                self.tell(failure)?;
                Box::pin(self.end_simple()).await?;
            }
        }
        Ok(Fast::Done)
    }

    /// Several statements, or one that is more than a relay.
    async fn simple_slowly(&mut self, size: usize) -> Result<(), Failure> {
        let frame = self.client.inbuf.split_to(size).freeze();
        let body = match self.planning.encoding {
            None => Ok(Cow::Borrowed(&frame[HEADER..])),
            Some(encoding) => encoding.decode_message(b'Q', &frame[HEADER..]),
        };
        let result = match body.as_deref().map(frontend::query) {
            Ok(Ok(sql)) => self.run_string(sql).await,
            Ok(Err(error)) => Err(Failure::Statement(error.into())),
            Err(error) => Err(Failure::Statement(error.clone())),
        };
        if let Err(failure) = result {
            let failure = Box::pin(self.ask_postgres(failure)).await;
            self.tell(failure)?;
        }
        self.statement_at = Some(0);
        Box::pin(self.end_simple()).await
    }

    /// The statements of one string, in one implicit transaction if there are several.
    async fn run_string(&mut self, sql: &str) -> Result<(), Failure> {
        let mut scanned = Scan::default();
        let mut from = 0;
        let mut before = 0;
        let mut empty = true;
        let several = self.holds_several(sql);
        if several {
            self.check_syntax(sql).await?;
        }
        while from < sql.len() {
            self.refresh_planning();
            let end = scan(sql.as_bytes(), from, self.planning.seed, &mut scanned);
            let piece = &sql[from..end];
            let text = without_semicolon(piece);
            self.statement_at = Some(before);
            before += piece.chars().count() as u32;
            from = end;
            let plan =
                self.find_plan(text, &scanned).map_err(|failure| failure.with_text(piece))?;
            if matches!(plan.action, Action::Empty) {
                continue;
            }
            empty = false;
            self.refuse_if_failed(&plan.action)?;
            // Statements of one string share a transaction, unless they begin or end one.
            if several && !is_block_end(&plan.action) {
                self.open_implicit();
            }
            self.start_run();
            let statement = Statement {
                sql: text,
                written: Some(piece),
                plan: &plan,
                literals: &scanned.literals,
                portal: None,
                copies: None,
            };
            let ran = self.run_statement(statement).await;
            // One that has failed too: it may have been slow.
            self.observe_run(&plan, text.as_bytes());
            ran?;
        }
        if empty {
            self.client.out.extend_from_slice(backend::EMPTY_QUERY);
        }
        Ok(())
    }

    /// Whether there is more than one statement in a string.
    fn holds_several(&self, sql: &str) -> bool {
        let mut scanned = self.worker.scan.borrow_mut();
        let mut from = 0;
        let mut found = 0;
        while from < sql.len() && found < 2 {
            from = scan(sql.as_bytes(), from, 0, &mut scanned);
            found += u32::from(!scanned.is_empty());
        }
        found > 1
    }

    /// PostgreSQL reads a string of statements to its end before it runs the first: one that it
    /// cannot read keeps all of them from running. It alone can say so. A Parse of several
    /// statements is refused, but only after all of them have been read.
    async fn check_syntax(&mut self, sql: &str) -> Result<(), Failure> {
        let at = match self.servers.is_empty() {
            true => self.server_for(self.planning.map.home).await?,
            false => 0,
        };
        let server = &mut self.servers[at];
        let in_block = server.status == b'T';
        let mut request = Vec::new();
        if in_block {
            frontend::put_query(&mut request, "SAVEPOINT pgherd_syntax");
        }
        frontend::put_parse(&mut request, b"", sql, &[]);
        request.extend_from_slice(frontend::SYNC);
        if in_block {
            let back = "ROLLBACK TO SAVEPOINT pgherd_syntax; RELEASE SAVEPOINT pgherd_syntax";
            frontend::put_query(&mut request, back);
        }
        let mut refusal = None;
        let mut replies = server.send(&request).await;
        for round in 0..if in_block { 3 } else { 1 } {
            if replies.is_err() {
                break;
            }
            match self.servers[at].collect().await {
                Ok(reply) if round == u8::from(in_block) => refusal = reply.error,
                Ok(_) => {}
                Err(error) => replies = Err(error),
            }
        }
        if let Err(error) = replies {
            return Err(self.lost(at, &error));
        }
        if matches!(self.session.transaction, Transaction::Idle) {
            self.release();
        }
        let Some(frame) = refusal else {
            return Err(ErrorInfo::new(
                "0A000",
                "the statements of this string cannot be told apart",
            )
            .hint("Send them one by one.")
            .into());
        };
        // "cannot insert multiple commands": unlike a syntax error it has no position.
        let positioned = backend::report_field(&frame[HEADER..], b'P').is_some();
        if backend::sqlstate(&frame) == *b"42601" && !positioned {
            return Ok(());
        }
        Err(Failure::Shard(frame))
    }

    /// In a failed transaction only its end is accepted (25P02), and nothing at all.
    pub(super) fn refuse_if_failed(&self, action: &Action) -> Result<(), Failure> {
        let ends = matches!(
            action,
            Action::Empty
                | Action::Session(
                    SessionStatement::Commit { .. }
                        | SessionStatement::Rollback { .. }
                        | SessionStatement::RollbackToSavepoint(_)
                )
        );
        if self.session.transaction.failed() && !ends {
            return Err(ErrorInfo::failed_block().into());
        }
        Ok(())
    }

    /// Ends the router's own block, if one is open, and writes ReadyForQuery.
    pub(super) async fn end_simple(&mut self) -> Result<(), Failure> {
        if self.session.transaction.failed() {
            match self.cancel.deadlock.get() {
                true => Box::pin(self.give_way()).await,
                false => self.leave_failed().await,
            }
        }
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

/// BEGIN, COMMIT and ROLLBACK.
fn is_block_end(action: &Action) -> bool {
    matches!(
        action,
        Action::Session(
            SessionStatement::Begin { .. }
                | SessionStatement::Commit { .. }
                | SessionStatement::Rollback { .. }
        )
    )
}

enum Fast {
    Done,
    /// It is in the buffer still, or again: its rows move, or the map is another one.
    Turned,
    /// Nothing was sent; the frame is still in the buffer.
    Failed(Failure),
    Other,
}

/// The planner takes a statement without its semicolon.
fn without_semicolon(sql: &str) -> &str {
    let trimmed = sql.trim_end();
    trimmed.strip_suffix(';').unwrap_or(trimmed)
}
