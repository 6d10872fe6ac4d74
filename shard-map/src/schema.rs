//! What the router knows of tables: who is distributed by which column, and what else exists.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{GroupId, KeyType, Placement, ShardId};

/// A relation's name with its schema, both as stored in the system catalog (not quoted).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    pub schema: Box<str>,
    pub name: Box<str>,
}

/// One column, in the table's order (dropped columns left out).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: Box<str>,
    /// As `format_type` prints it, for example `integer` or `character varying(20)`.
    pub type_name: Box<str>,
    /// The column's collation where it is not the database's default one.
    pub collation: Option<Box<str>>,
    /// What PostgreSQL puts there where a statement says nothing.
    pub default: ColumnDefault,
}

/// Where the value of a column comes from that a statement leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnDefault {
    /// NULL.
    None,
    Constant,
    /// `nextval()` of a sequence, or an identity column.
    Sequence(ColumnSequence),
    /// `gen_random_uuid()`
    RandomUuid,
    /// Anything else: it may differ by time, session, server or call.
    Expression,
    /// Made of the row's other columns.
    Generated,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSequence {
    #[serde(flatten)]
    pub name: TableName,
    pub identity: Identity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// A plain default.
    None,
    ByDefault,
    Always,
}

/// A distributed or reference table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: TableName,
    pub kind: TableKind,
    pub columns: Box<[Column]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Rows are spread by the key. `key` is the index of the distribution column in
    /// [`Table::columns`]; past its end where no column shows it, as views may be.
    Distributed { key: usize, key_type: KeyType, group: GroupId },
    /// Every shard has all rows.
    Reference,
}

/// How values of a group's key are mapped to shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    Hash,
    Range,
    List,
}

/// Tables of one group share key type and placement, so rows of one key are on one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColocationGroup {
    pub id: GroupId,
    pub key_type: KeyType,
    pub placement: Placement,
}

/// `start <= value < end` in the order of the key's type; `None` is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueRange {
    pub start: Option<Box<str>>,
    pub end: Option<Box<str>>,
    pub shard: ShardId,
}

/// Any relation of a user schema, as the home shard lists them: what a name in a statement is.
#[derive(Debug, Clone)]
pub struct Relation {
    pub name: TableName,
    pub kind: RelationKind,
}

#[derive(Debug, Clone)]
pub enum RelationKind {
    /// A distributed or reference table, or a partition or inheritance child of one.
    Sharded(Arc<Table>),
    /// A table that nobody distributed, a sequence, a materialized view, a foreign table, or a
    /// view over only such: it lives on the home shard.
    Home,
    /// A view that reads distributed tables.
    View(Arc<View>),
    /// What reads a distributed table and has no query that planning could look at: a materialized
    /// view, a table with a rule, a view whose functions read, one that was locked while the map
    /// was loaded. Running it on one shard would be wrong.
    ViewOverDistributed,
    /// A view that reads reference tables and home tables, or reference tables only.
    ViewOverReference,
}

/// A view that reads distributed tables, as PostgreSQL's own catalog describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub name: TableName,
    pub columns: Box<[Column]>,
    pub body: ViewBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewBody {
    /// As PostgreSQL prints it; its names need no search_path.
    pub query: Box<str>,
    /// Every relation that it names.
    pub reads: Box<[TableName]>,
    /// The functions that it calls and that are not PostgreSQL's own, by name alone.
    pub functions: Box<[Box<str>]>,
    /// One of these is volatile: it could write.
    pub may_write: bool,
    /// Aggregates or window functions are somewhere in it.
    pub folds: bool,
    /// A table under it, through whatever views, has row security, which asks who reads.
    pub row_security: bool,
    /// Writes to it are writes to the one table that it reads, with nothing beside.
    pub updatable: bool,
}

/// An identifier as SQL text, always in quotes.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl TableName {
    /// As SQL text that means the same whatever the search_path.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    #[must_use]
    pub fn new(schema: &str, name: &str) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

impl Column {
    /// Has a default, is an identity or a generated column.
    #[must_use]
    pub fn has_default(&self) -> bool {
        self.default != ColumnDefault::None
    }
}

impl Table {
    /// The distribution column of a distributed table.
    #[must_use]
    pub fn key_column(&self) -> Option<&Column> {
        match self.kind {
            TableKind::Distributed { key, .. } => self.columns.get(key),
            TableKind::Reference => None,
        }
    }
}

impl fmt::Display for TableName {
    /// `schema.name`, for people; not quoted, so never for SQL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}
