//! `pgherd check`: what is not as it should be, found by looking only.
//!
//! Every shard that answers is asked at the same time, in sessions that cannot write. `server` judges
//! each by itself, `schema` compares them with the home shard, `map` looks at the catalog, `rows` at
//! where rows are, if that is wanted; `report` is what comes out.

mod kept;
mod map;
mod report;
mod rows;
mod schema;
mod server;
mod settings;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pgherd_shard_map::store::{Catalog, StoreError};
use pgherd_shard_map::{Epoch, ShardId, ShardMap};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::Failure;
use super::catalog::{CatalogArgs, database_error, dial_error};
use crate::dial::Dialer;
use report::{Finding, Part, Report, Severity, ShardLook};
use schema::Schema;
use server::{Expected, Server};

/// A shard that does not answer for so long counts as unreachable.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// What describing a whole schema may take.
const SCHEMA_WAIT: Duration = Duration::from_secs(120);

/// How often the schema is described, if it is changed meanwhile.
const SCHEMA_LOOKS: u32 = 3;

/// Nothing is written or waited for; values and definitions read the same from every server.
const SESSION_SQL: &str = "SET default_transaction_read_only = on; SET search_path = pg_catalog; \
    SET DateStyle = 'ISO, MDY'; SET IntervalStyle = postgres; SET TimeZone = 'UTC'; \
    SET bytea_output = hex; SET extra_float_digits = 1; SET lc_monetary = 'C'; \
    SET quote_all_identifiers = off; SET jit = off; SET lock_timeout = '5s'; \
    SET statement_timeout = '110s'; SET application_name = 'pgherd check'";

/// Look for what is not as it should be: schema drift, misplaced rows, settings of shards.
///
/// Compares every shard with the home shard: roles, tables, functions and all else that the schema
/// has, and the settings that answers depend on. Tells of servers that cannot do what a shard must,
/// and of what is left from something that went wrong. Changes nothing.
///
/// Exits with 0 if no errors are found, with 1 if there are some, with 2 if it could not look.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pgherd check --catalog postgres://postgres@db0/app\n  \
    pgherd check --rows                         also every row: is it on the shard of its key?\n  \
    pgherd check --table orders --table users   the rows of these tables only\n  \
    pgherd check --json | jq '.findings[] | select(.severity == \"error\")'")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// Read all tables on all shards: misplaced rows, and reference tables that differ.
    #[arg(long)]
    rows: bool,
    /// Read this table only, as --rows does; can be given several times.
    #[arg(long, value_name = "NAME")]
    table: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A shard that answered.
struct Answer {
    id: ShardId,
    client: Client,
    server: Server,
}

/// `true`: there are no errors.
pub(super) async fn run(args: CheckArgs) -> Result<bool, Failure> {
    let catalog = args.catalog.connect().await?;
    let report = match catalog.load().await {
        Ok(map) => look(&args, &catalog, &map).await?,
        Err(StoreError::Map(error)) => {
            Report::new(None, Vec::new(), (0, 0), vec![map::unusable(&error)])
        }
        Err(error) => return Err(error.to_string().into()),
    };
    if args.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        println!("{text}");
    } else {
        print!("{report}");
    }
    Ok(!report.has_errors())
}

/// What the process ends with.
pub(super) fn exit(result: Result<bool, Failure>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            failure.tell();
            ExitCode::from(2)
        }
    }
}

