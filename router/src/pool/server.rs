//! One connection to a shard and what is known of its state.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use foldhash::{HashSet, HashSetExt};
use pgherd_shard_map::ShardId;
use tokio::io::AsyncWrite;

use crate::dial::Stream;
use crate::session::{Parameters, Settings, note_parameter};
use crate::telemetry::Traffic;
use crate::wire::encoding::{self, Encoding};
use crate::wire::{self, HEADER, backend};

/// How many statements a server keeps prepared before it is asked to forget all.
const STATEMENTS_MAX: usize = 1000;

/// How much is read at once. Rows leave in pieces of this size.
const READ: usize = 64 * 1024;

/// The most that a reply which the router itself needs may hold.
pub const COLLECT_MAX: usize = 256 << 20;

/// Of the error with which a session ends that somebody has ended.
pub const DISMISSED: [u8; 5] = *b"57P01";

pub struct Server {
    pub shard: ShardId,
    stream: Stream,
    pub inbuf: BytesMut,
    /// Of the last ReadyForQuery; `0` while a reply is outstanding.
    pub status: u8,
    pub statements: HashSet<u128>,
    pub settings: Rc<Settings>,
    pub seldom: Box<Seldom>,
    /// What ParameterStatus has said last of each.
    pub parameters: Parameters,
    /// Of the texts that it takes and sends, where that is not UTF-8: as `parameters` say.
    pub encoding: Option<&'static Encoding>,
    /// For CancelRequest, which goes to `Seldom::address`.
    pub pid: i32,
    pub secret: i32,
    /// The session that used it last, by its cancel key's number, and whether it did so before.
    pub last_user: u32,
    pub same_user: bool,
    /// A session may have called `nextval()` here, so that `currval()` knows its numbers.
    pub drew: bool,
    /// Numbers of a session before this one may still be here.
    pub others_numbers: bool,
    /// This transaction may have written here.
    pub wrote: bool,
    /// This transaction's BEGIN was sent here.
    pub joined: bool,
    /// It holds something of the session's: it stays with it, and is made clean before it is given
    /// back.
    pub kept: bool,
    /// A cancel was sent to it while it stayed with its session: it may still be on its way.
    pub cancelled: bool,
    /// It must forget its prepared statements before the next request: they are stale or too many.
    pub forget: bool,
    /// It was heard to end while nothing was asked of it: the next request will say so.
    pub ended: bool,
    /// Its state is not known or not wanted any more: it is closed when given back.
    pub spoiled: bool,
    pub opened: Instant,
    /// Not used when it is older: milliseconds, 0 for no limit.
    pub lifetime_ms: u32,
    /// See [`super::Pools::renew`].
    pub generation: u32,
    /// What no metric knows of yet: see [`super::Pools::count`].
    pub traffic: Traffic,
    /// It is no pool's. Boxed: every idle client has room for a server.
    pub apart: Option<Box<super::Apart>>,
}

/// An idle connection on its way to another thread.
pub struct Parcel {
    stream: std::net::TcpStream,
    shard: ShardId,
    statements: HashSet<u128>,
    settings: Settings,
    own_settings: Settings,
    last_user: u32,
    parameters: Vec<(Box<str>, Box<str>)>,
    address: SocketAddr,
    pid: i32,
    secret: i32,
    opened: Instant,
    lifetime_ms: u32,
    generation: u32,
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parcel").field("shard", &self.shard).field("pid", &self.pid).finish()
    }
}

/// What few statements look at: servers are moved about a lot, and every client has room for one.
#[derive(Debug)]
pub struct Seldom {
    pub address: SocketAddr,
    /// What it had when it was opened, or has after DISCARD ALL.
    pub own_settings: Rc<Settings>,
    /// Notifications that came within replies of the router's own, whole frames.
    pub news: Vec<u8>,
    /// A snapshot of an earlier time, and when it was taken: what became visible since then is new.
    pub earlier: Option<(Box<str>, Instant)>,
    /// When the last reply ended that was not only relayed.
    pub answered: Instant,
    /// Somebody has ended its session (57P01), and it was heard.
    pub dismissed: bool,
}

