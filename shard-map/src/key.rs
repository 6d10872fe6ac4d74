//! The value of a distribution column, as it arrives on the wire, and the types it may have.
//!
//! Spellings of one value must give one hash: `5` and `'05'`, numeric `1.0` and `1.00`, text and
//! binary parameters. What cannot be read with certainty (a timestamptz without a zone, a date in
//! another DateStyle) is refused with [`KeyError`], never guessed. One file for each family of
//! types reads both forms into a [`KeyValue`]; that has the hash and, where a type's order can be
//! computed here, the order.
//!
//! # Lengths and precisions
//!
//! A row's hash must be that of the value which is *stored*. `char(n)` pads, and trailing blanks
//! never count; `varchar(n)` cuts trailing blanks that are over its length, so
//! [`ShardMap::shard_for`](crate::ShardMap::shard_for) refuses such values; too long values of
//! other kinds the server refuses. `numeric(p,s)`, `time(p)`, `timestamp(p)` round: a column of
//! such a type cannot distribute a table. In a WHERE clause nothing is cut or rounded: what was
//! not stored matches nothing, on any shard.

mod boolean;
mod bytea;
mod datetime;
mod inet;
mod integer;
mod numeric;
mod sql;
mod text;
mod uuid;
mod value;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::KeyHash;
pub(crate) use value::KeyValue;

/// The type of a distribution column: those whose hash PostgreSQL computes immutably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    Int2,
    Int4,
    Int8,
    Text,
    Varchar,
    Bpchar,
    Uuid,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Numeric,
    Bytea,
    Bool,
    Inet,
    /// An enum, hashed by its label's text: OIDs of labels differ from server to server.
    Enum,
}

/// One key as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyInput<'a> {
    /// A literal's text, decoded (no quotes, no escapes), in UTF-8; its type is the column's.
    Text(&'a [u8]),
    /// A parameter of the extended protocol. `type_oid` is the type that the client declared or
    /// the statement casts it to, or 0 where that is left to the server: then it has the column's
    /// type. A type of another family than the column's is [`KeyError::Unsupported`].
    Param { bytes: &'a [u8], binary: bool, type_oid: u32 },
}

/// Why a key has no hash.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The text is no value of the type: PostgreSQL will say so better (22P02, 22003, 22007).
    /// The router forwards such a statement to one shard to get PostgreSQL's own error, so this
    /// is answered only where every PostgreSQL from 15 on refuses the value.
    #[error("invalid input for a distribution column of type {}", key_type.type_name())]
    Invalid { key_type: KeyType },
    /// A value that may be valid, but whose meaning depends on settings or on a conversion that is
    /// not known here. Refused with 0A000.
    #[error("cannot tell the shard of this value of type {}: {reason}", key_type.type_name())]
    Unsupported { key_type: KeyType, reason: &'static str },
    /// A distribution column is never NULL.
    #[error("the distribution column may not be null")]
    Null,
    /// `range` and `list` distributions: nothing covers the value.
    #[error("no shard covers this value of the distribution column")]
    Uncovered,
}

impl KeyError {
    /// What the client can do about it.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Uncovered => Some("Add a range or list value that covers it."),
            Self::Unsupported { key_type: KeyType::Date, .. } => {
                Some("Write the date in ISO form, as 2020-01-31.")
            }
            Self::Unsupported { key_type: KeyType::Time, .. } => {
                Some("Write the time in ISO form, as 12:00:00.")
            }
            Self::Unsupported { key_type: KeyType::Timestamp, .. } => {
                Some("Write date and time in ISO form, as 2020-01-31 12:00:00.")
            }
            Self::Unsupported { key_type: KeyType::Timestamptz, .. } => {
                Some("Write date, time and zone in ISO form, as 2020-01-31 12:00:00+00.")
            }
            Self::Unsupported { .. } => {
                Some("Write the value in the plain form of the column's type.")
            }
            Self::Invalid { .. } | Self::Null => None,
        }
    }
}

