//! `pgherd txn …`: transactions over several shards between the phases of their commit.

use std::collections::HashMap;
use std::sync::Arc;

use clap::{Subcommand, ValueEnum};
use pgherd_shard_map::ShardId;
use tokio_postgres::Client;

use super::Failure;
use super::catalog::{CatalogArgs, database_error};
use crate::recovery::{self, InDoubt};
use crate::two_phase::{End, Gid};

/// In-doubt transactions over several shards.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples, with PGHERD_CATALOG=postgres://postgres@db0/app:\n  \
                        pgherd txn list\n  \
                        pgherd txn resolve pgherd_app_0_r1_0193…")]
pub(super) enum TxnCommand {
    /// List what is prepared on the shards, and what the deciding shards say of it.
    #[command(after_help = "Example:\n  pgherd txn list --catalog postgres://postgres@db0/app")]
    List {
        #[command(flatten)]
        catalog: CatalogArgs,
        /// Print one JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Finish one transaction now, as its deciding shard says.
    #[command(after_help = "Example:\n  pgherd txn resolve pgherd_app_0_r1_0193… --catalog \
                            postgres://postgres@db0/app")]
    Resolve {
        gid: String,
        #[command(flatten)]
        catalog: CatalogArgs,
        /// The deciding shard is lost for good: do this instead of asking it.
        #[arg(long, value_name = "END")]
        force: Option<Force>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Force {
    Commit,
    Rollback,
}

type Clients = HashMap<ShardId, Arc<Client>>;

pub(super) async fn run(command: TxnCommand) -> Result<(), Failure> {
    match command {
        TxnCommand::List { catalog, json } => list(&catalog, json).await,
        TxnCommand::Resolve { gid, catalog, force } => resolve(&gid, &catalog, force).await,
    }
}

/// The shards that answer; the others are named on standard error.
async fn connect(catalog: &CatalogArgs) -> Result<Clients, Failure> {
    let (login, dialer) = (catalog.dsn()?, catalog.dialer()?);
    let map = catalog.connect().await?.load().await.map_err(|error| error.to_string())?;
    let shards: Vec<_> =
        map.shards().map(|shard| (shard.id, login.login_for(&shard.dsn))).collect();
    let (clients, silent) = recovery::connect_all(&dialer, &shards).await;
    for (shard, error) in silent {
        eprintln!("shard {shard} cannot be asked: {error}");
    }
    Ok(clients)
}

async fn list(catalog: &CatalogArgs, json: bool) -> Result<(), Failure> {
    let (lines, _) = recovery::in_doubt(&connect(catalog).await?).await;
    if json {
        let text = serde_json::to_string_pretty(&lines).map_err(|error| error.to_string())?;
        println!("{text}");
        return Ok(());
    }
    for line in &lines {
        println!(
            "{}  shard {}  decided by shard {}  {}  prepared for {:.0} s by {}",
            line.gid, line.shard, line.decider, line.state, line.age_seconds, line.owner
        );
    }
    Ok(())
}

async fn resolve(gid: &str, catalog: &CatalogArgs, force: Option<Force>) -> Result<(), Failure> {
    let parsed = Gid::parse(gid).and_then(|gid| Some((gid.decider()?, gid)));
    let (decider, gid) = parsed.ok_or_else(|| {
        Failure::new(format!("{gid} is not a gid of pgherd"), "pgherd txn list shows them.")
    })?;
    let clients = connect(catalog).await?;
    let (lines, _) = recovery::in_doubt(&clients).await;
    let lines: Vec<&InDoubt> = lines.iter().filter(|line| line.gid == gid.as_str()).collect();
    let asked = clients.get(&decider);
    if force.is_none() && asked.is_none() {
        return Err(Failure::new(
            format!("shard {decider}, which decides it, cannot be asked"),
            "Bring it up: recovery does the rest. If its data is lost for good, look for a marker \
             in pgherd.tx on the other shards, and use --force.",
        ));
    }
    if force.is_some() && asked.is_some() {
        return Err(Failure::new(
            format!("shard {decider}, which decides it, can be asked"),
            "Leave --force out.",
        ));
    }
    if lines.is_empty() {
        println!("{gid} is prepared on no shard that answers");
    }
    for line in lines {
        let shard = ShardId(line.shard);
        let Some(client) = clients.get(&shard) else { continue };
        let done = match force {
            None => told(recovery::attend(shard, client, asked.map(|one| &**one), &gid).await),
            Some(force) => {
                let done =
                    if force == Force::Commit { "COMMIT PREPARED" } else { "ROLLBACK PREPARED" };
                let sql = format!("{done} '{gid}'");
                client.batch_execute(&sql).await.map_err(|error| database_error(&error))?;
                done
            }
        };
        println!("shard {shard}: {done}");
    }
    Ok(())
}

fn told(end: End) -> &'static str {
    match end {
        End::Committed => "committed",
        End::RolledBack => "rolled back",
        End::ByAnother => "finished by somebody else meanwhile",
        End::Undecided => "its router is still deciding; ask again",
        End::Left => "it could not be finished now",
        End::Lost => "committed, but its data is lost on this shard: see the runbook",
    }
}
