//! The console: PgBouncer's words, by psql and in both protocols.

use std::collections::BTreeMap;

use pgherd::dev::LocalCluster;
use pgherd_tests::router::RouterProcess;
use pgherd_tests::wire::Client;
use pgherd_tests::{cluster_with, psql, run, wait_until};

const TRUST: &str = "[auth]\nmethod = \"trust\"\n";

fn start() -> (LocalCluster, RouterProcess, String) {
    let cluster = cluster_with(|options| options.shards = 2);
    run(cluster.dsn(), "CREATE TABLE t (k int PRIMARY KEY, v text)");
    run(cluster.dsn(), "SELECT create_distributed_table('t', 'k')");
    run(cluster.dsn(), "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')");
    let router = RouterProcess::start(&cluster, "console", TRUST);
    let console = format!("postgres://postgres@{}/pgherd", router.listen);
    (cluster, router, console)
}

/// The rows of a SHOW by column name.
fn show(console: &str, what: &str) -> Vec<BTreeMap<String, String>> {
    let output = std::process::Command::new("psql")
        .args(["-XA", console, "-c", &format!("SHOW {what}"), "-P", "footer=off"])
        .output()
        .expect("psql runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    let mut lines = text.lines().map(|line| line.split('|').map(str::to_owned));
    let columns: Vec<String> = lines.next().expect("a head").collect();
    lines.map(|row| columns.iter().cloned().zip(row).collect()).collect()
}

#[test]
fn it_shows_who_is_there_and_what_is_open() {
    let (cluster, router, console) = start();
    let mut open = router.client();
    open.ok("BEGIN");
    open.ok("SELECT v FROM t WHERE k = 1");
    let clients = show(&console, "CLIENTS");
    let [one] = clients.as_slice() else { panic!("{clients:?}") };
    assert_eq!((&*one["user"], &*one["state"]), ("postgres", "idle in transaction"));
    let pid = open.ok("SELECT pg_backend_pid()");
    let servers = show(&console, "SERVERS");
    let busy: Vec<_> = servers.iter().filter(|server| server["state"] == "active").collect();
    assert!(busy.iter().all(|server| server["link"] == one["id"]), "{servers:?}");
    assert!(busy.iter().any(|server| pid[0].contains(&server["remote_pid"])), "{pid:?} {busy:?}");
    let pools = show(&console, "POOLS");
    let sum = |column: &str| -> u32 {
        pools.iter().map(|pool| pool[column].parse::<u32>().expect("a number")).sum()
    };
    assert_eq!(sum("sv_active") as usize, busy.len(), "{pools:?}");
    assert_eq!(sum("cl_waiting"), 0);
    open.ok("COMMIT");
    let databases = show(&console, "DATABASES");
    let ports: Vec<_> = databases.iter().map(|database| database["port"].clone()).collect();
    let known: Vec<_> = cluster.file.shards.iter().map(|shard| shard.port.to_string()).collect();
    assert_eq!(ports, known);
    let stats = show(&console, "STATS");
    let counted: u32 = stats
        .iter()
        .map(|shard| shard["total_query_count"].parse::<u32>().expect("a number"))
        .sum();
    assert!(counted >= 2, "{stats:?}");
    let users = show(&console, "USERS");
    assert_eq!(users[0]["current_connections"], "1");
    for table in show(&console, "HELP") {
        if let Some(name) = table["command"].strip_prefix("SHOW ") {
            show(&console, name);
        }
    }
    wait_until("the first look at the shards is over", || {
        show(&console, "SHARDS").iter().all(|shard| shard["up"] == "1")
    });
}

#[test]
fn both_protocols_and_mistakes_are_answered() {
    let (_cluster, router, console) = start();
    let mut admin = Client::connect(router.address(), "pgherd").expect("the console");
    for binary in [false, true] {
        let answer = admin.extended("SHOW VERSION", &[], binary).expect("an answer");
        assert_eq!((answer.error, answer.rows.len(), answer.status), (None, 1, 'I'));
        assert!(answer.rows[0].contains("pgherd "), "{:?}", answer.rows);
    }
    let wrong = admin.extended("SELECT 1", &[], false).expect("an answer");
    assert_eq!((wrong.error.as_deref(), wrong.status), (Some("42601"), 'I'));
    let wrong = admin.simple("PAUSE 99", "").expect("an answer");
    assert_eq!(wrong.error.as_deref(), Some("42704"));
    assert_eq!(admin.simple(";", "").expect("an answer").lines, ["empty query"]);
    let done = admin.extended("RECONNECT", &[], false).expect("an answer");
    assert_eq!(done.lines, ["no data", "tag: RECONNECT"]);
    assert!(psql(&console, "RESUME").contains("55000"), "nothing is paused");
}

#[test]
fn only_superusers_come_in() {
    let (cluster, router, _) = start();
    run(cluster.dsn(), "CREATE ROLE ada LOGIN");
    run(cluster.dsn(), "CREATE ROLE root LOGIN SUPERUSER");
    let console = |user: &str| format!("postgres://{user}@{}/pgherd", router.listen);
    let refused = psql(&console("ada"), "SHOW POOLS");
    assert!(refused.contains("permission denied for the console"), "{refused}");
    let unknown = psql(&console("nobody"), "SHOW POOLS");
    assert!(unknown.contains("role \"nobody\" does not exist"), "{unknown}");
    assert!(psql(&console("root"), "SHOW VERSION").starts_with("pgherd"));
}

#[test]
fn the_catalogs_own_role_comes_in_while_the_home_shard_is_down() {
    let (mut cluster, router, console) = start();
    cluster.crash_shard(0).expect("it dies");
    let states = show(&console, "SHARDS");
    assert_eq!(states.len(), 2, "{states:?}");
    let other = console.replace("postgres@", "ada@");
    assert!(psql(&other, "SHOW SHARDS").contains("roles cannot be looked up now"));
    assert_eq!(psql(&console, "DISABLE"), "");
    cluster.restart_shard(0).expect("it starts");
    assert_eq!(psql(&console, "ENABLE"), "");
    wait_until("clients come in again", || psql(&router.dsn("postgres"), "SELECT 1") == "1");
}

#[test]
fn a_home_shard_is_restarted_under_a_pause_and_no_client_sees_it() {
    let (mut cluster, router, console) = start();
    let mut staying = router.client();
    staying.ok("SELECT v FROM t WHERE k = 1");
    assert_eq!(psql(&console, "PAUSE"), "");
    cluster.crash_shard(0).expect("it dies");
    let dsn = router.dsn("postgres");
    let coming = std::thread::spawn(move || psql(&dsn, "SELECT count(*) FROM t"));
    staying.send("SELECT v FROM t WHERE k = 1").expect("sent");
    cluster.restart_shard(0).expect("it starts");
    assert_eq!(psql(&console, "RESUME"), "");
    assert_eq!(staying.wait().expect("an answer").rows, ["row: 'a'"]);
    assert_eq!(coming.join().expect("it ends"), "4");
}

#[test]
fn a_paused_shard_is_quiet_and_its_clients_go_on_afterwards() {
    let (cluster, router, console) = start();
    // The shards of two keys, by looking.
    let on = |shard: usize| run(&cluster.file.shards[shard].dsn, "SELECT min(k) FROM t");
    let (here, there) = (on(0), on(1));
    let read = |key: &str| format!("SELECT count(*) FROM t WHERE k = {key}");
    let mut open = router.client();
    open.ok("BEGIN");
    open.ok(&read(&here));
    let pausing = {
        let console = console.clone();
        std::thread::spawn(move || psql(&console, "PAUSE 1"))
    };
    assert_eq!(pausing.join().expect("it ends"), "", "nobody uses it");
    // A transaction that began before may still go there, and others go elsewhere.
    open.ok(&read(&there));
    let mut other = router.client();
    other.ok(&read(&here));
    other.send(&read(&there)).expect("sent");
    wait_until("it waits", || {
        show(&console, "CLIENTS").iter().any(|client| client["state"] == "waiting")
    });
    open.ok("COMMIT");
    wait_until("the shard is quiet", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = '' AND \
                   client_addr IS NOT NULL AND usename = 'postgres' AND query LIKE '%FROM t WHERE%'";
        run(&cluster.file.shards[1].dsn, sql) == "0"
    });
    assert_eq!(psql(&console, "RESUME shard_1"), "");
    assert_eq!(other.wait().expect("an answer").rows, ["row: '1'"]);
}

