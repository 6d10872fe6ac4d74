//! `create_distributed_table_concurrently`: a plain table is registered with its rows where they
//! are, and a run of `reshard` takes them to their shards while clients read and write them.
//!
//! The run is driven on the control runtime, with the catalog's own login; the session waits, and
//! tells its client how far it is. A client that goes away stops nothing; one that cancels stops the
//! run where nobody waits for it, and the same call goes on from there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgherd_planner::ClusterFunction;
use pgherd_shard_map::{GroupId, ShardMap};
use serde_json::Value;
use tokio::sync::mpsc;

use super::Conn;
use crate::config::Dsn;
use crate::dial::Dialer;
use crate::error::{ErrorInfo, Failure};
use crate::reshard::distribute::Wanted;
use crate::reshard::phase::Goal;
use crate::reshard::{Begin, Options, Problem, Run, Shards};
use crate::session::Transaction;
use crate::worker::presence::Doing;

/// How long writers of moving rows may be held up.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// How often it is looked whether the client has cancelled, and how often it hears of rows.
const LOOK: Duration = Duration::from_millis(200);
const PROGRESS: Duration = Duration::from_secs(2);

/// News that wait for the client.
const NEWS: usize = 16;

/// One call, for the control runtime.
struct Job {
    dialer: Arc<Dialer>,
    catalog: Dsn,
    map: Arc<ShardMap>,
    wanted: Wanted,
    group: GroupId,
    options: Options,
}

impl Conn {
    pub(super) async fn distribute_concurrently(
        &mut self,
        call: &ClusterFunction,
    ) -> Result<(), Failure> {
        let ClusterFunction::CreateDistributedConcurrently { table, column, colocate_with } = call
        else {
            return Ok(());
        };
        if !matches!(self.session.transaction, Transaction::Idle) {
            return Err(ErrorInfo::new(
                "25001",
                "create_distributed_table_concurrently() cannot run inside a transaction block",
            )
            .hint("It makes several transactions of its own: call it by itself.")
            .into());
        }
        let wanted = Wanted {
            tables: vec![(table.clone(), column.to_string())],
            with: colocate_with.clone(),
            over: Vec::new(),
        };
        // As the client's user, who must own the table.
        let group = match self.run_of(call).await? {
            Some(group) => group,
            None => {
                let home = self.server_for(self.planning.map.home).await?;
                let reply = self.query(home, &wanted.register_sql()).await?;
                self.release();
                let group = reply.scalar().and_then(|text| text.parse().ok());
                GroupId(
                    group.ok_or_else(|| ErrorInfo::new("XX000", "the table was not registered"))?,
                )
            }
        };
        let shared = &self.worker.shared;
        let job = Job {
            dialer: Arc::clone(&shared.dialer),
            catalog: shared.settings.catalog.clone(),
            map: Arc::clone(&self.planning.map),
            wanted,
            group,
            options: Options {
                max_pause: MAX_PAUSE,
                who: self.login.user.to_string(),
                ..Options::default()
            },
        };
        self.wait_for_job(job).await?;
        self.worker.shared.reload.notify_one();
        self.refresh_planning();
        Ok(())
    }

    /// The table's group, where its rows are on their way already: an earlier call was interrupted.
    async fn run_of(&mut self, call: &ClusterFunction) -> Result<Option<GroupId>, Failure> {
        let ClusterFunction::CreateDistributedConcurrently { table, .. } = call else {
            return Ok(None);
        };
        let group = self.planning.map.group_of(table).map(|group| group.id);
        let moving = group.filter(|group| self.planning.map.moving.contains(group));
        if moving.is_some() {
            let home = self.server_for(self.planning.map.home).await?;
            let name = postgres_protocol::escape::escape_literal(&table.quoted());
            self.quietly(home, &format!("SELECT pgherd.check_owner({name}::regclass)")).await?;
            self.release();
        }
        Ok(moving)
    }

