//! Connections outside of the pools, for copies of rows: whoever has one closes it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use pgherd_shard_map::{ShardId, ShardMap};
use tokio::sync::OwnedSemaphorePermit;

use super::{Login, PoolLimits, Pools, Server, Ticket, too_many, unreachable};
use crate::error::ErrorInfo;

/// One connection apart for so many in a pool.
const APART: usize = 4;

/// What a connection apart takes part in, until it is dropped with it.
#[derive(Debug)]
pub struct Apart {
    /// Of its shard and worker.
    count: Rc<Cell<usize>>,
    _permit: OwnedSemaphorePermit,
}

impl Apart {
    fn new(count: Rc<Cell<usize>>, permit: OwnedSemaphorePermit) -> Self {
        count.set(count.get() + 1);
        Self { count, _permit: permit }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.count.set(self.count.get() - 1);
    }
}

/// As many as there may be.
pub(super) fn places(limits: &PoolLimits) -> usize {
    (limits.size / APART).max(1)
}

impl Pools {
    /// A connection of its own, outside of the pool. To be opened after all others that its owner
    /// needs, so that nobody waits for it in a circle.
    ///
    /// # Errors
    /// As [`Self::checkout`].
    pub async fn open_apart(
        &self,
        shard: ShardId,
        login: &Login,
        map: &ShardMap,
        ticket: Option<&Ticket>,
    ) -> Result<Server, ErrorInfo> {
        let dsn = map.shard(shard).map(|shard| &*shard.dsn);
        let dsn = dsn.ok_or_else(|| unreachable(shard, "it is not in the shard map"))?;
        self.know(shard, dsn);
        self.wait_for_resume(shard, ticket).await?;
        let limits = self.limits.get();
        let permit = Arc::clone(&self.apart).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(limits.wait, permit).await else {
            return Err(too_many(shard, "too many statements copy rows to it"));
        };
        let count = self.doors.borrow().get(&shard).map(|door| Rc::clone(&door.apart));
        let apart = Apart::new(count.unwrap_or_default(), permit);
        let connecting = self.connect(shard, dsn, login);
        match tokio::time::timeout(limits.connect, connecting).await {
            Ok(opened) => opened.map(|mut server| {
                server.apart = Some(Box::new(apart));
                server
            }),
            Err(_) => Err(unreachable(shard, "it did not answer in time")),
        }
    }

    async fn wait_for_resume(
        &self,
        shard: ShardId,
        ticket: Option<&Ticket>,
    ) -> Result<(), ErrorInfo> {
        let since = Instant::now();
        let held = || {
            let doors = self.doors.borrow();
            let paused = doors.get(&shard).and_then(|door| door.paused);
            paused.is_some_and(|paused| ticket.is_none_or(|ticket| ticket.generation >= paused))
        };
        while held() {
            let left = self.patience(true).saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(too_many(shard, "it is paused and was not resumed in time"));
            }
            // In vain, if nobody resumes.
            let _ = tokio::time::timeout(left, self.resumed.notified()).await;
        }
        Ok(())
    }

    /// Connections apart, by shard.
    #[must_use]
    pub fn apart(&self) -> Vec<(ShardId, usize)> {
        let doors = self.doors.borrow();
        doors.iter().map(|(shard, door)| (*shard, door.apart.get())).collect()
    }
}
