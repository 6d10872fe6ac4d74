//! What a dead command left half done is completed by any router: a gate that is closed, sessions of
//! routers that have not heard of a change of owners.

use std::sync::Arc;

use pgherd_shard_map::ShardId;

use super::Problem;
use super::phase::Goal;
use super::run::{Options, Run};
use crate::config::Dsn;
use crate::dial::Dialer;

/// A run as a router's metrics tell of it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub run: i32,
    pub phase: String,
    pub paused: bool,
    /// Nothing is copied or deleted, for others' sake.
    pub held: bool,
    pub streams: Vec<SeenStream>,
}

#[derive(Debug, Clone, Copy)]
pub struct SeenStream {
    pub source: ShardId,
    pub target: ShardId,
    /// Bytes of the source's log that the target has not confirmed.
    pub lag: i64,
    /// Rows that were copied, and about how many there are.
    pub rows: u64,
    pub expected: u64,
}

/// What a router has seen of shards lately: the 99th percentile of what statements took, in
/// milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    pub router: &'a str,
    pub p99s: &'a [(ShardId, f64)],
}

/// Looks at the run under way, and tells those who drive it what statements take. If a gate is closed where rows are written, and nobody drives the run:
/// gives the change of owners up, so that writers go on where they were. If owners have changed, and
/// it was not seen to all routers: sees to it.
///
/// # Errors
/// The catalog or a shard cannot be reached, or somebody does drive it.
pub async fn rescue(
    dialer: &Arc<Dialer>,
    catalog: &Dsn,
    answered: Answered<'_>,
) -> Result<Option<Seen>, Problem> {
    let Some(mut run) = Run::look(dialer, catalog).await? else { return Ok(None) };
    if let Err(problem) = run.tell_answers(&answered).await {
        tracing::warn!(%problem, "what statements take cannot be told to whoever moves rows");
    }
    if !run.is_shut().await? && !run.is_unsettled().await? {
        return run.seen().await;
    }
    let options = Options { who: "a router".to_owned(), ..Options::default() };
    let Some(mut run) = Run::take(dialer, catalog, options).await? else { return Ok(None) };
    if run.is_shut().await? || run.is_unsettled().await? {
        run.reach(Goal::Start, &mut |_| {}).await?;
        tracing::warn!("a change of owners that nobody drives was brought to its end");
    }
    run.seen().await
}
