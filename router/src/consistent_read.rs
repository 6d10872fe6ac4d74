//! Reads over several shards that never see half of a transaction: the protocol, without any IO.
//!
//! Each shard answers from a snapshot of its own. A transaction that was committed over several
//! shards becomes visible on one after the other, so these snapshots may tear it. What they show is
//! in the data: a transaction leaves a marker with its participants on every shard that it wrote on
//! ([`two_phase`](crate::two_phase)), and the marker is visible exactly where its rows are.
//!
//! ```text
//!            list what is prepared, take a snapshot,
//!            read the markers that became visible lately        on every shard at the same time
//! Taking ───────────────────────────────────────────────► any marker missing on a participant?
//!   ▲                                                          │ not known      │ no      │ yes
//!   │                                                       Asking ──┐       consistent   │
//!   └── finish it there, or wait for whoever does, and take ◄────────┴────────────────────┘
//!       that shard's snapshot again
//! ```
//!
//! **Lately** is: since a snapshot of the same server that was taken before any of this read's
//! lists. No clock has a part in it. Take a transaction that A's snapshot shows and B's does not,
//! though B is a participant. Where B was the decider, or where the decision came after B's list, the
//! marker became visible on A after that list: it is among A's. Otherwise it was prepared on B when
//! it was decided, hence when B listed, and until after B's snapshot: it is in B's list, and not
//! among B's markers, and the others are asked for it.
//!
//! **The gate.** Where transactions over several shards are committed all the time, there may be no
//! moment at which none is half visible, however often one looks. So after vain attempts that each
//! met another transaction a reader closes the gate of every shard: a lock that deciders share from their marker to their
//! commit. With it no new decision is made, what was decided is finished within a moment, and the
//! gate is opened again as soon as the snapshots are taken. It is for getting there: what is right
//! is judged by the markers alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

pub use pgherd_planner::ReadConsistency;
use pgherd_shard_map::ShardId;

#[cfg(test)]
mod tests;

/// After so many attempts that met something new the gate is closed.
const GATE_AFTER: u32 = 2;

/// How long the owner of a transaction is given to finish what it has decided, before the reader
/// does it; and while the gate is closed, which keeps others waiting.
const PATIENCE: Duration = Duration::from_millis(200);
const PATIENCE_AT_GATE: Duration = Duration::from_millis(20);

/// Pauses between attempts: the first, and none is longer than the last.
const PAUSE: Duration = Duration::from_micros(500);
const PAUSE_MAX: Duration = Duration::from_millis(8);

/// How long a read tries.
const TRY_MAX: Duration = Duration::from_secs(10);

/// A shard of the read: its place in the list that the cut was started with.
pub type Place = usize;

/// A marker that a snapshot shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker<G> {
    pub gid: G,
    pub participants: Vec<ShardId>,
}