/// Why a text or binary form was not read; [`KeyError`] adds the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    Invalid,
    Unsupported(&'static str),
}

type Read<T> = Result<T, Unread>;

/// What the bytes of a parameter are, seen from the column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Declared {
    /// A value of the column's own type.
    Same,
    /// An integer of this many bytes.
    Integer(usize),
    /// Text whose trailing blanks do not count.
    Blanked,
}

impl KeyType {
    /// The hash of a key.
    ///
    /// # Errors
    /// [`KeyError`] when the value is not of the type or its meaning is not certain.
    pub fn hash(self, input: KeyInput<'_>) -> Result<KeyHash, KeyError> {
        self.value(input).map(|value| value.hash())
    }

    /// Reads a key.
    pub(crate) fn value(self, input: KeyInput<'_>) -> Result<KeyValue<'_>, KeyError> {
        let value = match input {
            KeyInput::Text(text) => self.read_text(text),
            KeyInput::Param { bytes, binary, type_oid } => {
                self.declared(type_oid).and_then(|declared| match declared {
                    Declared::Same if binary => self.read_binary(bytes),
                    Declared::Same => self.read_text(bytes),
                    Declared::Integer(size) => {
                        let value = if binary {
                            integer::binary(bytes, size)
                        } else {
                            integer::text(bytes, size)
                        };
                        value.map(|value| match self {
                            Self::Numeric => KeyValue::Numeric(numeric::Numeric::from(value)),
                            _ => KeyValue::Int(value),
                        })
                    }
                    Declared::Blanked => Ok(KeyValue::Bytes(text::without_blanks(bytes).into())),
                })
            }
        };
        value.map_err(|unread| match unread {
            Unread::Invalid => KeyError::Invalid { key_type: self },
            Unread::Unsupported(reason) => KeyError::Unsupported { key_type: self, reason },
        })
    }

    /// How a parameter of this type is compared with, and assigned to, the column.
    fn declared(self, type_oid: u32) -> Read<Declared> {
        const UNKNOWN: u32 = 705;
        const OTHER: Unread = Unread::Unsupported("the parameter was declared with another type");
        let integer = matches!(self, Self::Int2 | Self::Int4 | Self::Int8 | Self::Numeric);
        Ok(match type_oid {
            0 | UNKNOWN => Declared::Same,
            oid if oid == self.oid() => Declared::Same,
            21 if integer => Declared::Integer(2),
            23 if integer => Declared::Integer(4),
            20 if integer => Declared::Integer(8),
            25 | 1043 => match self {
                Self::Text | Self::Varchar => Declared::Same,
                Self::Bpchar => Declared::Blanked,
                _ => return Err(OTHER),
            },
            // `text = bpchar` compares as text after the blanks were cut. `varchar = bpchar` would
            // compare the column without its blanks, so several keys would match.
            1042 if self == Self::Text => Declared::Blanked,
            _ => return Err(OTHER),
        })
    }

    fn read_text(self, text: &[u8]) -> Read<KeyValue<'_>> {
        Ok(match self {
            Self::Int2 => KeyValue::Int(integer::text(text, 2)?),
            Self::Int4 => KeyValue::Int(integer::text(text, 4)?),
            Self::Int8 => KeyValue::Int(integer::text(text, 8)?),
            Self::Text | Self::Varchar | Self::Enum => KeyValue::Bytes(text.into()),
            Self::Bpchar => KeyValue::Bytes(text::without_blanks(text).into()),
            Self::Uuid => KeyValue::Bytes(uuid::text(text)?.into()),
            Self::Date => KeyValue::Int(datetime::date(text)?),
            Self::Time => KeyValue::Int(datetime::time(text)?),
            Self::Timestamp => KeyValue::Int(datetime::timestamp(text)?),
            Self::Timestamptz => KeyValue::Int(datetime::timestamptz(text)?),
            Self::Numeric => KeyValue::Numeric(numeric::text(text)?),
            Self::Bytea => KeyValue::Bytes(bytea::text(text)?),
            Self::Bool => KeyValue::Int(boolean::text(text)?.into()),
            Self::Inet => KeyValue::Bytes(inet::text(text)?),
        })
    }

