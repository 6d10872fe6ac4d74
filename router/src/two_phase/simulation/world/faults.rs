//! What goes wrong: shards and routers that crash, a standby that is behind, markers that grow old.

use std::collections::BTreeSet;
use std::time::Instant;

use super::super::shard::{Disk, Tx, Work};
use super::super::{Mutant, Seen};
use super::{RETENTION, World};
use crate::two_phase::DECIDER;

impl World {
    /// Old markers are deleted, as long as every shard says what is prepared on it.
    pub(super) fn clean(&mut self, seen: &mut Seen) {
        self.faults -= 1;
        if self.is_idle() && self.random.once_in(2) {
            self.now += RETENTION;
        }
        let listed: BTreeSet<Tx> =
            self.shards.iter().flat_map(|shard| shard.disk.prepared.iter().copied()).collect();
        let (now, mutant) = (self.now, self.mutant);
        for shard in &mut self.shards {
            let before = shard.disk.markers.len();
            shard.disk.markers.retain(|tx, (_, at)| match mutant {
                Some(Mutant::ForgetsMarkers) => false,
                Some(Mutant::KeepsMarkersTooShort) => listed.contains(tx),
                _ => listed.contains(tx) || now.duration_since(*at) < RETENTION,
            });
            if shard.disk.markers.len() < before {
                *seen.entry("markers deleted".to_owned()).or_default() += 1;
            }
        }
        self.tell(|| "old markers are deleted".to_owned());
    }

    /// No question is waited for: none takes a day.
    pub(super) fn is_idle(&self) -> bool {
        self.attempts.is_empty()
            && self.reader_moves().next().is_none()
            && self.replies.is_empty()
            && self.owners.iter().all(|owner| owner.machine.is_none())
    }

    pub(super) fn crash_shard(&mut self, at: usize, seen: &mut Seen) {
        self.faults -= 1;
        if self.shards[at].sessions.values().any(|work| *work == Work::Marked) {
            *seen.entry("shard died while Marked".to_owned()).or_default() += 1;
        }
        if !self.shards[at].disk.prepared.is_empty() {
            *seen.entry("shard died while Prepared".to_owned()).or_default() += 1;
        }
        self.shards[at].crash();
        self.cut(at, seen);
        self.tell(|| format!("shard {at} crashes"));
    }

    /// All connections to a shard end there; answers that were sent may still arrive.
    pub(super) fn cut(&mut self, at: usize, seen: &mut Seen) {
        for reader in 0..self.readers.len() {
            if self.readers[reader].shards.contains(&at) {
                self.end_reader(reader, seen);
            }
        }
        self.gates[at] = None;
        let lost = self.random.once_in(2);
        for owner in &mut self.owners {
            for link in owner.links.iter_mut().filter(|link| link.shard == at) {
                link.shard_end = false;
                link.to_shard.clear();
                if lost {
                    link.to_router.clear();
                }
            }
        }
    }

    pub(super) fn crash_router(&mut self, at: usize, seen: &mut Seen) {
        self.faults -= 1;
        self.routers[at] = false;
        for owner in self.owners.iter_mut().filter(|owner| owner.router == at) {
            if let Some(machine) = owner.machine.take() {
                *seen.entry(format!("owner died while {}", machine.phase())).or_default() += 1;
                *seen.entry("told nothing".to_owned()).or_default() += 1;
            }
            owner.started = true;
            for link in &mut owner.links {
                link.router_end = false;
                // What was not sent yet is lost; what was may still arrive.
                if self.random.once_in(2) {
                    link.to_shard.clear();
                }
            }
        }
        self.attempts.retain(|_, attempt| attempt.router != at);
        for reader in 0..self.readers.len() {
            if self.readers[reader].router == at {
                self.end_reader(reader, seen);
            }
        }
        self.tell(|| format!("router {at} crashes"));
    }

    /// A standby that is behind takes a shard's place: what was committed there is prepared again.
    pub(super) fn promote(&mut self, at: usize, seen: &mut Seen) {
        let Some(disk) = self.older_disk(at).cloned() else { return };
        self.faults -= 1;
        self.promoted = true;
        let shard = &mut self.shards[at];
        shard.crash();
        shard.disk = disk;
        shard.up = true;
        self.cut(at, seen);
        *seen.entry("standby promoted".to_owned()).or_default() += 1;
        self.tell(|| format!("a standby of shard {at} is promoted: 0 is prepared again"));
    }

    /// What such a standby has, where nothing else is lost with it: the protocol cannot bring lost
    /// rows back.
    pub(super) fn older_disk(&self, at: usize) -> Option<&Disk> {
        let shard = &self.shards[at];
        let alone = self.owners.len() == 1 && self.owners[0].links[DECIDER].shard != at;
        if !alone || !shard.disk.applied.contains_key(&0) {
            return None;
        }
        let recent = |since: &Instant| self.now.duration_since(*since) < RETENTION / 2;
        shard.past.iter().find(|(since, _)| recent(since)).map(|(_, disk)| disk)
    }
}
