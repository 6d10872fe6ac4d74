//! One client from its first byte to its last: handshake, then the loop that reads messages and
//! has them done.

mod extended;
mod handshake;
mod simple;

use handshake::Visit;
pub use handshake::cancel;

use std::net::TcpStream as StdTcpStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use tokio::net::TcpStream;

use crate::client::{Client, Socket};
use crate::console;
use crate::error::{ErrorInfo, Failure};
use crate::executor::Conn;
use crate::session::Transaction;
use crate::wire::{self, backend};
use crate::worker::Worker;
use crate::worker::seat::Doing;

/// Serves one client until it leaves. Never fails: what goes wrong is told to the client or ends
/// its connection.
pub async fn serve_client(worker: Rc<Worker>, stream: StdTcpStream) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let client = Client::new(Socket::Plain(stream));
    let mut conn = match Box::pin(handshake::handshake(client, Rc::clone(&worker))).await {
        Some(Visit::Session(conn)) => *conn,
        Some(Visit::Console(client, login)) => {
            let shared = Arc::clone(&worker.shared);
            return Box::pin(console::serve(client, shared, &login.user)).await;
        }
        None => return,
    };
    worker.metrics.client_connected();
    let present = Rc::clone(&conn.cancel);
    let ended = present.seat.sit(pin!(conn.serve())).await;
    let ended = ended.unwrap_or_else(|| Err(conn.sent_away()));
    conn.abandon();
    if let Err(Failure::Fatal(error)) = ended {
        Box::pin(say_goodbye(&mut conn.client, &error)).await;
    }
    worker.unregister(&conn.cancel);
    worker.metrics.client_left();
}

/// How long a client that ends by the router's will is waited for.
const GOODBYE: Duration = Duration::from_secs(5);

async fn say_goodbye(client: &mut Client, error: &ErrorInfo) {
    backend::error_response(&mut client.out, "FATAL", error);
    // It may be gone already, or read nothing; its connection ends either way.
    drop(tokio::time::timeout(GOODBYE, client.flush()).await);
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
            let frame = wire::whole(&self.client.inbuf)
                .map_err(|error| Failure::Fatal(ErrorInfo::protocol(error.to_string())))?;
            let Some((tag, size)) = frame else {
                if self.client.inbuf.is_empty() {
                    self.client.flush().await?;
                    self.client.rest();
                    self.cancel.seat.doing.set(match self.session.transaction {
                        Transaction::Idle => Doing::Idle,
                        Transaction::Open(_) => Doing::IdleInTransaction,
                    });
                }
                self.client.fill().await?;
                self.cancel.seat.doing.set(Doing::Active);
                continue;
            };
            let messages = &self.cancel.seat.messages;
            messages.set(messages.get() + 1);
            match tag {
                b'Q' => self.simple_query(size).await?,
                b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => self.pipeline().await?,
                b'X' => return Ok(()),
                // What is left of a COPY that has failed.
                b'd' | b'c' | b'f' => self.client.inbuf.advance(size),
                b'F' => {
                    self.client.inbuf.advance(size);
                    let error = ErrorInfo::new("0A000", "function call messages are not supported")
                        .hint("Call the function in a SELECT.");
                    self.tell(Failure::Statement(error))?;
                    self.ready();
                }
                _ => {
                    return Err(Failure::Fatal(ErrorInfo::protocol(format!(
                        "invalid frontend message type {tag}"
                    ))));
                }
            }
        }
    }

    /// Writes ReadyForQuery with the session's transaction status.
    fn ready(&mut self) {
        let status = self.session.transaction.status();
        backend::ready_for_query(&mut self.client.out, status);
    }

    /// Tells the client of a failed statement; what ends the connection is passed up.
    ///
    /// # Errors
    /// Failures that end the connection.
    fn tell(&mut self, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Statement(error) => {
                backend::error_response(&mut self.client.out, "ERROR", &error);
            }
            Failure::Shard(frame) => self.client.out.extend_from_slice(&frame),
            Failure::Told => {}
            Failure::ClientGone | Failure::Fatal(_) | Failure::Torn => return Err(failure),
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

    fn size_of_future<F>(_: impl Fn(Rc<Worker>, StdTcpStream) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_client_costs_two_kilobytes_of_task() {
        // Each of ten thousand idle clients holds one: what is seldom awaited must be boxed.
        let size = size_of_future(serve_client);
        assert!(size <= 2304, "{size} bytes");
    }
}
