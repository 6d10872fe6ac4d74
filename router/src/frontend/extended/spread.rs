//! Messages of several shards, none of which waits for another: each shard gets all of its own in
//! one write and works at once; the replies are put back into the order of the messages.
//!
//! A shard may so have run a message that stands behind another's error. All of it is inside one
//! transaction that the error fails, so it is undone with everything since the last Sync.
//!
//! Only the shard whose reply is next is read; what others have to say waits in their sockets, so
//! memory does not grow with the results.

use std::io;
use std::task::Poll;

use bytes::{Buf, Bytes};
use pgherd_planner::{Access, StatementKind};
use pgherd_shard_map::ShardId;

use super::Op;
use super::send::Sent;
use crate::client::AHEAD_MAX;
use crate::error::{ErrorInfo, Failure};
use crate::executor::Conn;
use crate::pool::server::note_status;
use crate::wire::reply::{ReplyScanner, Step};
use crate::wire::{backend, frontend};

/// One shard's part of a pipeline.
struct Lane {
    shard: ShardId,
    at: usize,
    request: Vec<u8>,
    sent: usize,
    scanner: ReplyScanner,
    messages: Sent,
    /// ReadyForQuery has come.
    ended: bool,
    failed: bool,
}

/// How far a lane's replies have been taken.
enum Taken {
    /// As far as was asked.
    All,
    /// Its server must be read.
    More,
}

/// Whether messages of several shards may be sent at once: not where the client is to send data
/// in between.
pub(super) fn can_spread(ops: &[(Op, Option<ShardId>)]) -> bool {
    let copies = |op: &Op| {
        matches!(op, Op::Execute { portal, .. }
            if portal.statement.plan.kind == StatementKind::Copy)
    };
    !ops.iter().any(|(op, _)| copies(op))
}

impl Conn {
    /// Sends messages of several shards and passes the replies on in order. How many messages have
    /// been answered, and whether the next one's answer was an error.
    pub(super) async fn spread_ops(
        &mut self,
        ops: &[(Op, Option<ShardId>)],
        done: &mut usize,
    ) -> Result<bool, Failure> {
        let mut lanes = self.lanes(ops).await?;
        let started = self.worker.metrics.start();
        let mut result = Ok(false);
        for (_, shard) in ops {
            let Some(lane) = lanes.iter().position(|lane| Some(lane.shard) == *shard) else {
                continue;
            };
            result = self.answer_next(&mut lanes, lane).await;
            match result {
                Ok(false) => *done += 1,
                _ => break,
            }
        }
        if matches!(result, Ok(true) | Err(Failure::Shard(_))) {
            self.client.flush().await?;
        }
        if matches!(result, Err(Failure::ClientGone | Failure::Torn | Failure::Fatal(_))) {
            return result;
        }
        for lane in 0..lanes.len() {
            if let Err(failure) = self.end_lane(&mut lanes, lane).await {
                // The first failure is the pipeline's.
                if !matches!(result, Ok(true) | Err(_)) {
                    result = Err(failure);
                }
            }
        }
        for lane in &lanes {
            let server = &mut self.servers[lane.at];
            lane.messages.keep_statements(lane.scanner.parsed, server);
            self.keep_columns(lane.at, &lane.messages, &lane.scanner.described).await;
            self.forget_stale_statements(lane.at, lane.failed);
            if let Some(statement) = &lane.messages.ran {
                let sql = statement.sql.as_bytes();
                self.observe(&statement.plan, lane.shard, started, sql);
            }
        }
        if matches!(result, Ok(true))
            && let Some(block) = self.session.transaction.block_mut()
        {
            block.failed = true;
        }
        result
    }

    /// Checks a server out for each shard and writes down what it gets.
    async fn lanes(&mut self, ops: &[(Op, Option<ShardId>)]) -> Result<Vec<Lane>, Failure> {
        let mut lanes: Vec<Lane> = Vec::new();
        for (op, shard) in ops {
            let Some(shard) = *shard else { continue };
            let position = match lanes.iter().position(|lane| lane.shard == shard) {
                Some(position) => position,
                None => {
                    let at = self.server_for(shard).await?;
                    let mut request = Vec::new();
                    let mut scanner = ReplyScanner::default();
                    scanner.hidden = self.put_join(at, &mut request);
                    scanner.foreign = shard != self.planning.map.home;
                    lanes.push(Lane {
                        shard,
                        at,
                        request,
                        sent: 0,
                        scanner,
                        messages: Sent::default(),
                        ended: false,
                        failed: false,
                    });
                    lanes.len() - 1
                }
            };
            let lane = &mut lanes[position];
            let Lane { request, scanner, messages, .. } = lane;
            messages.put(op, &self.servers[lane.at], request, &mut scanner.expects);
            if let Op::Execute { portal, .. } = op {
                self.servers[lane.at].wrote |= portal.statement.plan.access != Access::Read;
            }
        }
        for lane in &mut lanes {
            lane.request.extend_from_slice(frontend::SYNC);
            if let Some(encoding) = self.servers[lane.at].encoding {
                lane.request = encoding.encode_messages(&lane.request)?.into_owned();
            }
            self.servers[lane.at].status = 0;
        }
        Ok(lanes)
    }

    /// Passes on the reply to the lane's next message. `true` when it was an error.
    async fn answer_next(&mut self, lanes: &mut [Lane], lane: usize) -> Result<bool, Failure> {
        let until = lanes[lane].scanner.done + 1;
        while let Taken::More = self.take_replies(&mut lanes[lane], Some(until)).await? {
            self.client.flush_if_high().await?;
            self.exchange(lanes, lane).await?;
        }
        Ok(lanes[lane].failed)
    }

