//! Changes owners: the gates closed, the catalog asked, and the way back if it cannot be done in time.

use std::time::Duration;

use pgherd_shard_map::Epoch;
use serde_json::json;

use super::{Run, back_of};
use crate::reshard::Problem;
use crate::reshard::phase::{Advance, Owners, Phase};
use crate::reshard::stream::Direction;
use crate::reshard::switch::{self, Ends, Readied};

/// How long another change of the map is waited for, before writers wait.
const MAP_WAIT: Duration = Duration::from_secs(5);

/// How long routers are given to take the new map at least, while writers wait.
const SETTLE_MIN: Duration = Duration::from_millis(50);

impl Run {
    /// Changes owners, or leaves everything as it was.
    pub(super) async fn switch(
        &mut self,
        direction: Direction,
        phase: Phase,
    ) -> Result<(), Problem> {
        self.shut_out(direction).await?;
        let list = self.ends(direction).await?;
        let backs = self.streams(direction.reversed())?;
        let mut ends = Vec::new();
        let mut openers = Vec::new();
        for (stream, source, target) in &list {
            let back = back_of(&backs, stream)?;
            ends.push(Ends { stream, back, source, target });
            let both = [stream.source, stream.target].map(|shard| self.shards.open(shard));
            let [source_opener, target_opener] = both;
            openers.push((source_opener.await?, target_opener.await?));
        }
        let mut ready = Vec::new();
        for ends in &ends {
            ready.push(Readied::new(ends).await?);
        }
        let budget = self.options.max_pause;
        if let Err(error) = self.catalog.hold_map(MAP_WAIT).await {
            // The connection may have gone with it.
            drop(self.catalog.release_map().await);
            return Err(Problem::new(
                format!("the map is being changed: {error}"),
                "Nothing has moved. A transaction that changes the schema is open: try again after it.",
            ));
        }
        let (crossed, mut closed) = switch::close(&ready, openers, budget, self.options.late).await;
        let late = closed.waiting() >= budget;
        let crossed =
            crossed.and_then(|()| if late { Err(switch::too_long(budget)) } else { Ok(()) });
        if let Err(problem) = crossed {
            let advance = Advance { from: phase, to: given_up(phase), owners: None };
            self.commit_advance(advance).await?;
            switch::reopen(&ends).await?;
            closed.release().await;
            self.map = self.catalog.load().await?;
            return Err(problem);
        }
        let (to, owners) = match direction {
            Direction::Forward => (Phase::Moved, Owners::New),
            Direction::Backward => (Phase::Ready, Owners::Old),
        };
        let advance = Advance { from: phase, to, owners: Some(owners) };
        let epoch = match self.commit_advance(advance).await {
            Ok(epoch) => epoch,
            Err(problem) => return self.unclear(phase, &ends, closed, problem).await,
        };
        closed.mark("owners have changed");
        // Nothing is written on the new side yet, so whoever reads the old one reads what is true; and
        // when that is over, nobody reads it any more.
        let wait = budget.saturating_sub(closed.waiting()).max(SETTLE_MIN);
        let settled = self.settle(epoch, ends.iter().map(|ends| ends.source), wait).await;
        closed.mark("routers know of it");
        let (ended, positions, steps) =
            (closed.ended, closed.positions.clone(), closed.steps.clone());
        let pause = closed.release().await;
        settled?;
        self.map = self.catalog.load().await?;
        for ready in &ready {
            ready.tidy().await?;
        }
        let kind = if direction == Direction::Forward { "cut-over" } else { "rollback" };
        let found = self.last.clone().unwrap_or_default();
        let more = json!({
            "pause_ms": pause.as_secs_f64() * 1000.0,
            "max_pause_ms": self.options.max_pause.as_secs_f64() * 1000.0,
            "ended_transactions": ended,
            "steps": steps,
            "epoch": epoch.0,
            "positions": positions,
        });
        self.certify(kind, &found, more).await
    }

    /// The end of a transaction that `hold_map` has begun.
    async fn commit_advance(&mut self, advance: Advance) -> Result<Epoch, Problem> {
        let epoch = self.record_advance(advance).await?;
        self.catalog.commit_map().await?;
        Ok(epoch)
    }

    /// The catalog did not say whether owners changed: it is asked until it does, and writers wait.
    async fn unclear(
        &mut self,
        phase: Phase,
        ends: &[Ends<'_>],
        closed: switch::Closed,
        problem: Problem,
    ) -> Result<(), Problem> {
        // Where it has ended already, there is nothing to end.
        drop(self.catalog.release_map().await);
        let record = self.catalog.reshard().await?;
        let Some(record) = record else { return Err(problem) };
        self.record = record;
        if self.phase() == Some(phase) {
            self.advance(Advance { from: phase, to: given_up(phase), owners: None }).await?;
            switch::reopen(ends).await?;
        }
        closed.release().await;
        Err(problem)
    }

    pub(super) async fn reopen(&mut self, direction: Direction) -> Result<(), Problem> {
        let list = self.ends(direction).await?;
        let backs = self.streams(direction.reversed())?;
        let mut ends = Vec::new();
        for (stream, source, target) in &list {
            ends.push(Ends { stream, back: back_of(&backs, stream)?, source, target });
        }
        switch::reopen(&ends).await
    }
}

/// Where a switch that is given up leads.
const fn given_up(phase: Phase) -> Phase {
    match phase {
        Phase::Returning => Phase::Moved,
        _ => Phase::Ready,
    }
}
