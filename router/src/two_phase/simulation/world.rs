//! Routers, shards, and what lies between them; one move after the other, chosen by a seed.

mod faults;
mod readers;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use self::readers::Reader;
use super::shard::{Shard, Tx, Work};
use super::{Mutant, Random, Seen};
use crate::two_phase::{
    Action, Answer, Coordinator, DECIDER, End, Event, Orphan, OrphanEvent, Outcome, Participant,
    Request, Step, Verdict,
};

/// Moves before everything heals, and moves that healing may take.
const STORM: usize = 120;
const HEALING_MAX: usize = 20_000;

/// How long markers are kept.
const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// A transaction, the router that owns it, and its connections.
struct Owner {
    router: usize,
    /// The decider first; then the other writers; then readers.
    links: Vec<Link>,
    writers: usize,
    machine: Option<Coordinator>,
    started: bool,
    told: Option<Outcome>,
    last: Option<Request>,
}

/// The owner's connection to one shard. Either end may be dead without the other knowing.
struct Link {
    shard: usize,
    router_end: bool,
    shard_end: bool,
    waiting: bool,
    to_shard: VecDeque<Request>,
    to_router: VecDeque<Answer>,
}

/// A router's attempt at one prepared transaction.
struct Attempt {
    router: usize,
    tx: Tx,
    shard: usize,
    orphan: Orphan,
}

/// A question outside of the owner's connections, on its way.
#[derive(Clone, Copy)]
struct Call {
    shard: usize,
    tx: Tx,
    /// `None` asks for the verdict.
    request: Option<Request>,
    caller: Caller,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Owner(Tx),
    Attempt(u32),
    /// It has given up, or got its answer: this comes late, or twice.
    Nobody,
}

#[derive(Clone, Copy)]
enum Reply {
    Verdict(Verdict),
    Answer(Answer),
}

#[derive(Clone, Copy)]
enum Move {
    Start(Tx),
    Deliver(Tx, Participant),
    Hear(Tx, Participant),
    /// The router learns that the connection is dead, or has waited too long.
    RouterNotices(Tx, Participant),
    ShardNotices(Tx, Participant),
    Call(usize),
    Reply(usize),
    Look(usize, usize),
    Read(usize, usize),
    Clock,
    Clean,
    RestartShard(usize),
    RestartRouter(usize),
    // What follows happens only while the storm lasts.
    CrashShard(usize),
    CrashRouter(usize),
    LoseCall(usize),
    Promote(usize),
}

pub(super) struct World {
    random: Random,
    now: Instant,
    start: Instant,
    mutant: Option<Mutant>,
    shards: Vec<Shard>,
    routers: Vec<bool>,
    owners: Vec<Owner>,
    readers: Vec<Reader>,
    /// Which reader keeps decisions off each shard.
    gates: Vec<Option<usize>>,
    torn: Option<String>,
    attempts: BTreeMap<u32, Attempt>,
    next_attempt: u32,
    calls: Vec<Call>,
    replies: Vec<(Caller, Reply)>,
    alarms: u32,
    /// A standby took a shard's place, which an alarm may notice.
    promoted: bool,
    /// How much may still go wrong, and how often it does: in one of so many moves.
    faults: usize,
    calm: usize,
    story: Option<String>,
}

