//! `pgherd cluster …`: the catalog.

use clap::Subcommand;
use pgherd_shard_map::store;

use super::Failure;
use super::catalog::{CatalogArgs, check_server, connect};

/// The cluster's catalog.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  pgherd cluster init --catalog postgres://postgres@db0/app")]
pub(super) enum ClusterCommand {
    /// Make a database the catalog and the home shard, number 0.
    #[command(after_help = "Example:\n  pgherd cluster init --catalog postgres://postgres@db0/app")]
    Init(CatalogArgs),
}

pub(super) async fn run(command: ClusterCommand) -> Result<(), Failure> {
    let ClusterCommand::Init(at) = command;
    let dsn = at.dsn()?;
    let client = connect(&at.dialer()?, &dsn).await?;
    check_server(&client).await?;
    store::init_catalog(&client, "main", &dsn.address()).await.map_err(|e| e.to_string())?;
    println!("{} is the catalog and the home shard, number 0", dsn.address());
    Ok(())
}
