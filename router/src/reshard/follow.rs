//! The target's side of a stream: the subscription, its progress, and beats that tell what has
//! arrived.

use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use serde::Serialize;
use tokio_postgres::{Client, Statement};

use super::Problem;
use super::publish::{exists, make_beats};
use super::stream::Stream;

/// How often it is looked whether a beat has arrived, at least.
const BEAT_LOOK: Duration = Duration::from_millis(4);

/// Whether the subscription first takes the rows that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    Copy,
    /// Both sides have them: the slot is of the moment when they changed roles.
    There,
}

/// How far one table is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TableProgress {
    pub(super) table: String,
    /// `waiting`, `copying`, `following`.
    pub(super) state: &'static str,
    /// Rows copied so far, while it is being copied, and about how many there are.
    pub(super) rows: i64,
    pub(super) expected: u64,
    pub(super) bytes: i64,
}

/// Makes the subscription, if it is not there.
pub(super) async fn subscribe(
    target: &Client,
    source_url: &str,
    stream: &Stream,
    rows: Rows,
) -> Result<(), Problem> {
    make_beats(target, stream).await?;
    let name = &stream.name;
    if exists(target, "pg_subscription WHERE subname", name).await? {
        return Ok(());
    }
    if rows == Rows::Copy {
        refuse_strays(target, stream).await?;
    }
    let sql = format!(
        "CREATE SUBSCRIPTION {name} CONNECTION {} PUBLICATION {name} WITH (create_slot = false, \
         slot_name = {name}, copy_data = {}, synchronous_commit = off)",
        escape_literal(source_url),
        rows == Rows::Copy
    );
    Ok(target.batch_execute(&sql).await?)
}

/// Lets rows flow, or not, if there is a subscription. What is being copied begins anew.
pub(super) async fn hold(target: &Client, stream: &Stream, paused: bool) -> Result<(), Problem> {
    let name = &stream.name;
    if exists(target, "pg_subscription WHERE subname", name).await? {
        let word = if paused { "DISABLE" } else { "ENABLE" };
        target.batch_execute(&format!("ALTER SUBSCRIPTION {name} {word}")).await?;
    }
    Ok(())
}

/// Rows of the ranges that are there already are nobody's copies.
async fn refuse_strays(target: &Client, stream: &Stream) -> Result<(), Problem> {
    for table in &stream.tables {
        let name = table.quoted();
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {name} WHERE {})", table.predicate("")?);
        if target.query_one(&sql, &[]).await?.get::<_, bool>(0) {
            return Err(Problem::new(
                format!("shard {} holds rows of table {name} that are not its own", stream.target),
                "They are misplaced, and no router reads them. Look at them, and delete them.",
            ));
        }
    }
    Ok(())
}

/// Ends the subscription, and with it the slots that it has on the source.
pub(super) async fn unsubscribe(
    source: &Client,
    target: &Client,
    stream: &Stream,
) -> Result<(), Problem> {
    let name = &stream.name;
    if exists(target, "pg_subscription WHERE subname", name).await? {
        target.batch_execute(&format!("ALTER SUBSCRIPTION {name} DISABLE")).await?;
        if !exists(source, "pg_replication_slots WHERE slot_name", name).await? {
            let sql = format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)");
            target.batch_execute(&sql).await?;
        }
        target.batch_execute(&format!("DROP SUBSCRIPTION {name}")).await?;
    }
    let sql = format!("DROP TABLE IF EXISTS {}", stream.beats());
    Ok(target.batch_execute(&sql).await?)
}

/// How many rows have been copied in a second since a look before, and how long the rest takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    started: Instant,
    rows: u64,
}

