//! COPY of several shards, in and out.

use pgherd_shard_map::{GroupId, KeyType, TableName};

use super::{Make, Plan, Span, Target};
use crate::Encoding;

#[derive(Debug, Clone, PartialEq)]
pub struct CopyIn {
    pub table: TableName,
    pub rows: CopyRows,
    pub format: CopyFormat,
    /// Of the data; a binary one's is the session's.
    pub encoding: Encoding,
    /// Number of columns in each row.
    pub columns: u16,
    /// Values that are made once and written before each row.
    pub makes: Box<[CopyMake]>,
    /// What shards get where values are made: the statement with their columns before its own.
    pub sql: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CopyMake {
    pub column: Box<str>,
    pub make: Make,
    /// How long its value is in the binary format.
    pub bytes: u8,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CopyRows {
    /// Each row goes to the shard of its key.
    Split { group: GroupId, key: CopyKey, key_type: KeyType },
    /// Every row goes to every shard (reference table).
    Everywhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyKey {
    /// The field with this number (from 0).
    Field(u16),
    /// The value of this number of [`CopyIn::makes`].
    Made(u16),
}

/// COPY of a query whose rows several shards make together.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyQuery {
    pub query: Span,
    pub plan: Plan,
    /// `TO STDOUT` and what follows.
    pub tail: Span,
    pub format: CopyFormat,
    pub encoding: Encoding,
    pub force_quote: ForceQuote,
}

/// Columns whose values CSV puts in quotes, needed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForceQuote {
    All,
    Columns(Box<[Box<str>]>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyFormat {
    Text {
        delimiter: u8,
        null: Box<[u8]>,
        header: bool,
    },
    Csv {
        delimiter: u8,
        quote: u8,
        escape: u8,
        null: Box<[u8]>,
        header: bool,
        force_not_null_key: bool,
        force_null_key: bool,
    },
    Binary,
}

impl CopyFormat {
    /// The first line names the columns.
    #[must_use]
    pub fn has_header(&self) -> bool {
        match self {
            Self::Text { header, .. } | Self::Csv { header, .. } => *header,
            Self::Binary => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct CopyOut {
    pub target: Target,
    pub format: CopyFormat,
}
