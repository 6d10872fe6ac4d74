//! Logins: PostgreSQL's methods at the router with the shards' own verifiers, passed on to every
//! shard; and who is refused, in PostgreSQL's words.

#[path = "auth/authority.rs"]
mod authority;
#[path = "auth/roles.rs"]
mod roles;
#[path = "auth/shard_tls.rs"]
mod shard_tls;
#[path = "auth/table.rs"]
mod table;
#[path = "auth/tls.rs"]
mod tls;

use pgherd::dev::LocalCluster;
use pgherd_tests::router::RouterProcess;
use pgherd_tests::{cluster, cluster_with, psql};

/// A smaller cluster: who gets in does not depend on the number of shards.
fn two_shards() -> LocalCluster {
    cluster_with(|options| options.shards = 2)
}

/// Shards that trust nobody but the superuser; all others log in by `rule`.
fn demand(cluster: &LocalCluster, rule: &str) {
    for shard in &cluster.file.shards {
        let rules = format!("local all all trust\nhost all postgres 127.0.0.1/32 trust\n{rule}\n");
        std::fs::write(shard.data_dir.join("pg_hba.conf"), rules).expect("it can be written");
        assert_eq!(psql(&shard.dsn, "SELECT pg_reload_conf()"), "t");
    }
}

const SCRAM: &str = "host all all 127.0.0.1/32 scram-sha-256";
const MD5: &str = "host all all 127.0.0.1/32 md5";

/// What a server says to a login: the SQLSTATE and the message, or `ok`.
async fn login(dsn: &str) -> String {
    match tokio_postgres::connect(dsn, tokio_postgres::NoTls).await {
        Ok(_) => "ok".to_owned(),
        Err(error) => match error.as_db_error() {
            Some(said) => format!("{} {}", said.code().code(), said.message()),
            None => format!("{error:?}"),
        },
    }
}

/// Another address with the same login.
fn at(dsn: &str, address: &str) -> String {
    let (head, tail) = dsn.rsplit_once('@').expect("a login");
    let (_, database) = tail.split_once('/').expect("a database");
    format!("{head}@{address}/{database}")
}

#[test]
fn one_password_logs_in_to_the_router_and_through_it_to_every_shard() {
    let cluster = cluster();
    demand(&cluster, SCRAM);
    let admin = cluster.dsn();
    assert_eq!(psql(admin, "CREATE ROLE ada LOGIN PASSWORD 'sesame''s'"), "");
    assert_eq!(psql(admin, "CREATE TABLE t (k int PRIMARY KEY); GRANT ALL ON t TO ada"), "");
    psql(admin, "SELECT create_distributed_table('t', 'k')");
    let verifiers: Vec<String> = cluster
        .file
        .shards
        .iter()
        .map(|shard| psql(&shard.dsn, "SELECT rolpassword FROM pg_authid WHERE rolname = 'ada'"))
        .collect();
    assert!(verifiers[0].starts_with("SCRAM-SHA-256$4096:"), "{}", verifiers[0]);
    assert!(verifiers.iter().all(|verifier| *verifier == verifiers[0]), "one salt everywhere");

    let router = RouterProcess::start(&cluster, "scram", "");
    let ada = router.dsn("ada:sesame's");
    assert_eq!(psql(&ada, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2), (3), (4), (5)"), "");
    assert_eq!(psql(&ada, "SELECT count(*), current_user FROM t GROUP BY 2"), "5|ada");

    let wrong = psql(&router.dsn("ada:Sesame"), "SELECT 1");
    assert!(wrong.contains("password authentication failed for user \"ada\""), "{wrong}");
    let nobody = psql(&router.dsn("nobody:x"), "SELECT 1");
    assert!(nobody.contains("password authentication failed for user \"nobody\""), "{nobody}");

    // A changed password holds at once, the old one no more.
    assert_eq!(psql(admin, "ALTER ROLE ada PASSWORD 'open'"), "");
    assert_eq!(psql(&router.dsn("ada:open"), "SELECT 1"), "1");
    assert!(psql(&ada, "SELECT 1").contains("password authentication failed"));
}

#[tokio::test]
async fn an_md5_verifier_logs_in_by_md5_to_the_router_and_to_every_shard() {
    let cluster = two_shards();
    demand(&cluster, MD5);
    let admin = cluster.dsn();
    // What PostgreSQL makes of the password "sesame", as a dump carries it.
    let verifier = postgres_protocol::password::md5(b"sesame", "old");
    assert_eq!(psql(admin, &format!("CREATE ROLE old LOGIN PASSWORD '{verifier}'")), "");
    assert_eq!(psql(admin, "CREATE ROLE new LOGIN PASSWORD 'sesame'"), "");
    assert_eq!(psql(admin, "CREATE TABLE t (k int PRIMARY KEY); GRANT ALL ON t TO old, new"), "");
    psql(admin, "SELECT create_distributed_table('t', 'k')");

    let md5 = RouterProcess::start(&cluster, "md5", "[auth]\nmethod = \"md5\"\n");
    for user in ["old", "new"] {
        let good = md5.dsn(&format!("{user}:sesame"));
        assert_eq!(psql(&good, "SELECT count(*), current_user FROM t GROUP BY 2; SELECT 1"), "1");
        let bad = login(&md5.dsn(&format!("{user}:Sesame"))).await;
        assert_eq!(bad, format!("28P01 password authentication failed for user \"{user}\""));
    }
    // As with PostgreSQL, SCRAM is never given up for md5.
    let scram = RouterProcess::start(&cluster, "strict", "");
    let refused = login(&scram.dsn("old:sesame")).await;
    assert_eq!(refused, "28P01 password authentication failed for user \"old\"");
    assert_eq!(login(&scram.dsn("new:sesame")).await, "ok");

    // A shard that wants more than the verifier gives.
    demand(&cluster, SCRAM);
    let refused = login(&md5.dsn("old:sesame")).await;
    assert_eq!(refused, "ok", "an open connection serves the next client");
    for shard in &cluster.file.shards {
        psql(
            &shard.dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'old'",
        );
    }
    pgherd_tests::wait_until("the servers' ends to be seen", || {
        psql(&md5.dsn("old:sesame"), "SELECT 1").contains("verifier here is md5")
    });
}
