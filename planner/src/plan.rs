//! What the planner hands over: a [`Plan`] leaves nothing to decide at execution but which shards
//! the statement's keys name.
//!
//! A plan is made for one [`Epoch`] and may be kept and used again as far as [`Reuse`] allows. It
//! owns what it needs and refers to the statement by byte offsets ([`Span`]) and literal numbers,
//! so that one plan serves every statement of the same fingerprint.

use pgherd_shard_map::{Epoch, GroupId, KeyType, ShardId, TableName};
use smallvec::SmallVec;

/// Bytes `start..end` of the statement that was planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// The piece of its statement.
    #[must_use]
    pub fn of(self, sql: &str) -> &str {
        &sql[self.start as usize..self.end as usize]
    }
}

/// What the planner decided for one statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub epoch: Epoch,
    pub access: Access,
    pub reuse: Reuse,
    pub action: Action,
    /// What the router runs after this: distributing a table that was just made
    /// (`auto_distribute`).
    pub then: Option<ClusterFunction>,
    /// The command tag's first words (`SELECT`, `INSERT`, `CREATE TABLE`): metrics and logs.
    pub kind: StatementKind,
}

/// Whether a shard that ran this takes part in the commit as a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Provably writes nothing: only built-in functions that are known to be read-only.
    Read,
    /// May write (a SELECT that calls an unknown function included).
    Write,
    /// Changes the schema: routers load the map anew after the commit.
    Schema,
}

/// For which statements a plan is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// For every statement with the same fingerprint, whatever its literals.
    AnyLiterals,
    /// Only for the very same text: a literal decided something (LIMIT, a rewritten statement).
    SameText,
    /// Not worth keeping (DDL, bulk INSERT) or not sound to keep.
    Once,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatementKind {
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    Copy,
    Ddl,
    Transaction,
    Session,
    Explain,
    Utility,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Tier 1, route: the statement's own text, untouched, to one shard.
    One(OneShard),
    /// Tier 2, scatter: to several shards, the answers merged as `merge` says.
    Many(ManyShards),
    /// Tier 3, borrow PostgreSQL: copies of rows on one server, which runs the statement.
    Borrow(Borrow),
    /// A multi-row INSERT, its rows grouped by shard.
    Insert(SplitInsert),
    /// CREATE or ALTER ROLE with a password, on every shard.
    Role(Role),
    CopyIn(CopyIn),
    /// `COPY … TO STDOUT` of a distributed table or of a query over several shards.
    CopyOut(CopyOut),
    /// BEGIN, COMMIT, SET, SHOW, …: changes or reads the session, answered by the router where it
    /// can be.
    Session(SessionStatement),
    /// Runs on the home shard with its own text, and its server's session matters beyond the
    /// statement.
    Stateful(Stateful),
    /// `SELECT create_distributed_table(…)` and its kin, run by the router.
    Cluster(ClusterFunction),
    Explain(Box<Explain>),
    /// A query of `pgherd.transactions`, whose rows the router gathers.
    Live(Live),
    /// No statement at all: EmptyQueryResponse.
    Empty,
}

#[derive(Debug, Clone, PartialEq)]
pub struct OneShard {
    pub target: Target,
    /// What to do when the keys name several shards (`IN` lists, `= ANY`, a key that cannot be
    /// hashed); `None` refuses.
    pub otherwise: Option<Box<Otherwise>>,
}

/// What a statement does that turns out to need several shards.
#[derive(Debug, Clone, PartialEq)]
pub enum Otherwise {
    Many(ManyShards),
    /// What [`crate::plan_borrowed`] says of the text: made when it is needed, since it holds the
    /// statement's literals, which must not cost every routed statement its place in the cache.
    Borrow,
}

/// Copies of what the statement reads, on the home shard, and the statement that runs over them.
#[derive(Debug, Clone, PartialEq)]
pub struct Borrow {
    /// What no shard can answer by itself, for people: `window functions`.
    pub why: Box<str>,
    pub pulls: Box<[Pull]>,
    /// The client's statement with scratch tables in place of the distributed ones.
    pub sql: Box<str>,
    /// It reads tables of the home shard, or reference tables, where they are.
    pub local: bool,
    /// It has a GROUP BY, where PostgreSQL lets a primary key stand for the table's other columns:
    /// the copies need theirs.
    pub grouped: bool,
}

/// One table that is copied.
#[derive(Debug, Clone, PartialEq)]
pub struct Pull {
    pub table: TableName,
    /// The scratch table's name, in `pg_temp`.
    pub scratch: Box<str>,
    pub columns: Box<[Box<str>]>,
    /// What `filter` calls the table.
    pub alias: Box<str>,
    /// A condition that rows must pass, as SQL.
    pub filter: Option<Box<str>>,
    /// Shards that may hold rows which matter.
    pub target: Target,
    /// Its columns have a binary form that every server understands.
    pub binary: bool,
}

