//! The catalog: a schema `pgherd` in the home shard's database.
//!
//! Base tables hold what cannot be derived (shards, groups, placements, which table has which key);
//! everything else (columns, views, partitions) is read from PostgreSQL's own catalog at load, so
//! it cannot disagree with it. Every change raises `pgherd.cluster.epoch` in its own transaction:
//! that row is the lock and the compare-and-swap. Changes inside a client's transaction (DDL,
//! `create_distributed_table`) take the lock; an operator's change names the epoch that it was
//! made for, and is refused with [`StoreError::StaleEpoch`] if another came first.
//!
//! Addresses of shards carry no password, since every session may read them: users log in to the
//! shards as themselves, and routers with the catalog's own login.

mod error;
mod reshard;
mod sessions;
mod watch;

use std::future::Future;
use std::time::Duration;

use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, NoTls, Socket};

use crate::{Epoch, GroupId, HashRange, MapError, ShardId, ShardMap};
pub use error::StoreError;
pub use reshard::{Move, MovedTable, Record};
pub use sessions::enter_sql;
pub use watch::{Contact, watch};

/// What every shard needs: the markers of two-phase commit, and who it is.
const SHARD_SQL: &str = include_str!("store/shard.sql");

/// What the catalog's database needs beside.
const CATALOG_SQL: [&str; 13] = [
    include_str!("store/catalog.sql"),
    include_str!("store/reshard.sql"),
    include_str!("store/register.sql"),
    include_str!("store/families.sql"),
    include_str!("store/invariants.sql"),
    include_str!("store/changes.sql"),
    include_str!("store/unfinished.sql"),
    include_str!("store/placement.sql"),
    include_str!("store/numbers.sql"),
    include_str!("store/functions.sql"),
    include_str!("store/sessions.sql"),
    include_str!("store/triggers.sql"),
    include_str!("store/load.sql"),
];

/// One row, one text column: the whole map as JSON, for [`ShardMap::from_json`].
pub const LOAD_SQL: &str = "SELECT map FROM pgherd.shard_map() AS map";

/// The part of it that a change of owners changes, for [`ShardMap::placed_anew`].
const PLACEMENT_SQL: &str = "SELECT placement FROM pgherd.shard_placement() AS placement";

/// Tells other routers at once; polling finds the change without it. Not part of the functions
/// that change the catalog inside a client's transaction: PREPARE TRANSACTION refuses transactions
/// that notified.
pub const NOTIFY_SQL: &str = "NOTIFY pgherd_epoch";

/// What a connection to the catalog, and each of its statements, may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const STATEMENT_MAX: Duration = Duration::from_secs(30);

/// Whoever creates the schema at the same time waits. The number only has to be nobody else's.
const INIT_LOCK_SQL: &str = "SELECT pg_catalog.pg_advisory_xact_lock(7307218114352343401)";

/// Who a shard's server says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The cluster's name.
    pub cluster: String,
    pub shard: ShardId,
    /// Only a map at least this new may be used with the server.
    pub epoch: Epoch,
}

/// Where the catalog is, and how the way there is encrypted.
#[derive(Debug, Clone)]
pub struct Target<T> {
    pub config: Config,
    pub tls: T,
}

/// A statement that runs on each shard by itself, and has not run on all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    pub sql: String,
    pub done: Vec<ShardId>,
    pub by: String,
    pub began: String,
}

/// A connection to the catalog.
#[derive(Debug)]
pub struct Catalog {
    client: Client,
}

/// Creates what every shard needs, and notes who it is. Can be run again, also with another
/// number: adding it may have failed the first time. [`Catalog::prepare_shard`] chooses the number.
///
/// # Errors
/// [`StoreError::OtherCluster`] when the database belongs to another cluster;
/// [`StoreError::Encoding`]; PostgreSQL's.
pub async fn init_shard(client: &Client, cluster: &str, shard: ShardId) -> Result<(), StoreError> {
    let encoding: String = bounded(client.query_one("SHOW server_encoding", &[])).await?.get(0);
    // SQL_ASCII converts nothing: it stores what it gets.
    if !matches!(&*encoding, "UTF8" | "SQL_ASCII") {
        return Err(StoreError::Encoding(encoding));
    }
    create(client, SHARD_SQL).await?;
    let sql = "INSERT INTO pgherd.local (cluster, shard, epoch) VALUES ($1, $2, 0) \
               ON CONFLICT (only_one) DO UPDATE SET shard = excluded.shard \
               WHERE local.cluster = excluded.cluster";
    if bounded(client.execute(sql, &[&cluster, &signed(shard)])).await? == 1 {
        return Ok(());
    }
    let found = read_local(client).await?.map(|local| local.cluster).unwrap_or_default();
    Err(StoreError::OtherCluster { found, expected: cluster.to_owned() })
}

