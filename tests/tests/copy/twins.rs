//! The same table in the router's cluster and in plain PostgreSQL.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pgherd::dev::{DevOptions, LocalCluster};

use crate::wire::{Outcome, Protocol, Wire};

/// A cluster in a directory of its own, which goes with it.
pub(crate) struct Cluster(Option<LocalCluster>);

impl Deref for Cluster {
    type Target = LocalCluster;

    fn deref(&self) -> &LocalCluster {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let directory = self.file.data_dir.clone();
        drop(self.0.take());
        // What cannot be removed is no failure of what was tested.
        let _ = std::fs::remove_dir_all(directory);
    }
}

/// One cluster for the tests that run at the same time; the last of them stops it.
pub(crate) fn cluster() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = shared.upgrade() {
        return cluster;
    }
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let directory = format!("pgherd-copy-{}-{number}", std::process::id());
    let options = DevOptions {
        listen: "127.0.0.1:0".parse().expect("an address"),
        http: "127.0.0.1:0".parse().expect("an address"),
        data_dir: Some(std::env::temp_dir().join(directory)),
        pg_conf: vec!["fsync=off".into(), "shared_buffers=32MB".into()],
        program: Some(PathBuf::from(env!("CARGO_BIN_EXE_pgherd-under-test"))),
        ..DevOptions::default()
    };
    let cluster = LocalCluster::start(&options, &|_| {}).expect("a local cluster starts");
    let cluster = Arc::new(Cluster(Some(cluster)));
    *shared = Arc::downgrade(&cluster);
    cluster
}

/// The same table twice: distributed, and plain in another database of the first server.
pub(crate) struct Twins {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) router: Wire,
    pub(crate) plain: Wire,
    table: &'static str,
}

impl Twins {
    pub(crate) fn new(table: &'static str, columns: &str) -> Self {
        let mut twins = Self::on_home_shard(table, columns);
        let distribute = format!("SELECT create_distributed_table('{table}', 'k')");
        assert_eq!(twins.router.query(&distribute).tag(), "SELECT 1");
        twins
    }

    /// The router's table is not distributed.
    pub(crate) fn on_home_shard(table: &'static str, columns: &str) -> Self {
        let cluster = cluster();
        let mut router = Wire::connect(cluster.dsn());
        let shard = &cluster.file.shards[0].dsn;
        let (server, _) = shard.rsplit_once('/').expect("a database");
        let mut plain = Wire::connect(&format!("{server}/postgres"));
        let create = format!("CREATE TABLE {table} ({columns})");
        assert_eq!(router.query(&create).tag(), "CREATE TABLE");
        assert_eq!(plain.query(&create).tag(), "CREATE TABLE");
        Self { cluster, router, plain, table }
    }

    pub(crate) fn rows(&mut self) -> [Vec<Vec<u8>>; 2] {
        let sql = format!("COPY {} TO STDOUT", self.table);
        [&mut self.plain, &mut self.router].map(|wire| {
            let outcome = wire.copy_out(&sql, Protocol::Simple);
            assert_eq!(outcome.tag(), format!("COPY {}", outcome.data.len()));
            let mut rows = outcome.data;
            rows.sort();
            rows
        })
    }

    /// Copies the data into both tables, in both protocols and cut in several ways.
    pub(crate) fn compare(&mut self, options: &str, data: &[u8]) -> Outcome {
        let sql = format!("COPY {} {options}", self.table);
        let truncate = format!("TRUNCATE {}", self.table);
        let mut wanted = Outcome::default();
        for (protocol, cut) in
            [(Protocol::Simple, 1), (Protocol::Extended, 7), (Protocol::Simple, 1 << 20)]
        {
            wanted = self.plain.copy_in(&sql, data, cut, protocol);
            let found = self.router.copy_in(&sql, data, cut, protocol);
            let shown = String::from_utf8_lossy(&data[..data.len().min(500)]);
            assert_eq!(found, wanted, "{sql} in pieces of {cut} of {shown:?}");
            let [plain, routed] = self.rows();
            assert_eq!(routed, plain, "{sql} in pieces of {cut} of {shown:?}");
            for wire in [&mut self.plain, &mut self.router] {
                assert_eq!(wire.query(&truncate).tag(), "TRUNCATE TABLE");
            }
        }
        wanted
    }
}

pub(crate) fn shard_counts(cluster: &LocalCluster, table: &str) -> Vec<String> {
    let count = format!("COPY (SELECT count(*) FROM {table}) TO STDOUT");
    let shards = cluster.file.shards.iter();
    shards
        .map(|shard| {
            let counted = Wire::connect(&shard.dsn).copy_out(&count, Protocol::Simple).copied();
            String::from_utf8_lossy(&counted).trim().to_owned()
        })
        .collect()
}

/// `pattern` for each number, with the number for every `#`.
pub(crate) fn lines(numbers: std::ops::Range<u32>, pattern: &str) -> Vec<u8> {
    numbers.map(|n| pattern.replace('#', &n.to_string())).collect::<String>().into_bytes()
}
