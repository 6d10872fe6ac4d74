//! A decision outlives a crash of the shard that made it.

use pgherd_tests::wait_until;
use pgherd_tests::wire::Client;

use super::bank::{Bank, Ledger, Told, Transfer};

#[test]
fn a_commit_over_several_shards_is_durable_whatever_synchronous_commit_says() {
    // Without it nothing is written for ten seconds after an asynchronous COMMIT.
    let mut bank = Bank::open_with(&["wal_writer_delay=10s"]);
    let router = bank.router("owner");
    let address = router.listen.parse().expect("an address");
    let accounts: Vec<u32> = bank.accounts.iter().map(|shard| shard[0]).collect();
    let transfer = Transfer { number: 1, accounts, amount: 10 };
    let mut client = Some(Client::connect(address, "app").expect("the router lets us in"));
    if let Some(client) = &mut client {
        client.simple("SET synchronous_commit = off", "").expect("an answer");
    }
    assert_eq!(transfer.run(&mut client), Told::Committed);
    for shard in 0..bank.proxies.len() {
        bank.cluster.crash_shard(shard).expect("it dies");
        bank.cluster.restart_shard(shard).expect("it comes back");
    }
    wait_until("every transaction is finished", || bank.prepared() == 0);
    bank.audit(&Ledger::from([(transfer, Told::Committed)]));
}
