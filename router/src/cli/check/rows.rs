//! Where rows are: those of distributed tables on the shards of their keys, those of reference
//! tables the same on all shards, those of other tables on the home shard only.
//!
//! All of it is read, and nothing is locked.

mod reference;

use std::io::{IsTerminal, Write as _};

use futures_util::future::join_all;
use pgherd_shard_map::store::Record;
use pgherd_shard_map::{
    GroupId, KeyInput, RelationKind, ShardId, ShardMap, Table, TableKind, TableName,
};
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::{Client, Error, Row};

use super::map::is_under_way;
use super::report::{Finding, Part, Severity, counted};
use crate::cli::Failure;
use crate::cli::catalog::database_error;

/// Tables that hold rows, by their roots: what is inherited is looked at with its parent.
const TABLES_SQL: &str = "SELECT n.nspname::text, c.relname::text, \
    format('%I.%I', n.nspname, c.relname) FROM pg_class c \
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd') AND n.nspname !~ '^pg_' \
    AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) \
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass \
        AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1, 2";

/// Keys that are named.
const NAMED_MAX: usize = 3;

/// A session on each shard that answers, the home shard's first.
pub(super) type Sessions<'a> = [(ShardId, &'a Client)];

/// A table to look at.
pub(super) struct Root {
    name: TableName,
    /// As SQL writes it, quoted where it must be.
    shown: String,
}

/// The tables to look at: all, or those that are named with or without their schema.
///
/// # Errors
/// The shard cannot be asked; a name that no table has.
pub(super) async fn tables(client: &Client, wanted: &[String]) -> Result<Vec<Root>, Failure> {
    let rows = client.query(TABLES_SQL, &[]).await.map_err(|error| database_error(&error))?;
    let root = |row: &Row| {
        let name = TableName::new(row.try_get(0)?, row.try_get(1)?);
        Ok(Root { name, shown: row.try_get(2)? })
    };
    let all: Result<Vec<Root>, Error> = rows.iter().map(root).collect();
    let mut all = all.map_err(|error| database_error(&error))?;
    let fits = |table: &Root, name: &String| {
        *table.name.name == **name || table.shown == *name || table.name.to_string() == *name
    };
    if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|table| fits(table, name))) {
        return Err(Failure::new(
            format!("there is no table {unknown}"),
            "Name it as it is stored, with or without its schema. Rows of a partition are looked \
             at with its table.",
        ));
    }
    if !wanted.is_empty() {
        all.retain(|table| wanted.iter().any(|name| fits(table, name)));
    }
    Ok(all)
}

/// Looks at the rows of these tables on all shards.
pub(super) async fn look(
    map: &ShardMap,
    run: Option<&Record>,
    tables: &[Root],
    sessions: &Sessions<'_>,
) -> Vec<Finding> {
    let live = std::io::stderr().is_terminal();
    let mut progress = Progress { done: 0, total: tables.len(), live };
    let mut found = Vec::new();
    for root in tables {
        progress.show(&root.shown);
        match map.relation(&root.name) {
            Some(RelationKind::Sharded(table)) => match table.kind {
                TableKind::Distributed { group, .. } => {
                    found.extend(distributed(map, run, root, table, group, sessions).await);
                }
                TableKind::Reference => found.extend(reference::look(root, table, sessions).await),
            },
            Some(RelationKind::Home) => found.extend(home(root, map.home, sessions).await),
            _ => {}
        }
        progress.done += 1;
    }
    progress.end();
    found
}

