//! A router whose way to the catalog alone is cut, while it reaches the shards and clients reach it:
//! it neither reads nor writes rows that have moved.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use pgherd::dev::LocalCluster;
use pgherd_tests::proxy::FaultProxy;
use pgherd_tests::router::RouterProcess;
use pgherd_tests::wire::Client;
use pgherd_tests::{run, wait_until};

use super::command::{assert_clean, reshard, start};
use super::load::cluster;

const TRUST: &str = "[auth]\nmethod = \"trust\"\n";

/// How the way is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Connections end, and new ones are refused.
    Off,
    /// Nothing passes, and nobody is told: the catalog takes the router for one that is there.
    Silent,
}

/// A router behind a proxy to the catalog.
struct Behind {
    proxy: FaultProxy,
    router: RouterProcess,
}

impl Behind {
    fn new(cluster: &LocalCluster) -> Self {
        let home = &cluster.file.shards[0].dsn;
        let (_, rest) = home.split_once("127.0.0.1:").expect("it is on this machine");
        let port = rest.split('/').next().and_then(|port| port.parse().ok()).expect("a port");
        let proxy = FaultProxy::start(SocketAddr::from(([127, 0, 0, 1], port)), Arc::default());
        let catalog = cluster
            .file
            .catalog
            .dsn
            .replace(&format!("127.0.0.1:{port}"), &proxy.address.to_string());
        let router = RouterProcess::start_by(cluster, &catalog, "127.0.0.1:0", "behind", TRUST);
        Self { proxy, router }
    }

    fn cut(&self, cut: Cut, is: bool) {
        match cut {
            Cut::Off => {
                self.proxy.refuse(is);
                self.proxy.cut();
            }
            Cut::Silent => self.proxy.stall(is),
        }
    }
}

/// What a client of the router that is cut off was told.
#[derive(Debug, Default)]
struct Told {
    answers: i64,
    refusals: Vec<String>,
    /// Rows older than what others had been told before.
    stale: Vec<String>,
    /// It ended without a word of what had become of it.
    unclear: i64,
}

/// Runs a statement through the router, over and over. Of a read, `newest` is the least that it may
/// answer.
fn repeat(router: &str, sql: &str, newest: &AtomicI64, over: &AtomicBool) -> Told {
    let mut told = Told::default();
    let address: SocketAddr = router.parse().expect("an address");
    let mut client = None;
    while !over.load(Ordering::Relaxed) {
        let Some(open) = client.as_mut() else {
            client = Client::connect(address, "app").ok();
            continue;
        };
        let least = newest.load(Ordering::SeqCst);
        match open.simple(sql, "") {
            Ok(answer) if answer.error.is_none() => {
                told.answers += 1;
                let Some(row) = answer.rows.first() else { continue };
                let number = row.trim_matches(|c: char| !c.is_ascii_digit()).parse::<i64>();
                if number.is_ok_and(|number| number < least) {
                    told.stale.push(format!("{row} after {least}"));
                }
            }
            Ok(answer) => {
                let lines = answer.lines.join(" ");
                // A closed gate has kept it from doing anything.
                told.unclear += i64::from(!lines.contains("40001"));
                told.refusals.push(lines);
            }
            Err(_) => {
                told.unclear += 1;
                client = None;
            }
        }
    }
    told
}

