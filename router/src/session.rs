//! What the router remembers of one client, and how statements change it. Pure: no socket here.
//!
//! A client's settings, statements and transaction belong to the client, not to a server
//! connection: servers are borrowed for a transaction and given back clean.

pub mod foreign;
pub mod settings;
pub mod transaction;

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use foldhash::HashMap;
use pgherd_planner::{
    Action, CursorStatement, HighBytes, ParamValue, Params, Plan, SessionStatement, StatementKind,
};
use pgherd_shard_map::{ShardId, TableName};

use crate::error::ErrorInfo;
use crate::wire::encoding::Encoding;
use crate::wire::frontend::BindTail;
use crate::wire::{self, HEADER};
use foreign::ForeignTypes;
pub use settings::Settings;
pub use transaction::{Block, Transaction};

/// What ParameterStatus messages say: names and values.
pub type Parameters = Rc<[(Box<str>, Box<str>)]>;

/// One client's state.
#[derive(Debug)]
pub struct Session {
    pub settings: Rc<Settings>,
    /// What the startup packet set: RESET goes back to these.
    pub startup: Rc<Settings>,
    /// The parameters that the client was told of.
    pub reported: Parameters,
    /// Those that hold now, where the client may not know them yet.
    pub news: Option<Parameters>,
    pub transaction: Transaction,
    /// Names in the session's temporary schema, which hide others.
    pub temporary: Rc<[Box<str>]>,
    pub sequences: Sequences,
    /// Numbers that the router has written into this session's rows.
    pub drawn: Option<Box<Drawn>>,
    pub statements: HashMap<Box<[u8]>, Rc<Prepared>>,
    pub portals: HashMap<Box<[u8]>, Rc<Portal>>,
    /// After an error in a pipeline: everything up to Sync is skipped.
    pub skip_to_sync: bool,
    /// The messages in hand came by the extended protocol.
    pub in_pipeline: bool,
    /// The client has ended its COPY data, but not yet the pipeline that it is in.
    pub copy_ended: bool,
}

/// The last number of each sequence that the router has written into a row, in order; empty where
/// servers may have given later ones.
#[derive(Debug, Default)]
pub struct Drawn {
    pub numbers: Vec<(TableName, i64)>,
}

/// Where `currval()` and `lastval()` of this session are: on the one server of the home shard that
/// it has written on, while no other session has used that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequences {
    Unused,
    /// The process id of the server's.
    On(i32),
    Lost,
    /// It had to forget them, with those of another session.
    Forgotten,
}

impl Sequences {
    /// The session has written on this server; `ours`: it was the last to use it before, too.
    pub fn written(&mut self, pid: i32, ours: bool) {
        *self = match *self {
            Self::Unused | Self::Forgotten => Self::On(pid),
            Self::On(known) if known == pid && ours => *self,
            _ => Self::Lost,
        };
    }
}

/// A prepared statement of the extended protocol, shared by all clients of a worker that have it.
#[derive(Debug)]
pub struct Prepared {
    pub sql: Box<str>,
    /// Declared parameter types, four bytes each.
    pub types: Box<[u8]>,
    /// How many parameters it has, where that is certain.
    pub params: Option<u16>,
    /// A hash of text and types.
    pub id: u128,
    /// The name on servers, where the client gave one: `pgherd_` and the id in hexadecimal.
    pub server_name: Box<[u8]>,
    /// What it was planned with ([`crate::worker::Planning::seed`]); `None` for a plan of a
    /// transaction that has changed the schema for itself, which is made anew each time.
    pub seed: Option<u64>,
    pub plan: Rc<Plan>,
    pub literals: Box<[pgherd_planner::Literal]>,
    /// Where it declares user-defined types: what they are on the other shards, once that is known.
    pub foreign: OnceCell<Box<[ForeignTypes]>>,
    /// The columns that it returned when it was prepared, hashed, once they are known
    /// (`executor/columns.rs`).
    pub columns: OnceCell<u64>,
}

/// A bound portal.
#[derive(Debug)]
pub struct Portal {
    pub statement: Rc<Prepared>,
    /// The client gave the statement no name: servers get it unnamed, too.
    pub unnamed: bool,
    /// The Bind message after its names.
    pub tail: Box<[u8]>,
    /// The one shard that it was bound on, if one has it.
    pub shard: Option<ShardId>,
    /// Where no shard has it.
    pub run: Cell<Run>,
    /// How many savepoints there were when it was bound: going back to one of these ends it.
    pub depth: Cell<usize>,
    /// It was bound when the transaction had failed already: its failure has not ended it.
    pub after_failure: bool,
    /// Of the values, where they are not in UTF-8.
    pub encoding: Option<&'static Encoding>,
}

/// How far a portal of the router's own has come. None begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    NotYet,
    InPortions,
    Whole,
}

impl Session {
    #[must_use]
    pub fn new(settings: Rc<Settings>) -> Self {
        Self {
            startup: Rc::clone(&settings),
            settings,
            reported: Rc::default(),
            news: None,
            transaction: Transaction::Idle,
            temporary: Rc::new([]),
            sequences: Sequences::Unused,
            drawn: None,
            statements: HashMap::default(),
            portals: HashMap::default(),
            skip_to_sync: false,
            in_pipeline: false,
            copy_ended: false,
        }
    }

