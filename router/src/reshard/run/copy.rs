//! Rows are copied by PostgreSQL; what is done here is to begin it, to hold it up where others would
//! suffer, and to tell how far it is.

use std::collections::BTreeMap;
use std::time::Instant;

use pgherd_shard_map::store::Record;
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::{LOOK, Run, Tell};
use crate::reshard::stream::{Direction, Stream};
use crate::reshard::throttle::{HEARD_WITHIN, Limits, Load, Meter};
use crate::reshard::{Problem, brake, follow, size};

impl Run {
    /// Until every table has been copied and follows. Held up where others would suffer.
    pub(super) async fn copy(
        &mut self,
        direction: Direction,
        tell: &mut Tell<'_>,
    ) -> Result<(), Problem> {
        let ends = self.ends(direction).await?;
        let mut meter = self.meter(direction).await?;
        for (stream, _, target) in &ends {
            brake::make(target, stream).await?;
        }
        // Nothing is begun that would have to be held at once.
        self.give_way(&mut meter, tell).await?;
        for (stream, _, target) in &ends {
            let url = self.shards.url(stream.source)?;
            follow::subscribe(target, url, stream, follow::Rows::Copy).await?;
        }
        let mut expected = Vec::new();
        for (stream, source, _) in &ends {
            expected.push(self.expected(stream, source).await?);
        }
        let mut said = Value::Null;
        let mut pace = None;
        let mut braked = false;
        loop {
            let mut lines = Vec::new();
            let mut missing = false;
            let mut there = (0, 0);
            for ((stream, _, target), expected) in ends.iter().zip(&expected) {
                let tables = follow::progress(target, stream, expected).await?;
                missing |= tables.len() < stream.tables.len();
                missing |= tables.iter().any(|table| table.state != "following");
                let (rows, all) = follow::Pace::rows(tables.iter());
                there = (there.0 + rows, there.1 + all);
                lines.push(json!({ "source": stream.source.0, "target": stream.target.0,
                    "tables": tables }));
            }
            let (held, load) = self.held(&mut meter).await?;
            let pace = pace.get_or_insert_with(|| follow::Pace::new(there.0));
            let progress = json!({ "phase": "copying", "streams": lines, "rate": pace.rate(there),
                "held": held, "load": load });
            if progress != said {
                self.catalog.note_reshard(self.record.id, &progress, None).await?;
                self.record.progress = progress.clone();
                tell(&progress);
                said = progress;
            }
            if !missing {
                break;
            }
            self.may_go_on()?;
            if braked || held.is_some() {
                braked = held.is_some();
                for (stream, _, target) in &ends {
                    brake::set(target, stream, braked).await?;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        for (stream, _, target) in &ends {
            brake::remove(target, stream).await?;
        }
        Ok(())
    }

    pub(super) async fn meter(&mut self, direction: Direction) -> Result<Meter, Problem> {
        let mut shards = BTreeMap::new();
        for (stream, source, target) in self.ends(direction).await? {
            shards.insert(stream.source, source);
            shards.insert(stream.target, target);
        }
        Ok(Meter::new(shards.into_iter().collect()))
    }

    /// Why rows are held now, if they are, and what was measured.
    async fn held(&self, meter: &mut Meter) -> Result<(Option<String>, Load), Problem> {
        let load = meter.look(&self.catalog).await?;
        let limits = match self.catalog.reshard().await? {
            Some(record) if record.id == self.record.id => limits(&record)?,
            _ => Limits::default(),
        };
        Ok((limits.exceeded(&load), load))
    }

    /// Waits until nobody would suffer.
    pub(super) async fn give_way(
        &self,
        meter: &mut Meter,
        tell: &mut Tell<'_>,
    ) -> Result<(), Problem> {
        let started = Instant::now();
        let mut said = None;
        loop {
            let (held, load) = self.held(meter).await?;
            // Routers have known of the run for a moment only.
            let unheard = load.p99_ms.is_none() && limits(&self.record)?.max_p99_ms.is_some();
            if unheard && started.elapsed() < HEARD_WITHIN {
                self.may_go_on()?;
                tokio::time::sleep(LOOK).await;
                continue;
            }
            if held != said {
                let phase = &self.record.phase;
                let progress = json!({ "phase": phase, "held": held, "load": load });
                self.catalog.note_reshard(self.record.id, &progress, None).await?;
                tell(&progress);
                said.clone_from(&held);
            }
            if held.is_none() {
                return Ok(());
            }
            self.may_go_on()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Changes what rows leave to others. May be done beside a command that is at work.
    ///
    /// # Errors
    /// The catalog cannot be reached.
    pub async fn limit(&mut self, change: impl FnOnce(&mut Limits)) -> Result<Limits, Problem> {
        let mut limits = limits(&self.record)?;
        change(&mut limits);
        self.record.limits = json!(limits);
        self.catalog.limit_reshard(self.record.id, &self.record.limits).await?;
        Ok(limits)
    }

    /// About how many rows each table of a stream has.
    pub(super) async fn expected(
        &self,
        stream: &Stream,
        source: &Client,
    ) -> Result<Vec<u64>, Problem> {
        let mut expected = Vec::new();
        for table in &stream.tables {
            let all = size::of_table(source, &table.quoted()).await?;
            let share = |range| size::share(&self.map, table.table.group, stream.source, range);
            let share: f64 = table.ranges.iter().map(|range| share(*range)).sum();
            expected.push(all.times(share.min(1.0)).rows);
        }
        Ok(expected)
    }
}

pub(super) fn limits(record: &Record) -> Result<Limits, Problem> {
    let read = serde_json::from_value(record.limits.clone());
    Ok(read.map_err(|error| format!("limits of run {}: {error}", record.id))?)
}
