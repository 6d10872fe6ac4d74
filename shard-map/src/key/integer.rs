//! `smallint`, `integer`, `bigint`: one value has one hash in all three.

use super::{Read, Unread, trim};

/// An integer as `int2in`, `int4in` and `int8in` read it: blanks around, one sign, decimal digits.
/// `size` is in bytes. PostgreSQL 16 also reads `0x1f`, `0o17`, `0b11` and `1_000`, which 15
/// refuses: so these are neither read nor called wrong.
pub(super) fn text(text: &[u8], size: usize) -> Read<i64> {
    let (negative, digits) = match trim(text) {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(Unread::Invalid);
    }
    let mut value: i64 = 0;
    for byte in digits {
        let Some(digit) = byte.checked_sub(b'0').filter(|digit| *digit <= 9) else {
            return Err(stranger(digits));
        };
        let digit = i64::from(digit);
        let next = value.checked_mul(10).and_then(|value| {
            if negative { value.checked_sub(digit) } else { value.checked_add(digit) }
        });
        match next {
            Some(next) => value = next,
            None if digits.iter().all(u8::is_ascii_digit) => return Err(Unread::Invalid),
            None => return Err(stranger(digits)),
        }
    }
    let fits = match size {
        2 => i16::try_from(value).is_ok(),
        4 => i32::try_from(value).is_ok(),
        _ => true,
    };
    if fits { Ok(value) } else { Err(Unread::Invalid) }
}

/// What to think of digits with something else among them.
pub(super) fn stranger(digits: &[u8]) -> Unread {
    let newer = digits.contains(&b'_')
        || matches!(digits, [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..]);
    if newer { Unread::Unsupported("only decimal digits are read here") } else { Unread::Invalid }
}

/// Big-endian two's complement, as all of PostgreSQL's binary integers.
pub(super) fn binary(bytes: &[u8], size: usize) -> Read<i64> {
    if bytes.len() != size {
        return Err(Unread::Invalid);
    }
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let start = if negative { -1 } else { 0 };
    Ok(bytes.iter().fold(start, |value, byte| (value << 8) | i64::from(*byte)))
}
