//! A client that speaks the protocol byte by byte, so that a test decides what is sent when, and
//! sees everything that comes back.

use std::io::{Read, Write};
use std::net::TcpStream;

pub(crate) struct Wire {
    stream: TcpStream,
}

/// What came back for one statement, up to ReadyForQuery.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// CopyInResponse or CopyOutResponse: format and columns' formats.
    pub(crate) response: Option<Vec<u8>>,
    /// CopyData, message by message.
    pub(crate) data: Vec<Vec<u8>>,
    pub(crate) tags: Vec<String>,
    /// SQLSTATE, message, detail, hint, context.
    pub(crate) error: Option<[Option<String>; 5]>,
    /// Of ReadyForQuery.
    pub(crate) status: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Simple,
    Extended,
}

impl Outcome {
    pub(crate) fn sqlstate(&self) -> &str {
        self.field(0)
    }

    pub(crate) fn message(&self) -> &str {
        self.field(1)
    }

    pub(crate) fn context(&self) -> &str {
        self.field(4)
    }

    fn field(&self, number: usize) -> &str {
        self.error.as_ref().and_then(|fields| fields[number].as_deref()).unwrap_or("")
    }

    pub(crate) fn tag(&self) -> &str {
        assert_eq!(self.error, None);
        self.tags.last().map_or("", String::as_str)
    }

    pub(crate) fn copied(&self) -> Vec<u8> {
        self.data.concat()
    }
}

impl Wire {
    /// `dsn` is `postgres://user@host:port/database`.
    pub(crate) fn connect(dsn: &str) -> Self {
        let (user, rest) = dsn["postgres://".len()..].split_once('@').expect("a user");
        let (address, database) = rest.split_once('/').expect("a database");
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let mut wire = Self { stream };
        let mut body = 196_608i32.to_be_bytes().to_vec();
        for text in ["user", user, "database", database] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        let mut message = ((body.len() + 4) as i32).to_be_bytes().to_vec();
        message.extend(body);
        wire.send_bytes(&message);
        assert_eq!(wire.reply().error, None);
        wire
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    pub(crate) fn send(&mut self, messages: &[(u8, &[u8])]) {
        let mut bytes = Vec::new();
        for (tag, body) in messages {
            bytes.push(*tag);
            bytes.extend_from_slice(&((body.len() + 4) as i32).to_be_bytes());
            bytes.extend_from_slice(body);
        }
        self.send_bytes(&bytes);
    }

    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).expect("the server answers");
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut body = vec![0; length as usize - 4];
        self.stream.read_exact(&mut body).expect("a whole message");
        (header[0], body)
    }

    /// Reads up to ReadyForQuery.
    pub(crate) fn reply(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        while self.take(&mut outcome) != b'Z' {}
        outcome
    }

    /// Reads one message.
    pub(crate) fn take(&mut self, outcome: &mut Outcome) -> u8 {
        let (tag, body) = self.receive();
        match tag {
            b'Z' => outcome.status = body[0],
            b'G' | b'H' => outcome.response = Some(body),
            b'd' => outcome.data.push(body),
            b'C' => outcome.tags.push(text(&body[..body.len() - 1])),
            b'E' => {
                assert_eq!(outcome.error, None, "one error is enough");
                let fields: Vec<_> = body.split(|b| *b == 0).filter(|f| !f.is_empty()).collect();
                outcome.error = Some(b"CMDHW".map(|code| {
                    fields.iter().find(|field| field[0] == code).map(|field| text(&field[1..]))
                }));
            }
            _ => {}
        }
        tag
    }

    pub(crate) fn query(&mut self, sql: &str) -> Outcome {
        self.send(&[(b'Q', &cstr(sql))]);
        self.reply()
    }

    /// Sends the statement and waits until it takes data, or has failed.
    pub(crate) fn begin(&mut self, sql: &str, protocol: Protocol) -> Outcome {
        match protocol {
            Protocol::Simple => self.send(&[(b'Q', &cstr(sql))]),
            Protocol::Extended => self.send(&[
                (b'P', &[&[0][..], &cstr(sql), &[0, 0]].concat()),
                (b'B', &[0; 8]),
                (b'D', b"P\0"),
                (b'E', &[0; 5]),
                (b'S', b""),
            ]),
        }
        let mut outcome = Outcome::default();
        while !matches!(self.take(&mut outcome), b'G' | b'H' | b'Z') {}
        outcome
    }

    /// COPY … FROM STDIN, the data in messages of `cut` bytes.
    pub(crate) fn copy_in(
        &mut self,
        sql: &str,
        data: &[u8],
        cut: usize,
        protocol: Protocol,
    ) -> Outcome {
        let mut outcome = self.begin(sql, protocol);
        if outcome.response.is_none() {
            return outcome;
        }
        let mut bytes = Vec::new();
        for piece in data.chunks(cut) {
            bytes.push(b'd');
            bytes.extend_from_slice(&((piece.len() + 4) as i32).to_be_bytes());
            bytes.extend_from_slice(piece);
        }
        bytes.extend_from_slice(&[b'c', 0, 0, 0, 4]);
        if protocol == Protocol::Extended {
            bytes.extend_from_slice(&[b'S', 0, 0, 0, 4]);
        }
        self.send_bytes(&bytes);
        while self.take(&mut outcome) != b'Z' {}
        outcome
    }

    /// COPY … TO STDOUT.
    pub(crate) fn copy_out(&mut self, sql: &str, protocol: Protocol) -> Outcome {
        let mut outcome = self.begin(sql, protocol);
        if outcome.response.is_some() {
            while self.take(&mut outcome) != b'Z' {}
        }
        outcome
    }
}

pub(crate) fn cstr(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
