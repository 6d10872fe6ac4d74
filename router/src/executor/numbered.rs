//! New columns of a distributed table that a sequence fills: each shard has numbered its own rows
//! from the start, as PostgreSQL does; then they are numbered on, one shard after another, and the
//! home shard's sequence goes on from there.

use pgherd_planner::Numbering;
use pgherd_shard_map::ShardId;
use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};

impl Conn {
    pub(super) async fn run_numbered(
        &mut self,
        numbering: &Numbering,
        shards: &[ShardId],
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let tasks = self.tasks(shards, None).await?;
        let home = tasks[0].at;
        self.join(home).await?;
        let columns = self.new_columns(home, numbering).await?;
        let before = self.client.out.len();
        self.run_same(tasks, statement).await?;
        for column in &columns {
            if let Err(failure) = self.number(numbering, column, shards).await {
                self.client.out.truncate(before);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Without those that are there already: ADD COLUMN IF NOT EXISTS.
    async fn new_columns(
        &mut self,
        home: usize,
        numbering: &Numbering,
    ) -> Result<Vec<String>, Failure> {
        let names: Vec<String> =
            numbering.columns.iter().map(|name| escape_literal(name)).collect();
        let sql = format!(
            "SELECT c FROM pg_catalog.unnest(ARRAY[{}]) AS c WHERE NOT EXISTS (SELECT 1 \
             FROM pg_catalog.pg_attribute WHERE attrelid = {}::pg_catalog.regclass \
               AND attname = c AND NOT attisdropped)",
            names.join(", "),
            escape_literal(&numbering.table.quoted())
        );
        let reply = self.query(home, &sql).await?;
        Ok(reply.text_rows().filter_map(|row| row.into_iter().next().flatten()).collect())
    }

    async fn number(
        &mut self,
        numbering: &Numbering,
        column: &str,
        shards: &[ShardId],
    ) -> Result<(), Failure> {
        let table = numbering.table.quoted();
        let sequence = format!(
            "pg_catalog.pg_get_serial_sequence({}, {})",
            escape_literal(&table),
            escape_literal(column)
        );
        let (home, others) = shards.split_first().ok_or(Failure::Torn)?;
        let home = self.server_for(*home).await?;
        let Some(name) = self.query(home, &format!("SELECT {sequence}")).await?.scalar() else {
            return Ok(());
        };
        let state = format!("SELECT last_value, is_called FROM {name}");
        let mut last = self.query(home, &state).await?.first_row();
        let mut checked = false;
        for shard in others {
            let at = self.server_for(*shard).await?;
            let rows = format!("SELECT EXISTS (SELECT FROM {table})");
            if self.query(at, &rows).await?.scalar().as_deref() != Some("t") {
                continue;
            }
            if !checked {
                self.refuse_acting_on_numbers(at, &table).await?;
                checked = true;
            }
            self.query(at, &set(&sequence, &last)).await?;
            let column = escape_identifier(column);
            self.quietly(at, &format!("UPDATE {table} SET {column} = DEFAULT")).await?;
            last = self.query(at, &state).await?.first_row();
        }
        if checked {
            self.query(home, &set(&sequence, &last)).await?;
        }
        Ok(())
    }

    /// PostgreSQL fills a new column without an UPDATE.
    async fn refuse_acting_on_numbers(&mut self, at: usize, table: &str) -> Result<(), Failure> {
        let table = escape_literal(table);
        let sql = format!(
            "SELECT CASE WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_trigger \
               WHERE NOT tgisinternal AND (tgrelid = t.oid OR tgrelid IN \
                 (SELECT relid FROM pg_catalog.pg_partition_tree(t.oid)))) THEN 'It has triggers' \
             WHEN t.relforcerowsecurity THEN 'It has row-level security for its owner' END \
             FROM pg_catalog.pg_class t WHERE t.oid = {table}::pg_catalog.regclass"
        );
        match self.query(at, &sql).await?.scalar() {
            None => Ok(()),
            Some(why) => Err(ErrorInfo::new(
                "0A000",
                "the rows of this table cannot be numbered when a column is added",
            )
            .detail(format!("{why}, which would act on that."))
            .hint(
                "Add the column without a default, fill it, and then use ALTER COLUMN … SET \
                 DEFAULT nextval(…) or ADD GENERATED … AS IDENTITY.",
            )
            .into()),
        }
    }
}

/// Goes on from there.
fn set(sequence: &str, state: &[Option<String>]) -> String {
    let part = |at: usize| state.get(at).cloned().flatten().unwrap_or_default();
    format!("SELECT pg_catalog.setval({sequence}, {}, '{}')", part(0), part(1))
}
