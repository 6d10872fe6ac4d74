//! The data of a COPY FROM STDIN on its way: the client, and every shard that takes part, are
//! listened to at once.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use pgherd_planner::CopyRows;

use super::{Placing, Stop, Target, report};
use crate::error::{ErrorInfo, Failure};
use crate::executor::{Conn, Statement};
use crate::pool::Server;
use crate::wire::{self, HEADER, backend};

/// Nothing is read from the client while a shard has so many bytes to take.
const QUEUE_HIGH: usize = 256 * 1024;

/// How much is read from the client at once.
const READ: usize = 64 * 1024;

/// The longest CopyFail message.
const FAIL_MAX: usize = 64 * 1024;

enum Event {
    Client,
    Server(usize),
    /// A queue has been emptied.
    Sent,
}

/// What the client's next bytes are.
enum Input {
    More,
    Data(Bytes),
    Done,
    Fail(Bytes),
}

/// How the client's data ended.
enum End {
    Done,
    Fail(Bytes),
    /// Its rows are not wanted any more.
    Stopped(Option<Stop>),
}

impl Conn {
    /// Waits for one shard's CopyInResponse.
    pub(super) async fn await_copy(
        &mut self,
        targets: &mut [Target],
        at: usize,
    ) -> Result<Bytes, Failure> {
        loop {
            if let Some(response) = &targets[at].response {
                return Ok(response.clone());
            }
            if targets[at].ended {
                return Err(targets[at].error.take().map_or(Failure::Torn, Failure::Shard));
            }
            self.copy_event(targets, false).await?;
        }
    }

    /// Waits for the end of the COPY on every shard that takes part.
    pub(super) async fn drain_copy(&mut self, targets: &mut [Target]) -> Result<(), Failure> {
        let open = |conn: &Self, target: &Target| {
            target.at.is_some_and(|at| {
                !conn.servers[at].spoiled && (!target.ended || target.waiting() > 0)
            })
        };
        while targets.iter().any(|target| open(self, target)) {
            self.copy_event(targets, false).await?;
        }
        Ok(())
    }

    /// Feeds the client's data to the shards and ends the COPY. Gives the number of rows.
    pub(super) async fn feed_copy_in(
        &mut self,
        placing: &mut Placing<'_>,
        statement: Statement<'_>,
    ) -> Result<u64, Failure> {
        // Bytes of the client's CopyData message at hand that are still to come.
        let mut rest = 0;
        let end = self.take_copy_data(placing, statement, &mut rest).await;
        let ended = match &end {
            Ok(end) => self.end_copy_in(placing, end).await,
            Err(_) => {
                self.give_up_copy(&placing.targets);
                Ok(())
            }
        };
        if !matches!(end, Err(Failure::ClientGone | Failure::Fatal(_) | Failure::Torn)) {
            self.skip_copy_data(rest).await?;
        }
        let end = end?;
        ended?;
        let failed_by_client = matches!(end, End::Fail(_));
        let stop = match end {
            End::Stopped(stop) => stop,
            End::Done | End::Fail(_) => None,
        };
        first_failure(placing, stop, failed_by_client)?;
        let mut rows = placing.targets.iter().map(|target| target.rows);
        Ok(match placing.copy.rows {
            CopyRows::Split { .. } => rows.sum(),
            CopyRows::Everywhere => rows.next().unwrap_or(0),
        })
    }

    async fn end_copy_in(&mut self, placing: &mut Placing<'_>, end: &End) -> Result<(), Failure> {
        for target in placing.targets.iter_mut().filter(|target| target.at.is_some()) {
            match end {
                End::Fail(why) => target.put_fail(why),
                // Also after an error: a shard may find an earlier one in what it has got.
                End::Done | End::Stopped(_) => target.put_done(),
            }
        }
        self.drain_copy(&mut placing.targets).await
    }

    /// What is left of the client's CopyData message at hand.
    async fn skip_copy_data(&mut self, mut rest: usize) -> Result<(), Failure> {
        while rest > 0 {
            if self.client.inbuf.is_empty() {
                self.client.fill().await?;
            }
            let size = rest.min(self.client.inbuf.len());
            self.client.inbuf.advance(size);
            rest -= size;
        }
        Ok(())
    }