    /// All but the unnamed one, as DEALLOCATE ALL has it.
    pub fn forget_statements(&mut self) {
        self.statements.retain(|name, _| name.is_empty());
    }

    /// Whether the client does not know yet what a server tells it in a ParameterStatus; now it
    /// does. `parameters`: all of that server's, which are newer than what was to be told later.
    pub fn is_news(&mut self, frame: &[u8], parameters: &Parameters) -> bool {
        if self.news.is_some() {
            self.news = Some(Rc::clone(parameters));
        }
        note_parameter(&mut self.reported, frame)
    }
}

/// Keeps what a ParameterStatus says; whether that is new. They are rare: a new list costs nothing
/// that counts.
pub fn note_parameter(parameters: &mut Parameters, frame: &[u8]) -> bool {
    let mut reader = wire::Reader::new(&frame[HEADER.min(frame.len())..]);
    let (Ok(name), Ok(value)) = (reader.str(), reader.str()) else { return false };
    if parameters.iter().any(|(known, old)| &**known == name && &**old == value) {
        return false;
    }
    let mut list = parameters.to_vec();
    match list.iter_mut().find(|(known, _)| &**known == name) {
        Some((_, known)) => *known = value.into(),
        None => list.push((name.into(), value.into())),
    }
    *parameters = list.into();
    true
}

impl Prepared {
    /// The name that servers know it by.
    #[must_use]
    pub fn name(&self, unnamed: bool) -> &[u8] {
        if unnamed { b"" } else { &self.server_name }
    }

    /// Whether it may return more than the one row that the router makes itself. Drivers send a row
    /// limit with every statement whose rows they do not want.
    #[must_use]
    pub fn returns_rows(&self) -> bool {
        match self.plan.kind {
            StatementKind::Session => {
                matches!(self.plan.action, Action::Session(SessionStatement::Execute { .. }))
            }
            StatementKind::Utility => matches!(&self.plan.action, Action::Cursor(cursor)
                if matches!(cursor, CursorStatement::Move(moved) if moved.shows)),
            StatementKind::Select | StatementKind::Explain => {
                !matches!(self.plan.action, Action::Cluster(_))
            }
            StatementKind::Insert | StatementKind::Update | StatementKind::Delete => {
                let word = "returning".as_bytes();
                let mut windows = self.sql.as_bytes().windows(word.len());
                windows.any(|window| window.eq_ignore_ascii_case(word))
            }
            _ => false,
        }
    }

    /// Whether its columns, which a change of the schema could change, are not known yet.
    #[must_use]
    pub fn lacks_columns(&self) -> bool {
        self.columns.get().is_none() && self.has_columns()
    }

    /// Whether its columns are those of the tables that it names, or made of them.
    fn has_columns(&self) -> bool {
        matches!(
            self.plan.kind,
            StatementKind::Select
                | StatementKind::Insert
                | StatementKind::Update
                | StatementKind::Delete
        ) && self.returns_rows()
    }
}

impl Portal {
    #[must_use]
    pub fn new(statement: Rc<Prepared>, unnamed: bool, tail: Box<[u8]>) -> Self {
        Self {
            statement,
            unnamed,
            tail,
            shard: None,
            run: Cell::new(Run::NotYet),
            depth: Cell::new(0),
            after_failure: false,
            encoding: None,
        }
    }

    #[must_use]
    pub fn encoded(self, encoding: Option<&'static Encoding>) -> Self {
        Self { encoding, ..self }
    }

    /// Of the transaction as it is.
    #[must_use]
    pub fn within(mut self, transaction: &Transaction) -> Self {
        self.depth.set(transaction.block().map_or(0, Block::depth));
        self.after_failure = transaction.failed();
        self
    }

    /// The bound values.
    ///
    /// # Errors
    /// None in practice: the message was checked when it was read.
    pub fn params(&self) -> Result<BoundParams<'_>, ErrorInfo> {
        let tail =
            BindTail::new(&self.tail).map_err(|error| ErrorInfo::protocol(error.to_string()))?;
        Ok(BoundParams { tail, types: &self.statement.types, encoding: self.encoding })
    }
}

/// The parameters of a Bind, for the planner.
#[derive(Debug, Clone, Copy)]
pub struct BoundParams<'a> {
    pub tail: BindTail<'a>,
    pub types: &'a [u8],
    /// Of the values, where they are not in UTF-8.
    pub encoding: Option<&'static Encoding>,
}

impl Params for BoundParams<'_> {
    fn param(&self, number: u16) -> Option<ParamValue<'_>> {
        let (bytes, binary) = self.tail.value(number)?;
        let at = (usize::from(number) - 1) * 4;
        let type_oid =
            self.types.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        Some(ParamValue { bytes, binary, type_oid })
    }

    fn high_bytes(&self) -> Option<&HighBytes> {
        self.encoding.map(|encoding| &encoding.high)
    }
}
