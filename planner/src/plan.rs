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
    /// Where the router counts its executions; 0 is for all that have no place of their own.
    pub place: u32,
    /// What a hint in the statement wants of its reads.
    pub consistency: Option<ReadConsistency>,
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
    /// The client's statement with scratch tables in place of the distributed ones.
    pub sql: Box<str>,
    /// It reads tables of the home shard, or reference tables, where they are.
    pub local: bool,
    /// It has a GROUP BY, where PostgreSQL lets a primary key stand for the table's other columns:
    /// the copies need theirs.
    pub grouped: bool,
    /// Views whose queries stand in `sql` in the place of their names: who runs it must be allowed
    /// to read them.
    pub views: Box<[TableName]>,
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
    /// As [`Merge::Same`], but only inside a transaction block: LOCK TABLE.
    SameInBlock,
    /// As [`Merge::Same`], but the home shard alone fills the new table: the others get this text.
    HomeFills { elsewhere: Box<str> },
    /// As [`Merge::Same`], but on each shard outside any transaction block: VACUUM,
    /// CREATE INDEX CONCURRENTLY. Refused inside one, as PostgreSQL does.
    EachAlone,
    /// UPDATE and DELETE: counts are added up, RETURNING rows follow each other.
    Sum,
    /// As [`Merge::Sum`], and then rows whose new keys are other shards' go there.
    Rekeyed(Rekey),
    /// Rows in any order, as they arrive; the count in the tag is that of the rows sent on.
    Concat { limit: Limit },
    /// Each shard's rows are in order; merge them.
    Ordered(Ordered),
    /// Collect the shards' partial rows (bounded) and let PostgreSQL finish on one shard.
    Combine(Combine),
}

/// An UPDATE that sets the distribution column.
#[derive(Debug, Clone, PartialEq)]
pub struct Rekey {
    pub table: TableName,
    pub group: GroupId,
    /// The column's place in the table, from 0.
    pub key: u16,
    /// What every row gets, where that is one value.
    pub to: Option<KeySource>,
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

/// Each shard sorts, and sends what it has sorted by in columns before the client's own; the router
/// merges the rows as they arrive, in bounded memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered {
    /// The shards' first columns, which the client does not see. Compared in turn.
    pub keys: Box<[SortKey]>,
    /// Of rows that are equal in so many first keys the first one only; 0 keeps all.
    pub distinct: u16,
    /// How many columns the client gets, where `keys` were made from what the map knows of them.
    pub width: Option<u16>,
    pub limit: Limit,
    /// FETCH … WITH TIES: rows that are equal to the last one follow.
    pub ties: bool,
    /// The shards' statement around the keys: `SELECT DISTINCT `, then the client's columns up to
    /// the end of HAVING, then LIMIT and FOR UPDATE.
    pub text: [Box<str>; 3],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortKey {
    pub expression: Box<str>,
    pub descending: bool,
    pub nulls_first: bool,
    /// Its collation, where that is not the database's default one.
    pub collation: Option<Box<str>>,
    /// The client did not ask for this order, so that any order of its values will do.
    pub free: bool,
}

impl Ordered {
    /// What each shard runs. Free keys that are `text` may be sorted by bytes, which the router can
    /// compare: `bytewise` says which keys are.
    #[must_use]
    pub fn shard_query(&self, bytewise: impl Fn(usize) -> bool) -> String {
        let [head, body, tail] = &self.text;
        let keys = self.keys.iter().enumerate().map(|(number, key)| match bytewise(number) {
            true => format!("({}) COLLATE \"C\"", key.expression),
            false => key.expression.to_string(),
        });
        let order = self.keys.iter().enumerate().map(|(number, key)| {
            let direction = if key.descending { " DESC" } else { "" };
            let nulls = match (key.nulls_first == key.descending, key.nulls_first) {
                (true, _) => "",
                (false, true) => " NULLS FIRST",
                (false, false) => " NULLS LAST",
            };
            format!("{}{direction}{nulls}", number + 1)
        });
        let keys: Vec<String> = keys.collect();
        let order: Vec<String> = order.collect();
        let comma = if body.starts_with(' ') { "" } else { ", " };
        format!("{head}{}{comma}{body} ORDER BY {}{tail}", keys.join(", "), order.join(", "))
    }
}

/// The shards' rows become arrays, and one shard runs the final statement over them:
/// `SELECT … FROM unnest($1::T0[], $2::T1[], …) AS pgherd_partial(c0, c1, …) …`. So averages, text
/// order and HAVING are PostgreSQL's own. Where the router can compare the groups and add up what the
/// shards send, they send their groups in order, and the arrays hold each group once, a part of
/// them at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Combine {
    /// What the rows are grouped by: the first partial columns.
    pub groups: Box<[Box<str>]>,
    /// How the other partial columns of one group are added up.
    pub sums: Box<[PartialSum]>,
    /// The final statement.
    pub statement: Box<[Piece]>,
    /// It has to see all groups at once: ORDER BY, LIMIT, DISTINCT.
    pub whole: bool,
    /// The shards' statement around the groups: the other columns up to the end of WHERE, and what
    /// follows GROUP BY.
    pub text: [Box<str>; 2],
}

