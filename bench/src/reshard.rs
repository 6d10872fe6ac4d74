//! Rows on their way to another server: `pgherd reshard` beside `pg_dump | psql` and a subscription of
//! PostgreSQL's own, of the same table, between the same two servers, while clients write it.
//!
//! What is measured: how fast rows are copied, how fast changes are caught up with (the flow is held,
//! rows are changed, and it is let go), and what writers notice of each; and of the cut-over, which the
//! others do not have.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use pgherd::config::Dsn;
use pgherd::dev::{DevOptions, LocalCluster, find_binaries};
use pgherd::dial::Dialer;
use pgherd::reshard::distribute::Wanted;
use pgherd::reshard::phase::Goal;
use pgherd::reshard::{Begin, Limits, Options, Problem, Run};
use pgherd_shard_map::{ShardId, TableName};

use crate::interrupt;
use crate::load::random_key;
use crate::pgbench;
use crate::stats::{Latencies, median};
use crate::table::{Table, number};
use crate::wire::Connection;

const DATABASE: &str = "app";
const ACCOUNTS: u32 = 100_000;

/// PostgreSQL starts no two workers of subscriptions within five seconds (`wal_retrieve_retry_interval`):
/// that is no part of what is measured.
const LAUNCH: Duration = Duration::from_millis(5500);

/// What happens while clients write: each has latencies of its own.
const COPYING: u8 = 0;
const CUTTING: u8 = 1;
const OVER: u8 = 2;

/// How long after a cut-over what writers notice is counted for it.
const AFTER_CUT: Duration = Duration::from_secs(1);

/// How often it is looked whether all has arrived.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct ReshardOptions {
    /// pgbench's: 100,000 accounts each.
    pub scale: u32,
    pub rounds: u32,
    /// Updates per second of the writers together.
    pub rate: f64,
    pub clients: u32,
    /// Rows that are changed while the flow is held.
    pub changes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Quiet,
    Dump,
    Subscription,
    Pgherd,
}

/// In this order nobody's worker has to wait for another's ([`LAUNCH`]).
const WAYS: [(Way, &str); 4] = [
    (Way::Dump, "pg_dump | psql"),
    (Way::Subscription, "subscription"),
    (Way::Quiet, "no copy"),
    (Way::Pgherd, "pgherd reshard"),
];

/// What one way has taken.
#[derive(Debug, Clone, Copy, Default)]
struct Took {
    copy: Option<Duration>,
    catch_up: Option<Duration>,
    verify: Option<Duration>,
    /// What writers saw meanwhile, in milliseconds.
    p99: f64,
    longest: f64,
    cut: Option<Cut>,
}

/// A cut-over, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Cut {
    /// As its certificate has it.
    pause: f64,
    p99: f64,
    longest: f64,
}

struct Bench<'a> {
    cluster: LocalCluster,
    options: &'a ReshardOptions,
    runtime: tokio::runtime::Runtime,
}

/// # Errors
/// What could not be started or was refused.
pub(crate) fn run(options: &ReshardOptions) -> Result<(), String> {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let dev = DevOptions {
        shards: 2,
        listen: any,
        http: any,
        database: DATABASE.to_owned(),
        ..DevOptions::default()
    };
    eprintln!("starting two PostgreSQL servers and pgherd");
    let cluster = LocalCluster::start(&dev, &|_| {})?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let bench = Bench { cluster, options, runtime };
    // Through the router, so that every server has the tables.
    pgbench::initialize(bench.cluster.dsn(), "dtgvp", options.scale)?;
    let mut all: Vec<[Took; 4]> = Vec::new();
    for round in 1..=options.rounds.max(1) {
        let mut turns = [Took::default(); 4];
        for (at, (way, name)) in WAYS.iter().enumerate() {
            interrupt::check()?;
            eprintln!("round {round}: {name}");
            turns[at] = bench.turn(*way)?;
        }
        all.push(turns);
    }
    print!("{}", render(&all, options));
    Ok(())
}

