//! Counters and latencies. Each worker writes its own, relaxed and without locks; a scrape adds
//! them up.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pgherd_planner::{StatementKind, Tier};
use pgherd_shard_map::ShardId;

/// Upper bounds of the latency buckets, in microseconds; the last bucket has none.
const BOUNDS: [u64; 16] = [
    50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 409_600,
    1_638_400, 6_553_600, 26_214_400,
];
/// Shards with a histogram of their own; those beyond share the last.
const SHARDS: usize = 64;
const KINDS: [&str; 11] = [
    "select",
    "insert",
    "update",
    "delete",
    "merge",
    "copy",
    "ddl",
    "transaction",
    "session",
    "explain",
    "utility",
];

/// How a commit over several shards ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    Aborted,
    /// 08007: recovery finishes it.
    Unknown,
}

/// How the level of the log is changed: set by whoever has set the log up.
static LOG_LEVEL: OnceLock<LogLevel> = OnceLock::new();

type LogLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

pub fn on_log_level(change: LogLevel) {
    // A second log in one process is a test's; the first one counts.
    drop(LOG_LEVEL.set(change));
}

/// Changes what is logged.
///
/// # Errors
/// The level is none, or there is no log.
pub fn set_log_level(level: &str) -> Result<(), String> {
    match LOG_LEVEL.get() {
        Some(change) => change(level),
        None => Err("this process has no log whose level could change".to_owned()),
    }
}

/// How snapshots of several shards were got that tear no transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    AtOnce,
    /// A transaction was half visible; later it was not.
    LookedAgain,
    GaveUp,
}

/// The counters of all workers.
#[derive(Debug)]
pub struct Metrics {
    workers: Box<[Arc<WorkerMetrics>]>,
}

#[derive(Debug)]
pub struct WorkerMetrics {
    statements: [[AtomicU64; Tier::ALL.len()]; KINDS.len()],
    failed: AtomicU64,
    clients_connected: AtomicU64,
    clients_left: AtomicU64,
    two_phase: [AtomicU64; 3],
    cuts: [AtomicU64; 3],
    shards: Box<[ShardMetrics]>,
}

#[derive(Debug, Default)]
struct ShardMetrics {
    latency: Histogram,
    received: AtomicU64,
    sent: AtomicU64,
}

/// Bytes that have come from a shard and gone to it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    pub received: u64,
    pub sent: u64,
}

/// How many answers of a shard took how long, when it was looked last.
pub type Answers = [u64; BOUNDS.len() + 1];

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    // One writer: a load and a store, no locked instruction.
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

fn place(shard: ShardId) -> usize {
    (shard.0 as usize).min(SHARDS - 1)
}

impl WorkerMetrics {
    fn new() -> Self {
        Self {
            statements: Default::default(),
            failed: AtomicU64::new(0),
            clients_connected: AtomicU64::new(0),
            clients_left: AtomicU64::new(0),
            two_phase: Default::default(),
            cuts: Default::default(),
            shards: (0..SHARDS).map(|_| ShardMetrics::default()).collect(),
        }
    }

    /// The start of a statement, for [`Self::statement`].
    #[must_use]
    pub fn start(&self) -> Instant {
        Instant::now()
    }

    pub fn statement(&self, kind: StatementKind, tier: Tier) {
        add(&self.statements[kind as usize][tier as usize], 1);
    }

    /// A shard has answered a statement, or its part of one.
    pub fn answered(&self, shard: ShardId, took: Duration) {
        let us = took.as_micros() as u64;
        let histogram = &self.shards[place(shard)].latency;
        let bucket = BOUNDS.partition_point(|bound| *bound < us);
        add(&histogram.buckets[bucket], 1);
        add(&histogram.sum_us, us);
    }

    pub fn traffic(&self, shard: ShardId, traffic: Traffic) {
        let metrics = &self.shards[place(shard)];
        add(&metrics.received, traffic.received);
        add(&metrics.sent, traffic.sent);
    }

    pub fn statement_failed(&self) {
        add(&self.failed, 1);
    }

    pub fn client_connected(&self) {
        add(&self.clients_connected, 1);
    }

    pub fn client_left(&self) {
        add(&self.clients_left, 1);
    }

