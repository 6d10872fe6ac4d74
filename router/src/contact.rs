//! Whether the map at hand can be trusted to be the newest.
//!
//! Whoever changes the map waits for the routers that follow the catalog. One that has just lost its
//! connection, or was stopped for a while (a suspended process), is not waited for, or not for long:
//! it must look at the catalog before it plans anything more. A catalog that cannot be reached is no
//! reason to stop: then nobody can change the map either, as far as this router can tell.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgherd_shard_map::store::Contact;
use tokio::sync::Notify;

/// A map that was not looked at for so long may be an old one. The catalog is asked every second.
const FRESH: Duration = Duration::from_secs(3);

/// The longest that a statement waits for the catalog's word. Then the map at hand must do.
const WAIT: Duration = Duration::from_secs(2);

const FOLLOWING: u8 = 0;
const LOST: u8 = 1;
const UNREACHABLE: u8 = 2;

#[derive(Debug)]
pub struct CatalogContact {
    state: AtomicU8,
    start: Instant,
    /// Of the last word of the catalog, in milliseconds since `start`.
    last: AtomicU64,
    heard: Notify,
}

impl Default for CatalogContact {
    /// The map has just been loaded.
    fn default() -> Self {
        Self {
            state: AtomicU8::new(FOLLOWING),
            start: Instant::now(),
            last: AtomicU64::new(0),
            heard: Notify::new(),
        }
    }
}

impl CatalogContact {
    /// What has become of the connection.
    pub fn note(&self, contact: Contact) {
        let state = match contact {
            Contact::Following => {
                self.last.store(self.now(), Ordering::Relaxed);
                FOLLOWING
            }
            Contact::Lost => LOST,
            Contact::Unreachable => UNREACHABLE,
        };
        self.state.store(state, Ordering::Release);
        self.heard.notify_waiters();
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Whether statements may be planned by the map at hand.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        match self.state.load(Ordering::Acquire) {
            FOLLOWING => {
                let age = self.now().saturating_sub(self.last.load(Ordering::Relaxed));
                age < FRESH.as_millis() as u64
            }
            LOST => false,
            _ => true,
        }
    }

    /// Waits until they may, or the catalog is silent for too long.
    pub async fn refresh(&self) {
        let fresh = async {
            loop {
                let heard = self.heard.notified();
                if self.is_fresh() {
                    return;
                }
                heard.await;
            }
        };
        if tokio::time::timeout(WAIT, fresh).await.is_err() {
            // Silence is as good as a catalog that cannot be reached: nobody else waits for it.
            self.note(Contact::Unreachable);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_trusted_while_the_catalog_is_followed_or_out_of_reach() {
        let contact = CatalogContact::default();
        assert!(contact.is_fresh());
        contact.note(Contact::Lost);
        assert!(!contact.is_fresh());
        contact.note(Contact::Unreachable);
        assert!(contact.is_fresh());
        contact.note(Contact::Following);
        assert!(contact.is_fresh());
    }

    #[test]
    fn an_old_word_is_none() {
        let start = Instant::now().checked_sub(FRESH).expect("the clock has run for a while");
        let contact = CatalogContact { start, ..CatalogContact::default() };
        assert!(!contact.is_fresh());
        contact.note(Contact::Following);
        assert!(contact.is_fresh());
    }
}
