//! A client that reads a large result slowly: does the process in the middle hold it back at the
//! server, or keep it in memory?

use std::time::{Duration, Instant};

use crate::case::Protocol;
use crate::contenders::{Contender, Contenders};
use crate::interrupt;
use crate::procfs::Memory;
use crate::table::{Table, number};
use crate::wire::Connection;

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(50);

/// Rows of the table that is spread over the shards.
const ROWS: u32 = 10_000;

const ROWS_PER_INSERT: u32 = 1_000;

#[derive(Debug)]
pub(crate) struct SlowReaderOptions {
    /// Size of each result, in MB (10^6 bytes).
    pub megabytes: u32,
    /// MB per second that the client reads.
    pub rate: f64,
    pub shards: u32,
}

/// Memory of the process in the middle while one result went through.
#[derive(Debug)]
struct Series {
    before: u64,
    /// (bytes that the client had read, RSS)
    samples: Vec<(u64, u64)>,
    received: u64,
}

/// # Errors
/// What could not be started; after the table, the results that were refused or cut off.
pub(crate) fn run(options: &SlowReaderOptions) -> Result<(), String> {
    if options.rate.is_nan() || options.rate <= 0.0 {
        return Err("--rate must be above 0 MB per second".to_owned());
    }
    let contenders = Contenders::start(options.shards, false)?;
    for contender in [Contender::Direct, Contender::Pgherd] {
        fill(&contenders.dsn(contender, Protocol::Simple), contender)?;
    }
    let mut table = Table::new(
        2,
        [
            "result",
            "process",
            "MB read",
            "RSS before, MiB",
            "at 25 %",
            "at 50 %",
            "at 75 %",
            "at the end",
            "highest",
        ],
    );
    let mut failures = Vec::new();
    for (name, sql) in statements(options.megabytes) {
        for contender in [Contender::PgBouncer, Contender::Pgherd] {
            let Some(pid) = contenders.middle(contender) else { continue };
            eprintln!("{name} through {}", contender.name());
            let dsn = contenders.dsn(contender, Protocol::Simple);
            match read_slowly(&dsn, pid, &sql, options.rate) {
                Ok(series) => table.row(series.cells(name, contender.name())),
                Err(error) => {
                    interrupt::check()?;
                    table.row(vec![name.to_owned(), contender.name().to_owned(), "–".to_owned()]);
                    failures.push(format!("{name} through {}: {error}", contender.name()));
                }
            }
        }
    }
    print!("{}", table.render());
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!("some results did not come through\n{}", failures.join("\n")))
}

/// Wide rows are made by the statement, so that little has to be loaded.
fn fill(dsn: &str, contender: Contender) -> Result<(), String> {
    let mut connection = Connection::open(dsn)?;
    connection.query("CREATE TABLE bench_wide (id int PRIMARY KEY)")?;
    if contender == Contender::Pgherd {
        connection.query("SELECT create_distributed_table('bench_wide', 'id')")?;
    }
    for first in (0..ROWS).step_by(ROWS_PER_INSERT as usize) {
        let values: Vec<String> =
            (first..first + ROWS_PER_INSERT).map(|id| format!("({id})")).collect();
        connection.query(&format!("INSERT INTO bench_wide VALUES {}", values.join(", ")))?;
    }
    Ok(())
}

fn statements(megabytes: u32) -> [(&'static str, String); 3] {
    let bytes = u64::from(megabytes) * 1_000_000;
    let width = (bytes / u64::from(ROWS)).max(1);
    let rows = bytes / 1000;
    [
        ("one shard", format!("SELECT repeat('x', 1000) FROM generate_series(1, {rows})")),
        ("all shards", format!("SELECT id, repeat('x', {width}) FROM bench_wide")),
        (
            "all shards, sorted",
            format!("SELECT id, repeat('x', {width}) FROM bench_wide ORDER BY id"),
        ),
    ]
}

fn read_slowly(dsn: &str, pid: u32, sql: &str, rate: f64) -> Result<Series, String> {
    let mut connection = Connection::open(dsn)?;
    let mut series = Series { before: Memory::of(pid)?.now, samples: Vec::new(), received: 0 };
    connection.start_query(sql)?;
    let start = Instant::now();
    let mut next_sample = start;
    loop {
        let (length, complete) = connection.read_some()?;
        series.received += length as u64;
        if complete || Instant::now() >= next_sample {
            series.samples.push((series.received, Memory::of(pid)?.now));
            next_sample = Instant::now() + SAMPLE;
        }
        if complete {
            return Ok(series);
        }
        let seconds = series.received as f64 / (rate * 1_000_000.0);
        interrupt::wait_until(start + Duration::from_secs_f64(seconds))?;
    }
}

impl Series {
    fn cells(&self, name: &str, process: &str) -> Vec<String> {
        let mebibytes = |bytes: u64| number(Some(bytes as f64 / f64::from(1 << 20)));
        let highest = self.samples.iter().map(|sample| sample.1).max().unwrap_or(self.before);
        vec![
            name.to_owned(),
            process.to_owned(),
            format!("{:.0}", self.received as f64 / 1e6),
            mebibytes(self.before),
            mebibytes(self.at(0.25)),
            mebibytes(self.at(0.5)),
            mebibytes(self.at(0.75)),
            mebibytes(self.at(1.0)),
            mebibytes(highest),
        ]
    }

    /// RSS when that share of the result had been read.
    fn at(&self, share: f64) -> u64 {
        let wanted = self.received as f64 * share;
        let sample = self.samples.iter().find(|(read, _)| *read as f64 >= wanted);
        sample.map_or(self.before, |(_, memory)| *memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_by_the_share_that_was_read() {
        let series = Series { before: 1, samples: vec![(10, 5), (50, 9), (100, 7)], received: 100 };
        assert_eq!([0.25, 0.5, 0.75, 1.0].map(|share| series.at(share)), [9, 9, 7, 7]);
    }

    #[test]
    fn an_empty_result_has_the_memory_from_before() {
        let series = Series { before: 3, samples: vec![], received: 0 };
        assert_eq!(series.at(1.0), 3);
    }
}
