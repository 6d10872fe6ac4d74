//! A small blocking client that shows what a server really sent.
//!
//! Drivers hide type OIDs, formats, command tags and the transaction status; parity is about
//! exactly these. Logs in without a password only.

use std::fmt::Write as _;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Message, RowDescriptionBody};
use postgres_protocol::message::frontend;

/// A server that says nothing for so long has hung.
const SILENCE: Duration = Duration::from_secs(30);

/// How a statement is sent, and how its results come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The simple protocol.
    Simple,
    /// The extended protocol with results as text.
    Text,
    /// The extended protocol with results in binary.
    Binary,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Simple, Self::Text, Self::Binary];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }
}

/// All that came for one statement, in lines that can be compared and printed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Column descriptions, tags, errors, notices, in the order in which they came.
    pub lines: Vec<String>,
    /// Rows, one line each.
    pub rows: Vec<String>,
    /// The SQLSTATE of the first error.
    pub error: Option<String>,
    /// `I`, `T` or `E` after the statement.
    pub status: char,
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    received: BytesMut,
    address: SocketAddr,
    /// Process id and secret, for [`Self::cancel`].
    key: (i32, i32),
}

impl Client {
    /// Connects as `postgres`.
    ///
    /// # Errors
    /// The server is not there, or lets nobody in without a password.
    pub fn connect(address: SocketAddr, database: &str) -> Result<Self> {
        let mut client = Self::open(address, database)?;
        loop {
            match client.receive()? {
                Message::ReadyForQuery(_) => return Ok(client),
                Message::ErrorResponse(body) => {
                    return Err(Error::other(error_line("error", body.fields())?));
                }
                Message::BackendKeyData(key) => client.key = (key.process_id(), key.secret_key()),
                Message::AuthenticationOk
                | Message::ParameterStatus(_)
                | Message::NoticeResponse(_) => {}
                _ => return Err(Error::other("the server asks for a password")),
            }
        }
    }

    /// Connects and says who it is; what the server says to that is yet to be read.
    ///
    /// # Errors
    /// The server is not there.
    pub fn open(address: SocketAddr, database: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut client = Self { stream, received: BytesMut::new(), address, key: (0, 0) };
        let mut startup = BytesMut::new();
        let parameters =
            [("user", "postgres"), ("database", database), ("application_name", "parity")];
        frontend::startup_message(parameters, &mut startup)?;
        client.stream.write_all(&startup)?;
        Ok(client)
    }

