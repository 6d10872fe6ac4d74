//! Parity: scripts that must read the same on PostgreSQL and through the router.
//!
//! A script is SQL; a statement ends with a line that ends with `;`. Lines `-- …` are comments,
//! lines `--@ …` say something about the next statement:
//!
//! ```text
//! --@ router: SELECT create_distributed_table('t', 'k')   run it on the router only
//! --@ refused 0A000                  the router refuses it by design; PostgreSQL does not see it
//! --@ known-difference: reason       it differs today; fails when that ends
//! --@ bind: 5|NULL|text              values for $1, $2, …; not run in the simple protocol
//! --@ modes: simple text             run it in these modes only
//! --@ setup                          send it in the simple protocol in every mode
//! --@ apart: t u                     what these tables hold may differ from here on
//! ```
//!
//! `refused[text binary] 0A000` and `known-difference[simple]: reason` are for these modes alone.
//! After `COPY … FROM STDIN;` follow the rows and a line `\.`, as in psql.

mod contents;
mod script;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

pub use contents::Contents;
pub use script::{Expected, Script, Unit};

use crate::wire::{Answer, Client, Mode};

/// The two sides, at the same starting point.
#[derive(Debug)]
pub struct Sides {
    pub plain: Side,
    pub router: Side,
}

/// Where one side is.
#[derive(Debug, Clone)]
pub struct Side {
    pub address: SocketAddr,
    pub database: String,
}

impl Side {
    fn connect(&self) -> std::io::Result<Client> {
        Client::connect(self.address, &self.database)
    }
}

/// What a run of a script has shown.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Each of them one text.
    pub differences: Vec<String>,
    /// What the router has said where it refuses by design: SQLSTATE, and message with DETAIL.
    pub refusals: BTreeSet<(String, String)>,
}

/// Runs a script in one mode. With `only`, the script ends after the statement on that line, and
/// other statements' differences are left out. `contents` compares all tables after each statement that
/// changes rows.
#[must_use]
pub fn run(
    sides: &Sides,
    script: &Script,
    mode: Mode,
    only: Option<usize>,
    contents: Option<&mut Contents>,
) -> Outcome {
    let mut outcome = Outcome::default();
    compare(sides, script, mode, only, contents, &mut outcome);
    outcome
}

fn compare(
    sides: &Sides,
    script: &Script,
    mode: Mode,
    only: Option<usize>,
    mut contents: Option<&mut Contents>,
    outcome: &mut Outcome,
) {
    let Outcome { differences, refusals } = outcome;
    if let Some(contents) = &mut contents {
        contents.forget();
    }
    let connections = (sides.plain.connect(), sides.router.connect());
    let (mut plain, mut router) = match connections {
        (Ok(plain), Ok(router)) => (plain, router),
        (Err(error), _) => return differences.push(format!("PostgreSQL: {error}")),
        (_, Err(error)) => return differences.push(format!("the router: {error}")),
    };
    let mut plain_status = 'I';
    for unit in &script.units {
        if only.is_some_and(|line| unit.line > line) {
            break;
        }
        if unit.modes.as_ref().is_some_and(|modes| !modes.contains(&mode)) {
            continue;
        }
        if let Some(contents) = &mut contents {
            contents.meet(unit);
        }
        let mut report = |text: &str| {
            if only.is_none_or(|line| unit.lines().contains(&line)) {
                differences.push(describe(script, unit, mode, text));
            }
        };
        let got = execute(&mut router, unit, mode);
        let broken = got.is_err();
        let expected = unit.expected_in(mode);
        match expected {
            Expected::RouterOnly => {
                if let Some(problem) = failure(&got) {
                    report(&format!("the router fails: {problem}"));
                }
            }
            Expected::Refused(code) => {
                let error = got.as_ref().ok().and_then(|answer| answer.error.as_deref());
                let status = got.as_ref().map_or('-', |answer| answer.status);
                if error != Some(code.as_str()) {
                    if error.is_none() {
                        // Both sides go on from the same state.
                        let _ = execute(&mut plain, unit, mode);
                    }
                    let shown = show(&got, unit.ordered);
                    report(&format!("expected a refusal with {code}, got:\n{shown}"));
                } else {
                    refusals.extend(got.iter().filter_map(refusal));
                }
                if error == Some(code.as_str()) && plain_status == 'I' && status != 'I' {
                    report(&format!("the refusal leaves the status {status}"));
                }
            }
            Expected::Same | Expected::KnownDifference(_) => {
                let want = execute(&mut plain, unit, mode);
                if let Ok(answer) = &want {
                    plain_status = answer.status;
                }
                let (want, got) = (show(&want, unit.ordered), show(&got, unit.ordered));
                match expected {
                    Expected::KnownDifference(_) if want == got => {
                        report("this known difference is gone: take the directive away");
                    }
                    Expected::Same if want != got => {
                        report(&format!("PostgreSQL:\n{want}the router:\n{got}"));
                    }
                    _ => {}
                }
                if let Some(contents) = &mut contents
                    && *expected == Expected::Same
                    && plain_status == 'I'
                    && let Some(difference) = contents.compare(unit)
                {
                    report(&difference);
                }
            }
        }
        if broken {
            match sides.router.connect() {
                Ok(client) => router = client,
                Err(error) => {
                    return differences.push(format!("the router lets nobody in: {error}"));
                }
            }
        }
    }
}

/// SQLSTATE of an error, its message and DETAIL.
fn refusal(answer: &Answer) -> Option<(String, String)> {
    let line = answer.lines.iter().find_map(|line| line.strip_prefix("error: ERROR "))?;
    let (code, message) = line.split_once(' ')?;
    let message = message.lines().next().unwrap_or_default();
    let message = message.split_once(" hint=").map_or(message, |(message, _)| message);
    Some((code.to_owned(), message.replacen(" detail=", ": ", 1)))
}

fn execute(client: &mut Client, unit: &Unit, mode: Mode) -> std::io::Result<Answer> {
    // COPY's rows follow at once, which is how the simple protocol has it.
    if mode == Mode::Simple || unit.setup || unit.copy.is_some() {
        return client.simple(&unit.sql, unit.copy.as_deref().unwrap_or_default());
    }
    let parameters: Vec<Option<&str>> = unit.bind.iter().map(Option::as_deref).collect();
    client.extended(&unit.sql, &parameters, mode == Mode::Binary)
}

fn failure(got: &std::io::Result<Answer>) -> Option<String> {
    match got {
        Ok(answer) => answer.error.as_ref().map(|_| answer.lines.join("; ")),
        Err(error) => Some(error.to_string()),
    }
}

/// Rows without an order are compared as sets.
fn show(answer: &std::io::Result<Answer>, ordered: bool) -> String {
    match answer {
        Ok(answer) => {
            let mut text = String::new();
            let mut rows: Vec<&str> = answer.rows.iter().map(String::as_str).collect();
            if !ordered {
                rows.sort_unstable();
            }
            for line in rows.into_iter().chain(answer.lines.iter().map(String::as_str)) {
                let _ = writeln!(text, "    {line}");
            }
            let _ = writeln!(text, "    status: {}", answer.status);
            text
        }
        Err(error) => format!("    the connection: {error}\n"),
    }
}

fn describe(script: &Script, unit: &Unit, mode: Mode, text: &str) -> String {
    format!(
        "{}:{} ({})\n  {}\n  {text}\n  repeat: PGHERD_PARITY={}:{} cargo test -p pgherd-tests \
         --test parity",
        script.name,
        unit.line,
        mode.name(),
        unit.sql.replace('\n', "\n  "),
        script.name,
        unit.line,
    )
}
