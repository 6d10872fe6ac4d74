//! The value of a distribution column, as it arrives on the wire, and the types it may have.
//!
//! Spellings of one value must give one hash: `5`, `'05'`, `5.0` of a numeric column, text and
//! binary parameters. What cannot be read with certainty (a timestamptz without a zone, a date in
//! another DateStyle) is refused with [`KeyError`], never guessed.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::KeyHash;

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
    /// The router forwards such a statement to one shard to get PostgreSQL's own error.
    #[error("invalid input for a distribution column of type {key_type:?}")]
    Invalid { key_type: KeyType },
    /// A value that may be valid, but whose meaning depends on settings or on a conversion that is
    /// not known here. Refused with 0A000.
    #[error("cannot tell the shard of this value of type {key_type:?}: {reason}")]
    Unsupported { key_type: KeyType, reason: &'static str },
    /// A distribution column is never NULL.
    #[error("the distribution column may not be null")]
    Null,
    /// `range` and `list` distributions: nothing covers the value.
    #[error("no shard covers this value of the distribution column")]
    Uncovered,
}

impl KeyType {
    /// From what `format_type` prints; `None` for a type that cannot distribute a table.
    #[must_use]
    pub fn from_type_name(name: &str) -> Option<Self> {
        let base = name.split('(').next().unwrap_or(name).trim();
        Some(match base {
            "smallint" => Self::Int2,
            "integer" => Self::Int4,
            "bigint" => Self::Int8,
            "text" => Self::Text,
            "character varying" => Self::Varchar,
            "uuid" => Self::Uuid,
            "boolean" => Self::Bool,
            _ => return None,
        })
    }

    /// The type's OID; 0 for enums, whose OIDs differ from server to server.
    #[must_use]
    pub const fn oid(self) -> u32 {
        match self {
            Self::Int2 => 21,
            Self::Int4 => 23,
            Self::Int8 => 20,
            Self::Text => 25,
            Self::Varchar => 1043,
            Self::Bpchar => 1042,
            Self::Uuid => 2950,
            Self::Date => 1082,
            Self::Time => 1083,
            Self::Timestamp => 1114,
            Self::Timestamptz => 1184,
            Self::Numeric => 1700,
            Self::Bytea => 17,
            Self::Bool => 16,
            Self::Inet => 869,
            Self::Enum => 0,
        }
    }

    const fn is_int(self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8)
    }

    /// SQL that computes the hash on a server. `column` is quoted already.
    #[must_use]
    pub fn hash_expression(self, column: &str) -> Option<String> {
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 => {
                Some(format!("pg_catalog.hashint8extended(({column})::pg_catalog.int8, 0)"))
            }
            Self::Text | Self::Varchar => {
                Some(format!("pg_catalog.hashtextextended(({column})::pg_catalog.text, 0)"))
            }
            Self::Uuid => Some(format!("pg_catalog.uuid_hash_extended({column}, 0)")),
            Self::Bool => {
                Some(format!("pg_catalog.hashint4extended(({column})::pg_catalog.int4, 0)"))
            }
            _ => None,
        }
    }

    /// The hash of a key.
    ///
    /// # Errors
    /// [`KeyError`] when the value is not of the type or its meaning is not certain.
    pub fn hash(self, input: KeyInput<'_>) -> Result<KeyHash, KeyError> {
        match input {
            KeyInput::Text(text) => self.hash_text(text),
            KeyInput::Param { bytes, binary, type_oid } => {
                let family = type_oid == 0
                    || type_oid == self.oid()
                    || (self.is_int() && matches!(type_oid, 20 | 21 | 23))
                    || (matches!(self, Self::Text | Self::Varchar)
                        && matches!(type_oid, 25 | 1043));
                if !family {
                    return Err(KeyError::Unsupported {
                        key_type: self,
                        reason: "the parameter was declared with another type",
                    });
                }
                if binary { self.hash_binary(bytes, type_oid) } else { self.hash_text(bytes) }
            }
        }
    }

    fn hash_text(self, text: &[u8]) -> Result<KeyHash, KeyError> {
        let invalid = KeyError::Invalid { key_type: self };
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 => {
                let value = int(text).ok_or_else(|| invalid.clone())?;
                let fits = match self {
                    Self::Int2 => i16::try_from(value).is_ok(),
                    Self::Int4 => i32::try_from(value).is_ok(),
                    _ => true,
                };
                if fits { Ok(KeyHash::of_int(value)) } else { Err(invalid) }
            }
            Self::Text | Self::Varchar => Ok(KeyHash::of_bytes(text)),
            Self::Uuid => uuid(text).map(|value| KeyHash::of_bytes(&value)).ok_or(invalid),
            Self::Bool => {
                bool_value(text).map(|value| KeyHash::of_u32(value.into())).ok_or(invalid)
            }
            _ => Err(self.not_hashed()),
        }
    }

    fn hash_binary(self, bytes: &[u8], type_oid: u32) -> Result<KeyHash, KeyError> {
        let invalid = KeyError::Invalid { key_type: self };
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 => {
                let size = match if type_oid == 0 { self.oid() } else { type_oid } {
                    21 => 2,
                    23 => 4,
                    _ => 8,
                };
                if bytes.len() != size {
                    return Err(invalid);
                }
                let negative = bytes[0] & 0x80 != 0;
                let start = if negative { -1 } else { 0 };
                let value = bytes.iter().fold(start, |value, byte| (value << 8) | i64::from(*byte));
                Ok(KeyHash::of_int(value))
            }
            Self::Text | Self::Varchar => Ok(KeyHash::of_bytes(bytes)),
            Self::Uuid if bytes.len() == 16 => Ok(KeyHash::of_bytes(bytes)),
            Self::Bool if bytes.len() == 1 => Ok(KeyHash::of_u32((bytes[0] != 0).into())),
            Self::Uuid | Self::Bool => Err(invalid),
            _ => Err(self.not_hashed()),
        }
    }

    const fn not_hashed(self) -> KeyError {
        KeyError::Unsupported { key_type: self, reason: "this key type is not supported yet" }
    }
}

