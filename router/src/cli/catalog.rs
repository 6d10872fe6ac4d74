//! Where the catalog is, for the commands that need it, and how they connect.

use std::path::PathBuf;

use pgherd_shard_map::store;
use tokio_postgres::Client;

use super::{Failure, serve};
use crate::config::{Dsn, ServerTls};
use crate::dial::{DialError, Dialer};

/// The option wins over the variable, and both over the file.
#[derive(Debug, clap::Args)]
pub(super) struct CatalogArgs {
    /// The catalog's address: a database URL of a superuser.
    #[arg(long, env = "PGHERD_CATALOG", value_name = "URL", hide_env_values = true)]
    catalog: Option<String>,
    /// A router's configuration file, to take the address from.
    #[arg(long, env = "PGHERD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl CatalogArgs {
    /// The catalog's URL.
    pub(super) fn dsn(&self) -> Result<Dsn, Failure> {
        match (&self.catalog, &self.config) {
            (Some(url), _) => parse("--catalog", url),
            (None, Some(file)) => Ok(serve::load(file)?.catalog),
            (None, None) => Err(Failure::new(
                "nothing says where the catalog is",
                "Give --catalog postgres://user@host/database, or set PGHERD_CATALOG, or name a \
                 router's file with --config.",
            )),
        }
    }

    /// The way to the catalog and the shards: what the URLs do not say of TLS is the file's.
    pub(super) fn dialer(&self) -> Result<Dialer, Failure> {
        let defaults = match &self.config {
            Some(file) => serve::load(file)?.shard_tls,
            None => ServerTls::default(),
        };
        Ok(Dialer::new(defaults)?)
    }

    pub(super) async fn connect(&self) -> Result<store::Catalog, Failure> {
        let (dsn, dialer) = (self.dsn()?, self.dialer()?);
        // The store's own connect says less about why it could not.
        let client = connect(&dialer, &dsn).await?;
        let there = client
            .query_one("SELECT pg_catalog.to_regclass('pgherd.cluster') IS NOT NULL", &[])
            .await
            .map_err(|error| database_error(&error))?;
        if !there.get::<_, bool>(0) {
            return Err(Failure::new(
                format!("{dsn} holds no catalog"),
                format!("Make it with: pgherd cluster init --catalog {dsn}"),
            ));
        }
        let target = dialer.catalog(dsn.as_str()).map_err(|error| dial_error(&error))?;
        store::Catalog::connect(target).await.map_err(|error| error.to_string().into())
    }
}

/// A database URL that somebody typed.
pub(super) fn parse(what: &str, url: &str) -> Result<Dsn, Failure> {
    Dsn::try_new(url).map_err(|problem| {
        Failure::new(
            format!("{what}: {problem}"),
            "A database URL looks like postgres://user@host:5432/database.",
        )
    })
}

/// Connects as the URL says.
pub(super) async fn connect(dialer: &Dialer, dsn: &Dsn) -> Result<Client, Failure> {
    dialer.client(dsn.as_str()).await.map_err(|error| {
        let cause = dial_error(&error).problem;
        Failure::new(
            format!("cannot connect to {dsn}: {cause}"),
            "Does the server run there, and does its pg_hba.conf let this user in?",
        )
    })
}

/// Why a server was not reached.
pub(super) fn dial_error(error: &DialError) -> Failure {
    match error {
        DialError::Target(problem) => Failure { problem: super::one_line(problem), hint: None },
        DialError::Postgres(error) => database_error(error),
    }
}

/// What the server said, or why it said nothing.
pub(super) fn database_error(error: &tokio_postgres::Error) -> Failure {
    let text = match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(said), _) => format!("{} ({})", said.message(), said.code().code()),
        (None, Some(cause)) => cause.to_string(),
        (None, None) => error.to_string(),
    };
    Failure { problem: super::one_line(&text), hint: None }
}

/// Settings without which a shard cannot work.
pub(super) async fn check_server(client: &Client) -> Result<(), Failure> {
    let row = client
        .query_one(
            "SELECT current_setting('max_prepared_transactions')::int, \
             current_setting('server_version_num')::int, current_setting('server_version'), \
             (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)",
            &[],
        )
        .await
        .map_err(|error| database_error(&error))?;
    let (prepared, number, version): (i32, i32, String) = (row.get(0), row.get(1), row.get(2));
    if number < 150_000 {
        return Err(Failure::new(
            format!("the server is PostgreSQL {version}, and a shard needs 15 or newer"),
            "Upgrade it with pg_upgrade first.",
        ));
    }
    if prepared == 0 {
        return Err(Failure::new(
            "max_prepared_transactions is 0, so nothing can be committed over several shards",
            "Set it to max_connections in postgresql.conf and restart the server.",
        ));
    }
    if !row.get::<_, bool>(3) {
        return Err(Failure::new(
            "the user is not a superuser",
            "The catalog's user finishes other users' prepared transactions, so it must be one.",
        ));
    }
    Ok(())
}
