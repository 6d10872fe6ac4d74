//! Deadlocks across shards: no server sees one, so the routers do.
//!
//! A transaction that holds connections to several shards and has stood still for a moment is
//! looked at on its shards; if it waits for a lock there, its router *publishes* it in the catalog
//! (`pgherd.waiting`): which server processes are its own, and since when it runs. Every member of
//! a deadlock waits, so every member is published by its router, and each router can put the waits
//! of all shards together (`graph`). A circle that stands unchanged in two looks, each session in
//! the same statement, is a deadlock; the router of its youngest session cancels it there, and its
//! client is told 40P01.
//!
//! Costs nothing while nobody waits: workers say which sessions hold several shards, and only if
//! one of them has not moved is any shard asked.
//!
//! A transaction that is prepared, and whose owner waits for something else, is no member: the
//! deadline of its commit ends it.

mod graph;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pgherd_shard_map::ShardId;
use tokio_postgres::Client;

use crate::recovery::{AskError, connect_all, timely};
use crate::worker::{Mail, MovingSession, Shared};
use graph::{Edge, Session, Wait};

/// How often workers are asked.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long a statement may take before its locks are looked at.
const STANDS: Duration = Duration::from_millis(700);

/// What one look takes into account.
const SESSIONS_MAX: i64 = 1000;

/// What this router remembers from look to look.
#[derive(Default)]
struct Detector {
    clients: HashMap<ShardId, (String, Arc<Client>)>,
    /// Each session's turn, and since when it has it.
    still: HashMap<u32, (u32, Instant)>,
    edges: HashSet<Edge>,
    published: bool,
    /// Shards that did not answer at the last look: said when it begins and when it ends.
    silent: HashSet<ShardId>,
}

/// Looks for deadlocks until the process ends.
pub async fn watch(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut detector = Detector::default();
    let mut failing = false;
    loop {
        ticks.tick().await;
        match detector.look(&shared).await {
            Ok(()) if std::mem::take(&mut failing) => {
                tracing::info!("deadlocks across shards are looked for again");
            }
            Ok(()) => {}
            Err(error) => {
                detector.edges.clear();
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "deadlocks across shards cannot be looked for");
                }
            }
        }
    }
}

impl Detector {
    async fn look(&mut self, shared: &Shared) -> Result<(), AskError> {
        let own = self.standing(shared.moving_sessions().await);
        if own.is_empty() {
            self.edges.clear();
            return self.withdraw(shared).await;
        }
        self.connect(shared).await;
        let waits = self.waits().await;
        let waiting: Vec<(&MovingSession, f64)> = own
            .iter()
            .filter_map(|session| Some((session, waits_since(session, &waits)?)))
            .collect();
        if waiting.is_empty() {
            self.edges.clear();
            return self.withdraw(shared).await;
        }
        let router = &*shared.settings.router_name;
        let published = self.publish(shared, router, &waiting).await?;
        // Who has published since may wait where the first look saw nobody.
        let waits = self.waits().await;
        let edges = graph::edges(&published, &waits);
        let stable: HashSet<Edge> = edges.intersection(&self.edges).cloned().collect();
        self.edges = edges;
        for victim in graph::victims(&published, &stable) {
            if &*victim.router != router {
                continue;
            }
            let own = waits.iter().find(|wait| victim.owns(wait.shard, wait.pid));
            let Some(server) = own.map(|wait| (wait.shard, wait.pid)) else { continue };
            tracing::warn!(session = victim.session, "deadlock across shards: one is cancelled");
            let end = Mail::Deadlock { session: victim.session, turn: victim.turn, server };
            shared.mail_to(victim.session, end);
        }
        Ok(())
    }

    /// The sessions that hold several shards and have not moved for a moment.
    fn standing(&mut self, sessions: Vec<MovingSession>) -> Vec<MovingSession> {
        let now = Instant::now();
        let before = std::mem::take(&mut self.still);
        for session in &sessions {
            let same = before.get(&session.key).filter(|(turn, _)| *turn == session.turn);
            let since = same.map_or(now, |(_, since)| *since);
            self.still.insert(session.key, (session.turn, since));
        }
        let still = &self.still;
        let stands = |key| still.get(&key).is_some_and(|(_, since)| now - *since >= STANDS);
        sessions.into_iter().filter(|session| stands(session.key)).collect()
    }

    /// Connections to all shards; one that cannot be reached has no waits that could be seen.
    async fn connect(&mut self, shared: &Shared) {
        let map = shared.map.load_full();
        self.clients.retain(|_, (_, client)| !client.is_closed());
        let wanted =
            map.shards().map(|shard| (shard.id, shared.settings.catalog.login_for(&shard.dsn)));
        let missing: Vec<(ShardId, String)> = wanted
            .filter(|(id, dsn)| self.clients.get(id).is_none_or(|(known, _)| known != dsn))
            .collect();
        let (mut opened, silent) = connect_all(&shared.dialer, &missing).await;
        for (shard, error) in silent {
            self.note_silent(shard, &error);
        }
        for (id, dsn) in missing {
            if let Some(client) = opened.remove(&id) {
                self.clients.insert(id, (dsn, client));
            }
        }
    }

