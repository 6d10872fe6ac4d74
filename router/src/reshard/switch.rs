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

use futures_util::future::{join_all, try_join, try_join_all};
use serde::Serialize;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::Problem;
use super::follow::Beat;
use super::gate::{self, Gate, Lock};
use super::stream::{Stream, StreamTable};

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
    pub(super) steps: Vec<StepTime>,
    pub(super) positions: Vec<Position>,
    /// Transactions that were ended.
    pub(super) ended: i64,
}

/// When a step of the change was done, from the moment on that writers have waited.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct StepTime {
    step: &'static str,
    ms: f64,
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
    ready: &[Readied<'_>],
    openers: Vec<(Client, Client)>,
    budget: Duration,
    late: Late,
) -> (Result<(), Problem>, Closed) {
    let mut closed = Closed {
        locks: Vec::new(),
        started: Instant::now(),
        steps: Vec::new(),
        positions: Vec::new(),
        ended: 0,
    };
    // A third for those under way, so that the rest of the budget is there for the rest.
    let (wait, silence) = (budget / 3, budget * 4 + Duration::from_secs(1));
    let (sources, targets): (Vec<Client>, Vec<Client>) = openers.into_iter().unzip();
    let mut taking = Vec::new();
    for (ready, opener) in ready.iter().zip(targets) {
        taking.push(Lock::take(opener, ready.ends.back, wait, silence));
    }
    // Nobody waits for these yet.
    let targets = join_all(taking).await;
    closed.started = Instant::now();
    let mut taking = Vec::new();
    for (ready, opener) in ready.iter().zip(sources) {
        taking.push(take_source(ready.ends, opener, (wait, silence), late));
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
    closed.mark("writers are held");
    let left = budget.saturating_sub(closed.started.elapsed());
    let mut crossing = Vec::new();
    for (ready, lock) in ready.iter().zip(&closed.locks) {
        crossing.push(ready.cross(lock, left));
    }
    match tokio::time::timeout(left, try_join_all(crossing)).await {
        Ok(Ok(positions)) => {
            closed.mark("all has crossed");
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

/// All that can be done before writers wait.
pub(super) struct Readied<'a> {
    ends: &'a Ends<'a>,
    beat: Beat<'a>,
    sequences: Vec<String>,
}

impl<'a> Readied<'a> {
    /// Readies a stream for its change of owners.
    ///
    /// # Errors
    /// A shard cannot be reached.
    pub(super) async fn new(ends: &'a Ends<'a>) -> Result<Self, Problem> {
        let Ends { stream, back, source, target } = ends;
        // So that little is left to skip while writers wait.
        let sql = "SELECT pg_replication_slot_advance($1::text::name, pg_current_wal_lsn())";
        target.query_one(sql, &[&back.name]).await?;
        let beat = Beat::prepare(source, target, stream).await?;
        let ready = Self { ends, beat, sequences: sequences(source, stream).await? };
        ready.advance_sequences().await?;
        Ok(ready)
    }

    /// Closes the gate, and waits until all that was written is on the other side.
    async fn cross(&self, lock: &Lock, left: Duration) -> Result<Position, Problem> {
        let (position, ()) =
            try_join(self.cross_rows(lock, left), self.advance_sequences()).await?;
        Ok(position)
    }

    async fn cross_rows(&self, lock: &Lock, left: Duration) -> Result<Position, Problem> {
        let Ends { stream, back, target, .. } = self.ends;
        let sql = format!(
            "BEGIN; {}; {}; COMMIT; SELECT pg_current_wal_lsn()",
            gate::set_sql(stream, Gate::Closed),
            self.beat.write_sql()
        );
        let source_lsn = last_value(lock.client(), &sql).await?;
        self.beat.arrives(target, left).await?;
        // Its commit is flushed, and with it what has been applied, which is not by itself: a slot
        // cannot be set beyond that. What came from the source does not go back there.
        let sql = format!(
            "BEGIN; {}; COMMIT; SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn()); \
             SELECT pg_current_wal_lsn()",
            gate::set_sql(back, Gate::Open),
            back.name
        );
        let target_lsn = last_value(target, &sql).await?;
        Ok(Position { source: stream.source.0, target: stream.target.0, source_lsn, target_lsn })
    }

    /// The next value of each sequence that a moving table's columns take theirs from is one that
    /// neither side has given out.
    async fn advance_sequences(&self) -> Result<(), Problem> {
        if self.sequences.is_empty() {
            return Ok(());
        }
        let sql = "SELECT name, pg_sequence_last_value(name::regclass) \
                   FROM unnest($1::text[]) AS sequence (name)";
        let rows = self.ends.source.query(sql, &[&self.sequences]).await?;
        let names: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        let lasts: Vec<Option<i64>> = rows.iter().map(|row| row.get(1)).collect();
        let sql = "SELECT setval(name::regclass, greatest(last, \
                   coalesce(pg_sequence_last_value(name::regclass), last))) \
                   FROM unnest($1::text[], $2::int8[]) AS sequence (name, last) \
                   WHERE last IS NOT NULL";
        self.ends.target.query(sql, &[&names, &lasts]).await?;
        Ok(())
    }

    /// Takes away what was needed, when nobody waits any more.
    ///
    /// # Errors
    /// The source cannot be reached.
    pub(super) async fn tidy(&self) -> Result<(), Problem> {
        self.beat.forget_older(self.ends.source).await
    }
}

/// Sequences that a moving table's columns take their values from.
async fn sequences(source: &Client, stream: &Stream) -> Result<Vec<String>, Problem> {
    let tables: Vec<String> = stream.tables.iter().map(StreamTable::quoted).collect();
    let sql = "SELECT DISTINCT s.oid::regclass::text \
        FROM pg_class s JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid \
        AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') \
        WHERE s.relkind = 'S' AND d.refobjid = ANY ($1::text[]::regclass[])";
    Ok(source.query(sql, &[&tables]).await?.iter().map(|row| row.get(0)).collect())
}

/// Runs statements, and gives the only value of the last row.
async fn last_value(client: &Client, sql: &str) -> Result<String, Problem> {
    let messages = client.simple_query(sql).await?;
    let value = messages.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(value.unwrap_or_default().to_owned())
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

    pub(super) fn mark(&mut self, step: &'static str) {
        self.steps.push(StepTime { step, ms: self.waiting().as_secs_f64() * 1000.0 });
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
