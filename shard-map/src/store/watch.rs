//! Follows the catalog: a change is seen at once when it is announced, else at the next poll.
//!
//! The name of a follower's session tells who it is and which epoch it has ([`FOLLOWER`]), so whoever makes a
//! change can wait until all have it: a follower that dies takes its session with it, and nobody
//! waits for the dead.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Socket};

use super::{StoreError, Target, bounded, epoch, load, load_placement, open};
use crate::ShardMap;

/// A follower's `application_name`: this, its epoch, and its router's number.
pub(super) const FOLLOWER: &str = "pgherd map ";

/// What has become of the connection to the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// It has said which epoch is the newest, and that is the one at hand.
    Following,
    /// It has ended, and is being made anew.
    Lost,
    /// It cannot be made.
    Unreachable,
}

/// How long a catalog that cannot be reached is left alone.
const RETRY: Duration = Duration::from_millis(200);

/// Calls `on_map` with every newer map, forever: at once when it is announced, else within `poll`.
/// While the catalog cannot be reached, or answers with an older epoch (a standby that lags), the
/// last map stays, and `on_contact` tells of it. `find` says where it
/// is before each attempt: certificates may have changed. `router` is made of letters and digits.
/// A map that the router has from elsewhere, by a change of its own, is `at_hand`, and is not loaded.
pub async fn watch<T>(
    find: impl Fn() -> Result<Target<T>, String>,
    router: &str,
    poll: Duration,
    at_hand: impl Fn() -> Option<Arc<ShardMap>> + Send + Sync,
    mut on_map: impl FnMut(Arc<ShardMap>) + Send,
    mut on_contact: impl FnMut(Contact) + Send,
) where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let mut seen = None;
    let mut told = false;
    loop {
        let mut followed = false;
        let ended = match find() {
            Ok(target) => {
                let mut on_contact = |contact| {
                    followed = true;
                    on_contact(contact);
                };
                follow(target, router, poll, &mut seen, &at_hand, &mut on_map, &mut on_contact)
                    .await
            }
            Err(message) => Err(StoreError::Postgres { code: String::new(), message }),
        };
        // A connection that has just worked is made anew at once.
        on_contact(if followed { Contact::Lost } else { Contact::Unreachable });
        told &= !followed;
        if let Err(error) = ended
            && !std::mem::replace(&mut told, !followed)
        {
            tracing::warn!(%error, "catalog not reachable; serving with the map at hand");
        }
        if !followed {
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn follow<T>(
    target: Target<T>,
    router: &str,
    poll: Duration,
    seen: &mut Option<Arc<ShardMap>>,
    at_hand: &(impl Fn() -> Option<Arc<ShardMap>> + Sync),
    on_map: &mut (impl FnMut(Arc<ShardMap>) + Send),
    on_contact: &mut (impl FnMut(Contact) + Send),
) -> Result<(), StoreError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, mut connection) = open(target).await?;
    let (told, mut news) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if matches!(message, AsyncMessage::Notification(_)) {
                // Full means that a change is announced already.
                let _ = told.try_send(());
            }
        }
    });
    bounded(client.batch_execute("LISTEN pgherd_epoch")).await?;
    let mut again = false;
    let mut told = None;
    loop {
        // First: it is from a change that has been committed, so the catalog is at least there.
        if let Some(map) = at_hand()
            && seen.as_ref().is_none_or(|seen| seen.epoch < map.epoch)
        {
            *seen = Some(map);
            again = false;
        }
        let newest = epoch(&client).await?;
        let at = seen.as_ref().map(|map| map.epoch);
        if at < Some(newest) || again {
            let map = match seen.as_ref().filter(|_| !again) {
                // A catalog of an older version cannot tell less than all.
                Some(map) => load_placement(&client, map).await.unwrap_or_default(),
                None => None,
            };
            let map = match map {
                Some(map) => map,
                None => load(&client).await?,
            };
            again = map.locked_views;
            let map = Arc::new(map);
            *seen = Some(Arc::clone(&map));
            on_map(map);
        }
        match seen.as_ref().map(|map| map.epoch) {
            Some(has) if has > newest && at > Some(newest) => {
                tracing::warn!(at = %newest, "the catalog went back to an older epoch; not followed");
            }
            Some(has) if told != Some(has) => {
                let name = format!("SET application_name = '{FOLLOWER}{has} {router}'");
                bounded(client.batch_execute(&name)).await?;
                told = Some(has);
            }
            _ => {}
        }
        on_contact(Contact::Following);
        if let Ok(None) = tokio::time::timeout(poll, news.recv()).await {
            let message = "the connection to the catalog was closed".to_owned();
            return Err(StoreError::Postgres { code: String::new(), message });
        }
    }
}
