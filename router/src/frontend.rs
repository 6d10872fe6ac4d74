//! One client from its first byte to its last: handshake, then the loop that reads messages and
//! has them done.

mod attend;
mod authenticate;
mod extended;
mod function;
mod handshake;
mod simple;

pub use handshake::cancel;

use std::pin::pin;
use std::rc::Rc;

use bytes::Buf;

use crate::client::{Client, Stream, give_out_back, take_out};
use crate::error::{ErrorInfo, Failure};
use crate::executor::Conn;
use crate::pool::DISMISSED;
use crate::session::Transaction;
use crate::wire::{self, backend, frontend};
use crate::worker::Worker;
use crate::worker::presence::{Doing, until_sent_away};

/// Serves one client until it leaves. Never fails: what goes wrong is told to the client or ends
/// its connection.
pub async fn serve_client(worker: Rc<Worker>, stream: Stream) {
    let Ok(client) = Client::from_stream(stream) else { return };
    let mut conn = match Box::pin(handshake::handshake(client, worker)).await {
        // Its box is freed here, not when the client leaves.
        Some(conn) => *conn,
        None => return,
    };
    conn.worker.metrics.client_connected();
    let ended = until_sent_away(Rc::clone(&conn.cancel), pin!(conn.serve())).await;
    let ended = ended.unwrap_or_else(|| Err(conn.sent_away()));
    conn.abandon();
    conn.worker.unregister(&conn.cancel);
    if let Err(Failure::Fatal(error)) = ended {
        Box::pin(conn.client.dismiss(&error)).await;
    }
    conn.worker.metrics.client_left();
}

/// What stands at the start of the client's buffer.
enum Arrived {
    /// No whole message yet.
    Part,
    /// Type and size.
    Whole(u8, usize),
    /// Its header; what follows is not to be kept: it is too long, or COPY data without a COPY.
    Unwanted(u8, usize),
}

impl Conn {
    /// Why the session ends although the client did not leave.
    fn sent_away(&self) -> Failure {
        if self.client.writing || self.scanner.in_frame() {
            return Failure::Torn;
        }
        let message = "terminating connection due to administrator command";
        Failure::Fatal(ErrorInfo::new("57P01", message))
    }

    /// Reads messages and answers them until the client leaves.
    async fn serve(&mut self) -> Result<(), Failure> {
        loop {
            // In a variable of its own, or room for it would be a part of every client's task.
            let arrived = self.arrived()?;
            let (tag, size) = match arrived {
                Arrived::Part => {
                    if self.client.inbuf.is_empty() {
                        self.client.flush().await?;
                        self.rest();
                    }
                    self.attend().await?;
                    self.wake();
                    continue;
                }
                Arrived::Unwanted(tag, size) => {
                    Box::pin(self.refuse_message(tag, size)).await?;
                    continue;
                }
                Arrived::Whole(tag, size) => (tag, size),
            };
            let messages = &self.cancel.presence.messages;
            messages.set(messages.get() + 1);
            match tag {
                b'Q' | b'F' if self.session.skip_to_sync => self.client.inbuf.advance(size),
                b'Q' => self.simple_query(size).await?,
                b'F' => Box::pin(self.function_call(size)).await?,
                b'X' => return Ok(()),
                // What is left of a COPY that has failed.
                b'c' | b'f' => self.client.inbuf.advance(size),
                _ => self.pipeline().await?,
            }
            if self.kept.as_ref().is_some_and(|kept| kept.lost) {
                return Err(Failure::Fatal(ErrorInfo::new(
                    "57P01",
                    "terminating connection: the server that held this session's state is lost",
                )));
            }
        }
    }

    /// Nothing to do until the client speaks: others may use its buffers.
    fn rest(&mut self) {
        give_out_back(&mut self.client.out);
        give_out_back(&mut self.request);
        self.cancel.presence.doing.set(match self.session.transaction {
            Transaction::Idle => Doing::Idle,
            Transaction::Open(_) => Doing::IdleInTransaction,
        });
    }

    fn wake(&mut self) {
        take_out(&mut self.client.out);
        take_out(&mut self.request);
        self.cancel.presence.doing.set(Doing::Active);
    }