/// What one shard said when its snapshot was taken.
#[derive(Debug, Clone)]
pub struct Sight<G> {
    /// Prepared there before the snapshot was taken.
    pub prepared: Vec<G>,
    /// Those that the snapshot shows and the older one did not.
    pub markers: Vec<Marker<G>>,
    /// It is not certain what the snapshot shows: take it again.
    pub blurred: bool,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<G> {
    Take(Place),
    /// Which of these does the snapshot show?
    Ask(Place, Vec<G>),
    /// It is decided, and prepared there still: bring it to its end.
    Finish(Place, G),
    Rest {
        until: Instant,
    },
    /// Of all shards: none decides until it is opened.
    CloseGate,
    OpenGate,
}

/// What came of it.
#[derive(Debug, Clone)]
pub enum Event<G> {
    Taken(Place, Sight<G>),
    Told(Place, Vec<Marker<G>>),
    /// An attempt to finish is over, whatever came of it.
    Finished,
    Rested,
    /// Or it could not be had in time.
    GateClosed,
    GateOpened,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<G> {
    /// The snapshots tear nothing.
    Consistent,
    /// This one is visible elsewhere, and does not become visible there.
    GaveUp { shard: ShardId, gid: Option<G> },
}

/// One read's snapshots. Whoever drives it does its [`Action`]s and brings what came of each as one
/// [`Event`].
#[derive(Debug)]
pub struct Cut<G> {
    places: Vec<At<G>>,
    /// Of every transaction whose marker was seen.
    participants: BTreeMap<G, Vec<ShardId>>,
    actions: VecDeque<Action<G>>,
    /// Actions that nothing has come of yet.
    pending: usize,
    step: Step<G>,
    failures: u32,
    /// How many of them met something that the one before had not met.
    new_failures: u32,
    /// Since when a transaction has been missing in a place.
    missing: BTreeMap<(Place, G), Instant>,
    gate_closed: bool,
    until: Instant,
}

/// What is known of one shard's newest snapshot.
#[derive(Debug)]
struct At<G> {
    shard: ShardId,
    prepared: BTreeSet<G>,
    /// Whether it shows these transactions.
    shows: BTreeMap<G, bool>,
    blurred: bool,
}

#[derive(Debug)]
enum Step<G> {
    /// Snapshots are taken, or asked.
    Looking,
    /// Those of these places are too old, and will be taken again.
    Healing(BTreeSet<Place>),
    Closing,
    Over(Outcome<G>),
}

impl<G: Clone + Ord> Cut<G> {
    /// Over these shards.
    #[must_use]
    pub fn new(shards: &[ShardId], now: Instant) -> Self {
        let mut cut = Self {
            places: shards.iter().map(|shard| At::new(*shard)).collect(),
            participants: BTreeMap::new(),
            actions: VecDeque::new(),
            pending: 0,
            step: Step::Looking,
            failures: 0,
            new_failures: 0,
            missing: BTreeMap::new(),
            gate_closed: false,
            until: now + TRY_MAX,
        };
        cut.take(0..shards.len());
        cut
    }

    /// The next thing to do; `None` until something has come of what was given. Actions that are
    /// there together are done together.
    pub fn action(&mut self) -> Option<Action<G>> {
        self.actions.pop_front()
    }

    /// Once there is nothing left to be done.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome<G>> {
        match &self.step {
            Step::Over(outcome) if self.pending == 0 => Some(outcome),
            _ => None,
        }
    }

    /// How often it had to look again.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What came of an action.
    pub fn handle(&mut self, event: Event<G>, now: Instant) {
        match event {
            Event::Taken(place, sight) => {
                let at = &mut self.places[place];
                *at = At::new(at.shard);
                at.blurred = sight.blurred;
                at.prepared = sight.prepared.into_iter().collect();
                // Were they visible, they would have become so after the list, and be markers.
                at.shows = at.prepared.iter().map(|gid| (gid.clone(), false)).collect();
                self.show(place, sight.markers);
            }
            Event::Told(place, markers) => self.show(place, markers),
            Event::Finished | Event::Rested | Event::GateClosed | Event::GateOpened => {}
        }
        self.pending = self.pending.saturating_sub(1);
        if self.pending == 0 {
            self.advance(now);
        }
    }

    fn show(&mut self, place: Place, markers: Vec<Marker<G>>) {
        for Marker { gid, participants } in markers {
            self.places[place].shows.insert(gid.clone(), true);
            self.participants.insert(gid, participants);
        }
    }

    fn act(&mut self, action: Action<G>) {
        self.pending += 1;
        self.actions.push_back(action);
    }

    fn take(&mut self, places: impl IntoIterator<Item = Place>) {
        self.step = Step::Looking;
        for place in places {
            self.act(Action::Take(place));
        }
    }

    /// Something has come of everything that was to be done.
    fn advance(&mut self, now: Instant) {
        match &mut self.step {
            Step::Looking => self.judge(now),
            Step::Healing(places) => {
                let places = std::mem::take(places);
                self.take(places);
            }
            Step::Closing => self.take(0..self.places.len()),
            Step::Over(_) => {}
        }
    }

