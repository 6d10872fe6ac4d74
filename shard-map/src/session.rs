//! What is run inside of statements, unseen: functions that change the session in which they are called,
//! triggers that reach for rows of other servers.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What a call may do to the session of its server, beside what can be looked up there afterwards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SessionEffect {
    /// Settings of an application's own that it may change: PostgreSQL lists none of these.
    pub settings: Box<[Box<str>]>,
    /// It may change others, which nobody can name.
    pub stays: bool,
}

/// By plain names: a name that is two things is both of them.
#[derive(Debug, Clone, Default)]
pub struct SessionEffects {
    pub functions: BTreeMap<Box<str>, SessionEffect>,
    /// Relations for which reading is enough: views, row security.
    pub read: BTreeMap<Box<str>, SessionEffect>,
    /// Those with triggers and their kin.
    pub written: BTreeMap<Box<str>, SessionEffect>,
}

impl SessionEffects {
    /// Nothing here has any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.read.is_empty() && self.written.is_empty()
    }
}

/// A trigger that would read or write tables whose rows are elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StrayingTrigger {
    /// Its table, without the schema.
    pub relation: Box<str>,
    pub trigger: Box<str>,
    /// `insert`, `delete`, `update`, `truncate`.
    pub events: Box<[Box<str>]>,
    /// The plain table, or one of another group, that it names. None: it is on a plain table itself,
    /// and names sharded ones.
    pub names: Option<Box<str>>,
}
