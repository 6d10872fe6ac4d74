//! Drives [`Cut`]: snapshots of several shards that show a transaction on all of them or on none.
//!
//! A statement by itself gets a REPEATABLE READ block of the router's own over the shards that it
//! reads; a REPEATABLE READ transaction of the client's gets its snapshots on all shards at its
//! first statement. Whatever is read in such a block, by whatever way, is of these snapshots.
//!
//! In a READ COMMITTED block, where every command has a snapshot of its own, the statement is bound
//! to a portal first: that takes its snapshot. Two looks, before and behind, show what it may see;
//! where they differ it is bound again. It runs once the portals of all shards agree.
//!
//! One write per shard does it: a list of what is prepared, BEGIN, and a look from inside. What
//! became visible *lately* the shard says itself, by an older snapshot of the same server that its
//! connection remembers (`Seldom::earlier`); one whose memory is old is asked before.

mod look;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgherd_planner::{Access, Isolation, Plan, ShardSet, StatementKind};
use pgherd_shard_map::ShardId;

use self::look::Look;
use super::many::{Rows, Task, put_bound};
use super::servers::serializable_over_shards;
use super::{Conn, Statement};
use crate::consistent_read::{Action, Cut, Event, Marker, Outcome, Place, ReadConsistency, Sight};
use crate::error::{ErrorInfo, Failure};
use crate::gate::Closed;
use crate::pool::server::Reply;
use crate::recovery;
use crate::session::{Block, Transaction};
use crate::telemetry;
use crate::two_phase::{End, Gid};
use crate::wire::frontend;

/// A snapshot that is older would make a shard tell much.
const EARLIER_MAX: Duration = Duration::from_secs(2);

/// So often a read begins anew because a shard would have had too much to tell.
const STARTS_MAX: usize = 3;

/// The portal of a statement whose snapshot has been taken.
const PORTAL: &[u8] = b"pgherd_read";

/// One attempt at one cut.
struct Attempt<'a> {
    cut: Cut<Gid>,
    shards: Vec<ShardId>,
    /// Their places among the session's servers.
    servers: Vec<usize>,
    /// What binds the statement's portal in each place; else whole blocks are begun.
    binds: Option<&'a [Vec<u8>]>,
    /// What the newest snapshots are.
    taken: BTreeMap<Place, Box<str>>,
    closed: Option<Closed>,
}

/// What was sent to a server: how many replies come, and which of them have something to say.
enum Sent {
    /// A list, BEGIN and its kin, a look.
    Block {
        before: usize,
        replies: usize,
        /// The list is prepared, and stays so.
        listed: bool,
    },
    /// What made the server join, then two looks in one.
    Portal {
        joins: usize,
    },
    Ask,
}

enum Heard {
    Taken(Look, Look),
    Told(Vec<Marker<Gid>>),
}

impl Conn {
    /// Before a statement that reads on these shards: takes their snapshots, if the session wants
    /// them to agree and the statement is not in a transaction that has them.
    pub(super) async fn read_together(
        &mut self,
        shards: &[ShardId],
        plan: &Plan,
    ) -> Result<(), Failure> {
        if shards.len() < 2 || plan.access != Access::Read {
            return Ok(());
        }
        match self.session.transaction.block() {
            None => {
                let settings = Rc::clone(&self.session.settings);
                let mut block = Block::new("BEGIN ISOLATION LEVEL REPEATABLE READ", true, settings);
                if block.is_serializable() {
                    return Err(serializable_over_shards().into());
                }
                if self.consistency(plan) == ReadConsistency::Shard {
                    return Ok(());
                }
                block.isolation = Some(Isolation::RepeatableRead);
                self.session.transaction = Transaction::Open(Box::new(block));
            }
            // The same statement goes another way.
            Some(block) if block.implicit && block.isolation.is_some() => {}
            Some(_) => return Ok(()),
        }
        Box::pin(self.take_cut(shards, None)).await
    }

    /// The same for rows that are to be read in a READ COMMITTED block: binds the tasks' portals.
    pub(super) async fn bind_together(
        &mut self,
        tasks: &mut [Task],
        statement: Statement<'_>,
        rows: Rows<'_>,
    ) -> Result<(), Failure> {
        if self.bind_as(PORTAL, tasks, statement, rows).await? {
            tasks.iter_mut().for_each(|task| task.portal = Some(PORTAL));
        }
        Ok(())
    }