/// Who the server is; `None` before [`init_shard`].
///
/// # Errors
/// PostgreSQL's.
pub async fn read_local(client: &Client) -> Result<Option<Local>, StoreError> {
    let sql = "SELECT cluster, shard, epoch FROM pgherd.local";
    let row = match bounded(client.query_opt(sql, &[])).await {
        Err(StoreError::NotInitialized) => return Ok(None),
        row => row?,
    };
    Ok(row.map(|row| Local {
        cluster: row.get(0),
        shard: ShardId(row.get::<_, i32>(1) as u32),
        epoch: Epoch(row.get::<_, i64>(2) as u64),
    }))
}

/// Raises the epoch that a shard is at, never lowers it: routers with an older map cannot open
/// connections to it any more.
///
/// # Errors
/// [`StoreError::NotInitialized`], or PostgreSQL's.
pub async fn raise_local_epoch(client: &Client, epoch: Epoch) -> Result<(), StoreError> {
    let sql = "UPDATE pgherd.local SET epoch = greatest(epoch, $1)";
    match bounded(client.execute(sql, &[&(epoch.0 as i64)])).await? {
        1 => Ok(()),
        _ => Err(StoreError::NotInitialized),
    }
}

/// Makes this database the catalog and the home shard, number 0. Can be run again, with another
/// address too.
///
/// # Errors
/// As [`init_shard`]; [`StoreError::KnownShard`] when the database is another shard of this
/// cluster.
pub async fn init_catalog(client: &Client, name: &str, dsn: &str) -> Result<(), StoreError> {
    let home = ShardId(0);
    if let Some(local) = read_local(client).await?
        && local.cluster == name
        && local.shard != home
    {
        return Err(StoreError::KnownShard(local.shard));
    }
    init_shard(client, name, home).await?;
    create(client, &CATALOG_SQL.concat()).await?;
    let sql = "INSERT INTO pgherd.cluster (name, epoch, home) VALUES ($1, $2, 0) \
               ON CONFLICT DO NOTHING";
    bounded(client.execute(sql, &[&name, &(Epoch::FIRST.0 as i64)])).await?;
    let sql = "INSERT INTO pgherd.shard_list (id, dsn) VALUES (0, $1) ON CONFLICT DO NOTHING";
    bounded(client.execute(sql, &[&dsn])).await?;
    let sql = "WITH moved AS (UPDATE pgherd.shard_list SET dsn = $1 WHERE id = 0 AND dsn <> $1 \
               RETURNING 1) SELECT pgherd.bump_epoch() FROM moved";
    bounded(client.execute(sql, &[&dsn])).await?;
    Ok(())
}

impl Target<NoTls> {
    /// A server on this machine, or behind a tunnel.
    ///
    /// # Errors
    /// Not a database URL.
    pub fn plain(dsn: &str) -> Result<Self, StoreError> {
        Ok(Self { config: dsn.parse()?, tls: NoTls })
    }
}