fn stays_out(cut: Cut, cut_before: &str) {
    let cluster = cluster(2, 1);
    let behind = Behind::new(&cluster);
    let shard = &cluster.file.shards[0].dsn;
    let keys = run(shard, "SELECT k FROM accounts ORDER BY k LIMIT 2");
    let keys: Vec<String> = keys.lines().map(str::to_owned).collect();
    let keys: [String; 2] = keys.try_into().expect("two keys");
    let (newest, over) = (AtomicI64::new(0), AtomicBool::new(false));
    let others = &cluster.file.routers[0];
    let (read, written) = std::thread::scope(|scope| {
        let listen = &behind.router.listen;
        let read = format!("SELECT v FROM accounts WHERE k = {}", keys[0]);
        let write = format!("UPDATE accounts SET v = v + 1 WHERE k = {}", keys[1]);
        let (newest, over) = (&newest, &over);
        let reader = scope.spawn(move || repeat(listen, &read, newest, over));
        let other = scope.spawn(move || repeat(listen, &write, newest, over));
        let keys = &keys;
        let writer = scope.spawn(move || {
            let mut client = Client::connect(others.listen, "app").expect("it lets us in");
            while !over.load(Ordering::Relaxed) {
                let sql = format!("UPDATE accounts SET v = v + 1 WHERE k = {}", keys[0]);
                client.ok(&sql);
                newest.fetch_add(1, Ordering::SeqCst);
            }
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let step = |name: &str| {
                if name == cut_before {
                    behind.cut(cut, true);
                }
            };
            step("start");
            start(&cluster, 0, 1);
            step("cutover");
            reshard(&cluster, &["cutover", "--max-pause", "2s"]);
            let moved = newest.load(Ordering::SeqCst);
            wait_until("others write on", || newest.load(Ordering::SeqCst) > moved + 20);
            step("finish");
            reshard(&cluster, &["finish"]);
            let done = newest.load(Ordering::SeqCst);
            wait_until("others write on", || newest.load(Ordering::SeqCst) > done + 20);
        }));
        over.store(true, Ordering::Relaxed);
        // What waits for the catalog ends with it.
        behind.cut(cut, false);
        writer.join().expect("others see no error");
        let told = (reader.join().expect("it ends"), other.join().expect("it ends"));
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        told
    });
    let case = format!("{cut:?} before {cut_before}");
    assert!(read.stale.is_empty(), "{case}: {:?}", read.stale.first());
    assert!(read.answers > 0 && written.answers > 0, "{case}: it worked before");
    let refused =
        read.refusals.iter().any(|lines| lines.contains("08006") || lines.contains("57P01"));
    // One that is cut off after the cut-over knows where the rows are.
    assert_eq!(refused, cut_before != "finish", "{case}: {:?}", read.refusals.last());
    let value = |key: &str| -> i64 {
        let sql = format!("SELECT v FROM accounts WHERE k = {key}");
        run(cluster.dsn(), &sql).parse().expect("a number")
    };
    assert_eq!(value(&keys[0]), newest.load(Ordering::SeqCst), "{case}");
    let own = value(&keys[1]);
    let possible = written.answers..=written.answers + written.unclear;
    assert!(possible.contains(&own), "{case}: {own} of {possible:?}");
    // When it reaches the catalog again, it is one of them.
    let address = behind.router.listen.parse().expect("an address");
    wait_until("it is back", || {
        let sql = format!("SELECT v FROM accounts WHERE k = {}", keys[1]);
        let answer = Client::connect(address, "app").and_then(|mut client| client.simple(&sql, ""));
        answer.is_ok_and(|answer| answer.rows == [format!("row: '{own}'")])
    });
    assert_clean(&cluster);
}

#[test]
fn cut_off_before_a_run_it_has_no_part_in_it() {
    stays_out(Cut::Off, "start");
}

#[test]
fn cut_off_before_the_cut_over_it_does_not_meet_old_rows() {
    stays_out(Cut::Off, "cutover");
}

#[test]
fn silent_before_the_cut_over_it_does_not_meet_old_rows() {
    stays_out(Cut::Silent, "cutover");
}

#[test]
fn cut_off_before_the_end_it_goes_on_with_the_new_owners() {
    stays_out(Cut::Off, "finish");
}

#[test]
fn a_table_that_is_distributed_meanwhile_is_not_read_in_part() {
    let cluster = cluster(2, 1);
    let behind = Behind::new(&cluster);
    run(cluster.dsn(), "CREATE TABLE plain (k int PRIMARY KEY)");
    run(cluster.dsn(), "INSERT INTO plain SELECT generate_series(1, 100)");
    let address = behind.router.address();
    let mut before = Client::connect(address, "app").expect("it lets us in");
    let count = "SELECT count(*) FROM plain";
    let all = ["row: '100'"];
    wait_until("it has heard of the table", || {
        before.simple(count, "").is_ok_and(|answer| answer.rows == all)
    });
    behind.cut(Cut::Off, true);
    run(cluster.dsn(), "SELECT create_distributed_table('plain', 'k')");
    let insert = "INSERT INTO plain VALUES (1000)";
    for sql in [count, insert] {
        let answer = before.simple(sql, "").expect("an answer");
        let refused =
            answer.lines.iter().any(|line| line.contains("08006") || line.contains("57P01"));
        assert!(refused, "{sql}: {:?}", answer.lines);
    }
    assert_eq!(run(cluster.dsn(), count), "100");
    behind.cut(Cut::Off, false);
    wait_until("it is back", || {
        let answer =
            Client::connect(address, "app").and_then(|mut client| client.simple(count, ""));
        answer.is_ok_and(|answer| answer.rows == all)
    });
}