/// How the shards of a statement are found at execution.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// The home shard: tables that nobody distributed, sequences, system catalogs.
    Home,
    /// Any shard gives the same answer (reference tables only, constants). The router takes one
    /// that the transaction uses already.
    Any,
    /// Pinned by a setting or a hint.
    Shard(ShardId),
    /// The shards of these keys. An empty list, or NULL keys only, can match no row: any one
    /// shard gives the right (empty) answer with the right columns.
    Keys {
        group: GroupId,
        keys: Box<[KeySource]>,
        why: KeyUse,
    },
    All,
}

/// What a key that cannot be hashed, or is NULL, means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// `key = value`: NULL matches nothing; a value that cannot be hashed goes to `otherwise`.
    Filter,
    /// The key of a new row: NULL is 23502, a value that cannot be hashed is refused.
    NewRow,
}

/// Where the value of a key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The n-th literal that [`crate::Scan::literals`] lists (from 0), with a minus before it or
    /// not.
    Literal {
        index: u32,
        negative: bool,
    },
    /// `$n`, from 1 as in SQL. `cast_oid` is the type of a cast directly on it, or 0.
    Param {
        number: u16,
        cast_oid: u32,
    },
    /// `= ANY($n)`: every element of an array parameter.
    ParamArray {
        number: u16,
        cast_oid: u32,
    },
    Null,
}

/// Several shards, one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ManyShards {
    pub target: Target,
    /// The text that every shard gets; `None` is the statement's own, untouched.
    pub sql: Option<Box<str>>,
    pub merge: Merge,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Merge {
    /// Every shard does the same and the client sees one answer, the home shard's (or that of the
    /// first shard): DDL, writes to reference tables, SET. Tags must agree.
    Same,
    /// As [`Merge::Same`], but the home shard alone fills the new table: the others get this text.
    HomeFills { elsewhere: Box<str> },
    /// As [`Merge::Same`], but on each shard outside any transaction block: VACUUM,
    /// CREATE INDEX CONCURRENTLY. Refused inside one, as PostgreSQL does.
    EachAlone,
    /// UPDATE and DELETE: counts are added up, RETURNING rows follow each other.
    Sum,
    /// Rows in any order, as they arrive; the count in the tag is that of the rows sent on.
    Concat { limit: Limit },
    /// Each shard's rows are in order; merge them.
    Ordered(Ordered),
    /// Collect the shards' partial rows (bounded) and let PostgreSQL finish on one shard.
    Combine(Combine),
}

