//! `numeric`: digits in base 10000 as PostgreSQL keeps them, without zeros at either end, so that
//! `1`, `1.00` and `1e0` are one value.

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::{Read, Unread, integer, is_space, trim};
use crate::KeyHash;

/// Longer texts and larger exponents are not read: keys are not that large, and the work for one
/// literal stays bounded.
const TEXT_MAX: usize = 2_000;
const EXPONENT_MAX: i64 = 5_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Numeric {
    NegativeInfinity,
    Finite {
        negative: bool,
        /// The power of 10000 of the first digit.
        weight: i32,
        /// Base 10000; neither the first nor the last is 0; empty is zero.
        digits: SmallVec<[u16; 8]>,
    },
    Infinity,
    NaN,
}

impl Numeric {
    fn zero() -> Self {
        Self::Finite { negative: false, weight: 0, digits: SmallVec::new() }
    }

    /// `hash_numeric_extended(value, 0)`. The sign takes no part.
    pub(super) fn hash(&self) -> KeyHash {
        match self {
            Self::Finite { digits, .. } if digits.is_empty() => KeyHash(-1),
            Self::Finite { weight, digits, .. } => {
                let bytes: SmallVec<[u8; 32]> =
                    digits.iter().flat_map(|digit| digit.to_le_bytes()).collect();
                KeyHash(KeyHash::of_bytes(&bytes).0 ^ i64::from(*weight))
            }
            _ => KeyHash(0),
        }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::NegativeInfinity => 0,
            Self::Finite { .. } => 1,
            Self::Infinity => 2,
            Self::NaN => 3,
        }
    }

    /// Decimal digits (not ASCII, no zeros at either end), the first of which has the power
    /// `first` of 10.
    fn from_decimal(negative: bool, first: i64, decimal: &[u8]) -> Self {
        if decimal.is_empty() {
            return Self::zero();
        }
        let weight = first.div_euclid(4);
        let mut digits: SmallVec<[u16; 8]> = SmallVec::new();
        for (at, digit) in (0_i64..).zip(decimal) {
            let power = first - at;
            let place = usize::try_from(weight - power.div_euclid(4))
                .expect("powers fall from the first one, whose place is 0");
            if digits.len() <= place {
                digits.resize(place + 1, 0);
            }
            digits[place] += u16::from(*digit) * [1, 10, 100, 1000][power.rem_euclid(4) as usize];
        }
        let weight = i32::try_from(weight).expect("the exponent was bounded");
        Self::Finite { negative, weight, digits }
    }
}

impl From<i64> for Numeric {
    fn from(value: i64) -> Self {
        let text = value.unsigned_abs().to_string();
        let decimal: SmallVec<[u8; 24]> = text.bytes().map(|byte| byte - b'0').collect();
        plain(value < 0, &decimal, 0)
    }
}