    fn read_binary(self, bytes: &[u8]) -> Read<KeyValue<'_>> {
        Ok(match self {
            Self::Int2 => KeyValue::Int(integer::binary(bytes, 2)?),
            Self::Int4 | Self::Date => KeyValue::Int(integer::binary(bytes, 4)?),
            Self::Int8 | Self::Time | Self::Timestamp | Self::Timestamptz => {
                KeyValue::Int(integer::binary(bytes, 8)?)
            }
            Self::Text | Self::Varchar | Self::Enum | Self::Bytea => KeyValue::Bytes(bytes.into()),
            Self::Bpchar => KeyValue::Bytes(text::without_blanks(bytes).into()),
            Self::Uuid => KeyValue::Bytes(uuid::binary(bytes)?.into()),
            Self::Numeric => KeyValue::Numeric(numeric::binary(bytes)?),
            Self::Bool => KeyValue::Int(boolean::binary(bytes)?.into()),
            Self::Inet => KeyValue::Bytes(inet::binary(bytes)?),
        })
    }
}

/// What C's `isspace` takes for white space, as PostgreSQL's input functions do.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_space(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_space(*last)
    {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [KeyType; 16] = [
        KeyType::Int2,
        KeyType::Int4,
        KeyType::Int8,
        KeyType::Text,
        KeyType::Varchar,
        KeyType::Bpchar,
        KeyType::Uuid,
        KeyType::Date,
        KeyType::Time,
        KeyType::Timestamp,
        KeyType::Timestamptz,
        KeyType::Numeric,
        KeyType::Bytea,
        KeyType::Bool,
        KeyType::Inet,
        KeyType::Enum,
    ];

    proptest! {
        /// Whatever a client sends, there is an answer.
        #[test]
        fn no_bytes_are_too_strange_to_be_judged(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "[-+0-9:.eE TZBC/x{}\\\\]{0,40}".prop_map(String::into_bytes),
                "[0-9]{1990,2010}".prop_map(String::into_bytes),
            ],
            binary: bool,
            type_oid in prop::sample::select(vec![0_u32, 20, 21, 23, 25, 1042, 1700, 2950, 16_400]),
        ) {
            for key_type in ALL {
                let _ = key_type.hash(KeyInput::Text(&bytes));
                let _ = key_type.hash(KeyInput::Param { bytes: &bytes, binary, type_oid });
                let _ = key_type.hash(KeyInput::Param { bytes: &bytes, binary, type_oid: 0 });
            }
        }
    }

    fn hash(key_type: KeyType, text: &str) -> Result<KeyHash, KeyError> {
        key_type.hash(KeyInput::Text(text.as_bytes()))
    }

    #[test]
    fn spellings_of_one_value_hash_alike() {
        for text in ["5", "05", " +5 ", "\t5\u{b}"] {
            assert_eq!(hash(KeyType::Int4, text), Ok(KeyHash::of_int(5)), "{text:?}");
        }
        assert_eq!(hash(KeyType::Int8, "-9223372036854775808"), Ok(KeyHash::of_int(i64::MIN)));
        let spellings = [
            (
                KeyType::Uuid,
                "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}",
                "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            ),
            (KeyType::Bool, "YES", "t"),
            (KeyType::Bool, " of ", "0"),
            (KeyType::Bpchar, "abc   ", "abc"),
            (KeyType::Bytea, "\\x00 fF", "\\000\\377"),
            (KeyType::Bytea, "a\\\\b", "\\x615c62"),
            (KeyType::Inet, "10.0.0.1/32", "10.0.0.1"),
            (KeyType::Inet, "2001:DB8:0::1", "2001:db8::1/128"),
            (KeyType::Inet, "::ffff:1.2.3.4", "::FFFF:102:304"),
            (KeyType::Numeric, "1.00", "1"),
        ];
        for (key_type, left, right) in spellings {
            assert!(hash(key_type, left).is_ok(), "{left:?}");
            assert_eq!(hash(key_type, left), hash(key_type, right), "{left:?} {right:?}");
        }
    }

    #[test]
    fn other_values_are_not_confused() {
        for (key_type, left, right) in [
            (KeyType::Text, "abc ", "abc"),
            (KeyType::Varchar, "abc ", "abc"),
            (KeyType::Inet, "10.0.0.1/24", "10.0.0.1"),
            (KeyType::Bytea, "\\X00", "\\x00"),
            (KeyType::Enum, "sad ", "sad"),
        ] {
            assert_ne!(hash(key_type, left), hash(key_type, right), "{left:?} {right:?}");
        }
    }

    #[test]
    fn what_is_no_value_is_invalid_and_what_may_be_one_is_unsupported() {
        for (key_type, text) in [
            (KeyType::Int4, ""),
            (KeyType::Int4, "-"),
            (KeyType::Int4, "5.0"),
            (KeyType::Int4, "99999999999"),
            (KeyType::Int8, "9223372036854775808"),
            (KeyType::Uuid, "a0eebc99-"),
            (KeyType::Uuid, " a0eebc999c0b4ef8bb6d6bb9bd380a11"),
            (KeyType::Bool, "o"),
            (KeyType::Bytea, "\\x0"),
            (KeyType::Bytea, "\\9"),
            (KeyType::Inet, "localhost"),
            (KeyType::Inet, ""),
        ] {
            assert_eq!(hash(key_type, text), Err(KeyError::Invalid { key_type }), "{text:?}");
        }
        for (key_type, text) in [
            // PostgreSQL 16 reads these, 15 does not.
            (KeyType::Int4, "0x5"),
            (KeyType::Int8, "1_000"),
            (KeyType::Int8, "99999999999999999999_0"),
            (KeyType::Inet, "10/8"),
            (KeyType::Inet, "010.0.0.1"),
            (KeyType::Timestamptz, "2024-01-02 03:04:05"),
        ] {
            let unsupported = matches!(hash(key_type, text), Err(KeyError::Unsupported { .. }));
            assert!(unsupported, "{text:?}");
        }
    }

    #[test]
    fn parameters_of_a_neighbouring_type_hash_as_the_equal_value() {
        let five = Ok(KeyHash::of_int(-5));
        let param = |key_type: KeyType, bytes: &[u8], type_oid, binary| {
            key_type.hash(KeyInput::Param { bytes, binary, type_oid })
        };
        assert_eq!(param(KeyType::Int4, &(-5i32).to_be_bytes(), 0, true), five);
        assert_eq!(param(KeyType::Int4, &(-5i64).to_be_bytes(), 20, true), five);
        assert_eq!(param(KeyType::Int4, &(-5i16).to_be_bytes(), 21, true), five);
        assert_eq!(param(KeyType::Int2, b"-5", 20, false), five);
        assert!(param(KeyType::Int4, &(-5i64).to_be_bytes(), 0, true).is_err());
        assert_eq!(
            param(KeyType::Numeric, &(-12345i32).to_be_bytes(), 23, true),
            hash(KeyType::Numeric, "-12345.0")
        );
        assert_eq!(param(KeyType::Text, b"ab ", 1042, false), hash(KeyType::Text, "ab"));
        assert_eq!(param(KeyType::Bpchar, b"ab ", 25, false), hash(KeyType::Bpchar, "ab"));
        assert_eq!(param(KeyType::Text, b"ab ", 705, false), hash(KeyType::Text, "ab "));
        for (key_type, type_oid) in [
            (KeyType::Int4, 25),
            (KeyType::Varchar, 1042),
            (KeyType::Timestamp, 1184),
            (KeyType::Date, 1114),
            (KeyType::Inet, 650),
        ] {
            let refused = param(key_type, b"5", type_oid, false);
            assert!(matches!(refused, Err(KeyError::Unsupported { .. })), "{key_type:?}");
        }
    }
}
