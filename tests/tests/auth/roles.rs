//! Roles are at every login what the home shard says, at every router; and who may not log in is
//! told what PostgreSQL tells.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use pgherd_tests::router::RouterProcess;
use pgherd_tests::{psql, run};

use crate::{SCRAM, at, demand, login, two_shards};

/// The home shard says the same to the same login: its own words are the expectation.
#[tokio::test]
async fn refusals_are_postgres_own() {
    let cluster = two_shards();
    demand(&cluster, SCRAM);
    let admin = cluster.dsn();
    for sql in [
        "CREATE ROLE ada LOGIN PASSWORD 'a'",
        "CREATE ROLE bob PASSWORD 'a'",
        "CREATE ROLE past LOGIN PASSWORD 'a' VALID UNTIL '2020-01-01'",
        "CREATE ROLE future LOGIN PASSWORD 'a' VALID UNTIL '2120-01-01'",
        "CREATE ROLE bare LOGIN",
        "CREATE ROLE nil LOGIN PASSWORD 'a' CONNECTION LIMIT 0",
        "CREATE ROLE \"Ö \"\"x\" LOGIN PASSWORD 'a'",
    ] {
        assert_eq!(psql(admin, sql), "");
    }
    let home = &cluster.file.shards[0].dsn;
    let address = home.rsplit_once('@').map(|(_, rest)| rest).expect("a login");
    let address = address.split_once('/').map(|(address, _)| address).expect("a database");
    let router = RouterProcess::start(&cluster, "refusals", "[auth]\nmax_failures = 0\n");
    for (who, database, code) in [
        ("ada:a", "app", "ok"),
        ("ada:b", "app", "28P01"),
        ("nobody:a", "app", "28P01"),
        ("bob:a", "app", "28000"),
        ("bob:b", "app", "28P01"),
        ("past:a", "app", "28P01"),
        ("future:a", "app", "ok"),
        ("bare:a", "app", "28P01"),
        ("nil:a", "app", "53300"),
        ("%C3%96%20%22x:a", "app", "ok"),
        ("ada:a", "nowhere", "3D000"),
        ("ada:b", "nowhere", "28P01"),
        ("bob:a", "nowhere", "28000"),
    ] {
        let through = format!("postgres://{who}@{}/{database}", router.listen);
        let (wanted, found) = (login(&at(&through, address)).await, login(&through).await);
        assert_eq!(found, wanted, "{who} in {database}");
        assert!(wanted.starts_with(code), "{who} in {database}: {wanted}");
    }
    // A connection is there for ada; the privilege counts all the same.
    run(admin, "REVOKE CONNECT ON DATABASE app FROM PUBLIC");
    let ada = router.dsn("ada:a");
    let wanted = login(&at(&ada, address)).await;
    assert_eq!(login(&ada).await, wanted);
    assert_eq!(wanted, "42501 permission denied for database \"app\"");
}

#[tokio::test]
async fn a_role_that_is_changed_at_one_router_is_changed_at_every_other() {
    let cluster = two_shards();
    demand(&cluster, SCRAM);
    let admin = cluster.dsn();
    let routers =
        [RouterProcess::start(&cluster, "one", ""), RouterProcess::start(&cluster, "two", "")];
    let everywhere = async |login_as: &str, wanted: &str| {
        for router in &routers {
            let found = login(&router.dsn(login_as)).await;
            assert!(found.starts_with(wanted), "{login_as}: {found}");
        }
    };
    everywhere("eva:1", "28P01").await;
    run(admin, "CREATE ROLE eva LOGIN PASSWORD '1'");
    everywhere("eva:1", "ok").await;
    run(admin, "ALTER ROLE eva PASSWORD '2'");
    everywhere("eva:1", "28P01").await;
    everywhere("eva:2", "ok").await;
    let (client, connection) =
        tokio_postgres::connect(admin, tokio_postgres::NoTls).await.expect("the cluster's router");
    tokio::spawn(connection);
    client.execute("ALTER ROLE eva PASSWORD '3'", &[]).await.expect("the extended protocol, too");
    everywhere("eva:2", "28P01").await;
    everywhere("eva:3", "ok").await;
    run(admin, "ALTER ROLE eva NOLOGIN");
    everywhere("eva:3", "28000").await;
    run(admin, "ALTER ROLE eva LOGIN; ALTER ROLE eva RENAME TO eve");
    everywhere("eva:3", "28P01").await;
    everywhere("eve:3", "ok").await;
    run(admin, "DROP ROLE eve");
    everywhere("eve:3", "28P01").await;
}

#[test]
fn a_new_role_gets_no_connection_of_an_old_one_that_had_its_name() {
    let cluster = two_shards();
    let admin = cluster.dsn();
    run(admin, "CREATE TABLE t (k int); CREATE TABLE u (k int)");
    run(admin, "CREATE ROLE eva LOGIN; GRANT SELECT ON t TO eva");
    // One thread: whatever is idle would be found.
    let router =
        RouterProcess::start(&cluster, "names", "[auth]\nmethod = \"trust\"\n[pool]\nsize = 2\n");
    let eva = router.dsn("eva");
    assert_eq!(run(&eva, "SELECT count(*) FROM t"), "0");
    // Renamed: the old connections go on as eve's.
    run(admin, "ALTER ROLE eva RENAME TO eve; CREATE ROLE eva LOGIN; GRANT SELECT ON u TO eva");
    for _ in 0..4 {
        assert_eq!(run(&eva, "SELECT current_user, count(*) FROM u"), "eva|0");
        assert!(psql(&eva, "SELECT count(*) FROM t").contains("42501"));
    }
    assert_eq!(run(&router.dsn("eve"), "SELECT current_user, count(*) FROM t"), "eve|0");
    // Dropped and made again: a server's old connection does not know who it is any more.
    run(admin, "REVOKE ALL ON u FROM eva; DROP ROLE eva; CREATE ROLE eva LOGIN");
    run(admin, "GRANT SELECT ON t TO eva");
    for _ in 0..4 {
        assert_eq!(run(&eva, "SELECT current_user, count(*) FROM t"), "eva|0");
    }
}

