//! Rows of reference tables: the same on all shards.
//!
//! Writes go on meanwhile, and reach the shards at different moments. So rows are compared by
//! buckets, several times if need be: what differs counts only where neither side changes for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use pgherd_shard_map::{ShardId, Table};
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::{Client, Error};

use super::{Root, Sessions, finding, not_looked_at};
use crate::cli::check::report::{Finding, Severity, some};

/// Rows fall into so many buckets by their hash (a power of two).
const BUCKETS: i64 = 1024;

/// How often, and after which time, a table that differs is looked at again.
const LOOKS: u32 = 4;
const REST: Duration = Duration::from_secs(1);

/// Rows that are read to name some.
const READ_MAX: i64 = 10_000;

/// Count and sum of the hashes of a bucket's rows.
type Sums = BTreeMap<i64, (i64, String)>;

/// How a reference table's rows are read.
struct Rows<'a> {
    table: &'a str,
    row: String,
    bucket: String,
}

pub(super) async fn look(root: &Root, table: &Table, sessions: &Sessions<'_>) -> Vec<Finding> {
    let Some(((home, own), others)) = sessions.split_first() else { return Vec::new() };
    // By name: the order of columns may differ.
    let mut columns: Vec<String> =
        table.columns.iter().map(|column| escape_identifier(&column.name)).collect();
    columns.sort();
    let row = format!("ROW({})::text", columns.join(", "));
    let bucket = format!("hashtextextended({row}, 0) & {}", BUCKETS - 1);
    let rows = Rows { table: &root.shown, row, bucket };
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
                found.extend(not_looked_at(*home, root, &error));
                return found;
            }
        };
        let mut still = Vec::new();
        for ((shard, client), theirs) in suspects.into_iter().zip(theirs) {
            match theirs {
                Err(error) => found.extend(not_looked_at(shard, root, &error)),
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
                        found.push(differs(root, &rows, &now, &wrong, sides).await);
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
        found.push(finding(Severity::Warning, shard, root, text, hint));
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
    root: &Root,
    rows: &Rows<'_>,
    (mine, theirs): &(Sums, Sums),
    wrong: &[i64],
    ((home, own), (shard, other)): ((ShardId, &Client), (ShardId, &Client)),
) -> Finding {
    let total = |sums: &Sums| -> i64 { sums.values().map(|(count, _)| *count).sum() };
    let text = format!(
        "rows on shard {shard} are not those on shard {home}, {} to {}",
        total(theirs),
        total(mine)
    );
    let hint = "Each statement reads one shard's copy. Make the shard's rows those of the home \
                shard, on the shard itself; what is written through routers goes to all shards.";
    let finding = finding(Severity::Error, shard, root, text, hint);
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

impl Rows<'_> {
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
        rows.iter().map(|row| row.try_get(0)).collect()
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
