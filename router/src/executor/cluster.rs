//! `create_distributed_table` and its kin: statements of the session's own transaction on all
//! shards, so that they commit or roll back with it.
//!
//! Rows that a filled table has move by COPY between the session's own server connections, in the
//! same transaction: nobody sees the table half moved.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgherd_planner::ClusterFunction;
use pgherd_shard_map::{RelationKind, ShardId, ShardMap, TableKind, TableName};
use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::borrow::IN_UTF8;
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::wire::{HEADER, backend, frontend};

/// How often a client that waits for rows to move hears of them.
const PROGRESS: Duration = Duration::from_secs(2);

/// The column name that a call's answer has.
#[must_use]
pub fn cluster_column(call: &ClusterFunction) -> &'static str {
    match call {
        ClusterFunction::CreateDistributedTable { .. } => "create_distributed_table",
        ClusterFunction::CreateDistributedConcurrently { .. } => {
            "create_distributed_table_concurrently"
        }
        ClusterFunction::CreateReferenceTable { .. } => "create_reference_table",
        ClusterFunction::UndistributeTable { .. } => "undistribute_table",
        ClusterFunction::TransactionOutcome { .. } => "pgherd_transaction_outcome",
    }
}

impl Conn {
    pub(super) async fn run_cluster(
        &mut self,
        call: &ClusterFunction,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let value = match call {
            ClusterFunction::TransactionOutcome { gid } => self.transaction_outcome(gid).await?,
            ClusterFunction::CreateDistributedConcurrently { .. } => {
                Box::pin(self.distribute_concurrently(call)).await?;
                ""
            }
            _ => {
                self.open_implicit();
                Box::pin(self.run_cluster_quietly(call)).await?;
                ""
            }
        };
        if statement.portal.is_none() {
            backend::text_columns(&mut self.client.out, &[cluster_column(call)]);
        }
        backend::data_row(&mut self.client.out, &[Some(value.as_bytes())]);
        self.client.complete("SELECT 1");
        Ok(())
    }

