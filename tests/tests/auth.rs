//! Logins: SCRAM at the router with the shards' verifiers, passed on to every shard.

use pgherd::dev::LocalCluster;
use pgherd_tests::router::RouterProcess;
use pgherd_tests::{cluster, psql};

/// Shards that trust nobody but the superuser.
fn demand_passwords(cluster: &LocalCluster) {
    for shard in &cluster.file.shards {
        let rules = "local all all trust\n\
                     host all postgres 127.0.0.1/32 trust\n\
                     host all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(shard.data_dir.join("pg_hba.conf"), rules).expect("it can be written");
        assert_eq!(psql(&shard.dsn, "SELECT pg_reload_conf()"), "t");
    }
}

#[test]
fn one_password_logs_in_to_the_router_and_through_it_to_every_shard() {
    let cluster = cluster();
    demand_passwords(&cluster);
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

    let router = RouterProcess::start(&cluster, "scram", "[auth]\nmethod = \"scram-sha-256\"\n");
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
    assert_eq!(psql(admin, "ALTER ROLE ada NOLOGIN"), "");
    assert!(psql(&router.dsn("ada:open"), "SELECT 1").contains("password authentication failed"));
}