fn render(all: &[[Took; 4]], options: &ReshardOptions) -> String {
    let rows = f64::from(options.scale * ACCOUNTS);
    let changes = f64::from(options.changes);
    let mut table = Table::new(
        1,
        [
            "way",
            "copy, s",
            "rows/s",
            "changes caught up/s",
            "verify, s",
            "writers' p99, ms",
            "longest, ms",
            "cut-over: pause, ms",
            "p99, ms",
            "longest, ms",
        ],
    );
    for (at, (_, name)) in WAYS.iter().enumerate() {
        let of = |get: &dyn Fn(&Took) -> Option<f64>| {
            median(&all.iter().filter_map(|turns| get(&turns[at])).collect::<Vec<f64>>())
        };
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs_f64());
        table.row(vec![
            (*name).to_owned(),
            number(of(&|took| seconds(took.copy))),
            number(of(&|took| seconds(took.copy).map(|copy| rows / copy))),
            number(of(&|took| seconds(took.catch_up).map(|span| changes / span))),
            number(of(&|took| seconds(took.verify))),
            number(of(&|took| Some(took.p99))),
            number(of(&|took| Some(took.longest))),
            number(of(&|took| took.cut.map(|cut| cut.pause))),
            number(of(&|took| took.cut.map(|cut| cut.p99))),
            number(of(&|took| took.cut.map(|cut| cut.longest))),
        ]);
    }
    table.render()
}