    /// The same under a name. `false`: each shard's own snapshot will do, and nothing is bound.
    pub(super) async fn bind_as(
        &mut self,
        name: &[u8],
        tasks: &mut [Task],
        statement: Statement<'_>,
        rows: Rows<'_>,
    ) -> Result<bool, Failure> {
        self.keep_to_own(tasks, statement.sql)?;
        let keeps_none = |block: &Block| {
            matches!(block.isolation(), Isolation::ReadCommitted | Isolation::ReadUncommitted)
        };
        if tasks.len() < 2
            || self.consistency(statement.plan) == ReadConsistency::Shard
            || statement.plan.kind != StatementKind::Select
        {
            return Ok(false);
        }
        if statement.plan.access != Access::Read {
            // What may write gets no block that could fail for what others write meanwhile.
            self.open_implicit();
        }
        if !self.session.transaction.block().is_some_and(keeps_none) {
            return Ok(false);
        }
        let mut binds = Vec::with_capacity(tasks.len());
        for task in &mut *tasks {
            let mut bind = Vec::new();
            frontend::put_close(&mut bind, b'P', name);
            let shard = self.servers[task.at].shard;
            put_bound(&mut bind, name, task, shard, statement, rows)?;
            binds.push(bind);
            self.servers[task.at].wrote |= statement.plan.access != Access::Read;
        }
        let shards: Vec<ShardId> = tasks.iter().map(|task| self.servers[task.at].shard).collect();
        Box::pin(self.take_cut(&shards, Some(&binds))).await?;
        Ok(true)
    }

    /// A hint in the statement goes before the session's setting.
    fn consistency(&self, plan: &Plan) -> ReadConsistency {
        plan.consistency.unwrap_or(self.planning.consistency)
    }

    /// Before the first statement of the client's block.
    pub(super) async fn begin_block(&mut self) -> Result<(), Failure> {
        let consistency = self.planning.consistency;
        let alone = self.planning.map.shards().len() < 2;
        let Some(block) = self.session.transaction.block_mut() else { return Ok(()) };
        block.cut_due = false;
        if consistency == ReadConsistency::Shard || alone {
            return Ok(());
        }
        if consistency == ReadConsistency::Snapshot {
            block.keep_snapshot();
        }
        if block.isolation() != Isolation::RepeatableRead {
            return Ok(());
        }
        let shards = self.shard_list(&ShardSet::All);
        Box::pin(self.take_cut(&shards, None)).await
    }

    async fn take_cut(
        &mut self,
        shards: &[ShardId],
        binds: Option<&[Vec<u8>]>,
    ) -> Result<(), Failure> {
        self.take_ticket().await?;
        let mut servers = Vec::with_capacity(shards.len());
        for shard in shards {
            servers.push(self.server_for(*shard).await?);
        }
        for _ in 0..STARTS_MAX {
            self.look_back(&servers, binds.is_some()).await?;
            let mut attempt = Attempt {
                cut: Cut::new(shards, Instant::now()),
                shards: shards.to_vec(),
                servers: servers.clone(),
                binds,
                taken: BTreeMap::new(),
                closed: None,
            };
            let ended = self.drive(&mut attempt).await;
            self.open_gate(&mut attempt);
            if ended? {
                return Ok(());
            }
        }
        Err(ErrorInfo::new("40001", "the shards' snapshots could not be compared")
            .detail("Transactions over several shards are committed faster than they can be told.")
            .hint("Run the statement again.")
            .into())
    }

