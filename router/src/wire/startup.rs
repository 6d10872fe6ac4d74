//! The first packet of a connection, which has no type byte.

use super::{Malformed, Reader};

/// The newest minor version of protocol 3 that is spoken: 3.2 has cancel keys of any length.
pub const MINOR_MAX: u16 = 2;

/// The first bytes of a TLS connection that nothing was asked before.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// The longest startup packet that is read (PostgreSQL's own limit).
pub const STARTUP_MAX: usize = 10_000;

/// What asks a server for TLS.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

#[derive(Debug, PartialEq, Eq)]
pub enum Startup {
    Ssl,
    Gss,
    Cancel {
        pid: u32,
        secret: Box<[u8]>,
    },
    /// Another protocol than 3.
    Other {
        major: u16,
        minor: u16,
    },
    /// `minor` of protocol 3; names and values in order.
    Session {
        minor: u16,
        parameters: Vec<(String, String)>,
    },
}

/// The packet at the start of `buf` and its size, once it is whole.
pub fn packet(buf: &[u8]) -> Result<Option<(Startup, usize)>, Malformed> {
    let [a, b, c, d, ..] = *buf else { return Ok(None) };
    let size = i32::from_be_bytes([a, b, c, d]);
    let size = match usize::try_from(size) {
        Ok(size) if (8..=STARTUP_MAX).contains(&size) => size,
        _ => return Err(Malformed::Rule("invalid length of startup packet")),
    };
    if buf.len() < size {
        return Ok(None);
    }
    let mut reader = Reader::new(&buf[4..size]);
    let code = reader.i32()?;
    let startup = match (code >> 16, code & 0xffff) {
        (1234, 5679) => Startup::Ssl,
        (1234, 5680) => Startup::Gss,
        (1234, 5678) => {
            let pid = reader.i32()? as u32;
            Startup::Cancel { pid, secret: reader.rest().into() }
        }
        (3, minor) => Startup::Session { minor: minor as u16, parameters: parameters(reader)? },
        (major, minor) => Startup::Other { major: major as u16, minor: minor as u16 },
    };
    Ok(Some((startup, size)))
}

fn parameters(mut reader: Reader<'_>) -> Result<Vec<(String, String)>, Malformed> {
    const LAYOUT: Malformed =
        Malformed::Rule("invalid startup packet layout: expected terminator as last byte");
    let text = |reader: &mut Reader<'_>| match reader.str() {
        Ok(text) => Ok(text.to_owned()),
        Err(Malformed::Rule(_)) => Err(LAYOUT),
        Err(encoding) => Err(encoding),
    };
    let mut found = Vec::new();
    loop {
        let name = text(&mut reader)?;
        if name.is_empty() {
            return if reader.rest().is_empty() { Ok(found) } else { Err(LAYOUT) };
        }
        found.push((name, text(&mut reader)?));
    }
}

/// The startup packet that the router sends to a shard.
pub fn put_startup(out: &mut Vec<u8>, parameters: &[(&str, &str)]) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(3i32 << 16).to_be_bytes());
    for (name, value) in parameters {
        super::put_cstr(out, name.as_bytes());
        super::put_cstr(out, value.as_bytes());
    }
    out.push(0);
    let size = (out.len() - at) as i32;
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_startup_packet_reads_back() {
        let mut packet_bytes = Vec::new();
        put_startup(&mut packet_bytes, &[("user", "ada"), ("database", "app")]);
        let parameters =
            vec![("user".to_owned(), "ada".to_owned()), ("database".to_owned(), "app".to_owned())];
        assert_eq!(
            packet(&packet_bytes),
            Ok(Some((Startup::Session { minor: 0, parameters }, packet_bytes.len())))
        );
        for end in 0..packet_bytes.len() {
            assert_eq!(packet(&packet_bytes[..end]), Ok(None), "cut at {end}");
        }
    }

    #[test]
    fn a_huge_length_is_malformed() {
        assert!(packet(&[0x7f, 0, 0, 0, 0, 3, 0, 0]).is_err());
    }
}
