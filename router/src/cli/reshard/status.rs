//! `pgherd reshard status`, and what a running command shows.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::limits::measured;
use crate::cli::Failure;
use crate::cli::catalog::CatalogArgs;
use crate::reshard::phase::Phase;
use crate::reshard::{Problem, Run};

/// How often `--watch` looks.
const WATCH: Duration = Duration::from_secs(1);

/// Characters of a bar.
const BAR: usize = 24;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StatusArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// Look again every second, until it is interrupted or the run is over.
    #[arg(long)]
    watch: bool,
    /// Print the certificates of verifications, cut-overs and rollbacks.
    #[arg(long)]
    certificate: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: StatusArgs) -> Result<(), Failure> {
    let (dsn, dialer) = (args.catalog.dsn()?, Arc::new(args.catalog.dialer()?));
    let mut screen = Screen::new(args.watch && !args.json && std::io::stdout().is_terminal());
    loop {
        let Some(mut run) = Run::look(&dialer, &dsn).await? else {
            return Err(Failure::new(
                "nothing has been moved yet",
                "pgherd reshard plan shows what could be.",
            ));
        };
        let record = run.record().clone();
        if args.certificate {
            for certificate in &record.certificates {
                match args.json {
                    true => println!("{certificate}"),
                    false => print!("{}", certified(certificate)),
                }
            }
            return Ok(());
        }
        // A shard that is down is a part of the picture.
        let mut problem = record.problem.clone();
        let mut seen = |found: Result<Value, Problem>| match found {
            Ok(found) => found,
            Err(lack) => {
                problem = Some(lack.what);
                Value::Null
            }
        };
        let streams = seen(run.observe().await);
        let load = seen(run.load().await.map(|load| json!(load)));
        let over = run.phase().is_none_or(Phase::is_over);
        let copying = run.phase() == Some(Phase::Copying);
        let all = json!({
            "run": record.id, "phase": record.phase, "moves": record.moves,
            "started": record.started, "started_by": record.started_by,
            "streams": streams, "problem": problem, "paused": record.paused,
            "load": load, "limits": run.limits()?,
            "held": (!over).then(|| record.progress["held"].clone()),
            "rate": copying.then(|| record.progress["rate"].clone()),
            "next": if record.paused { Some("pgherd reshard resume") } else { next(&record.phase) },
        });
        match args.json {
            true => println!("{all}"),
            false => screen.show(&page(&all)),
        }
        if !args.watch || over {
            return Ok(());
        }
        tokio::time::sleep(WATCH).await;
    }
}

/// What the operator may do next.
pub(super) fn next(phase: &str) -> Option<&'static str> {
    Some(match phase {
        "copying" | "cutting" | "returning" => "pgherd reshard start",
        "ready" => "pgherd reshard cutover, or pgherd reshard cancel",
        "moved" => "pgherd reshard finish, or pgherd reshard rollback",
        "finishing" => "pgherd reshard finish",
        "cancelling" => "pgherd reshard cancel",
        _ => return None,
    })
}

/// The run as a person reads it.
fn page(all: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut page = format!("run {} is {}", all["run"], text(&all["phase"]));
    let _ = writeln!(page, ", begun {} by {}", text(&all["started"]), text(&all["started_by"]));
    for stream in all["streams"].as_array().into_iter().flatten() {
        let _ = write!(page, "shard {} -> shard {}", stream["source"], stream["target"]);
        match stream["lag_bytes"].as_u64() {
            Some(lag) => {
                let _ = writeln!(page, ", {} behind", bytes(lag));
            }
            None => page.push('\n'),
        }
        for table in stream["tables"].as_array().into_iter().flatten() {
            let _ = writeln!(page, "  {}", table_line(table));
        }
    }
    page.push_str(&measured(all));
    if all["paused"] == true {
        page.push_str("paused: no rows flow, and the old servers keep their logs\n");
    } else if let Some(line) = rate(&all["rate"]) {
        let _ = writeln!(page, "{line}");
    }
    if let Some(problem) = all["problem"].as_str() {
        let _ = writeln!(page, "stopped: {problem}");
    }
    if let Some(next) = all["next"].as_str() {
        let _ = writeln!(page, "next: {next}");
    }
    page
}

/// How fast it is, and what is left.
fn rate(rate: &Value) -> Option<String> {
    let rows = rate["rows_per_second"].as_u64()?;
    let left = rate["seconds_left"].as_f64().map_or_else(String::new, |left| {
        format!(", about {} left", time(Duration::from_secs_f64(left)))
    });
    Some(format!("{rows} rows/s{left}"))
}

fn table_line(table: &Value) -> String {
    let name = table["table"].as_str().unwrap_or_default();
    let state = table["state"].as_str().unwrap_or_default();
    let (rows, expected) = (
        table["rows"].as_u64().unwrap_or_default(),
        table["expected"].as_u64().unwrap_or_default(),
    );
    let done = match state {
        "following" => 1.0,
        "copying" if expected > 0 => (rows as f64 / expected as f64).min(0.99),
        _ => 0.0,
    };
    let filled = (done * BAR as f64) as usize;
    let bar = format!("{}{}", "#".repeat(filled), ".".repeat(BAR - filled));
    match state {
        "copying" => {
            format!("[{bar}] {:>3.0}% {name}  {rows} of about {expected} rows", done * 100.0)
        }
        _ => format!("[{bar}] {:>3.0}% {name}  {state}", done * 100.0),
    }
}

