//! Values as text, where that depends on no setting of the session.

use std::fmt::Write;

use super::numeric;

/// The text of a value in binary form. `None`: PostgreSQL has to say it.
#[must_use]
pub fn of(oid: u32, value: &[u8]) -> Option<String> {
    Some(match oid {
        21 => i16::from_be_bytes(value.try_into().ok()?).to_string(),
        23 => i32::from_be_bytes(value.try_into().ok()?).to_string(),
        20 => i64::from_be_bytes(value.try_into().ok()?).to_string(),
        16 => if value == [0] { "f" } else { "t" }.to_owned(),
        1700 => numeric::text(value)?,
        2950 => uuid(value)?,
        // text, varchar, character
        25 | 1042 | 1043 => std::str::from_utf8(value).ok()?.to_owned(),
        _ => return None,
    })
}

/// Whether [`of`] knows the type.
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
