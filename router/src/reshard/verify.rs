//! Compares every moving row of both sides while they are written.
//!
//! Rows fall into buckets by the low bits of their key's hash; a bucket's count and sum of row
//! hashes are compared. Buckets that differ are looked at row by row, and rows that differ once
//! more, locked on the source, after a beat has told that all which was committed has arrived: what
//! differs then is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::TryStreamExt;
use postgres_protocol::escape::escape_identifier;
use serde::Serialize;
use tokio_postgres::Client;

use super::stream::{Stream, StreamTable};
use super::{Problem, follow, size};

/// Rows in a bucket, about; and the most buckets.
const BUCKET_ROWS: f32 = 256.0;
const BUCKET_BITS_MAX: u32 = 17;

/// Rows that are looked at one by one, at most; with more, the table as a whole is wrong.
const SUSPECTS_MAX: usize = 100_000;

/// Wrong rows that are named.
const NAMED_MAX: usize = 20;

/// How long the target may take to follow, and how often rows that are locked by others are tried.
const FOLLOW_WAIT: Duration = Duration::from_secs(30);
const LOCK_TRIES: u32 = 20;

/// How often rows that differ are looked at again.
const ROUNDS: u32 = 4;

/// What a verification has found in one table.
#[derive(Debug, Clone, Serialize)]
pub struct TableVerdict {
    pub table: String,
    pub source: u32,
    pub target: u32,
    pub source_rows: i64,
    pub target_rows: i64,
    /// Sums of `hashtextextended(row::text, 0)`, which do not depend on the order; each row as it was
    /// when it was compared.
    pub source_checksum: String,
    pub target_checksum: String,
    /// Rows that were under way, looked at again and found equal.
    pub settled: usize,
    pub wrong: usize,
    /// The first of them.
    pub named: Vec<WrongRow>,
}

#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct WrongRow {
    /// `lost` (not on the target), `added` (not on the source), `changed`.
    pub kind: &'static str,
    /// The primary key as a row, or the whole row.
    pub row: String,
}

/// Of all streams of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verification {
    pub tables: Vec<TableVerdict>,
}

impl Verification {
    #[must_use]
    pub fn wrong(&self) -> usize {
        self.tables.iter().map(|table| table.wrong).sum()
    }

    #[must_use]
    pub fn rows(&self) -> i64 {
        self.tables.iter().map(|table| table.source_rows).sum()
    }

    /// The refusal that wrong rows are, if there are any.
    ///
    /// # Errors
    /// Names the first of them.
    pub fn check(&self) -> Result<(), Problem> {
        let Some(table) = self.tables.iter().find(|table| table.wrong > 0) else { return Ok(()) };
        let named: Vec<String> =
            table.named.iter().take(5).map(|row| format!("{} {}", row.kind, row.row)).collect();
        Err(Problem::new(
            format!(
                "verification failed: {} wrong rows of table {} on shard {}: {}",
                table.wrong,
                table.table,
                table.target,
                named.join(", ")
            ),
            "Nothing has moved. pgherd reshard cancel removes the copies; then start anew.",
        ))
    }
}

/// Count and sum of hashes of one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Sum {
    rows: i64,
    hashes: i128,
}

impl Sum {
    const fn with(self, rows: i64, hashes: i128) -> Self {
        Self { rows: self.rows + rows, hashes: self.hashes.wrapping_add(hashes) }
    }

    fn and(self, rows: &Rows) -> Self {
        let rows = rows.values().flatten();
        rows.fold(self, |all, (hash, times)| {
            let times = i64::try_from(*times).unwrap_or(i64::MAX);
            all.with(times, i128::from(*hash).wrapping_mul(times.into()))
        })
    }
}

/// How one table's rows are told apart.
struct Look<'a> {
    table: &'a StreamTable,
    mask: i64,
    /// SQL: the key's hash, what identifies a row, its hash, and which rows.
    hash: String,
    identity: String,
    row_hash: String,
    predicate: String,
}

/// Compares all tables of a stream. `locker` is one more connection to the source.
///
/// # Errors
/// A shard cannot be asked. Wrong rows are no error here.
pub(super) async fn verify(
    source: &Client,
    locker: &Client,
    target: &Client,
    stream: &Stream,
) -> Result<Vec<TableVerdict>, Problem> {
    let mut verdicts = Vec::new();
    for table in &stream.tables {
        let look = Look::new(source, table).await?;
        verdicts.push(look.compare(source, locker, target, stream).await?);
    }
    Ok(verdicts)
}

