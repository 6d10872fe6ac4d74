//! The hot path: one request to one server, its reply passed on in the pieces in which it comes.
//!
//! In the usual case that is one write and one read on the server's socket, one write on the
//! client's, and nothing else: no task switch, no timer, no allocation. The reply leaves from the
//! buffer that it was read into.

use std::borrow::Cow;
use std::io;
use std::task::Poll;

use bytes::{Buf, Bytes};
use pgherd_planner::{Access, Plan};

use super::Conn;
use super::turned::{TurnState, is_gate};
use crate::client::AHEAD_MAX;
use crate::error::{ErrorInfo, Failure};
use crate::pool::server::note_status;
use crate::pool::{DISMISSED, Server};
use crate::wire::frontend::{self, SHORT_MAX};
use crate::wire::reply::Step;
use crate::wire::{self, HEADER, backend};

/// Whether the client sees the ReadyForQuery that ends the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Pass,
    /// The reply is a part of what the client asked for; more follows.
    Keep,
    /// As `Keep`, and the client sees no message at all: its effect is what counts.
    Quiet,
}

#[derive(Debug, Clone, Copy)]
pub struct RelayEnd {
    /// Of ReadyForQuery.
    pub status: u8,
    /// An ErrorResponse was passed on.
    pub failed: bool,
}

enum Event {
    Server(io::Result<usize>),
    Client(io::Result<usize>),
    Written(io::Result<usize>),
}

