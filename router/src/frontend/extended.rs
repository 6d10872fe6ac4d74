//! The extended protocol: messages up to Sync or Flush are one pipeline.
//!
//! The usual pipeline, one statement for one shard, is recognized and sent on as it is (`fast`).
//! Of any other each message is read into an [`Op`] with the place where it must run (`read`).
//! If all belong to one shard, they are sent there in one write with the statements' names
//! replaced, and the reply is relayed (`send`). Else they are run piece by piece inside one
//! transaction, as PostgreSQL treats a pipeline: an error undoes all of it. What no single shard
//! can answer is the router's own work (`own`).

mod fast;
mod own;
mod read;
mod send;
mod spread;

use fast::Fast;
use send::Sending;
pub(super) use send::nothing_planned;

use std::rc::Rc;

use bytes::Buf;
use pgherd_planner::{Action, CursorStatement, SessionStatement};
use pgherd_shard_map::ShardId;

use super::Arrived;
use crate::error::{ErrorInfo, Failure};
use crate::executor::{Conn, Ready};
use crate::session::{Portal, Prepared};
use crate::wire::frontend::Named;
use crate::wire::{HEADER, frontend};

/// One message of a pipeline.
#[derive(Debug)]
enum Op {
    Parse {
        statement: Rc<Prepared>,
        unnamed: bool,
        name: Box<[u8]>,
        replaced: Option<Rc<Prepared>>,
    },
    Bind {
        portal: Rc<Portal>,
        name: Box<[u8]>,
    },
    DescribeStatement {
        statement: Rc<Prepared>,
        unnamed: bool,
    },
    DescribePortal {
        portal: Rc<Portal>,
        name: Box<[u8]>,
    },
    /// Of one that SQL has declared.
    DescribeCursor {
        name: Box<[u8]>,
    },
    Execute {
        portal: Rc<Portal>,
        name: Box<[u8]>,
        limit: i32,
    },
    CloseStatement {
        name: Box<[u8]>,
        closed: Option<Rc<Prepared>>,
    },
    ClosePortal {
        name: Box<[u8]>,
    },
}

/// Of a pipeline that goes on beyond so many messages, or bytes of them, these are run first.
const OPS_MAX: usize = 10_000;
const BYTES_MAX: usize = 1 << 20;

impl Conn {
    /// Reads messages up to Sync or Flush and runs them.
    pub(super) async fn pipeline(&mut self) -> Result<(), Failure> {
        loop {
            match self.fast_pipeline().await? {
                Fast::Done => return Ok(()),
                Fast::Other => return Box::pin(self.slow_pipeline()).await,
                Fast::Turned => {}
            }
        }
    }

    /// Whether names of statements, portals and cursors may mean something else after a message.
    fn changes_names(&self, op: &Op) -> bool {
        match op {
            Op::Execute { portal, .. } => matches!(
                &portal.statement.plan.action,
                Action::Cursor(CursorStatement::Declare(_) | CursorStatement::Close(_))
                    | Action::Session(
                        SessionStatement::Commit { .. }
                            | SessionStatement::Rollback { .. }
                            | SessionStatement::RollbackToSavepoint(_)
                            | SessionStatement::Prepare { .. }
                            | SessionStatement::Deallocate(_)
                            | SessionStatement::Discard(_)
                    )
            ),
            Op::ClosePortal { name } => self.has_cursor(name),
            _ => false,
        }
    }

    /// The statement that a message names, if its columns may be others than when it was prepared.
    fn stale_name(&self, tag: u8, size: usize) -> Option<Box<[u8]>> {
        let body = self.client.inbuf.get(HEADER..size)?;
        let name = match tag {
            b'B' => frontend::bind(body).ok()?.statement,
            b'D' => match frontend::named("DESCRIBE", body).ok()? {
                Named::Statement(name) => name,
                Named::Portal(_) => return None,
            },
            _ => return None,
        };
        let stale = !self.session.skip_to_sync && self.may_have_new_columns(name);
        stale.then(|| name.into())
    }

