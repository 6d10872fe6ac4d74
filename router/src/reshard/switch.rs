//! The change of owners: the gate closed, the last rows across, one transaction of the catalog.
//!
//! ```text
//!  source  lock taken ─ gate closed ─ beat ─┐                                   ┌─ locks released:
//!          (writers wait from here)         │                                   │  writers are told
//!  target  lock taken                       └─ beat there ─ slot of the         │  to go to the
//!                                              way back set ─ gate open         │  target
//!  catalog                                                               owners │
//!  routers                                        all have the new map, or none │
//!                                                 of their sessions on the source
//! ```
//!
//! What fails before the catalog's transaction is undone, and the writers that waited go on as if
//! nothing had been. Nobody can have changed owners then, since the phase is taken back first.

use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use serde::Serialize;
use tokio_postgres::Client;

use super::gate::{self, Gate, Lock};
use super::stream::Stream;
use super::{Problem, follow};

/// One stream, with connections to both of its ends.
pub(super) struct Ends<'a> {
    pub(super) stream: &'a Stream,
    /// The stream of the way back: its slot is made already.
    pub(super) back: &'a Stream,
    pub(super) source: &'a Client,
    pub(super) target: &'a Client,
}

/// What becomes of transactions that have written moving rows and do not end in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Late {
    /// Nothing moves.
    #[default]
    Kept,
    /// Their clients are told 40001.
    Ended,
}

/// Gates that are closed, with the writers waiting.
pub(super) struct Closed {
    locks: Vec<Lock>,
    started: Instant,
    pub(super) positions: Vec<Position>,
    /// Transactions that were ended.
    pub(super) ended: i64,
}

/// Where the logs of both sides stood when owners changed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Position {
    pub source: u32,
    pub target: u32,
    pub source_lsn: String,
    pub target_lsn: String,
}