impl<'a> Look<'a> {
    async fn new(source: &Client, table: &'a StreamTable) -> Result<Self, Problem> {
        let sql = "SELECT coalesce((SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname) \
            FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 \
            AND NOT attisdropped), '')";
        let columns: String = source.query_one(sql, &[&table.quoted()]).await?.get(0);
        let rows = size::of_table(source, &table.quoted()).await?.rows as f32;
        let bits = ((rows / BUCKET_ROWS).max(1.0).log2().ceil() as u32).clamp(6, BUCKET_BITS_MAX);
        let whole = format!("ROW({columns})::text");
        let names: Vec<String> =
            table.table.identity.iter().map(|name| escape_identifier(name)).collect();
        let identity = match &names[..] {
            [] => whole.clone(),
            names => format!("ROW({})::text", names.join(", ")),
        };
        Ok(Self {
            table,
            mask: (1 << bits) - 1,
            hash: table.hash("")?,
            identity,
            row_hash: format!("hashtextextended({whole}, 0)"),
            predicate: table.predicate("")?,
        })
    }

    async fn compare(
        &self,
        source: &Client,
        locker: &Client,
        target: &Client,
        stream: &Stream,
    ) -> Result<TableVerdict, Problem> {
        let (ours, theirs) = futures_util::try_join!(self.sums(source), self.sums(target))?;
        let buckets: BTreeSet<i64> = ours.keys().chain(theirs.keys()).copied().collect();
        let empty = Sum::default();
        let differ: Vec<i64> = buckets
            .into_iter()
            .filter(|b| ours.get(b).unwrap_or(&empty) != theirs.get(b).unwrap_or(&empty))
            .collect();
        let equal = |sums: &BTreeMap<i64, Sum>| {
            let equal = sums.iter().filter(|(bucket, _)| differ.binary_search(bucket).is_err());
            equal.fold(Sum::default(), |all, (_, sum)| all.with(sum.rows, sum.hashes))
        };
        let (ours, theirs) = (equal(&ours), equal(&theirs));
        if differ.is_empty() {
            return Ok(self.verdict(stream, ours, theirs));
        }
        follow::beat(source, target, stream, FOLLOW_WAIT).await?;
        let (mut mine, mut other) =
            futures_util::try_join!(self.rows(source, &differ), self.rows(target, &differ))?;
        let suspects = differing(&mine, &other);
        // A row may come, go and come again while it is looked at: what is wrong stays so.
        let mut wrong = suspects.clone();
        let rounds = if suspects.len() > SUSPECTS_MAX { 0 } else { ROUNDS };
        for _ in 0..rounds {
            if wrong.is_empty() {
                break;
            }
            let locked = self.lock(locker, &differ, &wrong).await?;
            let arrived = async {
                follow::beat(source, target, stream, FOLLOW_WAIT).await?;
                self.some(target, &differ, &wrong, "").await
            };
            let arrived = arrived.await;
            locker.batch_execute("COMMIT").await?;
            replace(&mut mine, &wrong, locked);
            replace(&mut other, &wrong, arrived?);
            wrong = differing(&mine, &other);
        }
        // Each row counts as it was when it was compared, so both sides have the same sum unless
        // something is wrong.
        let mut verdict = self.verdict(stream, ours.and(&mine), theirs.and(&other));
        verdict.named = name(&wrong, &mine, &other);
        verdict.settled = suspects.len() - wrong.len();
        verdict.wrong = wrong.len();
        Ok(verdict)
    }

    fn verdict(&self, stream: &Stream, ours: Sum, theirs: Sum) -> TableVerdict {
        let checksum = |sum: &Sum| format!("{:032x}", sum.hashes.cast_unsigned());
        TableVerdict {
            table: format!("{}.{}", self.table.table.schema, self.table.table.name),
            source: stream.source.0,
            target: stream.target.0,
            source_rows: ours.rows,
            target_rows: theirs.rows,
            source_checksum: checksum(&ours),
            target_checksum: checksum(&theirs),
            settled: 0,
            wrong: 0,
            named: Vec::new(),
        }
    }

