//! sqlx: typed round trips, a pool, transactions, streams, COPY, LISTEN, its advisory lock.

use std::time::Duration;

use futures_util::TryStreamExt;
use serde_json::{Value, json};
use sqlx::postgres::{PgListener, PgPoolOptions, PgRow};
use sqlx::types::Decimal;
use sqlx::types::time::{Date, OffsetDateTime, PrimitiveDateTime, Time};
use sqlx::{Connection, Executor, PgConnection, Row};
use uuid::Uuid;

use crate::{Outcome, report};

#[derive(sqlx::Type, Debug, Clone, Copy)]
#[sqlx(type_name = "mood", rename_all = "lowercase")]
enum Mood {
    Sad,
    Ok,
    Happy,
}

macro_rules! part {
    ($dsn:expr, $name:expr, $run:path) => {
        println!("== sqlx {}", $name);
        report($run($dsn).await);
    };
}

pub async fn run(dsn: &str) {
    part!(dsn, "types", types);
    part!(dsn, "simple protocol", simple);
    part!(dsn, "transactions", transactions);
    part!(dsn, "savepoints", savepoints);
    part!(dsn, "stream", stream);
    part!(dsn, "pool", pool);
    part!(dsn, "copy", copy);
    part!(dsn, "notify", notify);
    part!(dsn, "errors", errors);
    part!(dsn, "migration lock", migration_lock);
    part!(dsn, "after ddl", after_ddl);
}

fn date() -> Date {
    Date::from_calendar_date(2024, time::Month::February, 29).expect("a leap day")
}

async fn insert(db: &mut PgConnection, n: i64, mood: Mood) -> Result<u64, sqlx::Error> {
    let at = PrimitiveDateTime::new(date(), Time::from_hms(1, 2, 3).expect("a time"));
    let done = sqlx::query(
        "INSERT INTO items (id,kind,i2,i4,f4,f8,n,t,vc,b,by,d,tm,ts,tz,u,j,jb,ia,ta,m)
         VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21)",
    )
    .bind(n)
    .bind((n % 3 + 1) as i32)
    .bind(n as i16)
    .bind(-n as i32)
    .bind(0.5_f32)
    .bind(0.25_f64)
    .bind(Decimal::new(150_000, 5))
    .bind(format!("text {n} ä"))
    .bind("vc")
    .bind(true)
    .bind(vec![0_u8, 255])
    .bind(date())
    .bind(Time::from_hms(12, 34, 56).expect("a time"))
    .bind(at)
    .bind(at.assume_utc())
    .bind(Uuid::from_u128(n as u128))
    .bind(json!({"a": 1}))
    .bind(json!({"b": [1, null]}))
    .bind(vec![1_i32, 2])
    .bind(vec!["a b", "c"])
    .bind(mood)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

fn show(row: &PgRow) -> Result<(), sqlx::Error> {
    println!(
        "{} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        row.try_get::<i64, _>("id")?,
        row.try_get::<Option<Decimal>, _>("n")?,
        row.try_get::<Option<OffsetDateTime>, _>("tz")?,
        row.try_get::<Option<Uuid>, _>("u")?,
        row.try_get::<Option<Value>, _>("jb")?,
        row.try_get::<Option<Vec<i32>>, _>("ia")?,
        row.try_get::<Option<Vec<String>>, _>("ta")?,
        row.try_get::<Option<Mood>, _>("m")?,
    );
    Ok(())
}

async fn types(dsn: &str) -> Outcome {
    let mut db = PgConnection::connect(dsn).await?;
    for (n, mood) in [(1, Mood::Sad), (2, Mood::Ok), (3, Mood::Happy), (4, Mood::Sad)] {
        println!("{}", insert(&mut db, n, mood).await?);
    }
    for n in 1..5_i64 {
        show(&sqlx::query("SELECT * FROM items WHERE id = $1").bind(n).fetch_one(&mut db).await?)?;
    }
    for row in sqlx::query("SELECT * FROM items ORDER BY id").fetch_all(&mut db).await? {
        show(&row)?;
    }
    let moods: Vec<(i64, Mood)> =
        sqlx::query_as("SELECT id, m FROM items WHERE m = ANY($1) ORDER BY id")
            .bind(vec![Mood::Sad, Mood::Happy])
            .fetch_all(&mut db)
            .await?;
    println!("{moods:?}");
    let sums: (i64, Decimal, String) =
        sqlx::query_as("SELECT count(*), sum(n), max(t) FROM items").fetch_one(&mut db).await?;
    println!("{sums:?}");
    db.close().await?;
    Ok(())
}

async fn simple(dsn: &str) -> Outcome {
    let mut db = PgConnection::connect(dsn).await?;
    let rows = db.fetch_all("SELECT id, t, m::text FROM items ORDER BY id DESC").await?;
    for row in rows {
        println!("{} {}", row.try_get::<i64, _>(0)?, row.try_get::<String, _>(1)?);
    }
    let done = db.execute("UPDATE items SET i4 = 1 WHERE id = 1; UPDATE items SET i4 = 2").await?;
    println!("{}", done.rows_affected());
    Ok(())
}

async fn transactions(dsn: &str) -> Outcome {
    let mut db = PgConnection::connect(dsn).await?;
    let mut transaction = db.begin().await?;
    for n in 100..120 {
        insert(&mut transaction, n, Mood::Ok).await?;
    }
    transaction.commit().await?;
    let mut transaction = db.begin().await?;
    sqlx::query("DELETE FROM items").execute(&mut *transaction).await?;
    transaction.rollback().await?;
    // One that is dropped is rolled back before the next statement.
    let mut dropped = db.begin().await?;
    sqlx::query("DELETE FROM items WHERE id = 100").execute(&mut *dropped).await?;
    drop(dropped);
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM items").fetch_one(&mut db).await?;
    println!("{count}");
    Ok(())
}