impl Ord for Numeric {
    /// As PostgreSQL orders them: NaN is greater than everything and equal to itself.
    fn cmp(&self, other: &Self) -> Ordering {
        let (
            Self::Finite { negative: a, weight: p, digits: x },
            Self::Finite { negative: b, weight: q, digits: y },
        ) = (self, other)
        else {
            return self.rank().cmp(&other.rank());
        };
        let size = match (x.is_empty(), y.is_empty()) {
            (false, false) => p.cmp(q).then_with(|| x.cmp(y)),
            (zero, other_zero) => other_zero.cmp(&zero),
        };
        match (a, b) {
            (false, false) => size,
            (true, true) => size.reverse(),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Digits whose last has the power `last` of 10, with zeros anywhere.
fn plain(negative: bool, decimal: &[u8], last: i64) -> Numeric {
    let Some(start) = decimal.iter().position(|digit| *digit != 0) else { return Numeric::zero() };
    let end = decimal.iter().rposition(|digit| *digit != 0).map_or(0, |at| at + 1);
    let first = last + decimal.len() as i64 - 1 - start as i64;
    Numeric::from_decimal(negative, first, &decimal[start..end])
}

/// As `numeric_in` reads it: a sign, digits with one point, an exponent; `NaN`, `Infinity`, `inf`.
pub(super) fn text(text: &[u8]) -> Read<Numeric> {
    let text = trim(text);
    if text.len() > TEXT_MAX {
        return Err(Unread::Unsupported("the number is too long"));
    }
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if rest.eq_ignore_ascii_case(b"infinity") || rest.eq_ignore_ascii_case(b"inf") {
        return Ok(if negative { Numeric::NegativeInfinity } else { Numeric::Infinity });
    }
    if text.eq_ignore_ascii_case(b"nan") {
        return Ok(Numeric::NaN);
    }
    let count = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (whole, mut after) = rest.split_at(count(rest));
    let mut fraction: &[u8] = &[];
    if let [b'.', digits @ ..] = after {
        (fraction, after) = digits.split_at(count(digits));
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(integer::stranger(rest));
    }
    let exponent = match after {
        [] => 0,
        [b'e' | b'E', exponent @ ..] => {
            let digits = exponent.strip_prefix(b"-").or_else(|| exponent.strip_prefix(b"+"));
            // PostgreSQL 15 takes blanks before it.
            if exponent.first().is_some_and(|byte| is_space(*byte)) {
                return Err(Unread::Unsupported("blanks stand within the number"));
            }
            if !digits.unwrap_or(exponent).iter().all(u8::is_ascii_digit) {
                return Err(integer::stranger(rest));
            }
            if exponent.len() > 6 {
                return Err(Unread::Unsupported("the exponent is too large"));
            }
            integer::text(exponent, 8)?
        }
        _ => return Err(integer::stranger(rest)),
    };
    if exponent.abs() > EXPONENT_MAX {
        return Err(Unread::Unsupported("the exponent is too large"));
    }
    let decimal: SmallVec<[u8; 40]> =
        whole.iter().chain(fraction).map(|byte| byte - b'0').collect();
    Ok(plain(negative, &decimal, exponent - fraction.len() as i64))
}

/// As `numeric_recv` reads it: count, weight, sign, scale, digits in base 10000.
pub(super) fn binary(bytes: &[u8]) -> Read<Numeric> {
    let [c0, c1, w0, w1, s0, s1, d0, d1, rest @ ..] = bytes else { return Err(Unread::Invalid) };
    let count = usize::from(u16::from_be_bytes([*c0, *c1]));
    let weight = i64::from(i16::from_be_bytes([*w0, *w1]));
    let scale = i64::from(u16::from_be_bytes([*d0, *d1]));
    if rest.len() != count * 2 {
        return Err(Unread::Invalid);
    }
    let negative = match u16::from_be_bytes([*s0, *s1]) {
        0x0000 => false,
        0x4000 => true,
        0xc000 => return Ok(Numeric::NaN),
        0xd000 => return Ok(Numeric::Infinity),
        0xf000 => return Ok(Numeric::NegativeInfinity),
        _ => return Err(Unread::Invalid),
    };
    if rest.len() > TEXT_MAX {
        return Err(Unread::Unsupported("the number is too long"));
    }
    let mut decimal: SmallVec<[u8; 40]> = SmallVec::new();
    for pair in rest.chunks_exact(2) {
        let digit = u16::from_be_bytes([pair[0], pair[1]]);
        if digit > 9999 {
            return Err(Unread::Invalid);
        }
        decimal.extend([1000, 100, 10, 1].map(|unit| (digit / unit % 10) as u8));
    }
    let last = (weight + 1 - count as i64) * 4;
    let zeros = decimal.iter().rev().take_while(|digit| **digit == 0).count() as i64;
    if !decimal.is_empty() && zeros < decimal.len() as i64 && last + zeros < -scale {
        return Err(Unread::Unsupported("its scale hides some of its digits"));
    }
    Ok(plain(negative, &decimal, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Numeric {
        text(value.as_bytes()).unwrap()
    }

    #[test]
    fn spellings_of_one_number_are_one_value() {
        for spellings in [
            &["1", "1.00", "+01", " 1e0 ", "10E-1", "0.1e1"][..],
            &["0", "-0", "0.000", "-.0", "0e7"],
            &["10000", "1e4", "10000.0000"],
            &["-0.00005", "-5e-5", "-.00005"],
            &["NaN", "nan"],
            &["inf", "+Infinity", "INFINITY"],
        ] {
            for spelling in spellings {
                assert_eq!(read(spelling), read(spellings[0]), "{spelling}");
            }
        }
    }

    #[test]
    fn numbers_are_ordered_as_postgresql_orders_them() {
        let ascending = [
            "-inf",
            "-10001",
            "-10000",
            "-1.5",
            "-0.001",
            "0",
            "1e-9",
            "0.5",
            "1",
            "1.00001",
            "9999",
            "10000",
            "123456789",
            "Infinity",
            "NaN",
        ];
        for pair in ascending.windows(2) {
            assert!(read(pair[0]) < read(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_invalid_and_what_newer_servers_read_is_not_judged() {
        for wrong in ["", "-", ".", "e5", "1e", "1.2.3", "1 2", "abc", "+nan", "--1"] {
            assert_eq!(text(wrong.as_bytes()), Err(Unread::Invalid), "{wrong:?}");
        }
        for unclear in ["0x1f", "1_000", "1e99999", "1e-999999999"] {
            assert!(matches!(text(unclear.as_bytes()), Err(Unread::Unsupported(_))), "{unclear}");
        }
    }
}
