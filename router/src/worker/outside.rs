//! All workers are asked or told something at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::{Mail, People, Phase, Shared, WarmUsers};

impl Shared {
    /// Every client and server connection of all workers.
    pub(super) async fn people(&self) -> Vec<People> {
        self.ask_workers(Mail::People).await
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

    #[must_use]
    pub fn is_home_paused(&self) -> bool {
        self.paused.load().contains(&self.map.load().home)
    }

    /// The next number for PAUSE or RECONNECT.
    #[must_use]
    pub fn next_generation(&self) -> u32 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Has all workers keep connections of the users that the configuration names, as their roles
    /// are now.
    pub async fn warm(&self) {
        let live = self.live.load_full();
        let mut users = Vec::with_capacity(live.warm_users.len());
        for user in &live.warm_users {
            match self.role(user).await {
                Ok(Some(role)) if role.can_login && role.connection_limit.is_none() => {
                    users.push((user.clone(), role.version));
                }
                Ok(Some(_)) => {
                    tracing::warn!(%user, "not kept warm: it may not log in, or has a limit");
                }
                Ok(None) => tracing::warn!(%user, "not kept warm: there is no such role"),
                Err(error) => {
                    // They stay as they are.
                    tracing::warn!(%user, %error, "not kept warm");
                    return;
                }
            }
        }
        let users: WarmUsers = users.into();
        self.tell(|| Mail::Warm(Arc::clone(&users))).await;
    }
}
