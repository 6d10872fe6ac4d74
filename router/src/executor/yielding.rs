//! Changes of the schema wait for locks, and everybody else waits behind them. So one that runs by
//! itself waits for a moment only, on all shards together, then lets the others pass and tries again.
//!
//! A write over several shards by itself gives way, too: two that meet in another order on each shard
//! wait for each other, where on one server the second would have waited for the first.
//!
//! Locks are taken on the home shard first, so that two changes meet there and not crosswise. A
//! session that has a lock_timeout of its own gets that one and its error.

use std::rc::Rc;
use std::time::Duration;

use pgherd_planner::{Access, Action, Plan};

use super::Conn;
use crate::error::{ErrorInfo, Failure};
use crate::session::{Block, Transaction};
use crate::wire::backend;

/// Between two attempts, at first and at most; the half of it by chance.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often a write that is a deadlock's victim is run again.
const DEADLOCKS_MAX: u32 = 10;

impl Conn {
    /// Whether a write that was chosen to give way in a deadlock can be run again: it was alone in its
    /// transaction, and nothing of it has left. What its client has sent for it is not there any more.
    pub(super) async fn stepped_aside(
        &mut self,
        failure: &Failure,
        plan: &Plan,
        attempts: u32,
    ) -> bool {
        let victim = matches!(failure, Failure::Shard(frame) if self.is_victim(frame));
        let copies = matches!(plan.action, Action::CopyIn(_) | Action::CopyOut(_));
        if !victim || copies || plan.access != Access::Write || attempts > DEADLOCKS_MAX {
            return false;
        }
        self.roll_back_all().await;
        self.session.transaction = Transaction::Idle;
        pause(attempts).await;
        self.refresh_planning();
        true
    }

    /// Of a deadlock on one shard, or over several.
    fn is_victim(&self, frame: &[u8]) -> bool {
        let state = backend::sqlstate(frame);
        state == *b"40P01" || self.cancel.is_deadlock(state)
    }

    /// A block of the router's own, if there is none: for a change of the schema with its
    /// lock_timeout.
    pub(super) fn open_for(&mut self, plan: &Plan) {
        let limit = self.worker.live.borrow().ddl_lock_timeout;
        let idle = matches!(self.session.transaction, Transaction::Idle);
        match limit.filter(|_| idle && plan.access == Access::Schema && !self.has_lock_timeout()) {
            None => self.open_implicit(),
            Some(limit) => {
                // One that the role or the database has is not said by the session.
                let begin = format!(
                    "BEGIN; SELECT pg_catalog.set_config('lock_timeout', '{}', true) \
                     WHERE pg_catalog.current_setting('lock_timeout') = '0'",
                    limit.as_millis()
                );
                let settings = Rc::clone(&self.session.settings);
                self.session.transaction =
                    Transaction::Open(Box::new(Block::new(&begin, true, settings)));
            }
        }
    }

    fn has_lock_timeout(&self) -> bool {
        let word = self.session.settings.word("lock_timeout");
        word.is_some_and(|word| !word.trim_start_matches('0').is_empty())
    }

    /// Everything is rolled back; `Ok` to try again.
    pub(super) async fn yield_to_others(
        &mut self,
        failure: Failure,
        attempts: u32,
    ) -> Result<(), Failure> {
        let (limit, most) = {
            let live = self.worker.live.borrow();
            (live.ddl_lock_timeout, live.ddl_attempts)
        };
        let Some(limit) = limit.filter(|_| !self.has_lock_timeout()) else { return Err(failure) };
        let waited = match &failure {
            Failure::Shard(frame) => backend::sqlstate(frame) == *b"55P03" || self.is_victim(frame),
            _ => false,
        };
        if !waited {
            return Err(failure);
        }
        if attempts >= most {
            return Err(given_up(limit, attempts).into());
        }
        self.roll_back_all().await;
        self.session.transaction = Transaction::Idle;
        pause(attempts).await;
        self.refresh_planning();
        Ok(())
    }
}

async fn pause(attempts: u32) {
    let pause = PAUSE.saturating_mul(attempts).min(PAUSE_MAX);
    let mut chance = [0; 1];
    let _ = getrandom::fill(&mut chance);
    tokio::time::sleep(pause / 2 + pause / 2 * u32::from(chance[0]) / 255).await;
}

fn given_up(limit: Duration, attempts: u32) -> ErrorInfo {
    ErrorInfo::new("55P03", "the schema change did not get its locks")
        .detail(format!(
            "It has waited {attempts} times for {} ms, and let others pass each time.",
            limit.as_millis()
        ))
        .hint(
            "Somebody holds a lock on the table for long: pg_stat_activity on the shards shows \
             whom. SET lock_timeout to wait longer at once, or raise [query] ddl_attempts.",
        )
}
