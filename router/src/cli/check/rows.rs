//! Where rows are: those of distributed tables on the shards of their keys, those of reference
//! tables the same on all shards, those of other tables on the home shard only.
//!
//! All of it is read, and nothing is locked. Writes go on meanwhile, and reach the shards at different
//! moments: what differs in a reference table counts only where it stays the same for a while.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use futures_util::future::join_all;
use pgherd_shard_map::store::Record;
use pgherd_shard_map::{
    GroupId, KeyInput, RelationKind, ShardId, ShardMap, Table, TableKind, TableName,
};
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::{Client, Error};

use super::map::is_under_way;
use super::report::{Finding, Part, Severity, counted};
use super::server::some;
use crate::cli::Failure;
use crate::cli::catalog::database_error;

/// Tables that hold rows, by their roots: what is inherited is looked at with its parent.
const TABLES_SQL: &str = "SELECT n.nspname::text, c.relname::text FROM pg_class c \
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd') AND n.nspname !~ '^pg_' \
    AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) \
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass \
        AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1, 2";

/// A reference table's rows fall into so many buckets by their hash (a power of two).
const BUCKETS: i64 = 1024;

/// How often, and after which time, a reference table that differs is looked at again.
const LOOKS: u32 = 4;
const REST: Duration = Duration::from_secs(1);

/// Rows and keys that are named, of those that are read to name them.
const NAMED_MAX: usize = 3;
const READ_MAX: i64 = 10_000;

/// A session on each shard that answers, the home shard's first.
pub(super) type Sessions<'a> = [(ShardId, &'a Client)];

/// The tables to look at: all, or those that are named with or without their schema.
///
/// # Errors
/// The shard cannot be asked; a name that no table has.
pub(super) async fn tables(client: &Client, wanted: &[String]) -> Result<Vec<TableName>, Failure> {
    let rows = client.query(TABLES_SQL, &[]).await.map_err(|error| database_error(&error))?;
    let all: Vec<TableName> =
        rows.iter().map(|row| TableName::new(row.get(0), row.get(1))).collect();
    let fits =
        |table: &TableName, name: &String| *table.name == **name || table.to_string() == *name;
    if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|table| fits(table, name))) {
        return Err(Failure::new(
            format!("there is no table {unknown}"),
            "Name it as it is stored, without quotes, with or without its schema. Rows of a \
             partition are looked at with its table.",
        ));
    }
    let is_wanted =
        |table: &TableName| wanted.is_empty() || wanted.iter().any(|name| fits(table, name));
    Ok(all.into_iter().filter(is_wanted).collect())
}

/// Looks at the rows of these tables on all shards.
pub(super) async fn look(
    map: &ShardMap,
    run: Option<&Record>,
    tables: &[TableName],
    sessions: &Sessions<'_>,
) -> Vec<Finding> {
    let mut progress =
        Progress { done: 0, total: tables.len(), live: std::io::stderr().is_terminal() };
    let mut found = Vec::new();
    for name in tables {
        progress.show(name);
        match map.relation(name) {
            Some(RelationKind::Sharded(table)) => match table.kind {
                TableKind::Distributed { group, .. } => {
                    found.extend(distributed(map, run, table, group, sessions).await);
                }
                TableKind::Reference => found.extend(reference(table, sessions).await),
            },
            Some(RelationKind::Home) => found.extend(home(name, map.home, sessions).await),
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
        let from = format!("FROM {} WHERE {wrong}", quoted(&table.name));
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
                let keys = rows.iter().map(|row| row.get(0)).collect::<Vec<Option<String>>>();
                Ok(Some((count, keys)))
            };
            (*shard, looked.await)
        }
    });
    let mut found = Vec::new();
    for (shard, looked) in join_all(looks).await {
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
                let more = if count as usize > keys.len() { ", …" } else { "" };
                let text = format!(
                    "{} on shard {shard} that {} not belong there, with {} = {}{more}",
                    counted(count as usize, "row"),
                    if count == 1 { "does" } else { "do" },
                    key.name,
                    named.collect::<Vec<_>>().join(", "),
                );
                found.push(finding(Severity::Error, &[shard], &table.name, text, MISPLACED));
            }
            Err(error) => found.extend(not_looked_at(shard, &table.name, &error)),
        }
    }
    found
}

