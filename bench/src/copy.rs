//! COPY FROM of many rows: pgherd, which splits them by their keys, beside one plain server.

use std::time::{Duration, Instant};

use crate::case::Protocol;
use crate::contenders::{Contender, Contenders};
use crate::interrupt;
use crate::procfs::CpuTime;
use crate::stats::median;
use crate::table::{Table, number};
use crate::wire::Connection;

const TABLE: &str = "bench_rows";

#[derive(Debug)]
pub(crate) struct CopyOptions {
    pub megabytes: u32,
    pub rounds: u32,
    pub shards: u32,
}

struct Turn {
    seconds: f64,
    /// Of the router, in seconds.
    cpu: f64,
}

/// # Errors
/// What could not be started or was refused.
pub(crate) fn run(options: &CopyOptions) -> Result<(), String> {
    let contenders = Contenders::start(options.shards, false)?;
    for contender in [Contender::Direct, Contender::Pgherd] {
        let mut connection = Connection::open(&contenders.dsn(contender, Protocol::Simple))?;
        connection.query(&format!(
            "CREATE TABLE {TABLE} (id bigint PRIMARY KEY, few int, at timestamptz, note text)"
        ))?;
        if contender == Contender::Pgherd {
            connection.query(&format!("SELECT create_distributed_table('{TABLE}', 'id')"))?;
        }
    }
    let rows = rows(options.megabytes as usize * 1_000_000);
    let mut turns: [Vec<Turn>; 2] = Default::default();
    for round in 1..=options.rounds.max(1) {
        eprintln!("round {round}");
        for (at, contender) in [Contender::Direct, Contender::Pgherd].into_iter().enumerate() {
            turns[at].push(measure(&contenders, contender, &rows)?);
        }
    }
    let of = |turns: &[Turn], get: fn(&Turn) -> f64| {
        median(&turns.iter().map(get).collect::<Vec<f64>>())
    };
    let gigabytes = rows.len() as f64 / 1e9;
    let mut table = Table::new(
        1,
        ["contender", "seconds", "MB/s", "time / plain", "router CPU, s", "CPU, s/GB"],
    );
    let plain = of(&turns[0], |turn| turn.seconds);
    for (turns, contender) in turns.iter().zip([Contender::Direct, Contender::Pgherd]) {
        let seconds = of(turns, |turn| turn.seconds);
        let middle = (contender == Contender::Pgherd).then(|| of(turns, |turn| turn.cpu)).flatten();
        table.row(vec![
            contender.name().to_owned(),
            number(seconds),
            number(seconds.map(|seconds| gigabytes * 1000.0 / seconds)),
            number(seconds.zip(plain).map(|(seconds, plain)| seconds / plain)),
            number(middle),
            number(middle.map(|cpu| cpu / gigabytes)),
        ]);
    }
    println!("COPY FROM of {:.0} MB; medians of {} rounds.\n", gigabytes * 1000.0, options.rounds);
    print!("{}", table.render());
    Ok(())
}

/// About this many bytes of rows in COPY's text format.
fn rows(bytes: usize) -> Vec<u8> {
    let mut rows = Vec::with_capacity(bytes + 128);
    let mut id = 0_u64;
    while rows.len() < bytes {
        id += 1;
        let second = id % 60;
        rows.extend_from_slice(
            format!(
                "{id}\t{}\t2026-01-31 12:30:{second:02}+00\tthe note of row {id}, as long as such a \
                 text is\n",
                id % 1000
            )
            .as_bytes(),
        );
    }
    rows
}

fn measure(contenders: &Contenders, contender: Contender, rows: &[u8]) -> Result<Turn, String> {
    let mut connection = Connection::open(&contenders.dsn(contender, Protocol::Simple))?;
    connection.query(&format!("TRUNCATE {TABLE}"))?;
    connection.query("CHECKPOINT")?;
    let router = contenders.middle(contender);
    let before = router.map(CpuTime::of).transpose()?;
    let begun = Instant::now();
    connection.copy_in(&format!("COPY {TABLE} FROM STDIN"), rows)?;
    let seconds = begun.elapsed().as_secs_f64();
    interrupt::check()?;
    let used = match router.zip(before) {
        Some((router, before)) => {
            let used = CpuTime::of(router)?.since(before);
            used.user + used.system
        }
        None => Duration::ZERO,
    };
    Ok(Turn { seconds, cpu: used.as_secs_f64() })
}
