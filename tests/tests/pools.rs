//! Pools of a real router: storms, dead and stopped shards, ages, places that move.

use futures_util::future::join_all;
use pgherd::dev::LocalCluster;
use pgherd_tests::router::RouterProcess;
use pgherd_tests::wire::Client;
use pgherd_tests::{cluster_with, psql, run, signal, wait_until};
use rustix::process::Signal;

fn cluster() -> LocalCluster {
    let cluster = cluster_with(|options| options.shards = 2);
    run(cluster.dsn(), "CREATE TABLE t (k int PRIMARY KEY)");
    run(cluster.dsn(), "SELECT create_distributed_table('t', 'k')");
    run(cluster.dsn(), "INSERT INTO t VALUES (1), (2), (3), (4), (5), (6)");
    cluster
}

fn start(cluster: &LocalCluster, name: &str, pool: &str) -> RouterProcess {
    let (workers, pool) = pool.split_once(';').unwrap_or(("workers = 2", pool));
    let config = format!("{workers}\n[auth]\nmethod = \"trust\"\n[pool]\n{pool}\n");
    RouterProcess::start(cluster, name, &config)
}

/// Reads one row that is on this shard.
fn read(cluster: &LocalCluster, shard: usize) -> String {
    let key = run(&cluster.file.shards[shard].dsn, "SELECT min(k) FROM t");
    format!("SELECT k FROM t WHERE k = {key}")
}

/// One column of `pgherd.pools` of the superuser's pools, by shard.
fn pools(router: &RouterProcess, column: &str) -> String {
    let sql = format!(
        "SELECT string_agg(({column})::text, ' ' ORDER BY shard) FROM pgherd.pools \
         WHERE user_name = 'postgres'"
    );
    run(&router.dsn("ada"), &sql)
}

#[test]
fn five_hundred_clients_at_once_are_served_by_four_connections() {
    let cluster = cluster();
    run(cluster.dsn(), "CREATE ROLE ada LOGIN");
    let router = start(&cluster, "storm", "size = 4\nwait = \"60s\"");
    let sql = read(&cluster, 1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dsn = router.dsn("postgres");
    let visits = (0..500).map(|_| async {
        let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await?;
        let connection = tokio::spawn(connection);
        let rows = client.simple_query(&sql).await?.len();
        drop(client);
        // It ends as the client does.
        let _ = connection.await;
        Ok::<_, tokio_postgres::Error>(rows)
    });
    for visit in runtime.block_on(join_all(visits)) {
        assert!(visit.expect("every client is served") >= 2, "a row and a tag");
    }
    let open = pools(&router, "active + idle + opening");
    assert!(open.split(' ').all(|count| count.parse::<u32>().expect("a number") <= 4), "{open}");
}

/// A stopped process, which goes on when this is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Self {
        signal(pid, Signal::STOP);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, Signal::CONT);
    }
}

#[test]
fn a_stopped_shard_hurts_nobody_who_does_not_need_it() {
    let cluster = cluster();
    let router = start(&cluster, "stopped", "size = 4\nconnect_timeout = \"500ms\"\nwait = \"5s\"");
    let (here, there) = (read(&cluster, 0), read(&cluster, 1));
    let mut fine = router.client();
    let mut hurt: Vec<Client> = (0..12).map(|_| router.client()).collect();
    fine.ok(&here);
    let stopped = Stopped::new(cluster.file.shards[1].pid);
    // What is open still works: only the process that opens connections has stopped.
    assert_eq!(psql(&format!("postgres://postgres@{}/pgherd", router.listen), "RECONNECT 1"), "");
    for client in &mut hurt {
        client.send(&there).expect("sent");
    }
    for _ in 0..200 {
        fine.ok(&here);
    }
    for client in &mut hurt {
        let answer = client.wait().expect("an answer");
        assert_eq!(answer.error.as_deref(), Some("08006"), "{:?}", answer.lines);
        client.ok(&here);
    }
    drop(stopped);
    // Each thread finds out by itself.
    for client in &mut hurt {
        wait_until("the shard serves again", || {
            client.simple(&there, "").expect("an answer").error.is_none()
        });
    }
}