#[test]
fn a_pause_of_all_waits_for_transactions_and_holds_new_ones() {
    let (_cluster, router, console) = start();
    let mut open = router.client();
    open.ok("BEGIN");
    open.ok("INSERT INTO t VALUES (100)");
    let pausing = {
        let console = console.clone();
        std::thread::spawn(move || psql(&console, "PAUSE"))
    };
    wait_until("it is paused", || show(&console, "STATE")[1]["value"] == "yes");
    let mut waiting: Vec<Client> = (0..3).map(|_| client_in_pause(&router)).collect();
    assert!(!pausing.is_finished(), "a transaction is open");
    // It needs a shard more, and gets it.
    open.ok("INSERT INTO t VALUES (101), (102), (103), (104)");
    open.ok("COMMIT");
    assert_eq!(pausing.join().expect("it ends"), "");
    assert!(show(&console, "POOLS").iter().all(|pool| pool["sv_idle"] == "0"));
    assert_eq!(psql(&console, "RESUME"), "");
    for client in &mut waiting {
        assert_eq!(client.wait().expect("an answer").error, None);
    }
}

/// A login needs the home shard, so it is held as well; what it says first comes later.
fn client_in_pause(router: &RouterProcess) -> Client {
    let mut client = Client::open(router.address(), "app").expect("it connects");
    client.send("SELECT count(*) FROM t").expect("sent");
    client
}

