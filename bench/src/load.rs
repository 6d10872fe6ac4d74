//! The load generator: requests at a fixed rate, whether or not the server keeps up.
//!
//! pgbench waits for an answer before it asks again, so a server that stalls for a second costs it
//! one slow request instead of the thousands that users would have sent. Here every request has
//! an intended moment, and its latency counts from that moment (free of coordinated omission).

mod schedule;

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::case::{Layout, Protocol};
use crate::contenders::{Contender, Contenders};
use crate::stats::Latencies;
use crate::table::{Table, number};
use crate::wire::Connection;
use crate::{interrupt, tables};
use schedule::{Clock, Recorder, Schedule, drive};

/// Stands for a random key in a statement.
const KEY: &str = ":key";

/// The name of the prepared statement.
const PREPARED: &str = "bench";

/// More threads than this measure the scheduler.
const MOST_CLIENTS: u32 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadProtocol {
    Simple,
    Prepared,
}

#[derive(Debug)]
pub(crate) struct LoadOptions {
    /// None: PostgreSQL, PgBouncer and pgherd are started and asked one after the other.
    pub dsn: Option<String>,
    /// Requests per second of all clients together.
    pub rate: f64,
    pub clients: u32,
    pub seconds: u32,
    /// How long requests that are late may still be sent after the end.
    pub drain_seconds: u32,
    pub sql: String,
    pub keys: u64,
    pub protocol: LoadProtocol,
    /// Of the pgbench tables and the cluster that are made when there is no DSN.
    pub scale: u32,
    pub shards: u32,
}

/// Runs the load and prints its latencies.
///
/// # Errors
/// When a client cannot connect at the start, or when interrupted.
pub(crate) fn run(options: &LoadOptions) -> Result<(), String> {
    if let Some(dsn) = &options.dsn {
        return run_against(dsn, options);
    }
    let contenders = Contenders::start(options.shards, false)?;
    tables::load(&contenders, Layout::ByOwnKey, options.scale)?;
    let protocol = match options.protocol {
        LoadProtocol::Simple => Protocol::Simple,
        LoadProtocol::Prepared => Protocol::Prepared,
    };
    for contender in Contender::ALL {
        println!("{}", contender.name());
        run_against(&contenders.dsn(contender, protocol), options)?;
        println!();
    }
    Ok(())
}

fn run_against(dsn: &str, options: &LoadOptions) -> Result<(), String> {
    if !(1..=MOST_CLIENTS).contains(&options.clients) {
        return Err(format!("--clients must be 1 to {MOST_CLIENTS}"));
    }
    let length = Duration::from_secs(u64::from(options.seconds));
    let schedule = Schedule::new(options.rate, length)
        .ok_or("--rate must be a number above 0 of requests per second")?;
    let end = length + Duration::from_secs(u64::from(options.drain_seconds));
    let mut clients = Vec::new();
    for _ in 0..options.clients {
        interrupt::check()?;
        clients.push(Client::open(dsn, options)?);
    }
    eprintln!("{} requests from {} clients", schedule.total(), options.clients);
    let tickets = AtomicU64::new(0);
    let start = Instant::now();
    let recorders: Vec<Result<Recorder, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let (schedule, tickets) = (&schedule, &tickets);
                scope.spawn(move || {
                    let mut clock = WallClock(start);
                    drive(schedule, tickets, end, &mut clock, |_, number| client.request(number))
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Recorder, String>>| {
            thread.join().unwrap_or_else(|_| Err("a client's thread ended early".to_owned()))
        };
        threads.into_iter().map(join).collect()
    });
    let mut total = Recorder::new();
    for recorder in recorders {
        total.add(&recorder?);
    }
    print!("{}", report(&total, &schedule, start.elapsed().min(end)));
    if let Some(error) = &total.first_error {
        eprintln!("the first of {} errors: {error}", total.failed);
    }
    Ok(())
}

struct WallClock(Instant);

impl Clock for WallClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait_until(&mut self, moment: Duration) -> Result<(), String> {
        interrupt::wait_until(self.0 + moment)
    }
}

/// A connection and the statement that it repeats.
struct Client<'a> {
    dsn: &'a str,
    options: &'a LoadOptions,
    /// None after an error; opened again by the next request, on that request's time.
    connection: Option<Connection>,
}

impl<'a> Client<'a> {
    fn open(dsn: &'a str, options: &'a LoadOptions) -> Result<Self, String> {
        let mut connection = Connection::open(dsn)?;
        if options.protocol == LoadProtocol::Prepared {
            connection.prepare(PREPARED, &options.sql.replace(KEY, "$1"))?;
        }
        Ok(Self { dsn, options, connection: Some(connection) })
    }

    fn request(&mut self, number: u64) -> Result<(), String> {
        let options = self.options;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Self::open(self.dsn, options)?.connection.ok_or("no connection")?,
        };
        let key = options.sql.contains(KEY).then(|| random_key(number, options.keys).to_string());
        match (options.protocol, &key) {
            (LoadProtocol::Prepared, _) => connection.execute(PREPARED, key.as_slice())?,
            (LoadProtocol::Simple, None) => connection.query(&options.sql)?,
            (LoadProtocol::Simple, Some(key)) => {
                connection.query(&options.sql.replace(KEY, key))?;
            }
        }
        self.connection = Some(connection);
        Ok(())
    }
}

/// The same sequence in every run, spread evenly over 1 to `keys` (SplitMix64's finaliser).
pub(crate) fn random_key(number: u64, keys: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % keys.max(1) + 1
}

fn report(total: &Recorder, schedule: &Schedule, took: Duration) -> String {
    let mut table =
        Table::new(1, ["latency, ms", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "longest"]);
    let mut row = |name: &str, latencies: &Latencies| {
        let quantiles = [0.5, 0.9, 0.99, 0.999, 0.9999].map(|at| latencies.quantile(at));
        let micros = [[latencies.mean()].as_slice(), &quantiles, &[latencies.longest()]].concat();
        let cells = micros.into_iter().map(|value| number(Some(value / 1000.0)));
        table.row([name.to_owned()].into_iter().chain(cells).collect());
    };
    row("from the intended start", &total.response);
    row("from the actual start", &total.service);
    format!(
        "{}\n{} of {} requests answered, {} failed, {} never sent; {:.0} answers per second\n",
        table.render(),
        total.service.count(),
        schedule.total(),
        total.failed,
        total.unsent,
        total.service.count() as f64 / took.as_secs_f64().max(f64::EPSILON),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_within_bounds_and_differ() {
        let keys: Vec<u64> = (0..1000).map(|number| random_key(number, 10)).collect();
        for wanted in 1..=10 {
            assert!(keys.contains(&wanted));
        }
        assert!(keys.iter().all(|key| (1..=10).contains(key)));
        assert_eq!(random_key(5, 0), 1);
    }

    #[test]
    fn requests_that_were_never_sent_are_reported() {
        let schedule = Schedule::new(2.0, Duration::from_secs(2)).expect("a valid rate");
        let mut recorder = Recorder::new();
        let second = Duration::from_secs(1);
        recorder.answered(Duration::ZERO, Duration::ZERO, second);
        recorder.never_sent(second, second * 2);
        let text = report(&recorder, &schedule, second * 2);
        assert!(text.contains("1 of 4 requests answered, 0 failed, 1 never sent"), "{text}");
    }
}
