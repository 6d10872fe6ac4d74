//! The value of a distribution column, as it arrives on the wire, and the types it may have.
//!
//! Spellings of one value must give one hash: `5`, `'05'`, `5.0` of a numeric column, text and
//! binary parameters. What cannot be read with certainty (a timestamptz without a zone, a date in
//! another DateStyle) is refused with [`KeyError`], never guessed.

use thiserror::Error;

use serde::{Deserialize, Serialize};

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
