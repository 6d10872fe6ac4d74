//! Messages as lines of text: `Parse "name" "SELECT 1" 23` becomes bytes, and what a server sends
//! becomes lines. Texts stand in double quotes, with `\n`, `\\`, `\"` and `\xNN` inside.

use std::fmt::Write as _;

/// What a message that was sent asks for.
pub(super) enum Sent {
    /// A ReadyForQuery.
    Request,
    /// One byte without a header.
    Negotiation,
    Other,
}

/// Appends the bytes of one message.
pub(super) fn encode(line: &str, out: &mut Vec<u8>) -> Result<Sent, String> {
    let mut words = words(line)?;
    if words.is_empty() {
        return Err("an empty message".to_owned());
    }
    let name = words.remove(0).text();
    let mut sent = Sent::Other;
    let mut body = Vec::new();
    let tag = match &*name {
        "Startup" => {
            let (major, minor) =
                words[0].text().split_once('.').map_or((3, 0), |(major, minor)| {
                    (major.parse::<u32>().unwrap_or(3), minor.parse::<u32>().unwrap_or(0))
                });
            body.extend_from_slice(&(major << 16 | minor).to_be_bytes());
            for word in &words[1..] {
                let text = word.text();
                let (name, value) = text.split_once('=').ok_or("a setting without '='")?;
                put_cstr(&mut body, name.as_bytes());
                put_cstr(&mut body, value.as_bytes());
            }
            body.push(0);
            return packet(out, &body, Sent::Request);
        }
        "SSLRequest" => return packet(out, &80_877_103u32.to_be_bytes(), Sent::Negotiation),
        "GSSENCRequest" => return packet(out, &80_877_104u32.to_be_bytes(), Sent::Negotiation),
        "Raw" => {
            out.extend_from_slice(&words[0].bytes);
            return Ok(Sent::Other);
        }
        "Frame" => {
            words[1..].iter().for_each(|word| body.extend_from_slice(&word.bytes));
            words[0].bytes[0]
        }
        "Query" => {
            sent = Sent::Request;
            put_cstr(&mut body, &words[0].bytes);
            b'Q'
        }
        "Parse" => {
            put_cstr(&mut body, &words[0].bytes);
            put_cstr(&mut body, &words[1].bytes);
            put_i16(&mut body, words.len() - 2);
            for oid in &words[2..] {
                body.extend_from_slice(&oid.number()?.to_be_bytes());
            }
            b'P'
        }
        "Bind" => {
            put_cstr(&mut body, &words[0].bytes);
            put_cstr(&mut body, &words[1].bytes);
            let (settings, values): (Vec<_>, Vec<_>) =
                words[2..].iter().partition(|word| !word.quoted && word.text().contains('='));
            let codes = |name: &str| -> Vec<u8> {
                let codes = settings.iter().find_map(|word| {
                    let text = word.text();
                    text.strip_prefix(name)
                        .and_then(|text| text.strip_prefix('='))
                        .map(str::to_owned)
                });
                let codes = codes.unwrap_or_default();
                codes.split(',').filter_map(|code| code.parse().ok()).collect()
            };
            put_codes(&mut body, &codes("formats"));
            put_values(&mut body, &values);
            put_codes(&mut body, &codes("results"));
            b'B'
        }
        "Describe" | "Close" => {
            body.push(words[0].bytes[0]);
            put_cstr(&mut body, &words[1].bytes);
            if name == "Close" { b'C' } else { b'D' }
        }
        "Execute" => {
            put_cstr(&mut body, &words[0].bytes);
            let limit = words.get(1).map_or(Ok(0), Word::number)?;
            body.extend_from_slice(&limit.to_be_bytes());
            b'E'
        }
        "Sync" => {
            sent = Sent::Request;
            b'S'
        }
        "Flush" => b'H',
        "Terminate" => b'X',
        "CopyData" => {
            body.extend_from_slice(&words[0].bytes);
            b'd'
        }
        "CopyDone" => b'c',
        "CopyFail" => {
            put_cstr(&mut body, &words[0].bytes);
            b'f'
        }
        "FunctionCall" => {
            sent = Sent::Request;
            body.extend_from_slice(&words[0].number()?.to_be_bytes());
            put_codes(&mut body, &[]);
            put_values(&mut body, &words[1..].iter().collect::<Vec<_>>());
            put_i16(&mut body, 0);
            b'F'
        }
        _ => return Err(format!("no message is called {name}")),
    };
    out.push(tag);
    packet(out, &body, sent)
}

