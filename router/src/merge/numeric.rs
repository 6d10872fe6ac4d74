//! `numeric` in its binary form: sums, and their text.
//!
//! Digits in base 10000, the first of which counts 10000^weight; the scale says how many decimal
//! digits are shown. A sum has the larger scale of the two, as PostgreSQL has it.

const BASE: i32 = 10_000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const NEGATIVE_INFINITY: u16 = 0xf000;

/// The sum of two numbers; `None` where one of them is malformed.
#[must_use]
pub fn add(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let (a, b) = (Number::read(a)?, Number::read(b)?);
    let special = match (a.sign, b.sign) {
        (NAN, _) | (_, NAN) => Some(NAN),
        (INFINITY, NEGATIVE_INFINITY) | (NEGATIVE_INFINITY, INFINITY) => Some(NAN),
        (sign @ (INFINITY | NEGATIVE_INFINITY), _) | (_, sign @ (INFINITY | NEGATIVE_INFINITY)) => {
            Some(sign)
        }
        _ => None,
    };
    if let Some(sign) = special {
        return Some(written(0, sign, 0, &[]));
    }
    // From the highest place of both to the lowest one, least first.
    let top = a.weight.max(b.weight);
    let bottom = a.bottom().min(b.bottom());
    let (left, right) = (a.sign == NEGATIVE, b.sign == NEGATIVE);
    let signed = |digit: i32, negative: bool| if negative { -digit } else { digit };
    let mut digits: Vec<i32> = Vec::with_capacity((top - bottom + 2).max(1) as usize);
    digits
        .extend((bottom..=top).map(|place| signed(a.at(place), left) + signed(b.at(place), right)));
    digits.push(0);
    let negative = digits.iter().rev().find(|digit| **digit != 0).is_some_and(|digit| *digit < 0);
    let mut carry = 0;
    for digit in &mut digits {
        let value = signed(*digit, negative) + carry;
        carry = value.div_euclid(BASE);
        *digit = value.rem_euclid(BASE);
    }
    let mut weight = bottom + digits.len() as i32 - 1;
    while digits.last() == Some(&0) {
        digits.pop();
        weight -= 1;
    }
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..zeros);
    digits.reverse();
    let weight = if digits.is_empty() { 0 } else { i16::try_from(weight).ok()? };
    let sign = if negative { NEGATIVE } else { 0 };
    Some(written(weight, sign, a.scale.max(b.scale), &digits))
}

/// A sum that grows: most numbers fit into an integer, which is added to much faster.
#[derive(Debug)]
pub enum Sum {
    /// In units of 10000^-`places`.
    Small { value: i128, places: u16, scale: u16 },
    /// In the binary form.
    Large(Vec<u8>),
}

/// Digits of a number that is read as an integer: before the point, and behind it.
const SMALL: std::ops::RangeInclusive<i32> = -4..=4;

impl Sum {
    /// A sum of one number. `None` where that is malformed.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let number = Number::read(bytes)?;
        let (top, bottom) = (number.weight, number.bottom());
        let empty = number.digits.is_empty();
        let fits = empty || SMALL.contains(&top) && SMALL.contains(&bottom);
        if !fits || !matches!(number.sign, 0 | NEGATIVE) {
            return Some(Self::Large(bytes.to_vec()));
        }
        let places = if empty { 0 } else { (-bottom).max(0) };
        let last = -places;
        let digits = (last..=top.max(last)).rev();
        let value =
            digits.fold(0, |sum, place| sum * i128::from(BASE) + i128::from(number.at(place)));
        let value = if number.sign == NEGATIVE { -value } else { value };
        Some(Self::Small { value, places: places as u16, scale: number.scale })
    }

    /// Adds a number. `None` where it is malformed.
    #[must_use]
    pub fn add(&mut self, bytes: &[u8]) -> Option<()> {
        let more = Self::of(bytes)?;
        if let (
            Self::Small { value, places, scale },
            Self::Small { value: other, places: of_other, scale: shown },
        ) = (&*self, &more)
        {
            let all = (*places).max(*of_other);
            let raised = |value: i128, places: u16| {
                value.checked_mul(i128::from(BASE).checked_pow(u32::from(all - places))?)
            };
            let sum = raised(*value, *places)
                .zip(raised(*other, *of_other))
                .and_then(|(a, b)| a.checked_add(b));
            if let Some(value) = sum {
                *self = Self::Small { value, places: all, scale: (*scale).max(*shown) };
                return Some(());
            }
        }
        *self = Self::Large(add(&self.bytes(), bytes)?);
        Some(())
    }

    /// The binary form.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let (value, places, scale) = match self {
            Self::Large(bytes) => return bytes.clone(),
            Self::Small { value, places, scale } => (*value, *places, *scale),
        };
        let mut digits = Vec::with_capacity(10);
        let mut left = value.unsigned_abs();
        while left > 0 {
            digits.push((left % BASE as u128) as i32);
            left /= BASE as u128;
        }
        let weight = digits.len() as i16 - 1 - places as i16;
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        digits.reverse();
        let weight = if digits.is_empty() { 0 } else { weight };
        written(weight, if value < 0 { NEGATIVE } else { 0 }, scale, &digits)
    }
}