    async fn wait_for_job(&mut self, job: Job) -> Result<(), Failure> {
        let stop = Arc::clone(&job.options.stop);
        let (told, mut news) = mpsc::channel(NEWS);
        let mut task = self.worker.shared.control.spawn(job.run(told));
        let mut said = Instant::now();
        self.cancel.presence.doing.set(Doing::Waiting);
        let done = loop {
            tokio::select! {
                done = &mut task => break done,
                Some(news) = news.recv() => if let Some(text) = worded(&news, &mut said) {
                    self.tell_client(text).await?;
                },
                () = tokio::time::sleep(LOOK) => {}
            }
            if self.cancel.sent.replace(false) {
                stop.store(true, Ordering::Relaxed);
            }
        };
        self.cancel.presence.doing.set(Doing::Active);
        let problem = match done {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(problem)) => problem,
            Err(error) => error.to_string().into(),
        };
        if stop.load(Ordering::Relaxed) {
            let cancelled = ErrorInfo::new("57014", "canceling statement due to user request");
            return Err(cancelled.hint(GO_ON).into());
        }
        let error = ErrorInfo::new("55000", problem.what);
        Err(error.hint(problem.hint.unwrap_or_else(|| GO_ON.to_owned())).into())
    }
}

const GO_ON: &str = "The same call goes on from where it was; pgherd reshard cancel takes the copies \
                     back, and undistribute_table() makes the table a plain one again.";

impl Job {
    /// Goes through the whole run; one that is under way is taken up.
    async fn run(self, told: mpsc::Sender<Value>) -> Result<(), Problem> {
        let Self { dialer, catalog, map, wanted, group, options } = self;
        // News that nobody reads any more may be lost.
        let mut tell = |news: &Value| drop(told.try_send(news.clone()));
        let under_way = match Run::take(&dialer, &catalog, options.clone()).await? {
            Some(run) if run.phase().is_some_and(|phase| !phase.is_over()) => Some(run),
            _ => None,
        };
        let mut run = match under_way {
            Some(run) if run.record().moves.iter().any(|part| part.group == group) => run,
            Some(run) => {
                return Err(Problem::new(
                    format!("run {} of pgherd reshard is under way", run.record().id),
                    "Call it again when that has ended: pgherd.reshards tells.",
                ));
            }
            None => {
                let mut shards = Shards::new(Arc::clone(&dialer), &catalog, &map);
                let home = shards.get(map.home).await?;
                let registered = wanted.registered(&home, group).await?;
                if registered.moves.is_empty() {
                    return registered.join(&home).await;
                }
                let begin = Begin { moves: registered.moves, joins: registered.joins };
                Run::begin(&dialer, &catalog, begin, options).await?
            }
        };
        run.reach(Goal::Cutover, &mut tell).await?;
        run.reach(Goal::Finish, &mut tell).await
    }
}

/// What a person may want to know of it.
fn worded(news: &Value, said: &mut Instant) -> Option<String> {
    if let Some(again) = news["again"].as_str() {
        return Some(format!("{again}; trying again"));
    }
    if let Some(rows) = news["verified"].as_i64() {
        return Some(format!("{rows} rows compared, {} wrong", news["wrong"]));
    }
    if let Some(rows) = news["deleted"].as_u64() {
        return Some(format!("{rows} old copies deleted on shard {}", news["shard"]));
    }
    let streams = news["streams"].as_array().filter(|_| said.elapsed() >= PROGRESS)?;
    *said = Instant::now();
    let tables = streams.iter().flat_map(|stream| stream["tables"].as_array()).flatten();
    let sums = tables.fold((0, 0), |(rows, all), table| {
        let expected = table["expected"].as_u64().unwrap_or_default();
        let copied = match table["state"].as_str() {
            Some("following") => expected,
            _ => table["rows"].as_u64().unwrap_or_default(),
        };
        (rows + copied, all + expected)
    });
    Some(format!("{} of about {} rows copied", sums.0, sums.1))
}
