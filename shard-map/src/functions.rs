//! Functions that are not PostgreSQL's own: what planning must know of them, by name alone, since
//! which of several a call means depends on types. So each list holds the names of which it is true
//! whatever function is meant.

use std::collections::BTreeSet;

use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
pub struct UserFunctions {
    /// The same result for the same arguments: declared `IMMUTABLE`, one row a call.
    pub immutable: BTreeSet<Box<str>>,
    /// They read at most: the other ones that are not `VOLATILE`, and aggregates and window
    /// functions.
    pub reading: BTreeSet<Box<str>>,
    /// Their bodies name sharded tables: one would see or change one server's part.
    pub sharded: BTreeSet<Box<str>>,
}
