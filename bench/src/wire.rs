//! A PostgreSQL client that is as thin as possible, so that what is measured is the other side.
//!
//! It speaks over a blocking socket, one request at a time, and throws rows away unread: replies
//! are followed by the five header bytes of each message.

mod replies;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio_postgres::config::Host;

use replies::Replies;

/// A server that says nothing for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);

/// As psql and libpq send it, more or less.
const COPY_PIECE: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    replies: Replies,
    output: BytesMut,
    input: Box<[u8]>,
}

impl Connection {
    /// Connects and logs in: trust, a cleartext password, or SCRAM-SHA-256; no TLS.
    ///
    /// # Errors
    /// Why not; a server's own message where there is one.
    pub(crate) fn open(dsn: &str) -> Result<Self, String> {
        let config: tokio_postgres::Config =
            dsn.parse().map_err(|error| format!("the DSN {dsn}: {error}"))?;
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            _ => return Err(format!("the DSN {dsn} names no TCP host")),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let stream = TcpStream::connect((host.as_str(), port))
            .map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?;
        let setup = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(SILENCE)))
            .and_then(|()| stream.set_write_timeout(Some(SILENCE)));
        setup.map_err(|error| format!("cannot set up the socket: {error}"))?;
        let mut connection = Self {
            stream,
            replies: Replies::default(),
            output: BytesMut::new(),
            input: vec![0; 16 * 1024].into_boxed_slice(),
        };
        connection.log_in(&config)?;
        Ok(connection)
    }

    fn log_in(&mut self, config: &tokio_postgres::Config) -> Result<(), String> {
        let user = config.get_user().unwrap_or("postgres");
        let database = config.get_dbname().unwrap_or(user);
        let password = || config.get_password().ok_or("the server asks for a password");
        frontend::startup_message([("user", user), ("database", database)], &mut self.output)
            .map_err(io_error)?;
        let mut received = BytesMut::new();
        let mut scram: Option<ScramSha256> = None;
        loop {
            self.flush()?;
            match self.next_message(&mut received)? {
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password()?, &mut self.output).map_err(io_error)?;
                }
                Message::AuthenticationSasl(_) => {
                    let exchange = ScramSha256::new(password()?, ChannelBinding::unsupported());
                    frontend::sasl_initial_response(
                        SCRAM_SHA_256,
                        exchange.message(),
                        &mut self.output,
                    )
                    .map_err(io_error)?;
                    scram = Some(exchange);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let exchange = scram.as_mut().ok_or("SCRAM was not begun")?;
                    exchange.update(body.data()).map_err(io_error)?;
                    frontend::sasl_response(exchange.message(), &mut self.output)
                        .map_err(io_error)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let exchange = scram.as_mut().ok_or("SCRAM was not begun")?;
                    exchange.finish(body.data()).map_err(io_error)?;
                }
                Message::ReadyForQuery(_) => return Ok(()),
                Message::AuthenticationMd5Password(_)
                | Message::AuthenticationGss
                | Message::AuthenticationSspi
                | Message::AuthenticationKerberosV5
                | Message::AuthenticationScmCredential => {
                    return Err("this server's way of logging in is not supported".to_owned());
                }
                _ => {}
            }
        }
    }

    /// A message of the log-in; the server's refusal is an error.
    fn next_message(&mut self, received: &mut BytesMut) -> Result<Message, String> {
        loop {
            // The parser consumes what it parses, and keeps an error's fields to itself.
            let refusal = received.starts_with(b"E").then(|| received.clone());
            if let Some(message) = Message::parse(received).map_err(io_error)? {
                return match refusal {
                    Some(frame) => Err(replies::error_text(frame.get(5..).unwrap_or_default())),
                    None => Ok(message),
                };
            }
            let length = self.receive()?;
            received.extend_from_slice(&self.input[..length]);
        }
    }

    /// Runs one request in the simple protocol and waits for its end.
    ///
    /// # Errors
    /// The server's message, or that of the socket.
    pub(crate) fn query(&mut self, sql: &str) -> Result<(), String> {
        self.start_query(sql)?;
        self.finish()
    }

    /// Sends a request; its reply is then taken by [`Self::read_some`].
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn start_query(&mut self, sql: &str) -> Result<(), String> {
        frontend::query(sql, &mut self.output).map_err(io_error)?;
        self.flush()
    }

    /// Runs a `COPY … FROM STDIN` with all of its data.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub(crate) fn copy_in(&mut self, sql: &str, data: &[u8]) -> Result<(), String> {
        self.start_query(sql)?;
        while !self.replies.take_copy() {
            if self.read_some()?.1 {
                return Err(format!("{sql} asks for no data"));
            }
        }
        for piece in data.chunks(COPY_PIECE) {
            let message = frontend::CopyData::new(piece).map_err(io_error)?;
            message.write(&mut self.output);
            self.flush()?;
        }
        frontend::copy_done(&mut self.output);
        self.flush()?;
        self.finish()
    }

    /// Prepares `sql` for [`Self::execute`].
    ///
    /// # Errors
    /// As [`Self::query`].
    pub(crate) fn prepare(&mut self, name: &str, sql: &str) -> Result<(), String> {
        frontend::parse(name, sql, [], &mut self.output).map_err(io_error)?;
        frontend::sync(&mut self.output);
        self.flush()?;
        self.finish()
    }

    /// Runs what was prepared, with parameters in text form.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub(crate) fn execute(&mut self, name: &str, parameters: &[String]) -> Result<(), String> {
        self.bind_and_execute(name, parameters)
    }

    /// Parses, binds and runs `sql` in one go, as pgbench's `-M extended` does.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub(crate) fn run(&mut self, sql: &str, parameters: &[String]) -> Result<(), String> {
        frontend::parse("", sql, [], &mut self.output).map_err(io_error)?;
        self.bind_and_execute("", parameters)
    }

    fn bind_and_execute(&mut self, name: &str, parameters: &[String]) -> Result<(), String> {
        let value = |text: &String, buffer: &mut BytesMut| {
            buffer.extend_from_slice(text.as_bytes());
            Ok(postgres_protocol::IsNull::No)
        };
        frontend::bind("", name, [], parameters, value, [], &mut self.output)
            .map_err(|_| "the parameters are too long".to_owned())?;
        // A driver wants to know the columns.
        frontend::describe(b'P', "", &mut self.output).map_err(io_error)?;
        frontend::execute("", 0, &mut self.output).map_err(io_error)?;
        frontend::sync(&mut self.output);
        self.flush()?;
        self.finish()
    }

    fn finish(&mut self) -> Result<(), String> {
        while !self.read_some()?.1 {}
        Ok(())
    }

    /// Reads once from the socket: how many bytes came, and whether the reply is complete.
    ///
    /// # Errors
    /// The server's message when the reply has ended with one.
    pub(crate) fn read_some(&mut self) -> Result<(usize, bool), String> {
        let length = self.receive()?;
        let complete = self.replies.feed(&self.input[..length]);
        match self.replies.take_error_if(complete) {
            Some(error) => Err(error),
            None => Ok((length, complete)),
        }
    }

    fn receive(&mut self) -> Result<usize, String> {
        match self.stream.read(&mut self.input) {
            Ok(0) => Err(self
                .replies
                .take_error_if(true)
                .unwrap_or_else(|| "the server closed the connection".to_owned())),
            Ok(length) => Ok(length),
            Err(error) => Err(format!("reading from the server: {error}")),
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        let sent = self.stream.write_all(&self.output);
        self.output.clear();
        sent.map_err(|error| format!("writing to the server: {error}"))
    }
}

fn io_error(error: std::io::Error) -> String {
    error.to_string()
}
