//! What the planner hands over: a [`Plan`] leaves nothing to decide at execution but which shards
//! the statement's keys name.
//!
//! A plan is made for one [`Epoch`] and may be kept and used again as far as [`Reuse`] allows. It
//! owns what it needs and refers to the statement by byte offsets ([`Span`]) and literal numbers,
//! so that one plan serves every statement of the same fingerprint.

mod copy;
mod many;
mod rows;
mod session;

use pgherd_shard_map::{Epoch, GroupId, ShardId, TableName};
use smallvec::SmallVec;

pub use copy::*;
pub use many::*;
pub use rows::*;
pub use session::*;

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
    /// What else a change of the schema needs.
    pub then: Option<Then>,
    /// The command tag's first words (`SELECT`, `INSERT`, `CREATE TABLE`): metrics and logs.
    pub kind: StatementKind,
    /// Where the router counts its executions; 0 is for all that have no place of their own.
    pub place: u32,
    /// What a hint in the statement wants of its reads.
    pub consistency: Option<ReadConsistency>,
    /// What it may do to the sessions of its servers.
    pub touches: Option<Box<Touches>>,
}

/// What reads over several shards promise: `pgherd.read_consistency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadConsistency {
    /// Each shard's own snapshot.
    Shard,
    /// Every statement sees a transaction on all of its shards or on none.
    Atomic,
    /// So does the whole transaction, in one cut: it is REPEATABLE READ unless it says otherwise.
    Snapshot,
}

impl ReadConsistency {
    /// Without a setting.
    pub const DEFAULT: Self = Self::Shard;

    /// A value in lower case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Shard, Self::Atomic, Self::Snapshot].into_iter().find(|one| one.as_str() == word)
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::Atomic => "atomic",
            Self::Snapshot => "snapshot",
        }
    }
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
    /// An INSERT whose rows are made on the home shard before they go to theirs.
    Gather(Gather),
    /// UPDATE or DELETE that reads rows of other shards.
    Informed(Informed),
    /// MERGE with rows of other shards.
    Carried(Carried),
    /// WITH queries that write on several shards.
    Steps(Steps),
    /// A table that is made and filled from a query over several shards.
    MadeTable(MadeTable),
    /// CREATE or ALTER ROLE with a password, on every shard.
    Role(Role),
    CopyIn(CopyIn),
    /// `COPY … TO STDOUT` of a distributed table or of a query over several shards.
    CopyOut(CopyOut),
    /// `COPY (query) TO STDOUT` whose rows the router itself writes.
    CopyQuery(Box<CopyQuery>),
    /// BEGIN, COMMIT, SET, SHOW, …: changes or reads the session, answered by the router where it
    /// can be.
    Session(SessionStatement),
    /// Runs on the home shard with its own text, and its server's session matters beyond the
    /// statement.
    Stateful(Stateful),
    /// `SELECT create_distributed_table(…)` and its kin, run by the router.
    Cluster(ClusterFunction),
    Explain(Box<Explain>),
    /// DECLARE, FETCH, MOVE, CLOSE.
    Cursor(CursorStatement),
    /// A query of views whose rows the router gathers.
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
    /// Temporary relations of the client's session, which no other connection sees: all of their
    /// columns are copied, which are not known here.
    pub own: Box<[Pull]>,
    /// The client's statement with scratch tables in place of the distributed ones.
    pub sql: Box<str>,
    /// It reads tables of the home shard, or reference tables, where they are.
    pub local: bool,
    /// It calls functions of users that say that they only read: they are held to it.
    pub held_to_reading: bool,
    /// It has a GROUP BY, where PostgreSQL lets a primary key stand for the table's other columns:
    /// the copies need theirs.
    pub grouped: bool,
    /// Views whose queries stand in `sql` in the place of their names: who runs it must be allowed
    /// to read them.
    pub views: Box<[TableName]>,
    /// Ways that copy less, where the tables that they copy are small.
    pub broadcasts: Box<[Broadcast]>,
}

/// Copies of some tables on each shard of the others, where the statement then runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Broadcast {
    pub tables: Box<[CopiedTable]>,
    /// The parameter of the first column's values; others follow.
    pub first: u16,
    /// The client's statement with the copies' names in place of those tables.
    pub sql: Box<str>,
    /// What each shard does of it, and what is made of the answers.
    pub many: ManyShards,
    /// It may need a primary key, which the copies have not.
    pub needs_key: bool,
}

/// A table whose rows go with the statement: an array for each column.
#[derive(Debug, Clone, PartialEq)]
pub struct CopiedTable {
    pub pull: Pull,
    /// As `pull` has them.
    pub columns: Box<[CopiedColumn]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedColumn {
    /// Of its type.
    pub oid: u32,
    /// The type's name in `pg_catalog`.
    pub type_name: &'static str,
    /// What the column's type has beside that, in parentheses.
    pub modifiers: Box<str>,
    /// Equal values have equal bytes.
    pub exact: bool,
    /// The statement compares it with something.
    pub compared: bool,
}

/// A condition with parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundCondition {
    pub sql: Box<str>,
    /// The statement names each of them only here: so their types, where nobody has declared any, are
    /// what PostgreSQL makes of literals in their places.
    pub alone: bool,
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
    /// More of them, which name parameters: rows that do not pass may be left out where the values
    /// can be told a shard.
    pub bound: Box<[BoundCondition]>,
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
    /// So many first ones are [`KeyUse::Filter`]s, those behind them keys of new rows.
    Both { filters: u32 },
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

/// What the catalog has to be told or asked beside a change of the schema, in its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// After it: the table was just made (`auto_distribute`).
    Distribute(ClusterFunction),
    /// Before it.
    Families(Box<[FamilyChange]>),
    /// Before it: a value of this enum, as it is written, gets another name.
    Labels(Box<str>),
}

/// A partition or an inheritance child comes or goes; the parent is sharded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyChange {
    pub parent: TableName,
    pub child: TableName,
    pub joins: bool,
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
    /// With its rows, while it is used.
    CreateDistributedConcurrently {
        table: TableName,
        column: Box<str>,
        colocate_with: Option<TableName>,
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

/// A view of what is in no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LiveView {
    Clients,
    Pools,
    Servers,
    Statements,
    Transactions,
}

/// How the rows become a part of the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    pub views: Box<[LiveView]>,
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

    /// Where texts are not UTF-8 but of one byte for each character: what these are.
    fn high_bytes(&self) -> Option<&HighBytes> {
        None
    }
}

/// The characters of the bytes from 0x80 on; U+FFFD where there is none.
#[derive(Debug, Clone)]
pub struct HighBytes(pub [char; 128]);

impl HighBytes {
    #[must_use]
    pub fn character(&self, byte: u8) -> Option<char> {
        match byte.checked_sub(0x80) {
            None => Some(char::from(byte)),
            Some(at) => {
                Some(self.0[usize::from(at)]).filter(|found| *found != char::REPLACEMENT_CHARACTER)
            }
        }
    }

    /// `None` where a byte has no character.
    #[must_use]
    pub fn text(&self, bytes: &[u8]) -> Option<String> {
        bytes.iter().map(|byte| self.character(*byte)).collect()
    }
}

/// The simple protocol's parameters.
#[derive(Debug, Clone, Copy)]
pub struct NoParams;

impl Params for NoParams {
    fn param(&self, _number: u16) -> Option<ParamValue<'_>> {
        None
    }
}