fn packet(out: &mut Vec<u8>, body: &[u8], sent: Sent) -> Result<Sent, String> {
    out.extend_from_slice(&((body.len() + 4) as u32).to_be_bytes());
    out.extend_from_slice(body);
    Ok(sent)
}

fn put_cstr(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

fn put_i16(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&(number as u16).to_be_bytes());
}

fn put_codes(out: &mut Vec<u8>, codes: &[u8]) {
    put_i16(out, codes.len());
    codes.iter().for_each(|code| out.extend_from_slice(&[0, *code]));
}

fn put_values(out: &mut Vec<u8>, values: &[&Word]) {
    put_i16(out, values.len());
    for value in values {
        if !value.quoted && value.bytes == b"NULL" {
            out.extend_from_slice(&(-1i32).to_be_bytes());
        } else {
            out.extend_from_slice(&(value.bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(&value.bytes);
        }
    }
}

struct Word {
    bytes: Vec<u8>,
    quoted: bool,
}

impl Word {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn number(&self) -> Result<u32, String> {
        self.text().parse().map_err(|_| format!("{} is no number", self.text()))
    }
}

fn words(line: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut bytes = line.bytes().peekable();
    while let Some(first) = bytes.next() {
        match first {
            b' ' => {}
            b'"' => {
                let mut word = Word { bytes: Vec::new(), quoted: true };
                loop {
                    match bytes.next().ok_or_else(|| format!("an open quote: {line}"))? {
                        b'"' => break,
                        b'\\' => word.bytes.push(match bytes.next() {
                            Some(b'n') => b'\n',
                            Some(b't') => b'\t',
                            Some(b'x') => {
                                let digits = [bytes.next(), bytes.next()].map(|digit| {
                                    digit.and_then(|digit| char::from(digit).to_digit(16))
                                });
                                match digits {
                                    [Some(high), Some(low)] => (high * 16 + low) as u8,
                                    _ => return Err(format!("\\x needs two digits: {line}")),
                                }
                            }
                            Some(other) => other,
                            None => return Err(format!("an open quote: {line}")),
                        }),
                        byte => word.bytes.push(byte),
                    }
                }
                words.push(word);
            }
            _ => {
                let mut word = Word { bytes: vec![first], quoted: false };
                while let Some(byte) = bytes.next_if(|byte| *byte != b' ') {
                    word.bytes.push(byte);
                }
                words.push(word);
            }
        }
    }
    Ok(words)
}

/// What a server sends, message by message.
#[derive(Default)]
pub(super) struct Decoder {
    pub(super) received: Vec<u8>,
    /// Answers of one byte that are still to come.
    pub(super) bare: usize,
    /// ReadyForQuery has come: from now on values are news.
    ready: bool,
}

impl Decoder {
    /// The next message: its name and its line.
    pub(super) fn next(&mut self) -> Result<Option<(&'static str, String)>, String> {
        let Some(tag) = self.received.first().copied() else { return Ok(None) };
        if self.bare > 0 && matches!(tag, b'N' | b'S' | b'G') {
            self.bare -= 1;
            self.received.remove(0);
            return Ok(Some(("Negotiation", format!("Negotiation {}", char::from(tag)))));
        }
        let Some(header) = self.received.get(1..5) else { return Ok(None) };
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if tag == b'E' && header == b"FATA" {
            // How clients of protocol 2 are told.
            let Some(end) = self.received.iter().position(|byte| *byte == 0) else {
                return Ok(None);
            };
            let text: Vec<u8> = self.received.drain(..=end).collect();
            return Ok(Some(("OldError", format!("OldError {}", quoted(&text[1..end])))));
        }
        if length < 4 {
            return Err(format!("the server's message {tag} has the length {length}"));
        }
        if self.received.len() < length + 1 {
            return Ok(None);
        }
        let frame: Vec<u8> = self.received.drain(..=length).collect();
        let (name, rest) = self.describe(tag, &mut Fields(&frame[5..]))?;
        let line = if rest.is_empty() { name.to_owned() } else { format!("{name} {rest}") };
        Ok(Some((name, line)))
    }

    fn describe(
        &mut self,
        tag: u8,
        body: &mut Fields<'_>,
    ) -> Result<(&'static str, String), String> {
        let mut rest = String::new();
        let name = match tag {
            b'1' => "ParseComplete",
            b'2' => "BindComplete",
            b'3' => "CloseComplete",
            b'n' => "NoData",
            b's' => "PortalSuspended",
            b'I' => "EmptyQueryResponse",
            b'c' => "CopyDone",
            b'Z' => {
                self.ready = true;
                rest.push(char::from(body.take(1)?[0]));
                "ReadyForQuery"
            }
            b'C' => {
                rest = quoted(body.cstr()?);
                "CommandComplete"
            }
            b'R' => {
                rest = body.i32()?.to_string();
                "Authentication"
            }
            // Servers of different ages and machines differ in their values.
            b'S' => {
                rest = String::from_utf8_lossy(body.cstr()?).into_owned();
                rest +=
                    &if self.ready { format!(" {}", quoted(body.cstr()?)) } else { " *".into() };
                "ParameterStatus"
            }
            b'K' => {
                let _ = write!(rest, "* and a key of {} bytes", body.0.len().saturating_sub(4));
                "BackendKeyData"
            }
            b'D' => {
                rest = body.values()?;
                "DataRow"
            }
            b'T' => {
                for _ in 0..body.u16()? {
                    let name = quoted(body.cstr()?);
                    let table = body.i32()? != 0;
                    let column = body.u16()?;
                    let oid = body.i32()?;
                    let size = body.u16()?.cast_signed();
                    let modifier = body.i32()?;
                    let format = body.u16()?;
                    let _ = write!(rest, "{name}:{oid}:{size}:{modifier}:{format}");
                    let _ = if table { write!(rest, "@{column} ") } else { write!(rest, " ") };
                }
                "RowDescription"
            }
            b't' => {
                for _ in 0..body.u16()? {
                    let _ = write!(rest, "{} ", body.i32()?);
                }
                "ParameterDescription"
            }
            b'G' | b'H' => {
                let _ = write!(rest, "{}", body.take(1)?[0]);
                for _ in 0..body.u16()? {
                    let _ = write!(rest, " {}", body.u16()?);
                }
                if tag == b'G' { "CopyInResponse" } else { "CopyOutResponse" }
            }
            b'd' => {
                rest = quoted(std::mem::take(&mut body.0));
                "CopyData"
            }
            b'A' => {
                body.i32()?;
                let _ = write!(rest, "{} {}", quoted(body.cstr()?), quoted(body.cstr()?));
                "NotificationResponse"
            }
            b'V' => {
                rest = body.value()?;
                "FunctionCallResponse"
            }
            b'v' => {
                let version = body.i32()?;
                let _ = write!(rest, "{}.{}", version >> 16, version & 0xffff);
                for _ in 0..body.i32()? {
                    let _ = write!(rest, " {}", quoted(body.cstr()?));
                }
                "NegotiateProtocolVersion"
            }
            b'E' | b'N' => {
                rest = body.report()?;
                if tag == b'E' { "ErrorResponse" } else { "NoticeResponse" }
            }
            other => return Err(format!("the server sends a message of type {other}")),
        };
        Ok((name, rest.trim_end().to_owned()))
    }
}

/// The fields of a message's body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or("a message of the server is too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, String> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn i32(&mut self) -> Result<i32, String> {
        self.take(4).map(|bytes| i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn cstr(&mut self) -> Result<&'a [u8], String> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or("a text without an end")?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    fn value(&mut self) -> Result<String, String> {
        match self.i32()? {
            -1 => Ok("NULL".to_owned()),
            length => Ok(quoted(self.take(length.unsigned_abs() as usize)?)),
        }
    }

    fn values(&mut self) -> Result<String, String> {
        let values: Result<Vec<_>, _> = (0..self.u16()?).map(|_| self.value()).collect();
        Ok(values?.join(" "))
    }

    /// What a person or a driver acts upon; places in PostgreSQL's source are left out.
    fn report(&mut self) -> Result<String, String> {
        let mut line = String::new();
        loop {
            let code = self.take(1)?[0];
            if code == 0 {
                return Ok(line);
            }
            let text = self.cstr()?;
            let name = match code {
                b'S' | b'C' => {
                    let _ = write!(line, "{} ", String::from_utf8_lossy(text));
                    continue;
                }
                b'M' => "",
                b'D' => "detail=",
                b'H' => "hint=",
                b'P' => "position=",
                b'W' => "where=",
                b'n' => "constraint=",
                _ => continue,
            };
            let _ = write!(line, "{name}{} ", quoted(text));
        }
    }
}

fn quoted(bytes: &[u8]) -> String {
    let mut text = "\"".to_owned();
    for part in bytes.utf8_chunks() {
        for char in part.valid().chars() {
            match char {
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '"' | '\\' => {
                    text.push('\\');
                    text.push(char);
                }
                char if char.is_control() => {
                    let _ = write!(text, "\\x{:02x}", char as u32);
                }
                char => text.push(char),
            }
        }
        for byte in part.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}
