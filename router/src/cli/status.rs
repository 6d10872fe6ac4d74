//! `pgherd status`: the cluster at a glance, gathered from the catalog and from every shard.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_shard_map::{Placement, RelationKind, ShardMap, TableKind};
use serde::Serialize;

use super::Failure;
use super::catalog::{CatalogArgs, database_error, dial_error};
use crate::dial::Dialer;

/// A shard that does not answer for so long counts as unreachable.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The cluster at a glance.
///
/// Epoch, shards (reachable or not, role, version, connections, oldest prepared transaction),
/// tables and colocation groups.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgherd status --catalog postgres://postgres@db0/app --json")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Status {
    epoch: u64,
    shards: Vec<ShardStatus>,
    groups: Vec<GroupStatus>,
    tables: Vec<TableStatus>,
}

#[derive(Debug, Serialize)]
struct ShardStatus {
    id: u32,
    dsn: String,
    home: bool,
    reachable: bool,
    /// Why it is not reachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(flatten)]
    server: Option<ServerStatus>,
}

#[derive(Debug, Serialize)]
struct ServerStatus {
    /// `primary` or `standby`.
    role: &'static str,
    version: String,
    /// Client connections to its database, this one left out.
    connections: i64,
    connections_max: i32,
    prepared_transactions: i64,
    /// Age of the oldest prepared transaction.
    oldest_prepared_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct GroupStatus {
    id: u32,
    key_type: String,
    distribution: &'static str,
    /// Ranges by shard.
    ranges: BTreeMap<u32, usize>,
    tables: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TableStatus {
    name: String,
    /// `distributed`, `reference` or `home`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<u32>,
}

pub(super) async fn run(args: StatusArgs) -> Result<(), Failure> {
    let login = args.catalog.dsn()?;
    let map = args.catalog.connect().await?.load().await.map_err(|error| error.to_string())?;
    let dialer = args.catalog.dialer()?;
    let asked = map.shards().map(|shard| async {
        let url = login.login_for(&shard.dsn);
        let answer = tokio::time::timeout(ANSWER_WAIT, ask(&dialer, &url)).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer".to_owned()));
        let (server, problem) = match answer {
            Ok(server) => (Some(server), None),
            Err(problem) => (None, Some(problem)),
        };
        ShardStatus {
            id: shard.id.0,
            dsn: shard.dsn.to_string(),
            home: shard.id == map.home,
            reachable: server.is_some(),
            problem,
            server,
        }
    });
    let shards = futures_util::future::join_all(asked).await;
    let tables = tables(&map);
    let status = Status { epoch: map.epoch.0, shards, groups: groups(&map, &tables), tables };
    if args.json {
        let text = serde_json::to_string_pretty(&status).map_err(|error| error.to_string())?;
        println!("{text}");
    } else {
        print!("{}", for_people(&status));
    }
    Ok(())
}

/// Shards are known without a user: we log in as the catalog's.
async fn ask(dialer: &Dialer, url: &str) -> Result<ServerStatus, String> {
    let problem = |error: tokio_postgres::Error| database_error(&error).problem;
    let client = dialer.client(url).await.map_err(|error| dial_error(&error).problem)?;
    let row = client
        .query_one(
            "SELECT pg_catalog.pg_is_in_recovery(), current_setting('server_version'), \
             (SELECT count(*) FROM pg_catalog.pg_stat_activity \
               WHERE datname = current_database() AND backend_type = 'client backend' \
               AND pid <> pg_catalog.pg_backend_pid()), \
             current_setting('max_connections')::int, \
             (SELECT count(*) FROM pg_catalog.pg_prepared_xacts \
               WHERE database = current_database()), \
             (SELECT extract(epoch FROM pg_catalog.clock_timestamp() - min(prepared))::float8 \
               FROM pg_catalog.pg_prepared_xacts WHERE database = current_database())",
            &[],
        )
        .await
        .map_err(problem)?;
    Ok(ServerStatus {
        role: if row.get(0) { "standby" } else { "primary" },
        version: row.get(1),
        connections: row.get(2),
        connections_max: row.get(3),
        prepared_transactions: row.get(4),
        oldest_prepared_seconds: row.get(5),
    })
}

fn tables(map: &ShardMap) -> Vec<TableStatus> {
    let mut found: Vec<TableStatus> = map
        .relations()
        .filter_map(|(name, kind)| {
            let name = name.to_string();
            match kind {
                RelationKind::Sharded(table) => Some(match table.kind {
                    TableKind::Distributed { group, .. } => TableStatus {
                        name,
                        kind: "distributed",
                        key: table.key_column().map(|column| column.name.to_string()),
                        group: Some(group.0),
                    },
                    TableKind::Reference => {
                        TableStatus { name, kind: "reference", key: None, group: None }
                    }
                }),
                RelationKind::Home => {
                    Some(TableStatus { name, kind: "home", key: None, group: None })
                }
                _ => None,
            }
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn groups(map: &ShardMap, tables: &[TableStatus]) -> Vec<GroupStatus> {
    map.groups()
        .map(|group| {
            let mut ranges: BTreeMap<u32, usize> = BTreeMap::new();
            let mut count = |shard: pgherd_shard_map::ShardId| {
                *ranges.entry(shard.0).or_default() += 1;
            };
            let distribution = match &group.placement {
                Placement::Hash(hash) => {
                    hash.iter().for_each(|(_, shard)| count(shard));
                    "hash"
                }
                Placement::Range(values) => {
                    values.iter().for_each(|range| count(range.shard));
                    "range"
                }
                Placement::List(values) => {
                    values.iter().for_each(|(_, shard)| count(shard));
                    "list"
                }
            };
            let own = tables.iter().filter(|table| table.group == Some(group.id.0));
            GroupStatus {
                id: group.id.0,
                key_type: format!("{:?}", group.key_type).to_lowercase(),
                distribution,
                ranges,
                tables: own.map(|table| table.name.clone()).collect(),
            }
        })
        .collect()
}

fn for_people(status: &Status) -> String {
    let mut text = format!("epoch {}\n", status.epoch);
    for shard in &status.shards {
        text += &format!("shard {}  {}", shard.id, shard.dsn);
        text += if shard.home { "  home" } else { "" };
        match (&shard.server, &shard.problem) {
            (Some(server), _) => {
                text += &format!(
                    "  {}  PostgreSQL {}  {} of {} connections",
                    server.role, server.version, server.connections, server.connections_max
                );
                if let Some(age) = server.oldest_prepared_seconds {
                    text += &format!(
                        "  {} prepared, the oldest for {age:.0} s",
                        server.prepared_transactions
                    );
                }
            }
            (None, problem) => {
                text += &format!("  UNREACHABLE: {}", problem.as_deref().unwrap_or("no answer"));
            }
        }
        text.push('\n');
    }
    for group in &status.groups {
        let ranges = group.ranges.iter().map(|(shard, count)| format!("{count} on {shard}"));
        text += &format!(
            "group {}  {} of {}  ranges: {}\n",
            group.id,
            group.distribution,
            group.key_type,
            ranges.collect::<Vec<_>>().join(", ")
        );
    }
    for table in &status.tables {
        text += &match (&table.key, table.group) {
            (Some(key), Some(group)) => {
                format!("table {}  distributed by {key}, group {group}\n", table.name)
            }
            _ => format!("table {}  {}\n", table.name, table.kind),
        };
    }
    text
}