impl Pace {
    /// Rows that are there, and about how many there will be.
    pub(super) fn rows<'a>(tables: impl Iterator<Item = &'a TableProgress>) -> (u64, u64) {
        tables.fold((0, 0), |(rows, all), table| {
            let there = if table.state == "following" { table.expected } else { table.rows as u64 };
            (rows + there, all + table.expected)
        })
    }

    pub(super) fn new(rows: u64) -> Self {
        Self { started: Instant::now(), rows }
    }

    /// Nothing where nothing has been copied yet.
    pub(super) fn rate(&self, (rows, all): (u64, u64)) -> Option<Rate> {
        let copied = rows.saturating_sub(self.rows);
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = copied as f64 / seconds;
        (copied > 0 && seconds > 0.0).then(|| Rate {
            rows_per_second: rate as u64,
            seconds_left: all.saturating_sub(rows) as f64 / rate,
        })
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Rate {
    rows_per_second: u64,
    seconds_left: f64,
}

/// How far each table is.
pub(super) async fn progress(
    target: &Client,
    stream: &Stream,
    expected: &[u64],
) -> Result<Vec<TableProgress>, Problem> {
    let sql = "SELECT n.nspname || '.' || c.relname, r.srsubstate::text, \
        coalesce(p.tuples_processed, 0), coalesce(p.bytes_processed, 0) \
        FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid \
        JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
        LEFT JOIN pg_stat_progress_copy p ON p.relid = r.srrelid \
            AND p.datname = current_database() \
        WHERE s.subname = $1::text::name AND n.nspname <> 'pgherd' ORDER BY 1";
    let rows = target.query(sql, &[&stream.name]).await?;
    let rows_of = |name: &str| {
        let place = stream.tables.iter().zip(expected);
        let mut found = place.filter(|(table, _)| {
            name.strip_prefix(&*table.table.schema).and_then(|rest| rest.strip_prefix('.'))
                == Some(&*table.table.name)
        });
        found.next().map_or(0, |(_, rows)| *rows)
    };
    let tables = rows.iter().map(|row| TableProgress {
        table: row.get(0),
        expected: rows_of(row.get(0)),
        state: match row.get::<_, &str>(1) {
            "i" => "waiting",
            "d" | "f" => "copying",
            _ => "following",
        },
        rows: row.get(2),
        bytes: row.get(3),
    });
    Ok(tables.collect())
}

/// Bytes of the source's log that the target has not confirmed; `None` where there is no slot.
pub(super) async fn lag(source: &Client, stream: &Stream) -> Result<Option<i64>, Problem> {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::int8 \
               FROM pg_replication_slots WHERE slot_name = $1::text::name";
    let row = source.query_opt(sql, &[&stream.name]).await?;
    Ok(row.and_then(|row| row.get(0)))
}

/// Writes a beat on the source and waits for it on the target: what was committed before it has
/// arrived as well. How long it took.
pub(super) async fn beat(
    source: &Client,
    target: &Client,
    stream: &Stream,
    wait: Duration,
) -> Result<Duration, Problem> {
    let started = Instant::now();
    let beat = Beat::prepare(source, target, stream).await?;
    source.batch_execute(&beat.write_sql()).await?;
    beat.arrives(target, wait).await?;
    let took = started.elapsed();
    beat.forget_older(source).await?;
    Ok(took)
}

/// A beat that is ready to be written, so that it takes no more than needed where others wait.
pub(super) struct Beat<'a> {
    stream: &'a Stream,
    number: i64,
    look: Statement,
}

impl<'a> Beat<'a> {
    /// The next one. Nobody else writes any.
    pub(super) async fn prepare(
        source: &Client,
        target: &Client,
        stream: &'a Stream,
    ) -> Result<Self, Problem> {
        let beats = stream.beats();
        let sql = format!("SELECT coalesce(max(beat), 0) + 1 FROM {beats}");
        let number = source.query_one(&sql, &[]).await?.get(0);
        let look = format!("SELECT EXISTS (SELECT 1 FROM {beats} WHERE beat >= $1)");
        Ok(Self { stream, number, look: target.prepare(&look).await? })
    }

    pub(super) fn write_sql(&self) -> String {
        format!("INSERT INTO {} VALUES ({})", self.stream.beats(), self.number)
    }

    /// Waits for it on the target.
    pub(super) async fn arrives(&self, target: &Client, wait: Duration) -> Result<(), Problem> {
        let Self { stream, number, look } = self;
        let started = Instant::now();
        let mut pause = Duration::from_millis(1);
        while !target.query_one(look, &[number]).await?.get::<_, bool>(0) {
            if started.elapsed() >= wait {
                return Err(Problem::new(
                    format!(
                        "shard {} has not followed shard {} within {} ms",
                        stream.target,
                        stream.source,
                        started.elapsed().as_millis()
                    ),
                    format!(
                        "Its log says why, if it cannot; pg_stat_subscription on it shows {}.",
                        stream.name
                    ),
                ));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BEAT_LOOK);
        }
        Ok(())
    }

    pub(super) async fn forget_older(&self, source: &Client) -> Result<(), Problem> {
        let sql = format!("DELETE FROM {} WHERE beat < $1", self.stream.beats());
        source.execute(&sql, &[&self.number]).await?;
        Ok(())
    }
}