    async fn take_copy_data(
        &mut self,
        placing: &mut Placing<'_>,
        statement: Statement<'_>,
        rest: &mut usize,
    ) -> Result<End, Failure> {
        let map = Arc::clone(&self.planning.map);
        loop {
            if placing.targets.iter().any(|target| target.error.is_some() || target.ended) {
                return Ok(End::Stopped(None));
            }
            let full = placing.targets.iter().any(|target| target.waiting() >= QUEUE_HIGH);
            let input = if full { Input::More } else { self.copy_input(rest)? };
            let mut end = None;
            let taken = match input {
                Input::More => {
                    self.client.flush_if_high().await?;
                    self.copy_event(&mut placing.targets, !full).await?;
                    continue;
                }
                Input::Data(data) => {
                    self.make_for(placing, &data).await?;
                    placing.take(&data, &map)
                }
                Input::Done => {
                    end = Some(End::Done);
                    self.make_for(placing, &[]).await?;
                    placing.finish(&map)
                }
                Input::Fail(why) => return Ok(End::Fail(why)),
            };
            if let Err(stop) = taken {
                end = Some(End::Stopped(Some(stop)));
            }
            for target in &mut placing.targets {
                if target.used && target.at.is_none() {
                    self.begin_copy(target, statement).await?;
                }
            }
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Takes what has arrived of the client's messages, in pieces of any size.
    fn copy_input(&mut self, rest: &mut usize) -> Result<Input, Failure> {
        let protocol = |text: String| Failure::Fatal(ErrorInfo::protocol(text));
        let inbuf = &mut self.client.inbuf;
        loop {
            if *rest > 0 {
                let size = (*rest).min(inbuf.len()).min(READ);
                if size == 0 {
                    return Ok(Input::More);
                }
                *rest -= size;
                return Ok(Input::Data(inbuf.split_to(size).freeze()));
            }
            let Some((tag, size)) =
                wire::peek(inbuf).map_err(|error| protocol(error.to_string()))?
            else {
                return Ok(Input::More);
            };
            match tag {
                b'd' => {
                    inbuf.advance(HEADER);
                    *rest = size - HEADER;
                }
                b'c' | b'f' | b'H' | b'S' if size > FAIL_MAX => {
                    return Err(protocol("invalid message length".into()));
                }
                b'c' | b'f' | b'H' | b'S' if inbuf.len() < size => return Ok(Input::More),
                b'c' => {
                    inbuf.advance(size);
                    return Ok(Input::Done);
                }
                b'f' => {
                    let why = inbuf.split_to(size).freeze().slice(HEADER..);
                    let end = why.iter().position(|byte| *byte == 0).unwrap_or(why.len());
                    return Ok(Input::Fail(why.slice(..end)));
                }
                b'H' | b'S' => inbuf.advance(size),
                b'X' => return Err(Failure::ClientGone),
                other => {
                    return Err(protocol(format!(
                        "unexpected message type 0x{other:02X} during COPY from stdin"
                    )));
                }
            }
        }
    }

    /// Sends what waits and takes what arrives, until something has changed.
    async fn copy_event(&mut self, targets: &mut [Target], feeding: bool) -> Result<(), Failure> {
        let Self { servers, client, .. } = self;
        let event = std::future::poll_fn(|cx| {
            for (position, target) in targets.iter_mut().enumerate() {
                let Some(at) = target.at.filter(|at| !servers[*at].spoiled) else { continue };
                let moved = match target.poll_exchange(cx, &mut servers[at]) {
                    Poll::Ready(Ok(Moved::Sent)) => Ok(Event::Sent),
                    Poll::Ready(Ok(Moved::Received)) => Ok(Event::Server(position)),
                    Poll::Ready(Err(error)) => Err(Some((at, position, error))),
                    Poll::Pending => continue,
                };
                return Poll::Ready(moved);
            }
            // Even while its rows are not wanted it may leave.
            if feeding || client.inbuf.len() < READ {
                client.inbuf.reserve(READ);
                if let Poll::Ready(result) = client.poll_fill(cx) {
                    let alive = matches!(result, Ok(count) if count > 0);
                    return Poll::Ready(if alive { Ok(Event::Client) } else { Err(None) });
                }
            }
            // Nothing more arrives now: rows wait no longer for others.
            let mut sealed = false;
            for target in targets.iter_mut().filter(|t| t.at.is_some() && t.message.is_some()) {
                target.seal();
                sealed = true;
            }
            if sealed { Poll::Ready(Ok(Event::Sent)) } else { Poll::Pending }
        })
        .await;
        match event {
            Ok(Event::Client | Event::Sent) => Ok(()),
            Ok(Event::Server(position)) => self.take_copy_replies(&mut targets[position]),
            Err(None) => Err(Failure::ClientGone),
            Err(Some((at, position, error))) => {
                targets[position].ended = true;
                self.give_up_copy(targets);
                Err(self.lost(at, &error))
            }
        }
    }

    /// Connections in the middle of a COPY are closed, which undoes their part.
    fn give_up_copy(&mut self, targets: &[Target]) {
        for at in targets.iter().filter(|t| !t.ended || t.waiting() > 0).filter_map(|t| t.at) {
            self.servers[at].spoiled = true;
        }
    }

    fn take_copy_replies(&mut self, target: &mut Target) -> Result<(), Failure> {
        let Some(at) = target.at else { return Ok(()) };
        loop {
            let server = &mut self.servers[at];
            let (tag, frame) = match server.buffered() {
                Ok(Some((tag, size))) => (tag, server.inbuf.split_to(size).freeze()),
                Ok(None) => return Ok(()),
                Err(error) => {
                    target.ended = true;
                    return Err(self.lost(at, &error));
                }
            };
            match tag {
                b'Z' if target.hidden > 0 => target.hidden -= 1,
                b'Z' => {
                    server.ready(&frame);
                    target.ended = true;
                }
                b'E' => {
                    // One that could not join the transaction is not used again.
                    server.spoiled |= target.hidden > 0;
                    target.ended |= target.hidden > 0;
                    target.error.get_or_insert(frame);
                }
                b'G' => target.response = Some(frame),
                b'C' if target.hidden == 0 => {
                    let text = frame.slice(HEADER..frame.len().max(HEADER + 1) - 1);
                    let tag = String::from_utf8_lossy(&text);
                    target.rows = backend::tag_count(&tag).unwrap_or(0);
                }
                b'N' if target.hidden == 0 => self.client.out.extend_from_slice(&frame),
                _ => {}
            }
        }
    }
}

enum Moved {
    Sent,
    Received,
}

impl Target {
    /// Sends whole messages from the queue, and reads what the shard says.
    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        server: &mut Server,
    ) -> Poll<io::Result<Moved>> {
        let end = self.message.unwrap_or(self.queue.len());
        while self.sent < end {
            match server.poll_write(cx, &self.queue[self.sent..end]) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(count)) => self.sent += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
            if self.sent == end {
                self.forget_sent();
                return Poll::Ready(Ok(Moved::Sent));
            }
        }
        if self.sent >= QUEUE_HIGH {
            self.forget_sent();
            return Poll::Ready(Ok(Moved::Sent));
        }
        if self.ended {
            return Poll::Pending;
        }
        match ready!(server.poll_fill(cx))? {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            _ => Poll::Ready(Ok(Moved::Received)),
        }
    }