    /// Each bucket's count and sum.
    async fn sums(&self, client: &Client) -> Result<BTreeMap<i64, Sum>, Problem> {
        let Self { mask, hash, row_hash, predicate, .. } = self;
        let sql = format!(
            "SELECT {hash} & {mask}, count(*), sum({row_hash}::numeric)::text FROM {} \
             WHERE {predicate} GROUP BY 1",
            self.table.quoted()
        );
        let rows = client.query_raw(&sql, std::iter::empty::<i64>()).await?;
        let sums = rows.map_ok(|row| {
            let hashes = row.get::<_, &str>(2).parse().unwrap_or_default();
            (row.get(0), Sum { rows: row.get(1), hashes })
        });
        Ok(sums.try_collect().await?)
    }

    /// The rows of some buckets: how often each identity comes with each hash.
    async fn rows(&self, client: &Client, buckets: &[i64]) -> Result<Rows, Problem> {
        let Self { mask, hash, identity, row_hash, predicate, .. } = self;
        let sql = format!(
            "SELECT {identity}, {row_hash} FROM {} WHERE {predicate} AND {hash} & {mask} = ANY ($1)",
            self.table.quoted()
        );
        gather(client.query_raw(&sql, [buckets]).await?).await
    }

    /// Rows by their identity.
    async fn some(
        &self,
        client: &Client,
        buckets: &[i64],
        identities: &[String],
        lock: &str,
    ) -> Result<Rows, Problem> {
        let Self { mask, hash, identity, row_hash, predicate, .. } = self;
        let sql = format!(
            "SELECT {identity}, {row_hash} FROM {} WHERE {predicate} AND {hash} & {mask} = ANY ($1) \
             AND {identity} = ANY ($2) {lock}",
            self.table.quoted()
        );
        let rows = client.query(&sql, &[&buckets, &identities]).await?;
        Ok(count(rows.iter().map(|row| (row.get(0), row.get(1)))))
    }

    /// The same, and nobody changes them until COMMIT.
    async fn lock(
        &self,
        locker: &Client,
        buckets: &[i64],
        identities: &[String],
    ) -> Result<Rows, Problem> {
        let mut tries = 0;
        loop {
            locker.batch_execute("BEGIN; SET LOCAL lock_timeout = '500ms'").await?;
            match self.some(locker, buckets, identities, "FOR SHARE").await {
                Ok(rows) => return Ok(rows),
                Err(problem) => {
                    locker.batch_execute("ROLLBACK").await?;
                    tries += 1;
                    if tries == LOCK_TRIES {
                        return Err(problem);
                    }
                }
            }
        }
    }
}

type Rows = BTreeMap<String, BTreeMap<i64, u64>>;

fn count(rows: impl Iterator<Item = (String, i64)>) -> Rows {
    let mut counted = Rows::new();
    for (identity, hash) in rows {
        *counted.entry(identity).or_default().entry(hash).or_default() += 1;
    }
    counted
}

async fn gather(rows: tokio_postgres::RowStream) -> Result<Rows, Problem> {
    let pairs: Vec<(String, i64)> =
        rows.map_ok(|row| (row.get(0), row.get(1))).try_collect().await?;
    Ok(count(pairs.into_iter()))
}

/// Some identities have been looked at again.
fn replace(rows: &mut Rows, identities: &[String], mut found: Rows) {
    for identity in identities {
        match found.remove(identity) {
            Some(found) => rows.insert(identity.clone(), found),
            None => rows.remove(identity),
        };
    }
}

/// Identities that do not have the same rows on both sides.
fn differing(mine: &Rows, other: &Rows) -> Vec<String> {
    let all: BTreeSet<&String> = mine.keys().chain(other.keys()).collect();
    all.into_iter()
        .filter(|identity| mine.get(*identity) != other.get(*identity))
        .cloned()
        .collect()
}

fn name(wrong: &[String], mine: &Rows, other: &Rows) -> Vec<WrongRow> {
    let kind = |identity: &String| match (mine.contains_key(identity), other.contains_key(identity))
    {
        (true, false) => "lost",
        (false, true) => "added",
        _ => "changed",
    };
    let named = wrong.iter().take(NAMED_MAX);
    named.map(|identity| WrongRow { kind: kind(identity), row: identity.clone() }).collect()
}
