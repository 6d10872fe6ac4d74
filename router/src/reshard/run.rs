//! Drives a run: asks the machine for steps, does them, and records what comes of it.

mod change;
mod copy;
mod observe;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use pgherd_shard_map::store::{Catalog, Move, Record};
use pgherd_shard_map::{Epoch, GroupId, ShardMap};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::gate::{self, Gate};
use super::phase::{Advance, Goal, Owners, Phase, Step, is_reached, steps};
use super::stream::{Direction, Stream, streams};
use super::switch::Late;
use super::verify::{self, Verification};
use super::{Problem, Shards, cleanup, follow, preflight, publish};
use crate::config::Dsn;
use crate::dial::Dialer;

/// What the operator chose.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How long writers of moving rows may be held up.
    pub max_pause: Duration,
    /// Transactions that hold it up.
    pub late: Late,
    /// Who runs it, for the record.
    pub who: String,
    /// Set by whoever wants it to stop: it does so where nobody waits for it.
    pub stop: Arc<AtomicBool>,
}

/// What is to be begun.
#[derive(Debug, Clone)]
pub struct Begin {
    pub moves: Vec<Move>,
    /// The group that the tables join in the end.
    pub joins: Option<GroupId>,
}

/// How often it is looked at what is under way.
const LOOK: Duration = Duration::from_millis(500);

/// How long the target may take to follow before it counts as stuck.
const FOLLOW_WAIT: Duration = Duration::from_secs(120);

/// How long routers are given to take a new map, where nobody waits.
const ROUTERS_WAIT: Duration = Duration::from_secs(3);

/// How long another process that drives a run is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(3);

/// How often a switch is tried again after it would have taken too long.
const SWITCH_TRIES: u32 = 5;

/// Hears of steps and of progress.
pub type Tell<'a> = dyn FnMut(&Value) + Send + 'a;

/// One run, driven by this process alone.
#[derive(Debug)]
pub struct Run {
    catalog: Catalog,
    map: ShardMap,
    shards: Shards,
    record: Record,
    options: Options,
    last: Option<Verification>,
}

impl Run {
    /// Takes the run under way, or none. Nobody else can drive one until this is dropped.
    ///
    /// # Errors
    /// Somebody else drives it; the catalog cannot be reached.
    pub async fn take(
        dialer: &Arc<Dialer>,
        dsn: &Dsn,
        options: Options,
    ) -> Result<Option<Self>, Problem> {
        Self::of(locked(dialer, dsn).await?, dialer, dsn, options).await
    }

    /// The run under way, or the last one, to be looked at only.
    ///
    /// # Errors
    /// The catalog cannot be reached.
    pub async fn look(dialer: &Arc<Dialer>, dsn: &Dsn) -> Result<Option<Self>, Problem> {
        let catalog = Catalog::connect(dialer.catalog(dsn.as_str())?).await?;
        Self::of(catalog, dialer, dsn, Options::default()).await
    }

    async fn of(
        catalog: Catalog,
        dialer: &Arc<Dialer>,
        dsn: &Dsn,
        options: Options,
    ) -> Result<Option<Self>, Problem> {
        let Some(record) = catalog.reshard().await? else { return Ok(None) };
        let map = catalog.load().await?;
        let shards = Shards::new(Arc::clone(dialer), dsn, &map);
        Ok(Some(Self { catalog, map, shards, record, options, last: None }))
    }

