//! The comparison's result: three tables of medians and paired ratios, as text and as JSON.

use std::process::Command;

use serde::Serialize;

use crate::compare::{CaseResult, CompareOptions, Measurement};
use crate::contenders::{Contender, Contenders};
use crate::stats::{median, median_ratio};
use crate::table::{Table, number};

/// Where and how it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Setting {
    date: String,
    machine: String,
    versions: String,
    build: &'static str,
    load_before: String,
    rounds: u32,
    seconds: u32,
    scale: u32,
    shards: usize,
    workers: Option<u32>,
}

impl Setting {
    pub(crate) fn describe(options: &CompareOptions, contenders: &Contenders) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let model = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown processor", |(_, name)| name.trim());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            date: output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            machine: format!(
                "{cores} cores ({model}), Linux {}",
                read("/proc/sys/kernel/osrelease").trim()
            ),
            versions: format!(
                "pgherd {}, {}, {}",
                env!("CARGO_PKG_VERSION"),
                output("/usr/sbin/pgbouncer", &["--version"]),
                output("pgbench", &["--version"])
            ),
            build: if cfg!(debug_assertions) { "dev (not for conclusions)" } else { "release" },
            load_before: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            rounds: options.rounds,
            seconds: options.seconds,
            scale: options.scale,
            shards: contenders.shards(),
            workers: contenders.workers(),
        }
    }

    fn render(&self) -> String {
        let workers = self.workers.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
        format!(
            "- {}; {}; load average before: {}\n\
             - {}; pgherd's build: {}\n\
             - {} rounds of {} s for each case and contender, scale {}; pgherd: {} shards, \
             {workers} worker threads; direct and PgBouncer: one server, one PgBouncer process\n",
            self.date,
            self.machine,
            self.load_before,
            self.versions,
            self.build,
            self.rounds,
            self.seconds,
            self.scale,
            self.shards,
        )
    }
}

/// The first line of what a program prints.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| format!("{program} unknown"))
}

/// # Errors
/// Never in practice: the values have a JSON form.
pub(crate) fn json(setting: &Setting, results: &[CaseResult]) -> Result<String, String> {
    let value = serde_json::json!({ "setting": setting, "cases": results });
    serde_json::to_string_pretty(&value).map(|text| text + "\n").map_err(|error| error.to_string())
}

pub(crate) fn render(setting: &Setting, results: &[CaseResult]) -> String {
    format!(
        "{}\n\
         Transactions per second: medians, and medians of the ratios within each round.\n\n{}\n\
         Latency in µs.\n\n{}\n\
         The process in the middle: CPU time per transaction in µs (of it user), and memory.\n\n{}",
        setting.render(),
        throughput(results),
        latency(results),
        middle(results),
    )
}

const CASE_COLUMNS: [&str; 3] = ["workload", "clients", "protocol"];

fn case_cells(result: &CaseResult) -> Vec<String> {
    let case = result.case;
    vec![case.workload.name().to_owned(), case.clients.to_string(), case.protocol.name().to_owned()]
}

fn table(columns: &[&str]) -> Table {
    Table::new(CASE_COLUMNS.len(), CASE_COLUMNS.iter().chain(columns).copied())
}

/// One figure of one contender over the rounds.
fn middle_of(
    result: &CaseResult,
    contender: Contender,
    figure: impl Fn(&Measurement) -> Option<f64>,
) -> Option<f64> {
    median(&result.series(contender, figure).into_iter().flatten().collect::<Vec<_>>())
}

/// pgherd's figure over another's, round by round.
fn ratio_to(
    result: &CaseResult,
    other: Contender,
    figure: impl Fn(&Measurement) -> Option<f64>,
) -> String {
    let own = result.series(Contender::Pgherd, &figure);
    number(median_ratio(&own, &result.series(other, &figure)))
}

fn throughput(results: &[CaseResult]) -> String {
    let mut table =
        table(&["direct", "pgbouncer", "pgherd", "pgherd / pgbouncer", "pgherd / direct"]);
    let tps = |measurement: &Measurement| Some(measurement.tps);
    for result in results {
        let mut cells = case_cells(result);
        cells.extend(Contender::ALL.map(|contender| number(middle_of(result, contender, tps))));
        cells.push(ratio_to(result, Contender::PgBouncer, tps));
        cells.push(ratio_to(result, Contender::Direct, tps));
        table.row(cells);
    }
    table.render()
}

