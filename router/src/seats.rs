//! `CONNECTION LIMIT` of roles: how many sessions a role has at this router. Only roles that have a
//! limit are counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The sessions of limited roles, by the role's OID.
#[derive(Debug, Default)]
pub struct Seats(Mutex<HashMap<u32, u32>>);

/// One session of a limited role, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    role: u32,
}

impl Seats {
    /// A place for one more session: `None` when all are taken, `Some(None)` for a role without a
    /// limit.
    #[must_use]
    pub fn take(self: &Arc<Self>, role: u32, limit: Option<u32>) -> Option<Option<Seat>> {
        let Some(limit) = limit else { return Some(None) };
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(role).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(taken);
        Some(Some(Seat { seats: Arc::clone(self), role }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.role) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.role);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_its_session_ends() {
        let seats = Arc::new(Seats::default());
        let first = seats.take(7, Some(2)).flatten().expect("free");
        let second = seats.take(7, Some(2)).flatten().expect("free");
        assert!(seats.take(7, Some(2)).is_none());
        assert!(seats.take(8, Some(1)).flatten().is_some());
        assert!(seats.take(9, None).expect("no limit").is_none());
        drop(first);
        let third = seats.take(7, Some(2)).flatten();
        assert!(third.is_some());
        drop((second, third));
        assert!(seats.0.lock().expect("nobody panicked").is_empty());
    }

    #[test]
    fn a_limit_of_none_is_kept_in_no_table() {
        let seats = Arc::new(Seats::default());
        assert!(seats.take(7, Some(0)).is_none());
    }
}