    /// Reads the rest of a lane's replies, which nobody waits for.
    async fn end_lane(&mut self, lanes: &mut [Lane], lane: usize) -> Result<(), Failure> {
        while !lanes[lane].ended && !self.servers[lanes[lane].at].spoiled {
            if let Taken::More = self.take_replies(&mut lanes[lane], None).await? {
                self.exchange(lanes, lane).await?;
            }
        }
        Ok(())
    }

    /// Takes what has arrived from a lane's server: up to the end of its reply number `until`, or,
    /// unseen by the client, to the end of all.
    async fn take_replies(
        &mut self,
        lane: &mut Lane,
        until: Option<usize>,
    ) -> Result<Taken, Failure> {
        let mut failure = None;
        while failure.is_none() {
            let reached = until.is_some_and(|until| lane.scanner.done >= until);
            if lane.ended || lane.failed && until.is_some() || reached && lane.scanner.is_between()
            {
                return Ok(Taken::All);
            }
            let server = &mut self.servers[lane.at];
            let out = &mut self.client.out;
            let step = match lane.scanner.step(&server.inbuf) {
                Ok(step) => step,
                Err(error) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
                    return Err(self.lane_lost(lane, &error));
                }
            };
            let size = match step {
                Step::More => return Ok(Taken::More),
                Step::Insert(message) => {
                    if until.is_some() {
                        out.extend_from_slice(message);
                    }
                    0
                }
                Step::Pass(size) => {
                    if until.is_some() {
                        out.extend_from_slice(&server.inbuf[..size]);
                    }
                    size
                }
                Step::Columns(size) => {
                    if until.is_some() {
                        let frame = Bytes::copy_from_slice(&server.inbuf[..size]);
                        let frame = self.with_home_oids(lane.at, frame).await;
                        self.client.out.extend_from_slice(&frame);
                    }
                    size
                }
                Step::Parameter(size) | Step::HiddenParameter(size) => {
                    let seen = matches!(step, Step::Parameter(_)) && until.is_some();
                    let frame = &server.inbuf[..size];
                    note_status(&mut server.parameters, &mut server.encoding, frame);
                    if seen && self.session.is_news(frame, &server.parameters) {
                        out.extend_from_slice(frame);
                    }
                    size
                }
                Step::Error(size) => {
                    lane.failed = true;
                    if until.is_some() {
                        self.last_sqlstate = backend::sqlstate(&server.inbuf[..size]);
                        if self.cancel.is_deadlock(self.last_sqlstate) {
                            backend::error_response(out, "ERROR", &ErrorInfo::deadlock());
                        } else {
                            out.extend_from_slice(&server.inbuf[..size]);
                        }
                    }
                    size
                }
                Step::HiddenError(size) => {
                    server.spoiled = true;
                    failure = Some(Failure::Shard(server.inbuf[..size].to_vec().into()));
                    size
                }
                Step::Ready { size, status } => {
                    server.status = status;
                    lane.ended = true;
                    size
                }
                Step::News(size) => {
                    if self.kept.is_some() {
                        out.extend_from_slice(&server.inbuf[..size]);
                    }
                    size
                }
                Step::HiddenColumns(size) => {
                    lane.scanner.described.push(Bytes::copy_from_slice(&server.inbuf[..size]));
                    size
                }
                Step::Drop(size) | Step::HiddenReady { size, .. } => size,
                Step::CopyIn(_) => {
                    let error = io::Error::other("unexpected CopyInResponse");
                    return Err(self.lane_lost(lane, &error));
                }
            };
            self.servers[lane.at].inbuf.advance(size);
        }
        failure.map_or(Ok(Taken::More), Err)
    }

    /// Sends what is left to send, to all, and waits until the lane's server has said something.
    async fn exchange(&mut self, lanes: &mut [Lane], lane: usize) -> Result<(), Failure> {
        let Self { servers, client, .. } = self;
        let (position, result) = std::future::poll_fn(|cx| {
            for (position, other) in lanes.iter_mut().enumerate() {
                let server = &mut servers[other.at];
                while other.sent < other.request.len() && !server.spoiled {
                    match server.poll_write(cx, &other.request[other.sent..]) {
                        Poll::Ready(Ok(count)) if count > 0 => other.sent += count,
                        Poll::Ready(Ok(_)) => {
                            let error = io::ErrorKind::WriteZero.into();
                            return Poll::Ready((Some(position), Err(error)));
                        }
                        Poll::Ready(Err(error)) => {
                            return Poll::Ready((Some(position), Err(error)));
                        }
                        Poll::Pending => break,
                    }
                }
            }
            if let Poll::Ready(result) = servers[lanes[lane].at].poll_fill(cx) {
                return Poll::Ready((Some(lane), result));
            }
            if client.inbuf.len() < AHEAD_MAX
                && let Poll::Ready(result) = client.poll_fill(cx)
            {
                return Poll::Ready((None, result));
            }
            Poll::Pending
        })
        .await;
        match (position, result) {
            (_, Ok(count)) if count > 0 => Ok(()),
            (None, _) => Err(Failure::ClientGone),
            (Some(position), Ok(_)) => {
                let error = io::ErrorKind::UnexpectedEof.into();
                Err(self.lane_lost(&mut lanes[position], &error))
            }
            (Some(position), Err(error)) => Err(self.lane_lost(&mut lanes[position], &error)),
        }
    }

    fn lane_lost(&mut self, lane: &mut Lane, error: &io::Error) -> Failure {
        lane.ended = true;
        let torn = lane.scanner.in_frame();
        let failure = self.lost(lane.at, error);
        if torn { Failure::Torn } else { failure }
    }
}
