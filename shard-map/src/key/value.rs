//! A key that has been read: equal values are equal here, however they were written.

use std::cmp::Ordering;
use std::ops::Deref;

use smallvec::SmallVec;

use super::numeric::Numeric;
use crate::KeyHash;

/// Values of one key type only are compared with each other.
#[derive(Debug, Clone)]
pub(crate) enum KeyValue<'a> {
    /// Integers, booleans, days and microseconds.
    Int(i64),
    /// Text, bytea, uuid, inet in PostgreSQL's inner form.
    Bytes(KeyBytes<'a>),
    Numeric(Numeric),
}

/// Bytes of the statement where these are the value, else bytes made from them.
#[derive(Debug, Clone)]
pub(crate) enum KeyBytes<'a> {
    Borrowed(&'a [u8]),
    Owned(SmallVec<[u8; 24]>),
}

impl KeyValue<'_> {
    /// What the type's extended hash function returns with seed 0.
    pub(crate) fn hash(&self) -> KeyHash {
        match self {
            Self::Int(value) => KeyHash::of_int(*value),
            Self::Bytes(bytes) => KeyHash::of_bytes(bytes),
            Self::Numeric(value) => value.hash(),
        }
    }

    pub(crate) fn into_owned(self) -> KeyValue<'static> {
        match self {
            Self::Int(value) => KeyValue::Int(value),
            Self::Bytes(KeyBytes::Borrowed(bytes)) => {
                KeyValue::Bytes(KeyBytes::Owned(bytes.into()))
            }
            Self::Bytes(KeyBytes::Owned(bytes)) => KeyValue::Bytes(KeyBytes::Owned(bytes)),
            Self::Numeric(value) => KeyValue::Numeric(value),
        }
    }
}

impl Ord for KeyValue<'_> {
    /// PostgreSQL's order for the types of [`KeyType::is_ordered`](crate::KeyType::is_ordered);
    /// for the others an order without meaning.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => left.cmp(right),
            (Self::Bytes(left), Self::Bytes(right)) => left[..].cmp(&right[..]),
            (Self::Numeric(left), Self::Numeric(right)) => left.cmp(right),
            _ => self.family().cmp(&other.family()),
        }
    }
}

impl KeyValue<'_> {
    const fn family(&self) -> u8 {
        match self {
            Self::Int(_) => 0,
            Self::Bytes(_) => 1,
            Self::Numeric(_) => 2,
        }
    }
}

impl PartialOrd for KeyValue<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for KeyValue<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for KeyValue<'_> {}

impl Deref for KeyBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl<'a> From<&'a [u8]> for KeyBytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl From<[u8; 16]> for KeyBytes<'_> {
    fn from(bytes: [u8; 16]) -> Self {
        Self::Owned(SmallVec::from_slice(&bytes))
    }
}
