//! Reads over several shards while all of that happens: whatever a router is told to be consistent
//! tears no transaction ([`consistent_read`](crate::consistent_read)).
//!
//! A shard's history is the order in which transactions became visible; a snapshot is a place in it.

use std::time::Duration;

use pgherd_shard_map::ShardId;

use super::super::shard::{Tx, Work};
use super::super::{Mutant, Seen};
use super::{Attempt, World};
use crate::consistent_read::{Action, Cut, Event, Marker, Outcome, Place, Sight};
use crate::two_phase::{DECIDER, Orphan};

/// A read, and what its router has under way for it.
pub(super) struct Reader {
    pub(super) router: usize,
    pub(super) shards: Vec<usize>,
    started: bool,
    cut: Option<Cut<Tx>>,
    doing: Vec<Doing>,
    /// Of each shard: the older snapshot, what was prepared, the newest snapshot.
    earlier: Vec<usize>,
    listed: Vec<Vec<Tx>>,
    snapshot: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Doing {
    List(Place),
    Snapshot(Place),
    Ask(Place, Vec<Tx>),
    /// Another's attempt may be under way, or this one's own.
    Finish(Place, Tx),
    Rest(Duration),
    /// The gates of this shard and those behind it are still to be closed.
    CloseGate(usize),
    OpenGate,
}

impl World {
    pub(super) fn new_readers(&mut self) {
        for _ in 0..self.random.below(3) {
            let mut shards: Vec<usize> = (0..self.shards.len()).collect();
            let count = 2 + self.random.below(shards.len() - 1);
            while shards.len() > count {
                let at = self.random.below(shards.len());
                shards.swap_remove(at);
            }
            self.readers.push(Reader {
                router: self.random.below(self.routers.len()),
                started: false,
                cut: None,
                doing: Vec::new(),
                earlier: vec![0; shards.len()],
                listed: vec![Vec::new(); shards.len()],
                snapshot: vec![0; shards.len()],
                shards,
            });
        }
    }

    /// How many moves each reader has: its start, or what it is doing.
    pub(super) fn reader_moves(&self) -> impl Iterator<Item = (usize, usize)> {
        self.readers.iter().enumerate().flat_map(|(at, reader)| {
            let moves = match reader.started {
                false => usize::from(self.routers[reader.router]),
                true => reader.doing.len(),
            };
            (0..moves).map(move |doing| (at, doing))
        })
    }

    pub(super) fn move_reader(&mut self, at: usize, doing: usize, seen: &mut Seen) {
        if !self.readers[at].started {
            self.start_reader(at, seen);
            return;
        }
        let what = self.readers[at].doing.remove(doing);
        let event = match what {
            Doing::List(place) => {
                self.list(at, place, seen);
                None
            }
            Doing::Snapshot(place) => self.take_snapshot(at, place),
            Doing::Ask(place, txs) => {
                *seen.entry("reader asked".to_owned()).or_default() += 1;
                let sees = |tx: &Tx| {
                    self.mutant == Some(Mutant::TakesUnknownForVisible) || self.sees(at, place, *tx)
                };
                let told = txs.into_iter().filter(sees).map(|tx| self.marker(tx)).collect();
                Some(Event::Told(place, told))
            }
            Doing::Finish(place, tx) => self.finish_for(at, place, tx, seen),
            Doing::Rest(until) => {
                let until = self.start + until;
                self.now =
                    self.now.max(until) + Duration::from_millis(self.random.below(120) as u64);
                Some(Event::Rested)
            }
            Doing::CloseGate(shard) => self.close_gate(at, shard, seen),
            Doing::OpenGate => {
                self.free_gates(at);
                Some(Event::GateOpened)
            }
        };
        if let Some(event) = event {
            let now = self.now;
            if let Some(cut) = &mut self.readers[at].cut {
                cut.handle(event, now);
            }
            self.drive_reader(at, seen);
        }
    }

    pub(super) fn someone_reads(&self) -> bool {
        self.readers.iter().any(|reader| reader.cut.is_some())
    }

    fn start_reader(&mut self, at: usize, seen: &mut Seen) {
        let shards = self.readers[at].shards.clone();
        for (place, shard) in shards.iter().enumerate() {
            let length = self.shards[*shard].disk.history.len();
            // The connection has been used before, at any time.
            self.readers[at].earlier[place] = self.random.below(length + 1);
        }
        let ids: Vec<ShardId> = shards.iter().map(|shard| ShardId(*shard as u32)).collect();
        let reader = &mut self.readers[at];
        reader.started = true;
        reader.cut = Some(Cut::new(&ids, self.now));
        self.tell(|| format!("reader {at} starts on {shards:?}"));
        self.drive_reader(at, seen);
    }

    fn drive_reader(&mut self, at: usize, seen: &mut Seen) {
        let start = self.start;
        let reader = &mut self.readers[at];
        let Some(cut) = &mut reader.cut else { return };
        while let Some(action) = cut.action() {
            reader.doing.push(match action {
                Action::Take(place) => Doing::List(place),
                Action::Ask(place, txs) => Doing::Ask(place, txs),
                Action::Finish(place, tx) => Doing::Finish(place, tx),
                Action::Rest { until } => Doing::Rest(until - start),
                Action::CloseGate => Doing::CloseGate(0),
                Action::OpenGate => Doing::OpenGate,
            });
        }
        let Some(outcome) = cut.outcome().cloned() else { return };
        let failures = cut.failures();
        reader.cut = None;
        let told = match &outcome {
            Outcome::Consistent if failures > 0 => "reader consistent after looking again",
            Outcome::Consistent => "reader consistent",
            Outcome::GaveUp { .. } => "reader gave up",
        };
        *seen.entry(told.to_owned()).or_default() += 1;
        self.tell(|| format!("reader {at} is told {outcome:?}"));
        // A shard that has lost data shows less than it did.
        if outcome == Outcome::Consistent && !self.promoted {
            self.check_reader(at);
        }
    }

