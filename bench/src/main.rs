//! `pgherd-bench`: pgherd beside PgBouncer and plain PostgreSQL, measured in the same run.
//!
//! The machine's state changes from minute to minute, so nothing here trusts an absolute figure:
//! contenders take turns within every round, and the answer is the median of per-round ratios.
//! Everything is synchronous: one run at a time, on threads that wait.

mod case;
mod cli;
mod compare;
mod consistency;
mod contenders;
mod copy;
mod idle;
mod interrupt;
mod key_shards;
mod load;
mod lookup;
mod pgbench;
mod procfs;
mod report;
mod reshard;
mod same_servers;
mod scatter;
mod slow_reader;
mod stats;
mod table;
mod tables;
mod transfers;
mod wire;

use std::process::ExitCode;

/// The allocator that `pgherd` has, since this program is also the router that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // `pgherd-bench serve` is `pgherd serve`: the local cluster starts its router from this very
    // binary, so the router that is measured is always of the same build. So is what removes the
    // cluster's directory if this program is killed.
    if std::env::args_os().nth(1).is_some_and(|word| word == "serve" || word == "dev-guard") {
        return pgherd::cli::run();
    }
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgherd-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