fn latency(results: &[CaseResult]) -> String {
    let mut table = table(&[
        "p50 direct",
        "pgbouncer",
        "pgherd",
        "/ pgbouncer",
        "/ direct",
        "p99 direct",
        "pgbouncer",
        "pgherd",
        "/ pgbouncer",
        "/ direct",
    ]);
    let p50 = |measurement: &Measurement| Some(measurement.p50);
    let p99 = |measurement: &Measurement| Some(measurement.p99);
    for result in results {
        let mut cells = case_cells(result);
        cells.extend(Contender::ALL.map(|contender| number(middle_of(result, contender, p50))));
        cells.push(ratio_to(result, Contender::PgBouncer, p50));
        cells.push(ratio_to(result, Contender::Direct, p50));
        cells.extend(Contender::ALL.map(|contender| number(middle_of(result, contender, p99))));
        cells.push(ratio_to(result, Contender::PgBouncer, p99));
        cells.push(ratio_to(result, Contender::Direct, p99));
        table.row(cells);
    }
    table.render()
}

fn middle(results: &[CaseResult]) -> String {
    let mut table = table(&[
        "CPU pgbouncer",
        "pgherd",
        "/ pgbouncer",
        "RSS MiB pgbouncer",
        "pgherd",
        "peak pgbouncer",
        "pgherd",
    ]);
    let user = |measurement: &Measurement| Some(measurement.middle.as_ref()?.user);
    let cpu =
        |measurement: &Measurement| measurement.middle.as_ref().map(|cost| cost.user + cost.system);
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let rss = |measurement: &Measurement| Some(mebibytes(measurement.middle.as_ref()?.rss));
    let peak = |measurement: &Measurement| Some(mebibytes(measurement.middle.as_ref()?.peak_rss));
    let middles = [Contender::PgBouncer, Contender::Pgherd];
    for result in results {
        let mut cells = case_cells(result);
        cells.extend(middles.map(|contender| {
            let total = number(middle_of(result, contender, cpu));
            format!("{total} ({})", number(middle_of(result, contender, user)))
        }));
        cells.push(ratio_to(result, Contender::PgBouncer, cpu));
        cells.extend(middles.map(|contender| number(middle_of(result, contender, rss))));
        cells.extend(middles.map(|contender| number(middle_of(result, contender, peak))));
        table.row(cells);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, Protocol, Workload};
    use crate::compare::{MiddleCost, Outcome, Turn};

    fn turn(round: u32, contender: Contender, tps: f64, cpu: Option<f64>) -> Turn {
        let middle =
            cpu.map(|system| MiddleCost { user: 1.0, system, rss: 1 << 20, peak_rss: 2 << 20 });
        let measured = Measurement { transactions: 10, tps, p50: 50.0, p99: 1000.0 / tps, middle };
        Turn { round, contender, outcome: Outcome::Measured(measured) }
    }

    fn result() -> CaseResult {
        CaseResult {
            case: Case { workload: Workload::Select, protocol: Protocol::Simple, clients: 16 },
            turns: vec![
                turn(0, Contender::Direct, 200.0, None),
                turn(0, Contender::PgBouncer, 100.0, Some(9.0)),
                turn(0, Contender::Pgherd, 150.0, Some(4.0)),
            ],
        }
    }

    #[test]
    fn throughput_shows_medians_and_ratios() {
        let text = throughput(&[result()]);
        let row: Vec<&str> =
            text.lines().nth(2).expect("a row").split('|').map(str::trim).collect();
        assert_eq!(row, ["", "select", "16", "simple", "200", "100", "150", "1.50", "0.75", ""]);
    }

    #[test]
    fn the_middle_shows_cpu_with_its_user_part() {
        let text = middle(&[result()]);
        assert!(text.contains("10.0 (1.00)") && text.contains("5.00 (1.00)"), "{text}");
        assert!(text.contains("0.50"), "{text}");
    }

    #[test]
    fn a_contender_that_failed_has_dashes() {
        let mut result = result();
        result.turns[2].outcome = Outcome::Failed("gone".to_owned());
        assert!(throughput(&[result]).contains("–"));
    }
}
