//! TLS towards the shards, for clients' sessions and for the router's own connections.

use std::process::Command;

use pgherd::dev::{ClusterFile, LocalCluster};
use pgherd_tests::dev::TestDir;
use pgherd_tests::router::RouterProcess;
use pgherd_tests::{pgbench, psql, run, wait_until};

use crate::authority::{Authority, encrypt_shards, give_to_server, subject};
use crate::{login, two_shards};

/// Shards that talk by TLS only, known by the name that is in their certificates.
fn encrypted(authority: &Authority, rule: &str) -> LocalCluster {
    let mut cluster = two_shards();
    encrypt_shards(&cluster, authority);
    for shard in &cluster.file.shards {
        let rules = format!(
            "hostssl all postgres 127.0.0.1/32 trust\nhostnossl all postgres 127.0.0.1/32 trust\n\
             {rule}\n"
        );
        std::fs::write(shard.data_dir.join("pg_hba.conf"), rules).expect("it can be written");
        assert_eq!(psql(&shard.dsn, "SELECT pg_reload_conf()"), "t");
    }
    let home = cluster.file.shards[0].dsn.clone();
    for shard in &cluster.file.shards {
        let sql = format!(
            "SELECT pgherd.set_dsn({}, 'postgres://localhost:{}/app', \
             (SELECT epoch FROM pgherd.cluster))",
            shard.id, shard.port
        );
        run(&home, &sql);
    }
    cluster.file.catalog.dsn = cluster.file.catalog.dsn.replace("127.0.0.1", "localhost");
    cluster
}

/// How the connections to all shards are encrypted, but for those of this question.
fn unencrypted(file: &ClusterFile, user: &str) -> usize {
    let count = |dsn: &str| -> usize {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE NOT ssl AND usename = '{user}' AND application_name <> 'psql'"
        );
        run(dsn, &sql).parse().expect("a number")
    };
    file.shards.iter().map(|shard| count(&shard.dsn)).sum()
}