    pub(super) async fn run_cluster_quietly(
        &mut self,
        call: &ClusterFunction,
    ) -> Result<(), Failure> {
        let call = &self.with_found_table(call.clone());
        let (ClusterFunction::CreateDistributedTable { table, .. }
        | ClusterFunction::CreateReferenceTable { table }
        | ClusterFunction::UndistributeTable { table }) = call
        else {
            return Ok(());
        };
        let shards = self.shard_list(&pgherd_planner::ShardSet::All);
        let mut servers = Vec::with_capacity(shards.len());
        for shard in &shards {
            let at = self.server_for(*shard).await?;
            self.join(at).await?;
            self.servers[at].wrote = true;
            servers.push((*shard, at));
        }
        let name = table.quoted();
        self.hold_back_others(table, servers[0].1).await?;
        for (_, at) in &servers {
            self.quietly(*at, &format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")).await?;
        }
        let home = servers[0].1;
        let before = self.planning.map.relation(table).cloned();
        let regclass = format!("{}::regclass", escape_literal(&name));
        match call {
            ClusterFunction::CreateDistributedTable {
                column, colocate_with, distribution, ..
            } => {
                if matches!(before, Some(RelationKind::Sharded(_))) {
                    return Err(ErrorInfo::new(
                        "42P16",
                        format!("table \"{}\" is already distributed", table.name),
                    )
                    .hint("undistribute_table() makes it a plain table again.")
                    .into());
                }
                let with = colocate_with.as_ref().map_or_else(
                    || "NULL::regclass".to_owned(),
                    |other| format!("{}::regclass", escape_literal(&other.quoted())),
                );
                let sql = format!(
                    "SELECT pgherd.register_distributed({regclass}, {}, {with}, {})",
                    escape_literal(column),
                    escape_literal(distribution)
                );
                self.quietly(home, &sql).await?;
                let map = self.schema_changed().await?;
                self.spread_rows(table, &map, &servers).await
            }
            ClusterFunction::CreateReferenceTable { .. } => {
                if matches!(before, Some(RelationKind::Sharded(_))) {
                    return Err(ErrorInfo::new(
                        "42P16",
                        format!("table \"{}\" is already distributed", table.name),
                    )
                    .into());
                }
                self.quietly(home, &format!("SELECT pgherd.register_reference({regclass})"))
                    .await?;
                self.schema_changed().await?;
                self.refuse_if_entangled(table, home).await?;
                for (_, at) in &servers[1..] {
                    self.copy_rows(table, home, *at, "true").await?;
                }
                Ok(())
            }
            ClusterFunction::UndistributeTable { .. } => {
                let Some(RelationKind::Sharded(known)) = before else {
                    return Err(ErrorInfo::new(
                        "42P16",
                        format!("table \"{}\" is not distributed", table.name),
                    )
                    .into());
                };
                for (_, at) in &servers {
                    self.refuse_if_entangled(table, *at).await?;
                }
                for (_, at) in &servers[1..] {
                    if matches!(known.kind, TableKind::Distributed { .. }) {
                        self.copy_rows(table, *at, home, "true").await?;
                    }
                    self.quietly(*at, &format!("DELETE FROM {name}")).await?;
                }
                self.quietly(home, &format!("SELECT pgherd.unregister({regclass})")).await?;
                self.schema_changed().await?;
                Ok(())
            }
            ClusterFunction::CreateDistributedConcurrently { .. }
            | ClusterFunction::TransactionOutcome { .. } => Ok(()),
        }
    }

    /// CREATE TABLE without a schema makes the table in the first schema of search_path that exists,
    /// which planning cannot know: now it is where it was made.
    fn with_found_table(&self, mut call: ClusterFunction) -> ClusterFunction {
        let (ClusterFunction::CreateDistributedTable { table, .. }
        | ClusterFunction::CreateReferenceTable { table }
        | ClusterFunction::UndistributeTable { table }) = &mut call
        else {
            return call;
        };
        if self.planning.map.relation(table).is_none() {
            let auto = &self.worker.live.borrow().auto_distribute;
            let context = self.planning.context(auto);
            if let Some(found) = pgherd_planner::resolve(&table.name, &context) {
                *table = found;
            }
        }
        call
    }

    /// The schema has changed inside this transaction: the catalog's epoch rises with it, and the
    /// session plans with what it sees until the commit.
    pub(super) async fn schema_changed(&mut self) -> Result<Arc<ShardMap>, Failure> {
        let home = self.server_for(self.planning.map.home).await?;
        self.quietly(home, "SELECT pgherd.bump_epoch(), pgherd.check_sharded()").await?;
        self.servers[home].wrote = true;
        let reply = self.query(home, pgherd_shard_map::store::LOAD_SQL).await?;
        let map = reply
            .scalar()
            .ok_or_else(|| "the catalog is empty".to_owned())
            .and_then(|json| ShardMap::from_json(&json).map_err(|error| error.to_string()))
            .map(Arc::new)
            .map_err(|error| {
                ErrorInfo::new("XX000", format!("the shard map cannot be read: {error}"))
            })?;
        if let Some(block) = self.session.transaction.block_mut() {
            block.map = Some(Arc::clone(&map));
            block.schema_changed = true;
        }
        self.refresh_planning();
        Ok(map)
    }

    /// After the commit of a schema change: every router must know it before the client is told.
    pub(super) async fn wait_for_map(&mut self) {
        if !self.await_routers(self.planning.map.epoch.0).await {
            tracing::error!("the shard map could not be loaded after a schema change");
        }
    }

    /// Whether all routers have a map of this epoch within a few seconds.
    pub(super) async fn await_routers(&self, wanted: u64) -> bool {
        let mut known = self.worker.shared.known.subscribe();
        self.worker.shared.reload.notify_one();
        let waiting = known.wait_for(|epoch| *epoch >= wanted);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.is_ok()
    }

    /// Moves the rows that the home shard has to where their keys belong.
    async fn spread_rows(
        &mut self,
        table: &TableName,
        map: &ShardMap,
        servers: &[(ShardId, usize)],
    ) -> Result<(), Failure> {
        let Some(RelationKind::Sharded(known)) = map.relation(table) else {
            return Err(ErrorInfo::new("XX000", "the table was not registered").into());
        };
        let (TableKind::Distributed { group, .. }, Some(column)) = (known.kind, known.key_column())
        else {
            return Err(ErrorInfo::new("XX000", "the table was not registered").into());
        };
        let (home_shard, home) = servers[0];
        self.refuse_if_entangled(table, home).await?;
        let column = escape_identifier(&column.name);
        let group = map.group(group);
        let predicate = |shard| group.and_then(|group| group.shard_predicate(shard, &column));
        for (shard, at) in &servers[1..] {
            if let Some(predicate) = predicate(*shard) {
                self.copy_rows(table, home, *at, &predicate).await?;
            }
        }
        let keep = predicate(home_shard).unwrap_or_else(|| "false".to_owned());
        let name = table.quoted();
        self.quietly(home, &format!("DELETE FROM {name} WHERE ({keep}) IS NOT TRUE")).await?;
        Ok(())
    }

    /// Rows do not move past foreign keys and user triggers: both would act on the move.
    async fn refuse_if_entangled(&mut self, table: &TableName, at: usize) -> Result<(), Failure> {
        let name = table.quoted();
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM {name}) AND (\
               EXISTS (SELECT 1 FROM pg_catalog.pg_constraint WHERE contype = 'f' \
                 AND {regclass} IN (conrelid, confrelid)) \
               OR EXISTS (SELECT 1 FROM pg_catalog.pg_trigger \
                 WHERE tgrelid = {regclass} AND NOT tgisinternal))",
            regclass = format_args!("{}::regclass", escape_literal(&name)),
        );
        if self.query(at, &sql).await?.scalar().as_deref() == Some("t") {
            return Err(ErrorInfo::new(
                "0A000",
                format!("rows of table \"{}\" cannot be moved", table.name),
            )
            .detail("It has rows, and foreign keys or triggers that would act on their move.")
            .hint("Drop these, distribute the table, and create them again.")
            .into());
        }
        Ok(())
    }

    /// Copies rows from one server to another, in text: OIDs of user types differ between servers.
    async fn copy_rows(
        &mut self,
        table: &TableName,
        from: usize,
        to: usize,
        predicate: &str,
    ) -> Result<(), Failure> {
        let name = table.quoted();
        let columns = self
            .query(
                from,
                &format!(
                    "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) \
                     FROM pg_catalog.pg_attribute WHERE attrelid = {}::regclass \
                     AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
                    escape_literal(&name)
                ),
            )
            .await?
            .scalar()
            .unwrap_or_default();
        let mut request = Vec::new();
        frontend::put_query(
            &mut request,
            &format!("COPY (SELECT {columns} FROM {name} WHERE {predicate}) TO STDOUT ({IN_UTF8})"),
        );
        if let Err(error) = self.servers[from].send(&request).await {
            return Err(self.lost(from, &error));
        }
        request.clear();
        frontend::put_query(
            &mut request,
            &format!("COPY {name} ({columns}) FROM STDIN ({IN_UTF8})"),
        );
        if let Err(error) = self.servers[to].send(&request).await {
            return Err(self.lost(to, &error));
        }
        let mut odd = self.refuse_odd_forms(from).err();
        let mut failure = None;
        let mut batch = Vec::new();
        let mut rows = 0_u64;
        let mut told = Instant::now();
        loop {
            let (tag, frame) = match self.servers[from].frame().await {
                Ok(frame) => frame,
                Err(error) => return Err(self.lost(from, &error)),
            };
            match tag {
                b'd' if failure.is_some() => {}
                // An empty table has nothing that could be changed on its way.
                b'd' if odd.is_some() => failure = odd.take(),
                b'd' => {
                    rows += 1;
                    batch.extend_from_slice(&frame);
                }
                b'E' => failure = Some(Failure::Shard(frame)),
                b'Z' => {
                    self.servers[from].status = frame.get(HEADER).copied().unwrap_or(0);
                    break;
                }
                _ => {}
            }
            if batch.len() > 64 * 1024 {
                if let Err(error) = self.servers[to].send(&batch).await {
                    return Err(self.lost(to, &error));
                }
                batch.clear();
                if told.elapsed() >= PROGRESS {
                    told = Instant::now();
                    self.tell_progress(table, rows, to, "so far").await?;
                }
            }
        }
        batch.extend_from_slice(frontend::COPY_DONE);
        if let Err(error) = self.servers[to].send(&batch).await {
            return Err(self.lost(to, &error));
        }
        loop {
            let (tag, frame) = match self.servers[to].frame().await {
                Ok(frame) => frame,
                Err(error) => return Err(self.lost(to, &error)),
            };
            match tag {
                b'E' => {
                    failure.get_or_insert(Failure::Shard(frame));
                }
                b'Z' => {
                    self.servers[to].status = frame.get(HEADER).copied().unwrap_or(0);
                    break;
                }
                _ => {}
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None if rows > 0 => self.tell_progress(table, rows, to, "now").await,
            None => Ok(()),
        }
    }

    /// For whoever waits.
    async fn tell_progress(
        &mut self,
        table: &TableName,
        rows: u64,
        to: usize,
        when: &str,
    ) -> Result<(), Failure> {
        let shard = self.servers[to].shard;
        let (noun, verb) = if rows == 1 { ("row", "is") } else { ("rows", "are") };
        let name = &table.name;
        let text = format!("{rows} {noun} of table \"{name}\" {verb} on shard {shard} {when}");
        self.tell_client(text).await
    }

    /// A notice, at once.
    pub(super) async fn tell_client(&mut self, text: String) -> Result<(), Failure> {
        self.notice("NOTICE", &ErrorInfo::new("00000", text));
        self.client.flush().await.map_err(|_| Failure::ClientGone)
    }

    /// Runs SQL of the router's own; its error is the statement's.
    pub(super) async fn query(
        &mut self,
        at: usize,
        sql: &str,
    ) -> Result<crate::pool::server::Reply, Failure> {
        match self.servers[at].run(sql).await {
            Ok(reply) => match reply.error {
                None => Ok(reply),
                Some(error) => Err(Failure::Shard(error)),
            },
            Err(error) => Err(self.lost(at, &error)),
        }
    }

    pub(super) async fn quietly(&mut self, at: usize, sql: &str) -> Result<(), Failure> {
        self.query(at, sql).await.map(drop)
    }

    pub(super) async fn collect_ok(&mut self, at: usize) -> Result<(), Failure> {
        match self.servers[at].collect().await {
            Ok(reply) => reply.error.map_or(Ok(()), |error| Err(Failure::Shard(error))),
            Err(error) => Err(self.lost(at, &error)),
        }
    }
}
