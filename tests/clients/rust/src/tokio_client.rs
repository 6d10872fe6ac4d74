//! tokio-postgres: pipelines, portals with row limits, COPY in binary, cancel, user-defined types.

use std::pin::pin;
use std::time::Duration;

use futures_util::{SinkExt, TryStreamExt, future};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};
use uuid::Uuid;

use crate::{Outcome, report};

macro_rules! part {
    ($dsn:expr, $name:expr, $run:path) => {
        println!("== tokio-postgres {}", $name);
        report($run($dsn).await);
    };
}

pub async fn run(dsn: &str) {
    part!(dsn, "types", types);
    part!(dsn, "simple protocol", simple);
    part!(dsn, "pipeline", pipeline);
    part!(dsn, "pipeline with an error", broken_pipeline);
    part!(dsn, "transactions", transactions);
    part!(dsn, "portals over key", portal_over_key);
    part!(dsn, "portals over shards", portal_over_shards);
    part!(dsn, "copy", copy);
    part!(dsn, "notify", notify);
    part!(dsn, "cancel", cancel);
    part!(dsn, "reconnect", reconnect);
}

async fn connect(dsn: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    // Its errors are the client's, too.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

async fn types(dsn: &str) -> Outcome {
    let client = connect(dsn).await?;
    let statement = client.prepare("SELECT id, u, jb, ia, ta, m FROM items WHERE id = $1").await?;
    let names: Vec<_> = statement.columns().iter().map(|c| (c.name(), c.type_().name())).collect();
    println!("{:?} {names:?}", statement.params());
    for n in 1..5_i64 {
        let row = client.query_one(&statement, &[&n]).await?;
        let uuid: Option<Uuid> = row.try_get(1)?;
        let json: Option<serde_json::Value> = row.try_get(2)?;
        let (ints, texts): (Option<Vec<i32>>, Option<Vec<String>>) =
            (row.try_get(3)?, row.try_get(4)?);
        println!("{} {uuid:?} {json:?} {ints:?} {texts:?}", row.try_get::<_, i64>(0)?);
    }
    let rows = client.query("SELECT count(*), avg(f8) FROM items WHERE i4 < $1", &[&9]).await?;
    println!("{} {:?}", rows[0].get::<_, i64>(0), rows[0].get::<_, Option<f64>>(1));
    let typed = client
        .query_typed(
            "SELECT t FROM items WHERE id = ANY($1) ORDER BY id",
            &[(&vec![1_i64, 3], Type::INT8_ARRAY)],
        )
        .await?;
    println!("{:?}", typed.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>());
    Ok(())
}

async fn simple(dsn: &str) -> Outcome {
    let client = connect(dsn).await?;
    let messages = client
        .simple_query("SELECT id, m FROM items WHERE id = 2; SELECT count(*) FROM items; SELECT 1 WHERE false")
        .await?;
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                println!("{:?}", (0..row.len()).map(|n| row.get(n)).collect::<Vec<_>>())
            }
            SimpleQueryMessage::CommandComplete(count) => println!("{count}"),
            _ => {}
        }
    }
    Ok(())
}

async fn pipeline(dsn: &str) -> Outcome {
    let client = connect(dsn).await?;
    let get = client.prepare("SELECT t FROM items WHERE id = $1").await?;
    let ids: Vec<i64> = (1..9).chain(100..110).collect();
    let (client, get) = (&client, &get);
    // All are sent before the first answer is read.
    let asked = ids.iter().map(async |id| client.query_opt(get, &[id]).await);
    let rows = future::try_join_all(asked).await?;
    println!(
        "{:?}",
        rows.into_iter()
            .map(|row| row.map(|row| row.get::<_, Option<String>>(0)))
            .collect::<Vec<_>>()
    );
    Ok(())
}

async fn broken_pipeline(dsn: &str) -> Outcome {
    let client = connect(dsn).await?;
    let add = client.prepare("INSERT INTO items (id, t) VALUES ($1, $2)").await?;
    let (a, b, c) = (400_i64, 1_i64, 401_i64);
    let text = "pipelined";
    let first: [&(dyn ToSql + Sync); 2] = [&a, &text];
    let second: [&(dyn ToSql + Sync); 2] = [&b, &text];
    let third: [&(dyn ToSql + Sync); 2] = [&c, &text];
    let (first, second, third) = future::join3(
        client.execute(&add, &first),
        client.execute(&add, &second),
        client.execute(&add, &third),
    )
    .await;
    for outcome in [first, second, third] {
        report(outcome.map(|count| println!("{count}")).map_err(Into::into));
    }
    Ok(())
}

