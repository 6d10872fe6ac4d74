//! Statements that come while a table is being distributed, or brought home, by somebody else.
//!
//! In PostgreSQL such a statement waits for the table's lock and then goes on, with a plan that says
//! where the rows were. So the transaction that moves them is announced first, and each router waits
//! here instead of there: its sessions plan when the rows have their new places. What does wait in
//! PostgreSQL, since it is inside of a transaction that the mover may have to wait for, or reads the
//! table through a function, is cancelled before the mover commits.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use pgherd_shard_map::{Epoch, TableName, store};
use postgres_protocol::escape::escape_literal;

use super::Conn;
use crate::error::{ErrorInfo, Failure};
use crate::recovery::{AskError, connect, timely};
use crate::wire::{HEADER, frontend};
use crate::worker::Shared;
use crate::worker::presence::Doing;

/// The longest that a statement is held back.
const HOLD_MAX: Duration = Duration::from_secs(600);

/// How long a router that has just lost its way to the catalog is given to come back.
const SETTLE: Duration = Duration::from_secs(1);

/// How often one that is held back looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(200);

impl Shared {
    /// A line of SQL on the catalog. For the control runtime.
    async fn ask_catalog(&self, sql: &str) -> Result<Option<i64>, AskError> {
        let map = self.map.load_full();
        let home = map.shard(map.home).map_or("", |shard| &*shard.dsn);
        let client = connect(&self.dialer, &self.settings.catalog.login_for(home)).await?;
        let row = timely(async { Ok(client.query_one(sql, &[]).await?) }).await?;
        Ok(row.get(0))
    }

    /// Routers that do not follow the catalog have no sessions on the shards any more: they would go
    /// on by the map from before.
    async fn shut_out(&self, epoch: Epoch) -> Result<(), String> {
        let map = self.map.load_full();
        let address = &self.settings.catalog;
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let target = self.dialer.catalog(address.as_str()).map_err(|error| said(&error))?;
        let catalog = store::Catalog::connect(target).await.map_err(|error| said(&error))?;
        let connecting = map.shards().map(|shard| {
            let url = address.login_for(&shard.dsn);
            async move { connect(&self.dialer, &url).await }
        });
        let shards = try_join_all(connecting).await.map_err(|error| said(&error))?;
        let shards: Vec<_> = shards.iter().collect();
        let settled = catalog.settle(&shards, epoch, SETTLE).await;
        settled.map(drop).map_err(|error| said(&error))
    }

    /// Lets go of what waits for changes that have ended.
    ///
    /// # Errors
    /// The catalog cannot be asked.
    pub async fn end_changes(&self) -> Result<(), AskError> {
        self.ask_catalog("SELECT NULL::bigint FROM pgherd.end_changes()").await?;
        self.reload.notify_one();
        Ok(())
    }
}