/// LIMIT and OFFSET, applied by the router after the merge. Shards get `LIMIT count + offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub count: Option<RowCount>,
    pub offset: Option<RowCount>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowCount {
    Rows(u64),
    /// `$n`, from 1; a NULL means no limit (no offset).
    Param(u16),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Ordered {
    /// Compared in turn. Columns are positions (from 0) in the shards' rows.
    pub keys: Box<[SortKey]>,
    /// How many of the last columns were added for sorting and are cut off before the client
    /// sees the row.
    pub hidden: u16,
    pub limit: Limit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortKey {
    pub column: u16,
    pub descending: bool,
    pub nulls_first: bool,
    /// `COLLATE …` as written, where the statement has one on this key.
    pub collation: Option<Box<str>>,
}

/// The shards' rows become arrays, and one shard runs the final statement over them:
/// `SELECT … FROM unnest($1::T0[], $2::T1[], …) AS pgherd_partial(c0, c1, …) …`. So sums, averages,
/// text order and HAVING are PostgreSQL's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Combine {
    /// How many columns each partial row has: `c0`, `c1`, …
    pub columns: u16,
    /// The final statement.
    pub statement: Box<[Piece]>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    Text(Box<str>),
    /// Here comes `unnest(…) AS pgherd_partial(…)`.
    Source,
    /// Here comes the SQL name of the type that partial column n has on the shards.
    TypeOf(u16),
    /// Here comes the value of `$n` (from 1) as a literal.
    Param(u16),
}

#[derive(Debug, Clone, PartialEq)]
pub struct SplitInsert {
    pub table: TableName,
    pub group: GroupId,
    /// Everything before the first row.
    pub head: Span,
    /// Each row with its parentheses.
    pub rows: Box<[(Span, KeySource)]>,
    /// Everything after the last row: ON CONFLICT, RETURNING, nothing.
    pub tail: Span,
}

/// The same text would give each shard a verifier with a salt of its own, and a login could not be
/// passed on: the router makes one verifier and puts it in the literal's place.
#[derive(Clone, PartialEq, Eq)]
pub struct Role {
    /// The literal after PASSWORD, and its value.
    pub literal: Span,
    pub password: Box<str>,
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Role").field("literal", &self.literal).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct CopyIn {
    pub table: TableName,
    pub rows: CopyRows,
    pub format: CopyFormat,
    /// Number of columns in each row.
    pub columns: u16,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CopyRows {
    /// Each row goes to the shard of its key: the field with this number (from 0).
    Split { group: GroupId, key_field: u16, key_type: KeyType },
    /// Every row goes to every shard (reference table).
    Everywhere,
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

#[derive(Debug, Clone, PartialEq)]
pub struct CopyOut {
    pub target: Target,
    pub format: CopyFormat,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionStatement {
    /// The statement's own text is replayed on each shard that joins. `read_only` and
    /// `isolation` are what the text says, if it says so.
    Begin {
        start_word: BeginWord,
        isolation: Option<Isolation>,
        read_only: Option<bool>,
    },
    Commit {
        and_chain: bool,
    },
    Rollback {
        and_chain: bool,
    },
    Savepoint(Box<str>),
    ReleaseSavepoint(Box<str>),
    RollbackToSavepoint(Box<str>),
    /// SET [SESSION|LOCAL]. `name` in lower case. `value` is the text after TO or =, as written;
    /// `None` is DEFAULT.
    Set {
        name: Box<str>,
        value: Option<Box<str>>,
        local: bool,
    },
    /// RESET name; `None` is ALL.
    Reset(Option<Box<str>>),
    /// SHOW name, `ALL` included.
    Show(Box<str>),
    /// SET TRANSACTION …: replayed on each shard that joins.
    SetTransaction {
        isolation: Option<Isolation>,
    },
    /// SET CONSTRAINTS …: replayed, too.
    SetConstraints,
    /// SET SESSION CHARACTERISTICS AS TRANSACTION …: settings by another name.
    SetCharacteristics(Box<[(Box<str>, Box<str>)]>),
    Discard(Discard),
    /// SQL-level PREPARE: types as written, and the statement.
    Prepare {
        name: Box<str>,
        types: Box<[Box<str>]>,
        statement: Span,
    },
    /// SQL-level EXECUTE, with its arguments.
    Execute {
        name: Box<str>,
        arguments: Box<[Span]>,
    },
    /// SQL-level DEALLOCATE; `None` is ALL.
    Deallocate(Option<Box<str>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    All,
    Plans,
    Sequences,
    Temp,
}

/// How a server's session matters to a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stateful {
    /// It may leave something there, or take it away: temporary tables, advisory locks, WITH HOLD
    /// cursors, LISTEN.
    Leaves,
    /// CALL and DO: as `Leaves`, and they may change settings.
    Procedure,
    /// CLOSE: it takes something away where a cursor is held.
    Closes,
    /// `set_config(…)`: settings that the client has from now on. `anywhere`: it does nothing else,
    /// so any shard can run it.
    Settings { calls: Box<[SetConfig]>, anywhere: bool },
    /// `currval()`, `lastval()`: true only where the transaction has called `nextval()`.
    Sequences,
}

/// One call of `set_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetConfig {
    pub name: SettingName,
    pub local: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingName {
    Known(Box<str>),
    /// `$n`, from 1.
    Param(u16),
}

/// What the command tag says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginWord {
    Begin,
    StartTransaction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// Functions that the router answers. Table names are resolved through search_path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterFunction {
    CreateDistributedTable {
        table: TableName,
        column: Box<str>,
        colocate_with: Option<TableName>,
        distribution: Box<str>,
    },
    CreateReferenceTable {
        table: TableName,
    },
    UndistributeTable {
        table: TableName,
    },
    /// What became of a transaction over several shards.
    TransactionOutcome {
        gid: Box<str>,
    },
}

/// How the rows become a part of the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Where their WITH goes, or their part of the statement's own.
    pub head: u32,
    pub extends_with: bool,
    /// The view's schema with its dot, wherever it stands: it is left out.
    pub schemas: Box<[Span]>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    /// `EXPLAIN (options)` with everything before the statement, for the shards.
    pub head: Span,
    /// The statement that is explained, as a span of the whole text.
    pub statement: Span,
    pub options: ExplainOptions,
    /// The distributed tables that the statement names, in its order.
    pub tables: Box<[KeyColumn]>,
    pub plan: Plan,
}

/// Those that change what the router itself says; shards read the others out of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExplainOptions {
    pub analyze: bool,
    pub verbose: bool,
    pub costs: bool,
    /// Not said: as `analyze`.
    pub summary: Option<bool>,
    pub format: ExplainFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExplainFormat {
    Text,
    Json,
    Yaml,
    Xml,
}

/// A distributed table and the column that says where its rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    pub table: TableName,
    pub group: GroupId,
    pub column: Box<str>,
}

impl std::fmt::Display for KeyColumn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.table.name, self.column)
    }
}

/// The shards of one execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardSet {
    Home,
    /// Any one shard.
    Any,
    /// Ascending, no doubles, never empty.
    Some(SmallVec<[ShardId; 4]>),
    All,
}

/// One parameter of a Bind message.
#[derive(Debug, Clone, Copy)]
pub struct ParamValue<'a> {
    /// `None` is NULL.
    pub bytes: Option<&'a [u8]>,
    pub binary: bool,
    /// As declared in Parse, 0 where the server decides.
    pub type_oid: u32,
}

/// Parameters by number, from 1. The simple protocol has none.
pub trait Params {
    fn param(&self, number: u16) -> Option<ParamValue<'_>>;
}

/// The simple protocol's parameters.
#[derive(Debug, Clone, Copy)]
pub struct NoParams;

impl Params for NoParams {
    fn param(&self, _number: u16) -> Option<ParamValue<'_>> {
        None
    }
}
