//! `[[auth.hba]]`, and the limit of failures.

use pgherd_tests::router::RouterProcess;
use pgherd_tests::run;

use crate::{SCRAM, demand, login, two_shards};

#[tokio::test]
async fn the_first_entry_of_the_table_that_fits_decides() {
    let cluster = two_shards();
    demand(&cluster, SCRAM);
    let admin = cluster.dsn();
    run(admin, "CREATE ROLE ada LOGIN PASSWORD 'a'; CREATE ROLE eve LOGIN PASSWORD 'a'");
    run(admin, "CREATE ROLE ghost LOGIN PASSWORD 'a'");
    let router = RouterProcess::start(
        &cluster,
        "table",
        "[[auth.hba]]\ntype = 'host'\nuser = 'eve'\nmethod = 'reject'\n\
         [[auth.hba]]\ntype = 'hostssl'\nuser = 'all'\nmethod = 'trust'\n\
         [[auth.hba]]\ntype = 'host'\naddress = '10.0.0.0/8'\nmethod = 'trust'\n\
         [[auth.hba]]\ntype = 'host'\ndatabase = 'other'\nmethod = 'trust'\n\
         [[auth.hba]]\ntype = 'host'\nuser = 'postgres'\naddress = '127.0.0.1'\n\
         method = 'trust'\n\
         [[auth.hba]]\ntype = 'hostnossl'\nuser = ['ada', 'bob']\naddress = '127.0.0.0/8'\n\
         method = 'scram-sha-256'\n",
    );
    let says = async |who: &str| login(&router.dsn(who)).await;
    assert_eq!(says("postgres").await, "ok");
    assert_eq!(says("ada:a").await, "ok");
    assert_eq!(says("ada:b").await, "28P01 password authentication failed for user \"ada\"");
    assert_eq!(
        says("eve:a").await,
        "28000 pg_hba.conf rejects connection for host \"127.0.0.1\", user \"eve\", database \
         \"app\", no encryption"
    );
    assert_eq!(
        says("ghost:a").await,
        "28000 no pg_hba.conf entry for host \"127.0.0.1\", user \"ghost\", database \"app\", no \
         encryption"
    );
}

#[tokio::test]
async fn where_clients_are_trusted_and_shards_are_not_convinced_the_login_is_refused() {
    let cluster = two_shards();
    demand(&cluster, SCRAM);
    run(cluster.dsn(), "CREATE ROLE ada LOGIN PASSWORD 'a'");
    let router = RouterProcess::start(&cluster, "trust", "[auth]\nmethod = \"trust\"\n");
    let refused = login(&router.dsn("ada")).await;
    assert!(refused.starts_with("28000 the router cannot log in to a shard"), "{refused}");
    let nobody = login(&router.dsn("nobody")).await;
    assert_eq!(nobody, "28000 role \"nobody\" does not exist");
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_not_listened_to() {
    let cluster = two_shards();
    demand(&cluster, SCRAM);
    run(cluster.dsn(), "CREATE ROLE ada LOGIN PASSWORD 'a'");
    let router = RouterProcess::start(
        &cluster,
        "throttle",
        "[auth]\nmax_failures = 3\nfailure_window = '1h'\n",
    );
    assert_eq!(login(&router.dsn("ada:a")).await, "ok");
    for user in ["ada:b", "nobody:b", "ada:c"] {
        assert!(login(&router.dsn(user)).await.starts_with("28P01"), "{user}");
    }
    let refused = "28000 too many failed logins from this address";
    assert_eq!(login(&router.dsn("ada:a")).await, refused);
    assert_eq!(login(&router.dsn("nobody:a")).await, refused);
}

#[tokio::test]
async fn too_many_clients_are_refused_as_postgres_refuses_them() {
    let cluster = two_shards();
    // One for each of the router's two threads.
    let router =
        RouterProcess::start(&cluster, "full", "max_clients = 2\n[auth]\nmethod = \"trust\"\n");
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let dsn = router.dsn("postgres");
        let (client, connection) =
            tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.expect("there is room");
        tokio::spawn(connection);
        sessions.push(client);
    }
    let refused = login(&router.dsn("postgres")).await;
    assert_eq!(refused, "53300 sorry, too many clients already");
}
