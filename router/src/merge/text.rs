//! Values as text, where that depends on no setting of the session.

use std::fmt::Write;

use super::numeric;

/// Appends the text of a value in binary form. `None`: PostgreSQL has to say it.
#[must_use]
pub fn put(oid: u32, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut digits = itoa::Buffer::new();
    let text = match oid {
        21 => digits.format(i16::from_be_bytes(value.try_into().ok()?)),
        23 => digits.format(i32::from_be_bytes(value.try_into().ok()?)),
        20 => digits.format(i64::from_be_bytes(value.try_into().ok()?)),
        16 => match value {
            [0] => "f",
            _ => "t",
        },
        1700 => &numeric::text(value)?,
        2950 => &uuid(value)?,
        // text, varchar, character: in whatever encoding
        25 | 1042 | 1043 => {
            out.extend_from_slice(value);
            return Some(());
        }
        _ => return None,
    };
    out.extend_from_slice(text.as_bytes());
    Some(())
}

/// Whether [`put`] knows the type.
#[must_use]
pub fn knows(oid: u32) -> bool {
    matches!(oid, 16 | 20 | 21 | 23 | 25 | 1042 | 1043 | 1700 | 2950)
}

fn uuid(value: &[u8]) -> Option<String> {
    let bytes: [u8; 16] = value.try_into().ok()?;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").ok()?;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(oid: u32, value: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        put(oid, value, &mut out)?;
        String::from_utf8(out).ok()
    }

    #[test]
    fn values_read_as_postgresql_writes_them() {
        assert_eq!(of(23, &[255, 255, 255, 255]).as_deref(), Some("-1"));
        assert_eq!(of(16, &[1]).as_deref(), Some("t"));
        let uuid: Vec<u8> = (0..16).collect();
        assert_eq!(of(2950, &uuid).as_deref(), Some("00010203-0405-0607-0809-0a0b0c0d0e0f"));
        assert_eq!(of(1082, &[0, 0, 0, 0]), None);
        assert_eq!(of(23, &[0]), None);
    }
}
