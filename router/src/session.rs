//! What the router remembers of one client, and how statements change it. Pure: no socket here.
//!
//! A client's settings, statements and transaction belong to the client, not to a server
//! connection: servers are borrowed for a transaction and given back clean.

pub mod settings;
pub mod transaction;

use std::rc::Rc;

use foldhash::HashMap;
use pgherd_planner::{ParamValue, Params, Plan};
use pgherd_shard_map::ShardId;

use crate::error::ErrorInfo;
use crate::wire::frontend::BindTail;
pub use settings::Settings;
pub use transaction::{Block, Transaction};

/// One client's state.
#[derive(Debug)]
pub struct Session {
    pub user: Rc<str>,
    pub settings: Rc<Settings>,
    pub transaction: Transaction,
    pub statements: HashMap<Box<[u8]>, Rc<Prepared>>,
    pub portals: HashMap<Box<[u8]>, Rc<Portal>>,
    /// After an error in a pipeline: everything up to Sync is skipped.
    pub skip_to_sync: bool,
    /// The messages in hand came by the extended protocol.
    pub in_pipeline: bool,
    /// The client has ended its COPY data, but not yet the pipeline that it is in.
    pub copy_ended: bool,
}

/// A prepared statement of the extended protocol.
#[derive(Debug)]
pub struct Prepared {
    pub sql: Box<str>,
    /// Declared parameter types, four bytes each.
    pub types: Box<[u8]>,
    /// The name that servers know it by: a hash of text and types, the same for every client.
    pub id: u128,
    pub plan: std::cell::RefCell<Rc<Plan>>,
    pub literals: Box<[pgherd_planner::Literal]>,
    /// The client gave it no name: servers get it unnamed, too.
    pub unnamed: bool,
}

/// A bound portal.
#[derive(Debug)]
pub struct Portal {
    pub statement: Rc<Prepared>,
    /// The Bind message after its names.
    pub tail: Box<[u8]>,
    /// The one shard that it was bound on, if one has it.
    pub shard: Option<ShardId>,
}

impl Session {
    #[must_use]
    pub fn new(user: &str, settings: Settings) -> Self {
        Self {
            user: user.into(),
            settings: Rc::new(settings),
            transaction: Transaction::Idle,
            statements: HashMap::default(),
            portals: HashMap::default(),
            skip_to_sync: false,
            in_pipeline: false,
            copy_ended: false,
        }
    }
}

impl Prepared {
    /// The name on servers: `pgherd_` and 32 hexadecimal digits, or nothing.
    #[must_use]
    pub fn server_name(&self) -> Vec<u8> {
        if self.unnamed { Vec::new() } else { format!("pgherd_{:032x}", self.id).into_bytes() }
    }
}

impl Portal {
    /// The bound values.
    ///
    /// # Errors
    /// None in practice: the message was checked when it was read.
    pub fn params(&self) -> Result<BoundParams<'_>, ErrorInfo> {
        let tail =
            BindTail::new(&self.tail).map_err(|error| ErrorInfo::protocol(error.to_string()))?;
        Ok(BoundParams { tail, types: &self.statement.types })
    }
}

/// The parameters of a Bind, for the planner.
#[derive(Debug, Clone, Copy)]
pub struct BoundParams<'a> {
    pub tail: BindTail<'a>,
    pub types: &'a [u8],
}

impl Params for BoundParams<'_> {
    fn param(&self, number: u16) -> Option<ParamValue<'_>> {
        let (bytes, binary) = self.tail.value(number)?;
        let at = (usize::from(number) - 1) * 4;
        let type_oid =
            self.types.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        Some(ParamValue { bytes, binary, type_oid })
    }
}
