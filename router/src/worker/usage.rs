//! How often each statement has run, and how long it took: `pgherd.statements`.
//!
//! A plan carries the number of its place here, so that counting is a few additions. A place is
//! found when a plan is made, by the statement's text without its literals: a new shard map makes
//! new plans, which count on in the same places.

use std::time::Duration;

use foldhash::HashMap;
use pgherd_planner::{Action, Literal, Plan, Scan, Tier};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// Statements that are told apart. What comes after them shares the first place.
const PLACES_MAX: usize = 2000;

/// How much of a statement's text is kept, at most.
const TEXT_MAX: usize = 1000;

#[derive(Debug)]
pub struct Usages {
    places: Vec<Usage>,
    by_text: HashMap<u128, u32>,
}

/// One statement of one role.
#[derive(Debug, Clone)]
pub struct Usage {
    pub user: Box<str>,
    pub text: Box<str>,
    pub tier: Tier,
    pub calls: u64,
    pub total: Duration,
    pub max: Duration,
}

impl Usage {
    #[must_use]
    pub fn total_ms(&self) -> f64 {
        self.total.as_secs_f64() * 1000.0
    }

    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        self.total_ms() / self.calls.max(1) as f64
    }

    #[must_use]
    pub fn max_ms(&self) -> f64 {
        self.max.as_secs_f64() * 1000.0
    }
}

impl Default for Usages {
    fn default() -> Self {
        let others = Usage::new("", "(all others)".into(), Tier::Route);
        Self { places: vec![others], by_text: HashMap::default() }
    }
}

impl Usages {
    /// Where a plan that was just made counts.
    pub(super) fn place(&mut self, user: &str, sql: &str, scan: &Scan, plan: &Plan) -> u32 {
        // Nobody's password is kept.
        let text = match plan.action {
            Action::Role(_) => "(it holds a password)".to_owned(),
            _ => without_literals(sql, &scan.literals, scan.params),
        };
        let key =
            xxh3_128_with_seed(text.as_bytes(), xxh3_64(user.as_bytes()) ^ plan.tier() as u64);
        if let Some(place) = self.by_text.get(&key) {
            return *place;
        }
        if self.places.len() >= PLACES_MAX {
            return 0;
        }
        let place = self.places.len() as u32;
        self.places.push(Usage::new(user, text.into(), plan.tier()));
        self.by_text.insert(key, place);
        place
    }

    /// One more execution.
    pub fn count(&mut self, place: u32, took: Duration) {
        if let Some(usage) = self.places.get_mut(place as usize) {
            usage.calls += 1;
            usage.total += took;
            usage.max = usage.max.max(took);
        }
    }

    /// What has run at least once.
    #[must_use]
    pub fn figures(&self) -> Vec<Usage> {
        self.places.iter().filter(|usage| usage.calls > 0).cloned().collect()
    }
}

impl Usage {
    fn new(user: &str, text: Box<str>, tier: Tier) -> Self {
        let (total, max) = (Duration::ZERO, Duration::ZERO);
        Self { user: user.into(), text, tier, calls: 0, total, max }
    }

    /// Adds the same statement of another worker.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.total += other.total;
        self.max = self.max.max(other.max);
    }
}

/// Each literal as the next parameter. Not more of the text than is kept: INSERTs of so many rows
/// are one statement.
fn without_literals(sql: &str, literals: &[Literal], params: u16) -> String {
    let mut text = String::new();
    let mut from = 0;
    for (literal, number) in literals.iter().zip(u32::from(params) + 1..) {
        text.push_str(sql.get(from..literal.start as usize).unwrap_or_default());
        if text.len() >= TEXT_MAX {
            break;
        }
        text.push_str(&format!("${number}"));
        from = literal.end as usize;
    }
    if text.len() < TEXT_MAX {
        text.push_str(sql.get(from..).unwrap_or_default());
    }
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_differ_in_literals_only_share_a_place() {
        let mut scan = Scan::default();
        let text = |scan: &mut Scan, sql: &str| {
            pgherd_planner::scan(sql.as_bytes(), 0, 0, scan);
            without_literals(sql, &scan.literals, scan.params)
        };
        let one = text(&mut scan, "SELECT v FROM t WHERE k = 17 AND w = $1 AND s = 'é'");
        let other = text(&mut scan, "SELECT v FROM t WHERE k = 4 AND w = $1 AND s = 'x'");
        assert_eq!(one, "SELECT v FROM t WHERE k = $2 AND w = $1 AND s = $3");
        assert_eq!(one, other);
    }
}
