//! A new shard gets what every shard has: roles, the schema, the rows of reference tables. It
//! serves no rows of distributed tables yet; `pgherd reshard` gives it some.
//!
//! Reference tables are locked on the home shard while they are copied and until every router knows
//! of the new shard: each write to one goes to the home shard, too, so none is missed. Writers that
//! waited meanwhile would not have written on the new shard: their sessions are ended.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt, TryStreamExt};
use pgherd_shard_map::{Epoch, RelationKind, ShardId, ShardMap, TableKind, store};
use tokio::process::Command;
use tokio_postgres::Client;

use crate::cli::Failure;
use crate::cli::catalog::database_error;
use crate::config::Dsn;
use crate::dev::find_binaries;

/// How long routers are given to take the new map while writers of reference tables wait.
const ROUTERS_WAIT: Duration = Duration::from_secs(3);

/// Roles as they are on the home shard, then the schema.
pub(super) async fn copy_schema(home: &Dsn, shard: &Client) -> Result<(), Failure> {
    let roles = dump("pg_dumpall", home, &["--roles-only", "--no-comments"]).await?;
    for line in roles.lines().filter(|line| line.ends_with(';')) {
        if let Err(error) = shard.batch_execute(line).await
            // It has the role already, as every server has its superuser.
            && error.code().is_none_or(|code| code.code() != "42710")
        {
            return Err(database_error(&error));
        }
    }
    let options =
        ["--schema-only", "--exclude-schema=pgherd", "--no-publications", "--no-subscriptions"];
    let schema = dump("pg_dump", home, &options).await?;
    // Commands of psql, which newer versions put around a dump.
    let is_ours =
        |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    let schema: Vec<&str> = schema.lines().filter(is_ours).collect();
    let sql = format!("BEGIN;\n{}\n;COMMIT; RESET ALL", schema.join("\n"));
    shard.batch_execute(&sql).await.map_err(|error| database_error(&error))
}

/// Runs one of PostgreSQL's own programs on the home shard.
async fn dump(program: &str, home: &Dsn, options: &[&str]) -> Result<String, Failure> {
    let path = find_binaries().map_or_else(|_| PathBuf::from(program), |dir| dir.join(program));
    let config: tokio_postgres::Config =
        home.as_str().parse().map_err(|error| format!("the catalog's URL: {error}"))?;
    let mut command = Command::new(path);
    command.args(options).arg("-d").arg(home.to_string());
    if let Some(password) = config.get_password() {
        // Not among the arguments, which everybody may see.
        command.env("PGPASSWORD", String::from_utf8_lossy(password).into_owned());
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| {
        Failure::new(
            format!("{program} cannot be run: {error}"),
            "It comes with PostgreSQL's client programs; PG_BIN names their directory.",
        )
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(
            format!("{program} failed: {}", said.lines().last().unwrap_or_default()),
            "It must be at least as new as the servers.",
        ));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{program} did not give UTF-8").into())
}

/// Fills reference tables and adds the shard, in one step for their writers. Of two connections to
/// the home shard one holds the locks.
pub(super) async fn add_with_references(
    catalog: &store::Catalog,
    map: &ShardMap,
    [home, beside]: &[Client; 2],
    shard: &Client,
    address: &str,
) -> Result<(ShardId, Epoch), Failure> {
    let tables: Vec<String> = map
        .relations()
        .filter(|(_, kind)| {
            matches!(kind, RelationKind::Sharded(table) if table.kind == TableKind::Reference)
        })
        .map(|(name, _)| name.quoted())
        .collect();
    let failed = |error: tokio_postgres::Error| database_error(&error);
    home.batch_execute("BEGIN; SET LOCAL lock_timeout = '5s'").await.map_err(failed)?;
    let result = async {
        if !tables.is_empty() {
            let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", tables.join(", "));
            home.batch_execute(&lock).await.map_err(|error| {
                Failure::new(
                    database_error(&error).problem,
                    "Reference tables are locked for a moment; a transaction that writes them is \
                     in the way. Run it again.",
                )
            })?;
        }
        for table in &tables {
            copy(home, shard, table).await?;
        }
        let added = catalog.add_shard(address, map.epoch).await;
        let (id, epoch) = added.map_err(|error| match error {
            store::StoreError::StaleEpoch { .. } => Failure::new(
                "the schema was changed meanwhile",
                "Drop and create the new database, and run it again.",
            ),
            error => error.to_string().into(),
        })?;
        settle(catalog, [home, beside], epoch).await?;
        store::raise_local_epoch(shard, epoch).await.map_err(|error| error.to_string())?;
        Ok((id, epoch))
    };
    let result = result.await;
    home.batch_execute("COMMIT").await.map_err(failed)?;
    result
}

/// Until every router knows of the shard; what waits for the lock does not.
async fn settle(
    catalog: &store::Catalog,
    [home, beside]: [&Client; 2],
    epoch: Epoch,
) -> Result<(), Failure> {
    // Nor does a router that has not heard of it go on here.
    let settled = catalog.settle(&[beside], epoch, ROUTERS_WAIT).await;
    settled.map_err(|error| error.to_string())?;
    let waiting = "SELECT pg_catalog.pg_terminate_backend(w.pid) FROM pg_catalog.pg_locks w \
        WHERE NOT w.granted AND pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(w.pid))";
    home.execute(waiting, &[]).await.map_err(|error| database_error(&error))?;
    Ok(())
}

/// The rows of one table, in text: the servers' OIDs differ. Generated columns make themselves.
async fn copy(home: &Client, shard: &Client, table: &str) -> Result<(), Failure> {
    let failed = |error: tokio_postgres::Error| database_error(&error);
    let sql = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) \
        FROM pg_catalog.pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 \
        AND NOT attisdropped AND attgenerated = ''";
    let columns: Option<String> = home.query_one(sql, &[&table]).await.map_err(failed)?.get(0);
    let columns = columns.unwrap_or_default();
    let rows = home.copy_out(&format!("COPY {table} ({columns}) TO STDOUT")).await;
    let mut rows = Box::pin(rows.map_err(failed)?);
    shard.batch_execute("SET session_replication_role = replica").await.map_err(failed)?;
    let into = shard.copy_in(&format!("COPY {table} ({columns}) FROM STDIN")).await;
    let mut into = Box::pin(into.map_err(failed)?);
    while let Some(piece) = rows.try_next().await.map_err(failed)? {
        into.send(piece).await.map_err(failed)?;
    }
    into.as_mut().finish().await.map_err(failed)?;
    shard.batch_execute("RESET session_replication_role").await.map_err(failed)
}
