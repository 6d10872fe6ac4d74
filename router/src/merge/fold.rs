//! Partial aggregates of one group from several shards, made into one, in their binary form.
//!
//! Counts and sums are added, exactly as PostgreSQL adds them; of `min` and `max` the right one
//! stays. NULL is nothing to add.

use super::key::{Kind, Rule};
use super::numeric;
use crate::wire::Malformed;

/// How two partial values of a column become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// `bigint`
    AddInteger,
    AddNumeric,
    /// `double precision`
    AddDouble,
    /// `real`
    AddReal,
    Least(Kind),
    Greatest(Kind),
    And,
    Or,
    /// Any of them will do.
    First,
}

/// Why two values cannot be made into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfolded {
    /// The sum is no `bigint` any more.
    OutOfRange,
    Malformed,
}

impl From<Malformed> for Unfolded {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Fold {
    /// Takes one more value in.
    ///
    /// # Errors
    /// [`Unfolded`]
    pub fn add(self, sum: &mut Option<Vec<u8>>, value: Option<&[u8]>) -> Result<(), Unfolded> {
        let Some(value) = value else { return Ok(()) };
        let Some(known) = sum else {
            *sum = Some(value.to_vec());
            return Ok(());
        };
        self.add_to(known, value)
    }

    /// The same of two values that are not NULL.
    ///
    /// # Errors
    /// [`Unfolded`]
    pub fn add_to(self, known: &mut Vec<u8>, value: &[u8]) -> Result<(), Unfolded> {
        match self {
            Self::AddInteger => {
                let (a, b) = (integer(known)?, integer(value)?);
                let added = a.checked_add(b).ok_or(Unfolded::OutOfRange)?;
                known.copy_from_slice(&added.to_be_bytes());
            }
            Self::AddNumeric => {
                *known = numeric::add(known, value).ok_or(Unfolded::Malformed)?;
            }
            Self::AddDouble => {
                let number = |bytes: &[u8]| bytes.try_into().map(f64::from_be_bytes);
                let added = number(known).and_then(|a| Ok(a + number(value)?));
                known.copy_from_slice(&added.map_err(|_| Unfolded::Malformed)?.to_be_bytes());
            }
            Self::AddReal => {
                let number = |bytes: &[u8]| bytes.try_into().map(f32::from_be_bytes);
                let added = number(known).and_then(|a| Ok(a + number(value)?));
                known.copy_from_slice(&added.map_err(|_| Unfolded::Malformed)?.to_be_bytes());
            }
            Self::Least(kind) | Self::Greatest(kind) => {
                let rule = Rule { kind, descending: false, nulls_first: false };
                let (mut a, mut b) = (Vec::new(), Vec::new());
                rule.append(Some(known), &mut a)?;
                rule.append(Some(value), &mut b)?;
                if if self == Self::Least(kind) { b < a } else { b > a } {
                    known.clear();
                    known.extend_from_slice(value);
                }
            }
            Self::And if value == [0] => known.copy_from_slice(&[0]),
            Self::Or if value == [1] => known.copy_from_slice(&[1]),
            Self::And | Self::Or | Self::First => {}
        }
        Ok(())
    }
}

fn integer(bytes: &[u8]) -> Result<i64, Unfolded> {
    bytes.try_into().map(i64::from_be_bytes).map_err(|_| Unfolded::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(fold: Fold, values: &[Option<&[u8]>]) -> Result<Option<Vec<u8>>, Unfolded> {
        let mut sum = None;
        values.iter().try_for_each(|value| fold.add(&mut sum, *value))?;
        Ok(sum)
    }

    #[test]
    fn null_is_nothing_to_add() {
        let one = 1_i64.to_be_bytes();
        let sum = folded(Fold::AddInteger, &[None, Some(&one), None, Some(&one)]);
        assert_eq!(sum, Ok(Some(2_i64.to_be_bytes().to_vec())));
        assert_eq!(folded(Fold::Least(Kind::Signed), &[None, None]), Ok(None));
        assert_eq!(folded(Fold::And, &[None, Some(&[1]), Some(&[0])]), Ok(Some(vec![0])));
        assert_eq!(folded(Fold::Or, &[Some(&[0]), None]), Ok(Some(vec![0])));
    }

    #[test]
    fn a_sum_that_is_no_bigint_is_an_error() {
        let most = i64::MAX.to_be_bytes();
        let sum = folded(Fold::AddInteger, &[Some(&most), Some(&1_i64.to_be_bytes())]);
        assert_eq!(sum, Err(Unfolded::OutOfRange));
        assert_eq!(folded(Fold::AddInteger, &[Some(&[1]), Some(&[2])]), Err(Unfolded::Malformed));
    }

    #[test]
    fn the_least_and_the_greatest_stay() {
        let [a, b] = [-5_i32, 7].map(i32::to_be_bytes);
        let least = folded(Fold::Least(Kind::Signed), &[Some(&b), Some(&a), Some(&b)]);
        assert_eq!(least, Ok(Some(a.to_vec())));
        let greatest = folded(Fold::Greatest(Kind::Signed), &[Some(&a), Some(&b), Some(&a)]);
        assert_eq!(greatest, Ok(Some(b.to_vec())));
    }
}