#[test]
fn clients_are_killed_and_kept_out() {
    let (_cluster, router, console) = start();
    let (mut one, mut two) = (router.client(), router.client());
    one.ok("BEGIN");
    one.ok("INSERT INTO t VALUES (500)");
    two.ok("SELECT 1");
    let clients = show(&console, "CLIENTS");
    let id = clients.iter().find(|client| client["state"] == "idle in transaction").expect("one");
    assert_eq!(psql(&console, &format!("KILL {}", id["id"])), "");
    assert_eq!(one.farewell().expect("a reason"), "57P01");
    assert_eq!(two.ok("SELECT count(*) FROM t WHERE k = 500"), ["row: '0'"]);
    assert!(psql(&console, &format!("KILL {}", id["id"])).contains("42704"));
    assert_eq!(psql(&console, "DISABLE"), "");
    let app = router.dsn("postgres");
    assert!(psql(&app, "SELECT 1").contains("takes no new connections"));
    two.ok("SELECT 1");
    assert_eq!(psql(&console, "ENABLE"), "");
    assert_eq!(psql(&app, "SELECT 1"), "1");
    assert_eq!(psql(&console, "KILL app"), "");
    assert_eq!(two.farewell().expect("a reason"), "57P01");
}

#[test]
fn it_shuts_the_router_down() {
    let (_cluster, mut router, console) = start();
    let mut open = router.client();
    open.ok("BEGIN");
    assert_eq!(psql(&console, "SHUTDOWN WAIT_FOR_SERVERS"), "");
    open.ok("COMMIT");
    assert_eq!(open.farewell().expect("a reason"), "57P01");
    assert!(router.wait(), "it ends well");
}

