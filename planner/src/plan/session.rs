//! Statements about the session itself: transactions, settings, cursors.

use super::{Plan, Span};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionStatement {
    /// The statement's own text is replayed on each shard that joins. `read_only` and
    /// `isolation` are what the text says, if it says so.
    Begin {
        start_word: BeginWord,
        isolation: Option<Isolation>,
        read_only: Option<bool>,
        /// As written: `ISOLATION LEVEL …, READ ONLY`.
        modes: Span,
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
    SetConstraints {
        /// Not ALL: a server says whether they exist.
        named: bool,
    },
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
    /// `CREATE TABLE … AS EXECUTE …`: all before that word, and WITH [NO] DATA.
    CreateAsExecute {
        create: Span,
        name: Box<str>,
        arguments: Box<[Span]>,
        data: Span,
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
    /// CLOSE: it takes something away where a cursor is held.
    Closes,
    /// `set_config(…)`: settings that the client has from now on. `anywhere`: it does nothing else,
    /// so any shard can run it.
    Settings { calls: Box<[SetConfig]>, anywhere: bool },
    /// `currval()`, `lastval()`: true only where the transaction has called `nextval()`.
    Sequences,
}

/// What a statement may change in the sessions of its servers, out of sight: they are asked
/// afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touches {
    /// Settings that no catalog lists.
    pub settings: Box<[Box<str>]>,
    /// There may be others, whose names nobody knows: the servers stay with the session.
    pub stays: bool,
    /// Other literals may mean others.
    pub(crate) literals: bool,
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
