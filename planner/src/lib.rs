//! SQL text, session context and a shard map in; a [`Plan`] out. Pure: no IO, no clock.
//!
//! ```text
//! bytes ─ lex ─┬─ scan: fingerprint, literals       (hot: every statement)
//!              └─ token ─ classify ─ query ─ analyze ─┬─ route    one shard, own text
//!                         utility    clauses  names,  ├─ scatter  many shards, spliced text
//!                         statements          pins,   ├─ borrow   one server, copies of rows
//!                                             views   ├─ broadcast many shards, copies of rows
//!                                                     ├─ insert   new rows, by their keys
//!                                                     └─ write    UPDATE, DELETE
//! ```
//!
//! The clauses are found by our own reading of the tokens, because plans splice the statement's
//! own text. A second witness, the SQL parser behind `parse.rs`, must accept the statement and
//! name the same sharded tables before any plan for them is made: where the two readings differ,
//! the statement is refused.

mod aggregate;
mod analyze;
mod block;
mod borrow;
mod broadcast;
mod change;
mod classify;
mod cluster;
mod copy;
mod cursor;
mod ddl;
mod describe;
mod encoding;
mod error;
mod explain;
mod families;
mod functions;
mod gather;
mod insert;
mod lex;
mod literal;
mod live;
mod merge_from;
mod merge_into;
mod moment;
mod ordered;
mod own;
mod parse;
mod plan;
mod portable;
mod query;
mod resolve;
mod route;
mod scan;
mod scatter;
mod sequences;
mod steps;
mod straying;
mod table_from_query;
mod temporary;
mod token;
mod touches;
mod view;
mod windows;
mod with;
mod witness;
mod write;

use pgherd_shard_map::{RelationKind, ShardId, ShardMap, TableName};

pub use describe::Tier;
pub use encoding::{Coding, Encoding};
pub use error::PlanError;
pub use merge_from::{NUMBER, SOURCE};
pub use moment::MOMENT;
pub use plan::*;
pub use scan::{Literal, LiteralKind, Scan};
pub use sequences::{NumberCall, number_calls};
pub use temporary::TEMPORARY_SCHEMA;

/// What planning depends on beside the statement: the same context and text give the same plan.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub map: &'a ShardMap,
    /// Schemas in order, `"$user"` already replaced by the user's name, `pg_catalog` left out
    /// unless it was named.
    pub search_path: &'a [Box<str>],
    /// Relations of the session's temporary schema, which hide others of their names.
    pub temporary: &'a [Box<str>],
    /// `pgherd.scatter`: false refuses what would touch every shard.
    pub scatter: bool,
    /// `pgherd.shard`: everything goes there.
    pub pinned: Option<ShardId>,
    /// `[sharding] auto_distribute`: columns that distribute a new table.
    pub auto_distribute: &'a [Box<str>],
    /// Names that a plan itself gives to what every shard has all rows of: they go before all others.
    pub copies: &'a [(TableName, RelationKind)],
}

/// Scans the statement that starts at `from` (0, or just after the last one's semicolon) and
/// returns where the next one starts: after the semicolon, or the length of `sql`. A text that is
/// not well formed (an open quote) is taken to its end as one statement: PostgreSQL will refuse
/// it. `seed` goes into the fingerprint: the cache's key must differ where the context does.
pub fn scan(sql: &[u8], from: usize, seed: u64, out: &mut Scan) -> usize {
    scan::scan(sql, from, seed, out)
}

/// The numbers of the parameters that a text names, ascending.
#[must_use]
pub fn parameters(sql: &str) -> std::collections::BTreeSet<u16> {
    scan::parameters(sql.as_bytes())
}

/// The text with something else in the place of each of its parameters.
#[must_use]
pub fn with_parameters(sql: &str, value: impl Fn(u16) -> String) -> String {
    scan::with_parameters(sql, value)
}

/// What an unqualified name in a statement means: the first relation of search_path that has it.
#[must_use]
pub fn resolve(name: &str, context: &Context<'_>) -> Option<TableName> {
    context.relation(&[name]).map(|(name, _)| name)
}

/// Plans a SELECT whose keys have turned out to name several shards ([`Otherwise::Borrow`]).
///
/// # Errors
/// As [`plan`].
pub fn plan_borrowed(statement: &str, context: &Context<'_>) -> Result<Plan, PlanError> {
    let tokens = token::Tokens::known(statement, context);
    let plan = route::select_as(&tokens, context, true)?;
    route::check_scatter(plan, context)
}

/// A statement's text for one of several shards, while rows of [`ShardMap::moving`] groups are on
/// their way: without the copies that the shard holds of others' rows. `None`: as it is.
///
/// # Errors
/// 55006 for a shape that does not show where.
pub fn owned_rows(
    sql: &str,
    context: &Context<'_>,
    shard: ShardId,
) -> Result<Option<String>, PlanError> {
    own::rows(sql, context, shard)
}

/// Plans one statement (as [`scan`] cut it, with or without its semicolon).
///
/// # Errors
/// [`PlanError`] for what no tier covers: never a plan that leaves a clause out.
pub fn plan(statement: &str, context: &Context<'_>) -> Result<Plan, PlanError> {
    let tokens = token::Tokens::known(statement, context);
    let mut plan = route::check_scatter(classify::plan(&tokens, context)?, context)?;
    if plan.access == Access::Write {
        straying::refuse(&tokens, context)?;
    }
    if !matches!(&plan.action, Action::Explain(explain) if !explain.options.analyze) {
        plan.touches = touches::read(&tokens, context);
    }
    if plan.reuse == Reuse::AnyLiterals && plan.touches.as_ref().is_some_and(|t| t.literals) {
        plan.reuse = Reuse::SameText;
    }
    Ok(plan)
}
