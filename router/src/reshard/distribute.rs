//! Plain tables with rows become distributed ones while they are used.
//!
//! They are registered as they are: distributed, in a colocation group of their own whose whole hash
//! space is the home shard's. Nothing moves by that, so nobody is held up. Then the group is moved
//! like any other, and in the end its tables join the group that they are to be colocated with.

use pgherd_shard_map::{
    ColocationGroup, GroupId, Placement, RangeMap, ShardId, ShardMap, TableName, store,
};
use postgres_protocol::escape::escape_literal;
use tokio_postgres::Client;

use super::Problem;
use super::proposal::toward;
use pgherd_shard_map::store::Move;

/// What is to be distributed, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// With their distribution columns. One group of them all.
    pub tables: Vec<(TableName, String)>,
    /// A table whose group they join. Without it: the one that others join which name none.
    pub with: Option<TableName>,
    /// The shards that get rows; all of them where it is empty.
    pub over: Vec<ShardId>,
}

/// Tables that are registered, and what is left to do.
#[derive(Debug, Clone)]
pub struct Registered {
    pub map: ShardMap,
    pub group: GroupId,
    /// The group that they join when all is done.
    pub joins: Option<GroupId>,
    /// None where the rows are where they belong already.
    pub moves: Vec<Move>,
}

impl Wanted {
    /// SQL that registers the tables, and gives their group.
    #[must_use]
    pub fn register_sql(&self) -> String {
        let list = |items: Vec<String>| items.join(", ");
        let tables = self.tables.iter().map(|(table, _)| escape_literal(&table.quoted()));
        let columns = self.tables.iter().map(|(_, column)| escape_literal(column));
        format!(
            "SELECT pgherd.register_at_home(ARRAY[{}]::pg_catalog.regclass[], ARRAY[{}]::text[])",
            list(tables.collect()),
            list(columns.collect())
        )
    }

    /// Registers the tables. Can be done again.
    ///
    /// # Errors
    /// What keeps them from being distributed.
    pub async fn register(&self, catalog: &Client) -> Result<Registered, Problem> {
        self.within(catalog, "COMMIT").await
    }

    /// What it would be like: all is undone again.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn look(&self, catalog: &Client) -> Result<Registered, Problem> {
        self.within(catalog, "ROLLBACK").await
    }

    async fn within(&self, catalog: &Client, end: &str) -> Result<Registered, Problem> {
        catalog.batch_execute("BEGIN").await?;
        let registered = async {
            let group: i32 = catalog.query_one(&self.register_sql(), &[]).await?.get(0);
            self.registered(catalog, GroupId(group.cast_unsigned())).await
        };
        match registered.await {
            Ok(registered) => {
                catalog.batch_execute(end).await?;
                Ok(registered)
            }
            Err(problem) => {
                catalog.batch_execute("ROLLBACK").await?;
                Err(problem)
            }
        }
    }

    /// What is left to do for a group that is registered.
    ///
    /// # Errors
    /// The table to be colocated with is none of that kind; PostgreSQL's.
    pub async fn registered(
        &self,
        catalog: &Client,
        group: GroupId,
    ) -> Result<Registered, Problem> {
        let text: String = catalog.query_one(store::LOAD_SQL, &[]).await?.get(0);
        let map = ShardMap::from_json(&text).map_err(|error| error.to_string())?;
        let own = map.group(group).ok_or_else(|| format!("colocation group {group} is gone"))?;
        let joins = match &self.with {
            Some(table) => Some(colocated(&map, own, table)?),
            None if self.over.is_empty() => {
                let sql = "SELECT pgherd.default_group(key_type) FROM pgherd.group_list \
                           WHERE id = $1";
                let id: Option<i32> =
                    catalog.query_one(sql, &[&group.0.cast_signed()]).await?.get(0);
                id.map(|id| GroupId(id.cast_unsigned()))
            }
            None => None,
        };
        let joins = joins.filter(|other| *other != group);
        let target = match joins.and_then(|other| map.group(other)).map(|other| &other.placement) {
            Some(Placement::Hash(ranges)) => ranges.clone(),
            _ => {
                let all = || map.shards().map(|shard| shard.id).collect();
                let over = if self.over.is_empty() { all() } else { self.over.clone() };
                RangeMap::even(&over).map_err(|error| error.to_string())?
            }
        };
        let moves = toward(own, &target);
        Ok(Registered { group, joins, moves, map })
    }
}

impl Registered {
    /// Where nothing has to move, the tables join their group at once.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn join(&self, catalog: &Client) -> Result<(), Problem> {
        if let Some(other) = self.joins {
            let sql = "SELECT pgherd.bump_epoch(), pgherd.join_groups($1, $2), \
                       pg_catalog.pg_notify('pgherd_epoch', '')";
            let ids = [self.group.0.cast_signed(), other.0.cast_signed()];
            catalog.query_one(sql, &[&ids[0], &ids[1]]).await?;
        }
        Ok(())
    }
}

/// The group of a table, if rows of another group can be colocated with its rows.
fn colocated(map: &ShardMap, own: &ColocationGroup, table: &TableName) -> Result<GroupId, Problem> {
    let group = map.group_of(table).ok_or_else(|| {
        Problem::new(
            format!("table {table} is not distributed"),
            "pgherd.tables lists those that are.",
        )
    })?;
    if !matches!(group.placement, Placement::Hash(_)) || group.key_type != own.key_type {
        return Err(Problem::new(
            format!("the tables cannot be colocated with {table}"),
            "It must be distributed by hash, by a column of the same type.",
        ));
    }
    Ok(group.id)
}
