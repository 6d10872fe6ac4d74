//! The end of a router: who is still served, how long, and what is waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::WorkerHandle;
use crate::worker::{Mail, Phase, Shared};

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(20);

/// How long the last rollbacks may take. What is not done by then the shards do themselves when
/// their connections close.
const LAST: Duration = Duration::from_secs(5);

/// Waits until all clients have left, and ends those that are there when the time is up.
pub(super) async fn drain(shared: &Arc<Shared>, workers: &[WorkerHandle]) {
    let mut phases = shared.phase.subscribe();
    let begun = Instant::now();
    let mut phase = *phases.borrow_and_update();
    shared.tell(|| Mail::Phase(phase)).await;
    while phase < Phase::Stop && clients(workers) > 0 {
        if begun.elapsed() >= shared.live.load().shutdown_timeout {
            tracing::warn!(clients = clients(workers), "the time is up: those left are ended");
            shared.enter(Phase::Stop);
        }
        // No phase comes when nobody is left to order one.
        let _ = tokio::time::timeout(LOOK, phases.changed()).await;
        let next = *phases.borrow_and_update();
        if next != phase {
            phase = next;
            shared.tell(|| Mail::Phase(phase)).await;
        }
    }
    let stopped = Instant::now();
    while !quiet(shared, workers).await && stopped.elapsed() < LAST {
        tokio::time::sleep(LOOK).await;
        // Those who were logging in when the others were told.
        shared.tell(|| Mail::Phase(phase)).await;
    }
    tracing::info!(took_ms = begun.elapsed().as_millis() as u64, "stopped");
}

fn clients(workers: &[WorkerHandle]) -> usize {
    workers.iter().map(WorkerHandle::clients).sum()
}

async fn quiet(shared: &Shared, workers: &[WorkerHandle]) -> bool {
    clients(workers) == 0 && shared.figures().await.iter().all(|worker| worker.background == 0)
}