    /// What a reader was told to be consistent tears no transaction.
    fn check_reader(&mut self, at: usize) {
        for (tx, owner) in self.owners.iter().enumerate() {
            let wrote: Vec<usize> = owner.links[..owner.writers].iter().map(|l| l.shard).collect();
            let places = self.readers[at].shards.iter().enumerate();
            let sees: Vec<bool> = places
                .filter(|(_, shard)| wrote.contains(shard))
                .map(|(place, _)| self.sees(at, place, tx))
                .collect();
            if sees.contains(&true) && sees.contains(&false) {
                self.torn = Some(format!("reader {at} has seen half of transaction {tx}"));
            }
        }
    }

    fn sees(&self, at: usize, place: Place, tx: Tx) -> bool {
        let reader = &self.readers[at];
        let history = &self.shards[reader.shards[place]].disk.history;
        history.iter().take(reader.snapshot[place]).any(|other| *other == tx)
    }

    fn marker(&self, tx: Tx) -> Marker<Tx> {
        let owner = &self.owners[tx];
        let wrote = owner.links[..owner.writers].iter();
        Marker { gid: tx, participants: wrote.map(|link| ShardId(link.shard as u32)).collect() }
    }

    /// What is prepared; the snapshot comes next, and anything may come between.
    fn list(&mut self, at: usize, place: Place, seen: &mut Seen) {
        let reader = &mut self.readers[at];
        let shard = &self.shards[reader.shards[place]];
        if !shard.up {
            self.end_reader(at, seen);
            return;
        }
        let length = shard.disk.history.len();
        match self.mutant {
            Some(Mutant::ListsAfterSnapshot) => reader.snapshot[place] = length,
            Some(Mutant::LooksBackTooLittle) => reader.earlier[place] = length,
            _ => {}
        }
        reader.listed[place] = shard.disk.prepared.iter().copied().collect();
        reader.doing.push(Doing::Snapshot(place));
    }

    fn take_snapshot(&mut self, at: usize, place: Place) -> Option<Event<Tx>> {
        let reader = &mut self.readers[at];
        let disk = &self.shards[reader.shards[place]].disk;
        match self.mutant {
            Some(Mutant::ListsAfterSnapshot) => {
                reader.listed[place] = disk.prepared.iter().copied().collect();
            }
            Some(Mutant::IgnoresPrepared) => {
                reader.listed[place].clear();
                reader.snapshot[place] = disk.history.len();
            }
            _ => reader.snapshot[place] = disk.history.len(),
        }
        let (from, to) = (reader.earlier[place], reader.snapshot[place]);
        let new = disk.history.get(from..to).unwrap_or_default().to_vec();
        let prepared = reader.listed[place].clone();
        let markers = new.into_iter().map(|tx| self.marker(tx)).collect();
        self.tell(|| format!("reader {at} takes the snapshot of place {place}: {prepared:?}"));
        Some(Event::Taken(place, Sight { prepared, markers, blurred: false }))
    }

    /// As recovery does it; what is under way already is waited for.
    fn finish_for(
        &mut self,
        at: usize,
        place: Place,
        tx: Tx,
        seen: &mut Seen,
    ) -> Option<Event<Tx>> {
        let (router, shard) = (self.readers[at].router, self.readers[at].shards[place]);
        let same =
            |attempt: &Attempt| (attempt.router, attempt.shard, attempt.tx) == (router, shard, tx);
        if self.attempts.values().any(same) {
            self.readers[at].doing.push(Doing::Finish(place, tx));
            return None;
        }
        *seen.entry("reader finishes".to_owned()).or_default() += 1;
        let id = self.next_attempt;
        self.next_attempt += 1;
        self.attempts.insert(id, Attempt { router, tx, shard, orphan: Orphan::new() });
        self.attend(id, seen);
        Some(Event::Finished)
    }

    /// Waits for those who decide there now, or for another reader; not for ever.
    fn close_gate(&mut self, at: usize, shard: usize, seen: &mut Seen) -> Option<Event<Tx>> {
        if shard == self.shards.len() {
            *seen.entry("gate closed".to_owned()).or_default() += 1;
            return Some(Event::GateClosed);
        }
        let deciding = self.shards[shard].sessions.iter().any(|(tx, work)| {
            *work == Work::Marked && self.owners[*tx].links[DECIDER].shard == shard
        });
        let taken = self.gates[shard].is_some_and(|holder| holder != at);
        let mut next = shard;
        if !self.shards[shard].up || ((deciding || taken) && self.random.once_in(6)) {
            next += 1;
        } else if !deciding && !taken {
            self.gates[shard] = Some(at);
            next += 1;
        }
        self.readers[at].doing.push(Doing::CloseGate(next));
        None
    }

    fn free_gates(&mut self, at: usize) {
        self.gates.iter_mut().filter(|gate| **gate == Some(at)).for_each(|gate| *gate = None);
    }

    /// Its router or one of its shards is gone, and so is the read.
    pub(super) fn end_reader(&mut self, at: usize, seen: &mut Seen) {
        let reader = &mut self.readers[at];
        if reader.cut.take().is_some() {
            *seen.entry("reader died".to_owned()).or_default() += 1;
        }
        reader.doing.clear();
        self.free_gates(at);
    }
}