impl Catalog {
    /// # Errors
    /// PostgreSQL's, or [`StoreError::Timeout`].
    pub async fn connect<T>(target: Target<T>) -> Result<Self, StoreError>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let (client, connection) = open(target).await?;
        tokio::spawn(async move {
            // Its end is seen by whoever uses the client.
            drop(connection.await);
        });
        Ok(Self { client })
    }

    /// # Errors
    /// [`StoreError::NotInitialized`], [`StoreError::OldCatalog`]; PostgreSQL's; a catalog that
    /// contradicts itself.
    pub async fn load(&self) -> Result<ShardMap, StoreError> {
        load(&self.client).await
    }

    /// The epoch alone: much cheaper than the map.
    ///
    /// # Errors
    /// [`StoreError::NotInitialized`]; PostgreSQL's.
    pub async fn epoch(&self) -> Result<Epoch, StoreError> {
        epoch(&self.client).await
    }

    /// Statements that run on each shard by themselves, have not run on all, and are not running now;
    /// none in a catalog of a version that does not note them.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError> {
        let sql = "SELECT statement, done, by, \
                   pg_catalog.to_char(began AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS \"UTC\"') \
                   FROM pgherd.unfinished u WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_locks l \
                     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
                       AND (l.classid::int8 << 32 | l.objid::int8) = \
                         pg_catalog.hashtextextended('pgherd.unfinished ' || u.id, 0)) \
                   ORDER BY began";
        let rows = match bounded(self.client.query(sql, &[])).await {
            Err(StoreError::NotInitialized) => return Ok(Vec::new()),
            rows => rows?,
        };
        let shards = |list: Vec<i32>| list.into_iter().map(|id| ShardId(id as u32)).collect();
        let read = |row: &tokio_postgres::Row| Unfinished {
            sql: row.get(0),
            done: shards(row.get(1)),
            by: row.get(2),
            began: row.get(3),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Makes a server ready to be the next shard: to be called before [`Catalog::add_shard`].
    ///
    /// # Errors
    /// As [`init_shard`]. [`StoreError::KnownShard`] when the server is a shard already, under
    /// whatever address; also when it was prepared once, not added, and its number has gone to
    /// another server meanwhile: then dropping the schema `pgherd` on it helps.
    pub async fn prepare_shard(&self, server: &Client) -> Result<ShardId, StoreError> {
        let sql = "SELECT name, greatest(next_shard, (SELECT max(id) + 1 FROM pgherd.shard_list)), \
                   ARRAY(SELECT id FROM pgherd.shard_list) FROM pgherd.cluster";
        let row = bounded(self.client.query_opt(sql, &[])).await?;
        let row = row.ok_or(StoreError::NotInitialized)?;
        let (cluster, next, known): (String, i32, Vec<i32>) = (row.get(0), row.get(1), row.get(2));
        if let Some(local) = read_local(server).await?
            && local.cluster == cluster
            && known.contains(&signed(local.shard))
        {
            return Err(StoreError::KnownShard(local.shard));
        }
        let next = ShardId(next as u32);
        init_shard(server, &cluster, next).await?;
        Ok(next)
    }

    /// # Errors
    /// PostgreSQL's.
    pub async fn announce(&self) -> Result<(), StoreError> {
        bounded(self.client.batch_execute(NOTIFY_SQL)).await
    }

    /// Adds a shard, prepared with [`init_shard`] before, if the catalog still is at `expected`.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`] when somebody else changed the catalog meanwhile,
    /// [`StoreError::KnownShard`] when the address is there already,
    /// [`StoreError::PasswordInAddress`].
    pub async fn add_shard(
        &self,
        dsn: &str,
        expected: Epoch,
    ) -> Result<(ShardId, Epoch), StoreError> {
        let sql = "SELECT id, epoch FROM pgherd.add_shard($1, $2)";
        let row = bounded(self.client.query_one(sql, &[&dsn, &(expected.0 as i64)])).await;
        let row = row.map_err(|error| error.expecting(expected))?;
        Ok((ShardId(row.get::<_, i32>(0) as u32), Epoch(row.get::<_, i64>(1) as u64)))
    }

    /// Gives a shard another address (a restart on another port).
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], [`StoreError::PasswordInAddress`]; [`MapError::UnknownShard`].
    pub async fn set_dsn(
        &self,
        shard: ShardId,
        dsn: &str,
        expected: Epoch,
    ) -> Result<Epoch, StoreError> {
        let sql = "SELECT pgherd.set_dsn($1, $2, $3)";
        self.change(sql, &[&signed(shard), &dsn, &(expected.0 as i64)], expected, shard).await
    }

    /// Takes a shard out of the cluster that no range or value names any more.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`]; [`MapError::UnknownShard`]; PostgreSQL's 23503 while something
    /// names it.
    pub async fn remove_shard(&self, shard: ShardId, expected: Epoch) -> Result<Epoch, StoreError> {
        let sql = "SELECT pgherd.remove_shard($1, $2)";
        self.change(sql, &[&signed(shard), &(expected.0 as i64)], expected, shard).await
    }

    /// Gives a part of the hash space to a shard: the moment in which rows that were copied before
    /// change owners.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`]; [`MapError::UnknownShard`]; PostgreSQL's 42704 for a group that
    /// is not distributed by hash.
    pub async fn move_hash_range(
        &self,
        group: GroupId,
        range: HashRange,
        to: ShardId,
        expected: Epoch,
    ) -> Result<Epoch, StoreError> {
        let sql = "SELECT pgherd.move_hash_range($1, $2, $3, $4, $5)";
        let end = range.end.map(|end| end.0);
        let (group, shard, epoch) = (group.0 as i32, signed(to), expected.0 as i64);
        self.change(sql, &[&group, &range.start.0, &end, &shard, &epoch], expected, to).await
    }

    async fn change(
        &self,
        sql: &str,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
        expected: Epoch,
        shard: ShardId,
    ) -> Result<Epoch, StoreError> {
        match bounded(self.client.query_one(sql, params)).await {
            Ok(row) => Ok(Epoch(row.get::<_, i64>(0) as u64)),
            Err(error) if error.names_unknown_shard() => Err(MapError::UnknownShard(shard).into()),
            Err(error) => Err(error.expecting(expected)),
        }
    }
}