    /// Who waits for whom, on all shards that answer.
    async fn waits(&mut self) -> Vec<Wait> {
        let asked = self
            .clients
            .iter()
            .map(|(shard, (_, client))| async move { (*shard, waits_of(*shard, client).await) });
        let mut all = Vec::new();
        for (shard, waits) in join_all(asked).await {
            match waits {
                Ok(waits) => {
                    all.extend(waits);
                    if self.silent.remove(&shard) {
                        tracing::info!(%shard, "its locks can be looked at again");
                    }
                }
                Err(error) => {
                    self.note_silent(shard, &error);
                    self.clients.remove(&shard);
                }
            }
        }
        all
    }

    fn note_silent(&mut self, shard: ShardId, error: &AskError) {
        if self.silent.insert(shard) {
            tracing::warn!(%shard, %error, "its locks cannot be looked at");
        }
    }

    fn catalog(&self, shared: &Shared) -> Option<Arc<Client>> {
        let home = shared.map.load().home;
        self.clients.get(&home).map(|(_, client)| Arc::clone(client))
    }

    /// Tells the other routers of this one's waiting sessions, and hears of theirs.
    async fn publish(
        &mut self,
        shared: &Shared,
        router: &str,
        waiting: &[(&MovingSession, f64)],
    ) -> Result<Vec<Session>, AskError> {
        let Some(catalog) = self.catalog(shared) else { return Ok(Vec::new()) };
        let lines: Vec<_> = waiting
            .iter()
            .map(|(session, started)| {
                let shards: Vec<u32> = session.servers.iter().map(|(shard, _)| shard.0).collect();
                let pids: Vec<i32> = session.servers.iter().map(|(_, pid)| *pid).collect();
                serde_json::json!({ "session": session.key, "turn": session.turn,
                    "started": started, "shards": shards, "pids": pids })
            })
            .collect();
        let lines = serde_json::Value::Array(lines).to_string();
        self.published = true;
        timely(async {
            catalog.execute(PUBLISH_SQL, &[&router, &lines]).await?;
            let rows = catalog.query(PUBLISHED_SQL, &[&SESSIONS_MAX]).await?;
            let sessions = rows.iter().map(|row| {
                let shards: Vec<i32> = row.get(4);
                let pids: Vec<i32> = row.get(5);
                let shards = shards.into_iter().map(|id| ShardId(id as u32));
                Session {
                    router: row.get::<_, &str>(0).into(),
                    session: row.get::<_, i64>(1) as u32,
                    turn: row.get::<_, i64>(2) as u32,
                    started: row.get(3),
                    servers: shards.zip(pids).collect(),
                }
            });
            Ok(sessions.collect())
        })
        .await
    }

    /// Nobody waits any more.
    async fn withdraw(&mut self, shared: &Shared) -> Result<(), AskError> {
        if !std::mem::take(&mut self.published) {
            return Ok(());
        }
        let Some(catalog) = self.catalog(shared) else { return Ok(()) };
        let router = &*shared.settings.router_name;
        let sql = "DELETE FROM pgherd.waiting WHERE router = $1";
        timely(async { Ok(catalog.execute(sql, &[&router]).await?) }).await.map(drop)
    }
}

/// Since when the transaction runs where it waits; `None` if it waits for no lock.
fn waits_since(session: &MovingSession, waits: &[Wait]) -> Option<f64> {
    let own = waits.iter().filter(|wait| session.servers.contains(&(wait.shard, wait.pid)));
    own.map(|wait| wait.transaction_started).reduce(f64::min)
}

/// A router that has died withdraws nothing: what is old is nobody's.
const PUBLISH_SQL: &str = "WITH new AS (\
       INSERT INTO pgherd.waiting AS w (router, session, turn, started, shards, pids) \
       SELECT $1, l.session, l.turn, l.started, l.shards, l.pids \
       FROM pg_catalog.json_to_recordset($2::text::json) AS l (session bigint, turn bigint, \
         started double precision, shards integer[], pids integer[]) \
       ON CONFLICT (router, session) DO UPDATE SET turn = excluded.turn, \
         started = excluded.started, shards = excluded.shards, pids = excluded.pids, \
         seen = pg_catalog.clock_timestamp() \
       RETURNING w.session) \
     DELETE FROM pgherd.waiting w WHERE w.seen < pg_catalog.clock_timestamp() - interval '1 minute' \
       OR (w.router = $1 AND w.session NOT IN (SELECT session FROM new))";

const PUBLISHED_SQL: &str = "SELECT router, session, turn, started, shards, pids \
     FROM pgherd.waiting WHERE seen > pg_catalog.clock_timestamp() - interval '3 seconds' \
     ORDER BY seen DESC LIMIT $1";

const WAITS_SQL: &str = "SELECT a.pid, pg_catalog.pg_blocking_pids(a.pid), \
       pg_catalog.date_part('epoch', a.xact_start), pg_catalog.date_part('epoch', a.query_start) \
     FROM pg_catalog.pg_stat_activity a \
     WHERE a.wait_event_type = 'Lock' AND a.datname = pg_catalog.current_database() \
       AND a.xact_start IS NOT NULL AND a.query_start IS NOT NULL LIMIT $1";

async fn waits_of(shard: ShardId, client: &Client) -> Result<Vec<Wait>, AskError> {
    let rows = timely(async { Ok(client.query(WAITS_SQL, &[&SESSIONS_MAX]).await?) }).await?;
    let waits = rows.iter().map(|row| Wait {
        shard,
        pid: row.get(0),
        by: row.get(1),
        transaction_started: row.get(2),
        statement_started: row.get(3),
    });
    Ok(waits.collect())
}
