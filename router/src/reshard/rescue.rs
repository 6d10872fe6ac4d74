//! What a dead command left half done is completed by any router: a gate that is closed, sessions of
//! routers that have not heard of a change of owners.

use std::sync::Arc;

use super::Problem;
use super::phase::Goal;
use super::run::{Options, Run};
use crate::config::Dsn;
use crate::dial::Dialer;

/// If a gate is closed where rows are written, and nobody drives the run: gives the change of owners
/// up, so that writers go on where they were. If owners have changed, and it was not seen to all
/// routers: sees to it. Whether it had to.
///
/// # Errors
/// The catalog or a shard cannot be reached, or somebody does drive it.
pub async fn rescue(dialer: &Arc<Dialer>, catalog: &Dsn) -> Result<bool, Problem> {
    let Some(mut run) = Run::look(dialer, catalog).await? else { return Ok(false) };
    if !run.is_shut().await? && !run.is_unsettled().await? {
        return Ok(false);
    }
    let options = Options { who: "a router".to_owned(), ..Options::default() };
    let Some(mut run) = Run::take(dialer, catalog, options).await? else { return Ok(false) };
    if !run.is_shut().await? && !run.is_unsettled().await? {
        return Ok(false);
    }
    run.reach(Goal::Start, &mut |_| {}).await?;
    Ok(true)
}