/// Statements of one simple query are one transaction, which an error undoes.
async fn create(client: &Client, sql: &str) -> Result<(), StoreError> {
    bounded(client.batch_execute(&format!("{INIT_LOCK_SQL};\n{sql}"))).await
}

async fn load(client: &Client) -> Result<ShardMap, StoreError> {
    let row = match bounded(client.query_opt(LOAD_SQL, &[])).await {
        Err(StoreError::NotInitialized) if has_cluster(client).await? => {
            return Err(StoreError::OldCatalog);
        }
        row => row?,
    };
    match ShardMap::from_json(row.ok_or(StoreError::NotInitialized)?.get(0)) {
        Err(MapError::Invalid(why)) if why.starts_with("missing field") => {
            Err(StoreError::OldCatalog)
        }
        map => Ok(map?),
    }
}

/// The newest map, as far as it can be made of one that is at hand.
async fn load_placement(client: &Client, map: &ShardMap) -> Result<Option<ShardMap>, StoreError> {
    let row = bounded(client.query_opt(PLACEMENT_SQL, &[])).await?;
    Ok(map.placed_anew(row.ok_or(StoreError::NotInitialized)?.get(0))?)
}

async fn has_cluster(client: &Client) -> Result<bool, StoreError> {
    let sql = "SELECT pg_catalog.to_regclass('pgherd.cluster') IS NOT NULL";
    Ok(bounded(client.query_one(sql, &[])).await?.get(0))
}

async fn epoch(client: &Client) -> Result<Epoch, StoreError> {
    let row = bounded(client.query_opt("SELECT epoch FROM pgherd.cluster", &[])).await?;
    Ok(Epoch(row.ok_or(StoreError::NotInitialized)?.get::<_, i64>(0) as u64))
}

async fn open<T>(target: Target<T>) -> Result<(Client, Connection<Socket, T::Stream>), StoreError>
where
    T: MakeTlsConnect<Socket>,
{
    let Target { mut config, tls } = target;
    let limit = config.get_connect_timeout().copied().unwrap_or(CONNECT_MAX);
    config.connect_timeout(limit);
    if config.get_application_name().is_none() {
        config.application_name("pgherd");
    }
    // The configuration's timeout is for the TCP connection to one host; a server that accepts and
    // then says nothing is as bad.
    let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(u32::MAX);
    let limit = limit.saturating_mul(hosts.saturating_add(1));
    match tokio::time::timeout(limit, config.connect(tls)).await {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(StoreError::Timeout),
    }
}

async fn bounded<T>(
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(STATEMENT_MAX, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(StoreError::Timeout),
    }
}

const fn signed(shard: ShardId) -> i32 {
    shard.0 as i32
}
