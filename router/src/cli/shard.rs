//! `pgherd shard …`: the servers of the cluster.

mod join;

use clap::Subcommand;
use pgherd_shard_map::{Placement, ShardId, store};
use tokio_postgres::Client;

use super::Failure;
use super::catalog::{CatalogArgs, check_server, connect, database_error, parse};
use crate::config::Dsn;
use crate::dial::Dialer;

/// The cluster's shards.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples, with PGHERD_CATALOG=postgres://postgres@db0/app:\n  \
                        pgherd shard add postgres://postgres@db1/app\n  \
                        pgherd shard list\n  \
                        pgherd shard remove 2     after its rows have left: pgherd reshard")]
pub(super) enum ShardCommand {
    /// Add an empty database as a shard.
    ///
    /// It gets the roles, the schema and the rows of reference tables. Rows of distributed tables
    /// stay where they are until `pgherd reshard` moves them.
    #[command(after_help = "Example:\n  pgherd shard add postgres://postgres@db1/app --catalog \
                            postgres://postgres@db0/app")]
    Add {
        /// Its URL, with a superuser.
        #[arg(value_name = "URL")]
        shard: String,
        #[command(flatten)]
        catalog: CatalogArgs,
    },
    /// Take a shard that holds no rows of distributed tables out of the cluster.
    #[command(after_help = "Example:\n  pgherd reshard start --drain 2 --auto\n  \
                            pgherd reshard finish\n  pgherd shard remove 2")]
    Remove {
        /// Its number.
        shard: u32,
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
        ShardCommand::Remove { shard, catalog } => remove(ShardId(shard), &catalog).await,
        ShardCommand::List { catalog, json } => list(&catalog, json).await,
    }
}

async fn add(shard: &str, catalog: &CatalogArgs) -> Result<(), Failure> {
    let dsn = parse("the shard's URL", shard)?;
    let (dialer, home) = (catalog.dialer()?, catalog.dsn()?);
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
    refuse_while_moving(&map)?;
    refuse_twin(&dialer, &home, &map, &client).await?;
    catalog.prepare_shard(&client).await.map_err(|error| error.to_string())?;
    join::copy_schema(&home, &client).await?;
    let at_home = [connect(&dialer, &home).await?, connect(&dialer, &home).await?];
    let added = join::add_with_references(&catalog, &map, &at_home, &client, &address).await;
    let (id, _) = added?;
    println!("{address} is shard {id}");
    if map.groups().len() > 0 {
        println!("It holds no rows yet: pgherd reshard plan --spread shows what could move.");
    }
    Ok(())
}

/// Prepared transactions have one name on a whole server, so it cannot be two shards.
async fn refuse_twin(
    dialer: &Dialer,
    home: &Dsn,
    map: &pgherd_shard_map::ShardMap,
    client: &Client,
) -> Result<(), Failure> {
    let sql = "SELECT system_identifier FROM pg_catalog.pg_control_system()";
    let failed = |error: tokio_postgres::Error| database_error(&error);
    let new: i64 = client.query_one(sql, &[]).await.map_err(failed)?.get(0);
    for known in map.shards() {
        let server = parse("the shard's address", &home.login_for(&known.dsn))?;
        let server = connect(dialer, &server).await?;
        let known_as: i64 = server.query_one(sql, &[]).await.map_err(failed)?.get(0);
        if known_as == new {
            return Err(Failure::new(
                format!("it is on the server of shard {}", known.id),
                "Each shard needs a server of its own.",
            ));
        }
    }
    Ok(())
}

fn refuse_while_moving(map: &pgherd_shard_map::ShardMap) -> Result<(), Failure> {
    if map.moving.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        "rows are being moved",
        "Finish or cancel first: pgherd reshard status tells of it.",
    ))
}

async fn remove(shard: ShardId, args: &CatalogArgs) -> Result<(), Failure> {
    let (dialer, dsn) = (args.dialer()?, args.dsn()?);
    let catalog = args.connect().await?;
    let map = catalog.load().await.map_err(|error| error.to_string())?;
    let Some(known) = map.shard(shard) else {
        let hint = "pgherd shard list shows all.";
        return Err(Failure::new(format!("there is no shard {shard}"), hint));
    };
    if shard == map.home {
        return Err(Failure::new(
            format!("shard {shard} is the home shard"),
            "It keeps the catalog and all tables that nobody distributed.",
        ));
    }
    refuse_while_moving(&map)?;
    let owns = map.groups().any(|group| match &group.placement {
        Placement::Hash(ranges) => ranges.iter().any(|(_, owner)| owner == shard),
        Placement::Range(ranges) => ranges.iter().any(|range| range.shard == shard),
        Placement::List(values) => values.iter().any(|(_, owner)| owner == shard),
    });
    if owns {
        let by_hash = map.groups().any(|group| match &group.placement {
            Placement::Hash(ranges) => ranges.iter().any(|(_, owner)| owner == shard),
            _ => false,
        });
        let hint = match by_hash {
            true => {
                format!("pgherd reshard start --drain {shard} --auto moves them to the others.")
            }
            false => "Tables distributed by range or by list have values there (pgherd.ranges): \
                      undistribute_table, and distribute them anew."
                .to_owned(),
        };
        return Err(Failure::new(format!("shard {shard} holds rows"), hint));
    }
    let server = parse("the shard's address", &dsn.login_for(&known.dsn))?;
    let client = connect(&dialer, &server).await?;
    let prepared = client
        .query_one(
            "SELECT count(*) FROM pg_catalog.pg_prepared_xacts \
             WHERE database = current_database() AND gid LIKE 'pgherd\\_%'",
            &[],
        )
        .await
        .map_err(|error| database_error(&error))?;
    if prepared.get::<_, i64>(0) > 0 {
        return Err(Failure::new(
            format!("shard {shard} has transactions in doubt"),
            "pgherd txn list shows them; routers finish them within seconds.",
        ));
    }
    let epoch = catalog.remove_shard(shard, map.epoch).await.map_err(|error| error.to_string())?;
    // Routers that have not heard of it cannot go on with what it holds.
    store::raise_local_epoch(&client, epoch).await.map_err(|error| error.to_string())?;
    println!("shard {shard} is not a part of the cluster any more; its database is left as it is");
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
