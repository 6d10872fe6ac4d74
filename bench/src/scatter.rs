//! Reads of all shards: pgherd beside the shards themselves, all asked at once, and beside one plain
//! server that has all rows.
//!
//! The shards alone are the ideal: nobody has merged their answers. What the router adds is told as
//! its CPU time and the highest memory that it had meanwhile.

use std::time::{Duration, Instant};

use crate::case::Protocol;
use crate::contenders::{Contender, Contenders};
use crate::interrupt;
use crate::procfs::{CpuTime, Memory};
use crate::stats::median;
use crate::table::{Table, number};
use crate::wire::Connection;

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct ScatterOptions {
    pub rows: u32,
    pub rounds: u32,
    pub shards: u32,
}

/// One statement, read to its end.
#[derive(Debug, Clone, Copy)]
struct Turn {
    whole: Duration,
    first: Duration,
    cpu: Duration,
    memory: u64,
}

/// What is asked. The groups of `few` are a hundred, those of `many` 200,000, none of them on one
/// shard alone.
const STATEMENTS: &[(&str, &str)] = &[
    ("count", "SELECT count(*) FROM bench_events"),
    ("100 groups", "SELECT few, count(*), sum(amount), avg(amount) FROM bench_events GROUP BY few"),
    ("200,000 groups", "SELECT many, count(*), sum(amount) FROM bench_events GROUP BY many"),
    ("top 100", "SELECT * FROM bench_events ORDER BY amount DESC, id LIMIT 100"),
    ("all rows", "SELECT * FROM bench_events"),
    ("all rows, sorted", "SELECT * FROM bench_events ORDER BY amount, id"),
    ("distinct", "SELECT DISTINCT few, note FROM bench_events"),
    (
        "join over copies",
        "SELECT count(*) FROM bench_events a JOIN bench_events b ON b.id = a.many AND b.few = 7",
    ),
];

/// # Errors
/// What could not be started or was refused.
pub(crate) fn run(options: &ScatterOptions) -> Result<(), String> {
    let contenders = Contenders::start(options.shards, false)?;
    for contender in [Contender::Direct, Contender::Pgherd] {
        eprintln!("filling {}", contender.name());
        fill(&contenders.dsn(contender, Protocol::Simple), contender, options.rows)?;
    }
    let plain = vec![contenders.dsn(Contender::Direct, Protocol::Simple)];
    let pgherd = vec![contenders.dsn(Contender::Pgherd, Protocol::Simple)];
    let ideal = contenders.shard_dsns(Contender::Direct, Protocol::Simple);
    let router = contenders.middle(Contender::Pgherd);
    let mut table = Table::new(
        1,
        [
            "statement",
            "plain, s",
            "shards alone, s",
            "pgherd, s",
            "pgherd / shards",
            "first row, ms",
            "router CPU, s",
            "router peak, MiB",
        ],
    );
    for (name, sql) in STATEMENTS {
        eprintln!("{name}");
        let mut turns: [Vec<Turn>; 3] = Default::default();
        for _ in 0..options.rounds.max(1) {
            turns[0].push(read(&plain, sql, None)?);
            turns[1].push(read(&ideal, sql, None)?);
            turns[2].push(read(&pgherd, sql, router)?);
        }
        table.row(cells(name, &turns));
    }
    print!("{}", table.render());
    Ok(())
}

fn cells(name: &str, turns: &[Vec<Turn>; 3]) -> Vec<String> {
    let of = |turns: &[Turn], get: fn(&Turn) -> f64| {
        median(&turns.iter().map(get).collect::<Vec<f64>>())
    };
    let whole = |turn: &Turn| turn.whole.as_secs_f64();
    let [plain, ideal, pgherd] = turns;
    let ratio = of(pgherd, whole).zip(of(ideal, whole)).map(|(pgherd, ideal)| pgherd / ideal);
    vec![
        name.to_owned(),
        number(of(plain, whole)),
        number(of(ideal, whole)),
        number(of(pgherd, whole)),
        number(ratio),
        number(of(pgherd, |turn| turn.first.as_secs_f64() * 1000.0)),
        number(of(pgherd, |turn| turn.cpu.as_secs_f64())),
        number(of(pgherd, |turn| turn.memory as f64 / f64::from(1 << 20))),
    ]
}

/// The rows are made on the server; pgherd then spreads a table that is full.
fn fill(dsn: &str, contender: Contender, rows: u32) -> Result<(), String> {
    let mut connection = Connection::open(dsn)?;
    connection.query(
        "CREATE TABLE bench_events (id int PRIMARY KEY, few int, many int, amount numeric(12, 2), \
         note text)",
    )?;
    connection.query(&format!(
        "INSERT INTO bench_events SELECT g, g % 100, (g::bigint * 7919 % 200000)::int, \
         (g::bigint * 104729 % 1000003) / 100.0, 'note ' || g % 1000 \
         FROM generate_series(1, {rows}) g"
    ))?;
    if contender == Contender::Pgherd {
        connection.query("SELECT create_distributed_table('bench_events', 'id')")?;
    }
    connection.query("ANALYZE bench_events")
}

/// Sends a statement to all of these servers at once and reads all answers.
fn read(dsns: &[String], sql: &str, router: Option<u32>) -> Result<Turn, String> {
    let connections: Vec<Connection> =
        dsns.iter().map(|dsn| Connection::open(dsn)).collect::<Result<_, _>>()?;
    let before = router.map(CpuTime::of).transpose()?;
    let start = Instant::now();
    let turns = std::thread::scope(|scope| {
        let readers: Vec<_> = connections
            .into_iter()
            .map(|connection| scope.spawn(move || read_one(connection, sql, start, router)))
            .collect();
        let ended = readers.into_iter().map(|reader| reader.join());
        ended
            .map(|turn| turn.unwrap_or_else(|_| Err("a reader has failed".to_owned())))
            .collect::<Result<Vec<Turn>, String>>()
    })?;
    let whole = start.elapsed();
    let cpu = match router.zip(before) {
        Some((router, before)) => {
            let used = CpuTime::of(router)?.since(before);
            used.user + used.system
        }
        None => Duration::ZERO,
    };
    let first = turns.iter().map(|turn| turn.first).min().unwrap_or_default();
    let memory = turns.iter().map(|turn| turn.memory).max().unwrap_or(0);
    Ok(Turn { whole, first, cpu, memory })
}

fn read_one(
    mut connection: Connection,
    sql: &str,
    start: Instant,
    router: Option<u32>,
) -> Result<Turn, String> {
    connection.start_query(sql)?;
    let mut first = None;
    let mut memory = 0;
    let mut next_sample = start;
    loop {
        let (_, complete) = connection.read_some()?;
        first.get_or_insert_with(|| start.elapsed());
        if let Some(router) = router
            && (complete || Instant::now() >= next_sample)
        {
            memory = memory.max(Memory::of(router)?.now);
            next_sample = Instant::now() + SAMPLE;
        }
        if complete {
            interrupt::check()?;
            let first = first.unwrap_or_default();
            return Ok(Turn { whole: start.elapsed(), first, cpu: Duration::ZERO, memory });
        }
    }
}