/// Of which aggregate a partial column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartialSum {
    /// A count or a sum.
    Sum,
    Min,
    Max,
    And,
    Or,
    /// Only its type counts.
    Any,
}

impl Combine {
    /// How many columns each partial row has: `c0`, `c1`, …
    #[must_use]
    pub fn columns(&self) -> usize {
        self.groups.len() + self.sums.len()
    }

    /// What each shard runs. With `bytewise` the groups come in order, those for which it says so
    /// in the order of their bytes.
    #[must_use]
    pub fn shard_query(&self, bytewise: Option<&dyn Fn(usize) -> bool>) -> String {
        let [body, tail] = &self.text;
        let groups = self.groups.iter().enumerate().map(|(number, group)| {
            match bytewise.is_some_and(|bytewise| bytewise(number)) {
                true => format!("({group}) COLLATE \"C\""),
                false => group.to_string(),
            }
        });
        let places = (1..=self.groups.len()).map(|place| place.to_string());
        let places = places.collect::<Vec<String>>().join(", ");
        let by = match (self.groups.is_empty(), bytewise) {
            (true, _) => String::new(),
            (false, None) => format!(" GROUP BY {places}"),
            (false, Some(_)) => format!(" GROUP BY {places} ORDER BY {places}"),
        };
        let groups = groups.collect::<Vec<String>>().join(", ");
        let comma = if groups.is_empty() || self.sums.is_empty() { "" } else { ", " };
        format!("SELECT {groups}{comma}{body}{by}{tail}")
    }
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
    /// The client's statement with the copies' names in place of the tables'.
    pub sql: Box<str>,
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

#[derive(Debug, Clone, PartialEq)]
pub enum CursorStatement {
    /// Over what the home shard has: a cursor of that server's own.
    DeclareAtHome {
        name: Box<str>,
        hold: bool,
    },
    Declare(Box<Declare>),
    Move(Move),
    /// `None` is ALL.
    Close(Option<Box<str>>),
}

/// A cursor that the router takes care of.
#[derive(Debug, Clone, PartialEq)]
pub struct Declare {
    pub name: Box<str>,
    pub binary: bool,
    /// SCROLL, NO SCROLL, or neither.
    pub scroll: Option<bool>,
    pub hold: bool,
    /// Its query, as a span of the whole text.
    pub query: Span,
    /// The query's.
    pub plan: Plan,
}

/// FETCH and MOVE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub name: Box<str>,
    pub step: Step,
    /// FETCH.
    pub shows: bool,
}

/// Where a cursor goes, and the rows that are fetched on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many rows; `None` is ALL.
    Forward(Option<u64>),
    Backward(Option<u64>),
    /// To this row; from the end where it is negative.
    Absolute(i64),
    Relative(i64),
}

impl Step {
    /// So many rows, backward where that is negative.
    #[must_use]
    pub fn forward(rows: i64) -> Self {
        match u64::try_from(rows) {
            Ok(rows) => Self::Forward(Some(rows)),
            Err(_) => Self::Backward(Some(rows.unsigned_abs())),
        }
    }
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
}

/// The simple protocol's parameters.
#[derive(Debug, Clone, Copy)]
pub struct NoParams;

impl Params for NoParams {
    fn param(&self, _number: u16) -> Option<ParamValue<'_>> {
        None
    }
}