impl World {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>, told: bool) -> Self {
        let mut random = Random(seed);
        let shards = 2 + random.below(3);
        let routers = 1 + random.below(3);
        let owners = 1 + random.below(3);
        let faults = random.below(8);
        let calm = [1, 5, 12, 30][random.below(4)];
        let now = Instant::now();
        let mut world = Self {
            now,
            start: now,
            mutant,
            shards: (0..shards).map(|_| Shard::new(mutant)).collect(),
            routers: vec![true; routers],
            owners: Vec::new(),
            readers: Vec::new(),
            gates: vec![None; shards],
            torn: None,
            attempts: BTreeMap::new(),
            next_attempt: 0,
            calls: Vec::new(),
            replies: Vec::new(),
            alarms: 0,
            promoted: false,
            faults,
            calm,
            story: told.then(String::new),
            random,
        };
        for tx in 0..owners {
            let owner = world.new_owner();
            for link in &owner.links {
                world.shards[link.shard].sessions.insert(tx, Work::Open);
            }
            world.owners.push(owner);
        }
        world.new_readers();
        world
    }

    fn new_owner(&mut self) -> Owner {
        let mut shards: Vec<usize> = (0..self.shards.len()).collect();
        for at in (1..shards.len()).rev() {
            shards.swap(at, self.random.below(at + 1));
        }
        let writers = 2 + self.random.below(shards.len() - 1);
        let readers = self.random.below(shards.len() - writers + 1);
        let links = shards[..writers + readers].iter().map(|shard| Link {
            shard: *shard,
            router_end: true,
            shard_end: true,
            waiting: false,
            to_shard: VecDeque::new(),
            to_router: VecDeque::new(),
        });
        Owner {
            router: self.random.below(self.routers.len()),
            links: links.collect(),
            writers,
            machine: None,
            started: false,
            told: None,
            last: None,
        }
    }

    pub(super) fn story(&self) -> &str {
        self.story.as_deref().unwrap_or_default()
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let _ = writeln!(story, "{:>9.1?} {}", self.now - self.start, line());
        }
    }

    /// # Errors
    /// What does not hold.
    pub(super) fn run(&mut self, seen: &mut Seen) -> Result<(), String> {
        for _ in 0..STORM {
            let storm = self.faults > 0 && self.random.once_in(self.calm);
            let mut moves = self.moves(storm);
            if moves.is_empty() {
                // All is at rest, and something may still go wrong afterwards.
                moves = self.moves(self.faults > 0);
            }
            if moves.is_empty() {
                break;
            }
            let chosen = moves[self.random.below(moves.len())];
            self.make(chosen, seen);
            if let Some(torn) = self.torn.take() {
                return Err(torn);
            }
        }
        self.faults = 0;
        self.tell(|| "everything heals".to_owned());
        for _ in 0..HEALING_MAX {
            let moves = self.moves(false);
            if moves.is_empty() {
                return self.check(seen);
            }
            let chosen = moves[self.random.below(moves.len())];
            self.make(chosen, seen);
            if let Some(torn) = self.torn.take() {
                return Err(torn);
            }
        }
        Err("it never heals".to_owned())
    }

    /// What can happen now. Nothing is left once all is at rest.
    fn moves(&self, storm: bool) -> Vec<Move> {
        let mut moves = Vec::new();
        for (tx, owner) in self.owners.iter().enumerate() {
            if !owner.started && self.routers[owner.router] {
                moves.push(Move::Start(tx));
            }
            for (who, link) in owner.links.iter().enumerate() {
                let gated = link.to_shard.front() == Some(&Request::Mark)
                    && self.gates[link.shard].is_some();
                let waits = gated || link.to_shard.is_empty();
                if link.shard_end && self.shards[link.shard].up && !waits {
                    moves.extend([Move::Deliver(tx, who); 2]);
                }
                if link.router_end && !link.to_router.is_empty() {
                    moves.extend([Move::Hear(tx, who); 2]);
                }
                let late = owner.machine.as_ref().is_some_and(|m| self.now >= m.deadline());
                let dead = !link.shard_end && link.to_router.is_empty();
                if link.router_end && (dead || (late && link.waiting) || (storm && link.waiting)) {
                    moves.push(Move::RouterNotices(tx, who));
                }
                if !link.router_end && link.shard_end {
                    moves.push(Move::ShardNotices(tx, who));
                }
            }
        }
        moves.extend(self.reader_moves().map(|(reader, doing)| Move::Read(reader, doing)));
        moves.extend((0..self.calls.len()).map(Move::Call));
        moves.extend((0..self.replies.len()).map(Move::Reply));
        for (at, shard) in self.shards.iter().enumerate() {
            if !shard.up {
                moves.push(Move::RestartShard(at));
            } else if !shard.disk.prepared.is_empty() {
                let routers = (0..self.routers.len()).filter(|router| self.routers[*router]);
                moves.extend(routers.map(|router| Move::Look(router, at)));
            }
        }
        let down = (0..self.routers.len()).filter(|router| !self.routers[*router]);
        moves.extend(down.map(Move::RestartRouter));
        if self.owners.iter().any(|owner| owner.machine.is_some()) {
            moves.push(Move::Clock);
        }
        if storm {
            let marked = self.shards.iter().any(|shard| !shard.disk.markers.is_empty());
            if marked && self.shards.iter().all(|shard| shard.up) {
                moves.push(Move::Clean);
            }
            moves.extend((0..self.calls.len()).map(Move::LoseCall));
            let up = |(at, shard): (usize, &Shard)| shard.up.then_some(Move::CrashShard(at));
            moves.extend(self.shards.iter().enumerate().filter_map(up));
            let up = (0..self.routers.len()).filter(|router| self.routers[*router]);
            moves.extend(up.map(Move::CrashRouter));
            let behind = (0..self.shards.len()).filter(|at| self.older_disk(*at).is_some());
            moves.extend(behind.map(Move::Promote));
        }
        moves
    }

    fn make(&mut self, what: Move, seen: &mut Seen) {
        match what {
            Move::Start(tx) => self.start(tx, seen),
            Move::Deliver(tx, who) => self.deliver(tx, who, seen),
            Move::Hear(tx, who) => {
                let link = &mut self.owners[tx].links[who];
                let answer = link.to_router.pop_front().unwrap_or(Answer::Lost);
                link.waiting = false;
                self.tell(|| format!("owner of {tx} hears from {who}: {answer:?}"));
                self.answer(tx, who, answer, seen);
            }
            Move::RouterNotices(tx, who) => self.router_notices(tx, who, seen),
            Move::ShardNotices(tx, who) => {
                let link = &mut self.owners[tx].links[who];
                link.shard_end = false;
                link.to_shard.clear();
                let shard = link.shard;
                self.shards[shard].end_session(tx);
                self.tell(|| format!("shard {shard} notices that the owner of {tx} is gone"));
            }
            Move::Call(at) => self.call(at, seen),
            Move::Reply(at) => {
                let (caller, reply) = self.replies.swap_remove(at);
                self.reply(caller, reply, seen);
            }
            Move::Look(router, shard) => self.look(router, shard, seen),
            Move::Read(reader, doing) => self.move_reader(reader, doing, seen),
            Move::Clock => {
                let step = 1 + self.random.below(25) as u64;
                // Who reads has less time than who commits.
                let short = self.someone_reads() && !self.random.once_in(4);
                let unit = if short { Duration::from_millis(20) } else { Duration::from_secs(1) };
                self.now += unit * step as u32;
            }
            Move::Clean => self.clean(seen),
            Move::RestartShard(at) => {
                self.shards[at].up = true;
                self.tell(|| format!("shard {at} starts again"));
            }
            Move::RestartRouter(at) => {
                self.routers[at] = true;
                self.tell(|| format!("router {at} starts again"));
            }
            Move::CrashShard(at) => self.crash_shard(at, seen),
            Move::CrashRouter(at) => self.crash_router(at, seen),
            Move::LoseCall(at) => self.lose_call(at),
            Move::Promote(at) => self.promote(at, seen),
        }
    }

    // The owner.

    fn start(&mut self, tx: Tx, seen: &mut Seen) {
        let owner = &mut self.owners[tx];
        owner.started = true;
        let readers = owner.links.len() - owner.writers;
        owner.machine = Some(Coordinator::new(owner.writers, readers, self.now));
        let router = owner.router;
        self.tell(|| format!("router {router} commits {tx}"));
        self.drive(tx, seen);
    }

    fn answer(&mut self, tx: Tx, who: Participant, answer: Answer, seen: &mut Seen) {
        let owner = &mut self.owners[tx];
        let Some(machine) = &mut owner.machine else { return };
        let guess = self.mutant == Some(Mutant::GuessesLostCommit)
            && owner.last == Some(Request::Commit)
            && answer == Answer::Lost;
        let answer = if guess { Answer::Refused } else { answer };
        machine.handle(Event::Answered(who, answer), self.now);
        self.drive(tx, seen);
    }

    /// Does what the owner's machine wants.
    fn drive(&mut self, tx: Tx, seen: &mut Seen) {
        loop {
            let owner = &mut self.owners[tx];
            let Some(machine) = &mut owner.machine else { return };
            match machine.action() {
                Some(Action::Send(who, request)) => {
                    owner.last = Some(request);
                    if request == Request::Commit
                        && self.mutant == Some(Mutant::AcknowledgesBeforeDecision)
                    {
                        owner.told = Some(Outcome::Committed);
                    }
                    let link = &mut owner.links[who];
                    if link.router_end {
                        link.to_shard.push_back(request);
                        link.waiting = true;
                    }
                    let unprepared = request == Request::MarkAndPrepare
                        && self.mutant == Some(Mutant::CommitsBeforeAllArePrepared);
                    if unprepared {
                        machine.handle(Event::Answered(who, Answer::Done), self.now);
                    } else if !link.router_end {
                        machine.handle(Event::Answered(who, Answer::Lost), self.now);
                    }
                    self.tell(|| format!("owner of {tx} sends {who} {request:?}"));
                }
                Some(Action::LookUp { not_before }) => {
                    self.now = self.now.max(not_before);
                    let shard = owner.links[DECIDER].shard;
                    self.calls.push(Call { shard, tx, request: None, caller: Caller::Owner(tx) });
                }
                Some(Action::Alarm(who)) => {
                    self.alarms += 1;
                    self.tell(|| format!("owner of {tx}: an alarm for {who}"));
                }
                None => break,
            }
        }
        let owner = &mut self.owners[tx];
        if let Some(outcome) = owner.machine.as_ref().and_then(Coordinator::outcome) {
            owner.machine = None;
            owner.told = owner.told.or(Some(outcome));
            for link in &mut owner.links {
                // A connection in an unknown state is closed, and any other is as good as closed.
                link.router_end = false;
            }
            *seen.entry(format!("told {outcome:?}")).or_default() += 1;
            self.tell(|| format!("client of {tx} is told {outcome:?}"));
        }
    }

    fn deliver(&mut self, tx: Tx, who: Participant, seen: &mut Seen) {
        let fails = self.faults > 0 && self.random.once_in(25);
        let link = &mut self.owners[tx].links[who];
        let Some(request) = link.to_shard.pop_front() else { return };
        let shard = link.shard;
        let answer = self.shards[shard].run(tx, request, fails, self.now);
        if link.router_end {
            link.to_router.push_back(answer);
        } else {
            *seen.entry("late request".to_owned()).or_default() += 1;
        }
        self.tell(|| format!("shard {shard} runs {request:?} of {tx}: {answer:?}"));
    }

    fn router_notices(&mut self, tx: Tx, who: Participant, seen: &mut Seen) {
        let link = &mut self.owners[tx].links[who];
        link.router_end = false;
        link.to_router.clear();
        if link.shard_end {
            self.faults = self.faults.saturating_sub(1);
        }
        let lost = std::mem::take(&mut link.waiting);
        self.tell(|| format!("owner of {tx} has lost its connection to {who}"));
        if lost {
            self.answer(tx, who, Answer::Lost, seen);
        }
    }

    // Questions outside of the owner's connections.

    fn call(&mut self, at: usize, seen: &mut Seen) {
        let call = self.calls.swap_remove(at);
        let Call { shard, tx, request, caller } = call;
        if !self.shards[shard].up {
            self.no_answer(call);
            return;
        }
        if self.faults > 0 && self.random.once_in(8) {
            // It arrives twice, the second time at any time.
            self.faults -= 1;
            self.calls.push(Call { caller: Caller::Nobody, ..call });
            *seen.entry("question asked twice".to_owned()).or_default() += 1;
        }
        let reply = match request {
            None => Reply::Verdict(self.shards[shard].ask(tx, self.now)),
            Some(request) => Reply::Answer(self.shards[shard].run_apart(tx, request, self.now)),
        };
        self.tell(|| match reply {
            Reply::Verdict(verdict) => format!("shard {shard} says of {tx}: {verdict:?}"),
            Reply::Answer(answer) => format!("shard {shard} runs {request:?} of {tx}: {answer:?}"),
        });
        if caller != Caller::Nobody {
            self.replies.push((caller, reply));
        }
    }

    fn no_answer(&mut self, call: Call) {
        let reply = match call.request {
            None => Reply::Verdict(Verdict::Unreachable),
            Some(_) => Reply::Answer(Answer::Lost),
        };
        if call.caller != Caller::Nobody {
            self.replies.push((call.caller, reply));
        }
    }

    /// The caller gives up. The question may still be on its way.
    fn lose_call(&mut self, at: usize) {
        self.faults -= 1;
        let call = self.calls[at];
        self.no_answer(call);
        if self.random.once_in(2) {
            self.calls[at].caller = Caller::Nobody;
        } else {
            self.calls.swap_remove(at);
        }
    }

    fn reply(&mut self, caller: Caller, reply: Reply, seen: &mut Seen) {
        match (caller, reply) {
            (Caller::Owner(tx), Reply::Verdict(verdict)) => {
                if let Some(machine) = &mut self.owners[tx].machine {
                    machine.handle(Event::LookedUp(verdict), self.now);
                    self.drive(tx, seen);
                }
            }
            (Caller::Attempt(id), reply) => {
                let Some(attempt) = self.attempts.get_mut(&id) else { return };
                attempt.orphan.handle(match reply {
                    Reply::Verdict(verdict) => OrphanEvent::Asked(verdict),
                    Reply::Answer(answer) => OrphanEvent::Answered(answer),
                });
                self.attend(id, seen);
            }
            _ => {}
        }
    }

    // Recovery.

    /// A router looks at what is prepared on a shard; however young it is.
    fn look(&mut self, router: usize, shard: usize, seen: &mut Seen) {
        let listed: Vec<Tx> = self.shards[shard].disk.prepared.iter().copied().collect();
        for tx in listed {
            let known = self
                .attempts
                .values()
                .any(|attempt| (attempt.router, attempt.shard, attempt.tx) == (router, shard, tx));
            if known {
                continue;
            }
            self.tell(|| format!("router {router} finds {tx} on shard {shard}"));
            let id = self.next_attempt;
            self.next_attempt += 1;
            self.attempts.insert(id, Attempt { router, tx, shard, orphan: Orphan::new() });
            self.attend(id, seen);
        }
    }

    fn attend(&mut self, id: u32, seen: &mut Seen) {
        let attempt = &self.attempts[&id];
        let (tx, shard) = (attempt.tx, attempt.shard);
        let caller = Caller::Attempt(id);
        match attempt.orphan.step() {
            Step::Ask => {
                let decider = self.owners[tx].links[DECIDER].shard;
                self.calls.push(Call { shard: decider, tx, request: None, caller });
            }
            Step::Send(request) => {
                self.calls.push(Call { shard, tx, request: Some(request), caller });
            }
            Step::Over(end) => {
                self.attempts.remove(&id);
                self.alarms += u32::from(end == End::Lost);
                *seen.entry(format!("recovery: {end:?}")).or_default() += 1;
                self.tell(|| format!("recovery of {tx} on shard {shard}: {end:?}"));
            }
        }
    }

    // What must hold.

    fn check(&self, seen: &mut Seen) -> Result<(), String> {
        for (tx, owner) in self.owners.iter().enumerate() {
            let written = owner.links[..owner.writers].iter();
            let applied: Vec<u32> = written
                .map(|link| self.shards[link.shard].disk.applied.get(&tx).copied().unwrap_or(0))
                .collect();
            if applied.iter().any(|count| *count != applied[0]) {
                return Err(format!("half of transaction {tx} is committed: {applied:?}"));
            }
            if applied[0] > 1 {
                return Err(format!("transaction {tx} is committed {} times", applied[0]));
            }
            let committed = applied[0] == 1;
            match owner.told {
                Some(Outcome::Committed) if !committed => {
                    return Err(format!("transaction {tx} was acknowledged, and is not there"));
                }
                Some(Outcome::RolledBack) if committed => {
                    return Err(format!("transaction {tx} has failed, and is there"));
                }
                _ => {}
            }
            *seen.entry(format!("ended {committed}")).or_default() += 1;
        }
        for (at, shard) in self.shards.iter().enumerate() {
            if !shard.disk.prepared.is_empty() || !shard.sessions.is_empty() {
                return Err(format!("something is left on shard {at}: {shard:?}"));
            }
        }
        if self.alarms > 0 && !self.promoted {
            return Err(format!("{} alarms, and nothing was lost", self.alarms));
        }
        Ok(())
    }
}
