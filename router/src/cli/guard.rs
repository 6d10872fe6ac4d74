//! `pgherd dev-guard`: what `pgherd dev` leaves behind to clean up if it is killed.

use std::path::PathBuf;

use super::Failure;

/// Wait for the end of the standard input, then stop the servers under a directory.
#[derive(Debug, clap::Args)]
pub(super) struct GuardArgs {
    dir: PathBuf,
    #[arg(long)]
    temporary: bool,
}

pub(super) fn run(args: &GuardArgs) -> Result<(), Failure> {
    Ok(crate::dev::guard(&args.dir, args.temporary)?)
}
