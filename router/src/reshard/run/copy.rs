//! Rows are copied by PostgreSQL; what is done here is to begin it, and to tell how far it is.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::Run;
use crate::reshard::stream::{Direction, Stream};
use crate::reshard::{Problem, follow, size};

/// How often progress is looked at while rows are copied.
const LOOK: Duration = Duration::from_millis(500);

impl Run {
    /// Until every table has been copied and follows.
    pub(super) async fn copy(
        &mut self,
        direction: Direction,
        tell: &mut (dyn FnMut(&Value) + Send),
    ) -> Result<(), Problem> {
        let ends = self.ends(direction).await?;
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
            let pace = pace.get_or_insert_with(|| follow::Pace::new(there.0));
            let progress =
                json!({ "phase": "copying", "streams": lines, "rate": pace.rate(there) });
            if progress != said {
                self.catalog.note_reshard(self.record.id, &progress, None).await?;
                self.record.progress = progress.clone();
                tell(&progress);
                said = progress;
            }
            if !missing {
                return Ok(());
            }
            self.may_go_on()?;
            tokio::time::sleep(LOOK).await;
        }
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
