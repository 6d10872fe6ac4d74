//! Accounts on four shards behind proxies, transfers between them, and the audit.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use pgherd::dev::LocalCluster;
use pgherd_tests::proxy::{FaultProxy, Traps};
use pgherd_tests::router::RouterProcess;
use pgherd_tests::wire::{Answer, Client};
use pgherd_tests::{cluster_with, run};

const ACCOUNTS: u32 = 400;
const BALANCE: i64 = 1000;

/// What all accounts hold together, at all times.
pub(crate) const TOTAL: i64 = ACCOUNTS as i64 * BALANCE;

/// A cluster whose routers reach the shards through proxies. Its own router is gone.
pub(crate) struct Bank {
    pub(crate) cluster: LocalCluster,
    pub(crate) proxies: Vec<FaultProxy>,
    pub(crate) traps: Arc<Traps>,
    /// The accounts of each shard.
    pub(crate) accounts: Vec<Vec<u32>>,
}

/// Money from the first account to each of the others.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    pub(crate) number: u64,
    pub(crate) accounts: Vec<u32>,
    pub(crate) amount: i64,
}

/// What the client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Committed,
    Failed,
    /// The connection broke during COMMIT, or 08007.
    Unknown,
}

/// What each client did, for the audit.
pub(crate) type Ledger = Vec<(Transfer, Told)>;

impl Bank {
    pub(crate) fn open() -> Self {
        Self::open_with(&[])
    }

    /// `settings` are of every shard.
    pub(crate) fn open_with(settings: &[&str]) -> Self {
        let mut cluster = cluster_with(|options| {
            options.pg_conf.extend(settings.iter().map(|setting| (*setting).to_owned()));
        });
        let dsn = cluster.dsn();
        run(dsn, "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL)");
        run(
            dsn,
            "CREATE TABLE journal (account int, transfer bigint, amount bigint NOT NULL, \
             PRIMARY KEY (account, transfer))",
        );
        let fill = format!(
            "INSERT INTO accounts SELECT g, {BALANCE} FROM \
                            generate_series(1, {ACCOUNTS}) g"
        );
        run(dsn, &fill);
        run(dsn, "SELECT create_distributed_table('accounts', 'id')");
        run(
            dsn,
            "SELECT create_distributed_table('journal', 'account', colocate_with => 'accounts')",
        );
        let traps = Arc::<Traps>::default();
        let mut proxies = Vec::new();
        let mut accounts = Vec::new();
        for shard in &cluster.file.shards {
            let target = SocketAddr::from(([127, 0, 0, 1], shard.port));
            let proxy = FaultProxy::start(target, Arc::clone(&traps));
            let sql = format!(
                "SELECT pgherd.set_dsn({}, 'postgres://{}/{}', epoch) FROM pgherd.cluster",
                shard.id, proxy.address, cluster.file.database
            );
            run(&cluster.file.catalog.dsn, &sql);
            proxies.push(proxy);
            let ids = run(&shard.dsn, "SELECT id FROM accounts ORDER BY id");
            accounts.push(ids.lines().map(|id| id.parse().expect("a number")).collect());
        }
        cluster.crash_router(0);
        Self { cluster, proxies, traps, accounts }
    }

    pub(crate) fn router(&self, name: &str) -> RouterProcess {
        RouterProcess::start(&self.cluster, name, "[auth]\nmethod = \"trust\"\n")
    }

    /// Transactions that are prepared anywhere.
    pub(crate) fn prepared(&self) -> u32 {
        let count = "SELECT count(*) FROM pg_prepared_xacts";
        let counts = self.cluster.file.shards.iter().map(|shard| run(&shard.dsn, count));
        counts.map(|count| count.parse::<u32>().expect("a count")).sum()
    }

    /// Money is neither made nor lost, every transfer is there as a whole or not at all, and its
    /// client was told no other.
    pub(crate) fn audit(&self, ledger: &Ledger) {
        let mut balances: BTreeMap<u32, i64> = BTreeMap::new();
        let mut journal: BTreeMap<u64, BTreeMap<u32, i64>> = BTreeMap::new();
        for shard in &self.cluster.file.shards {
            for line in run(&shard.dsn, "SELECT id, balance FROM accounts").lines() {
                let (id, balance) = line.split_once('|').expect("two columns");
                balances.insert(id.parse().expect("id"), balance.parse().expect("balance"));
            }
            for line in run(&shard.dsn, "SELECT transfer, account, amount FROM journal").lines() {
                let columns: Vec<i64> = line.split('|').map(|c| c.parse().expect("int")).collect();
                let legs = journal.entry(columns[0] as u64).or_default();
                assert_eq!(legs.insert(columns[1] as u32, columns[2]), None, "twice: {line}");
            }
        }
        assert_eq!(balances.len(), ACCOUNTS as usize);
        assert_eq!(balances.values().sum::<i64>(), TOTAL);
        for (transfer, told) in ledger {
            let legs = journal.remove(&transfer.number).unwrap_or_default();
            let expected: BTreeMap<u32, i64> = transfer.legs().collect();
            match told {
                Told::Committed => assert_eq!(legs, expected, "acknowledged: {transfer:?}"),
                Told::Failed => assert!(legs.is_empty(), "it has failed: {transfer:?}: {legs:?}"),
                Told::Unknown => {
                    assert!(legs.is_empty() || legs == expected, "half: {transfer:?}: {legs:?}");
                }
            }
            for (account, amount) in legs {
                *balances.get_mut(&account).expect("an account") -= amount;
            }
        }
        assert!(journal.is_empty(), "nobody's transfers: {journal:?}");
        let wrong: Vec<_> = balances.iter().filter(|(_, rest)| **rest != BALANCE).collect();
        assert!(wrong.is_empty(), "balances that the journal does not explain: {wrong:?}");
    }
}

impl Transfer {
    fn legs(&self) -> impl Iterator<Item = (u32, i64)> + '_ {
        let others = self.accounts.len() as i64 - 1;
        self.accounts.iter().enumerate().map(move |(at, account)| match at {
            0 => (*account, -self.amount * others),
            _ => (*account, self.amount),
        })
    }

    /// Runs it; `None` for the connection is one that has to be opened anew.
    pub(crate) fn run(&self, connection: &mut Option<Client>) -> Told {
        let Some(client) = connection else { return Told::Failed };
        let mut ask = |sql: &str| client.simple(sql, "");
        let done = |answer: &std::io::Result<Answer>| {
            answer.as_ref().is_ok_and(|answer| answer.error.is_none())
        };
        let mut answers = vec![ask("BEGIN")];
        for (account, amount) in self.legs() {
            let number = self.number;
            if !answers.last().is_some_and(done) {
                break;
            }
            answers.push(ask(&format!(
                "UPDATE accounts SET balance = balance + {amount} WHERE id = {account}"
            )));
            answers
                .push(ask(&format!("INSERT INTO journal VALUES ({account}, {number}, {amount})")));
        }
        if !answers.iter().all(done) {
            // It has not been committed, and is not going to be.
            let rolled_back = answers.iter().all(Result::is_ok) && done(&ask("ROLLBACK"));
            if !rolled_back {
                *connection = None;
            }
            return Told::Failed;
        }
        match ask("COMMIT") {
            Ok(answer) => match answer.error.as_deref() {
                None if answer.lines == ["tag: COMMIT"] => Told::Committed,
                Some("08007") => Told::Unknown,
                _ => Told::Failed,
            },
            Err(_) => {
                *connection = None;
                Told::Unknown
            }
        }
    }
}