    /// Begins a run: everything is looked at before anything is recorded, and recorded before
    /// anything is made.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn begin(
        dialer: &Arc<Dialer>,
        dsn: &Dsn,
        begin: Begin,
        options: Options,
    ) -> Result<Self, Problem> {
        let Begin { moves, joins } = begin;
        let catalog = locked(dialer, dsn).await?;
        let map = catalog.load().await?;
        let mut shards = Shards::new(Arc::clone(dialer), dsn, &map);
        let home = shards.get(map.home).await?;
        let tables = preflight::tables(&home, &map, &moves).await?;
        preflight::servers(&mut shards, &moves, &tables).await?;
        if let Some(record) = catalog.reshard().await?
            && !Phase::parse(&record.phase).is_some_and(Phase::is_over)
        {
            return Err(Problem::new(
                format!("run {} is under way", record.id),
                "pgherd reshard status tells of it; one at a time.",
            ));
        }
        catalog.begin_reshard(&moves, &tables, joins, &options.who, map.epoch).await?;
        let record = catalog.reshard().await?;
        let record = record.ok_or_else(|| "the record of the run is gone".to_owned())?;
        let map = catalog.load().await?;
        Ok(Self { catalog, map, shards, record, options, last: None })
    }

    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        Phase::parse(&self.record.phase)
    }

    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// What the last verification of this process found.
    #[must_use]
    pub const fn verification(&self) -> Option<&Verification> {
        self.last.as_ref()
    }

    /// Goes on until the goal is reached. `tell` hears of every step and of progress.
    ///
    /// # Errors
    /// What stopped it. The same call goes on from there.
    pub async fn reach(&mut self, goal: Goal, tell: &mut Tell<'_>) -> Result<(), Problem> {
        match self.go(goal, tell).await {
            Ok(()) => Ok(()),
            Err(problem) => {
                let noted = self.catalog.note_reshard(
                    self.record.id,
                    &self.record.progress,
                    Some(&problem.what),
                );
                // The problem itself matters more than that it could not be noted.
                drop(noted.await);
                Err(problem)
            }
        }
    }

    async fn go(&mut self, goal: Goal, tell: &mut Tell<'_>) -> Result<(), Problem> {
        let mut fresh = false;
        let mut tries = 0;
        loop {
            let phase = self.phase_now()?;
            let list = steps(phase, goal, fresh)
                .map_err(|refusal| Problem::new(refusal.why, refusal.hint))?;
            fresh = false;
            for step in list {
                self.may_go_on()?;
                // What is done with its copies does not wait for them.
                let ends = matches!(phase, Phase::Finishing | Phase::Cancelling);
                if step != Step::Done && !ends && goal != Goal::Cancel && goal != Goal::Finish {
                    self.refuse_while_paused().await?;
                }
                tell(&json!({ "phase": phase.name(), "step": word(step) }));
                match step {
                    Step::Done if is_reached(phase, goal) => return Ok(()),
                    Step::Done => {
                        return Err(Problem::new(
                            format!("run {} is {}", self.record.id, phase.name()),
                            "pgherd reshard start begins a new one.",
                        ));
                    }
                    Step::Switch(direction) => {
                        match self.switch(direction, phase).await {
                            Ok(()) => tries = 0,
                            Err(problem) => {
                                tries += 1;
                                if tries >= SWITCH_TRIES {
                                    return Err(problem);
                                }
                                tell(&json!({ "phase": phase.name(), "again": problem.what }));
                            }
                        }
                        // Either way the phase has changed.
                        break;
                    }
                    Step::Advance(advance) => {
                        self.advance(advance).await?;
                        fresh = true;
                    }
                    other => self.step(other, phase, tell).await?,
                }
            }
        }
    }

    async fn refuse_while_paused(&self) -> Result<(), Problem> {
        let record = self.catalog.reshard().await?;
        match record.is_some_and(|record| record.id == self.record.id && record.paused) {
            false => Ok(()),
            true => Err(Problem::new(
                format!("run {} is paused", self.record.id),
                "pgherd reshard resume lets its rows flow again.",
            )),
        }
    }

    /// Lets rows flow, or not. May be done beside a command that is at work.
    ///
    /// # Errors
    /// Nothing flows in this phase; a shard cannot be reached.
    pub async fn hold(&mut self, paused: bool) -> Result<(), Problem> {
        let phase = self.phase_now()?;
        if !matches!(phase, Phase::Copying | Phase::Ready | Phase::Moved) {
            return Err(Problem::new(
                format!("run {} is {}", self.record.id, phase.name()),
                "Rows flow while it is copying, ready or moved.",
            ));
        }
        self.catalog.pause_reshard(self.record.id, paused).await?;
        for (stream, _, target) in self.ends(phase.direction()).await? {
            follow::hold(&target, &stream, paused).await?;
        }
        self.record.paused = paused;
        Ok(())
    }

    fn may_go_on(&self) -> Result<(), Problem> {
        match self.options.stop.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Problem::new(
                format!("run {} was stopped", self.record.id),
                "pgherd reshard start goes on, pgherd reshard cancel ends it.",
            )),
        }
    }

    fn phase_now(&self) -> Result<Phase, Problem> {
        self.phase().ok_or_else(|| {
            Problem::new(
                format!("run {} is in an unknown phase, {}", self.record.id, self.record.phase),
                "A newer pgherd has made it: use that one.",
            )
        })
    }

    async fn step(&mut self, step: Step, phase: Phase, tell: &mut Tell<'_>) -> Result<(), Problem> {
        match step {
            Step::Publish(direction) => {
                let gate = if phase.direction() == direction { Gate::Open } else { Gate::Closed };
                for stream in self.streams(direction)? {
                    let source = self.shards.get(stream.source).await?;
                    publish::publish(&source, &stream, gate).await?;
                }
            }
            Step::Copy(direction) => {
                self.shut_out(direction).await?;
                self.copy(direction, tell).await?;
            }
            Step::Follow(direction) => self.follow(direction).await?,
            Step::CatchUp(direction) => {
                for (stream, source, target) in self.ends(direction).await? {
                    follow::beat(&source, &target, &stream, FOLLOW_WAIT).await?;
                }
            }
            Step::Verify(direction) => self.verify(direction, tell).await?,
            Step::Reopen(direction) => self.reopen(direction).await?,
            Step::Clear => {
                for direction in [Direction::Forward, Direction::Backward] {
                    for (stream, source, target) in self.ends(direction).await? {
                        cleanup::remove(&source, &target, &stream).await?;
                    }
                }
            }
            Step::Delete(direction) => {
                let mut meter = self.meter(direction).await?;
                for (stream, _, target) in self.ends(direction).await? {
                    let mut looked = None::<Instant>;
                    let mut deleted = 0;
                    for leaf in cleanup::leaves(&target, &stream.tables).await? {
                        for block in leaf.portions() {
                            if looked.is_none_or(|at| at.elapsed() >= LOOK) {
                                self.give_way(&mut meter, tell).await?;
                                looked = Some(Instant::now());
                            }
                            deleted += leaf.delete(&target, block).await?;
                        }
                    }
                    tell(&json!({ "phase": phase.name(), "deleted": deleted,
                        "shard": stream.target.0 }));
                }
            }
            Step::Switch(_) | Step::Advance(_) | Step::Done => {}
        }
        Ok(())
    }

    /// Before copies appear on the target: routers that do not know of the run would take them for
    /// its own rows.
    async fn shut_out(&mut self, direction: Direction) -> Result<(), Problem> {
        let ends = self.ends(direction).await?;
        let shards = ends.iter().flat_map(|(_, source, target)| [&**source, &**target]);
        self.settle(self.map.epoch, shards, ROUTERS_WAIT).await
    }

    /// From here on only routers whose maps are that new have sessions on these shards.
    async fn settle<'a>(
        &self,
        epoch: Epoch,
        shards: impl Iterator<Item = &'a Client>,
        wait: Duration,
    ) -> Result<(), Problem> {
        let mut each: Vec<&Client> = Vec::new();
        for shard in shards {
            if !each.iter().any(|known| std::ptr::eq(*known, shard)) {
                each.push(shard);
            }
        }
        let ended = self.catalog.settle(&each, epoch, wait).await?;
        if ended > 0 {
            tracing::warn!(ended, "sessions of routers that do not follow the catalog were ended");
        }
        Ok(())
    }

    /// This direction's rows flow, and the other's do not. What is done already is left as it is.
    async fn follow(&mut self, direction: Direction) -> Result<(), Problem> {
        self.settle_gates(direction).await?;
        for (stream, source, target) in self.ends(direction.reversed()).await? {
            // The gate stays, closed: it is its side that is not in charge.
            cleanup::remove_flow(&source, &target, &stream).await?;
        }
        for (stream, _, target) in self.ends(direction).await? {
            let url = self.shards.url(stream.source)?;
            follow::subscribe(&target, url, &stream, follow::Rows::There).await?;
        }
        Ok(())
    }

    /// Open where the phase says that rows are written, closed on the other side; and routers that
    /// have not heard of it stay away.
    async fn settle_gates(&mut self, direction: Direction) -> Result<(), Problem> {
        self.shut_out(direction).await?;
        let ends = self.ends(direction).await?;
        let backs = self.streams(direction.reversed())?;
        for (stream, source, target) in &ends {
            gate::set(source, stream, Gate::Open).await?;
            let back = back_of(&backs, stream)?;
            if gate::is_there(target, back).await? {
                gate::set(target, back, Gate::Closed).await?;
            }
        }
        Ok(())
    }

    async fn verify(&mut self, direction: Direction, tell: &mut Tell<'_>) -> Result<(), Problem> {
        let ends = self.ends(direction).await?;
        let mut lockers = Vec::new();
        for (stream, ..) in &ends {
            lockers.push(self.shards.open(stream.source).await?);
        }
        let verifying = ends.iter().zip(&lockers).map(|((stream, source, target), locker)| {
            verify::verify(source, locker, target, stream)
        });
        let tables = try_join_all(verifying).await?.into_iter().flatten().collect();
        let found = Verification { tables };
        tell(&json!({ "verified": found.rows(), "wrong": found.wrong() }));
        self.certify("verification", &found, json!({})).await?;
        let checked = found.check();
        self.last = Some(found);
        checked
    }

    async fn certify(&self, kind: &str, found: &Verification, more: Value) -> Result<(), Problem> {
        let mut certificate = json!({
            "kind": kind,
            "run": self.record.id,
            "by": self.options.who,
            "moves": self.record.moves,
            "tables": found.tables,
        });
        if let (Value::Object(all), Value::Object(more)) = (&mut certificate, more) {
            all.extend(more);
        }
        Ok(self.catalog.certify_reshard(self.record.id, &certificate).await?)
    }

    async fn advance(&mut self, advance: Advance) -> Result<(), Problem> {
        self.record_advance(advance).await?;
        self.map = self.catalog.load().await?;
        Ok(())
    }

    /// The same, and the map is not read: it is of an older epoch than what is returned.
    async fn record_advance(&mut self, advance: Advance) -> Result<Epoch, Problem> {
        let owners = advance.owners.map(|owners| match owners {
            Owners::New => "to_shard",
            Owners::Old => "from_shard",
        });
        let (from, to) = (advance.from.name(), advance.to.name());
        let epoch = self.catalog.advance_reshard(self.record.id, from, to, owners).await?;
        to.clone_into(&mut self.record.phase);
        Ok(epoch)
    }

    fn streams(&self, direction: Direction) -> Result<Vec<Stream>, Problem> {
        streams(&self.record, &self.map, direction)
    }

    async fn ends(
        &mut self,
        direction: Direction,
    ) -> Result<Vec<(Stream, Arc<Client>, Arc<Client>)>, Problem> {
        let mut ends = Vec::new();
        for stream in self.streams(direction)? {
            let source = self.shards.get(stream.source).await?;
            let target = self.shards.get(stream.target).await?;
            ends.push((stream, source, target));
        }
        Ok(ends)
    }
}

