//! What a commit over several shards costs, counted on running servers.

use std::time::{Duration, Instant};

use pgherd_tests::run;
use pgherd_tests::wire::Client;

use super::bank::{Bank, Told, Transfer};

/// How much longer each request takes: much more than a busy machine adds to all of them.
const FAR: Duration = Duration::from_millis(300);

const COMMITS: u64 = 40;

fn ask(client: &mut Client, sql: &str) {
    let answer = client.simple(sql, "").expect("an answer");
    assert_eq!(answer.error, None, "{sql}: {:?}", answer.lines);
}

#[test]
fn a_commit_takes_three_round_trips_whoever_took_part() {
    let bank = Bank::open();
    let router = bank.router("owner");
    let address = router.listen.parse().expect("an address");
    let mut client = Client::connect(address, "app").expect("the router lets us in");
    // Shards that are written on, and shards that are only read.
    for (writers, readers, trips) in [(1, 0, 1), (2, 2, 3), (4, 0, 3)] {
        ask(&mut client, "BEGIN");
        for (shard, accounts) in bank.accounts[..writers + readers].iter().enumerate() {
            let account = accounts[0];
            ask(
                &mut client,
                &match shard < writers {
                    true => format!("UPDATE accounts SET balance = balance WHERE id = {account}"),
                    false => format!("SELECT balance FROM accounts WHERE id = {account}"),
                },
            );
        }
        bank.proxies.iter().for_each(|proxy| proxy.delay(FAR));
        let started = Instant::now();
        ask(&mut client, "COMMIT");
        let took = started.elapsed();
        bank.proxies.iter().for_each(|proxy| proxy.delay(Duration::ZERO));
        assert!(took >= FAR * trips && took < FAR * (trips + 1), "{writers}, {readers}: {took:?}");
    }
}

#[test]
fn a_read_that_tears_nothing_takes_two_round_trips_more() {
    let bank = Bank::open();
    let router = bank.router("reader");
    let address = router.listen.parse().expect("an address");
    let mut client = Client::connect(address, "app").expect("the router lets us in");
    let sql = "SELECT balance FROM accounts";
    // Whichever shard answers first, the router knows already what the table's number is at home.
    for accounts in &bank.accounts {
        ask(&mut client, &format!("{sql} WHERE id = {}", accounts[0]));
    }
    for (level, trips) in [("shard", 1), ("atomic", 3), ("snapshot", 3)] {
        ask(&mut client, &format!("SET pgherd.read_consistency = {level}"));
        // Its connections know a recent snapshot now.
        ask(&mut client, sql);
        bank.proxies.iter().for_each(|proxy| proxy.delay(FAR));
        let started = Instant::now();
        ask(&mut client, sql);
        let took = started.elapsed();
        bank.proxies.iter().for_each(|proxy| proxy.delay(Duration::ZERO));
        assert!(took >= FAR * trips && took < FAR * (trips + 1), "{level}: {took:?}");
    }
}

#[test]
fn the_decider_syncs_once_and_the_others_twice() {
    let bank = Bank::open_with(&["fsync=on", "autovacuum=off", "wal_writer_delay=10s"]);
    let router = bank.router("owner");
    let address = router.listen.parse().expect("an address");
    let mut client = Some(Client::connect(address, "app").expect("the router lets us in"));
    let syncs = || -> Vec<u64> {
        let count = "SELECT pg_stat_force_next_flush(); SELECT wal_sync FROM pg_stat_wal";
        let counts = bank.cluster.file.shards.iter().map(|shard| run(&shard.dsn, count));
        counts.map(|count| count.trim().parse().expect("a count")).collect()
    };
    // The first shard that is written on decides; two more take part, and one does not.
    let accounts: Vec<u32> = bank.accounts[..3].iter().map(|shard| shard[0]).collect();
    let transfer = |number| Transfer { number, accounts: accounts.clone(), amount: 1 };
    assert_eq!(transfer(0).run(&mut client), Told::Committed);
    let before = syncs();
    for number in 1..=COMMITS {
        assert_eq!(transfer(number).run(&mut client), Told::Committed);
    }
    // A session tells the server of its part when it ends, or is idle for a moment.
    drop((client, router));
    let expected = [COMMITS, 2 * COMMITS, 2 * COMMITS, 0];
    pgherd_tests::wait_until("all syncs are counted", || {
        syncs().iter().zip(&before).zip(&expected).all(|((now, then), all)| now - then >= *all)
    });
    for ((now, then), expected) in syncs().iter().zip(&before).zip(&expected) {
        // Whatever else a server does now and then.
        assert!(now - then <= expected + COMMITS / 4, "{now} - {then}, not {expected}");
    }
}
