//! When requests are due, and how latency is counted. Time comes from outside.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::stats::Latencies;

/// Time since the start of the load.
pub(super) trait Clock {
    fn now(&self) -> Duration;

    /// Returns at once when `moment` is past.
    fn wait_until(&mut self, moment: Duration) -> Result<(), String>;
}

/// Requests at equal distances.
#[derive(Debug)]
pub(super) struct Schedule {
    rate: f64,
    total: u64,
}

impl Schedule {
    /// `None` unless the rate, per second, is a number above zero.
    pub(super) fn new(rate: f64, length: Duration) -> Option<Self> {
        let total = (rate * length.as_secs_f64()).ceil();
        (rate > 0.0 && rate.is_finite()).then_some(Self { rate, total: total as u64 })
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// `None` after the last request.
    fn due(&self, number: u64) -> Option<Duration> {
        (number < self.total).then(|| Duration::from_secs_f64(number as f64 / self.rate))
    }
}

/// What the clients saw.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    /// From the intended start, waiting for a free client included. Failed and unsent ones too.
    pub response: Latencies,
    /// From the actual start, answered requests only: what a closed loop would have reported.
    pub service: Latencies,
    pub failed: u64,
    /// Still waiting for a client when the load was over.
    pub unsent: u64,
    pub first_error: Option<String>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            response: Latencies::new(),
            service: Latencies::new(),
            failed: 0,
            unsent: 0,
            first_error: None,
        }
    }

    pub(super) fn answered(&mut self, due: Duration, started: Duration, ended: Duration) {
        self.response.record(ended.saturating_sub(due));
        self.service.record(ended.saturating_sub(started));
    }

    fn failed(&mut self, due: Duration, ended: Duration, error: String) {
        self.response.record(ended.saturating_sub(due));
        self.failed += 1;
        self.first_error.get_or_insert(error);
    }

    /// It waited at least until `end`; leaving it out would flatter the server.
    pub(super) fn never_sent(&mut self, due: Duration, end: Duration) {
        self.response.record(end.saturating_sub(due));
        self.unsent += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.response.add(&other.response);
        self.service.add(&other.service);
        self.failed += other.failed;
        self.unsent += other.unsent;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }
}

/// One client: takes the next request that nobody has taken, waits until it is due, sends it.
/// After `end` nothing is sent any more.
///
/// # Errors
/// When the clock was interrupted; a request's error is recorded instead.
pub(super) fn drive<C: Clock>(
    schedule: &Schedule,
    tickets: &AtomicU64,
    end: Duration,
    clock: &mut C,
    mut request: impl FnMut(&mut C, u64) -> Result<(), String>,
) -> Result<Recorder, String> {
    let mut recorder = Recorder::new();
    loop {
        let number = tickets.fetch_add(1, Ordering::Relaxed);
        let Some(due) = schedule.due(number) else { return Ok(recorder) };
        clock.wait_until(due)?;
        let started = clock.now();
        if started >= end {
            recorder.never_sent(due, end);
            continue;
        }
        match request(clock, number) {
            Ok(()) => recorder.answered(due, started, clock.now()),
            Err(error) => recorder.failed(due, clock.now(), error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time that passes only when somebody says so.
    struct VirtualClock(Duration);

    impl Clock for VirtualClock {
        fn now(&self) -> Duration {
            self.0
        }

        fn wait_until(&mut self, moment: Duration) -> Result<(), String> {
            self.0 = self.0.max(moment);
            Ok(())
        }
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// One client, 100 requests per second for two seconds, each served in what `service` says.
    fn two_seconds(end: Duration, service: impl Fn(u64) -> Duration) -> Recorder {
        let schedule = Schedule::new(100.0, millis(2000)).expect("a valid rate");
        let mut clock = VirtualClock(Duration::ZERO);
        drive(&schedule, &AtomicU64::new(0), end, &mut clock, |clock, number| {
            clock.0 += service(number);
            Ok(())
        })
        .expect("a virtual clock is never interrupted")
    }

    #[test]
    fn a_server_that_keeps_up_has_the_same_latency_from_both_starts() {
        let recorder = two_seconds(millis(3000), |_| millis(2));
        assert_eq!(recorder.service.count(), 200);
        assert_eq!(recorder.response.longest(), recorder.service.longest());
        assert_eq!(recorder.response.quantile(0.5), 2000.0);
    }

    #[test]
    fn a_stall_is_seen_by_every_request_that_was_due_in_it() {
        // Request 50 is due at 500 ms and takes a second: a hundred requests were due meanwhile.
        let recorder =
            two_seconds(millis(9000), |number| if number == 50 { millis(1000) } else { millis(1) });
        // A closed loop sees one slow request in 200, so half a percent.
        assert_eq!(recorder.service.quantile(0.99), 1000.0);
        // Requests 51 to 150 waited too, from 991 ms down: a quarter of all above 500 ms.
        assert!(recorder.response.quantile(0.75) > 450_000.0);
        assert!(recorder.response.quantile(0.99) > 950_000.0);
        assert_eq!(recorder.response.count(), 200);
    }

    #[test]
    fn a_server_that_is_too_slow_leaves_requests_unsent_but_counted() {
        // 20 ms each where 10 ms would be needed: half of them fit into two seconds.
        let recorder = two_seconds(millis(2000), |_| millis(20));
        assert_eq!(recorder.service.count(), 100);
        assert_eq!(recorder.unsent, 100);
        assert_eq!(recorder.response.count(), 200);
        // The last of them was due at 1.99 s, the first unsent one at 1 s.
        assert!(recorder.response.longest() >= 1_000_000.0);
    }

    #[test]
    fn an_error_counts_with_its_latency_and_the_first_is_kept() {
        let schedule = Schedule::new(10.0, millis(300)).expect("a valid rate");
        let mut clock = VirtualClock(Duration::ZERO);
        let request = |clock: &mut VirtualClock, number| {
            clock.0 += millis(5);
            if number == 0 { Ok(()) } else { Err(format!("error {number}")) }
        };
        let recorder = drive(&schedule, &AtomicU64::new(0), millis(1000), &mut clock, request)
            .expect("a virtual clock is never interrupted");
        assert_eq!((recorder.failed, recorder.service.count()), (2, 1));
        assert_eq!(recorder.response.count(), 3);
        assert_eq!(recorder.first_error.as_deref(), Some("error 1"));
    }

    #[test]
    fn clients_share_the_requests_and_none_is_sent_twice() {
        let schedule = Schedule::new(10.0, millis(1000)).expect("a valid rate");
        let tickets = AtomicU64::new(0);
        let mut seen = Vec::new();
        let mut clock = VirtualClock(Duration::ZERO);
        tickets.fetch_add(4, Ordering::Relaxed);
        let others = drive(&schedule, &tickets, millis(5000), &mut clock, |_, number| {
            seen.push(number);
            Ok(())
        });
        assert_eq!(others.map(|recorder| recorder.service.count()), Ok(6));
        assert_eq!(seen, [4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_rate_must_be_a_number_above_zero() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Schedule::new(rate, millis(1000)).is_none());
        }
    }
}
