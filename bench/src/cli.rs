//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::case::{Protocol, Workload};
use crate::compare::{self, CompareOptions};
use crate::consistency::{self, ConsistencyOptions};
use crate::copy::{self, CopyOptions};
use crate::load::{self, LoadOptions, LoadProtocol};
use crate::reshard::{self, ReshardOptions};
use crate::same_servers::{self, SameServersOptions};
use crate::scatter::{self, ScatterOptions};
use crate::slow_reader::{self, SlowReaderOptions};
use crate::transfers::{self, TransfersOptions};
use crate::{idle, interrupt, lookup};

#[derive(Debug, Parser)]
#[command(
    name = "pgherd-bench",
    version,
    about = "pgherd beside PgBouncer and plain PostgreSQL, on this machine, in the same run",
    after_help = "It starts everything itself, on free ports and in a temporary directory, and \
                  removes it again.\n\nExample:\n  cargo run --release -p pgherd-bench -- compare"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run pgbench against all three alternately and print ratios.
    #[command(after_help = "Examples:\n  \
        pgherd-bench compare\n  \
        pgherd-bench compare --only select --clients 1,16 --modes simple --seconds 10\n  \
        pgherd-bench compare --only tpcb-cross-shard --tpcb-clients 4,64 --shards 8 --json run.json")]
    Compare(CompareArgs),
    /// Send requests at a fixed rate and measure from when each was due.
    #[command(after_help = "Examples:\n  \
        pgherd-bench load --rate 2000 --clients 64 --mode prepared\n  \
        pgherd-bench load --dsn postgres://postgres@127.0.0.1:6432/app --rate 5000 --clients 64 \
        --seconds 30 --keys 100000 --sql 'SELECT abalance FROM pgbench_accounts WHERE aid = :key'")]
    Load(LoadArgs),
    /// Measure the memory that idle clients cost in PgBouncer and in pgherd.
    #[command(after_help = "Example:\n  pgherd-bench idle --clients 10000\n\n\
        More than pgherd's default limit:\n  \
        PGHERD_MAX_CLIENTS=20001 pgherd-bench idle --clients 20000")]
    Idle {
        /// Connections to each; pgherd accepts 10000 unless PGHERD_MAX_CLIENTS says otherwise
        #[arg(long, default_value_t = 9999)]
        clients: u32,
        #[arg(long, default_value_t = 1)]
        shards: u32,
    },
    /// Compare the processes in the middle alone: PgBouncer and pgherd before the same servers.
    #[command(after_help = "Examples:\n  \
        pgherd-bench same-servers --clients 1,16 --rounds 5\n  \
        pgherd-bench same-servers --workload tpcb-co-located --clients 16")]
    SameServers(SameServersArgs),
    /// Time the lookup of a plan that is there already: no servers, one thread.
    #[command(after_help = "Example:\n  cargo run --release -p pgherd-bench -- lookup")]
    Lookup,
    /// Read rows, groups and sorted rows of all shards: beside the shards alone, all asked at once,
    /// and one plain server.
    #[command(after_help = "Examples:\n  pgherd-bench scatter\n  \
        pgherd-bench scatter --rows 200000 --rounds 1")]
    Scatter {
        #[arg(long, default_value_t = 2_000_000)]
        rows: u32,
        /// Every contender reads each statement once in each round
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        #[arg(long, default_value_t = 4)]
        shards: u32,
    },
    /// Move money between two shards: two-phase commit beside one plain server.
    #[command(after_help = "Examples:\n  pgherd-bench transfers\n  \
        pgherd-bench transfers --clients 1 --seconds 2 --rounds 1 --shards 2")]
    Transfers {
        #[arg(long, value_delimiter = ',', default_value = "1,8,32",
              value_parser = clap::value_parser!(u32).range(1..=64))]
        clients: Vec<u32>,
        /// Of each turn
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..))]
        accounts: u32,
        #[arg(long, default_value_t = 4)]
        shards: u32,
    },
    /// Load rows with COPY FROM, beside one plain server.
    #[command(after_help = "Examples:\n  pgherd-bench copy\n  \
        pgherd-bench copy --megabytes 20 --rounds 1")]
    Copy {
        /// Of rows, in units of 1000000 bytes
        #[arg(long, default_value_t = 200)]
        megabytes: u32,
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        #[arg(long, default_value_t = 4)]
        shards: u32,
    },
    /// Count the rows of all shards with each pgherd.read_consistency.
    #[command(after_help = "Examples:\n  pgherd-bench consistency\n  \
        pgherd-bench consistency --rows 1000 --clients 1 --seconds 2 --rounds 1")]
    Consistency {
        #[arg(long, value_delimiter = ',', default_value = "1000,1000000")]
        rows: Vec<u32>,
        #[arg(long, value_delimiter = ',', default_value = "1,8")]
        clients: Vec<u32>,
        /// Of each turn
        #[arg(long, default_value_t = 5)]
        seconds: u32,
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        #[arg(long, default_value_t = 4)]
        shards: u32,
    },
    /// Copy a table to another server while it is written: pgherd reshard beside pg_dump | psql and
    /// a subscription of PostgreSQL's own.
    #[command(after_help = "Examples:\n  pgherd-bench reshard\n  \
        pgherd-bench reshard --scale 50 --rounds 3 --rate 500")]
    Reshard {
        /// pgbench's: 100000 rows each
        #[arg(long, default_value_t = 20)]
        scale: u32,
        /// Every way has one turn in each round
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Updates per second, of all writers together
        #[arg(long, default_value_t = 200.0)]
        rate: f64,
        #[arg(long, default_value_t = 4)]
        clients: u32,
        /// Rows that are changed while the flow is held
        #[arg(long, default_value_t = 100_000)]
        changes: u32,
    },
    /// Read large results slowly and watch the memory of PgBouncer and pgherd.
    #[command(after_help = "Example:\n  pgherd-bench slow-reader --megabytes 500 --rate 50")]
    SlowReader {
        /// Size of each result, in MB
        #[arg(long, default_value_t = 500)]
        megabytes: u32,
        /// MB per second that the client reads
        #[arg(long, default_value_t = 100.0)]
        rate: f64,
        #[arg(long, default_value_t = 4)]
        shards: u32,
    },
}

