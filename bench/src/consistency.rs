//! What reads over several shards cost that tear no transaction: `count(*)` with
//! `pgherd.read_consistency` at `atomic` and `snapshot` beside `shard`, in turn.

use std::time::{Duration, Instant};

use crate::case::Protocol;
use crate::contenders::{Contender, Contenders};
use crate::interrupt;
use crate::stats::{Latencies, median};
use crate::table::{Table, number};
use crate::wire::Connection;

const LEVELS: [&str; 3] = ["shard", "atomic", "snapshot"];

#[derive(Debug)]
pub(crate) struct ConsistencyOptions {
    /// Sizes of the table.
    pub rows: Vec<u32>,
    pub clients: Vec<u32>,
    pub seconds: u32,
    pub rounds: u32,
    pub shards: u32,
}

/// # Errors
/// What could not be started or was refused.
pub(crate) fn run(options: &ConsistencyOptions) -> Result<(), String> {
    let contenders = Contenders::start(options.shards, false)?;
    let dsn = contenders.dsn(Contender::Pgherd, Protocol::Simple);
    let mut table = Table::new(
        2,
        [
            "rows",
            "clients",
            "shard p50, ms",
            "atomic p50, ms",
            "snapshot p50, ms",
            "atomic / shard",
            "snapshot / shard",
        ],
    );
    for rows in &options.rows {
        fill(&dsn, *rows)?;
        for clients in &options.clients {
            let mut middles: [Vec<f64>; 3] = Default::default();
            for round in 1..=options.rounds.max(1) {
                eprintln!("{rows} rows, {clients} clients, round {round}");
                for (at, level) in LEVELS.into_iter().enumerate() {
                    middles[at].push(measure(&dsn, *rows, level, *clients, options.seconds)?);
                }
            }
            let ratio = |at: usize| {
                let ratios: Vec<f64> =
                    middles[at].iter().zip(&middles[0]).map(|(a, b)| a / b).collect();
                number(median(&ratios))
            };
            let mut cells = vec![rows.to_string(), clients.to_string()];
            cells.extend(middles.iter().map(|middles| number(median(middles))));
            cells.extend([ratio(1), ratio(2)]);
            table.row(cells);
        }
    }
    print!("{}", table.render());
    Ok(())
}

fn name(rows: u32) -> String {
    format!("bench_counted_{rows}")
}

fn fill(dsn: &str, rows: u32) -> Result<(), String> {
    let table = name(rows);
    let mut connection = Connection::open(dsn)?;
    connection.query(&format!("CREATE TABLE {table} (id int PRIMARY KEY, note text)"))?;
    connection.query(&format!("SELECT create_distributed_table('{table}', 'id')"))?;
    connection.query(&format!(
        "INSERT INTO {table} SELECT g, 'note ' || g FROM generate_series(1, {rows}) g"
    ))?;
    connection.query(&format!("VACUUM ANALYZE {table}"))
}

/// Half of all counts take at most so long, in ms.
fn measure(dsn: &str, rows: u32, level: &str, clients: u32, seconds: u32) -> Result<f64, String> {
    let end = Instant::now() + Duration::from_secs(u64::from(seconds));
    let sql = format!("SELECT count(*) FROM {}", name(rows));
    let count = || {
        let mut connection = Connection::open(dsn)?;
        connection.query(&format!("SET pgherd.read_consistency = '{level}'"))?;
        let mut latencies = Latencies::new();
        while Instant::now() < end {
            let begun = Instant::now();
            connection.query(&sql)?;
            latencies.record(begun.elapsed());
        }
        Ok::<_, String>(latencies)
    };
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(count)).collect();
        let mut all = Latencies::new();
        for thread in threads {
            all.add(&thread.join().map_err(|_| "a client's thread ended early".to_owned())??);
        }
        Ok::<_, String>(all)
    })?;
    interrupt::check()?;
    Ok(all.quantile(0.5) / 1000.0)
}