#[test]
fn the_same_figures_are_views_for_any_client() {
    let (cluster, router, console) = start();
    run(cluster.dsn(), "CREATE ROLE ada LOGIN");
    assert_eq!(run(&router.dsn("ada"), "SELECT count(*) FROM pgherd.transactions"), "0");
    let mut client = router.client();
    let sql = "SELECT p.shard, p.active, p.size > 0 FROM pgherd.pools p JOIN pgherd.shards s \
               ON s.id = p.shard WHERE user_name = 'ada' ORDER BY p.shard DESC LIMIT 1";
    assert_eq!(client.ok(sql), ["row: '0' '0' 't'"]);
    for binary in [false, true] {
        let sql = "SELECT user_name FROM pgherd.pools WHERE user_name = $1 AND shard = 0";
        let answer = client.extended(sql, &[Some("ada")], binary).expect("an answer");
        assert_eq!((answer.error, answer.rows), (None, vec!["row: 'ada'".to_owned()]));
    }
    client.ok("BEGIN");
    client.ok("TABLE pg_database");
    let active = "SELECT active FROM pgherd.pools WHERE user_name = 'postgres' AND shard = 0";
    assert_eq!(client.ok(active), ["row: '1'"]);
    // Others' sessions are for those who may read pg_stat_activity as well.
    let joined = "SELECT c.state, s.state FROM pgherd.clients c \
                  LEFT JOIN pgherd.servers s ON s.client = c.id AND s.shard = 0 ORDER BY 1";
    assert_eq!(client.ok(joined), ["row: 'active' 'active'"]);
    client.ok("COMMIT");
    for key in 1..4 {
        client.ok(&format!("SELECT v FROM t WHERE k = {key}"));
        client
            .extended("SELECT v AS e FROM t WHERE k = $1", &[Some("2")], false)
            .expect("an answer");
    }
    let counted = "SELECT query, tier, calls, mean_ms <= max_ms FROM pgherd.statements \
                   WHERE query LIKE '%FROM t WHERE k = $1' ORDER BY query";
    assert_eq!(
        client.ok(counted),
        [
            "row: 'SELECT v AS e FROM t WHERE k = $1' 'route' '3' 't'",
            "row: 'SELECT v FROM t WHERE k = $1' 'route' '3' 't'",
        ]
    );
    let shown = show(&console, "STATEMENTS");
    let shown = shown.iter().find(|row| row["query"] == "SELECT v FROM t WHERE k = $1");
    let shown = shown.map(|row| (&*row["user"], &*row["tier"], &*row["calls"]));
    assert_eq!(shown, Some(("postgres", "route", "3")));
    assert_eq!(run(&router.dsn("ada"), "SELECT DISTINCT user_name FROM pgherd.clients"), "ada");
    let direct = psql(&cluster.file.shards[0].dsn, "SELECT * FROM pgherd.pools");
    assert!(direct.contains("only a router knows"), "{direct}");
}

#[test]
fn it_counts_what_every_shard_is_sent_and_answers() {
    let (_cluster, router, console) = start();
    let figures = || -> Vec<[u64; 3]> {
        let number = |text: &String| text.parse().expect("a number");
        let columns = ["total_query_count", "total_received", "total_sent"];
        let of_shard = |shard: &BTreeMap<_, _>| columns.map(|column| number(&shard[column]));
        show(&console, "STATS").iter().map(of_shard).collect()
    };
    let mut client = router.client();
    let rows: String = (100..200).map(|k| format!("{k}\tx\n")).collect();
    // What it is, and the bytes that must at least have come and gone on each shard.
    let statements = [
        ("COPY t FROM STDIN", 0, 100),
        ("COPY t TO STDOUT", 300, 20),
        ("SELECT k, repeat('x', 1000) FROM t", 20_000, 20),
        ("SELECT count(*) FROM t", 20, 20),
        ("UPDATE t SET v = 'y'", 20, 20),
        ("INSERT INTO t VALUES (5, 'e'), (6, 'f'), (7, 'g'), (8, 'h'), (9, 'i')", 20, 20),
        ("BEGIN; UPDATE t SET v = 'z'", 20, 20),
        ("COMMIT", 10, 10),
        ("DELETE FROM t", 20, 20),
    ];
    let mut before = figures();
    for (sql, received, sent) in statements {
        let answer = client.simple(sql, &rows).expect("an answer");
        assert_eq!(answer.error, None, "{sql}: {:?}", answer.lines);
        let after = figures();
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(after[0], before[0] + 1, "{sql}: {before:?} {after:?}");
            assert!(after[1] >= before[1] + received, "{sql}: {before:?} {after:?}");
            assert!(after[2] >= before[2] + sent, "{sql}: {before:?} {after:?}");
        }
        before = after;
    }
}

#[test]
fn a_statement_that_fails_is_counted_wherever_it_runs() {
    let (_cluster, router, _) = start();
    let mut client = router.client();
    let calls = "SELECT calls FROM pgherd.statements WHERE query LIKE '%(k - %'";
    for sql in ["SELECT 1 / (k - 1) FROM t", "UPDATE t SET v = (1 / (k - 1))::text"] {
        let answer = client.simple(sql, "").expect("an answer");
        assert_eq!(answer.error.as_deref(), Some("22012"), "{sql}");
        let answer = client.extended(sql, &[], false).expect("an answer");
        assert_eq!(answer.error.as_deref(), Some("22012"), "{sql}");
    }
    assert_eq!(client.ok(calls), ["row: '2'"; 2], "each once in either protocol");
}