/// One reply that the router asked for itself, up to ReadyForQuery.
#[derive(Debug, Default)]
pub struct Reply {
    pub description: Option<Bytes>,
    /// The body of ParameterDescription.
    pub parameters: Option<Bytes>,
    /// Whole DataRow bodies.
    pub rows: Vec<Bytes>,
    pub tags: Vec<String>,
    /// The first ErrorResponse, a whole frame.
    pub error: Option<Bytes>,
    pub copy_data: Vec<Bytes>,
    /// Notices, whole frames: the client's to know where the statement was its own.
    pub notices: Vec<u8>,
    /// Of its texts, where that is not UTF-8.
    pub encoding: Option<&'static Encoding>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("shard", &self.shard).field("pid", &self.pid).finish()
    }
}

impl Server {
    #[must_use]
    pub fn new(shard: ShardId, stream: Stream, address: SocketAddr) -> Self {
        let opened = Instant::now();
        Self {
            shard,
            stream,
            inbuf: BytesMut::new(),
            status: 0,
            statements: HashSet::new(),
            settings: Rc::default(),
            seldom: Box::new(Seldom {
                address,
                own_settings: Rc::default(),
                news: Vec::new(),
                earlier: None,
                answered: opened,
                dismissed: false,
            }),
            parameters: Rc::default(),
            encoding: None,
            pid: 0,
            secret: 0,
            last_user: 0,
            same_user: false,
            drew: false,
            others_numbers: false,
            wrote: false,
            joined: false,
            kept: false,
            cancelled: false,
            forget: false,
            ended: false,
            spoiled: false,
            opened,
            lifetime_ms: 0,
            generation: 0,
            traffic: Traffic::default(),
            apart: None,
        }
    }

    /// Takes an idle connection off this thread.
    ///
    /// # Errors
    /// The runtime's: the connection is lost.
    pub fn pack(self) -> io::Result<Parcel> {
        Ok(Parcel {
            stream: self.stream.into_std()?,
            shard: self.shard,
            statements: self.statements,
            settings: (*self.settings).clone(),
            own_settings: (*self.seldom.own_settings).clone(),
            last_user: self.last_user,
            parameters: self.parameters.to_vec(),
            address: self.seldom.address,
            pid: self.pid,
            secret: self.secret,
            opened: self.opened,
            lifetime_ms: self.lifetime_ms,
            generation: self.generation,
        })
    }

    /// Puts it on this thread.
    ///
    /// # Errors
    /// The runtime's: the connection is lost.
    pub fn unpack(parcel: Parcel, intern: impl Fn(Settings) -> Rc<Settings>) -> io::Result<Self> {
        let stream = Stream::from_std(parcel.stream)?;
        let mut server = Self::new(parcel.shard, stream, parcel.address);
        server.status = b'I';
        server.statements = parcel.statements;
        server.settings = intern(parcel.settings);
        server.seldom.own_settings = intern(parcel.own_settings);
        server.last_user = parcel.last_user;
        server.drew = true;
        server.others_numbers = true;
        server.parameters = parcel.parameters.into();
        server.encoding = encoding_of(&server.parameters);
        server.pid = parcel.pid;
        server.secret = parcel.secret;
        server.opened = parcel.opened;
        server.lifetime_ms = parcel.lifetime_ms;
        server.generation = parcel.generation;
        Ok(server)
    }