#[tokio::test]
async fn a_role_has_as_many_sessions_as_its_connection_limit_allows() {
    let cluster = two_shards();
    let admin = cluster.dsn();
    run(admin, "CREATE ROLE few LOGIN CONNECTION LIMIT 2");
    let router = RouterProcess::start(&cluster, "few", "[auth]\nmethod = \"trust\"\n");
    let connect = async || tokio_postgres::connect(&router.dsn("few"), tokio_postgres::NoTls).await;
    let (one, first) = connect().await.expect("the first");
    let (_two, second) = connect().await.expect("the second");
    let first = tokio::spawn(first);
    tokio::spawn(second);
    let refused = "53300 too many connections for role \"few\"";
    assert_eq!(login(&router.dsn("few")).await, refused);
    drop(one);
    first.await.expect("its task ends").expect("it leaves");
    // Ever again: what sessions leave on one thread of the router does not count against the next
    // ones on another.
    for _ in 0..6 {
        pgherd_tests::wait_until("the last one to have left", || {
            psql(&router.dsn("few"), "SELECT 1") == "1"
        });
    }
}

#[tokio::test]
async fn a_session_outlives_the_change_of_its_password() {
    let cluster = two_shards();
    demand(&cluster, SCRAM);
    let admin = cluster.dsn();
    run(admin, "CREATE ROLE eva LOGIN PASSWORD '1'");
    let router = RouterProcess::start(&cluster, "rotation", "");
    let old = router.dsn("eva:1");
    let (session, connection) =
        tokio_postgres::connect(&old, tokio_postgres::NoTls).await.expect("a login");
    tokio::spawn(connection);
    run(admin, "ALTER ROLE eva PASSWORD '2'");
    assert_eq!(login(&old).await, "28P01 password authentication failed for user \"eva\"");
    let (newer, connection) = tokio_postgres::connect(&router.dsn("eva:2"), tokio_postgres::NoTls)
        .await
        .expect("a login");
    tokio::spawn(connection);
    // No server connection of before is left: the session needs a new one.
    for shard in &cluster.file.shards {
        run(
            &shard.dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'eva'",
        );
    }
    pgherd_tests::wait_until("the servers to have gone", || {
        let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'eva'";
        cluster.file.shards.iter().all(|shard| run(&shard.dsn, left) == "0")
    });
    let user = session.query_one("SELECT current_user::text", &[]).await.expect("it goes on");
    assert_eq!(user.get::<_, &str>(0), "eva");
    drop(newer);
}

#[test]
fn new_sessions_start_with_the_settings_that_their_role_has_now() {
    let cluster = two_shards();
    let admin = cluster.dsn();
    run(admin, "CREATE ROLE eva LOGIN");
    let router = RouterProcess::start(&cluster, "settings", "[auth]\nmethod = \"trust\"\n");
    let eva = router.dsn("eva");
    let shows = |wanted: &str| {
        for _ in 0..3 {
            assert_eq!(run(&eva, "SELECT current_setting('work_mem')"), wanted);
        }
    };
    shows("4MB");
    run(admin, "ALTER ROLE eva SET work_mem = '5MB'");
    shows("5MB");
    run(admin, "ALTER ROLE eva IN DATABASE app SET work_mem = '6MB'");
    shows("6MB");
    run(admin, "ALTER ROLE eva RESET ALL; ALTER ROLE eva IN DATABASE app RESET ALL");
    run(admin, "ALTER DATABASE app SET work_mem = '7MB'");
    shows("7MB");
}

/// The salt that a router names for a user.
fn salt(router: &RouterProcess, user: &str) -> String {
    let mut stream = TcpStream::connect(&router.listen).expect("the router is there");
    let mut message = |out: BytesMut| {
        stream.write_all(&out).expect("it can be written");
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("an answer");
        assert_eq!(head[0], b'R', "{head:?}");
        let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; size - 8];
        stream.read_exact(&mut body).expect("the whole answer");
        String::from_utf8(body).expect("text")
    };
    let mut startup = BytesMut::new();
    frontend::startup_message([("user", user), ("database", "app")], &mut startup)
        .expect("no zero in it");
    assert_eq!(message(startup), "SCRAM-SHA-256\0\0");
    let mut first = BytesMut::new();
    frontend::sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abcdefgh", &mut first)
        .expect("no zero in it");
    let answer = message(first);
    let salt = answer.split(',').find(|field| field.starts_with("s="));
    salt.expect("a salt").to_owned()
}

#[test]
fn a_user_that_does_not_exist_looks_the_same_at_every_router() {
    let cluster = two_shards();
    run(cluster.dsn(), "CREATE ROLE eva LOGIN PASSWORD '1'");
    let (one, two) =
        (RouterProcess::start(&cluster, "one", ""), RouterProcess::start(&cluster, "two", ""));
    for user in ["eva", "nobody"] {
        assert_eq!(salt(&one, user), salt(&two, user), "{user}");
        assert_eq!(salt(&one, user), salt(&one, user), "{user}");
    }
    assert_ne!(salt(&one, "nobody"), salt(&one, "noone"));
    drop(one);
    let again = RouterProcess::start(&cluster, "one", "");
    assert_eq!(salt(&again, "nobody"), salt(&two, "nobody"));
    // Nobody but a superuser can make it up.
    let eva = two.dsn("eva:1");
    assert!(psql(&eva, "SELECT * FROM pgherd.secret").contains("42501"));
}
