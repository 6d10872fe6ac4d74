//! `pgherd shard …`: the servers of the cluster.

use clap::Subcommand;
use tokio_postgres::Client;

use super::Failure;
use super::catalog::{CatalogArgs, check_server, connect, database_error, parse};

/// The cluster's shards.
#[derive(Debug, Subcommand)]
pub(super) enum ShardCommand {
    /// Add an empty database as a shard.
    #[command(after_help = "Example:\n  pgherd shard add postgres://postgres@db1/app --catalog \
                            postgres://postgres@db0/app")]
    Add {
        /// Its URL, with a superuser.
        #[arg(value_name = "URL")]
        shard: String,
        #[command(flatten)]
        catalog: CatalogArgs,
    },
    /// List the shards.
    #[command(after_help = "Example:\n  pgherd shard list --catalog postgres://postgres@db0/app")]
    List {
        #[command(flatten)]
        catalog: CatalogArgs,
        /// Print one JSON array.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(command: ShardCommand) -> Result<(), Failure> {
    match command {
        ShardCommand::Add { shard, catalog } => add(&shard, &catalog).await,
        ShardCommand::List { catalog, json } => list(&catalog, json).await,
    }
}

async fn add(shard: &str, catalog: &CatalogArgs) -> Result<(), Failure> {
    let dsn = parse("the shard's URL", shard)?;
    let dialer = catalog.dialer()?;
    let catalog = catalog.connect().await?;
    let client = connect(&dialer, &dsn).await?;
    check_server(&client).await?;
    let map = catalog.load().await.map_err(|error| error.to_string())?;
    let address = dsn.address();
    if map.shards().any(|known| *known.dsn == *address) {
        return Err(Failure::new(
            format!("{address} is a shard already"),
            "pgherd shard list shows all.",
        ));
    }
    if count_tables(&client).await? > 0 {
        return Err(Failure::new(
            format!("{address} holds tables"),
            "A shard is added empty: take another database.",
        ));
    }
    if map.relations().next().is_some() {
        return Err(Failure::new(
            "a shard can only be added while the cluster has no tables",
            "Add all shards first; moving tables to a new shard comes with resharding.",
        ));
    }
    catalog.prepare_shard(&client).await.map_err(|error| error.to_string())?;
    let (id, _) =
        catalog.add_shard(&address, map.epoch).await.map_err(|error| error.to_string())?;
    println!("{address} is shard {id}");
    Ok(())
}

async fn count_tables(client: &Client) -> Result<i64, Failure> {
    let row = client
        .query_one(
            "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
             ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
             AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd')",
            &[],
        )
        .await
        .map_err(|error| database_error(&error))?;
    Ok(row.get(0))
}

async fn list(catalog: &CatalogArgs, json: bool) -> Result<(), Failure> {
    let map = catalog.connect().await?.load().await.map_err(|error| error.to_string())?;
    if json {
        let shards: Vec<_> = map
            .shards()
            .map(|shard| {
                let home = shard.id == map.home;
                serde_json::json!({ "id": shard.id.0, "dsn": shard.dsn, "home": home })
            })
            .collect();
        println!("{}", serde_json::Value::Array(shards));
        return Ok(());
    }
    for shard in map.shards() {
        let home = if shard.id == map.home { "  home" } else { "" };
        println!("{}  {}{home}", shard.id, shard.dsn);
    }
    Ok(())
}