impl Conn {
    /// Sends `request` to the server and passes its reply on. `hidden` replies come first and are
    /// not for the client. Not cancel safe.
    ///
    /// # Errors
    /// The client is gone, or the server's connection was lost.
    pub async fn relay(
        &mut self,
        at: usize,
        request: &[u8],
        hidden: u32,
        ready: Ready,
        plan: &Plan,
    ) -> Result<RelayEnd, Failure> {
        let request = match self.servers[at].encoding {
            None => Cow::Borrowed(request),
            Some(encoding) => encoding.encode_messages(request).inspect_err(|_| {
                // What was to be sent before it has not been sent either.
                self.servers[at].spoiled = true;
            })?,
        };
        self.scanner.hidden = hidden;
        self.scanner.foreign = self.servers[at].shard != self.planning.map.home;
        self.servers[at].status = 0;
        self.servers[at].wrote |= plan.access != Access::Read;
        if self.session.drawn.is_some() {
            self.note_home_write(plan);
        }
        let mut sent = 0;
        let mut failed = false;
        loop {
            let event = {
                let server = &mut self.servers[at];
                let client = &mut self.client;
                std::future::poll_fn(|cx| {
                    if sent < request.len()
                        && let Poll::Ready(result) = server.poll_write(cx, &request[sent..])
                    {
                        return Poll::Ready(Event::Written(result));
                    }
                    if let Poll::Ready(result) = server.poll_fill(cx) {
                        return Poll::Ready(Event::Server(result));
                    }
                    if client.inbuf.len() < AHEAD_MAX
                        && let Poll::Ready(result) = client.poll_fill(cx)
                    {
                        return Poll::Ready(Event::Client(result));
                    }
                    Poll::Pending
                })
                .await
            };
            match event {
                Event::Written(Ok(count)) => {
                    sent += count;
                    continue;
                }
                Event::Client(Ok(count)) if count > 0 => continue,
                Event::Client(_) => return Err(Failure::ClientGone),
                Event::Server(Ok(count)) if count > 0 => {}
                Event::Server(Ok(_)) => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(self.broken(at, &error));
                }
                Event::Server(Err(error)) | Event::Written(Err(error)) => {
                    return Err(self.broken(at, &error));
                }
            }
            match self.pass_on(at, ready, &mut failed).await? {
                Passed::More => {}
                Passed::CopyIn => {
                    if let Some(status) = self.feed_copy(at, ready, &mut failed).await? {
                        return Ok(self.relayed(at, status, failed));
                    }
                }
                Passed::Ready(status) => {
                    let end = self.relayed(at, status, failed);
                    if failed && self.cancel.deadlock.get() {
                        Box::pin(self.give_way()).await;
                    } else if failed && ready == Ready::Pass {
                        self.leave_failed().await;
                    }
                    return Ok(end);
                }
            }
        }
    }

    fn relayed(&mut self, at: usize, status: u8, failed: bool) -> RelayEnd {
        self.servers[at].status = status;
        if failed && let Some(block) = self.session.transaction.block_mut() {
            block.failed = true;
        }
        RelayEnd { status, failed }
    }

    /// Passes on what has arrived from the server, as far as it goes.
    async fn pass_on(
        &mut self,
        at: usize,
        ready: Ready,
        failed: &mut bool,
    ) -> Result<Passed, Failure> {
        let Self {
            client, servers, scanner, last_sqlstate, session, cancel, kept, turning, ..
        } = self;
        let Server { inbuf, parameters, encoding, shard, seldom, .. } = &mut servers[at];
        let mut from = 0;
        let mut to = 0;
        let mut passed = Passed::More;
        loop {
            let step = match scanner.step(&inbuf[to..]) {
                Ok(step) => step,
                Err(error) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
                    return Err(self.broken(at, &error));
                }
            };
            match step {
                Step::More => break,
                Step::Pass(size) if ready != Ready::Quiet => to += size,
                Step::Error(size)
                    if let Some(turning) = turning
                        && turning.state == TurnState::May
                        && is_gate(&inbuf[to..to + size]) =>
                {
                    turning.state = TurnState::Turned;
                    to += size;
                }
                Step::Error(size) => {
                    *failed = true;
                    *last_sqlstate = backend::sqlstate(&inbuf[to..to + size]);
                    if cancel.is_deadlock(*last_sqlstate) {
                        client.out.extend_from_slice(&inbuf[from..to]);
                        backend::error_response(&mut client.out, "ERROR", &ErrorInfo::deadlock());
                        from = to + size;
                    } else if *last_sqlstate == DISMISSED && self.worker.is_moving() {
                        // The end of the connection, which follows, is what the client is told.
                        client.out.extend_from_slice(&inbuf[from..to]);
                        from = to + size;
                        seldom.dismissed = true;
                    } else if self.statement_at != Some(0) {
                        client.out.extend_from_slice(&inbuf[from..to]);
                        let frame = &inbuf[to..to + size];
                        backend::put_moved_report(&mut client.out, frame, self.statement_at);
                        from = to + size;
                    }
                    to += size;
                }
                Step::Columns(size) if ready != Ready::Quiet => {
                    let frame = &mut inbuf[to..to + size];
                    let unknown = self.worker.oids.translate(*shard, frame);
                    if !unknown.is_empty() {
                        Box::pin(self.worker.find_oids(&self.planning.map, *shard, &unknown)).await;
                        self.worker.oids.translate(*shard, frame);
                    }
                    to += size;
                }
                Step::Parameter(size) | Step::HiddenParameter(size) => {
                    let frame = &inbuf[to..to + size];
                    note_status(parameters, encoding, frame);
                    let seen = matches!(step, Step::Parameter(_)) && ready != Ready::Quiet;
                    if !(seen && session.is_news(frame, parameters)) {
                        client.out.extend_from_slice(&inbuf[from..to]);
                        from = to + size;
                    }
                    to += size;
                }
                Step::Insert(message) => {
                    client.out.extend_from_slice(&inbuf[from..to]);
                    client.out.extend_from_slice(message);
                    from = to;
                }
                Step::Ready { size, status } if ready == Ready::Pass => {
                    to += size;
                    passed = Passed::Ready(status);
                    break;
                }
                Step::Ready { size, status } => {
                    client.out.extend_from_slice(&inbuf[from..to]);
                    to += size;
                    from = to;
                    passed = Passed::Ready(status);
                    break;
                }
                Step::CopyIn(size) => {
                    to += size;
                    passed = Passed::CopyIn;
                    break;
                }
                Step::HiddenError(size) => {
                    // The server could not join: what follows meets a failed or missing
                    // transaction, so its connection is not used again.
                    client.out.extend_from_slice(&inbuf[from..to]);
                    let frame = inbuf[to..to + size].to_vec();
                    servers[at].spoiled = true;
                    if let Some(block) = self.session.transaction.block_mut() {
                        block.failed = true;
                    }
                    return Err(Failure::Shard(frame.into()));
                }
                Step::News(size) => {
                    client.out.extend_from_slice(&inbuf[from..to]);
                    // A server that is not kept has nobody who listens.
                    if kept.is_some() {
                        client.out.extend_from_slice(&inbuf[to..to + size]);
                    }
                    to += size;
                    from = to;
                }
                Step::HiddenColumns(size) => {
                    scanner.described.push(Bytes::copy_from_slice(&inbuf[to..to + size]));
                    client.out.extend_from_slice(&inbuf[from..to]);
                    to += size;
                    from = to;
                }
                Step::Pass(size)
                | Step::Columns(size)
                | Step::Drop(size)
                | Step::HiddenReady { size, .. } => {
                    client.out.extend_from_slice(&inbuf[from..to]);
                    to += size;
                    from = to;
                }
            }
        }
        if let Some(turning) = turning {
            // Nobody hears of a statement that is run again. The replies to BEGIN and its kin come
            // before one that waits.
            let turned = turning.state == TurnState::Turned;
            if turned || from == to && client.out.len() == turning.out {
                client.out.truncate(turning.out);
                inbuf.advance(to);
                return Ok(passed);
            }
        }
        // What leaves now cannot be taken back.
        *turning = None;
        let keep = ready != Ready::Pass && matches!(passed, Passed::Ready(_));
        if client.out.is_empty() && from < to {
            client.write_all(&inbuf[from..to]).await?;
        } else {
            client.out.extend_from_slice(&inbuf[from..to]);
            if !keep || client.out.len() > crate::client::OUT_HIGH {
                client.flush().await?;
            }
        }
        inbuf.advance(to);
        Ok(passed)
    }

    /// A server's connection broke in the middle of a reply.
    fn broken(&mut self, at: usize, error: &io::Error) -> Failure {
        let torn = self.scanner.in_frame();
        self.scanner.reset();
        let failure = self.lost(at, error);
        if torn { Failure::Torn } else { failure }
    }

    /// The client's COPY data, passed on until it ends or fails. The status where the server has
    /// ended it with its ReadyForQuery already.
    async fn feed_copy(
        &mut self,
        at: usize,
        ready: Ready,
        failed: &mut bool,
    ) -> Result<Option<u8>, Failure> {
        let extended = self.session.in_pipeline;
        // One of several pieces of a pipeline, which ends with a Sync of the router's own.
        let part = extended && ready != Ready::Pass;
        loop {
            let mut done = false;
            let mut to = 0;
            while let Some((tag, size)) = wire::peek(&self.client.inbuf[to..])
                .map_err(|error| Failure::Fatal(ErrorInfo::protocol(error.to_string())))?
            {
                let whole = self.client.inbuf.len() - to >= size;
                match tag {
                    b'c' | b'f' | b'H' | b'S' if size > SHORT_MAX => {
                        return Err(Failure::Fatal(ErrorInfo::protocol("invalid message length")));
                    }
                    b'd' if whole => to += size,
                    b'd' if size <= HEADER + AHEAD_MAX => break,
                    // A piece of any size is passed on as it comes.
                    b'd' => {
                        let piece = self.client.inbuf.split_to(to);
                        self.send_to(at, &piece).await?;
                        to = 0;
                        self.stream_frame(at, size).await?;
                    }
                    _ if !whole => break,
                    b'c' | b'f' => {
                        to += size;
                        done = !extended || part;
                        self.session.copy_ended = true;
                    }
                    b'S' if extended && !part && (self.session.copy_ended || *failed) => {
                        to += size;
                        done = true;
                    }
                    b'H' | b'S' => {
                        let piece = self.client.inbuf.split_to(to);
                        self.send_to(at, &piece).await?;
                        self.client.inbuf.advance(size);
                        to = 0;
                    }
                    b'X' => return Err(Failure::ClientGone),
                    _ => {
                        return Err(Failure::Fatal(ErrorInfo::protocol(format!(
                            "unexpected message type 0x{tag:02X} during COPY from stdin"
                        ))));
                    }
                }
                if done {
                    break;
                }
            }
            let piece = self.client.inbuf.split_to(to);
            self.send_to(at, &piece).await?;
            if part && (done || *failed) {
                // The Sync behind the statement was a part of the data for the server, and the
                // client's next one ends the whole pipeline.
                self.send_to(at, frontend::SYNC).await?;
                self.session.copy_ended = true;
                return Ok(None);
            }
            if done {
                self.session.copy_ended = false;
                return Ok(None);
            }
            if self.server_spoke(at).await?
                && let Passed::Ready(status) = self.pass_on(at, ready, failed).await?
            {
                self.session.copy_ended = part;
                return Ok(Some(status));
            }
        }
    }

    /// Waits for the client's next bytes, or for the server: `true`, it has something to say.
    async fn server_spoke(&mut self, at: usize) -> Result<bool, Failure> {
        if matches!(self.servers[at].buffered(), Ok(Some(_))) {
            return Ok(true);
        }
        let Self { servers, client, .. } = self;
        let event = std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = servers[at].poll_fill(cx) {
                return Poll::Ready(Event::Server(result));
            }
            client.poll_fill(cx).map(Event::Client)
        })
        .await;
        match event {
            Event::Client(Ok(count)) if count > 0 => Ok(false),
            Event::Client(_) | Event::Written(_) => Err(Failure::ClientGone),
            Event::Server(Ok(count)) if count > 0 => Ok(true),
            Event::Server(Ok(_)) => {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                Err(self.broken(at, &error))
            }
            Event::Server(Err(error)) => Err(self.broken(at, &error)),
        }
    }

    async fn stream_frame(&mut self, at: usize, size: usize) -> Result<(), Failure> {
        let mut rest = size;
        while rest > 0 {
            if self.client.inbuf.is_empty() {
                self.client.fill().await?;
            }
            let piece = self.client.inbuf.split_to(rest.min(self.client.inbuf.len()));
            rest -= piece.len();
            self.send_to(at, &piece).await?;
        }
        Ok(())
    }

    async fn send_to(&mut self, at: usize, bytes: &[u8]) -> Result<(), Failure> {
        match self.servers[at].send_as_is(bytes).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(at, &error)),
        }
    }
}

enum Passed {
    More,
    CopyIn,
    Ready(u8),
}
