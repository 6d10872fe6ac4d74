//! The client's end of a session: its socket, what has been read of it and what is to be written.
//!
//! An idle client holds no buffer: memory is taken when bytes have arrived and given back when
//! they have been used up.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::wire::backend;

/// How much is read at once.
const READ: usize = 8 * 1024;

/// Router-made output is sent on at this size at the latest.
pub const OUT_HIGH: usize = 64 * 1024;

/// Read buffers that clients of this thread have given back.
const SPARE_MAX: usize = 64;

thread_local! {
    static SPARE: std::cell::RefCell<Vec<BytesMut>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn take_buffer() -> BytesMut {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| BytesMut::with_capacity(READ))
}

/// Keeps an empty buffer for the next client that speaks. One of which a part is still in use
/// elsewhere, or that has grown, is dropped.
fn give_back(mut buffer: BytesMut) {
    buffer.clear();
    if buffer.try_reclaim(READ) && buffer.capacity() <= 2 * READ {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(buffer);
            }
        });
    }
}

pub enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub struct Client {
    socket: Socket,
    pub inbuf: BytesMut,
    pub out: Vec<u8>,
    /// A part of something has been written: the stream cannot be continued by anything else.
    pub writing: bool,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Tls(_) => "Tls",
        })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("buffered", &self.inbuf.len()).finish_non_exhaustive()
    }
}

impl Client {
    #[must_use]
    pub fn new(socket: Socket) -> Self {
        Self { socket, inbuf: BytesMut::new(), out: Vec::new(), writing: false }
    }

    /// Where the client is.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Plain(stream) => stream.peer_addr().ok(),
            Socket::Tls(stream) => stream.get_ref().0.peer_addr().ok(),
        }
    }

    /// The bare socket, for a TLS handshake.
    #[must_use]
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Reads what has arrived; `0` is the end of the connection.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // A client that says nothing costs no buffer: its socket is asked first.
        if let Socket::Plain(stream) = &self.socket {
            ready!(stream.poll_read_ready(cx))?;
        }
        if self.inbuf.capacity() == 0 {
            self.inbuf = take_buffer();
        } else if self.inbuf.capacity() - self.inbuf.len() < 512 {
            self.inbuf.reserve(READ);
        }
        // `poll_read` takes a short read as the end of what has arrived, where `try_read` would
        // ask the kernel once more.
        match &mut self.socket {
            Socket::Plain(stream) => {
                tokio_util::io::poll_read_buf(Pin::new(stream), cx, &mut self.inbuf)
            }
            Socket::Tls(stream) => {
                tokio_util::io::poll_read_buf(Pin::new(&mut **stream), cx, &mut self.inbuf)
            }
        }
    }

    /// Waits for bytes. Cancel safe.
    ///
    /// # Errors
    /// The end of the connection is an error.
    pub async fn fill(&mut self) -> io::Result<()> {
        if self.inbuf.is_empty() {
            give_back(std::mem::take(&mut self.inbuf));
        }
        match std::future::poll_fn(|cx| self.poll_fill(cx)).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Writes what is in `out`. Not cancel safe.
    ///
    /// # Errors
    /// The socket's.
    pub async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let mut out = std::mem::take(&mut self.out);
        let result = self.write_all(&out).await;
        out.clear();
        if out.capacity() <= OUT_HIGH {
            self.out = out;
        }
        result
    }

    /// Sends `out` on when it has grown.
    ///
    /// # Errors
    /// The socket's.
    pub async fn flush_if_high(&mut self) -> io::Result<()> {
        if self.out.len() >= OUT_HIGH { self.flush().await } else { Ok(()) }
    }

    /// Writes all of `bytes`, past `out`. Not cancel safe: a part may have been written.
    ///
    /// # Errors
    /// The socket's.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut at = 0;
        self.writing = true;
        while at < bytes.len() {
            let written = std::future::poll_fn(|cx| match &mut self.socket {
                Socket::Plain(stream) => Pin::new(stream).poll_write(cx, &bytes[at..]),
                Socket::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, &bytes[at..]),
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            at += written;
        }
        if let Socket::Tls(stream) = &mut self.socket {
            std::future::poll_fn(|cx| Pin::new(&mut **stream).poll_flush(cx)).await?;
        }
        self.writing = false;
        Ok(())
    }

    /// Nothing to do until the client speaks: buffers that have grown are given back.
    pub fn rest(&mut self) {
        if self.out.capacity() > 1024 {
            self.out = Vec::new();
        }
    }

    /// Appends a command tag to what will be written.
    pub fn complete(&mut self, tag: &str) {
        backend::command_complete(&mut self.out, tag);
    }
}
