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

use std::rc::Rc;

use bytes::Buf;
use pgherd_planner::Action;
use pgherd_shard_map::ShardId;

use crate::error::{ErrorInfo, Failure};
use crate::executor::{Conn, Ready};
use crate::session::{Portal, Prepared};
use crate::wire;

/// One message of a pipeline.
#[derive(Debug)]
enum Op {
    Parse { statement: Rc<Prepared>, unnamed: bool },
    Bind { portal: Rc<Portal>, name: Box<[u8]> },
    DescribeStatement { statement: Rc<Prepared>, unnamed: bool },
    DescribePortal { portal: Rc<Portal>, name: Box<[u8]> },
    Execute { portal: Rc<Portal>, name: Box<[u8]>, limit: i32 },
    CloseStatement,
    ClosePortal { name: Box<[u8]> },
}

/// Messages of one pipeline at most; more are refused instead of buffered.
const OPS_MAX: usize = 100_000;

impl Conn {
    /// Reads messages up to Sync or Flush and runs them.
    pub(super) async fn pipeline(&mut self) -> Result<(), Failure> {
        if self.fast_pipeline().await? {
            return Ok(());
        }
        Box::pin(self.slow_pipeline()).await
    }

    async fn slow_pipeline(&mut self) -> Result<(), Failure> {
        let mut ops: Vec<(Op, Option<ShardId>)> = Vec::new();
        let mut failure = None;
        let sync = loop {
            let frame = wire::whole(&self.client.inbuf)
                .map_err(|error| Failure::Fatal(ErrorInfo::protocol(error.to_string())))?;
            let Some((tag, size)) = frame else {
                self.client.fill().await?;
                continue;
            };
            match tag {
                b'S' | b'H' => {
                    self.client.inbuf.advance(size);
                    break tag == b'S';
                }
                b'P' | b'B' | b'D' | b'E' | b'C' => {
                    let skipped = self.session.skip_to_sync || failure.is_some();
                    if !skipped {
                        if ops.len() >= OPS_MAX {
                            return Err(Failure::Fatal(ErrorInfo::new(
                                "54000",
                                "too many messages in one pipeline",
                            )));
                        }
                        self.refresh_planning();
                        match self.read_op(tag, size) {
                            Ok(op) => ops.push(op),
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
        let ran = self.run_pipeline(ops, failure, sync).await;
        self.session.in_pipeline = false;
        ran
    }

    async fn run_pipeline(
        &mut self,
        mut ops: Vec<(Op, Option<ShardId>)>,
        failure: Option<Failure>,
        sync: bool,
    ) -> Result<(), Failure> {
        place_parses(&mut ops);
        let one = match ops.first() {
            Some((_, Some(shard))) if failure.is_none() && sync => {
                ops.iter().all(|(_, other)| *other == Some(*shard)).then_some(*shard)
            }
            _ => None,
        };
        let implicit = self.session.transaction.block().is_some_and(|block| block.implicit);
        if let (Some(shard), false) = (one, implicit) {
            match self.send_ops(shard, &ops, Ready::Pass).await {
                Ok(_) => {
                    self.release();
                    return Ok(());
                }
                Err(failure) => self.tell(failure)?,
            }
            return Box::pin(self.end_pipeline(true)).await;
        }
        self.session.copy_ended = false;
        let ran = self.run_pieces(ops, sync).await;
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
        self.end_pipeline(sync).await
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
            self.release();
            self.ready();
        }
        self.client.flush().await?;
        Ok(())
    }

    /// Runs consecutive messages of one shard together, the router's own one by one.
    async fn run_pieces(
        &mut self,
        ops: Vec<(Op, Option<ShardId>)>,
        sync: bool,
    ) -> Result<(), Failure> {
        let executes = ops.iter().filter(|(op, _)| matches!(op, Op::Execute { .. })).count();
        let alone = executes <= 1 && sync;
        let mut at = 0;
        while at < ops.len() {
            let shard = ops[at].1;
            let end = match shard {
                None => at + 1,
                Some(_) => at + ops[at..].iter().take_while(|(_, other)| *other == shard).count(),
            };
            match shard {
                Some(shard) => {
                    let runs = ops[at..end].iter().any(|(op, _)| matches!(op, Op::Bind { .. }));
                    if runs && !alone {
                        self.open_implicit();
                    }
                    let ended = self.send_ops(shard, &ops[at..end], Ready::Keep).await?;
                    if ended {
                        return Err(Failure::Told);
                    }
                }
                None => {
                    let op = &ops[at].0;
                    let copy = matches!(op, Op::Execute { portal, .. }
                        if matches!(portal.statement.plan.action, Action::CopyIn(_)));
                    if copy && end < ops.len() {
                        let error =
                            ErrorInfo::protocol("unexpected message during COPY from stdin");
                        return Err(error.into());
                    }
                    self.run_op(op, alone).await?;
                }
            }
            at = end;
        }
        Ok(())
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
        if matches!(ops[at].0, Op::CloseStatement) {
            let neighbour =
                if at > 0 { ops[at - 1].1 } else { ops.get(at + 1).and_then(|op| op.1) };
            ops[at].1 = neighbour;
        }
    }
}