impl Bench<'_> {
    fn source(&self) -> String {
        self.cluster.file.shards[0].dsn.clone()
    }

    /// Another database of the second server.
    fn target(&self, database: &str) -> String {
        let dsn = &self.cluster.file.shards[1].dsn;
        let end = format!("/{DATABASE}");
        let server = dsn.strip_suffix(&end).unwrap_or(dsn);
        format!("{server}/{database}")
    }

    /// One way, with writers beside it.
    fn turn(&self, way: Way) -> Result<Took, String> {
        // What tells of the last change is not there yet.
        let mut source = Connection::open(&self.source())?;
        source.query("UPDATE pgbench_accounts SET bid = 0 WHERE aid = 1")?;
        let stage = AtomicU8::new(COPYING);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..self.options.clients)
                .map(|client| {
                    scope.spawn({
                        let stage = &stage;
                        move || self.write(client, stage)
                    })
                })
                .collect();
            let done = match way {
                Way::Quiet => self.quiet(),
                Way::Dump => self.dump(),
                Way::Subscription => self.subscription(),
                Way::Pgherd => self.pgherd(&stage),
            };
            stage.store(OVER, Ordering::Relaxed);
            let mut all = [Latencies::new(), Latencies::new()];
            for writer in writers {
                let wrote = writer.join().unwrap_or_else(|_| Err("a writer has failed".to_owned()));
                for (all, wrote) in all.iter_mut().zip(wrote?) {
                    all.add(&wrote);
                }
            }
            let noticed = |of: &Latencies| (of.quantile(0.99) / 1000.0, of.longest() / 1000.0);
            let mut took = done?;
            (took.p99, took.longest) = noticed(&all[0]);
            if let Some(cut) = &mut took.cut {
                (cut.p99, cut.longest) = noticed(&all[1]);
            }
            Ok(took)
        })
    }

    /// Updates of single rows at a fixed rate, each measured from when it was due.
    /// By [`COPYING`] and [`CUTTING`].
    fn write(&self, client: u32, stage: &AtomicU8) -> Result<[Latencies; 2], String> {
        let mut latencies = [Latencies::new(), Latencies::new()];
        let mut connection = Connection::open(self.cluster.dsn())?;
        let step = Duration::from_secs_f64(f64::from(self.options.clients) / self.options.rate);
        let start =
            Instant::now() + step.mul_f64(f64::from(client) / f64::from(self.options.clients));
        let keys = u64::from(self.options.scale * ACCOUNTS);
        let mut turn = 0_u32;
        loop {
            let at = usize::from(stage.load(Ordering::Relaxed));
            let Some(latencies) = latencies.get_mut(at) else { break };
            let due = start + step * turn;
            interrupt::wait_until(due)?;
            let key = random_key(u64::from(turn) << 8 | u64::from(client), keys);
            let sql = "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = ";
            connection.query(&format!("{sql}{key}"))?;
            latencies.record(due.elapsed());
            turn += 1;
        }
        Ok(latencies)
    }

    fn quiet(&self) -> Result<Took, String> {
        interrupt::wait_until(Instant::now() + LAUNCH)?;
        Ok(Took::default())
    }

    /// A new database with the table's form, and nothing in it.
    fn make(&self, database: &str, with_table: bool) -> Result<String, String> {
        let mut server = Connection::open(&self.target("postgres"))?;
        server.query(&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))?;
        server.query(&format!("CREATE DATABASE {database}"))?;
        let dsn = self.target(database);
        if with_table {
            Connection::open(&dsn)?.query(
                "CREATE TABLE pgbench_accounts (aid int NOT NULL PRIMARY KEY, bid int, \
                 abalance int, filler char(84))",
            )?;
        }
        Ok(dsn)
    }

    fn dump(&self) -> Result<Took, String> {
        let dsn = self.make("bench_dump", false)?;
        let binaries = find_binaries()?;
        let started = Instant::now();
        let mut dump = Command::new(binaries.join("pg_dump"))
            .args(["-t", "pgbench_accounts", "-d", &self.source()])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run pg_dump: {error}"))?;
        let rows = dump.stdout.take().ok_or("pg_dump has no output")?;
        let loaded = Command::new(binaries.join("psql"))
            .args(["-q", "-v", "ON_ERROR_STOP=1", "-d", &dsn])
            .stdin(rows)
            .stdout(Stdio::null())
            .status()
            .map_err(|error| format!("cannot run psql: {error}"))?;
        let dumped = dump.wait().map_err(|error| error.to_string())?;
        if !loaded.success() || !dumped.success() {
            return Err("pg_dump | psql failed".to_owned());
        }
        Ok(Took { copy: Some(started.elapsed()), ..Took::default() })
    }

    fn subscription(&self) -> Result<Took, String> {
        let dsn = self.make("bench_sub", true)?;
        let mut source = Connection::open(&self.source())?;
        let mut target = Connection::open(&dsn)?;
        let work = (|| {
            source.query("CREATE PUBLICATION bench_pub FOR TABLE pgbench_accounts")?;
            let started = Instant::now();
            target.query(&format!(
                "CREATE SUBSCRIPTION bench_sub CONNECTION '{}' PUBLICATION bench_pub \
                 WITH (synchronous_commit = off)",
                self.source()
            ))?;
            let copied = "SELECT bool_and(srsubstate IN ('r', 's')) FROM pg_subscription_rel";
            self.until(&dsn, copied)?;
            let copy = started.elapsed();
            target.query("ALTER SUBSCRIPTION bench_sub DISABLE")?;
            self.change(&mut source)?;
            let held = Instant::now();
            target.query("ALTER SUBSCRIPTION bench_sub ENABLE")?;
            self.until(&dsn, &self.arrived())?;
            let catch_up = Some(held.elapsed());
            Ok(Took { copy: Some(copy), catch_up, ..Took::default() })
        })();
        target.query("DROP SUBSCRIPTION IF EXISTS bench_sub")?;
        source.query("DROP PUBLICATION IF EXISTS bench_pub")?;
        Connection::open(&self.target("postgres"))?
            .query("DROP DATABASE bench_sub WITH (FORCE)")?;
        work
    }

    fn pgherd(&self, stage: &AtomicU8) -> Result<Took, String> {
        let catalog = &self.cluster.file.catalog.dsn;
        let dsn = Dsn::try_new(catalog)?;
        let dialer = Arc::new(Dialer::new(pgherd::config::ServerTls::default())?);
        let wanted = Wanted {
            tables: vec![(TableName::new("public", "pgbench_accounts"), "aid".to_owned())],
            with: None,
            over: vec![ShardId(1)],
        };
        let options = Options {
            // What is asked for is measured, and not refused.
            max_pause: Duration::from_secs(5),
            who: "pgherd-bench".to_owned(),
            ..Options::default()
        };
        let mut steps: Vec<(String, Instant)> = Vec::new();
        let mut tell = |news: &serde_json::Value| {
            if let Some(step) = news["step"].as_str() {
                steps.push((step.to_owned(), Instant::now()));
            }
        };
        let said = |problem: Problem| problem.what;
        let mut run = self.runtime.block_on(async {
            let home = dialer.client(catalog).await.map_err(|error| error.to_string())?;
            let registered = wanted.register(&home).await.map_err(said)?;
            let begin = Begin { moves: registered.moves, joins: None };
            let mut run = Run::begin(&dialer, &dsn, begin, options).await.map_err(said)?;
            // Nor is it held up.
            let none = Limits { max_lag: None, min_free: None, max_p99_ms: None };
            run.limit(|limits| *limits = none).await.map_err(said)?;
            run.reach(Goal::Start, &mut tell).await.map_err(said)?;
            run.hold(true).await.map_err(said)?;
            Ok::<_, String>(run)
        })?;
        let begun = |name: &str| steps.iter().find(|(step, _)| step == name).map(|(_, at)| *at);
        let between = |one: &str, other: &str| Some(begun(other)? - begun(one)?);
        let (copy, verify) = (between("copy", "catch up"), between("verify", "ready"));
        self.change(&mut Connection::open(&self.source())?)?;
        let held = Instant::now();
        self.runtime.block_on(run.hold(false)).map_err(said)?;
        self.until(&self.target(DATABASE), &self.arrived())?;
        let catch_up = Some(held.elapsed());
        let mut tell = |news: &serde_json::Value| {
            if news["step"] == "cutting" {
                stage.store(CUTTING, Ordering::Relaxed);
            }
        };
        self.runtime.block_on(run.reach(Goal::Cutover, &mut tell)).map_err(said)?;
        interrupt::wait_until(Instant::now() + AFTER_CUT)?;
        let cut = Some(Cut { pause: self.pause(catalog)?, ..Cut::default() });
        // Going back to where it began is no part of it.
        stage.store(OVER, Ordering::Relaxed);
        for goal in [Goal::Rollback, Goal::Cancel] {
            self.runtime.block_on(run.reach(goal, &mut |_| {})).map_err(said)?;
        }
        let mut router = Connection::open(self.cluster.dsn())?;
        router.query("SELECT undistribute_table('pgbench_accounts')")?;
        Ok(Took { copy, catch_up, verify, cut, ..Took::default() })
    }

    /// How long writers waited in the last cut-over, in milliseconds.
    fn pause(&self, catalog: &str) -> Result<f64, String> {
        let sql = "SELECT (certificates->-1->>'pause_ms')::float8 FROM pgherd.reshard_list \
                   ORDER BY id DESC LIMIT 1";
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(catalog, tokio_postgres::NoTls)
                .await
                .map_err(|error| error.to_string())?;
            // Its end has no more to say.
            tokio::spawn(async move { drop(connection.await) });
            let row = client.query_one(sql, &[]).await.map_err(|error| error.to_string())?;
            row.try_get(0).map_err(|error| error.to_string())
        })
    }

    /// Changes rows on the source, in portions; those of the last one can be told from all others.
    fn change(&self, source: &mut Connection) -> Result<(), String> {
        for first in (1..=self.options.changes).step_by(1000) {
            let last = (first + 999).min(self.options.changes);
            source.query(&format!(
                "UPDATE pgbench_accounts SET bid = 0 WHERE aid BETWEEN {first} AND {last}"
            ))?;
        }
        source.query("UPDATE pgbench_accounts SET bid = -1 WHERE aid = 1")?;
        interrupt::wait_until(Instant::now() + LAUNCH)
    }

    fn arrived(&self) -> String {
        "SELECT bid = -1 FROM pgbench_accounts WHERE aid = 1".to_owned()
    }

    /// Waits until a statement answers true.
    fn until(&self, dsn: &str, sql: &str) -> Result<(), String> {
        loop {
            interrupt::check()?;
            let answer = self.runtime.block_on(async {
                let opened = tokio_postgres::connect(dsn, tokio_postgres::NoTls).await;
                let (client, connection) = opened.map_err(|error| error.to_string())?;
                let connection = tokio::spawn(connection);
                let row = client.query_opt(sql, &[]).await.map_err(|error| error.to_string())?;
                drop(client);
                // Its end has no more to say.
                drop(connection.await);
                Ok::<_, String>(row.and_then(|row| row.get::<_, Option<bool>>(0)))
            })?;
            if answer == Some(true) {
                return Ok(());
            }
            std::thread::park_timeout(LOOK);
        }
    }
}
