//! Rows of reference tables: the same on all shards.
//!
//! Writes go on meanwhile, and reach the shards at different moments. So rows are compared by
//! buckets, several times if need be: a bucket that was once equal is right, one that differs is
//! wrong if neither side has changed for a while. A row stays in its bucket if that goes by the
//! primary key; without one, only a table that is equal as a whole is right.

use std::collections::{BTreeMap, BTreeSet};
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

/// What was seen of both sides, the home shard's first.
struct Seen {
    sums: (Sums, Sums),
    /// Buckets that have never been equal.
    open: BTreeSet<i64>,
}

/// How a reference table's rows are read.
struct Rows<'a> {
    table: &'a str,
    row: String,
    bucket: String,
    /// Whether a row that is changed stays in its bucket.
    stays: bool,
}

pub(super) async fn look(root: &Root, table: &Table, sessions: &Sessions<'_>) -> Vec<Finding> {
    let Some(((home, own), others)) = sessions.split_first() else { return Vec::new() };
    let rows = match Rows::of(root, table, own).await {
        Ok(rows) => rows,
        Err(error) => return not_looked_at(*home, root, &error).into_iter().collect(),
    };
    let mut found = Vec::new();
    let mut suspects: Vec<(ShardId, &Client, Option<Seen>)> =
        others.iter().map(|(shard, client)| (*shard, *client, None)).collect();
    for turn in 0..LOOKS {
        if turn > 0 {
            tokio::time::sleep(REST).await;
        }
        let looks = suspects.iter().map(|(_, client, _)| rows.sums(client));
        let (mine, theirs) = futures_util::join!(rows.sums(own), join_all(looks));
        let mine = match mine {
            Ok(mine) => mine,
            Err(error) => {
                found.extend(not_looked_at(*home, root, &error));
                return found;
            }
        };
        let mut still = Vec::new();
        for ((shard, client, before), theirs) in suspects.into_iter().zip(theirs) {
            let theirs = match theirs {
                Ok(theirs) => theirs,
                Err(error) => {
                    found.extend(not_looked_at(shard, root, &error));
                    continue;
                }
            };
            let (now, wrong) = compare(before, (mine.clone(), theirs), rows.stays);
            if !wrong.is_empty() {
                let sides = ((*home, *own), (shard, client));
                found.push(differs(root, &rows, &now.sums, &wrong, sides).await);
            } else if !now.open.is_empty() {
                still.push((shard, client, Some(now)));
            }
        }
        suspects = still;
        if suspects.is_empty() {
            return found;
        }
    }
    for (shard, ..) in suspects {
        let text = format!("rows on shard {shard} could not be compared: they change all the time");
        let hint = "Look again when it is written less.";
        found.push(finding(Severity::Warning, shard, root, text, hint));
    }
    found
}

/// The buckets that are open after this look, and those of them that are wrong.
fn compare(before: Option<Seen>, sums: (Sums, Sums), stays: bool) -> (Seen, Vec<i64>) {
    let mut open: BTreeSet<i64> = sums.0.keys().chain(sums.1.keys()).copied().collect();
    open.retain(|bucket| sums.0.get(bucket) != sums.1.get(bucket));
    let Some(before) = before else { return (Seen { sums, open }, Vec::new()) };
    if stays {
        open.retain(|bucket| before.open.contains(bucket));
    }
    let same = |bucket: &&i64| {
        let at = |(mine, theirs): &(Sums, Sums)| {
            (mine.get(*bucket).cloned(), theirs.get(*bucket).cloned())
        };
        at(&sums) == at(&before.sums)
    };
    let wrong = open.iter().filter(same).copied().collect();
    (Seen { sums, open }, wrong)
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
    let read = futures_util::try_join!(rows.some(own, wrong), rows.some(other, wrong));
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

impl<'a> Rows<'a> {
    async fn of(root: &'a Root, table: &Table, home: &Client) -> Result<Self, Error> {
        let sql = "SELECT coalesce(array_agg(quote_ident(a.attname) ORDER BY a.attname), '{}') \
            FROM pg_index i JOIN pg_attribute a \
                ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) \
            WHERE i.indisprimary AND i.indrelid = $1::text::regclass";
        let key: Vec<String> = home.query_one(sql, &[&root.shown]).await?.try_get(0)?;
        // By name: the order of columns may differ.
        let mut columns: Vec<String> =
            table.columns.iter().map(|column| escape_identifier(&column.name)).collect();
        columns.sort();
        let row = |columns: &[String]| format!("ROW({})::text", columns.join(", "));
        let identity = row(if key.is_empty() { &columns } else { &key });
        Ok(Self {
            table: &root.shown,
            row: row(&columns),
            bucket: format!("hashtextextended({identity}, 0) & {}", BUCKETS - 1),
            stays: !key.is_empty(),
        })
    }

    async fn sums(&self, client: &Client) -> Result<Sums, Error> {
        let Self { table, row, bucket, .. } = self;
        let sql = format!(
            "SELECT {bucket}, count(*), sum(hashtextextended({row}, 0)::numeric)::text \
             FROM {table} GROUP BY 1"
        );
        let rows = client.query(&sql, &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
    }

    /// The rows of some buckets.
    async fn some(&self, client: &Client, buckets: &[i64]) -> Result<Vec<String>, Error> {
        let Self { table, row, bucket, .. } = self;
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
    fn a_bucket_that_differs_and_stays_so_is_wrong() {
        let home = sums(&[(1, 2, "a"), (2, 1, "b")]);
        let lacks = sums(&[(1, 2, "a")]);
        for stays in [true, false] {
            let (first, wrong) = compare(None, (home.clone(), lacks.clone()), stays);
            assert!(wrong.is_empty());
            assert_eq!(compare(Some(first), (home.clone(), lacks.clone()), stays).1, [2]);
        }
    }

    #[test]
    fn a_bucket_that_was_equal_once_is_right_where_rows_stay_in_theirs() {
        let old = sums(&[(1, 2, "a"), (2, 1, "b")]);
        let late = sums(&[(1, 1, "x"), (2, 1, "b")]);
        // The first bucket has come to be equal, and now the second one is behind.
        let new = sums(&[(1, 2, "a"), (2, 1, "c")]);
        for (stays, open) in [(true, 0), (false, 1)] {
            let (first, _) = compare(None, (old.clone(), late.clone()), stays);
            let (second, wrong) = compare(Some(first), (new.clone(), old.clone()), stays);
            assert!(wrong.is_empty());
            assert_eq!(second.open.len(), open);
        }
    }

    #[test]
    fn rows_are_told_apart_also_where_one_stands_twice() {
        let list = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>();
        let (these, those) = (list(&["a", "b", "b", "c"]), list(&["b", "c", "d"]));
        assert_eq!(apart(&these, &those), ["a", "b"]);
        assert_eq!(apart(&those, &these), ["d"]);
    }
}