    /// Whether it can serve another session as it is.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.spoiled
            && !self.ended
            && !self.kept
            && self.status == b'I'
            && !self.joined
            && self.inbuf.is_empty()
    }

    /// Whether it has served its time.
    #[must_use]
    pub fn is_old(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.opened).as_millis();
        self.lifetime_ms > 0 && age >= self.lifetime_ms.into()
    }

    /// Whether an idle connection is still open and has nothing to say. Costs no system call
    /// unless something has arrived.
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.poll_fill(&mut cx), Poll::Pending)
    }

    /// Reads what has arrived; `0` is the end of the connection.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // One allocation serves many reads: the buffer is reset when it has been used up.
        if self.inbuf.is_empty() && self.inbuf.capacity() < READ / 2 {
            self.inbuf = BytesMut::with_capacity(READ);
        } else if self.inbuf.capacity() - self.inbuf.len() < 4096 {
            self.inbuf.reserve(READ);
        }
        let stream = Pin::new(&mut self.stream);
        let read = tokio_util::io::poll_read_buf(stream, cx, &mut self.inbuf);
        if let Poll::Ready(Ok(count)) = read {
            self.traffic.received += count as u64;
        }
        read
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.traffic.sent += count as u64;
        }
        written
    }

    /// A reply has ended with this ReadyForQuery.
    pub fn ready(&mut self, frame: &[u8]) {
        self.status = frame.get(HEADER).copied().unwrap_or(0);
        self.note_answer();
    }

    /// How long after `started` its last reply ended, if it ended after it.
    #[must_use]
    pub fn answered_after(&self, started: Instant) -> Option<Duration> {
        self.seldom.answered.checked_duration_since(started)
    }

    /// A reply has ended: how long it took is of interest.
    pub fn note_answer(&mut self) {
        self.seldom.answered = Instant::now();
    }

    /// Says that nothing more will be asked: the server ends when it next reads.
    ///
    /// # Errors
    /// The socket's.
    pub async fn end_requests(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await
    }

    /// Reads what arrives next.
    ///
    /// # Errors
    /// The end of the connection is an error.
    pub async fn fill(&mut self) -> io::Result<()> {
        match std::future::poll_fn(|cx| self.poll_fill(cx)).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Sends whole messages, their statements in UTF-8.
    ///
    /// # Errors
    /// The socket's; `InvalidData` for a character that the server's encoding does not have.
    pub async fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        match self.encoding {
            None => self.send_as_is(messages).await,
            Some(encoding) => {
                let encoded = encoding.encode_messages(messages);
                let encoded = encoded
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.message))?;
                self.send_as_is(&encoded).await
            }
        }
    }

    /// Sends all of `bytes`, reading meanwhile so that neither side waits for the other.
    ///
    /// # Errors
    /// The socket's.
    pub async fn send_as_is(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.status = 0;
        let mut at = 0;
        while at < bytes.len() {
            at += std::future::poll_fn(|cx| match self.poll_write(cx, &bytes[at..]) {
                Poll::Pending if self.inbuf.len() < COLLECT_MAX => match self.poll_fill(cx) {
                    Poll::Ready(Ok(0)) => {
                        Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof)))
                    }
                    Poll::Ready(Ok(_)) => Poll::Ready(Ok(0)),
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                },
                other => other,
            })
            .await?;
        }
        // TLS may still hold a part; on a plain socket this is nothing.
        std::future::poll_fn(|cx| {
            let flushed = Pin::new(&mut self.stream).poll_flush(cx);
            if flushed.is_pending()
                && self.inbuf.len() < COLLECT_MAX
                && let Poll::Ready(read) = self.poll_fill(cx)
            {
                match read {
                    Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    Ok(_) => cx.waker().wake_by_ref(),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            flushed
        })
        .await
    }

    /// The next whole frame: its type and its bytes, header included.
    ///
    /// # Errors
    /// The socket's, or `InvalidData` for a malformed frame.
    pub async fn frame(&mut self) -> io::Result<(u8, Bytes)> {
        loop {
            if let Some((tag, size)) = self.buffered()? {
                return Ok((tag, self.inbuf.split_to(size).freeze()));
            }
            self.fill().await?;
        }
    }

    /// Type and size of a whole frame in the buffer.
    ///
    /// # Errors
    /// `InvalidData` for a malformed frame.
    pub fn buffered(&self) -> io::Result<Option<(u8, usize)>> {
        wire::whole(&self.inbuf)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    }

    /// Collects one reply up to ReadyForQuery.
    ///
    /// # Errors
    /// The socket's, or `InvalidData` when the reply is larger than [`COLLECT_MAX`].
    pub async fn collect(&mut self) -> io::Result<Reply> {
        let mut reply = Reply { encoding: self.encoding, ..Reply::default() };
        let mut size = 0;
        loop {
            let (tag, frame) = self.frame().await?;
            size += frame.len();
            if size > COLLECT_MAX {
                self.spoiled = true;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the reply is too large"));
            }
            match tag {
                b'Z' => {
                    self.ready(&frame);
                    return Ok(reply);
                }
                b'T' => reply.description = Some(frame),
                b't' => reply.parameters = Some(frame.slice(HEADER..)),
                b'D' => reply.rows.push(frame.slice(HEADER..)),
                b'd' => reply.copy_data.push(frame),
                b'S' => {
                    note_status(&mut self.parameters, &mut self.encoding, &frame);
                }
                b'C' => {
                    let tag = &frame[HEADER..frame.len() - 1];
                    reply.tags.push(String::from_utf8_lossy(tag).into_owned());
                }
                b'E' if reply.error.is_none() => {
                    self.seldom.dismissed |= backend::sqlstate(&frame) == DISMISSED;
                    reply.error = Some(frame);
                }
                b'N' => reply.notices.extend_from_slice(&frame),
                // Only a server that is kept listens; nobody else has news to come.
                b'A' if self.kept => self.seldom.news.extend_from_slice(&frame),
                b'G' => {
                    // Nobody has data for it: fail the COPY so that the reply can end.
                    self.send(&[b'f', 0, 0, 0, 5, 0]).await?;
                }
                _ => {}
            }
        }
    }

    /// Leaves the session that kept it: nothing of its stays. Not cancel safe.
    ///
    /// # Errors
    /// The socket's.
    pub async fn make_clean(&mut self) -> io::Result<()> {
        let reply = self.run("DISCARD ALL").await?;
        self.spoiled |= reply.error.is_some();
        self.settings = Rc::clone(&self.seldom.own_settings);
        self.statements.clear();
        self.seldom.news = Vec::new();
        self.kept = false;
        self.forget = false;
        Ok(())
    }

    /// Runs SQL of the router's own by the simple protocol.
    ///
    /// # Errors
    /// The socket's.
    pub async fn run(&mut self, sql: &str) -> io::Result<Reply> {
        let mut out = Vec::new();
        wire::frontend::put_query(&mut out, sql);
        self.send(&out).await?;
        self.collect().await
    }

    /// Whether one more statement may be prepared without first forgetting the others.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.statements.len() < STATEMENTS_MAX
    }
}