async fn transactions(dsn: &str) -> Outcome {
    let mut client = connect(dsn).await?;
    let transaction = client.transaction().await?;
    for n in 500..520_i64 {
        transaction.execute("INSERT INTO items (id, i4) VALUES ($1, 0)", &[&n]).await?;
    }
    transaction.commit().await?;
    let mut transaction = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .start()
        .await?;
    let savepoint = transaction.savepoint("inner").await?;
    println!("{}", savepoint.execute("UPDATE items SET i4 = 7 WHERE id >= 500", &[]).await?);
    savepoint.rollback().await?;
    transaction.commit().await?;
    let row = client.query_one("SELECT count(*), sum(i4) FROM items WHERE id >= 500", &[]).await?;
    println!("{} {:?}", row.get::<_, i64>(0), row.get::<_, Option<i64>>(1));
    Ok(())
}

async fn portal(dsn: &str, sql: &str, value: i64) -> Outcome {
    let mut client = connect(dsn).await?;
    let transaction = client.transaction().await?;
    let portal = transaction.bind(sql, &[&value]).await?;
    loop {
        let rows = transaction.query_portal(&portal, 7).await?;
        println!("{:?}", rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>());
        if rows.len() < 7 {
            break;
        }
    }
    transaction.commit().await?;
    Ok(())
}

async fn portal_over_key(dsn: &str) -> Outcome {
    portal(dsn, "SELECT id + g FROM items, generate_series(1, 20) g WHERE id = $1 ORDER BY 1", 3)
        .await
}

async fn portal_over_shards(dsn: &str) -> Outcome {
    portal(dsn, "SELECT id FROM items WHERE id < $1 ORDER BY id", 120).await
}

async fn copy(dsn: &str) -> Outcome {
    let client = connect(dsn).await?;
    let sink = client.copy_in("COPY items (id, t) FROM STDIN").await?;
    let mut sink = pin!(sink);
    for n in 600..650 {
        sink.send(bytes::Bytes::from(format!("{n}\tcopied {n}\n"))).await?;
    }
    println!("{}", sink.finish().await?);
    let rows = client
        .copy_out("COPY (SELECT id FROM items WHERE id = 610) TO STDOUT (FORMAT binary)")
        .await?;
    let parts: Vec<bytes::Bytes> = rows.try_collect().await?;
    println!("{:?}", parts.concat());
    Ok(())
}

async fn notify(dsn: &str) -> Outcome {
    let (client, mut connection) = tokio_postgres::connect(dsn, NoTls).await?;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(news) = message {
                let _ = tell.send((news.channel().to_owned(), news.payload().to_owned()));
            }
        }
    });
    client.batch_execute("LISTEN tokio_news").await?;
    connect(dsn).await?.batch_execute("NOTIFY tokio_news, 'hello'").await?;
    println!("{:?}", tokio::time::timeout(Duration::from_secs(20), told.recv()).await?);
    Ok(())
}

async fn cancel(dsn: &str) -> Outcome {
    let client = connect(dsn).await?;
    let token = client.cancel_token();
    let (slept, _) = future::join(client.batch_execute("SELECT pg_sleep(600)"), async {
        // The statement has begun when the server says so; another session sees it.
        loop {
            let running = connect(dsn).await?.query_one("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND state = 'active'", &[]).await?;
            if running.get::<_, i64>(0) > 0 {
                return token.cancel_query(NoTls).await;
            }
        }
    })
    .await;
    report(slept.map_err(Into::into));
    println!("{}", client.query_one("SELECT 1", &[]).await?.get::<_, i32>(0));
    Ok(())
}

async fn reconnect(dsn: &str) -> Outcome {
    for n in 1..30_i64 {
        let client = connect(dsn).await?;
        print!("{} ", client.query_one("SELECT $1 + 1", &[&n]).await?.get::<_, i64>(0));
    }
    println!();
    Ok(())
}
