//! After many short sessions that end in every bad way, nothing of them is left: each server
//! connection is counted, idle and as good as new.
//!
//! `PGHERD_LEAK_SESSIONS` says how many (10000 for the whole), `PGHERD_LEAK_SEED` which.

use std::net::SocketAddr;
use std::time::Duration;

use pgherd::dev::LocalCluster;
use pgherd_tests::wire::Client;
use pgherd_tests::{cluster_with, run, wait_until};

/// Sessions at a time.
const THREADS: u64 = 4;

/// What a session does, several of them in any order; errors are a part of it.
const STEPS: &[&str] = &[
    "SELECT * FROM t WHERE k = 3",
    "SELECT count(*) FROM t",
    "UPDATE t SET v = v || 'x' WHERE k = 5",
    "UPDATE t SET v = 'same'",
    "INSERT INTO t VALUES (1, 'there already')",
    "SELECT 1 / 0",
    "BEGIN",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "SET work_mem = '7MB'",
    "SET LOCAL work_mem = '8MB'",
    "SET search_path = pg_catalog, public",
    "SET LOCAL search_path = pg_catalog",
    "SET app.tenant = '5'",
    "SELECT set_config('app.tenant', '6', true)",
    "SELECT set_config('TimeZone', 'Asia/Tokyo', false)",
    "SET ROLE leak_clerk",
    "SET SESSION AUTHORIZATION leak_clerk",
    "RESET ROLE",
    "RESET ALL",
    "DISCARD ALL",
    "CREATE TEMP TABLE x (a int)",
    "CREATE TEMP TABLE y (a int) ON COMMIT DROP",
    "INSERT INTO x VALUES (1)",
    "DROP TABLE x",
    "SELECT pg_try_advisory_lock(11)",
    "SELECT pg_try_advisory_xact_lock(12)",
    "SELECT pg_advisory_unlock(11)",
    "LISTEN leak",
    "NOTIFY leak, 'drip'",
    "UNLISTEN leak",
    "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 100)",
    "FETCH 5 FROM c",
    "CLOSE c",
    "PREPARE p AS SELECT v FROM t WHERE k = $1",
    "EXECUTE p (4)",
    "EXECUTE p (now())",
    "SET statement_timeout = 1000; SELECT 1; SELECT 1 / 0",
    "DO $$ BEGIN PERFORM set_config('work_mem', '9MB', false); END $$",
    "DO $$ BEGIN PERFORM set_config('app.tenant', '7', false); END $$",
    "SELECT leak_tenant('8')",
    "SELECT leak_settings()",
    "SELECT leak_lock()",
    "INSERT INTO noted VALUES (1)",
    "COPY t TO STDOUT",
    "SET TRANSACTION READ ONLY",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
];

/// What changes the session where the router does not see it.
const FUNCTIONS: &str = "CREATE TABLE noted (a int);
    CREATE FUNCTION leak_tenant(t text) RETURNS text LANGUAGE sql
        AS $$ SELECT set_config('app.tenant', t, false) $$;
    CREATE FUNCTION leak_settings() RETURNS void LANGUAGE plpgsql
        AS $$ BEGIN SET work_mem = '6MB'; SET search_path = pg_catalog; END $$;
    CREATE FUNCTION leak_lock() RETURNS void LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_try_advisory_lock(13); CREATE TEMP TABLE z (a int); END $$;
    CREATE FUNCTION leak_note() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM set_config('app.tenant', 'noted', false); RETURN new; END $$;
    CREATE TRIGGER note BEFORE INSERT ON noted FOR EACH ROW EXECUTE FUNCTION leak_note()";

/// Long or large: to be left in the middle.
const LONG: &[&str] = &[
    "SELECT pg_sleep(100)",
    "SELECT pg_sleep(100) FROM t",
    "SELECT repeat('x', 1000) FROM generate_series(1, 100000)",
    "SELECT t.v, repeat('x', 100000) FROM t ORDER BY k",
    "UPDATE t SET v = pg_sleep(100)::text",
];

/// What is asked of each server in the end, and the only answer.
const AS_NEW: &str = "SELECT current_setting('work_mem'), current_setting('search_path'), \
    current_setting('TimeZone') = reset_val, current_setting('statement_timeout'), \
    current_setting('default_transaction_read_only'), current_user, session_user, \
    coalesce(current_setting('app.tenant', true), ''), \
    (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
    (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_listening_channels()) \
    FROM pg_settings WHERE name = 'TimeZone'";

/// A small generator, so that a seed gives the same sessions everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % limit as u64).expect("below a usize")
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

#[test]
fn nothing_is_left_of_sessions_that_ended_badly() {
    let number = |name: &str, usual| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
    };
    let sessions: u64 = number("PGHERD_LEAK_SESSIONS", 400);
    let seed: u64 = number("PGHERD_LEAK_SEED", 1);
    eprintln!("repeat: PGHERD_LEAK_SEED={seed} PGHERD_LEAK_SESSIONS={sessions}");
    let cluster = cluster_with(|options| {
        // Writers of several rows on several shards may wait for each other.
        options.pg_conf.push("lock_timeout=1s".into());
    });
    run(cluster.dsn(), "CREATE TABLE t (k int PRIMARY KEY, v text)");
    run(cluster.dsn(), "SELECT create_distributed_table('t', 'k')");
    let rows: Vec<String> = (1..=20).map(|k| format!("({k}, 'v')")).collect();
    run(cluster.dsn(), &format!("INSERT INTO t VALUES {}", rows.join(", ")));
    run(cluster.dsn(), "CREATE ROLE leak_clerk");
    run(cluster.dsn(), FUNCTIONS);
    let address = cluster.file.routers[0].listen;
    let database = cluster.file.database.as_str();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for session in (thread..sessions).step_by(THREADS as usize) {
                    let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(session));
                    let mut trail = String::new();
                    if let Err(error) = live(address, database, &mut random, &mut trail) {
                        panic!("session {session} of seed {seed}: {error}\n{trail}");
                    }
                }
            });
        }
    });
    let mut last = String::new();
    wait_until("every server connection is idle and counted", || {
        let wrong = uncounted(&cluster);
        if wrong != last {
            eprintln!("{wrong}");
            last.clone_from(&wrong);
        }
        wrong.is_empty()
    });
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM t"), "20");
    as_new(&cluster);
}