async fn distributed(
    map: &ShardMap,
    run: Option<&Record>,
    root: &Root,
    table: &Table,
    group: GroupId,
    sessions: &Sessions<'_>,
) -> Vec<Finding> {
    let (Some(known), Some(key)) = (map.group(group), table.key_column()) else {
        return Vec::new();
    };
    let column = escape_identifier(&key.name);
    let looks = sessions.iter().map(|(shard, client)| {
        let moving = run.filter(|run| is_under_way(run)).into_iter().flat_map(|run| &run.moves);
        // Both sides may have copies until the run is over.
        let copies = moving
            .filter(|part| part.group == group && (part.from == *shard || part.to == *shard))
            .filter_map(|part| known.range_predicate(part.range(), &column));
        let own = known.shard_predicate(*shard, &column);
        let allowed: Vec<String> =
            own.into_iter().chain(copies).map(|part| format!("({part})")).collect();
        let wrong = format!("({}) IS NOT TRUE", allowed.join(" OR "));
        let from = format!("FROM {} WHERE {wrong}", root.shown);
        let column = &column;
        async move {
            let looked = async {
                let sql = format!("SELECT count(*) {from}");
                let count: i64 = client.query_one(&sql, &[]).await?.get(0);
                if count == 0 {
                    return Ok(None);
                }
                let sql = format!("SELECT {column}::text {from} LIMIT {NAMED_MAX}");
                let rows = client.query(&sql, &[]).await?;
                let keys: Result<Vec<Option<String>>, Error> =
                    rows.iter().map(|row| row.try_get(0)).collect();
                Ok(Some((count as usize, keys?)))
            };
            (*shard, wrong, looked.await)
        }
    });
    let mut found = Vec::new();
    for (shard, wrong, looked) in join_all(looks).await {
        match looked {
            Ok(None) => {}
            Ok(Some((count, keys))) => {
                let named = keys.iter().map(|key| match key {
                    None => "NULL".to_owned(),
                    Some(key) => match map.shard_for(group, KeyInput::Text(key.as_bytes())) {
                        Ok(owner) => format!("{key} (of shard {owner})"),
                        Err(_) => format!("{key} (of no shard)"),
                    },
                });
                let more = if count > keys.len() { ", …" } else { "" };
                let text = format!(
                    "{} on shard {shard} that {} not belong there, with {} = {}{more}",
                    counted(count, "row"),
                    if count == 1 { "does" } else { "do" },
                    key.name,
                    named.collect::<Vec<_>>().join(", "),
                );
                let finding = finding(Severity::Error, shard, root, text, MISPLACED);
                found.push(finding.with_condition(&wrong));
            }
            Err(error) => found.extend(not_looked_at(shard, root, &error)),
        }
    }
    found
}

const MISPLACED: &str = "Statements with the key do not see them, others do. Save them on the shard \
    itself (COPY (SELECT … WHERE …) TO; --json has the condition that finds them), delete them there, \
    and insert through a router what the right shard lacks.";

/// A table that nobody distributed has its rows on the home shard.
async fn home(root: &Root, home: ShardId, sessions: &Sessions<'_>) -> Vec<Finding> {
    let others = sessions.iter().filter(|(shard, _)| *shard != home);
    let looks = others.map(|(shard, client)| async move {
        let sql = format!("SELECT EXISTS (SELECT FROM {})", root.shown);
        (*shard, client.query_one(&sql, &[]).await.map(|row| row.get::<_, bool>(0)))
    });
    let mut found = Vec::new();
    for (shard, looked) in join_all(looks).await {
        match looked {
            Ok(false) => {}
            Ok(true) => {
                let text = format!("it is not distributed, but has rows on shard {shard}");
                let hint = "Nobody sees them: such a table's rows are on the home shard. Save what \
                            is missing there, then TRUNCATE the table on the shard itself. Triggers \
                            of distributed tables must not write to it.";
                found.push(finding(Severity::Warning, shard, root, text, hint));
            }
            Err(error) => found.extend(not_looked_at(shard, root, &error)),
        }
    }
    found
}

fn finding(
    severity: Severity,
    shard: ShardId,
    root: &Root,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Finding {
    Finding::new(severity, Part::Rows, &[shard], message, hint)
        .about(format!("table {}", root.shown))
}

/// Nothing where the table is missing: that has been told of as a difference of the schema.
fn not_looked_at(shard: ShardId, root: &Root, error: &Error) -> Option<Finding> {
    if error.code().is_some_and(|code| code.code() == "42P01") {
        return None;
    }
    let problem = database_error(error).problem;
    let text = format!("its rows on shard {shard} could not be looked at: {problem}");
    let hint = format!("Look again: pgherd check --table '{}'", root.shown);
    Some(finding(Severity::Warning, shard, root, text, hint))
}

/// One line on a terminal, drawn anew for each table.
struct Progress {
    done: usize,
    total: usize,
    live: bool,
}

impl Progress {
    const WIDTH: usize = 24;

    fn show(&self, table: &str) {
        if self.live {
            let filled = self.done * Self::WIDTH / self.total.max(1);
            let bar = format!("{}{}", "#".repeat(filled), ".".repeat(Self::WIDTH - filled));
            eprint!("\r\x1b[K[{bar}] {} of {} tables  {table}", self.done, self.total);
            // Nobody may be looking any more.
            let _ = std::io::stderr().flush();
        }
    }

    fn end(&self) {
        if self.live {
            eprint!("\r\x1b[K");
        }
    }
}