    /// Runs one text in the simple protocol. `copy_in` is sent if the server asks for rows.
    ///
    /// # Errors
    /// The connection broke, or the server fell silent.
    pub fn simple(&mut self, sql: &str, copy_in: &str) -> Result<Answer> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        self.stream.write_all(&out)?;
        self.answer(copy_in)
    }

    /// The rows of a text that must succeed.
    ///
    /// # Panics
    /// It does not.
    pub fn ok(&mut self, sql: &str) -> Vec<String> {
        let answer = self.simple(sql, "").expect("an answer");
        assert_eq!(answer.error, None, "{sql}: {:?}", answer.lines);
        answer.rows
    }

    /// Sends a text in the simple protocol, and does not wait for its answer.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send(&mut self, sql: &str) -> Result<()> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        self.stream.write_all(&out)
    }

    /// The rest of what [`Self::send`] asked for.
    ///
    /// # Errors
    /// As [`Self::simple`].
    pub fn wait(&mut self) -> Result<Answer> {
        self.answer("")
    }

    /// Whether an answer begins to come within this time. A notification is none.
    ///
    /// # Errors
    /// The connection broke.
    pub fn answers_within(&mut self, time: Duration) -> Result<bool> {
        self.stream.set_read_timeout(Some(time))?;
        let answers = self.has_answer();
        self.stream.set_read_timeout(Some(SILENCE))?;
        answers
    }

    fn has_answer(&mut self) -> Result<bool> {
        loop {
            while let [b'A', a, b, c, d, ..] = self.received[..]
                && let size = 1 + u32::from_be_bytes([a, b, c, d]) as usize
                && size <= self.received.len()
            {
                self.received.advance(size);
            }
            if self.received.first().is_some_and(|tag| *tag != b'A') {
                return Ok(true);
            }
            let mut chunk = [0; 8192];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Error::other("the server closed the connection")),
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Rows for a COPY FROM STDIN, which stays open.
    ///
    /// # Errors
    /// The connection broke.
    pub fn copy_rows(&mut self, rows: &str) -> Result<()> {
        let mut out = BytesMut::new();
        frontend::CopyData::new(rows.as_bytes())?.write(&mut out);
        self.stream.write_all(&out)
    }

    /// Asks the server to cancel what this client runs.
    ///
    /// # Errors
    /// The server is not there.
    pub fn cancel(&self) -> Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        let mut out = BytesMut::new();
        frontend::cancel_request(self.key.0, self.key.1, &mut out);
        stream.write_all(&out)?;
        // It is closed when the request has been taken.
        stream.read(&mut [0; 1]).map(drop)
    }

    /// Runs one statement in the extended protocol, with parameters as text.
    ///
    /// # Errors
    /// As [`Self::simple`].
    pub fn extended(
        &mut self,
        sql: &str,
        parameters: &[Option<&str>],
        binary: bool,
    ) -> Result<Answer> {
        let mut out = BytesMut::new();
        frontend::parse("", sql, [], &mut out)?;
        if !parameters.is_empty() {
            frontend::describe(b'S', "", &mut out)?;
        }
        let write = |value: &Option<&str>, to: &mut BytesMut| {
            Ok(match value {
                Some(text) => {
                    to.extend_from_slice(text.as_bytes());
                    IsNull::No
                }
                None => IsNull::Yes,
            })
        };
        frontend::bind("", "", [0], parameters, write, [i16::from(binary)], &mut out)
            .map_err(|_| Error::other("the parameters do not fit into a message"))?;
        frontend::describe(b'P', "", &mut out)?;
        frontend::execute("", 0, &mut out)?;
        frontend::sync(&mut out);
        self.stream.write_all(&out)?;
        self.answer("")
    }

    /// Waits until the server closes the connection; the SQLSTATE that it gave as the reason.
    ///
    /// # Errors
    /// It gives none, or stays.
    pub fn farewell(&mut self) -> Result<String> {
        loop {
            if let Message::ErrorResponse(body) = self.receive()? {
                let code = field(body.fields(), b'C')?;
                if field(body.fields(), b'S')?.as_deref() == Some("FATAL") {
                    return code.ok_or_else(|| Error::other("an error without a code"));
                }
            }
        }
    }

    fn answer(&mut self, copy_in: &str) -> Result<Answer> {
        let mut answer = Answer::default();
        loop {
            match self.receive()? {
                Message::RowDescription(body) => answer.lines.push(columns(&body)?),
                Message::DataRow(body) => answer.rows.push(row(&body)?),
                Message::CommandComplete(body) => {
                    answer.lines.push(format!("tag: {}", body.tag()?));
                }
                Message::ErrorResponse(body) => {
                    let code = field(body.fields(), b'C')?;
                    answer.lines.push(error_line("error", body.fields())?);
                    answer.error = answer.error.or(code);
                }
                Message::NoticeResponse(body) => {
                    answer.lines.push(error_line("notice", body.fields())?);
                }
                Message::ParameterStatus(body) => {
                    answer.lines.push(format!("parameter: {} = {}", body.name()?, body.value()?));
                }
                Message::ParameterDescription(body) => {
                    let types: Vec<_> = body.parameters().collect()?;
                    answer.lines.push(format!("parameters: {types:?}"));
                }
                Message::EmptyQueryResponse => answer.lines.push("empty query".to_owned()),
                Message::NoData => answer.lines.push("no data".to_owned()),
                Message::PortalSuspended => answer.lines.push("portal suspended".to_owned()),
                Message::CopyInResponse(body) => {
                    let formats: Vec<_> = body.column_formats().collect()?;
                    answer.lines.push(format!("copy in: {} {formats:?}", body.format()));
                    self.send_copy(copy_in)?;
                }
                Message::CopyOutResponse(body) => {
                    let formats: Vec<_> = body.column_formats().collect()?;
                    answer.lines.push(format!("copy out: {} {formats:?}", body.format()));
                }
                Message::CopyData(body) => {
                    let line = String::from_utf8_lossy(body.data()).trim_end().to_owned();
                    answer.rows.push(format!("copied: {line}"));
                }
                Message::ReadyForQuery(body) => {
                    answer.status = char::from(body.status());
                    // Several at once have no order that is promised.
                    let parameter = |line: &String| line.starts_with("parameter: ");
                    for lines in answer.lines.chunk_by_mut(|a, b| parameter(a) && parameter(b)) {
                        lines.sort();
                    }
                    return Ok(answer);
                }
                Message::ParseComplete | Message::BindComplete | Message::CopyDone => {}
                _ => answer.lines.push("an unexpected message".to_owned()),
            }
        }
    }

    fn send_copy(&mut self, rows: &str) -> Result<()> {
        let mut out = BytesMut::new();
        if !rows.is_empty() {
            frontend::CopyData::new(rows.as_bytes())?.write(&mut out);
        }
        frontend::copy_done(&mut out);
        self.stream.write_all(&out)
    }

    fn receive(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = Message::parse(&mut self.received)? {
                return Ok(message);
            }
            let mut chunk = [0; 8192];
            let length = self.stream.read(&mut chunk).map_err(|error| match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    Error::other(format!("no answer for {SILENCE:?}"))
                }
                _ => error,
            })?;
            if length == 0 {
                return Err(Error::other("the server closed the connection"));
            }
            self.received.extend_from_slice(&chunk[..length]);
        }
    }
}

