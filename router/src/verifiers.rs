//! What the home shard knows of a role, read at each login: a role that was made, changed, renamed
//! or dropped a moment ago is what it is now.
//!
//! One connection with the catalog's own login serves all workers; only a superuser can read
//! `pg_authid`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Statement};

use crate::dial::{DialError, Dialer};
use crate::{md5, scram};

/// How long a login waits for the home shard.
const WAIT: Duration = Duration::from_secs(5);

/// What a new session starts with is part of what the role is: a server connection that was opened
/// before `ALTER ROLE … SET` starts with something else.
const QUERY: &str = "SELECT oid, rolcanlogin, \
     CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END, \
     pg_catalog.has_database_privilege(oid, pg_catalog.current_database(), 'CONNECT'), \
     CASE WHEN rolsuper THEN -1 ELSE rolconnlimit END, \
     (SELECT pg_catalog.hashtext(pg_catalog.string_agg(s::text, ',' ORDER BY s::text)) \
       FROM pg_catalog.pg_db_role_setting s WHERE setrole IN (0, a.oid) AND setdatabase IN (0, \
       (SELECT d.oid FROM pg_catalog.pg_database d WHERE datname = current_database()))), rolsuper \
     FROM pg_catalog.pg_authid a WHERE rolname = $1";

/// See `catalog.sql`.
const SECRET: &str = "SELECT mock_authentication_nonce FROM pgherd.secret";

#[derive(Debug, Error)]
pub enum LookupError {
    #[error("the home shard did not answer in time")]
    Timeout,
    #[error("the home shard's roles cannot be read: {0}")]
    Dial(#[from] DialError),
}

impl From<tokio_postgres::Error> for LookupError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Dial(error.into())
    }
}

/// Tells a role from another one that had its name before, and from what it was before its settings
/// were changed: server connections of one version are of no use to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoleVersion {
    /// The role's OID on the home shard.
    pub oid: u32,
    /// A hash of the settings that its sessions start with.
    pub settings: i32,
}

/// A role as it is now.
#[derive(Debug)]
pub struct Role {
    pub version: RoleVersion,
    pub can_login: bool,
    /// `None` when it has none, or it has expired.
    pub password: Option<Password>,
    pub superuser: bool,
    /// It has CONNECT on the database.
    pub may_connect: bool,
    /// Sessions that it may have at a time.
    pub connection_limit: Option<u32>,
}

impl Role {
    /// A superuser that the configuration vouches for.
    #[must_use]
    pub const fn administrator(password: Option<Password>) -> Self {
        Self {
            // PostgreSQL's own bootstrap role has another; no pool is ever opened for this one.
            version: RoleVersion { oid: 0, settings: 0 },
            can_login: true,
            password,
            superuser: true,
            may_connect: false,
            connection_limit: None,
        }
    }
}

/// What a password is checked against.
#[derive(Debug)]
pub enum Password {
    Scram(scram::Verifier),
    Md5(md5::Verifier),
}

#[derive(Debug)]
struct Connection {
    /// The home shard may move.
    dsn: Box<str>,
    client: Client,
    query: Statement,
}

/// The way to the home shard's roles.
#[derive(Debug)]
pub struct Verifiers {
    dialer: Arc<Dialer>,
    connection: Mutex<Option<Arc<Connection>>>,
    /// Of the catalog, so that every router makes up the same salt for an unknown user, before and
    /// after a restart.
    secret: OnceLock<Vec<u8>>,
    /// In its place for a catalog that has none.
    own_secret: [u8; 32],
}

impl Verifiers {
    #[must_use]
    pub fn new(dialer: Arc<Dialer>, own_secret: [u8; 32]) -> Self {
        Self { dialer, connection: Mutex::new(None), secret: OnceLock::new(), own_secret }
    }

    /// The role; `None` when it does not exist. `dsn` is the home shard's with the catalog's login.
    ///
    /// # Errors
    /// [`LookupError`]: nothing is known then, and nobody may log in.
    pub async fn lookup(&self, dsn: &str, user: &str) -> Result<Option<Role>, LookupError> {
        tokio::time::timeout(WAIT, self.ask(dsn, user)).await.map_err(|_| LookupError::Timeout)?
    }

    /// What salts are made up from. Known after the first lookup.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        self.secret.get().map_or(&self.own_secret, Vec::as_slice)
    }

    async fn ask(&self, dsn: &str, user: &str) -> Result<Option<Role>, LookupError> {
        let connection = {
            let mut slot = self.connection.lock().await;
            match slot.as_ref().filter(|known| !known.client.is_closed() && *known.dsn == *dsn) {
                Some(connection) => Arc::clone(connection),
                None => {
                    let client = self.dialer.client(dsn).await?;
                    self.learn_secret(&client).await?;
                    let query = client.prepare(QUERY).await?;
                    let connection = Arc::new(Connection { dsn: dsn.into(), client, query });
                    *slot = Some(Arc::clone(&connection));
                    connection
                }
            }
        };
        let row = connection.client.query_opt(&connection.query, &[&user]).await?;
        let Some(row) = row else { return Ok(None) };
        let password: Option<&str> = row.get(2);
        Ok(Some(Role {
            version: RoleVersion {
                oid: row.get(0),
                settings: row.get::<_, Option<i32>>(5).unwrap_or_default(),
            },
            can_login: row.get(1),
            password: password.and_then(|text| {
                let scram = scram::Verifier::parse(text).map(Password::Scram);
                scram.or_else(|| md5::Verifier::parse(text).map(Password::Md5))
            }),
            superuser: row.get(6),
            may_connect: row.get(3),
            connection_limit: u32::try_from(row.get::<_, i32>(4)).ok(),
        }))
    }

    async fn learn_secret(&self, client: &Client) -> Result<(), LookupError> {
        if self.secret.get().is_some() {
            return Ok(());
        }
        match client.query_opt(SECRET, &[]).await {
            Ok(Some(row)) => {
                // Whoever was first has read the same.
                let _ = self.secret.set(row.get(0));
            }
            Ok(None) => {}
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                tracing::warn!("the catalog is of an older version: run \"pgherd cluster init\"");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
