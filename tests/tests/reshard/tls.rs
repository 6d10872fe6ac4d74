//! Rows between servers go by the address that the catalog has, with the TLS that it asks for.

use std::path::Path;
use std::process::Command;

use pgherd_tests::{cluster_with, run, wait_until};

use super::command::{assert_clean, reshard, try_reshard};

#[test]
fn rows_move_encrypted_between_servers_that_are_who_they_say() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    // A server takes a key only if nobody else can read it.
    let own = tempfile::tempdir().expect("a directory");
    for name in ["server.crt", "server.key"] {
        std::fs::copy(data.join(name), own.path().join(name)).expect("it can be copied");
    }
    let (crt, key) = (own.path().join("server.crt"), own.path().join("server.key"));
    let sh = format!(
        "chmod 755 {dir}; chmod 600 {key}; if [ $(id -u) = 0 ]; then chown postgres {key}; fi",
        dir = own.path().display(),
        key = key.display()
    );
    assert!(Command::new("sh").args(["-c", &sh]).status().expect("sh runs").success());
    let cluster = cluster_with(|options| {
        options.shards = 2;
        options.pg_conf.push("max_worker_processes=16".into());
        options.pg_conf.push("ssl=on".into());
        options.pg_conf.push(format!("ssl_cert_file={}", crt.display()));
        options.pg_conf.push(format!("ssl_key_file={}", key.display()));
    });
    let dsn = cluster.dsn();
    run(dsn, "CREATE TABLE accounts (k int PRIMARY KEY, v int)");
    run(dsn, "SELECT create_distributed_table('accounts', 'k')");
    run(dsn, "INSERT INTO accounts SELECT g, g FROM generate_series(1, 200) g");
    let address = |shard: usize, host: &str| {
        let port = cluster.file.shards[shard].port;
        format!("postgres://{host}:{port}/app?sslmode=verify-full&sslrootcert={}", crt.display())
    };
    let set = |shard: usize, host: &str| {
        let address = address(shard, host);
        let sql = format!("SELECT pgherd.set_dsn({shard}, '{address}', epoch) FROM pgherd.cluster");
        run(&cluster.file.catalog.dsn, &sql);
    };
    set(0, "localhost");
    // The certificate is of another name.
    set(1, "127.0.0.1");
    let refused = try_reshard(&cluster, &["start", "--drain", "1", "--to", "0"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("certificate"), "{said}");
    set(1, "localhost");
    for (from, to) in [("1", "0"), ("0", "1")] {
        reshard(&cluster, &["start", "--drain", from, "--to", to]);
        let source = &cluster.file.shards[usize::from(from == "1")].dsn;
        let encrypted = "SELECT bool_and(s.ssl) FROM pg_stat_replication r \
                         JOIN pg_stat_ssl s USING (pid)";
        wait_until("the stream is encrypted", || run(source, encrypted) == "t");
        reshard(&cluster, &["cutover", "--max-pause", "2s"]);
        run(dsn, "UPDATE accounts SET v = v + 1");
        reshard(&cluster, &["rollback", "--max-pause", "2s"]);
        reshard(&cluster, &["cutover", "--max-pause", "2s"]);
        reshard(&cluster, &["finish"]);
    }
    assert_eq!(run(dsn, "SELECT count(*), sum(v) FROM accounts"), "200|20500");
    assert_clean(&cluster);
}