fn columns(body: &RowDescriptionBody) -> Result<String> {
    let mut line = "columns:".to_owned();
    let mut fields = body.fields();
    while let Some(field) = fields.next()? {
        let (name, oid, modifier) = (field.name(), field.type_oid(), field.type_modifier());
        // The oids of types that somebody made are each database's own.
        let _ = match oid {
            0..16384 => write!(line, " {name}:{oid}"),
            _ => write!(line, " {name}:own"),
        };
        if modifier != -1 {
            let _ = write!(line, "({modifier})");
        }
        line += if field.format() == 1 { "b" } else { "t" };
    }
    Ok(line)
}

/// Printable text as it is, everything else in hex.
fn row(body: &DataRowBody) -> Result<String> {
    let values: Vec<String> = body
        .ranges()
        .map(|range| {
            Ok(match range {
                None => "NULL".to_owned(),
                Some(range) => {
                    let bytes = &body.buffer()[range];
                    match std::str::from_utf8(bytes) {
                        Ok(text) if !text.chars().any(char::is_control) => format!("'{text}'"),
                        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                    }
                }
            })
        })
        .collect()?;
    Ok(format!("row: {}", values.join(" ")))
}

/// What a person or a driver acts upon; places in PostgreSQL's source are left out.
fn error_line(kind: &str, mut fields: ErrorFields<'_>) -> Result<String> {
    let mut line = format!("{kind}:");
    while let Some(field) = fields.next()? {
        let name = match field.type_() {
            b'S' | b'C' | b'M' => "",
            b'D' => "detail=",
            b'H' => "hint=",
            b'P' => "position=",
            b's' => "schema=",
            b't' => "table=",
            b'c' => "column=",
            b'n' => "constraint=",
            _ => continue,
        };
        let _ = write!(line, " {name}{}", String::from_utf8_lossy(field.value_bytes()));
    }
    Ok(line)
}

fn field(mut fields: ErrorFields<'_>, kind: u8) -> Result<Option<String>> {
    while let Some(field) = fields.next()? {
        if field.type_() == kind {
            return Ok(Some(String::from_utf8_lossy(field.value_bytes()).into_owned()));
        }
    }
    Ok(None)
}