    fn forget_sent(&mut self) {
        self.message = self.message.map(|start| start - self.sent);
        if self.sent == self.queue.len() && self.queue.capacity() > 4 * QUEUE_HIGH {
            self.queue = Vec::new();
        } else {
            self.queue.drain(..self.sent);
        }
        self.sent = 0;
    }
}

/// Of everything that was found wrong, what stands first in the client's data. Where a shard and
/// the router speak of one line, the shard's words are better.
fn first_failure(
    placing: &mut Placing<'_>,
    stop: Option<Stop>,
    failed_by_client: bool,
) -> Result<(), Failure> {
    let table = &placing.copy.table.name;
    let reached = placing.splitter.as_ref().map(|splitter| splitter.line() + 1);
    let mut first: Option<(u64, Failure)> = None;
    for target in &mut placing.targets {
        let Some(error) = target.error.take() else { continue };
        let cancelled = backend::report_field(&error[HEADER..], b'C') == Some("57014");
        let line_of = |line| match reached {
            None => Some(line),
            Some(reached) if failed_by_client && cancelled => Some(reached),
            Some(_) => target.lines.client_line(line),
        };
        let (line, frame) = report::with_client_line(error, table, line_of);
        let line = line.unwrap_or(u64::MAX);
        if first.as_ref().is_none_or(|(earlier, _)| line < *earlier) {
            first = Some((line, Failure::Shard(frame)));
        }
    }
    match (first, stop) {
        (Some((line, failure)), Some(stop)) if stop.sent || line <= stop.line => Err(failure),
        (_, Some(Stop { line, error, .. })) => {
            let context = format!("COPY {table}, line {line}");
            Err(Failure::Shard(report::error_frame(&error, &context)))
        }
        (Some((_, failure)), None) => Err(failure),
        (None, None) => Ok(()),
    }
}