#[derive(Debug, clap::Args)]
struct CompareArgs {
    /// Every contender has one turn in each round
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Of each turn
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// pgbench's: 100000 accounts each
    #[arg(long, default_value_t = 10)]
    scale: u32,
    /// PostgreSQL servers behind pgherd
    #[arg(long, default_value_t = 4)]
    shards: u32,
    /// Workloads; all when left out
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Workload>,
    /// Numbers of clients for select
    #[arg(long, value_delimiter = ',', default_value = "1,16,256",
          value_parser = clap::value_parser!(u32).range(1..=900))]
    clients: Vec<u32>,
    /// Numbers of clients for the two tpcb workloads
    #[arg(long, value_delimiter = ',', default_value = "16",
          value_parser = clap::value_parser!(u32).range(1..=900))]
    tpcb_clients: Vec<u32>,
    /// Protocols, in pgbench's words
    #[arg(long, value_enum, value_delimiter = ',', default_value = "simple,extended,prepared")]
    modes: Vec<Protocol>,
    /// Write every single measurement here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the tables here, too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Leave the servers' directories and logs in place
    #[arg(long)]
    keep_dir: bool,
}

#[derive(Debug, clap::Args)]
struct SameServersArgs {
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Length of each run
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// pgbench's scale: 100 000 rows each
    #[arg(long, default_value_t = 10)]
    scale: u32,
    #[arg(long, default_value_t = 4)]
    shards: u32,
    #[arg(long, value_enum, default_value = "select")]
    workload: Workload,
    #[arg(long, value_delimiter = ',', default_value = "1,16,256",
          value_parser = clap::value_parser!(u32).range(1..=512))]
    clients: Vec<u32>,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "simple,extended,prepared")]
    modes: Vec<Protocol>,
}

