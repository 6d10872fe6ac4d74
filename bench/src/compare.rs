//! The comparison: every case in rounds, contenders alternating within each round.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::case::{Case, Layout, Protocol, Selection, Workload};
use crate::contenders::{Contender, Contenders};
use crate::pgbench::Run;
use crate::procfs::{CpuTime, Memory};
use crate::{interrupt, report, tables};

#[derive(Debug)]
pub(crate) struct CompareOptions {
    pub rounds: u32,
    pub seconds: u32,
    pub scale: u32,
    pub shards: u32,
    pub workloads: Vec<Workload>,
    pub protocols: Vec<Protocol>,
    pub clients: Vec<u32>,
    pub tpcb_clients: Vec<u32>,
    pub json: Option<PathBuf>,
    pub markdown: Option<PathBuf>,
    pub keep_dir: bool,
}

/// One run of pgbench against one contender. Times in µs, memory in bytes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measurement {
    pub transactions: u64,
    pub tps: f64,
    pub p50: f64,
    pub p99: f64,
    /// Of the process in the middle; none for direct connections.
    pub middle: Option<MiddleCost>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct MiddleCost {
    /// CPU time per transaction, in µs, logins of the run's clients included.
    pub user: f64,
    pub system: f64,
    pub rss: u64,
    /// The highest since the process started.
    pub peak_rss: u64,
}

impl MiddleCost {
    /// What the process in the middle, if there is one, has used since it was looked at before.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn since(
        before: Option<(u32, CpuTime)>,
        transactions: u64,
    ) -> Result<Option<Self>, String> {
        let Some((pid, before)) = before else { return Ok(None) };
        let used = CpuTime::of(pid)?.since(before);
        let memory = Memory::of(pid)?;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / transactions.max(1) as f64;
        Ok(Some(Self {
            user: each(used.user),
            system: each(used.system),
            rss: memory.now,
            peak_rss: memory.peak,
        }))
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Turn {
    pub round: u32,
    pub contender: Contender,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Measured(Measurement),
    Failed(String),
}

/// All turns of one case, in the order in which they ran.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CaseResult {
    pub case: Case,
    pub turns: Vec<Turn>,
}

