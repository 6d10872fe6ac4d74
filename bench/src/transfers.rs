//! Transfers between two shards: pgherd, which commits them in two phases, beside one plain server
//! that does the same.
//!
//! What a commit waits for is the disk, so latencies are told in units of one fsync, too, measured
//! in the same run and directory.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::case::Protocol;
use crate::contenders::{Contender, Contenders};
use crate::interrupt;
use crate::key_shards::KeyShards;
use crate::load::random_key;
use crate::stats::{Latencies, median};
use crate::table::{Table, number};
use crate::wire::Connection;

const TABLE: &str = "bench_balances";

/// As many as a page of PostgreSQL's log.
const PAGE: usize = 8192;

#[derive(Debug)]
pub(crate) struct TransfersOptions {
    pub clients: Vec<u32>,
    pub seconds: u32,
    pub rounds: u32,
    pub accounts: u32,
    pub shards: u32,
}

/// One contender's turn.
struct Turn {
    per_second: f64,
    /// Half of all transfers took at most so long, in ms.
    middle: f64,
    slowest: f64,
}

/// # Errors
/// What could not be started or was refused.
pub(crate) fn run(options: &TransfersOptions) -> Result<(), String> {
    if options.shards < 2 {
        return Err("transfers between shards need two of them\nGive --shards 2 or more.".into());
    }
    let contenders = Contenders::start(options.shards, false)?;
    for contender in [Contender::Direct, Contender::Pgherd] {
        fill(&contenders.dsn(contender, Protocol::Simple), contender, options.accounts)?;
    }
    let keys = KeyShards::load(contenders.catalog(), TABLE, u64::from(options.accounts))?;
    let mut table = Table::new(
        1,
        [
            "clients",
            "fsync, ms",
            "plain, per s",
            "plain p50, ms",
            "in fsyncs",
            "pgherd, per s",
            "pgherd p50, ms",
            "in fsyncs",
            "p99, ms",
            "pgherd / plain, per s",
        ],
    );
    for clients in &options.clients {
        let mut turns: [Vec<Turn>; 2] = Default::default();
        let mut syncs = Vec::new();
        for round in 1..=options.rounds.max(1) {
            eprintln!("{clients} clients, round {round}");
            syncs.push(fsync(contenders.directory())?);
            for (at, contender) in [Contender::Direct, Contender::Pgherd].into_iter().enumerate() {
                let dsn = contenders.dsn(contender, Protocol::Simple);
                turns[at].push(measure(&dsn, *clients, options.seconds, &keys)?);
            }
        }
        table.row(cells(*clients, &syncs, &turns));
    }
    print!("{}", table.render());
    Ok(())
}

fn cells(clients: u32, syncs: &[f64], turns: &[Vec<Turn>; 2]) -> Vec<String> {
    let of = |turns: &[Turn], get: fn(&Turn) -> f64| {
        median(&turns.iter().map(get).collect::<Vec<f64>>())
    };
    let sync = median(syncs);
    let [plain, pgherd] = turns;
    let in_syncs = |turns: &[Turn]| {
        number(of(turns, |turn| turn.middle).zip(sync).map(|(middle, sync)| middle / sync))
    };
    let ratios: Vec<f64> =
        pgherd.iter().zip(plain).map(|(a, b)| a.per_second / b.per_second).collect();
    vec![
        clients.to_string(),
        number(sync),
        number(of(plain, |turn| turn.per_second)),
        number(of(plain, |turn| turn.middle)),
        in_syncs(plain),
        number(of(pgherd, |turn| turn.per_second)),
        number(of(pgherd, |turn| turn.middle)),
        in_syncs(pgherd),
        number(of(pgherd, |turn| turn.slowest)),
        number(median(&ratios)),
    ]
}

fn fill(dsn: &str, contender: Contender, accounts: u32) -> Result<(), String> {
    let mut connection = Connection::open(dsn)?;
    connection.query(&format!(
        "CREATE TABLE {TABLE} (id int PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 50)"
    ))?;
    if contender == Contender::Pgherd {
        connection.query(&format!("SELECT create_distributed_table('{TABLE}', 'id')"))?;
    }
    connection.query(&format!(
        "INSERT INTO {TABLE} SELECT g, 1000 FROM generate_series(1, {accounts}) g"
    ))?;
    connection.query(&format!("ANALYZE {TABLE}"))
}

fn measure(dsn: &str, clients: u32, seconds: u32, keys: &KeyShards) -> Result<Turn, String> {
    let connections: Vec<Connection> =
        (0..clients).map(|_| Connection::open(dsn)).collect::<Result<_, _>>()?;
    let started = Instant::now();
    let end = started + Duration::from_secs(u64::from(seconds));
    let latencies = std::thread::scope(|scope| {
        let threads: Vec<_> = connections
            .into_iter()
            .zip(0..)
            .map(|(connection, number)| {
                scope.spawn(move || transfer(connection, number, end, keys))
            })
            .collect();
        let mut all = Latencies::new();
        for thread in threads {
            all.add(&thread.join().map_err(|_| "a client's thread ended early".to_owned())??);
        }
        Ok::<_, String>(all)
    })?;
    let took = started.elapsed().as_secs_f64();
    interrupt::check()?;
    let ms = |quantile| latencies.quantile(quantile) / 1000.0;
    Ok(Turn { per_second: latencies.count() as f64 / took, middle: ms(0.5), slowest: ms(0.99) })
}

/// Between accounts of two shards, the lower one first: nobody waits in a circle.
fn transfer(
    mut connection: Connection,
    client: u64,
    end: Instant,
    keys: &KeyShards,
) -> Result<Latencies, String> {
    let mut latencies = Latencies::new();
    let mut number = client << 40;
    while Instant::now() < end {
        let mut draw = || {
            number += 1;
            random_key(number, keys.keys())
        };
        let one = draw();
        let mut other = draw();
        while keys.shard(one) == keys.shard(other) {
            other = draw();
        }
        let (first, second) = (one.min(other), one.max(other));
        let begun = Instant::now();
        connection.query("BEGIN")?;
        for (account, amount) in [(first, -1), (second, 1)] {
            connection.query(&format!(
                "UPDATE {TABLE} SET balance = balance + {amount} WHERE id = {account}"
            ))?;
        }
        connection.query("COMMIT")?;
        latencies.record(begun.elapsed());
    }
    Ok(latencies)
}

/// What one fsync of a page takes here, in ms: the median of many.
fn fsync(directory: &Path) -> Result<f64, String> {
    let path = directory.join("fsync");
    let failed = |error: std::io::Error| format!("measuring an fsync: {error}");
    let mut file = File::create(&path).map_err(failed)?;
    let mut times = Vec::new();
    for _ in 0..200 {
        file.write_all(&[1; PAGE]).map_err(failed)?;
        let begun = Instant::now();
        // What PostgreSQL calls for its log.
        file.sync_data().map_err(failed)?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    std::fs::remove_file(&path).map_err(failed)?;
    Ok(median(&times).unwrap_or_default())
}
