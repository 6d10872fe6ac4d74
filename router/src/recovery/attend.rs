//! Drives recovery's machine over real connections: one prepared transaction, one attempt.

use std::time::Duration;

use pgherd_shard_map::ShardId;
use thiserror::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::dial::{DialError, Dialer};
use crate::two_phase::{
    Answer, End, Gid, Orphan, OrphanEvent, READ_MARKER, Request, Step, TOMBSTONE, Verdict,
};

/// How long one server may take for one question.
const WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub enum AskError {
    #[error("it did not answer in time")]
    Timeout,
    #[error("{0}")]
    Dial(#[from] DialError),
}

impl From<tokio_postgres::Error> for AskError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Dial(error.into())
    }
}

/// Connects as recovery does: DSNs carry the catalog's login, since only a superuser can finish
/// what others have prepared.
pub async fn connect(dialer: &Dialer, dsn: &str) -> Result<Client, AskError> {
    timely(async {
        let client = dialer.client(dsn).await?;
        // READ COMMITTED, so that the row which the insert met can be read after it. The tombstone
        // must last: what hangs on it is rolled back durably.
        client
            .batch_execute(
                "SET lock_timeout = '50ms'; SET default_transaction_isolation = 'read committed'; \
                 SET default_transaction_read_only = off; SET synchronous_commit = local; \
                 SET application_name = 'pgherd recovery'",
            )
            .await?;
        Ok(client)
    })
    .await
}

/// Waits for one answer, but not for ever.
///
/// # Errors
/// [`AskError::Timeout`], or what the work says.
pub async fn timely<T>(work: impl Future<Output = Result<T, AskError>>) -> Result<T, AskError> {
    tokio::time::timeout(WAIT, work).await.unwrap_or(Err(AskError::Timeout))
}

/// Brings one prepared transaction to the end that its decider has decided, or decides now.
pub async fn attend(shard: ShardId, client: &Client, decider: Option<&Client>, gid: &Gid) -> End {
    let mut orphan = Orphan::new();
    loop {
        let event = match orphan.step() {
            Step::Ask => OrphanEvent::Asked(match decider {
                Some(decider) => ask(decider, gid).await,
                None => Verdict::Unreachable,
            }),
            Step::Send(request) => OrphanEvent::Answered(send(client, shard, gid, request).await),
            Step::Over(end) => {
                match end {
                    End::Committed | End::RolledBack => {
                        tracing::info!(%shard, %gid, ?end, "in-doubt transaction finished");
                    }
                    End::Lost => super::alarm(shard, gid),
                    End::Left => tracing::warn!(%shard, %gid, "in doubt: it is left for later"),
                    End::ByAnother | End::Undecided => {}
                }
                return end;
            }
        };
        orphan.handle(event);
    }
}

/// Recovery's question to the decider. After any answer but `Undecided` and `Unreachable` it is
/// decided for good.
pub async fn ask(decider: &Client, gid: &Gid) -> Verdict {
    let asked = timely(async {
        match decider.execute(TOMBSTONE, &[&gid.as_str()]).await {
            Ok(1) => Ok(Verdict::Aborted),
            Ok(_) => {
                let row = decider.query_one(READ_MARKER, &[&gid.as_str()]).await?;
                Ok(verdict(row.get(0)))
            }
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                Ok(Verdict::Undecided)
            }
            Err(error) => Err(error.into()),
        }
    });
    asked.await.unwrap_or_else(|error| {
        tracing::warn!(%gid, %error, "in doubt: the decider cannot be asked");
        Verdict::Unreachable
    })
}

/// What a marker's state means.
pub(super) fn verdict(state: &str) -> Verdict {
    if state == "committed" { Verdict::Committed } else { Verdict::Aborted }
}

async fn send(client: &Client, shard: ShardId, gid: &Gid, request: Request) -> Answer {
    // These requests name no participants, and are one statement each.
    let statements = request.statements(gid, "");
    let sent = timely(async { Ok(client.simple_query(&statements.concat()).await?) }).await;
    match sent {
        Ok(messages) => {
            let rows = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
                _ => None,
            });
            match request {
                Request::FindMarker if rows != Some(1) => Answer::Missing,
                _ => Answer::Done,
            }
        }
        Err(AskError::Dial(DialError::Postgres(error))) if error.as_db_error().is_some() => {
            let code = error.code().map(SqlState::code);
            if request.is_missing("", code) {
                return Answer::Missing;
            }
            tracing::warn!(%shard, %gid, %error, "an in-doubt transaction could not be finished");
            Answer::Refused
        }
        Err(error) => {
            tracing::warn!(%shard, %gid, %error, "an in-doubt transaction could not be finished");
            Answer::Lost
        }
    }
}
