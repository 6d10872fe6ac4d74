//! A row's sort keys as one byte string: strings compare as PostgreSQL compares the rows.
//!
//! Values come in their binary form, which depends on no setting. Each key is one byte for NULL or
//! not, and then a form that no other value's form begins with; DESC inverts its bytes. So the
//! strings of the first few keys compare as these keys do, and equal strings are equal rows.

use crate::wire::Malformed;

/// How values of a type are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Two's complement, of any length.
    Signed,
    /// Bytes of a length that all values share.
    Fixed,
    Float,
    Numeric,
    Interval,
    TimeTz,
    Inet,
    /// Bytes of any length.
    Bytes,
    /// `character(n)`: blanks at the end do not count.
    Blank,
}

/// One key of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub kind: Kind,
    pub descending: bool,
    pub nulls_first: bool,
}

/// `text` and its kin, whose order depends on a collation.
#[must_use]
pub fn is_text(oid: u32) -> bool {
    matches!(oid, 25 | 1042 | 1043)
}

/// `name`, which has a collation of its own: bytes.
pub const NAME_OID: u32 = 19;

impl Kind {
    /// How values of a built-in type are compared; `None` for those that only PostgreSQL compares.
    /// Texts by their bytes.
    #[must_use]
    pub fn of(oid: u32) -> Option<Self> {
        Some(match oid {
            // int8, int2, int4, money, date, time, timestamp, timestamptz
            20 | 21 | 23 | 790 | 1082 | 1083 | 1114 | 1184 => Self::Signed,
            // bool, "char", macaddr, macaddr8, uuid, pg_lsn, xid8
            16 | 18 | 829 | 774 | 2950 | 3220 | 5069 => Self::Fixed,
            700 | 701 => Self::Float,
            1700 => Self::Numeric,
            1186 => Self::Interval,
            1266 => Self::TimeTz,
            // inet, cidr
            869 | 650 => Self::Inet,
            // bytea, name, text, varchar
            17 | 19 | 25 | 1043 => Self::Bytes,
            1042 => Self::Blank,
            _ => return None,
        })
    }
}

impl Rule {
    /// Appends the key of one value.
    ///
    /// # Errors
    /// [`Malformed`]: the value is none of the type.
    pub fn append(&self, value: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let Some(value) = value else {
            out.push(if self.nulls_first { 0 } else { 2 });
            return Ok(());
        };
        out.push(1);
        let start = out.len();
        self.kind.append(value, out).ok_or(Malformed::Rule("a value of another type"))?;
        if self.descending {
            out[start..].iter_mut().for_each(|byte| *byte = !*byte);
        }
        Ok(())
    }
}

impl Kind {
    fn append(self, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Signed => {
                let (first, rest) = value.split_first()?;
                out.push(first ^ 0x80);
                out.extend_from_slice(rest);
            }
            Self::Fixed => out.extend_from_slice(value),
            Self::Float => {
                // As double precision: every real is one.
                let number = match *value {
                    [a, b, c, d] => f64::from(f32::from_be_bytes([a, b, c, d])),
                    _ => f64::from_be_bytes(value.try_into().ok()?),
                };
                out.extend_from_slice(&float_bits(number).to_be_bytes());
            }
            Self::Numeric => append_numeric(value, out)?,
            Self::Interval => {
                let (time, rest) = value.split_first_chunk()?;
                let (days, rest) = rest.split_first_chunk()?;
                let days = i64::from(i32::from_be_bytes(*days));
                let months = i64::from(i32::from_be_bytes(rest.try_into().ok()?));
                // A month has 30 days here, and a day 24 hours.
                let span = i128::from(months * 30 + days) * 86_400_000_000
                    + i128::from(i64::from_be_bytes(*time));
                out.extend_from_slice(&(span ^ i128::MIN).to_be_bytes());
            }
            Self::TimeTz => {
                let (time, rest) = value.split_first_chunk()?;
                let zone = i32::from_be_bytes(rest.try_into().ok()?);
                let utc = i64::from_be_bytes(*time) + i64::from(zone) * 1_000_000;
                out.extend_from_slice(&(utc ^ i64::MIN).to_be_bytes());
                out.extend_from_slice(&(zone ^ i32::MIN).to_be_bytes());
            }
            Self::Inet => append_inet(value, out)?,
            Self::Bytes => append_bytes(value, out),
            Self::Blank => append_bytes(value.trim_suffix_blanks(), out),
        }
        Some(())
    }
}

trait TrimBlanks {
    fn trim_suffix_blanks(&self) -> &Self;
}

impl TrimBlanks for [u8] {
    fn trim_suffix_blanks(&self) -> &Self {
        let end = self.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
        &self[..end]
    }
}

/// NaN is the greatest, and equal to itself; the two zeros are equal.
fn float_bits(number: f64) -> u64 {
    if number.is_nan() {
        return u64::MAX;
    }
    let bits = if number == 0.0 { 0 } else { number.to_bits() };
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// The end of a string of bytes is less than any byte: 0 becomes 0 255, the end 0 0.
fn append_bytes(value: &[u8], out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(zero) = memchr::memchr(0, rest) {
        out.extend_from_slice(&rest[..=zero]);
        out.push(0xff);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0, 0]);
}

/// Sign, then the power of 10000 of the first digit, then the digits in base 10000, each one more so
/// that the end is less than any; all of it inverted below zero.
fn append_numeric(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let word = |at: usize| Some(u16::from_be_bytes([*value.get(at)?, *value.get(at + 1)?]));
    let count = usize::from(word(0)?);
    let (weight, sign) = (word(2)? as i16, word(4)?);
    let mut digits = value.get(8..8 + 2 * count)?;
    let mut weight = i32::from(weight);
    while let [0, 0, rest @ ..] = digits {
        digits = rest;
        weight -= 1;
    }
    while let [rest @ .., 0, 0] = digits {
        if digits.len() % 2 == 1 {
            return None;
        }
        digits = rest;
    }
    const NEGATIVE: u16 = 0x4000;
    match sign {
        0xf000 => out.push(0),
        0xd000 => out.push(4),
        0xc000 => out.push(5),
        0 | NEGATIVE if digits.is_empty() => out.push(2),
        0 | NEGATIVE => {
            out.push(if sign == NEGATIVE { 1 } else { 3 });
            let start = out.len();
            out.extend_from_slice(&(weight ^ i32::MIN).to_be_bytes());
            for digit in digits.chunks_exact(2) {
                let digit = u16::from_be_bytes([digit[0], digit[1]]).checked_add(1)?;
                out.extend_from_slice(&digit.to_be_bytes());
            }
            out.extend_from_slice(&[0, 0]);
            if sign == NEGATIVE {
                out[start..].iter_mut().for_each(|byte| *byte = !*byte);
            }
        }
        _ => return None,
    }
    Some(())
}

/// Family, network, length of the network's part, whole address.
fn append_inet(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let [family, bits, _cidr, length, address @ ..] = value else { return None };
    if address.len() != usize::from(*length) || usize::from(*bits) > 8 * address.len() {
        return None;
    }
    out.push(*family);
    let mut left = u32::from(*bits);
    for byte in address {
        let kept = left.min(8);
        left -= kept;
        out.push(byte & !(0xff_u32 >> kept) as u8);
    }
    out.push(*bits);
    out.extend_from_slice(address);
    Some(())
}
