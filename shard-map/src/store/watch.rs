//! Follows the catalog: a change is seen at once when it is announced, else at the next poll.
//!
//! The name of a follower's session tells which epoch it has ([`FOLLOWER`]), so whoever makes a
//! change can wait until all have it: a follower that dies takes its session with it, and nobody
//! waits for the dead.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Socket};

use super::{StoreError, Target, bounded, epoch, load, open};
use crate::{Epoch, ShardMap};

/// A follower's `application_name`: this and its epoch.
pub(super) const FOLLOWER: &str = "pgherd map ";

/// Calls `on_map` with every newer map, forever: at once when it is announced, else within `poll`.
/// While the catalog cannot be reached, or answers with an older epoch (a standby that lags), the
/// last map stays. `find` says where it is before each attempt: certificates may have changed.
pub async fn watch<T>(
    find: impl Fn() -> Result<Target<T>, String>,
    poll: Duration,
    mut on_map: impl FnMut(Arc<ShardMap>) + Send,
) where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let mut seen = None;
    loop {
        let followed = match find() {
            Ok(target) => follow(target, poll, &mut seen, &mut on_map).await,
            Err(message) => Err(StoreError::Postgres { code: String::new(), message }),
        };
        if let Err(error) = followed {
            tracing::warn!(%error, "catalog not reachable; serving with the map at hand");
        }
        tokio::time::sleep(poll).await;
    }
}

async fn follow<T>(
    target: Target<T>,
    poll: Duration,
    seen: &mut Option<Epoch>,
    on_map: &mut (impl FnMut(Arc<ShardMap>) + Send),
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
    loop {
        let newest = epoch(&client).await?;
        if *seen < Some(newest) || again {
            let map = load(&client).await?;
            *seen = Some(map.epoch);
            again = map.locked_views;
            let has = map.epoch;
            on_map(Arc::new(map));
            let name = format!("SET application_name = '{FOLLOWER}{has}'");
            bounded(client.batch_execute(&name)).await?;
        } else if *seen > Some(newest) {
            tracing::warn!(at = %newest, "the catalog went back to an older epoch; not followed");
        }
        if let Ok(None) = tokio::time::timeout(poll, news.recv()).await {
            let message = "the connection to the catalog was closed".to_owned();
            return Err(StoreError::Postgres { code: String::new(), message });
        }
    }
}
