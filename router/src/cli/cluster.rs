//! `pgherd cluster …`: the catalog.

use clap::Subcommand;
use pgherd_shard_map::{ShardId, store};

use super::Failure;
use super::catalog::{CatalogArgs, check_server, connect, parse};

const HOME: ShardId = ShardId(0);

/// The cluster's catalog.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  pgherd cluster init --catalog postgres://postgres@db0/app")]
pub(super) enum ClusterCommand {
    /// Make a database the catalog and the home shard, number 0.
    ///
    /// A catalog of an older version is brought up to date, with its shards, and keeps what it holds.
    #[command(after_help = "Example:\n  pgherd cluster init --catalog postgres://postgres@db0/app")]
    Init(CatalogArgs),
}

pub(super) async fn run(command: ClusterCommand) -> Result<(), Failure> {
    let ClusterCommand::Init(at) = command;
    let dsn = at.dsn()?;
    let client = connect(&at.dialer()?, &dsn).await?;
    check_server(&client).await?;
    // One that is there keeps its name: it may be of an older version.
    let known = store::read_local(&client).await.map_err(|e| e.to_string())?;
    let name = match &known {
        Some(local) if local.shard == HOME => &*local.cluster,
        _ => "main",
    };
    store::init_catalog(&client, name, &dsn.address()).await.map_err(|e| e.to_string())?;
    let catalog = at.connect().await?.load().await.map_err(|e| e.to_string())?;
    for shard in catalog.shards().filter(|shard| shard.id != HOME) {
        let url = parse("the shard's address", &dsn.login_for(&shard.dsn))?;
        let client = connect(&at.dialer()?, &url).await?;
        store::init_shard(&client, name, shard.id).await.map_err(|e| e.to_string())?;
    }
    println!("{} is the catalog and the home shard, number 0", dsn.address());
    Ok(())
}