const MISPLACED: &str = "Statements with the key do not see them, others do. Save them on the shard \
    itself (COPY (SELECT … WHERE key IN (…)) TO), delete them there, and insert through a router \
    what the right shard lacks.";

/// Count and sum of the hashes of a bucket's rows.
type Sums = BTreeMap<i64, (i64, String)>;

/// How a reference table's rows are read.
struct Rows {
    table: String,
    row: String,
    bucket: String,
}

async fn reference(table: &Table, sessions: &Sessions<'_>) -> Vec<Finding> {
    let Some(((home, own), others)) = sessions.split_first() else { return Vec::new() };
    // By name: the order of columns may differ.
    let mut columns: Vec<String> =
        table.columns.iter().map(|column| escape_identifier(&column.name)).collect();
    columns.sort();
    let row = format!("ROW({})::text", columns.join(", "));
    let bucket = format!("hashtextextended({row}, 0) & {}", BUCKETS - 1);
    let rows = Rows { table: quoted(&table.name), row, bucket };
    let mut found = Vec::new();
    let mut suspects: Vec<(ShardId, &Client)> = others.to_vec();
    let mut before: BTreeMap<ShardId, (Sums, Sums)> = BTreeMap::new();
    for turn in 0..LOOKS {
        if turn > 0 {
            tokio::time::sleep(REST).await;
        }
        let looks = suspects.iter().map(|(_, client)| rows.sums(client));
        let (mine, theirs) = futures_util::join!(rows.sums(own), join_all(looks));
        let mine = match mine {
            Ok(mine) => mine,
            Err(error) => {
                found.extend(not_looked_at(*home, &table.name, &error));
                return found;
            }
        };
        let mut still = Vec::new();
        for ((shard, client), theirs) in suspects.into_iter().zip(theirs) {
            match theirs {
                Err(error) => found.extend(not_looked_at(shard, &table.name, &error)),
                Ok(theirs) if theirs == mine => {}
                Ok(theirs) => {
                    let now = (mine.clone(), theirs);
                    let wrong =
                        before.get(&shard).map(|old| settled(old, &now)).unwrap_or_default();
                    if wrong.is_empty() {
                        before.insert(shard, now);
                        still.push((shard, client));
                    } else {
                        let sides = ((*home, *own), (shard, client));
                        found.push(differs(table, &rows, &now, &wrong, sides).await);
                    }
                }
            }
        }
        suspects = still;
        if suspects.is_empty() {
            return found;
        }
    }
    for (shard, _) in suspects {
        let text = format!("rows on shard {shard} could not be compared: they change all the time");
        let hint = "Look again when it is written less.";
        found.push(finding(Severity::Warning, &[shard], &table.name, text, hint));
    }
    found
}

/// Buckets that differ between two shards, and have not changed on either since the last look.
fn settled(old: &(Sums, Sums), now: &(Sums, Sums)) -> Vec<i64> {
    let all = now.0.keys().chain(now.1.keys());
    let mut wrong: Vec<i64> = all
        .copied()
        .filter(|bucket| {
            let (mine, theirs) = (now.0.get(bucket), now.1.get(bucket));
            mine != theirs && mine == old.0.get(bucket) && theirs == old.1.get(bucket)
        })
        .collect();
    wrong.sort_unstable();
    wrong.dedup();
    wrong
}

async fn differs(
    table: &Table,
    rows: &Rows,
    (mine, theirs): &(Sums, Sums),
    wrong: &[i64],
    ((home, own), (shard, other)): ((ShardId, &Client), (ShardId, &Client)),
) -> Finding {
    let total = |sums: &Sums| sums.values().map(|(count, _)| *count as usize).sum();
    let text = format!(
        "rows on shard {shard} are not those of shard {home}: {} there, {} here",
        counted(total(theirs), "row"),
        counted(total(mine), "row")
    );
    let hint = "Each statement reads one shard's copy. Make the shard's rows those of the home \
                shard, on the shard itself; what is written through routers goes to all shards.";
    let finding = finding(Severity::Error, &[shard], &table.name, text, hint);
    let read = futures_util::try_join!(rows.of(own, wrong), rows.of(other, wrong));
    // That they differ is known; which they are could not be told any more.
    let Ok((mine, theirs)) = read else { return finding };
    let only = |these: &[String], those: &[String]| match &apart(these, those)[..] {
        [] => "no other rows".to_owned(),
        list => format!("only here: {}", some(list)),
    };
    finding.side(&[home], &only(&mine, &theirs)).side(&[shard], &only(&theirs, &mine))
}