async fn locked(dialer: &Dialer, dsn: &Dsn) -> Result<Catalog, Problem> {
    let catalog = Catalog::connect(dialer.catalog(dsn.as_str())?).await?;
    // One that was killed may not be gone yet, and a router may be looking.
    let started = Instant::now();
    while started.elapsed() < LOCK_WAIT {
        if catalog.lock_reshard().await? {
            return Ok(catalog);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(Problem::new(
        "another pgherd reshard is at work",
        "Wait for it, or stop it; pgherd reshard status --watch shows how far it is.",
    ))
}

fn back_of<'a>(backs: &'a [Stream], stream: &Stream) -> Result<&'a Stream, Problem> {
    let ends = (stream.target, stream.source);
    let found = backs.iter().find(|back| (back.source, back.target) == ends);
    Ok(found.ok_or_else(|| format!("stream {} has no way back", stream.name))?)
}

/// What a step is called while it is done.
fn word(step: Step) -> &'static str {
    match step {
        Step::Publish(_) => "publish",
        Step::Copy(_) => "copy",
        Step::Follow(_) => "follow",
        Step::CatchUp(_) => "catch up",
        Step::Verify(_) => "verify",
        Step::Switch(_) => "switch",
        Step::Reopen(_) => "reopen",
        Step::Clear => "clear",
        Step::Delete(_) => "delete",
        Step::Advance(advance) => advance.to.name(),
        Step::Done => "done",
    }
}
