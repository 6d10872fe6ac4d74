//! Prepared statements of one worker, each kept once however many clients prepare it.
//!
//! Applications prepare the same few texts on every connection, and many drivers send the unnamed
//! statement anew for every execution. So Parse is one hash, one lookup and one comparison of
//! bytes; text, literals and plan are shared. The key holds everything that planning depended on
//! (as [`Planning::seed`](super::Planning)), so a statement of another context is never found.

use std::rc::Rc;

use foldhash::HashMap;
use pgherd_shard_map::Epoch;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use crate::session::Prepared;

/// Statements that are kept while no client has them. Above, those are dropped.
const UNUSED_MAX: usize = 4096;

/// Texts longer than this are seldom sent twice, and would make a bound in entries worthless.
const TEXT_MAX: usize = 16 * 1024;

#[derive(Debug, Default)]
pub struct Statements {
    by_key: HashMap<(u128, u64), Rc<Prepared>>,
    /// When so many are here, those that nobody has are dropped.
    sweep_at: usize,
    /// How often a Parse was one lookup.
    pub hits: u64,
}

/// What names the statement on servers: equal for equal text and declared parameter types, as the
/// schema was when the client prepared it. A server that has kept it from before a change may
/// refuse it ("cached plan must not change result type"), as PostgreSQL does to whoever prepared it
/// then; who prepares it anew must not see that.
#[must_use]
pub fn statement_id(sql: &str, types: &[u8], epoch: Epoch) -> u128 {
    xxh3_128_with_seed(sql.as_bytes(), xxh3_64_with_seed(types, epoch.0))
}

impl Statements {
    #[must_use]
    pub fn find(&mut self, id: u128, seed: u64, sql: &str, types: &[u8]) -> Option<Rc<Prepared>> {
        let known = self.by_key.get(&(id, seed))?;
        if *known.sql != *sql || *known.types != *types {
            return None;
        }
        self.hits += 1;
        Some(Rc::clone(known))
    }

    /// Keeps a statement for the next who prepares it.
    pub fn keep(&mut self, seed: u64, prepared: &Rc<Prepared>) {
        if prepared.sql.len() > TEXT_MAX {
            return;
        }
        if self.by_key.len() >= self.sweep_at.max(UNUSED_MAX) {
            self.by_key.retain(|_, statement| Rc::strong_count(statement) > 1);
            self.sweep_at = self.by_key.len() + UNUSED_MAX;
        }
        self.by_key.insert((prepared.id, seed), Rc::clone(prepared));
    }
}