/// An integer as `int8in` reads it: blanks around, one sign, decimal digits.
fn int(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for digit in digits {
        let digit = i64::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?);
        value = value.checked_mul(10)?;
        value = if negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    Some(value)
}

/// A uuid as `uuid_in` reads it: hyphens after any group of four digits, braces around.
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let text = match text {
        [b'{', inner @ .., b'}'] => inner,
        text => text,
    };
    let mut value = [0; 16];
    let mut rest = text;
    for (at, byte) in value.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else { return None };
        *byte = hex(*high)? << 4 | hex(*low)?;
        rest = after;
        if at % 2 == 1 && at < 15 && rest.first() == Some(&b'-') {
            rest = &rest[1..];
        }
    }
    rest.is_empty().then_some(value)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// A boolean as `boolin` reads it: any prefix of true, false, yes, no; on, of(f), 1, 0.
fn bool_value(text: &[u8]) -> Option<bool> {
    let word = text.trim_ascii().to_ascii_lowercase();
    let prefix = |of: &[u8]| !word.is_empty() && of.starts_with(&word);
    match &*word {
        b"on" | b"1" => Some(true),
        b"off" | b"of" | b"0" => Some(false),
        _ if prefix(b"true") || prefix(b"yes") => Some(true),
        _ if prefix(b"false") || prefix(b"no") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_value_hash_alike() {
        let hash = |key_type: KeyType, text: &str| key_type.hash(KeyInput::Text(text.as_bytes()));
        for text in ["5", "05", " +5 ", "\t5"] {
            assert_eq!(hash(KeyType::Int4, text), Ok(KeyHash::of_int(5)), "{text:?}");
        }
        for text in ["", "-", "5.0", "0x5", "99999999999"] {
            assert!(hash(KeyType::Int4, text).is_err(), "{text:?}");
        }
        assert_eq!(hash(KeyType::Int8, "-9223372036854775808"), Ok(KeyHash::of_int(i64::MIN)));
        let plain = hash(KeyType::Uuid, "a0eebc999c0b4ef8bb6d6bb9bd380a11");
        assert!(plain.is_ok());
        assert_eq!(hash(KeyType::Uuid, "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}"), plain);
        assert!(hash(KeyType::Uuid, "a0eebc99-").is_err());
        assert_eq!(hash(KeyType::Bool, "YES"), hash(KeyType::Bool, "t"));
    }

    #[test]
    fn binary_parameters_hash_as_text_does() {
        let five = Ok(KeyHash::of_int(-5));
        let param = |bytes: &[u8], type_oid| {
            KeyType::Int4.hash(KeyInput::Param { bytes, binary: true, type_oid })
        };
        assert_eq!(param(&(-5i32).to_be_bytes(), 0), five);
        assert_eq!(param(&(-5i64).to_be_bytes(), 20), five);
        assert_eq!(param(&(-5i16).to_be_bytes(), 21), five);
        assert!(param(&(-5i64).to_be_bytes(), 0).is_err());
        assert!(param(b"-5", 25).is_err());
    }
}
