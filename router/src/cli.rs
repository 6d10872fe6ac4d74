//! The command line. Every command has an example in its help, and fails with one line and a hint.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pgherd_shard_map::store;

use crate::config::{Config, LogFormat};
use crate::dev::{DevOptions, LocalCluster, without_user};

#[derive(Debug, Parser)]
#[command(name = "pgherd", version, about = "Many PostgreSQL servers behave as one")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a local cluster with its router, in the foreground.
    #[command(after_help = "Example:\n  pgherd dev --shards 4 --data-dir ./data")]
    Dev(DevArgs),
    /// Serve clients.
    #[command(after_help = "Example:\n  pgherd serve --config pgherd.toml")]
    Serve {
        #[arg(long)]
        config: PathBuf,
    },
    /// The cluster's catalog.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// The cluster's shards.
    #[command(subcommand)]
    Shard(ShardCommand),
    /// The cluster at a glance.
    #[command(after_help = "Example:\n  pgherd status --catalog postgres://postgres@db0/app")]
    Status(CatalogArg),
}

#[derive(Debug, clap::Args)]
struct CatalogArg {
    /// The catalog's address: a database URL of a superuser.
    #[arg(long, env = "PGHERD_CATALOG")]
    catalog: String,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Make a database the catalog and the home shard.
    #[command(after_help = "Example:\n  pgherd cluster init --catalog postgres://postgres@db0/app")]
    Init(CatalogArg),
}

#[derive(Debug, Subcommand)]
enum ShardCommand {
    /// Add an empty database as a shard.
    #[command(
        after_help = "Example:\n  pgherd shard add postgres://postgres@db1/app --catalog postgres://postgres@db0/app"
    )]
    Add {
        /// A database URL of a superuser.
        dsn: String,
        #[command(flatten)]
        catalog: CatalogArg,
    },
    /// List the shards.
    #[command(after_help = "Example:\n  pgherd shard list --catalog postgres://postgres@db0/app")]
    List(CatalogArg),
}

#[derive(Debug, clap::Args)]
struct DevArgs {
    #[arg(long, default_value_t = 4)]
    shards: u32,
    #[arg(long, default_value = "127.0.0.1:6432")]
    listen: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:6433")]
    http: SocketAddr,
    /// Keep the data here; without it the data is gone at the end.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    #[arg(long, default_value = "app")]
    database: String,
    /// Router n listens 2 ports above router n - 1.
    #[arg(long, default_value_t = 1)]
    routers: u16,
    #[arg(long, allow_hyphen_values = true)]
    initdb_args: Option<String>,
    /// A setting for every server; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pg_conf: Vec<String>,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Dev(args) => dev(args),
        Command::Serve { config } => serve(&config),
        Command::Cluster(ClusterCommand::Init(at)) => block_on(cluster_init(&at.catalog)),
        Command::Shard(ShardCommand::Add { dsn, catalog }) => {
            block_on(shard_add(&dsn, &catalog.catalog))
        }
        Command::Shard(ShardCommand::List(at)) | Command::Status(at) => {
            block_on(status(&at.catalog))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgherd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?
        .block_on(work)
}

fn serve(path: &std::path::Path) -> Result<(), String> {
    let config = Config::load(path).map_err(|error| error.to_string())?;
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.level)
        .map_err(|error| format!("[log] level: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.init(),
    }
    crate::serve::run(config)
}

fn dev(args: DevArgs) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let mut cluster = LocalCluster::start(&DevOptions {
        shards: args.shards,
        listen: args.listen,
        http: args.http,
        data_dir: args.data_dir,
        database: args.database,
        routers: args.routers,
        initdb_args: args.initdb_args,
        pg_conf: args.pg_conf,
        program: None,
    })?;
    let router = &cluster.file.routers[0];
    println!("pgherd: {} shards, {} router(s)", args.shards, cluster.file.routers.len());
    println!("  data     {}", cluster.file.data_dir.display());
    println!("  metrics  http://{}/metrics", router.http);
    println!("  psql     psql {}", router.dsn);
    println!("ready {}", cluster.dsn());
    runtime.block_on(crate::serve::stop_signal());
    cluster.stop();
    Ok(())
}

async fn connect(dsn: &str) -> Result<tokio_postgres::Client, String> {
    let (client, connection) =
        tokio_postgres::connect(dsn, tokio_postgres::NoTls).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("cannot connect: {}", cause.unwrap_or_else(|| error.to_string()))
        })?;
    tokio::spawn(connection);
    Ok(client)
}

async fn cluster_init(dsn: &str) -> Result<(), String> {
    let client = connect(dsn).await?;
    check_server(&client).await?;
    store::init_catalog(&client, "main", &without_user(dsn)).await.map_err(|e| e.to_string())?;
    println!("catalog ready; this database is the home shard, number 0");
    Ok(())
}

async fn shard_add(dsn: &str, catalog: &str) -> Result<(), String> {
    let client = connect(dsn).await?;
    check_server(&client).await?;
    let tables: i64 = client
        .query_one(
            "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
             ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
             AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd')",
            &[],
        )
        .await
        .map_err(|error| error.to_string())?
        .get(0);
    let catalog = store::Catalog::connect(catalog).await.map_err(|error| error.to_string())?;
    let map = catalog.load().await.map_err(|error| error.to_string())?;
    let own = map.relations().next().is_some();
    if tables > 0 || own {
        return Err("a shard can only be added while the cluster has no tables\nAdd all shards \
                    first; moving tables to a new shard comes with resharding."
            .to_owned());
    }
    catalog.prepare_shard(&client).await.map_err(|error| error.to_string())?;
    let (id, _) = catalog
        .add_shard(&without_user(dsn), map.epoch)
        .await
        .map_err(|error| error.to_string())?;
    catalog.announce().await.map_err(|error| error.to_string())?;
    println!("shard {id} added");
    Ok(())
}

/// Settings without which a shard cannot work.
async fn check_server(client: &tokio_postgres::Client) -> Result<(), String> {
    let row = client
        .query_one(
            "SELECT current_setting('max_prepared_transactions')::int, \
             current_setting('server_version_num')::int",
            &[],
        )
        .await
        .map_err(|error| error.to_string())?;
    let (prepared, version): (i32, i32) = (row.get(0), row.get(1));
    if version < 150_000 {
        return Err("a shard needs PostgreSQL 15 or newer".to_owned());
    }
    if prepared == 0 {
        return Err("max_prepared_transactions is 0, so nothing can be committed over several \
                    shards\nSet it to max_connections in postgresql.conf and restart the server."
            .to_owned());
    }
    Ok(())
}

async fn status(catalog: &str) -> Result<(), String> {
    let catalog = store::Catalog::connect(catalog).await.map_err(|error| error.to_string())?;
    let map = catalog.load().await.map_err(|error| error.to_string())?;
    println!("epoch {}", map.epoch);
    for shard in map.shards() {
        let home = if shard.id == map.home { "  home" } else { "" };
        println!("shard {}  {}{home}", shard.id, shard.dsn);
    }
    let mut tables: Vec<String> = map
        .relations()
        .filter_map(|(name, kind)| match kind {
            pgherd_shard_map::RelationKind::Sharded(table) => Some(match table.key_column() {
                Some(column) => format!("table {name}  distributed by {}", column.name),
                None => format!("table {name}  reference"),
            }),
            _ => None,
        })
        .collect();
    tables.sort();
    for table in tables {
        println!("{table}");
    }
    Ok(())
}
