//! What is counted and logged of statements that have run.

use std::time::{Duration, Instant};

use pgherd_planner::{Action, Plan};
use pgherd_shard_map::ShardId;

use super::Conn;
use crate::pool::Server;
use crate::worker::Worker;

/// How many bytes of a slow statement are logged.
const SLOW_SQL_MAX: usize = 2000;

impl Conn {
    /// A statement begins that the router runs piece by piece: [`Self::observe_run`] ends it.
    pub fn start_run(&mut self) {
        self.running = Some(self.worker.metrics.start());
    }

    /// Counts a statement that has run, well or not, on whichever shards have answered it.
    pub fn observe_run(&mut self, plan: &Plan, sql: &[u8]) {
        let Some(started) = self.running else { return };
        for server in &self.servers {
            count_answer(&self.worker, self.running, server);
        }
        self.running = None;
        self.count_statement(plan, None, started.elapsed(), sql);
    }

    /// Counts a statement that was relayed to one shard.
    pub fn observe(&self, plan: &Plan, shard: ShardId, started: Instant, sql: &[u8]) {
        let took = started.elapsed();
        self.worker.metrics.answered(shard, took);
        self.count_statement(plan, Some(shard), took, sql);
    }

    fn count_statement(&self, plan: &Plan, shard: Option<ShardId>, took: Duration, sql: &[u8]) {
        self.worker.metrics.statement(plan.kind, plan.tier());
        self.worker.plans.borrow_mut().usage.count(plan.place, took);
        if self.worker.live.borrow().slow_statement.is_some_and(|limit| took >= limit) {
            self.log_slow(plan, shard, took, sql);
        }
    }

    #[cold]
    fn log_slow(&self, plan: &Plan, shard: Option<ShardId>, took: Duration, sql: &[u8]) {
        let shards: Vec<u32> = match shard {
            Some(shard) => vec![shard.0],
            None => self.servers.iter().map(|server| server.shard.0).collect(),
        };
        // Nobody's password goes to the log.
        let text = match &plan.action {
            Action::Role(_) => "(it holds a password)".into(),
            _ => String::from_utf8_lossy(&sql[..sql.len().min(SLOW_SQL_MAX)]),
        };
        tracing::warn!(
            took_ms = took.as_millis() as u64,
            user = &*self.login.user,
            kind = ?plan.kind,
            tier = ?plan.tier(),
            ?shards,
            statement = &*text,
            "slow statement"
        );
    }
}

/// Counts a shard's part of a statement that is run piece by piece, once its server is done with it.
pub(super) fn count_answer(worker: &Worker, running: Option<Instant>, server: &Server) {
    if let Some(took) = running.and_then(|started| server.answered_after(started)) {
        worker.metrics.answered(server.shard, took);
    }
}
