//! Running pgbench and reading what it says: its summary, and its log of single transactions.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgherd::dev::find_binaries;

use crate::case::{Case, Workload};
use crate::interrupt;
use crate::stats::Latencies;

const CO_LOCATED: &str = include_str!("../scripts/tpcb-co-located.sql");

/// How much longer than asked for a run may take before it counts as hung: logins of hundreds of
/// clients and their last transactions fall into it.
const GRACE: Duration = Duration::from_secs(60);

/// One measurement to be made.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub dsn: &'a str,
    pub case: Case,
    pub scale: u32,
    pub seconds: u32,
    /// For the script, the output and the log; they are removed again.
    pub directory: &'a Path,
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub transactions: u64,
    /// Per second, without the time for connecting.
    pub tps: f64,
    pub latencies: Latencies,
}

/// Steps of `pgbench -i -I`.
///
/// # Errors
/// What pgbench said.
pub(crate) fn initialize(dsn: &str, steps: &str, scale: u32) -> Result<(), String> {
    let output = Command::new(program()?)
        .args(["-i", "-q", "-I", steps, "-s", &scale.to_string(), dsn])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run pgbench: {error}"))?;
    interrupt::check()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("pgbench -i -I {steps}: {}", complaint(&String::from_utf8_lossy(&output.stderr))))
}

impl Run<'_> {
    /// # Errors
    /// pgbench's own complaint, also when only some of its clients failed.
    pub(crate) fn measure(&self) -> Result<Outcome, String> {
        let files = RunFiles::create(self.directory)?;
        let mut command = Command::new(program()?);
        command
            .args(["-n", "-M", self.case.protocol.name()])
            .args(["-c", &self.case.clients.to_string()])
            .args(["-j", if self.case.clients == 1 { "1" } else { "2" }])
            .args(["-T", &self.seconds.to_string(), "-l"])
            .arg(format!("--log-prefix={}", files.0.join("log").display()));
        match self.case.workload {
            Workload::Select => command.arg("-S"),
            Workload::TpcbCrossShard => command.args(["-b", "tpcb-like"]),
            Workload::TpcbCoLocated => {
                let script = files.write("script.sql", CO_LOCATED)?;
                command.arg("-D").arg(format!("scale={}", self.scale)).arg("-f").arg(script)
            }
        };
        let limit = Duration::from_secs(u64::from(self.seconds)) + GRACE;
        let (finished, output) = files.run(command.arg(self.dsn), limit)?;
        if !finished {
            return Err(format!("pgbench: {}", complaint(&output)));
        }
        // pgbench's clock runs while it connects.
        let (transactions, tps) = summary(&output).ok_or_else(|| {
            format!("no transaction was done in {} s; give more --seconds", self.seconds)
        })?;
        Ok(Outcome { transactions, tps, latencies: files.latencies()? })
    }
}

fn program() -> Result<PathBuf, String> {
    let beside = find_binaries()?.join("pgbench");
    Ok(if beside.is_file() { beside } else { PathBuf::from("pgbench") })
}

/// Transactions and their number per second.
fn summary(output: &str) -> Option<(u64, f64)> {
    let after = |start: &str| output.lines().find_map(|line| line.strip_prefix(start));
    let processed = after("number of transactions actually processed: ")?;
    // With -t it is "done/wanted".
    let transactions: u64 = processed.split('/').next()?.trim().parse().ok()?;
    let tps: f64 = after("tps = ")?.split(' ').next()?.parse().ok()?;
    (transactions > 0).then_some((transactions, tps))
}

/// The line that tells most about a failure.
fn complaint(output: &str) -> &str {
    let mut lines = output.lines().filter(|line| !line.trim().is_empty());
    let telling = |line: &&str| line.contains("error:") || line.contains("ERROR:");
    lines.clone().find(telling).or_else(|| lines.next_back()).unwrap_or("it said nothing")
}