async fn look(args: &CheckArgs, catalog: &Catalog, map: &ShardMap) -> Result<Report, Failure> {
    let (login, dialer) = (args.catalog.dsn()?, Arc::new(args.catalog.dialer()?));
    let run = catalog.reshard().await.map_err(|error| error.to_string())?;
    let asked = map.shards().map(|shard| {
        let (url, dialer) = (login.login_for(&shard.dsn), Arc::clone(&dialer));
        async move {
            let answer = timeout(ANSWER_WAIT, ask(&dialer, &url)).await;
            (shard, answer.unwrap_or_else(|_| Err("it does not answer in time".to_owned())))
        }
    });
    let mut found = Vec::new();
    let (mut shards, mut answers) = (Vec::new(), Vec::new());
    for (shard, answer) in join_all(asked).await {
        let dsn = shard.dsn.to_string();
        shards.push(ShardLook { id: shard.id, dsn, reachable: answer.is_ok() });
        match answer {
            Ok((client, server)) => answers.push(Answer { id: shard.id, client, server }),
            Err(problem) => found.push(silent(shard.id, &shard.dsn, &problem)),
        }
    }
    // The others are compared with the home shard, or without it with the first that answers.
    answers.sort_by_key(|answer| (answer.id != map.home, answer.id));
    let moving = run.as_ref().is_some_and(map::is_under_way);
    let epoch = catalog.epoch().await.map_err(|error| error.to_string())?;
    let expected = Expected { home: map.home, epoch, moving };
    let mut servers: Vec<_> = answers.iter().map(|answer| (answer.id, &answer.server)).collect();
    servers.sort_by_key(|(shard, _)| *shard);
    found.extend(server::judge(&expected, &servers));
    found.extend(map::judge(map, run.as_ref()));
    let unfinished = catalog.unfinished().await.map_err(|error| error.to_string())?;
    found.extend(unfinished.iter().map(map::unfinished));
    let (objects, drift) = compare(catalog, &answers, epoch).await?;
    found.extend(drift);
    let mut looked_at = 0;
    if let Some(first) = answers.first()
        && (args.rows || !args.table.is_empty())
    {
        for answer in &answers {
            // It may take as long as it takes; one that is lost tells so with its first table.
            let _ = answer.client.batch_execute("SET statement_timeout = 0").await;
        }
        let tables = rows::tables(&first.client, &args.table).await?;
        let sessions: Vec<_> = answers.iter().map(|answer| (answer.id, &answer.client)).collect();
        found.extend(rows::look(map, run.as_ref(), &tables, &sessions).await);
        looked_at = tables.len();
    }
    Ok(Report::new(Some(map.epoch.0), shards, (objects, looked_at), found))
}

/// Shards are known without a user: we log in as the catalog's.
async fn ask(dialer: &Dialer, url: &str) -> Result<(Client, Server), String> {
    let client = dialer.client(url).await.map_err(|error| dial_error(&error).problem)?;
    client.batch_execute(SESSION_SQL).await.map_err(|error| database_error(&error).problem)?;
    let server = Server::read(&client).await.map_err(|error| error.to_string())?;
    Ok((client, server))
}

fn silent(shard: ShardId, dsn: &str, problem: &str) -> Finding {
    Finding::new(
        Severity::Error,
        Part::Server,
        &[shard],
        format!("shard {shard} at {dsn} cannot be asked: {problem}"),
        "Statements that need it fail; the others go on. Start it, or give the catalog its new \
         address (docs/runbooks/shard-down.md), then check again.",
    )
}

/// Describes and compares the schemas; once more if they were changed while they were described,
/// since a change reaches the shards at different moments.
async fn compare(
    catalog: &Catalog,
    answers: &[Answer],
    mut epoch: Epoch,
) -> Result<(usize, Vec<Finding>), Failure> {
    let mut looks = 1;
    loop {
        let (objects, found) = compare_once(answers).await;
        let now = catalog.epoch().await.map_err(|error| error.to_string())?;
        if now == epoch || found.is_empty() || looks == SCHEMA_LOOKS {
            return Ok((objects, found));
        }
        (epoch, looks) = (now, looks + 1);
    }
}

async fn compare_once(answers: &[Answer]) -> (usize, Vec<Finding>) {
    let described = answers.iter().map(|answer| async {
        let schema = timeout(SCHEMA_WAIT, Schema::read(&answer.client)).await;
        let problem = |error| database_error(&error).problem;
        let late = |_| Err("it does not answer in time".to_owned());
        (answer.id, schema.map_or_else(late, |schema| schema.map_err(problem)))
    });
    let mut found = Vec::new();
    let mut schemas = Vec::new();
    for (shard, schema) in join_all(described).await {
        match schema {
            Ok(schema) => schemas.push((shard, schema)),
            Err(problem) => {
                let text = format!("the schema of shard {shard} cannot be read: {problem}");
                let hint = "Check again when whoever changes or locks its tables has ended.";
                found.push(Finding::new(Severity::Error, Part::Schema, &[shard], text, hint));
            }
        }
    }
    let Some(((home, own), others)) = schemas.split_first() else { return (0, found) };
    let others: Vec<_> = others.iter().map(|(shard, schema)| (*shard, schema)).collect();
    found.extend(schema::drift((*home, own), &others));
    (own.len(), found)
}
