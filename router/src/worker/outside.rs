//! All workers are asked or told something at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::{Mail, People, Phase, Shared};
use crate::verifiers::LookupError;

impl Shared {
    /// Every client and server connection of all workers.
    pub async fn people(&self) -> Vec<People> {
        self.ask(Mail::People).await
    }

    /// Tells all workers.
    pub async fn tell(&self, mail: impl Fn() -> Mail) {
        for mailbox in self.mailboxes.get().into_iter().flatten() {
            // A worker that has ended needs to know nothing.
            drop(mailbox.send(mail()).await);
        }
    }

    /// Ends a client's session; whether there is such a client.
    pub async fn kill(&self, pid: u32) -> bool {
        let Some(mailbox) = self.mailboxes.get().and_then(|m| m.get((pid & 0xff) as usize)) else {
            return false;
        };
        let (answer, answered) = oneshot::channel();
        mailbox.send(Mail::Kill { pid, answer }).await.is_ok() && answered.await.unwrap_or(false)
    }

    /// Goes on to a later phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }

    /// The next number for PAUSE or RECONNECT.
    #[must_use]
    pub fn next_generation(&self) -> u32 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the role may use the console. The catalog's own login is a superuser's, and is
    /// believed while the home shard cannot be asked.
    pub async fn is_admin(self: &Arc<Self>, user: &str) -> Result<bool, LookupError> {
        if self.settings.catalog.user().is_some_and(|catalog| catalog == user) {
            return Ok(true);
        }
        let (shared, user) = (Arc::clone(self), user.to_owned());
        let asking = self.control.spawn(async move {
            let dsn = shared.home_dsn();
            shared.verifiers.is_superuser(&dsn, &user).await
        });
        asking.await.map_err(|error| LookupError::Postgres(error.to_string()))?
    }
}
