//! The client's end of a session: its socket, what has been read of it and what is to be written.
//!
//! An idle client holds no buffer: memory is taken when bytes have arrived and given back when
//! they have been used up, to the next client of the same thread.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::error::ErrorInfo;
use crate::spool::Aside;
use crate::wire::backend;

/// How much is read at once.
const READ: usize = 8 * 1024;

/// While a client pipelines beyond this, it is not read: the statement in hand comes first.
pub const AHEAD_MAX: usize = 64 * 1024;

/// Router-made output is sent on at this size at the latest.
pub const OUT_HIGH: usize = 64 * 1024;

/// How long a client may take to read why it is sent away.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long, and how much, a client that was told to leave is still read.
const HANG_UP: Duration = Duration::from_secs(1);
const HANG_UP_BYTES: usize = 1 << 20;

/// Buffers of each kind that clients of this thread have given back.
const SPARE_MAX: usize = 64;

/// Larger output buffers are not kept.
const OUT_SPARE_MAX: usize = 4096;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static SPARE_OUT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Makes sure that `buffer` has memory, from a client that has none to say just now.
pub fn take_out(buffer: &mut Vec<u8>) {
    if buffer.capacity() == 0 {
        *buffer = SPARE_OUT.with_borrow_mut(Vec::pop).unwrap_or_default();
    }
}

/// Takes the memory of a buffer whose content is done with; one that has grown is dropped.
pub fn give_out_back(buffer: &mut Vec<u8>) {
    let mut buffer = std::mem::take(buffer);
    if (1..=OUT_SPARE_MAX).contains(&buffer.capacity()) {
        buffer.clear();
        SPARE_OUT.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(buffer);
            }
        });
    }
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

/// A connection as the acceptor hands it to a worker: not yet part of any runtime.
#[derive(Debug)]
pub enum Stream {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

pub enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

pub struct Client {
    socket: Socket,
    pub inbuf: BytesMut,
    pub out: Vec<u8>,
    /// A part of something has been written: the stream cannot be continued by anything else.
    pub writing: bool,
    /// How often something has left, for the client or for where its rows are set aside; modulo its
    /// size.
    pub sent: u16,
    /// Where what would be written goes instead, while rows are set aside.
    pub aside: Option<Box<Aside>>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Tls(_) => "Tls",
            Self::Unix(_) => "Unix",
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
        Self {
            socket,
            inbuf: BytesMut::new(),
            out: Vec::new(),
            writing: false,
            sent: 0,
            aside: None,
        }
    }

    /// Makes the connection a part of this thread's runtime.
    ///
    /// # Errors
    /// The runtime's.
    pub fn from_stream(stream: Stream) -> io::Result<Self> {
        Ok(Self::new(match stream {
            Stream::Tcp(stream) => Socket::Plain(TcpStream::from_std(stream)?),
            Stream::Unix(stream) => Socket::Unix(UnixStream::from_std(stream)?),
        }))
    }

    /// Encryption is offered over TCP only, as PostgreSQL does.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        matches!(self.socket, Socket::Plain(_))
    }

    /// The first byte, which stays to be read.
    ///
    /// # Errors
    /// The socket's; the end of the connection is one.
    pub async fn first_byte(&self) -> io::Result<u8> {
        let Socket::Plain(stream) = &self.socket else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut byte = [0];
        match stream.peek(&mut byte).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(byte[0]),
        }
    }

    /// Whether the TLS handshake has agreed on PostgreSQL's protocol (ALPN).
    #[must_use]
    pub fn names_our_protocol(&self) -> bool {
        matches!(&self.socket, Socket::Tls(stream)
            if stream.get_ref().1.alpn_protocol() == Some(crate::tls::server::ALPN))
    }

    /// The bare socket, for a TLS handshake.
    #[must_use]
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Where it comes from; nowhere by a Unix socket.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        let stream = match &self.socket {
            Socket::Plain(stream) => stream,
            Socket::Tls(stream) => stream.get_ref().0,
            Socket::Unix(_) => return None,
        };
        stream.peer_addr().ok()
    }

    /// Puts messages back before what has been read since.
    pub fn unread(&mut self, messages: &[u8]) {
        let mut all = BytesMut::with_capacity(messages.len() + self.inbuf.len());
        all.extend_from_slice(messages);
        all.extend_from_slice(&self.inbuf);
        self.inbuf = all;
    }

    /// Reads what has arrived; `0` is the end of the connection.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // A client that says nothing costs no buffer: its socket is asked first.
        match &self.socket {
            Socket::Plain(stream) => ready!(stream.poll_read_ready(cx))?,
            Socket::Unix(stream) => ready!(stream.poll_read_ready(cx))?,
            Socket::Tls(_) => {}
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
            Socket::Unix(stream) => {
                tokio_util::io::poll_read_buf(Pin::new(stream), cx, &mut self.inbuf)
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
        self.sent = self.sent.wrapping_add(1);
        if let Some(aside) = &mut self.aside {
            Box::pin(aside.take(bytes)).await;
            return Ok(());
        }
        let mut at = 0;
        self.writing = true;
        while at < bytes.len() {
            let written = std::future::poll_fn(|cx| match &mut self.socket {
                Socket::Plain(stream) => Pin::new(stream).poll_write(cx, &bytes[at..]),
                Socket::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, &bytes[at..]),
                Socket::Unix(stream) => Pin::new(stream).poll_write(cx, &bytes[at..]),
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

    /// Reads over so many bytes without keeping them. Cancel safe only as far as the caller
    /// forgets the rest.
    ///
    /// # Errors
    /// The end of the connection is an error.
    pub async fn skip(&mut self, mut size: usize) -> io::Result<()> {
        while size > 0 {
            if self.inbuf.is_empty() {
                self.fill().await?;
            }
            let piece = size.min(self.inbuf.len());
            self.inbuf.advance(piece);
            size -= piece;
        }
        Ok(())
    }

    /// Tells the client why its connection ends, and ends it.
    pub async fn dismiss(&mut self, error: &ErrorInfo) {
        self.aside = None;
        backend::error_response(&mut self.out, "FATAL", error);
        // The client may be gone, or read nothing; its connection ends either way.
        drop(tokio::time::timeout(GOODBYE, self.flush()).await);
        self.hang_up().await;
    }

    /// Ends the connection so that what was written last arrives: a socket that is closed with
    /// bytes unread takes back what the peer has not read yet. Reads for a moment, keeps nothing.
    async fn hang_up(&mut self) {
        let leaving = async {
            match &mut self.socket {
                Socket::Plain(stream) => stream.shutdown().await?,
                Socket::Tls(stream) => stream.shutdown().await?,
                Socket::Unix(stream) => stream.shutdown().await?,
            }
            let mut unread = 0;
            while unread < HANG_UP_BYTES {
                self.inbuf.clear();
                match std::future::poll_fn(|cx| self.poll_fill(cx)).await? {
                    0 => break,
                    count => unread += count,
                }
            }
            io::Result::Ok(())
        };
        // Whatever goes wrong, the connection ends.
        drop(tokio::time::timeout(HANG_UP, leaving).await);
    }

    /// Appends a command tag to what will be written.
    pub fn complete(&mut self, tag: &str) {
        backend::command_complete(&mut self.out, tag);
    }
}
