//! What the home shard holds of a role's password, read at each login: a role that was made,
//! changed or dropped a moment ago is what it is now.
//!
//! One connection with the catalog's own login serves all workers; only a superuser can read
//! `pg_authid`.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls};

use crate::scram::Verifier;

/// How long a login waits for the home shard.
const WAIT: Duration = Duration::from_secs(5);

const QUERY: &str = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1 \
     AND rolcanlogin AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())";

const SUPERUSER: &str = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = $1";

#[derive(Debug, Error)]
pub enum LookupError {
    #[error("the home shard did not answer in time")]
    Timeout,
    #[error("the home shard's roles cannot be read: {0}")]
    Postgres(String),
}

impl From<tokio_postgres::Error> for LookupError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })
    }
}

/// The way to the home shard's roles.
#[derive(Debug)]
pub struct Verifiers {
    client: Mutex<Option<Arc<Client>>>,
    /// Makes up the same salt for an unknown user each time.
    pub secret: [u8; 32],
}

impl Verifiers {
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self { client: Mutex::new(None), secret }
    }

    /// The role's verifier; `None` for a role that cannot log in by SCRAM: it does not exist, may
    /// not log in, has expired or has no such password. `dsn` is the home shard's with the
    /// catalog's login.
    ///
    /// # Errors
    /// [`LookupError`]: nothing is known then, and nobody may log in.
    pub async fn lookup(&self, dsn: &str, user: &str) -> Result<Option<Verifier>, LookupError> {
        tokio::time::timeout(WAIT, self.ask(dsn, user)).await.map_err(|_| LookupError::Timeout)?
    }

    /// Whether the role is a superuser.
    ///
    /// # Errors
    /// [`LookupError`]: nothing is known then.
    pub async fn is_superuser(&self, dsn: &str, user: &str) -> Result<bool, LookupError> {
        let asking = async {
            let row = self.client(dsn).await?.query_opt(SUPERUSER, &[&user]).await?;
            Ok(row.is_some_and(|row| row.get(0)))
        };
        tokio::time::timeout(WAIT, asking).await.map_err(|_| LookupError::Timeout)?
    }

    async fn ask(&self, dsn: &str, user: &str) -> Result<Option<Verifier>, LookupError> {
        let row = self.client(dsn).await?.query_opt(QUERY, &[&user]).await?;
        Ok(row.and_then(|row| Verifier::parse(row.get::<_, Option<&str>>(0)?)))
    }

    async fn client(&self, dsn: &str) -> Result<Arc<Client>, tokio_postgres::Error> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
        tokio::spawn(async move {
            // Its end is seen by whoever asks next.
            drop(connection.await);
        });
        let client = Arc::new(client);
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }
}