    async fn slow_pipeline(&mut self) -> Result<(), Failure> {
        let mut ops: Vec<(Op, Option<ShardId>)> = Vec::new();
        let mut failure = None;
        let mut bytes = 0;
        let mut names_change = false;
        // Kept only while rows move: they may have to go elsewhere.
        let mut kept = (!self.worker.map().moving.is_empty()).then(Vec::new);
        let sync = loop {
            if ops.len() >= OPS_MAX || bytes >= BYTES_MAX {
                break false;
            }
            let (tag, size) = match self.arrived()? {
                Arrived::Part => {
                    self.client.fill().await?;
                    continue;
                }
                // Run what came before it.
                Arrived::Unwanted(..) => break false,
                // What its names mean is known after what came before it.
                Arrived::Whole(tag, _) if names_change && !matches!(tag, b'S' | b'H') => {
                    break false;
                }
                Arrived::Whole(tag, size)
                    if !ops.is_empty()
                        && failure.is_none()
                        && self.stale_name(tag, size).is_some() =>
                {
                    break false;
                }
                Arrived::Whole(tag, size) => (tag, size),
            };
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(&self.client.inbuf[..size]);
            }
            match tag {
                b'S' | b'H' => {
                    let skipped = self.session.skip_to_sync && tag == b'H';
                    if let Err(error) = frontend::empty(&self.client.inbuf[HEADER..size])
                        && !skipped
                    {
                        failure.get_or_insert(Failure::Statement(error.into()));
                    }
                    self.client.inbuf.advance(size);
                    break tag == b'S';
                }
                b'P' | b'B' | b'D' | b'E' | b'C' => {
                    let skipped = self.session.skip_to_sync || failure.is_some();
                    if !skipped {
                        bytes += size;
                        self.refresh_planning();
                        if self.must_look()
                            && let Err(error) = Box::pin(self.hold_message(tag, size)).await
                        {
                            failure = Some(error);
                            self.client.inbuf.advance(size);
                            continue;
                        }
                        if let Some(name) = self.stale_name(tag, size)
                            && let Err(error) = Box::pin(self.keep_to_columns(&name)).await
                        {
                            failure = Some(error);
                            self.client.inbuf.advance(size);
                            continue;
                        }
                        match self.read_op(tag, size) {
                            Ok(op) => {
                                if let (Op::Parse { statement, .. }, _) = &op {
                                    self.learn_types(statement).await;
                                }
                                names_change = self.changes_names(&op.0);
                                ops.push(op);
                            }
                            Err(error) => failure = Some(error),
                        }
                    }
                    self.client.inbuf.advance(size);
                }
                // Anything else in mid-pipeline: run what came before it.
                _ => break false,
            }
        };
        self.session.in_pipeline = true;
        let ran = self.run_pipeline(ops, failure, sync, kept.is_some()).await;
        self.session.in_pipeline = false;
        if ran? == Sending::Turned {
            self.client.unread(kept.as_deref().unwrap_or_default());
        }
        Ok(())
    }

    async fn run_pipeline(
        &mut self,
        mut ops: Vec<(Op, Option<ShardId>)>,
        failure: Option<Failure>,
        sync: bool,
        again: bool,
    ) -> Result<Sending, Failure> {
        place_parses(&mut ops);
        let one = match ops.first() {
            Some((_, Some(shard))) if failure.is_none() && sync => {
                ops.iter().all(|(_, other)| *other == Some(*shard)).then_some(*shard)
            }
            _ => None,
        };
        let implicit = self.session.transaction.block().is_some_and(|block| block.implicit);
        if let (Some(shard), false) = (one, implicit) {
            match self.send_ops(shard, &ops, Ready::Pass, again).await {
                Ok(Sending::Turned) => {
                    self.forget_skipped(ops, 0);
                    return Ok(Sending::Turned);
                }
                Ok(sending) => {
                    if sending == Sending::Failed {
                        self.forget_skipped(ops, self.scanner.done);
                    }
                    self.release();
                    return Ok(sending);
                }
                Err(failure) => self.tell(failure)?,
            }
            Box::pin(self.end_pipeline(true)).await?;
            return Ok(Sending::Done);
        }
        self.session.copy_ended = false;
        let mut done = 0;
        let ends_well = sync && failure.is_none();
        let ran = self.run_pieces(&ops, ends_well, &mut done).await;
        if ran.is_err() {
            self.forget_skipped(ops, done);
        }
        // A Sync that came with a COPY FROM STDIN was a part of its data, as PostgreSQL has it.
        let sync = sync && !std::mem::take(&mut self.session.copy_ended);
        if let Err(failure) = ran {
            self.tell(failure)?;
            self.session.skip_to_sync = true;
        } else if let Some(failure) = failure {
            let failure = Box::pin(self.ask_postgres(failure)).await;
            self.tell(failure)?;
            self.session.skip_to_sync = true;
        }
        self.end_pipeline(sync).await?;
        Ok(Sending::Done)
    }

    /// Sync ends the router's own block; Flush only sends what there is.
    async fn end_pipeline(&mut self, sync: bool) -> Result<(), Failure> {
        if sync {
            if self.session.skip_to_sync
                && let Some(block) = self.session.transaction.block_mut()
            {
                block.failed = true;
            }
            self.session.skip_to_sync = false;
            if let Err(failure) = self.end_implicit().await {
                self.tell(failure)?;
            }
            if self.session.transaction.failed() {
                self.leave_failed().await;
            }
            self.release();
            self.ready();
        }
        self.client.flush().await?;
        Ok(())
    }

    /// Runs consecutive messages of shards together, the router's own one by one.
    async fn run_pieces(
        &mut self,
        ops: &[(Op, Option<ShardId>)],
        ends_well: bool,
        done: &mut usize,
    ) -> Result<(), Failure> {
        // An error behind an execution undoes it, so it may end its transaction itself only where no
        // error can come: it is the last of what is run here, and a Sync is behind it.
        let mut behind = ops.iter().skip_while(|(op, _)| !matches!(op, Op::Execute { .. })).skip(1);
        let alone = ends_well
            && behind
                .all(|(op, _)| matches!(op, Op::CloseStatement { .. } | Op::ClosePortal { .. }));
        while let Some((op, shard)) = ops.get(*done) {
            let rest = &ops[*done..];
            let Some(shard) = *shard else {
                let copy = matches!(op, Op::Execute { portal, .. }
                    if matches!(portal.statement.plan.action, Action::CopyIn(_)));
                if copy && rest.len() > 1 {
                    return Err(
                        ErrorInfo::protocol("unexpected message during COPY from stdin").into()
                    );
                }
                self.run_op(op, alone).await?;
                *done += 1;
                continue;
            };
            let of_shards = rest.iter().take_while(|(_, other)| other.is_some()).count();
            let of_one = rest.iter().take_while(|(_, other)| *other == Some(shard)).count();
            let spread = of_shards > of_one && spread::can_spread(&rest[..of_shards]);
            let piece = &rest[..if spread { of_shards } else { of_one }];
            if !alone && piece.iter().any(|(op, _)| matches!(op, Op::Bind { .. })) {
                self.open_implicit();
            }
            let failed = if spread {
                self.spread_ops(piece, done).await?
            } else {
                let failed =
                    self.send_ops(shard, piece, Ready::Keep, false).await? == Sending::Failed;
                *done += if failed { self.scanner.done } else { piece.len() };
                failed
            };
            if failed {
                return Err(Failure::Told);
            }
        }
        Ok(())
    }

    /// Messages from number `done` on have failed or were skipped: what reading them has changed is
    /// taken back. PostgreSQL has not seen them.
    fn forget_skipped(&mut self, ops: Vec<(Op, Option<ShardId>)>, done: usize) {
        let statements = &mut self.session.statements;
        for (number, (op, _)) in ops.into_iter().enumerate().skip(done).rev() {
            match op {
                Op::Parse { statement, name, replaced, .. } => {
                    if statements.get(&name).is_some_and(|known| Rc::ptr_eq(known, &statement)) {
                        statements.remove(&name);
                    }
                    // A Parse that fails has forgotten the unnamed statement before.
                    if let Some(replaced) = replaced.filter(|_| number > done) {
                        statements.insert(name, replaced);
                    }
                }
                Op::CloseStatement { name, closed: Some(closed) } => {
                    statements.insert(name, closed);
                }
                Op::Bind { portal, name } => {
                    let portals = &mut self.session.portals;
                    if portals.get(&name).is_some_and(|known| Rc::ptr_eq(known, &portal)) {
                        portals.remove(&name);
                    }
                }
                _ => {}
            }
        }
    }
}

/// A Parse goes where its statement's first Bind in the same pipeline goes.
fn place_parses(ops: &mut [(Op, Option<ShardId>)]) {
    for at in 0..ops.len() {
        let (Op::Parse { statement, .. } | Op::DescribeStatement { statement, .. }) = &ops[at].0
        else {
            continue;
        };
        let bound = ops[at..].iter().find_map(|(op, shard)| match op {
            Op::Bind { portal, .. } if Rc::ptr_eq(&portal.statement, statement) => Some(*shard),
            _ => None,
        });
        match bound {
            Some(Some(shard)) => ops[at].1 = Some(shard),
            // Its execution is the router's work, which parses it anew on each shard.
            Some(None) if matches!(ops[at].0, Op::Parse { .. }) => ops[at].1 = None,
            _ => {}
        }
    }
    // A Close of a statement is answered by the router, in its place: it goes with its neighbour.
    for at in 0..ops.len() {
        if matches!(ops[at].0, Op::CloseStatement { .. }) {
            let neighbour =
                if at > 0 { ops[at - 1].1 } else { ops.get(at + 1).and_then(|op| op.1) };
            ops[at].1 = neighbour;
        }
    }
}
