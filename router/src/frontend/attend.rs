//! Waiting for the client's next message, and minding meanwhile what else may come: notifications
//! and the end of a server that works for it, and the limits on how long a client may be idle.

use std::task::Poll;
use std::time::Duration;

use bytes::Buf;

use crate::error::{ErrorInfo, Failure};
use crate::executor::Conn;
use crate::pool::server::note_status;
use crate::session::Transaction;
use crate::wire::backend;

enum Event {
    Client(std::io::Result<usize>),
    /// This server, and how many bytes it sent.
    Server(usize, std::io::Result<usize>),
}

/// Errors that end a session for being idle: the client must see them as PostgreSQL's client does.
const IDLE: [[u8; 5]; 2] = [*b"25P03", *b"57P05"];

impl Conn {
    /// Reads from the client. Cancel safe but for what it says of servers.
    ///
    /// # Errors
    /// The client is gone, or was idle for too long, or lost the server that held its state.
    pub(super) async fn attend(&mut self) -> Result<(), Failure> {
        if !self.planning.is_of(&self.session.settings, &self.session.temporary) {
            self.refresh_planning();
        }
        if let Some(limit) = self.idle_limit() {
            return Box::pin(self.attend_within(limit)).await;
        }
        if self.servers.is_empty() {
            return Ok(self.client.fill().await?);
        }
        self.attend_all().await
    }

    /// What PostgreSQL's server minds where there is one: for the rest of the session's time, the
    /// router.
    fn idle_limit(&self) -> Option<Duration> {
        let [session, transaction] = self.planning.idle_limits;
        let limit = match &self.session.transaction {
            Transaction::Idle => session,
            Transaction::Open(_) if self.servers.iter().any(|server| server.joined) => None,
            Transaction::Open(_) => transaction,
        };
        limit.map(|limit| Duration::from_millis(limit.get().into()))
    }

    async fn attend_within(&mut self, limit: Duration) -> Result<(), Failure> {
        if let Ok(attended) = tokio::time::timeout(limit, self.attend_all()).await {
            return attended;
        }
        let (sqlstate, what) = match self.session.transaction {
            Transaction::Idle => ("57P05", "idle-session"),
            Transaction::Open(_) => ("25P03", "idle-in-transaction"),
        };
        let message = format!("terminating connection due to {what} timeout");
        Err(Failure::Fatal(ErrorInfo::new(sqlstate, message)))
    }

    async fn attend_all(&mut self) -> Result<(), Failure> {
        loop {
            let event = {
                let Self { client, servers, .. } = self;
                std::future::poll_fn(|cx| {
                    for (at, server) in servers.iter_mut().enumerate() {
                        if !server.ended
                            && let Poll::Ready(read) = server.poll_fill(cx)
                        {
                            return Poll::Ready(Event::Server(at, read));
                        }
                    }
                    client.poll_fill(cx).map(Event::Client)
                })
                .await
            };
            match event {
                Event::Client(Ok(count)) if count > 0 => return Ok(()),
                Event::Client(_) => return Err(Failure::ClientGone),
                Event::Server(at, read) => Box::pin(self.unasked(at, read)).await?,
            }
        }
    }

    /// A server speaks without having been asked: notifications, changed parameters, its end.
    async fn unasked(&mut self, at: usize, read: std::io::Result<usize>) -> Result<(), Failure> {
        let in_block = matches!(self.session.transaction, Transaction::Open(_));
        let server = &mut self.servers[at];
        loop {
            match server.buffered() {
                Ok(Some((tag @ (b'A' | b'N' | b'S'), size))) => {
                    let frame = &server.inbuf[..size];
                    let wanted = match tag {
                        b'S' => {
                            note_status(&mut server.parameters, &mut server.encoding, frame);
                            self.session.is_news(frame, &server.parameters)
                        }
                        b'A' => server.kept,
                        _ => true,
                    };
                    // Notifications come between transactions.
                    match tag {
                        b'A' if wanted && in_block => server.seldom.news.extend_from_slice(frame),
                        _ if wanted => self.client.out.extend_from_slice(frame),
                        _ => {}
                    }
                    server.inbuf.advance(size);
                }
                Ok(Some((b'E', size))) => {
                    let frame = &server.inbuf[..size];
                    if server.kept || IDLE.contains(&backend::sqlstate(frame)) {
                        self.client.out.extend_from_slice(frame);
                        server.spoiled = true;
                        self.client.flush().await?;
                        return Err(Failure::Torn);
                    }
                    // The next statement will meet it.
                    server.ended = true;
                    break;
                }
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => {
                    server.ended = true;
                    break;
                }
            }
        }
        server.ended |= !matches!(read, Ok(count) if count > 0);
        if server.ended && server.kept {
            server.spoiled = true;
            return Err(Failure::Fatal(ErrorInfo::new(
                "57P01",
                "terminating connection: the server that held this session's state is lost",
            )));
        }
        Ok(self.client.flush().await?)
    }
}