/// What the one list has more often than the other.
fn apart(these: &[String], those: &[String]) -> Vec<String> {
    let mut left: BTreeMap<&str, i64> = BTreeMap::new();
    for row in those {
        *left.entry(row).or_default() += 1;
    }
    let mut more = Vec::new();
    for row in these {
        let count = left.entry(row).or_default();
        *count -= 1;
        if *count < 0 {
            more.push(row.clone());
        }
    }
    more.sort();
    more
}

impl Rows {
    async fn sums(&self, client: &Client) -> Result<Sums, Error> {
        let Self { table, row, bucket } = self;
        let sql = format!(
            "SELECT {bucket}, count(*), sum(hashtextextended({row}, 0)::numeric)::text \
             FROM {table} GROUP BY 1"
        );
        let rows = client.query(&sql, &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
    }

    /// The rows of some buckets.
    async fn of(&self, client: &Client, buckets: &[i64]) -> Result<Vec<String>, Error> {
        let Self { table, row, bucket } = self;
        let sql = format!("SELECT {row} FROM {table} WHERE {bucket} = ANY ($1) LIMIT {READ_MAX}");
        let rows = client.query(&sql, &[&buckets]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// A table that nobody distributed has its rows on the home shard.
async fn home(table: &TableName, home: ShardId, sessions: &Sessions<'_>) -> Vec<Finding> {
    let others = sessions.iter().filter(|(shard, _)| *shard != home);
    let looks = others.map(|(shard, client)| async move {
        let sql = format!("SELECT EXISTS (SELECT FROM {})", quoted(table));
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
                found.push(finding(Severity::Warning, &[shard], table, text, hint));
            }
            Err(error) => found.extend(not_looked_at(shard, table, &error)),
        }
    }
    found
}

fn finding(
    severity: Severity,
    shards: &[ShardId],
    table: &TableName,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Finding {
    Finding::new(severity, Part::Rows, shards, message, hint).about(format!("table {table}"))
}

/// Nothing where the table is missing: that has been told of as a difference of the schema.
fn not_looked_at(shard: ShardId, table: &TableName, error: &Error) -> Option<Finding> {
    if error.code().is_some_and(|code| code.code() == "42P01") {
        return None;
    }
    let problem = database_error(error).problem;
    let text = format!("its rows on shard {shard} could not be looked at: {problem}");
    let hint = format!("Look again: pgherd check --table {table}");
    Some(finding(Severity::Warning, &[shard], table, text, hint))
}

fn quoted(table: &TableName) -> String {
    format!("{}.{}", escape_identifier(&table.schema), escape_identifier(&table.name))
}

/// One line on a terminal, drawn anew for each table.
struct Progress {
    done: usize,
    total: usize,
    live: bool,
}

impl Progress {
    const WIDTH: usize = 24;

    fn show(&self, table: &TableName) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(list: &[(i64, i64, &str)]) -> Sums {
        list.iter().map(|(bucket, count, sum)| (*bucket, (*count, (*sum).to_owned()))).collect()
    }

    #[test]
    fn only_what_differs_and_stays_so_is_wrong() {
        let home = sums(&[(1, 2, "a"), (2, 1, "b")]);
        let late = sums(&[(1, 1, "x"), (2, 1, "b")]);
        assert_eq!(settled(&(home.clone(), late.clone()), &(home.clone(), late.clone())), [1]);
        let caught_up = (sums(&[(1, 3, "c"), (2, 1, "b")]), home.clone());
        assert!(settled(&(home.clone(), late), &caught_up).is_empty());
        let lacks = sums(&[(1, 2, "a")]);
        assert_eq!(settled(&(home.clone(), lacks.clone()), &(home, lacks)), [2]);
    }

    #[test]
    fn rows_are_told_apart_also_where_one_stands_twice() {
        let list = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>();
        let (these, those) = (list(&["a", "b", "b", "c"]), list(&["b", "c", "d"]));
        assert_eq!(apart(&these, &those), ["a", "b"]);
        assert_eq!(apart(&those, &these), ["d"]);
    }
}