/// One session: some statements, then an end. `trail`: what it has done, and heard.
fn live(
    address: SocketAddr,
    database: &str,
    random: &mut Random,
    trail: &mut String,
) -> std::io::Result<()> {
    let mut client = Client::connect(address, database)?;
    for _ in 0..random.below(8) {
        let step = random.of(STEPS);
        *trail += &format!("{step}\n");
        let answer = if random.below(3) == 0 {
            client.extended(step, &[], random.below(2) == 0)?
        } else {
            client.simple(step, "")?
        };
        *trail += &format!("  {:?}\n", answer.lines);
    }
    let end = random.below(7);
    *trail += &format!("end {end}\n");
    match end {
        // It vanishes, whatever it was in.
        0 => {}
        1 => client.send(random.of(STEPS))?,
        2 => client.send(random.of(LONG))?,
        3 => {
            client.send("COPY t FROM STDIN")?;
            client.copy_rows("100\thalf\n200\tdone")?;
        }
        4 => {
            client.send(random.of(LONG))?;
            client.cancel()?;
        }
        5 => {
            client.send("SELECT pg_sleep(100)")?;
            // A request that comes before the statement stops nothing: it is sent again.
            while !client.answers_within(Duration::from_millis(50))? {
                client.cancel()?;
            }
            // 57014, or 25P02 in a transaction that had failed before.
            let answer = client.wait()?;
            *trail += &format!("  {:?}\n", answer.lines);
            assert!(answer.error.is_some(), "{answer:?}");
            client.simple("SELECT 1", "")?;
        }
        _ => {
            let answer = client.simple("ROLLBACK", "")?;
            *trail += &format!("  {:?}\n", answer.lines);
            let answer = client.simple("SELECT 1 AS one", "")?;
            assert_eq!(answer.error, None, "{answer:?}");
        }
    }
    Ok(())
}

/// What is wrong with the connections on the shards: all should be idle, hold nothing, and be those
/// that the router's pools count. Empty if nothing is.
fn uncounted(cluster: &LocalCluster) -> String {
    let metrics = metrics(cluster.file.routers[0].http);
    let mut wrong = String::new();
    for shard in &cluster.file.shards {
        let count = |state: &str| -> i64 {
            let prefix = format!("pgherd_pool_connections{{shard=\"{}\",", shard.id);
            let lines = metrics.lines().filter(|line| line.starts_with(&prefix));
            let figures = lines.filter(|line| line.contains(&format!("state=\"{state}\"")));
            figures.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum()
        };
        let sql = "SELECT count(*) FILTER (WHERE state = 'idle'), count(*), \
                   (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), \
                   (SELECT count(*) FROM pg_prepared_xacts) \
                   FROM pg_stat_activity WHERE backend_type = 'client backend' \
                   AND pid <> pg_backend_pid() AND application_name NOT LIKE 'pgherd%'";
        let (idle, active) = (count("idle"), count("active"));
        let found = run(&shard.dsn, sql);
        if active != 0 || found != format!("{idle}|{idle}|0|0") {
            let sql = "SELECT pid, state, application_name, query FROM pg_stat_activity \
                       WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
            wrong += &format!(
                "shard {}: the pools count {idle} idle and {active} active, the shard has \
                 idle|all|locks|prepared {found}\n{}\n",
                shard.id,
                run(&shard.dsn, sql)
            );
        }
    }
    wrong
}

/// Every pooled connection, held by transactions of as many clients at once, is as new.
fn as_new(cluster: &LocalCluster) {
    let router = &cluster.file.routers[0];
    let pooled = metrics(router.http);
    let most = pooled
        .lines()
        .filter(|line| line.starts_with("pgherd_pool_connections{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .max()
        .expect("pools have figures");
    let mut clients = Vec::new();
    let wanted =
        "row: '4MB' '\"$user\", public' 't' '0' 'off' 'postgres' 'postgres' '' '0' '0' '0' '0'";
    for _ in 0..most {
        let mut client =
            Client::connect(router.listen, &cluster.file.database).expect("it is let in");
        client.simple("BEGIN", "").expect("an answer");
        for shard in &cluster.file.shards {
            let sql = format!("/* pgherd: shard={} */ {AS_NEW}", shard.id);
            let answer = client.simple(&sql, "").expect("an answer");
            assert_eq!(answer.error, None, "{:?}", answer.lines);
            assert_eq!(answer.rows, [wanted], "on shard {}", shard.id);
        }
        clients.push(client);
    }
}

fn metrics(http: SocketAddr) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(http).expect("the router answers");
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").expect("it is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it is text");
    text
}