#[test]
fn a_killed_shard_is_an_error_until_it_is_back() {
    let mut cluster = cluster();
    let router = start(&cluster, "killed", "size = 4");
    let (here, there) = (read(&cluster, 0), read(&cluster, 1));
    let mut clients: Vec<Client> = (0..6).map(|_| router.client()).collect();
    for client in &mut clients {
        client.ok(&there);
    }
    cluster.crash_shard(1).expect("it dies");
    for client in &mut clients {
        let answer = client.simple(&there, "").expect("an answer");
        assert_eq!(answer.error.as_deref(), Some("08006"), "{:?}", answer.lines);
        client.ok(&here);
    }
    cluster.restart_shard(1).expect("it starts");
    for client in &mut clients {
        wait_until("the shard serves again", || {
            client.simple(&there, "").expect("an answer").error.is_none()
        });
    }
}

#[test]
fn connections_are_warm_before_the_first_client_comes() {
    let cluster = cluster();
    run(cluster.dsn(), "CREATE ROLE ada LOGIN");
    let router = start(&cluster, "warm", "size = 8\nmin_size = 4\nwarm_users = [\"postgres\"]");
    wait_until("all are open", || pools(&router, "idle") == "4 4");
    for shard in &cluster.file.shards {
        let gone = run(
            &shard.dsn,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE usename = 'postgres' AND pid <> pg_backend_pid() AND query LIKE '%SELECT epoch FROM pgherd.local' \
             AND backend_type = 'client backend'",
        );
        assert!(gone.parse::<u32>().expect("a number") >= 4, "{gone}");
    }
    // Those that have ended are found out when they are taken, and replaced.
    let mut client = router.client();
    client.ok("SELECT count(*) FROM t");
    wait_until("they are open again", || pools(&router, "active + idle") == "4 4");
}

#[test]
fn a_connection_ends_with_its_lifetime_but_not_in_a_transaction() {
    let cluster = cluster();
    let router = start(&cluster, "ages", "max_lifetime = \"500ms\"");
    let mut client = router.client();
    let pid = "SELECT pg_backend_pid()";
    client.ok("BEGIN");
    let before = client.ok(pid);
    client.ok("SELECT pg_sleep(2)");
    assert_eq!(client.ok(pid), before, "its transaction is open");
    client.ok("COMMIT");
    assert_ne!(client.ok(pid), before);
}

#[test]
fn a_thread_without_places_borrows_one_from_its_neighbour() {
    let cluster = cluster();
    run(cluster.dsn(), "CREATE ROLE ada LOGIN");
    // One connection for each of two threads.
    let router = start(&cluster, "lends", "size = 2\nwait = \"60s\"");
    let mut clients: Vec<Client> = (0..4).map(|_| router.client()).collect();
    let pid = "SELECT pg_backend_pid()";
    clients[0].ok("BEGIN");
    let held = clients[0].ok(pid);
    // Clients are dealt in turn: one of these is on the first one's thread, and it goes on.
    for client in &mut clients[1..] {
        assert_ne!(client.ok(pid), held);
    }
    assert_eq!(pools(&router, "active").split(' ').next(), Some("1"));
    let open = pools(&router, "active + idle");
    assert!(open.split(' ').all(|count| matches!(count, "0" | "1" | "2")), "{open}");
    clients[0].ok("COMMIT");
    // Nor do transactions starve, wherever the places are now.
    for round in 0..20 {
        for client in &mut clients {
            client.ok("BEGIN");
            client.ok("SELECT count(*) FROM t");
            client.ok(if round % 2 == 0 { "COMMIT" } else { "ROLLBACK" });
        }
    }
}
