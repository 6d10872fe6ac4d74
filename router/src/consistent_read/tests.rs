//! What one cut does, step by step. Whole schedules of it are in the simulator of `two_phase`.

use super::*;

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(1);

fn cut(now: Instant) -> Cut<u32> {
    let mut cut = Cut::new(&[A, B], now);
    assert_eq!(actions(&mut cut), [Action::Take(0), Action::Take(1)]);
    cut
}

fn actions(cut: &mut Cut<u32>) -> Vec<Action<u32>> {
    std::iter::from_fn(|| cut.action()).collect()
}

/// Of the transaction 7, which wrote on both.
fn marker() -> Vec<Marker<u32>> {
    marker_of(7)
}

fn marker_of(gid: u32) -> Vec<Marker<u32>> {
    vec![Marker { gid, participants: vec![A, B] }]
}

fn sight(prepared: &[u32], markers: Vec<Marker<u32>>) -> Sight<u32> {
    Sight { prepared: prepared.to_vec(), markers, blurred: false }
}

fn taken(cut: &mut Cut<u32>, place: Place, sight: Sight<u32>, now: Instant) {
    cut.handle(Event::Taken(place, sight), now);
}

#[test]
fn with_nothing_under_way_one_look_is_enough() {
    let now = Instant::now();
    for markers in [vec![], marker()] {
        let mut cut = cut(now);
        taken(&mut cut, 1, sight(&[], markers.clone()), now);
        assert_eq!(cut.outcome(), None);
        taken(&mut cut, 0, sight(&[], markers), now);
        assert_eq!(cut.outcome(), Some(&Outcome::Consistent));
        assert_eq!(actions(&mut cut), []);
    }
}

#[test]
fn a_marker_that_is_older_on_the_other_shard_is_asked_for() {
    let now = Instant::now();
    for (told, consistent) in [(marker(), true), (vec![], false)] {
        let mut cut = cut(now);
        taken(&mut cut, 0, sight(&[], marker()), now);
        taken(&mut cut, 1, sight(&[], vec![]), now);
        assert_eq!(actions(&mut cut), [Action::Ask(1, vec![7])]);
        cut.handle(Event::Told(1, told), now);
        assert_eq!(cut.outcome() == Some(&Outcome::Consistent), consistent);
    }
}

#[test]
fn what_is_prepared_on_one_shard_is_asked_for_on_the_other() {
    let now = Instant::now();
    for (told, consistent) in [(marker(), false), (vec![], true)] {
        let mut cut = cut(now);
        taken(&mut cut, 0, sight(&[], vec![]), now);
        taken(&mut cut, 1, sight(&[7], vec![]), now);
        assert_eq!(actions(&mut cut), [Action::Ask(0, vec![7])]);
        cut.handle(Event::Told(0, told), now);
        assert_eq!(cut.outcome() == Some(&Outcome::Consistent), consistent);
    }
}

#[test]
fn a_shard_that_is_behind_is_looked_at_again_and_the_transaction_finished_there() {
    let mut now = Instant::now();
    let mut cut = cut(now);
    taken(&mut cut, 0, sight(&[], marker()), now);
    taken(&mut cut, 1, sight(&[7], vec![]), now);
    assert_eq!(actions(&mut cut), [Action::Rest { until: now + PAUSE }]);
    now += PATIENCE;
    cut.handle(Event::Rested, now);
    assert_eq!(actions(&mut cut), [Action::Take(1)]);
    taken(&mut cut, 1, sight(&[7], vec![]), now);
    assert_eq!(actions(&mut cut), [Action::Finish(1, 7)]);
    cut.handle(Event::Finished, now);
    assert_eq!(actions(&mut cut), [Action::Take(1)]);
    taken(&mut cut, 1, sight(&[], marker()), now);
    assert_eq!(cut.outcome(), Some(&Outcome::Consistent));
}

#[test]
fn after_vain_attempts_the_gate_is_closed_and_opened_again() {
    let now = Instant::now();
    let mut cut = cut(now);
    taken(&mut cut, 0, sight(&[], marker()), now);
    taken(&mut cut, 1, sight(&[7], vec![]), now);
    // The same one again is no reason.
    for _ in 0..3 {
        assert!(matches!(actions(&mut cut)[..], [Action::Rest { .. }]));
        cut.handle(Event::Rested, now);
        assert_eq!(actions(&mut cut), [Action::Take(1)]);
        taken(&mut cut, 1, sight(&[7], vec![]), now);
    }
    assert!(matches!(actions(&mut cut)[..], [Action::Rest { .. }]));
    cut.handle(Event::Rested, now);
    assert_eq!(actions(&mut cut), [Action::Take(1)]);
    let both = marker().into_iter().chain(marker_of(8)).collect();
    taken(&mut cut, 1, sight(&[], both), now);
    assert_eq!(actions(&mut cut), [Action::Ask(0, vec![8])]);
    cut.handle(Event::Told(0, vec![]), now);
    assert_eq!(actions(&mut cut), [Action::CloseGate]);
    cut.handle(Event::GateClosed, now);
    assert_eq!(actions(&mut cut), [Action::Take(0), Action::Take(1)]);
    taken(&mut cut, 0, sight(&[], marker()), now);
    taken(&mut cut, 1, sight(&[], marker()), now);
    assert_eq!(actions(&mut cut), [Action::OpenGate]);
    assert_eq!(cut.outcome(), None);
    cut.handle(Event::GateOpened, now);
    assert_eq!(cut.outcome(), Some(&Outcome::Consistent));
}

#[test]
fn a_transaction_that_stays_lost_ends_the_read() {
    let mut now = Instant::now();
    let mut cut = cut(now);
    taken(&mut cut, 0, sight(&[], marker()), now);
    taken(&mut cut, 1, sight(&[7], vec![]), now);
    now += TRY_MAX;
    let mut rounds = 0;
    while cut.outcome().is_none() && rounds < 20 {
        rounds += 1;
        for action in actions(&mut cut) {
            let event = match action {
                Action::Take(0) => Event::Taken(0, sight(&[], marker())),
                Action::Take(place) => Event::Taken(place, sight(&[], vec![])),
                Action::Ask(place, _) => Event::Told(place, vec![]),
                Action::Finish(..) => Event::Finished,
                Action::Rest { .. } => Event::Rested,
                Action::CloseGate => Event::GateClosed,
                Action::OpenGate => Event::GateOpened,
            };
            cut.handle(event, now);
        }
    }
    assert_eq!(cut.outcome(), Some(&Outcome::GaveUp { shard: B, gid: Some(7) }));
}

#[test]
fn a_blurred_sight_is_taken_again() {
    let now = Instant::now();
    let mut cut = cut(now);
    taken(&mut cut, 0, sight(&[], vec![]), now);
    taken(&mut cut, 1, Sight { blurred: true, ..sight(&[], vec![]) }, now);
    assert!(matches!(actions(&mut cut)[..], [Action::Rest { .. }]));
    cut.handle(Event::Rested, now);
    assert_eq!(actions(&mut cut), [Action::Take(1)]);
}