/// `pgherd status`, or why there is none.
fn status(catalog: &str) -> String {
    let output = Command::new(pgherd_tests::program())
        .args(["status", "--json", "--catalog", catalog])
        .output()
        .expect("pgherd status starts");
    let text = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn sessions_reach_shards_that_are_who_they_must_be() {
    let dir = TestDir::new();
    let authority = Authority::new(dir.path(), "authority");
    let cluster = encrypted(&authority, "hostssl all all 127.0.0.1/32 scram-sha-256");
    let admin = cluster.dsn();
    run(admin, "CREATE ROLE ada LOGIN PASSWORD 'a'");
    run(admin, "CREATE TABLE t (k int PRIMARY KEY, v text); GRANT ALL ON t TO ada");
    run(admin, "SELECT create_distributed_table('t', 'k')");
    let tls = |mode: &str, ca: &Authority| {
        format!("[shard_tls]\nsslmode = '{mode}'\nsslrootcert = '{}'\n", ca.file.display())
    };
    let router = RouterProcess::start(&cluster, "full", &tls("verify-full", &authority));
    let ada = router.dsn("ada:a");
    // Large rows both ways: no part of them may be left behind in TLS.
    run(&ada, "INSERT INTO t VALUES (1, repeat('x', 3000000))");
    let long = "y".repeat(30_000);
    run(&ada, &format!("INSERT INTO t VALUES (2, '{long}'), (3, '{long}'), (4, '{long}')"));
    assert_eq!(run(&ada, "SELECT sum(length(v)) FROM t"), "3090000");
    assert_eq!(run(&ada, "SELECT v FROM t WHERE k = 1").len(), 3_000_000);
    assert_eq!(run(&ada, "COPY t TO STDOUT").len(), 3_090_000 + 4 * 2 + 3);
    let data = dir.path().join("rows");
    let rows = (1..=20_000).map(|k| format!("{}\t{}\n", k + 10, "z".repeat(200)));
    std::fs::write(&data, rows.collect::<String>()).expect("it can be written");
    run(&ada, &format!("\\copy t FROM '{}'", data.display()));
    assert_eq!(run(&ada, "SELECT count(*), sum(length(v)) FROM t"), "20004|7090000");
    let script = dir.path().join("script");
    let text = "\\set k random(11, 20010)\nSELECT v FROM t WHERE k = :k;\nBEGIN;\n\
                UPDATE t SET v = v || 'z' WHERE k = :k;\n\
                UPDATE t SET v = v || 'z' WHERE k = 20021 - :k;\nCOMMIT;\n";
    std::fs::write(&script, text).expect("it can be written");
    let script = script.to_str().expect("a path of ASCII");
    for mode in ["simple", "prepared"] {
        pgbench(&ada, &["-n", "-M", mode, "-c", "4", "-t", "25", "-f", script]);
    }
    assert_eq!(run(&ada, "SELECT sum(length(v)) FROM t"), "7090400");
    assert_eq!(unencrypted(&cluster.file, "ada"), 0);

    // Without encryption the shards let nobody in, and it is they who say so.
    let plain = RouterProcess::start(&cluster, "plain", "[shard_tls]\nsslmode = 'disable'\n");
    let refused = login(&plain.dsn("ada:a")).await;
    assert!(refused.starts_with("28000 no pg_hba.conf entry"), "{refused}");
    // It is the default where servers have it.
    let prefer = RouterProcess::start(&cluster, "prefer", "");
    assert_eq!(run(&prefer.dsn("ada:a"), "SELECT count(*) FROM t"), "20004");
}

#[test]
fn a_server_that_cannot_prove_its_name_is_not_spoken_to() {
    let dir = TestDir::new();
    let authority = Authority::new(dir.path(), "authority");
    let other = Authority::new(dir.path(), "other");
    let cluster = encrypted(&authority, "hostssl all all 127.0.0.1/32 trust");
    let home = &cluster.file.shards[0];
    let status = |host: &str, mode: &str, ca: &Authority| {
        status(&format!(
            "postgres://postgres@{host}:{}/app?sslmode={mode}&sslrootcert={}",
            home.port,
            ca.file.display()
        ))
    };
    for (host, mode) in
        [("localhost", "verify-full"), ("127.0.0.1", "verify-ca"), ("localhost", "require")]
    {
        let answer = status(host, mode, &authority);
        assert!(answer.contains("\"reachable\": true"), "{host} {mode}: {answer}");
    }
    for (host, mode, ca, problem) in [
        ("127.0.0.1", "verify-full", &authority, "not valid for name"),
        ("localhost", "verify-full", &other, "UnknownIssuer"),
        ("localhost", "verify-ca", &other, "UnknownIssuer"),
        ("localhost", "require", &other, "UnknownIssuer"),
    ] {
        let answer = status(host, mode, ca);
        assert!(answer.contains(problem), "{host} {mode}: {answer}");
    }
}

/// By the recipe of PostgreSQL's manual, which gives X.509 v1 without names of hosts.
#[test]
fn where_nobody_vouches_for_a_server_any_certificate_will_do() {
    let dir = TestDir::new();
    let cluster = encrypted(&Authority::new(dir.path(), "authority"), "");
    let home = &cluster.file.shards[0];
    let openssl = |args: &[&str]| {
        let done = Command::new("openssl").args(args).current_dir(&home.data_dir).output();
        assert!(done.expect("openssl is installed").status.success(), "{args:?}");
    };
    openssl(&["req", "-new", "-nodes", "-subj", "/CN=db", "-keyout", "server.key", "-out", "csr"]);
    openssl(&["x509", "-req", "-in", "csr", "-signkey", "server.key", "-out", "server.crt"]);
    give_to_server(&home.data_dir, &["server.key", "server.crt"]);
    assert_eq!(psql(&home.dsn, "SELECT pg_reload_conf()"), "t");
    let address = format!("localhost:{}", home.port);
    wait_until("the server to show its new certificate", || subject(&address).contains("db"));
    let answer = status(&format!("postgres://postgres@{address}/app?sslmode=require"));
    assert!(!answer.contains("\"reachable\": false"), "{answer}");
    assert!(answer.contains("\"reachable\": true"), "{answer}");
}

#[test]
fn the_routers_certificate_speaks_for_clients_that_have_no_password() {
    let dir = TestDir::new();
    let authority = Authority::new(dir.path(), "authority");
    let rule = "hostssl all all 127.0.0.1/32 trust clientcert=verify-ca";
    let cluster = encrypted(&authority, rule);
    run(cluster.dsn(), "CREATE ROLE ada LOGIN");
    let own = authority.sign(dir.path(), "own", "router", &[]);
    let config = format!(
        "[auth]\nmethod = 'trust'\n[shard_tls]\nsslmode = 'verify-full'\nsslrootcert = '{}'\n",
        authority.file.display()
    );
    let stranger = RouterProcess::start(&cluster, "stranger", &config);
    let refused = psql(&stranger.dsn("ada"), "SELECT 1");
    assert!(refused.contains("valid client certificate"), "{refused}");
    let config =
        format!("{config}sslcert = '{}'\nsslkey = '{}'\n", own.cert.display(), own.key.display());
    let known = RouterProcess::start(&cluster, "known", &config);
    assert_eq!(psql(&known.dsn("ada"), "SELECT current_user"), "ada");

    // Each new connection takes the certificate that is there: now one that the shards do not
    // believe, then again one that they do.
    Authority::new(dir.path(), "other").sign(dir.path(), "own", "router", &[]);
    for shard in &cluster.file.shards {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ada'";
        run(&shard.dsn, sql);
    }
    wait_until("the strange certificate to be refused", || {
        psql(&known.dsn("ada"), "SELECT 1").contains("UnknownCA")
    });
    authority.sign(dir.path(), "own", "router", &[]);
    wait_until("the shard to be tried again, with the new certificate", || {
        psql(&known.dsn("ada"), "SELECT current_user") == "ada"
    });
}
