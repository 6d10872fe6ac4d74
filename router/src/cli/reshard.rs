//! `pgherd reshard …`: rows move from shard to shard while they are used.

mod limits;
mod status;
mod wish;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use pgherd_shard_map::Placement;
use serde_json::{Value, json};

use super::Failure;
use super::catalog::CatalogArgs;
use crate::reshard::distribute::Registered;
use crate::reshard::phase::{Goal, Phase};
use crate::reshard::proposal::{Estimate, Weights, estimate, propose};
use crate::reshard::size::{self, Plan, Weight};
use crate::reshard::{Begin, Late, Options, Problem, Run, Shards};
use limits::LimitArgs;
use status::StatusArgs;
pub(super) use status::bytes;
use wish::WishArgs;

/// Online movement of data between shards.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples, with PGHERD_CATALOG=postgres://postgres@db0/app:\n  \
                        pgherd reshard plan --spread     what would move, and how long it takes\n  \
                        pgherd reshard start --spread    copy; the old shards stay in charge\n  \
                        pgherd reshard status\n  \
                        pgherd reshard cutover           the new shards are in charge\n  \
                        pgherd reshard finish            the old rows are deleted")]
pub(super) enum ReshardCommand {
    /// Show what would move, how much it is and how long it takes. Nothing is changed.
    #[command(after_help = "Examples:\n  \
        pgherd reshard plan --spread                    the same to every shard, new ones too\n  \
        pgherd reshard plan --balance                   the same number of bytes to every shard\n  \
        pgherd reshard plan --balance --by load         the same load, as it is for ten seconds\n  \
        pgherd reshard plan --split 0 --to 4            half of shard 0\n  \
        pgherd reshard plan --drain 2                   all of shard 2, over the others\n  \
        pgherd reshard plan --merge 0                   everything to shard 0\n  \
        pgherd reshard plan --isolate orders=42 --to 4  one tenant\n  \
        pgherd reshard plan --distribute users=id,orders=user_id   plain tables, with their rows")]
    Plan {
        #[command(flatten)]
        wish: WishArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Copy rows, follow their changes, verify them. The old shards stay in charge.
    ///
    /// Without a wish it takes up the run that was interrupted.
    #[command(after_help = "Examples:\n  pgherd reshard start --spread\n  \
                            pgherd reshard start --split 0 --to 4 --auto\n  \
                            pgherd reshard start --distribute users=id,orders=user_id\n  \
                            pgherd reshard start")]
    Start {
        #[command(flatten)]
        wish: WishArgs,
        #[command(flatten)]
        limits: LimitArgs,
        /// Go on through the cut-over. The way back stays open until `finish`.
        #[arg(long)]
        auto: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Show the run under way, or the last one.
    #[command(after_help = "Examples:\n  pgherd reshard status --watch\n  \
                            pgherd reshard status --certificate")]
    Status(StatusArgs),
    /// Show, or change, for whose sake rows are held up. May be done while a command is at work.
    ///
    /// While a limit is exceeded nothing is copied or deleted. Rows that are there are followed.
    #[command(
        after_help = "Examples:\n  pgherd reshard throttle --max-p99 50ms --min-free 20GB\n  \
                            pgherd reshard throttle --max-lag off\n  pgherd reshard throttle"
    )]
    Throttle {
        #[command(flatten)]
        limits: LimitArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Let no more rows flow for now. A table that is being copied begins anew when it goes on.
    #[command(after_help = "Example:\n  pgherd reshard pause")]
    Pause(Common),
    /// Let rows flow again.
    #[command(after_help = "Example:\n  pgherd reshard resume")]
    Resume(Common),
    /// Compare every row of both sides, while they are used.
    #[command(after_help = "Example:\n  pgherd reshard verify")]
    Verify(Common),
    /// The new shards take over. Writers of moving rows wait for a moment.
    #[command(after_help = "Example:\n  pgherd reshard cutover --max-pause 500ms")]
    Cutover(Common),
    /// The old shards take over again, with all that was written since.
    #[command(after_help = "Example:\n  pgherd reshard rollback")]
    Rollback(Common),
    /// Give up the way back: the old copies are deleted.
    #[command(after_help = "Example:\n  pgherd reshard finish")]
    Finish(Common),
    /// End a run before its cut-over: the new copies are deleted.
    #[command(after_help = "Example:\n  pgherd reshard cancel")]
    Cancel(Common),
}

#[derive(Debug, clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// How long writers of moving rows may be held up, for example 500ms or 2s.
    #[arg(long, default_value = "500ms", value_name = "TIME", value_parser = duration)]
    max_pause: Duration,
    /// End transactions that have written moving rows and are still open after a third of that
    /// time: their clients get 40001. Otherwise nothing moves while they are open.
    #[arg(long)]
    end_transactions: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: ReshardCommand) -> Result<(), Failure> {
    match command {
        ReshardCommand::Plan { wish, common } => plan(&wish, &common).await,
        ReshardCommand::Start { wish, limits, auto, common } => {
            let goal = if auto { Goal::Cutover } else { Goal::Start };
            match wish.is_given() {
                true => start(&wish, limits, &common, goal).await,
                false => {
                    if limits.is_given() {
                        throttle(limits, &common).await?;
                    }
                    go(&common, goal).await
                }
            }
        }
        ReshardCommand::Throttle { limits, common } => throttle(limits, &common).await,
        ReshardCommand::Status(args) => status::run(args).await,
        ReshardCommand::Pause(common) => hold(&common, true).await,
        ReshardCommand::Resume(common) => hold(&common, false).await,
        ReshardCommand::Verify(common) => go(&common, Goal::Verify).await,
        ReshardCommand::Cutover(common) => go(&common, Goal::Cutover).await,
        ReshardCommand::Rollback(common) => go(&common, Goal::Rollback).await,
        ReshardCommand::Finish(common) => go(&common, Goal::Finish).await,
        ReshardCommand::Cancel(common) => go(&common, Goal::Cancel).await,
    }
}

