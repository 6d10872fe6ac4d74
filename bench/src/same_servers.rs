//! pgherd and PgBouncer in front of the very same servers.
//!
//! `compare` gives PgBouncer one server and pgherd several. On one machine several servers are
//! slower by themselves (each is asked less often, so less of it stays in a cache, and every wake-up
//! costs more), and whatever stands in front of them pays its part of that. Here each client of
//! PgBouncer and of PostgreSQL finds the shard of a key itself, with the router's own hash, and has
//! a connection to every shard. Rows, servers and requests are the same; the difference is the
//! process in the middle. The clients are closed loops, as pgbench's are.

mod transaction;

use std::time::{Duration, Instant};

use crate::case::{Protocol, Workload};
use crate::compare::{Measurement, MiddleCost, order};
use crate::contenders::{Contender, Contenders};
use crate::key_shards::KeyShards;
use crate::load::random_key;
use crate::procfs::CpuTime;
use crate::stats::{Latencies, median, median_ratio};
use crate::table::{Table, number};
use crate::wire::Connection;
use crate::{interrupt, tables};

use transaction::Transaction;

/// PostgreSQL itself, and PgBouncer's session pools, are asked by at most so many: each client has a
/// backend on every shard.
const BACKENDS_MOST: u32 = 16;

const TABLE: &str = "pgbench_accounts";

#[derive(Debug)]
pub(crate) struct SameServersOptions {
    pub rounds: u32,
    pub seconds: u32,
    pub scale: u32,
    pub shards: u32,
    pub workload: Workload,
    pub clients: Vec<u32>,
    pub protocols: Vec<Protocol>,
}

/// Runs everything and prints the table.
///
/// # Errors
/// What could not be started, or the first error of a client.
pub(crate) fn run(options: &SameServersOptions) -> Result<(), String> {
    let per_branch = match options.workload {
        Workload::Select => 100_000,
        Workload::TpcbCoLocated => 1,
        Workload::TpcbCrossShard => {
            return Err("no client of PgBouncer can commit on several servers at once".to_owned());
        }
    };
    let contenders = Contenders::start(options.shards, false)?;
    tables::load_pgherd(&contenders, options.workload.layout(), options.scale)?;
    let keys = KeyShards::load(contenders.catalog(), TABLE, u64::from(options.scale) * per_branch)?;
    let mut table = Table::new(
        2,
        [
            "clients",
            "protocol",
            "p50 direct",
            "pgbouncer",
            "pgherd",
            "/ pgbouncer",
            "tps pgbouncer",
            "pgherd",
            "/ pgbouncer",
            "CPU pgbouncer",
            "pgherd",
            "/ pgbouncer",
        ],
    );
    for &clients in &options.clients {
        for &protocol in &options.protocols {
            let mut rounds = Rounds::default();
            for round in 0..options.rounds {
                for contender in order(round) {
                    if clients > most(contender, protocol) {
                        continue;
                    }
                    let workload = options.workload;
                    let turn =
                        Turn { contenders: &contenders, contender, clients, protocol, workload };
                    let measured = turn.measure(&keys, options.seconds)?;
                    eprintln!(
                        "{clients} clients, {}, round {}: {:<9} {:>8.0} tps",
                        protocol.name(),
                        round + 1,
                        contender.name(),
                        measured.tps
                    );
                    rounds.of(contender).push(Some(measured));
                }
            }
            table.row(rounds.row(clients, protocol));
        }
    }
    println!(
        "{}: latency and CPU time per transaction in µs; medians of {} rounds.\n",
        options.workload.name(),
        options.rounds
    );
    print!("{}", table.render());
    Ok(())
}

fn most(contender: Contender, protocol: Protocol) -> u32 {
    match (contender, protocol) {
        (Contender::Direct, _) | (Contender::PgBouncer, Protocol::Prepared) => BACKENDS_MOST,
        _ => u32::MAX,
    }
}

/// One measurement to be made.
struct Turn<'a> {
    contenders: &'a Contenders,
    contender: Contender,
    clients: u32,
    protocol: Protocol,
    workload: Workload,
}

