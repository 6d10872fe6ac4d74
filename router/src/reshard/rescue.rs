//! A gate that a dead command left closed is opened by any router.

use std::sync::Arc;
use std::time::Duration;

use super::Problem;
use super::phase::{Goal, Phase};
use super::run::{Options, Run};
use crate::config::Dsn;
use crate::dial::Dialer;

/// If a switch is recorded and nobody drives it: gives it up, so that writers go on where they
/// were. Whether there was one.
///
/// # Errors
/// The catalog or a shard cannot be reached, or somebody does drive it.
pub async fn rescue(dialer: &Arc<Dialer>, catalog: &Dsn) -> Result<bool, Problem> {
    let in_switch = |run: &Run| matches!(run.phase(), Some(Phase::Cutting | Phase::Returning));
    if !Run::look(dialer, catalog).await?.is_some_and(|run| in_switch(&run)) {
        return Ok(false);
    }
    let options = Options { max_pause: Duration::ZERO, who: "a router".to_owned() };
    let Some(mut run) = Run::take(dialer, catalog, options).await? else { return Ok(false) };
    if !in_switch(&run) {
        return Ok(false);
    }
    run.reach(Goal::Start, &mut |_| {}).await?;
    Ok(true)
}