async fn plan(wish: &WishArgs, common: &Common) -> Result<(), Failure> {
    let plan = planned(wish, common).await?;
    if common.json {
        println!("{}", json!(plan));
    } else {
        print_plan(&plan, wish);
        println!("Run it: pgherd reshard start with the same options.");
    }
    Ok(())
}

/// The moves of a wish, sized. Nothing is changed.
async fn planned(wish: &WishArgs, common: &Common) -> Result<Plan, Failure> {
    let (dsn, dialer) = (common.catalog.dsn()?, Arc::new(common.catalog.dialer()?));
    let map = common.catalog.connect().await?.load().await.map_err(|e| e.to_string())?;
    let mut shards = Shards::new(dialer, &dsn, &map);
    let (map, moves, balance) = match wish.distribution(&map)? {
        Some(wanted) => {
            let home = shards.get(map.home).await?;
            let Registered { map, moves, .. } = wanted.look(&home).await?;
            (map, moves, Vec::new())
        }
        None => {
            let weights = match wish.weight() {
                Some(weight) => size::by_shard(&mut shards, &map, weight).await?,
                None => Weights::new(),
            };
            let moves = propose(&map, &wish.read(&map, weights.clone())?);
            let balance = estimate(&map, &weights, &moves);
            (map, moves, balance)
        }
    };
    for group in map.groups() {
        if !matches!(group.placement, Placement::Hash(_)) {
            let by = match group.placement {
                Placement::Range(_) => "range",
                _ => "list",
            };
            eprintln!("note: tables of group {} are distributed by {by}, and stay", group.id);
        }
    }
    if moves.is_empty() {
        return Err(Failure::new(
            "there is nothing to move",
            "The shards have what you wish them to have. pgherd.ranges shows it.",
        ));
    }
    Ok(Plan { balance, ..size::plan(&mut shards, &map, &moves).await? })
}

async fn start(
    wish: &WishArgs,
    limits: LimitArgs,
    common: &Common,
    goal: Goal,
) -> Result<(), Failure> {
    let plan = planned(wish, common).await?;
    if !common.json {
        print_plan(&plan, wish);
    }
    let (dsn, dialer) = (common.catalog.dsn()?, Arc::new(common.catalog.dialer()?));
    let map = common.catalog.connect().await?.load().await.map_err(|e| e.to_string())?;
    let begin = match wish.distribution(&map)? {
        Some(wanted) => {
            let home = Shards::new(Arc::clone(&dialer), &dsn, &map).get(map.home).await?;
            let Registered { moves, joins, .. } = wanted.register(&home).await?;
            Begin { moves, joins }
        }
        None => Begin { moves: plan.moves.iter().map(|sized| sized.part).collect(), joins: None },
    };
    let mut run = Run::begin(&dialer, &dsn, begin, common.options()).await?;
    run.limit(|all| limits.apply(all)).await?;
    reach(&mut run, common, goal).await
}