#[derive(Debug, clap::Args)]
struct LoadArgs {
    /// postgres:// URL; without it all three contenders are started and asked in turn
    #[arg(long)]
    dsn: Option<String>,
    /// Requests per second, of all clients together
    #[arg(long)]
    rate: f64,
    #[arg(long, default_value_t = 16)]
    clients: u32,
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// How long late requests may still be sent after the end
    #[arg(long, default_value_t = 5)]
    drain_seconds: u32,
    /// One statement; `:key` in it becomes a random number from 1 to --keys
    #[arg(long, default_value = "SELECT abalance FROM pgbench_accounts WHERE aid = :key")]
    sql: String,
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    #[arg(long, value_enum, default_value = "simple")]
    mode: LoadProtocol,
    /// Without --dsn: pgbench's scale
    #[arg(long, default_value_t = 1)]
    scale: u32,
    /// Without --dsn: PostgreSQL servers behind pgherd
    #[arg(long, default_value_t = 4)]
    shards: u32,
}

/// Runs the command that the process was started with.
///
/// # Errors
/// One line, and a hint or details on further ones.
pub(crate) fn run() -> Result<(), String> {
    let command = Cli::parse().command;
    interrupt::listen()?;
    match command {
        Command::Compare(args) => compare::run(&CompareOptions {
            rounds: args.rounds,
            seconds: args.seconds,
            scale: args.scale,
            shards: args.shards,
            workloads: args.only,
            protocols: args.modes,
            clients: args.clients,
            tpcb_clients: args.tpcb_clients,
            json: args.json,
            markdown: args.markdown,
            keep_dir: args.keep_dir,
        }),
        Command::Load(args) => load::run(&LoadOptions {
            dsn: args.dsn,
            rate: args.rate,
            clients: args.clients,
            seconds: args.seconds,
            drain_seconds: args.drain_seconds,
            sql: args.sql,
            keys: args.keys,
            protocol: args.mode,
            scale: args.scale,
            shards: args.shards,
        }),
        Command::Idle { clients, shards } => idle::run(clients, shards),
        Command::SameServers(args) => same_servers::run(&SameServersOptions {
            rounds: args.rounds,
            seconds: args.seconds,
            scale: args.scale,
            shards: args.shards,
            workload: args.workload,
            clients: args.clients,
            protocols: args.modes,
        }),
        Command::Lookup => lookup::run(),
        Command::Scatter { rows, rounds, shards } => {
            scatter::run(&ScatterOptions { rows, rounds, shards })
        }
        Command::Transfers { clients, seconds, rounds, accounts, shards } => {
            transfers::run(&TransfersOptions { clients, seconds, rounds, accounts, shards })
        }
        Command::Copy { megabytes, rounds, shards } => {
            copy::run(&CopyOptions { megabytes, rounds, shards })
        }
        Command::Consistency { rows, clients, seconds, rounds, shards } => {
            consistency::run(&ConsistencyOptions { rows, clients, seconds, rounds, shards })
        }
        Command::Reshard { scale, rounds, rate, clients, changes } => {
            reshard::run(&ReshardOptions { scale, rounds, rate, clients, changes })
        }
        Command::SlowReader { megabytes, rate, shards } => {
            slow_reader::run(&SlowReaderOptions { megabytes, rate, shards })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let parsed = Cli::try_parse_from([
            "pgherd-bench",
            "compare",
            "--only",
            "select,tpcb-co-located",
            "--clients",
            "1,16",
        ]);
        let Ok(Cli { command: Command::Compare(args) }) = parsed else { panic!("{parsed:?}") };
        assert_eq!(args.only, [Workload::Select, Workload::TpcbCoLocated]);
        assert_eq!((args.clients, args.modes.len()), (vec![1, 16], 3));
    }
}
