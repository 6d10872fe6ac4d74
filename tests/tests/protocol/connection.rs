//! A client of bare messages.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Anything that works is faster.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// One message.
pub(crate) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&((body.len() + 4) as u32).to_be_bytes());
    out.extend_from_slice(body);
    out
}

impl Connection {
    pub(crate) fn tcp(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, received: Vec::new() }
    }

    /// Logs in with protocol 3.`minor`. The body of BackendKeyData.
    pub(crate) fn log_in(&mut self, minor: u8) -> Vec<u8> {
        let mut body = vec![0, 3, 0, minor];
        body.extend_from_slice(b"user\0postgres\0database\0app\0\0");
        let packet = [&((body.len() + 4) as u32).to_be_bytes()[..], &body].concat();
        self.stream.write_all(&packet).expect("it is read");
        let login = self.until_ready();
        login.into_iter().find(|(tag, _)| *tag == b'K').expect("a key").1
    }

    /// Sends a CancelRequest and waits until it was taken.
    pub(crate) fn cancel(mut self, key: &[u8]) {
        let mut packet = ((key.len() + 8) as u32).to_be_bytes().to_vec();
        packet.extend_from_slice(&80_877_102u32.to_be_bytes());
        packet.extend_from_slice(key);
        self.stream.write_all(&packet).expect("it is read");
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("it is closed");
        assert!(rest.is_empty(), "a cancel request has no answer");
    }

    /// Sends from a thread of its own, so that answers never stand in the way.
    pub(crate) fn send_while_reading(&mut self, bytes: &[u8]) {
        let mut stream = self.stream.try_clone().expect("a second handle");
        let bytes = bytes.to_vec();
        // It ends with the connection, at the latest.
        drop(std::thread::spawn(move || stream.write_all(&bytes)));
    }

    /// All messages up to ReadyForQuery.
    pub(crate) fn until_ready(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut messages = Vec::new();
        loop {
            let message = self.message().expect("the connection is open");
            let ready = message.0 == b'Z';
            messages.push(message);
            if ready {
                return messages;
            }
        }
    }

    /// The SQLSTATE of the error that ends the next reply.
    pub(crate) fn sqlstate(&mut self) -> String {
        let reply = self.until_ready();
        let error = reply.iter().find(|(tag, _)| *tag == b'E').expect("an error");
        let fields = error.1.split(|byte| *byte == 0);
        let code = fields.filter_map(|field| field.strip_prefix(b"C")).next().expect("a code");
        String::from_utf8_lossy(code).into_owned()
    }

    /// Sends bytes and the end of the stream; whether the server ends the connection, too.
    pub(crate) fn survives(mut self, bytes: &[u8]) -> bool {
        // The server may have closed the connection before all was sent.
        let sent = self.stream.write_all(bytes).is_ok();
        if sent {
            drop(self.stream.shutdown(Shutdown::Write));
        }
        loop {
            match self.message() {
                Ok(_) => {}
                Err(error) => {
                    return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                }
            }
        }
    }

    fn message(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        loop {
            if let Some(header) = self.received.get(..5) {
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
                let size = length as usize + 1;
                assert!(b"123nsIcZCRSKDTtGHdAVvENW".contains(&header[0]), "type {}", header[0]);
                if self.received.len() >= size {
                    let tag = header[0];
                    let body = self.received[5..size].to_vec();
                    self.received.drain(..size);
                    return Ok((tag, body));
                }
            }
            let mut chunk = vec![0; 256 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                size => self.received.extend_from_slice(&chunk[..size]),
            }
        }
    }
}