impl Turn<'_> {
    fn measure(&self, keys: &KeyShards, seconds: u32) -> Result<Measurement, String> {
        let dsns = self.contenders.shard_dsns(self.contender, self.protocol);
        let mut clients = Vec::new();
        for number in 0..self.clients {
            interrupt::check()?;
            let transaction = Transaction::new(self.workload, self.protocol);
            clients.push(Client::open(&dsns, transaction, u64::from(number))?);
        }
        let middle = self.contenders.middle(self.contender);
        let before = middle.map(CpuTime::of).transpose()?;
        let started = Instant::now();
        let end = started + Duration::from_secs(u64::from(seconds));
        let latencies = std::thread::scope(|scope| {
            let threads: Vec<_> = clients
                .iter_mut()
                .map(|client| scope.spawn(move || client.repeat_until(end, keys)))
                .collect();
            let mut all = Latencies::new();
            for thread in threads {
                let own =
                    thread.join().map_err(|_| "a client's thread ended early".to_owned())??;
                all.add(&own);
            }
            Ok::<_, String>(all)
        })?;
        let took = started.elapsed();
        interrupt::check()?;
        let transactions = latencies.count();
        let middle = MiddleCost::since(middle.zip(before), transactions)?;
        Ok(Measurement {
            transactions,
            tps: transactions as f64 / took.as_secs_f64(),
            p50: latencies.quantile(0.5),
            p99: latencies.quantile(0.99),
            middle,
        })
    }
}

/// One client: a connection to each place that it can ask.
struct Client {
    connections: Vec<Connection>,
    transaction: Transaction,
    number: u64,
}

impl Client {
    fn open(dsns: &[String], transaction: Transaction, number: u64) -> Result<Self, String> {
        let mut connections = Vec::with_capacity(dsns.len());
        for dsn in dsns {
            let mut connection = Connection::open(dsn)?;
            transaction.prepare(&mut connection)?;
            connections.push(connection);
        }
        Ok(Self { connections, transaction, number })
    }

    fn repeat_until(&mut self, end: Instant, keys: &KeyShards) -> Result<Latencies, String> {
        let mut latencies = Latencies::new();
        let mut asked = self.number << 32;
        loop {
            let key = random_key(asked, keys.keys());
            asked += 1;
            let at = if self.connections.len() == 1 { 0 } else { keys.shard(key) };
            let start = Instant::now();
            self.transaction.send(&mut self.connections[at], key, asked)?;
            let now = Instant::now();
            latencies.record(now - start);
            if now >= end {
                return Ok(latencies);
            }
        }
    }
}

/// The measurements of one case, round by round.
#[derive(Default)]
struct Rounds {
    direct: Vec<Option<Measurement>>,
    bouncer: Vec<Option<Measurement>>,
    pgherd: Vec<Option<Measurement>>,
}

impl Rounds {
    fn of(&mut self, contender: Contender) -> &mut Vec<Option<Measurement>> {
        match contender {
            Contender::Direct => &mut self.direct,
            Contender::PgBouncer => &mut self.bouncer,
            Contender::Pgherd => &mut self.pgherd,
        }
    }

    fn row(&self, clients: u32, protocol: Protocol) -> Vec<String> {
        let p50 = |m: &Measurement| Some(m.p50);
        let tps = |m: &Measurement| Some(m.tps);
        let cpu = |m: &Measurement| m.middle.as_ref().map(|cost| cost.user + cost.system);
        let user = |m: &Measurement| m.middle.as_ref().map(|cost| cost.user);
        let mid = |side: &[Option<Measurement>], figure: Figure| {
            number(median(&series(side, figure).into_iter().flatten().collect::<Vec<_>>()))
        };
        let ratio = |figure: Figure| {
            number(median_ratio(&series(&self.pgherd, figure), &series(&self.bouncer, figure)))
        };
        let with_user =
            |side: &[Option<Measurement>]| format!("{} ({})", mid(side, cpu), mid(side, user));
        vec![
            clients.to_string(),
            protocol.name().to_owned(),
            mid(&self.direct, p50),
            mid(&self.bouncer, p50),
            mid(&self.pgherd, p50),
            ratio(p50),
            mid(&self.bouncer, tps),
            mid(&self.pgherd, tps),
            ratio(tps),
            with_user(&self.bouncer),
            with_user(&self.pgherd),
            ratio(cpu),
        ]
    }
}

type Figure = fn(&Measurement) -> Option<f64>;

fn series(side: &[Option<Measurement>], figure: Figure) -> Vec<Option<f64>> {
    side.iter().map(|measured| measured.as_ref().and_then(figure)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(p50: f64, cpu: f64) -> Option<Measurement> {
        let middle = Some(MiddleCost { user: 1.0, system: cpu - 1.0, rss: 0, peak_rss: 0 });
        Some(Measurement { transactions: 1, tps: 1e6 / p50, p50, p99: p50, middle })
    }

    #[test]
    fn ratios_are_those_within_a_round() {
        let rounds = Rounds {
            direct: Vec::new(),
            bouncer: vec![measured(100.0, 10.0), measured(200.0, 20.0)],
            pgherd: vec![measured(110.0, 12.0), measured(220.0, 24.0)],
        };
        let row = rounds.row(16, Protocol::Simple);
        assert_eq!(row[..6], ["16", "simple", "–", "150", "165", "1.10"]);
        assert_eq!(row[9..], ["15.0 (1.00)", "18.0 (1.00)", "1.20"]);
    }
}