    /// Snapshots of several shards were taken, or given up.
    pub fn cut(&self, cut: Cut) {
        add(&self.cuts[cut as usize], 1);
    }

    pub fn two_phase(&self, outcome: Outcome) {
        add(&self.two_phase[outcome as usize], 1);
    }
}

impl Metrics {
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| Arc::new(WorkerMetrics::new())).collect() }
    }

    /// The counters of one worker, which alone may write them.
    #[must_use]
    pub fn worker(&self, index: usize) -> Arc<WorkerMetrics> {
        Arc::clone(&self.workers[index])
    }

    fn sum(&self, counter: impl Fn(&WorkerMetrics) -> &AtomicU64) -> u64 {
        self.workers.iter().map(|worker| counter(worker).load(Ordering::Relaxed)).sum()
    }

    /// What one shard has answered: how many statements, and their time in microseconds.
    #[must_use]
    pub fn answered(&self, shard: ShardId) -> (u64, u64) {
        let at = place(shard);
        let count = |bucket: usize| self.sum(|worker| &worker.shards[at].latency.buckets[bucket]);
        ((0..=BOUNDS.len()).map(count).sum(), self.sum(|worker| &worker.shards[at].latency.sum_us))
    }

    /// The 99th percentile of what a shard's answers took since the last call with the same `before`,
    /// in milliseconds: the upper bound of its bucket. Nothing where nothing was answered.
    #[must_use]
    pub fn p99_since(&self, shard: ShardId, before: &mut Answers) -> Option<f64> {
        let at = place(shard);
        let now: Answers = std::array::from_fn(|bucket| {
            self.sum(|worker| &worker.shards[at].latency.buckets[bucket])
        });
        let then = std::mem::replace(before, now);
        let new: Answers = std::array::from_fn(|bucket| now[bucket] - then[bucket]);
        let all: u64 = new.iter().sum();
        let mut slower = all / 100 + u64::from(all > 0);
        let bucket = new.iter().rposition(|count| {
            slower = slower.saturating_sub(*count);
            all > 0 && slower == 0
        })?;
        let last = BOUNDS[BOUNDS.len() - 1] * 2;
        Some(BOUNDS.get(bucket).copied().unwrap_or(last) as f64 / 1000.0)
    }

    /// The bytes from and to one shard.
    #[must_use]
    pub fn traffic(&self, shard: ShardId) -> Traffic {
        let at = place(shard);
        Traffic {
            received: self.sum(|worker| &worker.shards[at].received),
            sent: self.sum(|worker| &worker.shards[at].sent),
        }
    }

    /// Everything in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.render_to(&mut out);
        out
    }

    fn render_to(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "# HELP pgherd_statements_total Statements that succeeded or failed, by kind and tier."
        )?;
        writeln!(out, "# TYPE pgherd_statements_total counter")?;
        for (k, kind) in KINDS.iter().enumerate() {
            for (t, tier) in Tier::ALL.iter().map(|tier| tier.as_str()).enumerate() {
                let count = self.sum(|worker| &worker.statements[k][t]);
                if count > 0 {
                    writeln!(
                        out,
                        "pgherd_statements_total{{kind=\"{kind}\",tier=\"{tier}\"}} {count}"
                    )?;
                }
            }
        }
        let mut counter = |name: &str, help: &str, value: u64| {
            writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}")
        };
        counter(
            "pgherd_statement_errors_total",
            "Errors that the router told clients itself.",
            self.sum(|worker| &worker.failed),
        )?;
        let connected = self.sum(|worker| &worker.clients_connected);
        counter("pgherd_clients_total", "Clients that logged in.", connected)?;
        let left = self.sum(|worker| &worker.clients_left);
        writeln!(
            out,
            "# HELP pgherd_clients Clients connected now.\n# TYPE pgherd_clients gauge\n\
             pgherd_clients {}",
            connected.saturating_sub(left)
        )?;
        writeln!(
            out,
            "# HELP pgherd_two_phase_total Two-phase commits by outcome.\n\
             # TYPE pgherd_two_phase_total counter"
        )?;
        for (at, outcome) in ["committed", "aborted", "unknown"].iter().enumerate() {
            let count = self.sum(|worker| &worker.two_phase[at]);
            writeln!(out, "pgherd_two_phase_total{{outcome=\"{outcome}\"}} {count}")?;
        }
        writeln!(
            out,
            "# HELP pgherd_consistent_reads_total Snapshots of several shards that tear no \
             transaction, by how they were got.\n\
             # TYPE pgherd_consistent_reads_total counter"
        )?;
        for (at, got) in ["at_once", "looked_again", "gave_up"].iter().enumerate() {
            let count = self.sum(|worker| &worker.cuts[at]);
            writeln!(out, "pgherd_consistent_reads_total{{got=\"{got}\"}} {count}")?;
        }
        self.render_traffic(out)?;
        self.render_latency(out)
    }

    fn render_traffic(&self, out: &mut String) -> std::fmt::Result {
        let name = "pgherd_server_bytes_total";
        writeln!(out, "# HELP {name} Bytes received from shards and sent to them, by shard.")?;
        writeln!(out, "# TYPE {name} counter")?;
        for shard in 0..SHARDS {
            let Traffic { received, sent } = self.traffic(ShardId(shard as u32));
            if sent > 0 {
                writeln!(out, "{name}{{shard=\"{shard}\",direction=\"received\"}} {received}")?;
                writeln!(out, "{name}{{shard=\"{shard}\",direction=\"sent\"}} {sent}")?;
            }
        }
        Ok(())
    }

    fn render_latency(&self, out: &mut String) -> std::fmt::Result {
        let name = "pgherd_statement_seconds";
        writeln!(
            out,
            "# HELP {name} Time from a statement's arrival to a shard's answer, by shard."
        )?;
        writeln!(out, "# TYPE {name} histogram")?;
        for shard in 0..SHARDS {
            let counts: Vec<u64> = (0..=BOUNDS.len())
                .map(|at| self.sum(|worker| &worker.shards[shard].latency.buckets[at]))
                .collect();
            let total: u64 = counts.iter().sum();
            if total == 0 {
                continue;
            }
            let mut below = 0;
            for (bound, count) in BOUNDS.iter().zip(&counts) {
                below += count;
                let seconds = *bound as f64 / 1e6;
                writeln!(out, "{name}_bucket{{shard=\"{shard}\",le=\"{seconds}\"}} {below}")?;
            }
            writeln!(out, "{name}_bucket{{shard=\"{shard}\",le=\"+Inf\"}} {total}")?;
            let sum = self.sum(|worker| &worker.shards[shard].latency.sum_us) as f64 / 1e6;
            writeln!(out, "{name}_sum{{shard=\"{shard}\"}} {sum}")?;
            writeln!(out, "{name}_count{{shard=\"{shard}\"}} {total}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_a_hundred_counts_since_it_was_looked_last() {
        let metrics = Metrics::new(1);
        let (worker, shard) = (metrics.worker(0), ShardId(2));
        let mut before = Answers::default();
        assert_eq!(metrics.p99_since(shard, &mut before), None);
        for _ in 0..200 {
            worker.answered(shard, Duration::from_micros(70));
        }
        worker.answered(shard, Duration::from_millis(4));
        assert_eq!(metrics.p99_since(shard, &mut before), Some(0.1));
        for _ in 0..3 {
            worker.answered(shard, Duration::from_millis(4));
        }
        assert_eq!(metrics.p99_since(shard, &mut before), Some(6.4));
        worker.answered(shard, Duration::from_secs(60));
        assert!(metrics.p99_since(shard, &mut before).is_some_and(|p99| p99 > 26_000.0));
        assert_eq!(metrics.p99_since(shard, &mut before), None);
    }

    #[test]
    fn workers_are_added_up() {
        let metrics = Metrics::new(2);
        for index in 0..2 {
            let worker = metrics.worker(index);
            worker.statement(StatementKind::Select, Tier::Route);
            worker.answered(ShardId(3), Duration::from_micros(70));
            worker.traffic(ShardId(3), Traffic { received: 5, sent: 7 });
        }
        let text = metrics.render();
        assert!(
            text.contains("pgherd_statements_total{kind=\"select\",tier=\"route\"} 2"),
            "{text}"
        );
        assert!(text.contains("pgherd_statement_seconds_count{shard=\"3\"} 2"), "{text}");
        let sent = "pgherd_server_bytes_total{shard=\"3\",direction=\"sent\"} 14";
        assert!(text.contains(sent), "{text}");
    }
}