    fn judge(&mut self, now: Instant) {
        let unknown = self.unknown();
        if !unknown.is_empty() {
            for (place, gids) in unknown {
                // Whatever it does not say that it shows, it does not show.
                let shows = gids.iter().map(|gid| (gid.clone(), false));
                self.places[place].shows.extend(shows);
                self.act(Action::Ask(place, gids));
            }
            return;
        }
        let torn = self.torn();
        let blurred = (0..self.places.len()).filter(|place| self.places[*place].blurred);
        let old: BTreeSet<Place> = torn.iter().map(|(place, _)| *place).chain(blurred).collect();
        let Some(first) = old.first().copied() else {
            self.end(Outcome::Consistent);
            return;
        };
        self.failures += 1;
        let blurred = torn.is_empty();
        let new = blurred || torn.iter().any(|key| !self.missing.contains_key(key));
        self.new_failures += u32::from(new);
        if now >= self.until {
            let (place, gid) = match torn.first() {
                Some((place, gid)) => (*place, Some(gid.clone())),
                None => (first, None),
            };
            self.end(Outcome::GaveUp { shard: self.places[place].shard, gid });
        } else if self.new_failures >= GATE_AFTER && !self.gate_closed {
            self.gate_closed = true;
            self.act(Action::CloseGate);
            self.step = Step::Closing;
        } else {
            self.heal(old, torn, now);
        }
    }

    /// What must be known before anything can be said, by place.
    fn unknown(&self) -> BTreeMap<Place, Vec<G>> {
        let mut unknown: BTreeMap<Place, Vec<G>> = BTreeMap::new();
        let candidates: BTreeSet<&G> = self.places.iter().flat_map(|at| at.shows.keys()).collect();
        for gid in candidates {
            let participants = self.participants.get(gid);
            for (place, at) in self.places.iter().enumerate() {
                let takes_part = participants.is_none_or(|shards| shards.contains(&at.shard));
                if takes_part && !at.shows.contains_key(gid) {
                    unknown.entry(place).or_default().push(gid.clone());
                }
            }
        }
        unknown
    }

    /// Transactions that are shown in one place, and where they are not, though they wrote there.
    fn torn(&self) -> BTreeSet<(Place, G)> {
        let mut torn = BTreeSet::new();
        let shown: BTreeSet<&G> = self
            .places
            .iter()
            .flat_map(|at| at.shows.iter().filter(|(_, shows)| **shows).map(|(gid, _)| gid))
            .collect();
        for gid in shown {
            let participants = self.participants.get(gid).map_or(&[][..], |shards| shards);
            for (place, at) in self.places.iter().enumerate() {
                if participants.contains(&at.shard) && at.shows.get(gid) != Some(&true) {
                    torn.insert((place, gid.clone()));
                }
            }
        }
        torn
    }

    fn heal(&mut self, old: BTreeSet<Place>, torn: BTreeSet<(Place, G)>, now: Instant) {
        self.missing.retain(|key, _| torn.contains(key));
        let patience = if self.gate_closed { PATIENCE_AT_GATE } else { PATIENCE };
        for (place, gid) in torn {
            let prepared = self.places[place].prepared.contains(&gid);
            let since = *self.missing.entry((place, gid.clone())).or_insert(now);
            if prepared && now.duration_since(since) >= patience {
                self.act(Action::Finish(place, gid));
            }
        }
        if self.pending == 0 {
            let pause = PAUSE * 2u32.pow(self.failures.saturating_sub(1).min(8));
            self.act(Action::Rest { until: now + pause.min(PAUSE_MAX) });
        }
        self.step = Step::Healing(old);
    }

    fn end(&mut self, outcome: Outcome<G>) {
        self.step = Step::Over(outcome);
        if self.gate_closed {
            self.act(Action::OpenGate);
        }
    }
}

impl<G> At<G> {
    fn new(shard: ShardId) -> Self {
        Self { shard, prepared: BTreeSet::new(), shows: BTreeMap::new(), blurred: false }
    }
}
