//! Tickets: no transaction waits for a connection that another one holds which waits itself, since
//! at most as many hold connections of several shards as one pool has.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::Pools;
use crate::error::ErrorInfo;

/// The right to hold connections of several shards; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    /// What was the newest generation when the transaction began: a PAUSE that came later lets it
    /// finish.
    pub(super) generation: u32,
    _permit: OwnedSemaphorePermit,
}

/// How often one who waits for admission looks whether neighbours have some left.
const LOOK_AROUND: Duration = Duration::from_millis(5);

/// One more in the queue, until it is dropped.
struct Queued<'a>(&'a Cell<usize>);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Pools {
    /// As [`Self::admit`], if nobody has to be waited for.
    #[must_use]
    pub fn try_admit(&self) -> Option<Ticket> {
        let permit = Arc::clone(&self.admissions[self.index]).try_acquire_owned().ok()?;
        Some(self.ticket(permit))
    }

    /// A neighbour's, who has some left.
    fn borrow_ticket(&self) -> Option<Ticket> {
        let neighbours = self.admissions.iter().enumerate().filter(|(at, _)| *at != self.index);
        let mut permits = neighbours.map(|(_, other)| Arc::clone(other).try_acquire_owned());
        permits.find_map(Result::ok).map(|permit| self.ticket(permit))
    }

    fn ticket(&self, permit: OwnedSemaphorePermit) -> Ticket {
        Ticket { generation: self.generation.get(), _permit: permit }
    }

    /// Admits work that may hold connections of several shards at once: a transaction, or a
    /// statement on many shards. To be had before its first connection and kept until it has given
    /// all back. At most as many are admitted as one pool has connections; so each of them finds
    /// one on any shard, or waits for single statements only, which end by themselves.
    ///
    /// # Errors
    /// 53300 when the queue is full or the deadline has passed.
    pub async fn admit(&self) -> Result<Ticket, ErrorInfo> {
        let limits = self.limits.get();
        if self.queued.get() >= limits.waiting_max && !self.any_paused() {
            return Err(not_admitted("the queue is full"));
        }
        self.queued.set(self.queued.get() + 1);
        let _queued = Queued(&self.queued);
        let since = Instant::now();
        let mut admitted = std::pin::pin!(Arc::clone(&self.admissions[self.index]).acquire_owned());
        loop {
            // A queue asks about as often as one would.
            let again = LOOK_AROUND * u32::try_from(self.queued.get()).unwrap_or(u32::MAX).min(200);
            match tokio::time::timeout(again, &mut admitted).await {
                Ok(Ok(permit)) => return Ok(self.ticket(permit)),
                Ok(Err(_)) => return Err(not_admitted("the router ends")),
                Err(_) => {}
            }
            if let Some(ticket) = self.borrow_ticket() {
                return Ok(ticket);
            }
            if since.elapsed() >= self.patience(self.any_paused()) {
                return Err(not_admitted("none ended in time"));
            }
        }
    }
}

fn not_admitted(why: &str) -> ErrorInfo {
    ErrorInfo::new("53300", format!("too many open transactions: {why}"))
        .hint("Raise [pool] size or wait in the router's configuration, or shorten transactions.")
}