    /// Looks at the header of the client's next message.
    ///
    /// # Errors
    /// The client cannot be followed any more: no such message, or none of this length.
    fn arrived(&self) -> Result<Arrived, Failure> {
        let fatal = |error: wire::Malformed| Failure::Fatal(error.into());
        let Some((tag, size)) = wire::peek(&self.client.inbuf).map_err(fatal)? else {
            return Ok(Arrived::Part);
        };
        match tag {
            b'Q' | b'P' | b'B' | b'F' if size > self.worker.shared.settings.message_max => {
                Ok(Arrived::Unwanted(tag, size))
            }
            b'd' => Ok(Arrived::Unwanted(tag, size)),
            b'D' | b'E' | b'C' | b'H' | b'S' | b'X' | b'c' | b'f' if size > frontend::SHORT_MAX => {
                Err(fatal(wire::Malformed::Rule("invalid message length")))
            }
            b'Q' | b'P' | b'B' | b'F' | b'D' | b'E' | b'C' | b'H' | b'S' | b'X' | b'c' | b'f' => {
                let whole = self.client.inbuf.len() >= size;
                Ok(if whole { Arrived::Whole(tag, size) } else { Arrived::Part })
            }
            _ => {
                let message = format!("invalid frontend message type {tag}");
                Err(Failure::Fatal(ErrorInfo::protocol(message)))
            }
        }
    }

    /// Reads over a message that is not kept, and says why.
    async fn refuse_message(&mut self, tag: u8, size: usize) -> Result<(), Failure> {
        self.client.skip(size).await?;
        if tag == b'd' || self.session.skip_to_sync {
            return Ok(());
        }
        let limit = self.worker.shared.settings.message_max;
        let error = ErrorInfo::new("54000", format!("a message of {size} bytes is too long"))
            .detail(format!("The router takes messages of up to {limit} bytes."))
            .hint(
                "COPY takes data of any length; max_message_size in the router's configuration \
                   sets the limit.",
            );
        self.tell(error.into())?;
        if matches!(tag, b'P' | b'B') {
            self.session.skip_to_sync = true;
            return Ok(());
        }
        self.end_simple().await
    }

    /// Writes ReadyForQuery with the session's transaction status.
    fn ready(&mut self) {
        self.report_parameters();
        let status = self.session.transaction.status();
        backend::ready_for_query(&mut self.client.out, status);
    }

    /// Tells the client of a failed statement; what ends the connection is passed up.
    ///
    /// # Errors
    /// Failures that end the connection.
    fn tell(&mut self, failure: Failure) -> Result<(), Failure> {
        let from = self.client.out.len();
        let own = !matches!(failure, Failure::Shard(_));
        match failure {
            Failure::Statement(mut error) => {
                error.position = error.position.zip(self.statement_at).map(|(at, by)| at + by);
                backend::error_response(&mut self.client.out, "ERROR", &error);
            }
            Failure::Refused(mut refused) => {
                refused.error.position =
                    refused.error.position.zip(self.statement_at).map(|(at, by)| at + by);
                backend::error_response(&mut self.client.out, "ERROR", &refused.error);
            }
            Failure::Shard(frame) if self.cancel.is_deadlock(backend::sqlstate(&frame)) => {
                backend::error_response(&mut self.client.out, "ERROR", &ErrorInfo::deadlock());
            }
            Failure::Shard(frame)
                if backend::sqlstate(&frame) == DISMISSED && self.worker.is_moving() =>
            {
                backend::error_response(&mut self.client.out, "ERROR", &ErrorInfo::moved_away());
            }
            Failure::Shard(frame) => {
                backend::put_moved_report(&mut self.client.out, &frame, self.statement_at);
            }
            Failure::Told => {}
            Failure::ClientGone | Failure::Fatal(_) | Failure::Torn => return Err(failure),
        }
        if let Some(encoding) = self.planning.encoding.filter(|_| own) {
            encoding.encode_report(&mut self.client.out, from);
        }
        self.worker.metrics.statement_failed();
        if let Some(block) = self.session.transaction.block_mut() {
            block.failed = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<F>(_: impl Fn(Rc<Worker>, Stream) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_client_costs_two_kilobytes_of_task() {
        // Each of ten thousand idle clients holds one: what is seldom awaited must be boxed.
        let size = size_of_future(serve_client);
        assert!(size <= 2200, "{size} bytes");
    }
}