/// A certificate as a person reads it.
fn certified(certificate: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut page = format!(
        "{} of run {} by {} at {}\n",
        text(&certificate["kind"]),
        certificate["run"],
        text(&certificate["by"]),
        text(&certificate["at"])
    );
    for part in certificate["moves"].as_array().into_iter().flatten() {
        let end = part["end_hash"].as_i64().map_or_else(|| "end".to_owned(), |end| end.to_string());
        let _ = writeln!(
            page,
            "  group {} {}..{end} from shard {} to shard {}",
            part["group_id"], part["start_hash"], part["from_shard"], part["to_shard"]
        );
    }
    for table in certificate["tables"].as_array().into_iter().flatten() {
        let _ = writeln!(
            page,
            "  {} shard {}: {} rows {}; shard {}: {} rows {}; {} under way settled, {} wrong",
            text(&table["table"]),
            table["source"],
            table["source_rows"],
            text(&table["source_checksum"]),
            table["target"],
            table["target_rows"],
            text(&table["target_checksum"]),
            table["settled"],
            table["wrong"],
        );
    }
    for at in certificate["positions"].as_array().into_iter().flatten() {
        let _ = writeln!(
            page,
            "  log of shard {} at {}, of shard {} at {}",
            at["source"],
            text(&at["source_lsn"]),
            at["target"],
            text(&at["target_lsn"])
        );
    }
    if let Some(pause) = certificate["pause_ms"].as_f64() {
        let _ = writeln!(
            page,
            "  writers of these rows waited {pause:.1} ms of {} ms; epoch {}",
            certificate["max_pause_ms"], certificate["epoch"]
        );
        for done in certificate["steps"].as_array().into_iter().flatten() {
            let ms = done["ms"].as_f64().unwrap_or_default();
            let _ = writeln!(page, "  {ms:>8.1} ms  {}", text(&done["step"]));
        }
        if let Some(ended @ 1..) = certificate["ended_transactions"].as_i64() {
            let _ = writeln!(page, "  {ended} transactions were ended");
        }
    }
    page
}

/// Where news go: drawn over the last on a terminal, else line by line.
pub(super) struct Screen {
    live: bool,
    /// Lines that the next page replaces.
    lines: usize,
    last: String,
    held: Value,
    started: Instant,
}

impl Screen {
    pub(super) fn new(live: bool) -> Self {
        Self { live, lines: 0, last: String::new(), held: Value::Null, started: Instant::now() }
    }

    /// News of a running command.
    pub(super) fn tell(&mut self, news: &Value) {
        if let Some(step) = news["step"].as_str() {
            if step != self.last && step != "done" {
                self.end();
                eprintln!("{:>6.1}s  {step}", self.started.elapsed().as_secs_f64());
                step.clone_into(&mut self.last);
            }
        } else if let Some(again) = news["again"].as_str() {
            self.end();
            eprintln!("         {again}; trying again");
        } else if let Some(rows) = news["verified"].as_i64() {
            self.end();
            eprintln!("         {rows} rows compared, {} wrong", news["wrong"]);
        } else if let Some(rows) = news["deleted"].as_u64() {
            self.end();
            eprintln!("         {rows} old copies deleted on shard {}", news["shard"]);
        } else if news["streams"].is_array() {
            let mut page = String::new();
            for stream in news["streams"].as_array().into_iter().flatten() {
                for table in stream["tables"].as_array().into_iter().flatten() {
                    let _ = writeln!(page, "         {}", table_line(table));
                }
            }
            if let Some(line) = rate(&news["rate"]) {
                let _ = writeln!(page, "         {line}");
            }
            page.push_str(&measured(&json!({ "held": news["held"] })));
            if self.live {
                self.show(&page);
            } else if news["held"] != self.held {
                eprint!("{}", measured(&json!({ "held": news["held"] })));
            }
            self.held = news["held"].clone();
        } else if let Some(why) = news["held"].as_str() {
            self.end();
            eprintln!("         held: {why}");
        }
    }

    /// Draws a page over the last one.
    pub(super) fn show(&mut self, page: &str) {
        let mut out = std::io::stdout();
        let back = match self.live && self.lines > 0 {
            true => format!("\x1b[{}A\x1b[J", self.lines),
            false => String::new(),
        };
        // Nobody may be looking any more.
        let _ = write!(out, "{back}{page}");
        let _ = out.flush();
        self.lines = page.lines().count();
    }

    /// What is drawn stays.
    pub(super) fn end(&mut self) {
        self.lines = 0;
    }
}

/// A size for people.
pub(in crate::cli) fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{size:.1} {}", units[unit]),
    }
}

/// A duration for people.
pub(super) fn time(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3600 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_how_far_each_table_is_and_what_comes_next() {
        let all = json!({ "run": 3, "phase": "copying", "started": "2026-11-30T10:00:00Z",
            "started_by": "ann", "next": "pgherd reshard start", "problem": null,
            "rate": { "rows_per_second": 10, "seconds_left": 5.0 },
            "streams": [{ "source": 0, "target": 2, "lag_bytes": 2048, "tables": [
                { "table": "public.a", "state": "copying", "rows": 50, "expected": 100 },
                { "table": "public.b", "state": "following", "rows": 0 } ] }] });
        assert_eq!(
            page(&all),
            "run 3 is copying, begun 2026-11-30T10:00:00Z by ann\n\
             shard 0 -> shard 2, 2.0 kB behind\n  \
             [############............]  50% public.a  50 of about 100 rows\n  \
             [########################] 100% public.b  following\n\
             10 rows/s, about 5.0 s left\n\
             next: pgherd reshard start\n"
        );
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!((bytes(12), bytes(3 << 20)), ("12 B".to_owned(), "3.0 MB".to_owned()));
        assert_eq!(time(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(time(Duration::from_secs(3700)), "1 h 1 min");
    }
}
