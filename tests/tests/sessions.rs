//! What belongs to one session follows it over pooled servers, ends with it, and is never seen by
//! another.

#[path = "sessions/encodings.rs"]
mod encodings;

use std::time::{Duration, Instant};

use pgherd::dev::LocalCluster;
use pgherd_tests::router::RouterProcess;
use pgherd_tests::{cluster, cluster_with, psql, run, wait_until};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

/// A connection; what the server sends unasked goes to `news`.
async fn connect(
    dsn: &str,
) -> (Client, tokio::sync::mpsc::UnboundedReceiver<AsyncMessage>, tokio::task::JoinHandle<()>) {
    let (client, mut connection) =
        tokio_postgres::connect(dsn, NoTls).await.expect("the router answers");
    let (sender, news) = tokio::sync::mpsc::unbounded_channel();
    let driver = tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    (client, news, driver)
}

/// The first value of the last row.
async fn one(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.expect(sql);
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    rows.last().unwrap_or_default()
}

async fn code(client: &Client, sql: &str) -> String {
    let error = client.simple_query(sql).await.expect_err(sql);
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

fn distributed(cluster: &LocalCluster) {
    run(cluster.dsn(), "CREATE TABLE t (k int PRIMARY KEY, v text)");
    run(cluster.dsn(), "SELECT create_distributed_table('t', 'k')");
    run(cluster.dsn(), "INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four')");
}

/// How many sessions of clients hold anything on the shards.
fn held(cluster: &LocalCluster) -> usize {
    let sql = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
               WHERE a.application_name <> 'psql' AND l.locktype = 'advisory' \
               OR a.state LIKE 'idle in transaction%'";
    let count = |dsn: &str| run(dsn, sql).parse::<usize>().expect("a count");
    cluster.file.shards.iter().map(|shard| count(&shard.dsn)).sum()
}

#[tokio::test]
async fn a_notification_reaches_an_idle_listener_and_comes_with_the_commit() {
    let cluster = cluster();
    let (listener, mut news, _driver) = connect(cluster.dsn()).await;
    let (sender, _, _sender_driver) = connect(cluster.dsn()).await;
    listener.batch_execute("LISTEN orders").await.expect("it listens");
    sender
        .batch_execute("BEGIN; NOTIFY orders, 'rolled back'; ROLLBACK")
        .await
        .expect("rolled back");
    sender.batch_execute("BEGIN; NOTIFY orders, 'committed'; COMMIT").await.expect("committed");
    sender.simple_query("SELECT pg_notify('orders', 'at once')").await.expect("sent");
    for wanted in ["committed", "at once"] {
        let message = tokio::time::timeout(Duration::from_secs(30), news.recv()).await;
        let Ok(Some(AsyncMessage::Notification(message))) = message else {
            panic!("no notification, but {message:?}")
        };
        assert_eq!((message.channel(), message.payload()), ("orders", wanted));
    }
    listener.batch_execute("UNLISTEN *").await.expect("it does not listen");
    sender.batch_execute("NOTIFY orders, 'nobody hears it'").await.expect("sent");
    assert_eq!(one(&listener, "SELECT 1").await, "1");
    assert!(news.try_recv().is_err());
}

#[tokio::test]
async fn a_notification_goes_out_with_a_transaction_over_several_shards() {
    let cluster = cluster();
    distributed(&cluster);
    let (listener, mut news, _driver) = connect(cluster.dsn()).await;
    listener.batch_execute("LISTEN c").await.expect("it listens");
    let (client, _, _other) = connect(cluster.dsn()).await;
    // Every shard writes, so all but the deciding one are prepared; a temporary table, too, cannot
    // be prepared.
    client
        .batch_execute(
            "BEGIN; UPDATE t SET v = 'new'; CREATE TEMP TABLE x (a int) ON COMMIT DROP; \
             INSERT INTO x VALUES (1); NOTIFY c, 'with all shards'; COMMIT",
        )
        .await
        .expect("it commits");
    let message = tokio::time::timeout(Duration::from_secs(30), news.recv()).await;
    assert!(matches!(message, Ok(Some(AsyncMessage::Notification(_)))), "{message:?}");
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM t WHERE v = 'new'"), "4");
}

#[tokio::test]
async fn session_locks_exclude_over_the_cluster_and_end_with_their_session() {
    let cluster = cluster();
    distributed(&cluster);
    let (first, _, driver) = connect(cluster.dsn()).await;
    let (second, _, _other) = connect(cluster.dsn()).await;
    assert_eq!(one(&first, "SELECT pg_try_advisory_lock(7)").await, "t");
    assert_eq!(one(&second, "SELECT pg_try_advisory_lock(7)").await, "f");
    // In a transaction that began on another shard it is the same lock.
    let begun = "BEGIN; SELECT * FROM t WHERE k = 3; SELECT pg_try_advisory_xact_lock(7)";
    assert_eq!(one(&second, begun).await, "f");
    second.batch_execute("ROLLBACK").await.expect("rolled back");
    drop(first);
    driver.await.expect("no panic");
    wait_until("the lock is free", || run(cluster.dsn(), "SELECT pg_try_advisory_lock(7)") == "t");
    drop(second);
    wait_until("nothing is held", || held(&cluster) == 0);
}

#[tokio::test]
async fn a_vanished_client_leaves_nothing_on_its_servers() {
    let cluster = cluster();
    distributed(&cluster);
    let (client, _, driver) = connect(cluster.dsn()).await;
    client
        .batch_execute(
            "SET work_mem = '9MB'; CREATE TEMP TABLE left_over (a int); SELECT pg_advisory_lock(9); \
             LISTEN c; BEGIN; SET search_path = pg_catalog; UPDATE public.t SET v = 'lost'",
        )
        .await
        .expect("it runs");
    assert!(held(&cluster) > 0);
    let gone = Instant::now();
    driver.abort();
    assert!(driver.await.expect_err("it was aborted").is_cancelled());
    drop(client);
    wait_until("nothing is held", || held(&cluster) == 0);
    assert!(gone.elapsed() < Duration::from_secs(10), "{:?}", gone.elapsed());
    let (next, _, _driver) = connect(cluster.dsn()).await;
    for _ in 0..3 {
        assert_eq!(one(&next, "SHOW work_mem").await, "4MB");
        assert_eq!(one(&next, "SHOW search_path").await, "\"$user\", public");
        assert_eq!(one(&next, "SELECT count(*) FROM pg_listening_channels()").await, "0");
        assert_eq!(code(&next, "SELECT * FROM left_over").await, "42P01");
        assert_eq!(one(&next, "SELECT count(*) FROM t WHERE v = 'lost'").await, "0");
    }
}

#[tokio::test]
async fn settings_of_roles_and_databases_decide_where_names_lead() {
    let cluster = cluster();
    distributed(&cluster);
    run(cluster.dsn(), "CREATE SCHEMA other");
    run(cluster.dsn(), "CREATE TABLE other.t (k int PRIMARY KEY, v text)");
    run(cluster.dsn(), "INSERT INTO other.t VALUES (3, 'of the other schema')");
    run(cluster.dsn(), "CREATE ROLE ada LOGIN SUPERUSER");
    run(cluster.dsn(), "ALTER ROLE ada SET search_path = other, public");
    run(cluster.dsn(), "ALTER ROLE ada SET work_mem = '7MB'");
    let dsn = cluster.dsn().replace("postgres@", "ada@");
    let (ada, _, _driver) = connect(&dsn).await;
    assert_eq!(one(&ada, "SELECT v FROM t WHERE k = 3").await, "of the other schema");
    assert_eq!(one(&ada, "SHOW work_mem").await, "7MB");
    ada.batch_execute("SET search_path = public").await.expect("set");
    assert_eq!(one(&ada, "SELECT v FROM t WHERE k = 3").await, "three");
    ada.batch_execute("RESET search_path").await.expect("reset");
    assert_eq!(one(&ada, "SELECT v FROM t WHERE k = 3").await, "of the other schema");
    ada.batch_execute("DISCARD ALL").await.expect("discarded");
    assert_eq!(one(&ada, "SELECT v FROM t WHERE k = 3").await, "of the other schema");
}

#[tokio::test]
async fn a_role_that_is_set_goes_with_the_session_only() {
    let cluster = cluster();
    distributed(&cluster);
    run(cluster.dsn(), "CREATE ROLE clerk");
    run(cluster.dsn(), "GRANT SELECT ON t TO clerk");
    let (clerk, _, _driver) = connect(cluster.dsn()).await;
    let (other, _, _other) = connect(cluster.dsn()).await;
    clerk.batch_execute("SET ROLE clerk").await.expect("set");
    for k in 1..=4 {
        let reads = format!("SELECT current_user FROM t WHERE k = {k}");
        assert_eq!(one(&clerk, &reads).await, "clerk");
        assert_eq!(one(&other, &reads).await, "postgres");
        assert_eq!(code(&clerk, &format!("DELETE FROM t WHERE k = {k}")).await, "42501");
    }
    clerk.batch_execute("RESET ALL").await.expect("reset");
    assert_eq!(one(&clerk, "SELECT current_user").await, "clerk");
    clerk.batch_execute("RESET ROLE").await.expect("reset");
    clerk.batch_execute("DELETE FROM t WHERE k = 4").await.expect("allowed");
}

#[tokio::test]
async fn a_client_that_is_idle_for_too_long_is_told_and_let_go() {
    let cluster = cluster();
    run(cluster.dsn(), "CREATE ROLE hasty LOGIN SUPERUSER");
    run(cluster.dsn(), "ALTER ROLE hasty SET idle_session_timeout = '0.3s'");
    run(cluster.dsn(), "CREATE ROLE slow LOGIN SUPERUSER");
    run(cluster.dsn(), "ALTER ROLE slow SET idle_in_transaction_session_timeout = 300");
    for (role, prepare, wanted) in [
        ("hasty", "SHOW idle_session_timeout", "57P05"),
        ("hasty", "SET idle_session_timeout = 0; RESET idle_session_timeout", "57P05"),
        ("hasty", "SET idle_session_timeout = 0; RESET ALL", "57P05"),
        ("slow", "BEGIN", "25P03"),
        ("slow", "BEGIN; SELECT 1", "25P03"),
        ("postgres", "SET idle_in_transaction_session_timeout = 300; BEGIN; SELECT 1", "25P03"),
        ("postgres", "SET idle_in_transaction_session_timeout = '300ms'; BEGIN", "25P03"),
        ("postgres", "SET idle_session_timeout = 300", "57P05"),
    ] {
        assert_eq!(ended_by(&cluster, role, prepare).await, wanted, "{role}: {prepare}");
    }
    wait_until("nothing is held", || held(&cluster) == 0);
}

#[tokio::test]
async fn limits_of_the_servers_configuration_are_the_clients() {
    let cluster = cluster_with(|options| {
        options.shards = 2;
        let limits = ["idle_session_timeout=700", "idle_in_transaction_session_timeout=300"];
        options.pg_conf.extend(limits.map(str::to_owned));
    });
    for (prepare, wanted) in [
        ("SELECT 1", "57P05"),
        ("SET idle_session_timeout = 0; RESET ALL", "57P05"),
        ("SET idle_session_timeout = 0; DISCARD ALL", "57P05"),
        ("LISTEN news", "57P05"),
        ("BEGIN; SELECT 1", "25P03"),
    ] {
        assert_eq!(ended_by(&cluster, "postgres", prepare).await, wanted, "{prepare}");
    }
    let (client, _, _driver) = connect(cluster.dsn()).await;
    client.batch_execute("SET idle_session_timeout = 0").await.expect("set");
    assert_eq!(one(&client, "SHOW idle_session_timeout").await, "0");
    let reset = "RESET idle_session_timeout; SHOW idle_session_timeout";
    assert_eq!(one(&client, reset).await, "700ms");
}

/// The error that ends a session which has said this and then waits.
async fn ended_by(cluster: &LocalCluster, role: &str, prepare: &str) -> String {
    let dsn = cluster.dsn().replace("postgres@", &format!("{role}@"));
    let (client, mut connection) =
        tokio_postgres::connect(&dsn, NoTls).await.expect("the router answers");
    let setting = async {
        for statement in prepare.split("; ") {
            // A limit of the role's may be over already.
            drop(client.batch_execute(statement).await);
        }
        std::future::pending::<()>().await;
    };
    let ended = std::future::poll_fn(|cx| connection.poll_message(cx));
    let ended = tokio::select! {
        () = setting => unreachable!(),
        ended = async {
            tokio::time::timeout(Duration::from_secs(30), ended).await
        } => ended,
    };
    let Ok(Some(Err(error))) = ended else { panic!("{prepare}: {ended:?}") };
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

#[tokio::test]
async fn numbers_of_another_session_are_never_seen() {
    let cluster = cluster();
    run(cluster.dsn(), "CREATE SEQUENCE own; CREATE TABLE plain (k int)");
    let ask = "SELECT currval('own')";
    // Sessions that draw numbers, one after another, and between them such as never did.
    for round in 1..=20 {
        let (drawing, _, _driver) = connect(cluster.dsn()).await;
        let drawn = format!("BEGIN; SELECT nextval('own'); {ask}; COMMIT");
        assert_eq!(one(&drawing, &drawn).await, round.to_string());
        let (fresh, _, _driver) = connect(cluster.dsn()).await;
        assert_eq!(code(&fresh, ask).await, "55000");
        fresh.batch_execute("BEGIN").await.expect("begun");
        assert_eq!(code(&fresh, "SELECT lastval()").await, "55000");
        fresh.batch_execute("ROLLBACK").await.expect("rolled back");
        // After a write it may have drawn one, for all that the router knows.
        for write in ["INSERT INTO plain VALUES (1)", "CREATE TEMP TABLE own_table (k int)"] {
            fresh.batch_execute(write).await.expect(write);
            let refused = code(&fresh, ask).await;
            assert!(refused == "55000" || refused == "0A000", "{write}: {refused}");
        }
    }
}

#[tokio::test]
async fn the_first_who_asks_does_not_see_anothers_number() {
    let cluster = cluster();
    run(cluster.dsn(), "CREATE SEQUENCE own; CREATE TABLE plain (k int)");
    let (drawing, _, _driver) = connect(cluster.dsn()).await;
    for round in 1..=20 {
        assert_eq!(one(&drawing, "SELECT nextval('own')").await, round.to_string());
    }
    let (fresh, _, _driver) = connect(cluster.dsn()).await;
    let asks = ["BEGIN", "INSERT INTO plain VALUES (1)", "SELECT currval('own')"].join(";");
    let refused = code(&fresh, &asks).await;
    assert!(refused == "55000" || refused == "0A000", "{refused}");
    fresh.batch_execute("ROLLBACK").await.expect("rolled back");
    assert_eq!(code(&fresh, &asks).await, "55000");
    fresh.batch_execute("ROLLBACK").await.expect("rolled back");
    let draws = "BEGIN; SELECT nextval('own'); SELECT currval('own')";
    assert_eq!(one(&fresh, draws).await, "21");
}

#[tokio::test]
async fn what_a_procedure_sets_belongs_to_its_caller() {
    let cluster = cluster();
    distributed(&cluster);
    let (client, _, _driver) = connect(cluster.dsn()).await;
    let (other, _, _other) = connect(cluster.dsn()).await;
    client
        .batch_execute(
            "DO $$ BEGIN PERFORM set_config('work_mem', '3MB', false); \
             PERFORM pg_advisory_lock(5); CREATE TEMP TABLE made (a int); END $$",
        )
        .await
        .expect("it runs");
    for k in 1..=4 {
        let read = format!("SELECT current_setting('work_mem') FROM t WHERE k = {k}");
        assert_eq!(one(&client, &read).await, "3MB");
        assert_eq!(one(&other, &read).await, "4MB");
    }
    assert_eq!(one(&client, "SELECT count(*) FROM made").await, "0");
    assert_eq!(code(&other, "SELECT count(*) FROM made").await, "42P01");
    assert_eq!(one(&other, "SELECT pg_try_advisory_lock(5)").await, "f");
    client.batch_execute("DISCARD ALL").await.expect("discarded");
    assert_eq!(one(&other, "SELECT pg_try_advisory_lock(5)").await, "t");
    assert!(psql(cluster.dsn(), "SELECT * FROM made").contains("42P01"));
}

#[tokio::test]
async fn what_a_function_sets_is_not_seen_by_others() {
    let cluster = cluster();
    distributed(&cluster);
    let config = "workers = 1\n[auth]\nmethod = \"trust\"\n[pool]\nsize = 1\n";
    let router = RouterProcess::start(&cluster, "one", config);
    let dsn = router.dsn("postgres");
    run(
        cluster.dsn(),
        "CREATE TABLE noted (a int);
         CREATE FUNCTION known() RETURNS void LANGUAGE plpgsql
            AS $$ BEGIN SET work_mem = '9MB'; PERFORM set_config('app.who', 'me', false); END $$;
         CREATE FUNCTION somehow(name text) RETURNS void LANGUAGE plpgsql
            AS $$ BEGIN PERFORM set_config('app.' || name, 'mine', false); END $$;
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN PERFORM set_config('app.who', 'note', false); RETURN new; END $$;
         CREATE TRIGGER note BEFORE INSERT ON noted FOR EACH ROW EXECUTE FUNCTION note();
         CREATE ROLE clerk; GRANT SELECT ON t TO clerk;
         CREATE FUNCTION be(name text) RETURNS void LANGUAGE plpgsql
            AS $$ BEGIN EXECUTE format('SET ROLE %I', name); END $$;
         CREATE TRIGGER note BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note();",
    );
    let seen = "SELECT current_setting('work_mem') || coalesce(current_setting('app.who', true), '') \
                || coalesce(current_setting('app.word', true), '') \
                || CASE current_user WHEN 'postgres' THEN '' ELSE current_user END";
    for (changes, mine) in [
        ("SELECT known()", "9MBme"),
        ("BEGIN; SELECT known(); COMMIT", "9MBme"),
        ("BEGIN; SELECT known(); ROLLBACK", "4MB"),
        ("DO $$ BEGIN EXECUTE 'SET app.who = 5'; END $$", "4MB5"),
        ("/* pgherd: shard=2 */ DO $$ BEGIN SET work_mem = '3MB'; END $$", "3MB"),
        ("INSERT INTO noted VALUES (1)", "4MBnote"),
        ("UPDATE t SET v = 'x' WHERE k = 3", "4MBnote"),
        ("UPDATE t SET v = 'y'", "4MBnote"),
        ("BEGIN; DECLARE c CURSOR FOR SELECT known(); FETCH c; COMMIT", "9MBme"),
        ("SELECT be('clerk')", "4MBclerk"),
        ("SELECT somehow('word')", "4MBmine"),
    ] {
        let (client, _, driver) = connect(&dsn).await;
        let (other, _, _other) = connect(&dsn).await;
        client.batch_execute(changes).await.expect(changes);
        // What nobody can name stays with its server, on the home shard.
        if mine.ends_with("mine") {
            assert_eq!(one(&client, seen).await, mine, "{changes}");
            drop(client);
            driver.await.expect("no panic");
            assert_eq!(one(&other, seen).await, "4MB", "{changes}");
            continue;
        }
        for k in 1..=4 {
            let read = format!("{seen} FROM t WHERE k = {k}");
            assert_eq!(one(&client, &read).await, mine, "{changes}");
            assert_eq!(one(&other, &read).await, "4MB", "{changes}");
        }
    }
}

#[tokio::test]
async fn an_error_on_another_shard_does_not_end_what_the_session_holds() {
    let cluster = cluster();
    distributed(&cluster);
    run(cluster.dsn(), "INSERT INTO t SELECT k, '' FROM generate_series(5, 20) AS k");
    let home = run(&cluster.file.shards[0].dsn, "SELECT min(k) FROM t");
    let other = run(&cluster.file.shards[1].dsn, "SELECT min(k) FROM t");
    let (client, _news, _driver) = connect(cluster.dsn()).await;
    client.batch_execute("CREATE TEMP TABLE held (a int); LISTEN c").await.expect("it holds them");
    // While the home shard's part still runs.
    let slow = format!(
        "CASE k WHEN {home} THEN md5(repeat('x', 20000000)) WHEN {other} THEN (1 / (k - k))::text END"
    );
    for sql in [
        format!("SELECT {slow} FROM t"),
        format!("SELECT k FROM t WHERE {slow} IS NULL ORDER BY k"),
        format!("SELECT count(*) OVER () FROM t WHERE {slow} IS NULL"),
        format!("UPDATE t SET v = {slow}"),
        format!("BEGIN; SELECT {slow} FROM t"),
    ] {
        assert_eq!(code(&client, &sql).await, "22012", "{sql}");
        client.batch_execute("ROLLBACK").await.expect("it ends");
        assert_eq!(one(&client, "SELECT count(*) FROM held").await, "0", "{sql}");
    }
}