    /// Sees that all of these servers have a snapshot that is older than what follows, but not
    /// much. All answer before any is asked for more.
    async fn look_back(&mut self, servers: &[usize], in_block: bool) -> Result<(), Failure> {
        let now = Instant::now();
        let mut asked = Vec::new();
        for at in servers {
            let earlier = self.servers[*at].seldom.earlier.as_ref();
            if earlier.is_some_and(|earlier| now.duration_since(earlier.1) < EARLIER_MAX) {
                continue;
            }
            let mut request = Vec::new();
            let replies = match in_block {
                true => self.put_join(*at, &mut request) as usize,
                false => self.put_leave(*at, &mut request),
            };
            frontend::put_query(&mut request, "SELECT pg_catalog.pg_current_snapshot()");
            self.send_request(*at, &request).await?;
            asked.push((*at, replies));
        }
        let mut failure = None;
        for (at, replies) in asked {
            match self.hear_all(at, replies + 1).await {
                Ok(heard) => {
                    let snapshot = heard.last().and_then(Reply::scalar);
                    self.servers[at].seldom.earlier =
                        snapshot.map(|text| (text.into(), Instant::now()));
                }
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// `false`: a shard had too much to tell, and a newer snapshot must be looked back to.
    async fn drive(&mut self, attempt: &mut Attempt<'_>) -> Result<bool, Failure> {
        loop {
            if let Some(outcome) = attempt.cut.outcome().cloned() {
                return self.end_cut(attempt, outcome).map(|()| true);
            }
            let mut sent = Vec::new();
            let mut events = Vec::new();
            while let Some(action) = attempt.cut.action() {
                match action {
                    Action::Take(place) => {
                        sent.push((place, self.send_take(attempt, place).await?));
                    }
                    Action::Ask(place, gids) => {
                        let mut request = Vec::new();
                        let snapshot = attempt.taken.get(&place).map_or("1:1:", |text| text);
                        frontend::put_query(&mut request, &look::question(&gids, snapshot));
                        self.send_request(attempt.servers[place], &request).await?;
                        sent.push((place, Sent::Ask));
                    }
                    Action::Finish(place, gid) => {
                        self.finish_there(attempt.shards[place], gid).await;
                        events.push(Event::Finished);
                    }
                    Action::Rest { until } => {
                        tokio::time::sleep_until(until.into()).await;
                        events.push(Event::Rested);
                    }
                    Action::CloseGate => {
                        attempt.closed = self.close_gate().await;
                        events.push(Event::GateClosed);
                    }
                    Action::OpenGate => {
                        self.open_gate(attempt);
                        events.push(Event::GateOpened);
                    }
                }
            }
            let mut failure = None;
            let mut full = false;
            for (place, sent) in sent {
                match self.hear_sent(attempt.servers[place], sent).await {
                    Ok(Heard::Taken(before, inside)) => {
                        full |= inside.full;
                        attempt.taken.insert(place, inside.snapshot);
                        let sight = Sight {
                            prepared: before.prepared,
                            blurred: attempt.binds.is_some() && before.markers != inside.markers,
                            markers: inside.markers,
                        };
                        events.push(Event::Taken(place, sight));
                    }
                    Ok(Heard::Told(markers)) => events.push(Event::Told(place, markers)),
                    Err(error) => drop(failure.get_or_insert(error)),
                }
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
            if full {
                attempt.servers.iter().for_each(|at| self.servers[*at].seldom.earlier = None);
                return Ok(false);
            }
            let now = Instant::now();
            events.into_iter().for_each(|event| attempt.cut.handle(event, now));
        }
    }

    fn end_cut(&mut self, attempt: &Attempt<'_>, outcome: Outcome<Gid>) -> Result<(), Failure> {
        let now = Instant::now();
        let metrics = &self.worker.metrics;
        match outcome {
            Outcome::Consistent => {
                metrics.cut(match attempt.cut.failures() {
                    0 => telemetry::Cut::AtOnce,
                    _ => telemetry::Cut::LookedAgain,
                });
                for (place, snapshot) in &attempt.taken {
                    let server = &mut self.servers[attempt.servers[*place]];
                    // A transaction's own number is not among those that its snapshots name.
                    if !server.wrote {
                        server.seldom.earlier = Some((snapshot.clone(), now));
                    }
                }
                Ok(())
            }
            Outcome::GaveUp { shard, gid } => {
                metrics.cut(telemetry::Cut::GaveUp);
                // The next read starts from now: what is lost is not found a second time.
                attempt.servers.iter().for_each(|at| self.servers[*at].seldom.earlier = None);
                let gid = gid.map_or_else(String::new, |gid| gid.to_string());
                tracing::error!(%shard, gid, "a transaction does not become visible on this shard");
                Err(ErrorInfo::new("58000", "the shards do not agree on what is committed")
                    .detail(format!(
                        "The transaction {gid} is committed on other shards, and not to be seen on \
                         shard {shard}."
                    ))
                    .hint(
                        "\"pgherd txn list\" shows what is in doubt. SET pgherd.read_consistency \
                         = 'shard' reads in spite of it.",
                    )
                    .into())
            }
        }
    }

    /// Leaves the block's transaction, in which nothing has been done yet.
    fn put_leave(&mut self, at: usize, request: &mut Vec<u8>) -> usize {
        let joined = std::mem::take(&mut self.servers[at].joined);
        if joined {
            frontend::put_query(request, "ROLLBACK");
        }
        usize::from(joined)
    }

    async fn send_take(&mut self, attempt: &Attempt<'_>, place: Place) -> Result<Sent, Failure> {
        let at = attempt.servers[place];
        let mut request = Vec::new();
        let sent = if let Some(binds) = attempt.binds {
            let joins = self.put_join(at, &mut request) as usize;
            look::put_look(&self.servers[at], &mut request);
            request.extend_from_slice(&binds[place]);
            look::put_look(&self.servers[at], &mut request);
            Sent::Portal { joins }
        } else {
            let before = self.put_leave(at, &mut request);
            // What it forgets as it joins, it does not keep.
            let listed = !self.servers[at].forget;
            look::put_list(&self.servers[at], &mut request);
            request.extend_from_slice(frontend::SYNC);
            let joins = self.put_join(at, &mut request) as usize;
            look::put_look(&self.servers[at], &mut request);
            Sent::Block { before, replies: before + joins + 2, listed }
        };
        request.extend_from_slice(frontend::SYNC);
        self.send_request(at, &request).await?;
        Ok(sent)
    }

    async fn hear_sent(&mut self, at: usize, sent: Sent) -> Result<Heard, Failure> {
        let (listed, places) = match sent {
            Sent::Ask => {
                let heard = self.hear_all(at, 1).await?;
                return Ok(Heard::Told(heard.first().map_or_else(Vec::new, look::answer)));
            }
            Sent::Block { before, replies, listed } => (listed, [(before, 0), (replies - 1, 0)]),
            Sent::Portal { joins } => (false, [(joins, 0), (joins, 1)]),
        };
        let heard = self.hear_all(at, places[1].0 + 1).await?;
        look::keep(&mut self.servers[at], listed);
        let [before, inside] =
            places.map(|(reply, row)| Look::read(heard.get(reply)?.rows.get(row)?));
        match (before, inside) {
            (Some(before), Some(inside)) => Ok(Heard::Taken(before, inside)),
            _ => Err(ErrorInfo::new("XX000", "a shard did not tell its markers").into()),
        }
    }

    /// All replies that come; an error in any is the statement's.
    async fn hear_all(&mut self, at: usize, replies: usize) -> Result<Vec<Reply>, Failure> {
        let mut heard = Vec::with_capacity(replies);
        let mut failure = None;
        for _ in 0..replies {
            match self.servers[at].collect().await {
                Ok(Reply { error: Some(error), .. }) => {
                    failure.get_or_insert(Failure::Shard(error));
                }
                Ok(reply) => heard.push(reply),
                Err(error) => return Err(self.lost(at, &error)),
            }
        }
        failure.map_or(Ok(heard), Err)
    }

    async fn send_request(&mut self, at: usize, request: &[u8]) -> Result<(), Failure> {
        match self.servers[at].send(request).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(at, &error)),
        }
    }

    /// What its owner has decided and not finished, as recovery does it.
    async fn finish_there(&self, shard: ShardId, gid: Gid) {
        let shared = &self.worker.shared;
        let dsn = |id: ShardId| {
            let shard = self.planning.map.shard(id)?;
            Some(shared.settings.catalog.login_for(&shard.dsn))
        };
        let Some((there, decider)) = dsn(shard).zip(gid.decider().and_then(dsn)) else { return };
        let dialer = Arc::clone(&shared.dialer);
        let finishing =
            async move { recovery::finish(&dialer, (shard, &there), &decider, &gid).await };
        let end = shared.control.spawn(finishing).await.unwrap_or(End::Left);
        tracing::debug!(%shard, ?end, "a read has finished a transaction");
    }

    async fn close_gate(&self) -> Option<Closed> {
        let shared = Arc::clone(&self.worker.shared);
        let catalog = &shared.settings.catalog;
        let shards: BTreeMap<ShardId, String> = self
            .planning
            .map
            .shards()
            .map(|shard| (shard.id, catalog.login_for(&shard.dsn)))
            .collect();
        let control = shared.control.clone();
        let closing = async move { shared.gate.close(&shared.dialer, &shards).await };
        control.spawn(closing).await.ok()
    }

    fn open_gate(&self, attempt: &mut Attempt<'_>) {
        if let Some(closed) = attempt.closed.take() {
            self.worker.shared.control.spawn(closed.open());
        }
    }
}