/// The duration, in µs, from a line of pgbench's log:
/// `client transaction duration script seconds micros [lag]`.
fn logged_duration(line: &str) -> Option<u64> {
    line.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// A child that does not outlive us.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It has ended already, unless we are interrupted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The files of one run, in a directory of their own.
#[derive(Debug)]
struct RunFiles(PathBuf);

impl RunFiles {
    fn create(parent: &Path) -> Result<Self, String> {
        let path = parent.join("run");
        std::fs::create_dir(&path)
            .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.0.join(name);
        std::fs::write(&path, text)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(path)
    }

    /// Whether pgbench succeeded, and what it printed.
    fn run(&self, command: &mut Command, limit: Duration) -> Result<(bool, String), String> {
        let path = self.0.join("output");
        let failed = |error| format!("cannot write {}: {error}", path.display());
        let output = File::create(&path).map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("cannot run pgbench: {error}"))?;
        let mut child = Guarded(child);
        let deadline = Instant::now() + limit;
        let success = loop {
            match child.0.try_wait() {
                Ok(Some(status)) => break status.success(),
                Ok(None) if Instant::now() > deadline => {
                    return Err(format!("pgbench did not end within {} s", limit.as_secs()));
                }
                Ok(None) => interrupt::wait_until(Instant::now() + Duration::from_millis(20))?,
                Err(error) => return Err(format!("cannot wait for pgbench: {error}")),
            }
        };
        let text = std::fs::read(&path).map_err(|error| format!("cannot read output: {error}"))?;
        Ok((success, String::from_utf8_lossy(&text).into_owned()))
    }

    /// Every thread of pgbench writes a log of its own.
    fn latencies(&self) -> Result<Latencies, String> {
        let failed = |error| format!("cannot read pgbench's log: {error}");
        let mut latencies = Latencies::new();
        for entry in std::fs::read_dir(&self.0).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !entry.file_name().to_string_lossy().starts_with("log.") {
                continue;
            }
            for line in BufReader::new(File::open(entry.path()).map_err(failed)?).lines() {
                let line = line.map_err(failed)?;
                let micros = logged_duration(&line)
                    .ok_or_else(|| format!("pgbench logged a line of its own: {line}"))?;
                latencies.record_micros(micros);
            }
        }
        Ok(latencies)
    }
}

impl Drop for RunFiles {
    fn drop(&mut self) {
        // What stays is removed with the directory around it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: <builtin: select only>
scaling factor: 1
query mode: simple
number of clients: 2
number of threads: 2
maximum number of tries: 1
duration: 1 s
number of transactions actually processed: 20418
number of failed transactions: 0 (0.000%)
latency average = 0.098 ms
initial connection time = 2.871 ms
tps = 20462.478345 (without initial connection time)
";

    #[test]
    fn the_summary_gives_transactions_and_their_rate() {
        assert_eq!(summary(OUTPUT), Some((20418, 20462.478345)));
    }

    #[test]
    fn a_count_with_its_goal_is_understood() {
        let output = OUTPUT.replace("20418", "100/100");
        assert_eq!(summary(&output).map(|(transactions, _)| transactions), Some(100));
    }

    #[test]
    fn a_run_without_transactions_has_no_summary() {
        assert_eq!(summary(&OUTPUT.replace("20418", "0")), None);
        assert_eq!(summary("pgbench: error: connection failed"), None);
    }

    #[test]
    fn the_complaint_is_the_first_error_or_else_the_last_line() {
        let output = "starting\npgbench: error: client 1 aborted\npgbench: error: Run was aborted";
        assert_eq!(complaint(output), "pgbench: error: client 1 aborted");
        assert_eq!(complaint("one\ntwo\n\n"), "two");
        assert_eq!(complaint(""), "it said nothing");
    }

    #[test]
    fn a_log_line_holds_the_duration_third() {
        assert_eq!(logged_duration("0 199 2241 0 1175850568 995598"), Some(2241));
        assert_eq!(logged_duration("0 199 2241 0 1175850568 995598 17"), Some(2241));
        assert_eq!(logged_duration("0 199 failed 0 1175850568 995598"), None);
        assert_eq!(logged_duration("0 199"), None);
    }

    #[test]
    fn the_script_touches_one_branch_only() {
        let statements = CO_LOCATED.lines().filter(|line| line.contains("pgbench_"));
        assert!(statements.clone().count() == 5);
        for statement in statements {
            assert!(statement.contains(":bid"), "{statement}");
        }
    }
}
