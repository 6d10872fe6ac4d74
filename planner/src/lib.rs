//! SQL text, session context and a shard map in; a [`Plan`] out. Pure: no IO, no clock.

mod error;
mod explain;
mod literal;
mod plan;
mod resolve;
mod scan;

use pgherd_shard_map::{ShardId, ShardMap};

pub use error::PlanError;
pub use explain::Tier;
pub use plan::*;
pub use scan::{Literal, LiteralKind, Scan};

/// What planning depends on beside the statement: the same context and text give the same plan.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub map: &'a ShardMap,
    /// Schemas in order, `"$user"` already replaced by the user's name, `pg_catalog` left out
    /// unless it was named.
    pub search_path: &'a [Box<str>],
    /// `pgherd.scatter`: false refuses what would touch every shard.
    pub scatter: bool,
    /// `pgherd.shard`: everything goes there.
    pub pinned: Option<ShardId>,
    /// `[sharding] auto_distribute`: columns that distribute a new table.
    pub auto_distribute: &'a [Box<str>],
}

/// Scans the statement that starts at `from` (0, or just after the last one's semicolon) and
/// returns where the next one starts: after the semicolon, or the length of `sql`. A text that is
/// not well formed (an open quote) is taken to its end as one statement: PostgreSQL will refuse
/// it. `seed` goes into the fingerprint: the cache's key must differ where the context does.
pub fn scan(sql: &[u8], from: usize, seed: u64, out: &mut Scan) -> usize {
    let _ = (from, seed, out);
    sql.len()
}

/// Plans one statement (no semicolon, as [`scan`] cut it).
///
/// # Errors
/// [`PlanError`] for what no tier covers: never a plan that leaves a clause out.
pub fn plan(statement: &str, context: &Context<'_>) -> Result<Plan, PlanError> {
    let _ = (statement, context);
    Err(PlanError::unsupported("not supported", "no tier covers it", "none yet"))
}