/// Runs everything, prints the tables, and writes the files that were asked for.
///
/// # Errors
/// When something cannot be started, or when a contender failed a case (after printing).
pub(crate) fn run(options: &CompareOptions) -> Result<(), String> {
    let selection = Selection {
        workloads: &options.workloads,
        protocols: &options.protocols,
        clients: &options.clients,
        tpcb_clients: &options.tpcb_clients,
    };
    let cases = selection.cases();
    if options.rounds == 0 || options.seconds == 0 || options.scale == 0 || cases.is_empty() {
        return Err("nothing to run\n--rounds, --seconds and --scale must be 1 or more.".to_owned());
    }
    let contenders = Contenders::start(options.shards, options.keep_dir)?;
    let setting = report::Setting::describe(options, &contenders);
    let mut results = Vec::new();
    let mut loaded: Option<Layout> = None;
    for (number, &case) in cases.iter().enumerate() {
        let layout = case.workload.layout();
        if loaded != Some(layout) {
            tables::load(&contenders, layout, options.scale)?;
            let same = cases.iter().filter(|case| case.workload.layout() == layout);
            warm_up(&contenders, &same.copied().collect::<Vec<_>>(), options)?;
            loaded = Some(layout);
        }
        eprintln!(
            "case {} of {}: {}, {} clients, {}",
            number + 1,
            cases.len(),
            case.workload.name(),
            case.clients,
            case.protocol.name()
        );
        results.push(run_case(&contenders, case, options)?);
    }
    drop(contenders);
    let text = report::render(&setting, &results);
    print!("{text}");
    if let Some(path) = &options.markdown {
        std::fs::write(path, &text)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    if let Some(path) = &options.json {
        let json = report::json(&setting, &results)?;
        std::fs::write(path, json)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let failures = failures(&results);
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!("some runs failed\n{}", failures.into_iter().collect::<Vec<_>>().join("\n")))
}

/// Fills caches, and opens as many server connections as any case of this layout will need, so
/// that the first round is like the others. The plain server is warmed through PgBouncer.
fn warm_up(
    contenders: &Contenders,
    cases: &[Case],
    options: &CompareOptions,
) -> Result<(), String> {
    let Some(largest) = cases.iter().max_by_key(|case| case.clients) else { return Ok(()) };
    for contender in [Contender::PgBouncer, Contender::Pgherd] {
        for &protocol in &options.protocols {
            eprintln!("warming up {}, {}", contender.name(), protocol.name());
            let case = Case { protocol, ..*largest };
            if let Err(error) = take_turn(contenders, contender, case, options) {
                // The same will be told by the rounds, case by case.
                interrupt::check()?;
                eprintln!("  {error}");
            }
        }
    }
    Ok(())
}

fn run_case(
    contenders: &Contenders,
    case: Case,
    options: &CompareOptions,
) -> Result<CaseResult, String> {
    let mut turns: Vec<Turn> = Vec::new();
    for round in 0..options.rounds {
        for contender in order(round) {
            // What failed once would only cost time again.
            let failed = |turn: &Turn| {
                turn.contender == contender && matches!(turn.outcome, Outcome::Failed(_))
            };
            if turns.iter().any(failed) {
                continue;
            }
            let outcome = match take_turn(contenders, contender, case, options) {
                Ok(measurement) => {
                    eprintln!(
                        "  round {} {:<9} {:>8.0} tps",
                        round + 1,
                        contender.name(),
                        measurement.tps
                    );
                    Outcome::Measured(measurement)
                }
                Err(error) => {
                    interrupt::check()?;
                    eprintln!("  round {} {:<9} {error}", round + 1, contender.name());
                    Outcome::Failed(error)
                }
            };
            turns.push(Turn { round, contender, outcome });
        }
    }
    Ok(CaseResult { case, turns })
}

/// Everybody is first, in the middle and last equally often.
pub(crate) fn order(round: u32) -> [Contender; 3] {
    let mut order = Contender::ALL;
    order.rotate_left(round as usize % Contender::ALL.len());
    order
}

fn take_turn(
    contenders: &Contenders,
    contender: Contender,
    case: Case,
    options: &CompareOptions,
) -> Result<Measurement, String> {
    let middle = contenders.middle(contender);
    let before = middle.map(CpuTime::of).transpose()?;
    let outcome = Run {
        dsn: &contenders.dsn(contender, case.protocol),
        case,
        scale: options.scale,
        seconds: options.seconds,
        directory: contenders.directory(),
    }
    .measure()?;
    let middle = MiddleCost::since(middle.zip(before), outcome.transactions)?;
    Ok(Measurement {
        transactions: outcome.transactions,
        tps: outcome.tps,
        p50: outcome.latencies.quantile(0.5),
        p99: outcome.latencies.quantile(0.99),
        middle,
    })
}

impl CaseResult {
    /// One figure of one contender, round by round.
    pub(crate) fn series(
        &self,
        contender: Contender,
        figure: impl Fn(&Measurement) -> Option<f64>,
    ) -> Vec<Option<f64>> {
        let rounds = self.turns.iter().map(|turn| turn.round + 1).max().unwrap_or(0);
        let mut series = vec![None; rounds as usize];
        for turn in self.turns.iter().filter(|turn| turn.contender == contender) {
            if let Outcome::Measured(measurement) = &turn.outcome {
                series[turn.round as usize] = figure(measurement);
            }
        }
        series
    }
}

fn failures(results: &[CaseResult]) -> BTreeSet<String> {
    let mut failures = BTreeSet::new();
    for result in results {
        for turn in &result.turns {
            if let Outcome::Failed(error) = &turn.outcome {
                let Case { workload, protocol, clients } = result.case;
                failures.insert(format!(
                    "{}, {clients} clients, {}, {}: {error}",
                    workload.name(),
                    protocol.name(),
                    turn.contender.name()
                ));
            }
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_three_rounds_everybody_has_had_every_place() {
        for place in 0..3 {
            let taken: BTreeSet<&str> = (0..3).map(|round| order(round)[place].name()).collect();
            assert_eq!(taken.len(), 3);
        }
        assert_eq!(order(3), order(0));
    }

    #[test]
    fn a_failed_turn_leaves_its_round_empty() {
        let case = Case { workload: Workload::Select, protocol: Protocol::Simple, clients: 1 };
        let measured = |tps| {
            Outcome::Measured(Measurement {
                transactions: 1,
                tps,
                p50: 1.0,
                p99: 1.0,
                middle: None,
            })
        };
        let turn = |round, outcome| Turn { round, contender: Contender::Direct, outcome };
        let result = CaseResult {
            case,
            turns: vec![turn(0, measured(5.0)), turn(1, Outcome::Failed("gone".to_owned()))],
        };
        assert_eq!(result.series(Contender::Direct, |m| Some(m.tps)), [Some(5.0), None]);
        assert_eq!(result.series(Contender::Pgherd, |m| Some(m.tps)), [None, None]);
        assert_eq!(failures(&[result]).len(), 1);
    }
}