async fn savepoints(dsn: &str) -> Outcome {
    let mut db = PgConnection::connect(dsn).await?;
    let mut outer = db.begin().await?;
    insert(&mut outer, 200, Mood::Ok).await?;
    let mut inner = outer.begin().await?;
    insert(&mut inner, 201, Mood::Ok).await?;
    println!("{:?}", insert(&mut inner, 201, Mood::Ok).await.is_err());
    inner.rollback().await?;
    insert(&mut outer, 202, Mood::Ok).await?;
    outer.commit().await?;
    let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM items WHERE id >= 200 ORDER BY 1")
        .fetch_all(&mut db)
        .await?;
    println!("{ids:?}");
    Ok(())
}

async fn stream(dsn: &str) -> Outcome {
    let mut db = PgConnection::connect(dsn).await?;
    let mut rows = sqlx::query("SELECT id FROM items ORDER BY id").fetch(&mut db);
    while let Some(row) = rows.try_next().await? {
        print!("{} ", row.try_get::<i64, _>(0)?);
    }
    println!();
    drop(rows);
    // The rest of a stream that is given up is read away.
    let mut rows = sqlx::query("SELECT id FROM items WHERE i4 < $1").bind(5).fetch(&mut db);
    println!("{}", rows.try_next().await?.is_some());
    drop(rows);
    println!("{:?}", sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(&mut db).await?);
    Ok(())
}

async fn pool(dsn: &str) -> Outcome {
    let pool = PgPoolOptions::new().max_connections(4).connect(dsn).await?;
    let tasks = (0..20_i64).map(|n| {
        let pool = pool.clone();
        async move {
            sqlx::query_scalar::<_, i64>("SELECT count(*) FROM items WHERE id = $1")
                .bind(n)
                .fetch_one(&pool)
                .await
        }
    });
    println!("{:?}", futures_util::future::try_join_all(tasks).await?);
    pool.close().await;
    Ok(())
}

async fn copy(dsn: &str) -> Outcome {
    let mut db = PgConnection::connect(dsn).await?;
    let mut copy = db.copy_in_raw("COPY items (id, t) FROM STDIN WITH (FORMAT csv)").await?;
    copy.send((300..340).map(|n| format!("{n},t{n}\n")).collect::<String>().into_bytes()).await?;
    println!("{}", copy.finish().await?);
    let copy = db.copy_in_raw("COPY items (id, t) FROM STDIN").await?;
    println!("{:?}", copy.abort("no more").await);
    let out = db.copy_out_raw("COPY (SELECT id, t FROM items WHERE id = 300) TO STDOUT").await?;
    println!(
        "{:?}",
        out.try_fold(Vec::new(), |mut all, part| async move {
            all.extend_from_slice(&part);
            Ok(all)
        })
        .await?
    );
    Ok(())
}

async fn notify(dsn: &str) -> Outcome {
    let mut listener = PgListener::connect(dsn).await?;
    listener.listen("rust_news").await?;
    let mut db = PgConnection::connect(dsn).await?;
    sqlx::query("SELECT pg_notify('rust_news', $1)").bind("hello").execute(&mut db).await?;
    let news = tokio::time::timeout(Duration::from_secs(20), listener.recv()).await??;
    println!("{} {}", news.channel(), news.payload());
    Ok(())
}

async fn errors(dsn: &str) -> Outcome {
    let mut db = PgConnection::connect(dsn).await?;
    for sql in [
        "INSERT INTO items (id) VALUES (1)",
        "INSERT INTO items (id, kind) VALUES (999, 99)",
        "INSERT INTO items (id, i2) VALUES (998, 2000)",
        "SELECT 1/0 FROM items",
        "SELECT nothing FROM items",
        "SELEC 1",
    ] {
        report(sqlx::query(sql).execute(&mut db).await.map(|_| ()).map_err(Into::into));
    }
    Ok(())
}

/// What `sqlx migrate` does around its work.
async fn migration_lock(dsn: &str) -> Outcome {
    let mut db = PgConnection::connect(dsn).await?;
    sqlx::query("SELECT pg_advisory_lock($1)").bind(77_i64).execute(&mut db).await?;
    let mut other = PgConnection::connect(dsn).await?;
    let free: bool =
        sqlx::query_scalar("SELECT pg_try_advisory_lock(77)").fetch_one(&mut other).await?;
    println!("{free}");
    let done: bool =
        sqlx::query_scalar("SELECT pg_advisory_unlock($1)").bind(77_i64).fetch_one(&mut db).await?;
    let free: bool =
        sqlx::query_scalar("SELECT pg_try_advisory_lock(77)").fetch_one(&mut other).await?;
    println!("{done} {free}");
    Ok(())
}

/// A statement that sqlx has prepared meets a table that has changed.
async fn after_ddl(dsn: &str) -> Outcome {
    let mut db = PgConnection::connect(dsn).await?;
    for _ in 0..2 {
        let row = sqlx::query("SELECT id FROM items WHERE id = $1").bind(1_i64);
        println!("{}", row.fetch_one(&mut db).await?.try_get::<i64, _>(0)?);
        db.execute("ALTER TABLE items ADD COLUMN IF NOT EXISTS rust_added int DEFAULT 5").await?;
    }
    db.execute("ALTER TABLE items DROP COLUMN rust_added").await?;
    Ok(())
}
