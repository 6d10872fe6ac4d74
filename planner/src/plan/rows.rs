//! New rows, and writes that read other shards: what is made before a row's shard is known.

use pgherd_shard_map::{GroupId, TableName};
use smallvec::SmallVec;

use super::{Borrow, KeySource, Pull, Span, Target};

#[derive(Debug, Clone, PartialEq)]
pub struct SplitInsert {
    pub table: TableName,
    /// `None` for a reference table: every shard gets all rows.
    pub group: Option<GroupId>,
    /// Everything before the first row.
    pub head: Box<str>,
    pub rows: Box<[NewRow]>,
    /// Everything after the last row: ON CONFLICT, RETURNING, nothing.
    pub tail: SmallVec<[RowPart; 1]>,
    /// Values that are made once, before the rows are placed.
    pub makes: Box<[Make]>,
}

/// A row with its parentheses.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRow {
    pub parts: SmallVec<[RowPart; 1]>,
    pub key: RowKey,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RowPart {
    /// As the client wrote it.
    Text(Span),
    Words(Box<str>),
    /// The n-th literal of the statement.
    Literal(u32),
    /// A fresh value of the n-th of [`SplitInsert::makes`].
    Made(u16),
}

/// What says to which shard a new row goes.
#[derive(Debug, Clone, PartialEq)]
pub enum RowKey {
    Given(KeySource),
    Made(u16),
    Everywhere,
}

/// How a value of a new row is made that no shard may make for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Make {
    /// The next number of a sequence. Those of an identity column belong to whoever may insert
    /// into its table; others to whoever may use the sequence.
    Number {
        sequence: TableName,
        identity: Option<(TableName, Box<str>)>,
    },
    RandomUuid,
    /// The default of a column, computed on the home shard.
    Default {
        table: TableName,
        column: Box<str>,
    },
}

/// A write that each shard does on its own rows, with copies of all others that it reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Informed {
    /// Where it writes.
    pub target: Target,
    /// A reference table is written: all shards answer alike.
    pub same: bool,
    pub pulls: Box<[Pull]>,
    /// Relations of the home shard that are copied.
    pub home: Box<[HomeCopy]>,
    /// The client's statement with the copies' names in place of the tables'. Where it has WITH
    /// queries of its own, it begins with the comma before them.
    pub sql: Box<str>,
    /// Its WITH is RECURSIVE.
    pub recursive: bool,
    /// It reads [`MOMENT`](crate::MOMENT): the home shard's `now` and `stated`, the time of the
    /// statement.
    pub moment: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeCopy {
    /// The relation as the statement writes it.
    pub name: Box<str>,
    pub scratch: Box<str>,
}

/// A MERGE whose source rows are made on the home shard, and go to the shards with the statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Carried {
    /// What is copied, and the query of the source rows.
    pub borrow: Borrow,
    /// The client's statement with [`SOURCE`](crate::SOURCE) in the place of its source.
    pub sql: Box<str>,
    pub to: CarriedTo,
    /// Columns of numbers that come with the source's rows, for what new rows leave out.
    pub numbers: Box<[Make]>,
    /// It makes rows, whose key is the source's own column.
    pub inserts: bool,
    /// It changes rows that no source row matches: shards without source rows take part, too.
    pub everywhere: bool,
}

/// Which shards get a source row.
#[derive(Debug, Clone, PartialEq)]
pub enum CarriedTo {
    /// The one that has the target's rows of this column's value: no other row can match.
    ByKey {
        group: GroupId,
        column: Box<str>,
        /// The target and its distribution column.
        table: TableName,
        key: Box<str>,
        type_name: Box<str>,
    },
    /// The one that these keys name, of the rows that are looked for and of new ones.
    Keys(Target),
    /// All: each changes the rows that it has.
    All,
    /// All, which do the same: a reference table.
    Same,
    /// The target is not distributed.
    Home,
}

/// CREATE TABLE AS and SELECT INTO of a query that no server can answer alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeTable {
    /// Makes the table, empty.
    pub create: Box<str>,
    /// The INSERT that fills it.
    pub fill: Box<str>,
    /// IF NOT EXISTS: a relation of this name is left as it is.
    pub unless: Option<NewName>,
}

/// The name of a table that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewName {
    /// As it is written; `pg_temp` for a temporary one.
    pub schema: Option<Box<str>>,
    pub name: Box<str>,
}

/// WITH queries that write, one after another in one transaction, and then the statement itself over
/// what they have returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps {
    pub steps: Box<[WriteStep]>,
    pub last: Box<[StepPart]>,
    /// The tables that are written.
    pub writes: Box<[TableName]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteStep {
    /// The WITH query's name, with its columns if it says them.
    pub name: Box<str>,
    pub text: Box<[StepPart]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepPart {
    Text(Box<str>),
    /// The rows of the n-th step, as a WITH query.
    Rows(u16),
}

/// Rows that are made in a scratch table, `pg_temp.pgherd_new`, and then inserted where they belong.
#[derive(Debug, Clone, PartialEq)]
pub struct Gather {
    pub table: TableName,
    pub place: GatherPlace,
    /// The scratch table's columns; empty for all of the table's.
    pub columns: Box<[ScratchColumn]>,
    /// What is copied, and the statement that fills the scratch table.
    pub borrow: Borrow,
    /// `INSERT INTO` and the table, as written.
    pub head: Box<str>,
    /// Everything after the last row: ON CONFLICT, RETURNING, nothing.
    pub tail: Box<str>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ScratchColumn {
    pub name: Box<str>,
    /// Its default.
    pub make: Option<Make>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatherPlace {
    /// Each row to the shard of this field.
    Split { group: GroupId, field: u16 },
    /// A reference table.
    Everywhere,
    /// A table that is not distributed.
    Home,
}
