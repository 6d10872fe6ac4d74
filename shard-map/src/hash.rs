//! PostgreSQL's extended hash functions (seed 0), bit for bit.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What `hash…extended(key, 0)` returns on the server: a point of the hash space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(pub i64);

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