/// A sum that is small enough to stand in a table's cell, as most are. Its fields are bytes, so that
/// the cell's own tag finds room beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// In units of 10000^-`places`.
    value: [u8; 8],
    scale: [u8; 2],
    places: u8,
}

impl Short {
    /// `None` where it is too large, or malformed.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match Sum::of(bytes)? {
            Sum::Large(_) => None,
            Sum::Small { value, places, scale } => {
                Some(Self::new(value.try_into().ok()?, scale, places.try_into().ok()?))
            }
        }
    }

    fn new(value: i64, scale: u16, places: u8) -> Self {
        Self { value: value.to_ne_bytes(), scale: scale.to_ne_bytes(), places }
    }

    fn value(self) -> i64 {
        i64::from_ne_bytes(self.value)
    }

    fn scale(self) -> u16 {
        u16::from_ne_bytes(self.scale)
    }

    /// `None` where the sum is too large.
    #[must_use]
    pub fn plus(self, more: Self) -> Option<Self> {
        let places = self.places.max(more.places);
        let raised = |of: Self| {
            let factor = i64::from(BASE).checked_pow(u32::from(places - of.places))?;
            of.value().checked_mul(factor)
        };
        let value = raised(self)?.checked_add(raised(more)?)?;
        Some(Self::new(value, self.scale().max(more.scale()), places))
    }

    /// The binary form.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        Sum::from(self).bytes()
    }
}

impl From<Short> for Sum {
    fn from(short: Short) -> Self {
        let (value, places) = (short.value().into(), short.places.into());
        Self::Small { value, places, scale: short.scale() }
    }
}

/// As PostgreSQL writes it; `None` where it is malformed.
#[must_use]
pub fn text(bytes: &[u8]) -> Option<String> {
    let number = Number::read(bytes)?;
    let special = match number.sign {
        NAN => Some("NaN"),
        INFINITY => Some("Infinity"),
        NEGATIVE_INFINITY => Some("-Infinity"),
        _ => None,
    };
    if let Some(special) = special {
        return Some(special.to_owned());
    }
    let mut text = String::from(if number.sign == NEGATIVE { "-" } else { "" });
    match number.weight {
        0.. => {
            text += &number.at(number.weight).to_string();
            for place in (0..number.weight).rev() {
                text += &format!("{:04}", number.at(place));
            }
        }
        _ => text.push('0'),
    }
    let scale = usize::from(number.scale);
    if scale > 0 {
        text.push('.');
        let end = text.len() + scale;
        let mut place = -1;
        while text.len() < end {
            text += &format!("{:04}", number.at(place));
            place -= 1;
        }
        text.truncate(end);
    }
    Some(text)
}

struct Number<'a> {
    weight: i32,
    sign: u16,
    scale: u16,
    digits: &'a [u8],
}

impl<'a> Number<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, digits) = bytes.split_first_chunk::<8>()?;
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let count = usize::from(word(0));
        let number =
            Self { weight: i32::from(word(2) as i16), sign: word(4), scale: word(6), digits };
        let known = [0, NEGATIVE, NAN, INFINITY, NEGATIVE_INFINITY].contains(&number.sign);
        (digits.len() == 2 * count && known).then_some(number)
    }

    /// The place of the last digit.
    fn bottom(&self) -> i32 {
        self.weight - (self.digits.len() / 2) as i32 + 1
    }

    fn at(&self, place: i32) -> i32 {
        let number = usize::try_from(self.weight - place).ok();
        let digit = number.and_then(|number| self.digits.get(2 * number..2 * number + 2));
        digit.map_or(0, |digit| i32::from(u16::from_be_bytes([digit[0], digit[1]])))
    }
}

