//! What is to be seen of a run: how far its streams are, and whether whoever drove it has left
//! something half done.

use futures_util::future::join_all;
use pgherd_shard_map::store::read_local;
use serde_json::{Value, json};

use super::Run;
use super::copy::limits;
use crate::reshard::phase::Phase;
use crate::reshard::stream::Stream;
use crate::reshard::throttle::{Limits, Load};
use crate::reshard::{Answered, Problem, Seen, SeenStream, follow, gate};

/// A stream, how far its target is behind, and how far its tables are.
type Look = (Stream, Option<i64>, Vec<follow::TableProgress>);

impl Run {
    /// Whether a gate is closed on a shard that is in charge: nobody can write there.
    ///
    /// # Errors
    /// A shard cannot be reached.
    pub async fn is_shut(&mut self) -> Result<bool, Problem> {
        let Some(phase) = self.phase().filter(|phase| !phase.is_over()) else { return Ok(false) };
        for (stream, source, _) in self.ends(phase.direction()).await? {
            if gate::is_closed(&source, &stream).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether routers that have not heard of the last change of owners may still have sessions on
    /// the side that was left: whoever made the change has died before it looked.
    ///
    /// # Errors
    /// A shard cannot be reached.
    pub async fn is_unsettled(&mut self) -> Result<bool, Problem> {
        let (Some(phase), Some(changed)) = (self.phase(), self.record.owners_epoch) else {
            return Ok(false);
        };
        if phase.is_over() {
            return Ok(false);
        }
        for (_, _, target) in self.ends(phase.direction()).await? {
            if read_local(&target).await?.is_some_and(|local| local.epoch < changed) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is looked at before rows go on: measured now.
    ///
    /// # Errors
    /// A shard cannot be reached.
    pub async fn load(&mut self) -> Result<Option<Load>, Problem> {
        let Some(phase) = self.phase().filter(|phase| !phase.is_over()) else { return Ok(None) };
        Ok(Some(self.meter(phase.direction()).await?.look(&self.catalog).await?))
    }

    /// What rows leave to others.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn limits(&self) -> Result<Limits, Problem> {
        limits(&self.record)
    }

    /// A router tells what statements have taken lately.
    ///
    /// # Errors
    /// The catalog cannot be reached.
    pub async fn tell_answers(&self, seen: &Answered<'_>) -> Result<(), Problem> {
        Ok(self.catalog.tell_answers(seen.router, seen.p99s).await?)
    }

    /// How far each stream is, for people.
    ///
    /// # Errors
    /// A shard cannot be reached.
    pub async fn observe(&mut self) -> Result<Value, Problem> {
        let looks = self.look_at_streams().await?;
        let streams = looks.iter().map(|(stream, lag, tables)| {
            json!({ "source": stream.source.0, "target": stream.target.0, "lag_bytes": lag,
                "tables": tables })
        });
        Ok(streams.collect())
    }

    /// The same for metrics; nothing where nothing is under way.
    ///
    /// # Errors
    /// A shard cannot be reached.
    pub async fn seen(&mut self) -> Result<Option<Seen>, Problem> {
        if self.phase().is_none_or(Phase::is_over) {
            return Ok(None);
        }
        let looks = self.look_at_streams().await?;
        let streams = looks.iter().map(|(stream, lag, tables)| {
            let (rows, expected) = follow::Pace::rows(tables.iter());
            let (source, target) = (stream.source, stream.target);
            SeenStream { source, target, lag: lag.unwrap_or_default(), rows, expected }
        });
        Ok(Some(Seen {
            run: self.record.id,
            phase: self.record.phase.clone(),
            paused: self.record.paused,
            held: self.record.progress["held"].is_string(),
            streams: streams.collect(),
        }))
    }

    /// Each stream, how far its target is behind, and how far its tables are.
    async fn look_at_streams(&mut self) -> Result<Vec<Look>, Problem> {
        let Some(phase) = self.phase().filter(|phase| !phase.is_over()) else {
            return Ok(Vec::new());
        };
        let ends = self.ends(phase.direction()).await?;
        let run = &*self;
        let looks = ends.into_iter().map(|(stream, source, target)| async move {
            let expected = run.expected(&stream, &source).await?;
            let tables = follow::progress(&target, &stream, &expected).await?;
            let lag = follow::lag(&source, &stream).await?;
            Ok::<_, Problem>((stream, lag, tables))
        });
        join_all(looks).await.into_iter().collect()
    }
}