/// What a server says in a ParameterStatus.
pub fn note_status(
    parameters: &mut Parameters,
    encoding: &mut Option<&'static Encoding>,
    frame: &[u8],
) {
    if note_parameter(parameters, frame) {
        *encoding = encoding_of(parameters);
    }
}

/// What a server's parameters say.
fn encoding_of(parameters: &Parameters) -> Option<&'static Encoding> {
    let found = parameters.iter().find(|(name, _)| &**name == "client_encoding");
    found.and_then(|(_, value)| encoding::reported(value))
}

impl Reply {
    /// The first row's values, as text.
    #[must_use]
    pub fn first_row(&self) -> Vec<Option<String>> {
        self.rows.first().map(|row| self.row_text(row)).unwrap_or_default()
    }

    /// Every row's values, as text.
    pub fn text_rows(&self) -> impl Iterator<Item = Vec<Option<String>>> {
        self.rows.iter().map(|row| self.row_text(row))
    }

    /// The first column of the first row, as text.
    #[must_use]
    pub fn scalar(&self) -> Option<String> {
        let row = self.rows.first()?;
        let value = *backend::row_values(row).ok()?.first()?;
        value.map(|value| self.text(value))
    }

    fn row_text(&self, row: &Bytes) -> Vec<Option<String>> {
        let values = backend::row_values(row).unwrap_or_default();
        values.iter().map(|value| value.map(|value| self.text(value))).collect()
    }

    fn text(&self, value: &[u8]) -> String {
        match self.encoding {
            None => String::from_utf8_lossy(value).into_owned(),
            Some(encoding) => encoding.decode_lossy(value),
        }
    }
}
