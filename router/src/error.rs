//! What can go wrong in a session, by what it means for the client's connection.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use pgherd_planner::PlanError;

/// An error in PostgreSQL's terms: what an ErrorResponse carries.
#[derive(Debug, Clone)]
pub struct ErrorInfo {
    pub sqlstate: Cow<'static, str>,
    pub message: Cow<'static, str>,
    pub detail: Option<Cow<'static, str>>,
    pub hint: Option<Cow<'static, str>>,
    pub position: Option<u32>,
    /// PostgreSQL's function that says it: drivers know some errors by that.
    pub routine: Option<Routine>,
}

/// Functions of PostgreSQL's, as an error names them. Not their names: errors are returned by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routine {
    RevalidateCachedQuery,
}

/// How a piece of work for a client ended when it did not end well.
#[derive(Debug)]
pub enum Failure {
    /// The client is gone, or its socket is: nobody to tell.
    ClientGone,
    /// Tell the client and close its connection.
    Fatal(ErrorInfo),
    /// The statement failed; the session goes on.
    Statement(ErrorInfo),
    /// The planner refuses the statement; PostgreSQL has not been asked whether it is one.
    Refused(Box<Refused>),
    /// A shard's own ErrorResponse, to be passed on as it is (a whole frame).
    Shard(Bytes),
    /// The client has been told already.
    Told,
    /// A shard's connection broke after part of a message had been passed on: the client's stream
    /// cannot be continued.
    Torn,
}

/// A statement that the planner does not support, as it came.
#[derive(Debug)]
pub struct Refused {
    pub error: ErrorInfo,
    pub sql: Box<str>,
    /// The parameter types that its Parse declared, as they are on the wire: four bytes each.
    pub types: Box<[u8]>,
}

impl ErrorInfo {
    pub fn new(sqlstate: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            sqlstate: Cow::Borrowed(sqlstate),
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            routine: None,
        }
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// In a failed transaction only its end is accepted.
    #[must_use]
    pub fn failed_block() -> Self {
        Self::new(
            "25P02",
            "current transaction is aborted, commands ignored until end of transaction block",
        )
    }

    /// Transactions wait for each other, and this one was chosen to give way.
    #[must_use]
    pub fn deadlock() -> Self {
        Self::new("40P01", "deadlock detected")
            .detail("Transactions on several shards wait for each other; this one is the youngest.")
            .hint("Run the transaction again.")
    }

    /// A command that moves rows has ended the transaction's session on a shard.
    #[must_use]
    pub fn moved_away() -> Self {
        Self::new(
            "40001",
            "the transaction was ended, since rows that it has written are being moved",
        )
        .detail("It was open for longer than a move of rows to another shard may take.")
        .hint("Run the transaction again.")
    }

    /// A prepared statement has other columns than when it was prepared. asyncpg and pgjdbc know by the
    /// routine that preparing it again helps, and do so.
    #[must_use]
    pub fn changed_columns() -> Self {
        let error = Self::new("0A000", "cached plan must not change result type");
        Self { routine: Some(Routine::RevalidateCachedQuery), ..error }
    }

    /// The client broke the protocol (08P01).
    pub fn protocol(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("08P01", message)
    }
}

impl From<PlanError> for ErrorInfo {
    fn from(error: PlanError) -> Self {
        Self {
            sqlstate: Cow::Borrowed(error.sqlstate),
            message: error.message,
            detail: error.detail,
            hint: error.hint,
            position: error.position,
            routine: None,
        }
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::Statement(error.into())
    }
}

impl Failure {
    /// Why the statement has no plan.
    #[must_use]
    pub fn of_plan(error: PlanError, sql: &str) -> Self {
        match error.sqlstate {
            "0A000" => Self::Refused(Box::new(Refused {
                error: error.into(),
                sql: sql.into(),
                types: [].into(),
            })),
            _ => error.into(),
        }
    }

    /// The same with the client's own text: the planner gets it without its semicolon, which
    /// PostgreSQL may complain of.
    #[must_use]
    pub fn with_text(mut self, sql: &str) -> Self {
        if let Self::Refused(refused) = &mut self {
            refused.sql = sql.into();
        }
        self
    }

    /// The same of a statement whose Parse declared parameter types.
    #[must_use]
    pub fn with_types(mut self, types: &[u8]) -> Self {
        if let Self::Refused(refused) = &mut self {
            refused.types = types.into();
        }
        self
    }
}

impl From<ErrorInfo> for Failure {
    fn from(error: ErrorInfo) -> Self {
        Self::Statement(error)
    }
}

/// Errors of the client's socket.
impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::ClientGone
    }
}