fn written(weight: i16, sign: u16, scale: u16, digits: &[i32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + 2 * digits.len());
    for word in [digits.len() as u16, weight as u16, sign, scale] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    digits.iter().for_each(|digit| out.extend_from_slice(&(*digit as u16).to_be_bytes()));
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `value / 10000^places`, as PostgreSQL sends it.
    fn number(value: i128, places: i32, scale: u16) -> Vec<u8> {
        let mut digits = Vec::new();
        let mut rest = value.unsigned_abs();
        while rest > 0 {
            digits.push((rest % 10_000) as i32);
            rest /= 10_000;
        }
        let weight = digits.len() as i32 - 1 - places;
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        digits.reverse();
        let weight = if digits.is_empty() { 0 } else { weight as i16 };
        written(weight, if value < 0 { NEGATIVE } else { 0 }, scale, &digits)
    }

    proptest! {
        #[test]
        fn sums_are_exact(a in -(1_i128 << 90)..1 << 90, b in -(1_i128 << 90)..1 << 90, near in -3_i128..3) {
            for b in [b, -a, near - a] {
                let want = number(a + b, 2, 7);
                prop_assert_eq!(add(&number(a, 2, 5), &number(b, 2, 7)), Some(want));
            }
        }

        #[test]
        fn sums_that_grow_are_the_same(
            numbers in proptest::collection::vec((-(1_i128 << 100)..1 << 100, 0_u32..120, 0_i32..3), 1..8),
        ) {
            let numbers: Vec<Vec<u8>> = numbers
                .into_iter()
                .map(|(value, shift, places)| number(value >> shift, places, 4 * places as u16))
                .collect();
            let mut wanted = numbers[0].clone();
            let mut sum = Sum::of(&numbers[0]).expect("a number");
            let mut short = Short::of(&numbers[0]);
            for more in &numbers[1..] {
                wanted = add(&wanted, more).expect("numbers");
                sum.add(more).expect("a number");
                short = short.zip(Short::of(more)).and_then(|(a, b)| a.plus(b));
            }
            prop_assert_eq!(short.map_or_else(|| wanted.clone(), Short::bytes), wanted.clone());
            prop_assert_eq!(sum.bytes(), wanted);
        }

        #[test]
        fn places_need_not_meet(a in -1_000_000_i128..1_000_000, b in -1_000_000_i128..1_000_000) {
            let want = number(a * 10_000_i128.pow(3) + b, 5, 8);
            prop_assert_eq!(add(&number(a, 2, 8), &number(b, 5, 0)), Some(want));
        }

        #[test]
        fn texts_have_the_digits_of_their_scale(a in -(1_i128 << 90)..1 << 90) {
            let (whole, rest) = (a.abs() / 100_000_000, a.abs() % 100_000_000);
            let sign = if a < 0 { "-" } else { "" };
            prop_assert_eq!(text(&number(a, 2, 8)), Some(format!("{sign}{whole}.{rest:08}")));
            prop_assert_eq!(text(&number(a, 0, 0)), Some(a.to_string()));
        }

        #[test]
        fn any_bytes_are_read(a: Vec<u8>, b: Vec<u8>) {
            let _ = (add(&a, &b), text(&a));
            let _ = Sum::of(&a).map(|mut sum| sum.add(&b));
        }
    }

    #[test]
    fn short_numbers_are_written_out() {
        assert_eq!(text(&number(0, 0, 2)).as_deref(), Some("0.00"));
        assert_eq!(text(&number(5, 1, 4)).as_deref(), Some("0.0005"));
        // 1.5, and 10000, whose last digits are not there.
        assert_eq!(text(&written(0, 0, 1, &[1, 5000])).as_deref(), Some("1.5"));
        assert_eq!(text(&written(1, NEGATIVE, 0, &[1])).as_deref(), Some("-10000"));
        assert_eq!(text(&written(0, NAN, 0, &[])).as_deref(), Some("NaN"));
        assert_eq!(text(&[0]), None);
    }

    #[test]
    fn infinities_add_up_to_no_number() {
        let special = |sign| written(0, sign, 0, &[]);
        let one = number(1, 0, 0);
        assert_eq!(add(&special(INFINITY), &one), Some(special(INFINITY)));
        assert_eq!(add(&one, &special(NEGATIVE_INFINITY)), Some(special(NEGATIVE_INFINITY)));
        assert_eq!(add(&special(INFINITY), &special(NEGATIVE_INFINITY)), Some(special(NAN)));
        assert_eq!(add(&special(NAN), &one), Some(special(NAN)));
        assert_eq!(add(&[0, 1], &one), None);
    }
}