impl Conn {
    /// Before the table is locked: all routers hold back what names it.
    pub(super) async fn hold_back_others(
        &mut self,
        table: &TableName,
        home: usize,
    ) -> Result<(), Failure> {
        // The transaction has the lock of the catalog already, and nobody else could announce it.
        if self.session.transaction.block().is_none_or(|block| block.schema_changed) {
            return Ok(());
        }
        let xid = self.query(home, "SELECT pg_catalog.pg_current_xact_id()").await?.scalar();
        let sql = format!(
            "SELECT pgherd.begin_change({}, {})",
            escape_literal(&table.quoted()),
            escape_literal(&xid.unwrap_or_default())
        );
        let shared = std::sync::Arc::clone(&self.worker.shared);
        let control = shared.control.clone();
        let announced = control.spawn(async move {
            let epoch = shared.ask_catalog(&sql).await;
            shared.reload.notify_one();
            epoch
        });
        let epoch = match announced.await {
            Ok(Ok(epoch)) => epoch,
            Ok(Err(error)) => return Err(not_announced(&error.to_string())),
            Err(error) => return Err(not_announced(&error.to_string())),
        };
        let Some(epoch) = epoch else { return Ok(()) };
        if let Some(block) = self.session.transaction.block_mut() {
            block.distributing.push(table.clone());
        }
        if !self.await_routers(epoch.unsigned_abs()).await {
            return Err(not_announced("a router has not answered"));
        }
        let shared = std::sync::Arc::clone(&self.worker.shared);
        let control = shared.control.clone();
        let epoch = Epoch(epoch.unsigned_abs());
        match control.spawn(async move { shared.shut_out(epoch).await }).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(not_announced(&error)),
            Err(error) => Err(not_announced(&error.to_string())),
        }
    }

    /// Before the commit.
    pub(super) async fn turn_others_away(&mut self) -> Result<(), Failure> {
        let Some(block) = self.session.transaction.block() else { return Ok(()) };
        if block.distributing.is_empty() {
            return Ok(());
        }
        let tables = block.distributing.clone();
        let home = self.server_for(self.planning.map.home).await?;
        for table in tables {
            let name = escape_literal(&table.quoted());
            self.quietly(home, &format!("SELECT pgherd.turn_away({name})")).await?;
        }
        Ok(())
    }

    /// After a rollback: whoever was held back may go on.
    pub(super) fn end_changes(&self) {
        let distributing = self.session.transaction.block().map(|block| &block.distributing);
        if distributing.is_some_and(|tables| !tables.is_empty()) {
            let shared = std::sync::Arc::clone(&self.worker.shared);
            let control = shared.control.clone();
            control.spawn(async move {
                if let Err(error) = shared.end_changes().await {
                    // Recovery does it in a few seconds.
                    tracing::warn!(%error, "statements are held back longer than they need be");
                }
            });
        }
    }

    /// Whether [`Self::hold_message`] must be asked before a message is planned.
    #[must_use]
    pub fn must_look(&self) -> bool {
        !self.planning.map.changing.is_empty() || !self.worker.shared.contact.is_fresh()
    }

    /// Waits while the map at hand may be an old one, and while the message at the start of the
    /// client's buffer names a table that is changing.
    ///
    /// # Errors
    /// 55P03 after ten minutes, 57014 when the client cancels.
    pub async fn hold_message(&mut self, tag: u8, size: usize) -> Result<(), Failure> {
        if !self.worker.shared.contact.is_fresh() {
            self.cancel.presence.doing.set(Doing::Waiting);
            self.worker.shared.contact.refresh().await;
            self.cancel.presence.doing.set(Doing::Active);
            self.refresh_planning();
        }
        let end = Instant::now() + HOLD_MAX;
        while let Some(table) = self.named_change(tag, size) {
            if self.passes(&table).await? {
                return Ok(());
            }
            self.cancel.presence.doing.set(Doing::Waiting);
            let mut loaded = self.worker.shared.loaded.subscribe();
            let old = self.planning.map.epoch.0;
            let _ = tokio::time::timeout(LOOK, loaded.wait_for(|epoch| *epoch > old)).await;
            self.cancel.presence.doing.set(Doing::Active);
            if self.cancel.sent.replace(false) {
                return Err(
                    ErrorInfo::new("57014", "canceling statement due to user request").into()
                );
            }
            if Instant::now() >= end {
                return Err(ErrorInfo::new(
                    "55P03",
                    format!("table \"{}\" is still being distributed", table.name),
                )
                .hint("Run the statement again when create_distributed_table() has ended.")
                .into());
            }
            self.refresh_planning();
        }
        Ok(())
    }

    /// Too much is held back rather than too little: any mention of the name counts.
    fn named_change(&self, tag: u8, size: usize) -> Option<TableName> {
        let body = &self.client.inbuf[HEADER..size];
        let prepared = (tag == b'B')
            .then(|| frontend::bind(body).ok())
            .flatten()
            .and_then(|bind| self.session.statements.get(bind.statement));
        let text = prepared.map_or(body, |statement| statement.sql.as_bytes());
        let names = |name: &str| {
            text.windows(name.len().max(1)).any(|part| part.eq_ignore_ascii_case(name.as_bytes()))
        };
        // EXECUTE names a statement that names the tables.
        let indirect = tag == b'Q' && names("execute ");
        let mut changing = self.planning.map.changing.iter();
        changing.find(|table| indirect || names(&table.name)).cloned()
    }

    /// Whether this session must not wait: it is the one that makes the change, or the change may
    /// have to wait for its locks.
    async fn passes(&mut self, table: &TableName) -> Result<bool, Failure> {
        let Some(block) = self.session.transaction.block() else { return Ok(false) };
        if block.failed || block.map.is_some() || !block.distributing.is_empty() {
            return Ok(true);
        }
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_locks WHERE pid = pg_backend_pid() \
             AND granted AND relation = pg_catalog.to_regclass({}))",
            escape_literal(&table.quoted())
        );
        let joined: Vec<usize> =
            (0..self.servers.len()).filter(|at| self.servers[*at].joined).collect();
        for at in joined {
            if self.query(at, &sql).await?.scalar().as_deref() == Some("t") {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn not_announced(why: &str) -> Failure {
    ErrorInfo::new("55000", format!("the change could not be announced to all routers: {why}"))
        .detail("Nothing has been changed.")
        .hint(
            "Try again when all routers answer. The session of one that is gone for good can be \
             ended: its application_name on the home shard begins with \"pgherd map\".",
        )
        .into()
}