async fn go(common: &Common, goal: Goal) -> Result<(), Failure> {
    let (dsn, dialer) = (common.catalog.dsn()?, Arc::new(common.catalog.dialer()?));
    let Some(mut run) = Run::take(&dialer, &dsn, common.options()).await? else {
        return Err(Failure::new(
            "nothing has been moved yet",
            "pgherd reshard plan shows what could be.",
        ));
    };
    reach(&mut run, common, goal).await
}

/// The run, beside a command that may be at work.
async fn looked_at(common: &Common) -> Result<Run, Failure> {
    let (dsn, dialer) = (common.catalog.dsn()?, Arc::new(common.catalog.dialer()?));
    let run = Run::look(&dialer, &dsn).await?;
    run.ok_or_else(|| {
        Failure::new("nothing has been moved yet", "pgherd reshard plan shows what could be.")
    })
}

async fn throttle(change: LimitArgs, common: &Common) -> Result<(), Failure> {
    let mut run = looked_at(common).await?;
    if change.is_given() && run.phase().is_none_or(Phase::is_over) {
        return Err(Failure::new(
            format!("run {} is {}", run.record().id, run.record().phase),
            "Give limits to the next one: pgherd reshard start takes the same options.",
        ));
    }
    let limits = match change.is_given() {
        true => run.limit(|all| change.apply(all)).await?,
        false => run.limits()?,
    };
    match common.json {
        true => println!("{}", json!({ "run": run.record().id, "limits": limits })),
        false => println!("run {}: {}", run.record().id, limits::said(&limits)),
    }
    Ok(())
}

async fn hold(common: &Common, paused: bool) -> Result<(), Failure> {
    let mut run = looked_at(common).await?;
    run.hold(paused).await?;
    let record = run.record();
    if common.json {
        println!("{}", json!({ "run": record.id, "phase": record.phase, "paused": paused }));
    } else {
        let state = if paused { "paused" } else { "going on" };
        println!("run {} is {state}, {}", record.id, record.phase);
    }
    Ok(())
}

async fn reach(run: &mut Run, common: &Common, goal: Goal) -> Result<(), Failure> {
    let json = common.json;
    let live = !json && std::io::stderr().is_terminal();
    let mut screen = status::Screen::new(live);
    let mut tell = |news: &Value| match json {
        true => println!("{news}"),
        false => screen.tell(news),
    };
    let reached = run.reach(goal, &mut tell).await;
    screen.end();
    reached?;
    let record = run.record();
    if json {
        println!("{}", json!({ "run": record.id, "phase": record.phase }));
    } else {
        println!("run {} is {}", record.id, record.phase);
        if let Some(next) = status::next(&record.phase) {
            println!("next: {next}");
        }
    }
    Ok(())
}

fn print_plan(plan: &Plan, wish: &WishArgs) {
    let weighed = |weight: u64| match wish.weight() {
        Some(Weight::Load(_)) => format!("{weight} scans and rows written"),
        _ => bytes(weight),
    };
    for Estimate { group, shard, now, then } in &plan.balance {
        println!(
            "shard {shard}  group {group}  {} now, about {} then",
            weighed(*now),
            weighed(*then)
        );
    }
    for sized in &plan.moves {
        let (part, range) = (&sized.part, sized.part.range());
        let end = range.end.map_or_else(|| "end".to_owned(), |end| end.to_string());
        println!(
            "shard {} -> shard {}  group {}  {}..{end}  {} rows, {}",
            part.from,
            part.to,
            part.group,
            range.start,
            sized.rows,
            bytes(sized.bytes),
        );
    }
    println!(
        "{} tables, about {} rows, {}; copying about {}; writers of these rows wait about {:.0} ms",
        plan.tables.len(),
        plan.rows,
        bytes(plan.bytes),
        status::time(Duration::from_secs_f64(plan.copy_seconds)),
        plan.pause_ms,
    );
}

impl Common {
    fn options(&self) -> Options {
        let late = if self.end_transactions { Late::Ended } else { Late::Kept };
        Options { max_pause: self.max_pause, late, who: who(), ..Options::default() }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problem: super::one_line(&problem.what), hint: problem.hint }
    }
}

/// A number with `ms`, `s` or `min`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "expected a number with ms or s".to_owned())?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "min" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err("expected a number with ms or s".to_owned()),
    }
}

/// Who has given the command, and where: certificates say it.
fn who() -> String {
    let named = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    // Neither is set in containers and under cron.
    let user = named.filter(|name| !name.is_empty()).or_else(|| {
        let output = std::process::Command::new("id").arg("-un").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    });
    let host = rustix::system::uname();
    format!("{}@{}", user.as_deref().unwrap_or("unknown"), host.nodename().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert!(duration("fast").is_err());
    }
}