/// Closes the gates of all streams and brings the last rows across. `openers` are fresh connections
/// to the sources and the targets.
///
/// # Errors
/// It cannot be done within `budget`: then [`reopen`] has to follow, after the phase is taken back.
pub(super) async fn close(
    ends: &[Ends<'_>],
    openers: Vec<(Client, Client)>,
    budget: Duration,
    late: Late,
) -> (Result<(), Problem>, Closed) {
    let mut closed =
        Closed { locks: Vec::new(), started: Instant::now(), positions: Vec::new(), ended: 0 };
    // A third for those under way, so that the rest of the budget is there for the rest.
    let (wait, silence) = (budget / 3, budget * 4 + Duration::from_secs(1));
    let (sources, targets): (Vec<Client>, Vec<Client>) = openers.into_iter().unzip();
    let mut taking = Vec::new();
    for (ends, opener) in ends.iter().zip(targets) {
        taking.push(Lock::take(opener, ends.back, wait, silence));
    }
    // Nobody waits for these yet.
    let targets = join_all(taking).await;
    closed.started = Instant::now();
    let mut taking = Vec::new();
    for (ends, opener) in ends.iter().zip(sources) {
        taking.push(take_source(ends, opener, (wait, silence), late));
    }
    let (sources, ended): (Vec<_>, Vec<i64>) = join_all(taking).await.into_iter().unzip();
    closed.ended = ended.iter().sum();
    // Those of the sources are asked for by their place.
    let mut failure = None;
    for taken in sources.into_iter().chain(targets) {
        match taken {
            Ok(lock) => closed.locks.push(lock),
            Err(problem) => failure = Some(problem),
        }
    }
    if let Some(problem) = failure {
        return (Err(problem), closed);
    }
    let left = budget.saturating_sub(closed.started.elapsed());
    let crossing = ends.iter().zip(&closed.locks).map(|(ends, lock)| cross(ends, lock, left));
    match tokio::time::timeout(left, try_join_all(crossing)).await {
        Ok(Ok(positions)) => {
            closed.positions = positions;
            (Ok(()), closed)
        }
        Ok(Err(problem)) => (Err(problem), closed),
        Err(_) => (Err(too_long(budget)), closed),
    }
}

/// The lock of a source's gate, and how many transactions were ended for it.
async fn take_source(
    ends: &Ends<'_>,
    opener: Client,
    (wait, silence): (Duration, Duration),
    late: Late,
) -> (Result<Lock, Problem>, i64) {
    let Ends { stream, source, .. } = ends;
    let Late::Ended = late else {
        return (Lock::take(opener, stream, wait, silence).await, 0);
    };
    let mut taking = std::pin::pin!(Lock::take(opener, stream, wait + wait / 2, silence));
    if let Ok(taken) = tokio::time::timeout(wait, &mut taking).await {
        return (taken, 0);
    }
    match gate::end_writers(source, stream).await {
        Ok(ended) => (taking.await, ended),
        Err(problem) => (Err(problem), 0),
    }
}

pub(super) fn too_long(budget: Duration) -> Problem {
    Problem::new(
        format!("the pause would have been longer than {} ms", budget.as_millis()),
        "Nothing has moved. Try again when there is less load, or with a longer --max-pause.",
    )
}

async fn cross(ends: &Ends<'_>, lock: &Lock, left: Duration) -> Result<Position, Problem> {
    let Ends { stream, back, source, target } = ends;
    gate::set(lock.client(), stream, Gate::Closed).await?;
    follow::beat(source, target, stream, left).await?;
    // Its commit is flushed, and with it what has been applied, which is not by itself: a slot
    // cannot be set beyond that.
    gate::set(target, back, Gate::Open).await?;
    // What came from the source does not go back there.
    let sql = "SELECT pg_replication_slot_advance($1::text::name, pg_current_wal_lsn()), \
               pg_current_wal_lsn()::text";
    let target_lsn = target.query_one(sql, &[&back.name]).await?.get(1);
    let source_lsn = source.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
    Ok(Position { source: stream.source.0, target: stream.target.0, source_lsn, target_lsn })
}

/// Undoes [`close`]: the sources are in charge, and their gates open.
///
/// # Errors
/// A shard cannot be reached.
pub(super) async fn reopen(ends: &[Ends<'_>]) -> Result<(), Problem> {
    for Ends { stream, back, source, target } in ends {
        if gate::is_there(target, back).await? {
            gate::set(target, back, Gate::Closed).await?;
        }
        if gate::is_there(source, stream).await? {
            gate::set(source, stream, Gate::Open).await?;
        }
    }
    Ok(())
}

impl Closed {
    /// How long writers have been waiting.
    pub(super) fn waiting(&self) -> Duration {
        self.started.elapsed()
    }

    /// Lets the writers go on, where the gates and the map now send them. How long they waited.
    pub(super) async fn release(self) -> Duration {
        for released in join_all(self.locks.into_iter().map(Lock::release)).await {
            if let Err(problem) = released {
                // Its connection is gone, and the lock with it.
                tracing::warn!(%problem, "a gate's lock was not given back");
            }
        }
        self.started.elapsed()
    }
}

/// The next value of each sequence that a moving table's columns take theirs from is one that
/// neither side has given out.
///
/// # Errors
/// PostgreSQL's.
pub(super) async fn advance_sequences(ends: &Ends<'_>) -> Result<(), Problem> {
    let owned = "SELECT s.oid::regclass::text, pg_sequence_last_value(s.oid) \
        FROM pg_class s JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid \
        AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') \
        WHERE s.relkind = 'S' AND d.refobjid = $1::text::regclass";
    for table in &ends.stream.tables {
        for row in ends.source.query(owned, &[&table.quoted()]).await? {
            let (sequence, last): (String, Option<i64>) = (row.get(0), row.get(1));
            if let Some(last) = last {
                let set = "SELECT setval($1::text::regclass, greatest($2, \
                           coalesce(pg_sequence_last_value($1::text::regclass), $2)))";
                ends.target.query_one(set, &[&sequence, &last]).await?;
            }
        }
    }
    Ok(())
}
