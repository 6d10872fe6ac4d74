//! The command line: one file per command. Every command has an example in its help, and fails
//! with one line `pgherd: …` and, where something can be done about it, a line `hint: …`.

mod catalog;
mod check;
mod cluster;
mod dev;
mod explain;
mod guard;
mod reshard;
mod serve;
mod shard;
mod status;
mod txn;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "pgherd",
    version,
    about = "Many PostgreSQL servers behave as one",
    after_help = "Example:\n  pgherd dev --shards 4"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::DevArgs),
    Serve(serve::ServeArgs),
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    #[command(subcommand)]
    Shard(shard::ShardCommand),
    Status(status::StatusArgs),
    Check(check::CheckArgs),
    #[command(subcommand)]
    Reshard(reshard::ReshardCommand),
    #[command(subcommand)]
    Txn(txn::TxnCommand),
    Explain(explain::ExplainArgs),
    #[command(hide = true)]
    DevGuard(guard::GuardArgs),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Dev(args) => dev::run(args),
        Command::Serve(args) => serve::run(&args),
        Command::Cluster(command) => block_on(cluster::run(command)),
        Command::Shard(command) => block_on(shard::run(command)),
        Command::Reshard(command) => block_on(reshard::run(command)),
        Command::Txn(command) => block_on(txn::run(command)),
        Command::Status(args) => block_on(status::run(args)),
        // Its status also says what was found.
        Command::Check(args) => return check::exit(block_on(check::run(args))),
        Command::Explain(args) => block_on(explain::run(args)),
        Command::DevGuard(args) => guard::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::FAILURE
        }
    }
}

/// Why a command failed, for a person.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    /// One line.
    problem: String,
    hint: Option<String>,
}

impl Failure {
    fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { problem: one_line(&problem.into()), hint: Some(hint.into()) }
    }

    fn tell(&self) {
        eprintln!("pgherd: {}", self.problem);
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
    }
}

impl From<String> for Failure {
    /// The first line is the problem, the rest is the hint.
    fn from(text: String) -> Self {
        match text.split_once('\n') {
            Some((problem, hint)) => Self::new(problem, one_line(hint)),
            None => Self { problem: text, hint: None },
        }
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let shown = command.is_hide_set() || command.has_subcommands();
            assert!(shown || help.contains("Example"), "{}", command.get_name());
            assert!(command.get_about().is_some(), "{} says nothing", command.get_name());
            command.get_subcommands().for_each(check);
        }
        Cli::command().debug_assert();
        check(&Cli::command());
    }

    #[test]
    fn what_follows_the_first_line_is_the_hint() {
        let failure = Failure::from("no such thing\nLook\nelsewhere.".to_owned());
        assert_eq!(failure, Failure::new("no such thing", "Look elsewhere."));
    }
}
