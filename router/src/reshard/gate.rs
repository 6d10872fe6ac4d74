//! The gate: whoever writes a moving row passes it, and it can be closed.
//!
//! A writer takes a shared advisory lock until its transaction ends, prepared ones included, and
//! looks at a sequence. [`Lock::take`] waits for those under way and holds up new ones, of the
//! moving rows and no others. A sequence has one value for every snapshot, REPEATABLE READ included,
//! and is as durable as the transaction that sets it; so a closed gate stays closed if whoever
//! closed it dies, and its lock goes with the connection.
//!
//! The triggers do not fire for logical replication.

use std::time::Duration;

use pgherd_shard_map::store::MovedTable;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::Client;

use super::stream::Stream;
use super::{GATE, Problem};

/// The first half of the locks' keys; the second is the sequence's oid.
/// (1885825124, as `executor/kept.rs` leaves it out.)
const LOCK_CLASS: i32 = 0x7067_6864;

/// How long making a trigger may hold up a table's writers at a time, and how often it is tried.
const DDL_WAIT: &str = "250ms";
const DDL_TRIES: u32 = 240;

/// Whether writers may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Closed,
}

impl Gate {
    const fn value(self) -> i64 {
        match self {
            Self::Open => 1,
            Self::Closed => 2,
        }
    }
}

/// Makes the gate on the stream's source, if it is not there; one that is stays as it is.
pub(super) async fn make(client: &Client, stream: &Stream, gate: Gate) -> Result<(), Problem> {
    let Stream { name, .. } = stream;
    let sequence = stream.gate();
    if !is_there(client, stream).await? {
        let sql = format!(
            "CREATE SEQUENCE {sequence} START {}; GRANT SELECT ON {sequence} TO PUBLIC;",
            gate.value()
        );
        client.batch_execute(&sql).await?;
    }
    let lock = lock_key(client, stream).await?;
    let functions = format!(
        "CREATE OR REPLACE FUNCTION pgherd.{name}_pass() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared({lock});
    IF (SELECT last_value FROM {sequence}) <> 1 THEN
        RAISE EXCEPTION 'rows of table \"%\" have moved to another shard', TG_TABLE_NAME
            USING ERRCODE = '40001', CONSTRAINT = '{GATE}',
            HINT = 'Run the transaction again.';
    END IF;
    RETURN coalesce(NEW, OLD);
END $$;
CREATE OR REPLACE FUNCTION pgherd.{name}_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'cannot truncate table \"%\" while its rows are being moved', TG_TABLE_NAME
        USING ERRCODE = '55006', HINT = 'DELETE removes rows meanwhile.';
END $$;"
    );
    client.batch_execute(&functions).await?;
    for table in &stream.tables {
        // What is there needs no lock, which whoever has written to the table might keep for long.
        let sql = "SELECT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = $1::text::regclass \
                   AND tgname = $2::text::name)";
        let last = format!("_{name}_t");
        if client.query_one(sql, &[&table.quoted(), &last]).await?.get(0) {
            continue;
        }
        let (old, new) = (table.predicate("OLD.")?, table.predicate("NEW.")?);
        let target = table.quoted();
        let call = format!("FOR EACH ROW WHEN (%) EXECUTE FUNCTION pgherd.{name}_pass()");
        let row = |event: &str, letter: char, when: &str| {
            format!(
                "CREATE OR REPLACE TRIGGER _{name}_{letter} BEFORE {event} ON {target} {};",
                call.replace('%', when)
            )
        };
        let mut keep = String::new();
        for part in family(client, &target).await? {
            keep += &format!(
                "CREATE OR REPLACE TRIGGER _{name}_t BEFORE TRUNCATE ON {part} \
                 FOR EACH STATEMENT EXECUTE FUNCTION pgherd.{name}_keep();"
            );
        }
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = '{DDL_WAIT}'; {}{}{}{keep} COMMIT",
            row("INSERT", 'i', &new),
            row("UPDATE", 'u', &format!("{old} OR {new}")),
            row("DELETE", 'd', &old),
        );
        patiently(client, &sql).await?;
    }
    guard_schema(client, stream).await
}

/// A table and its partitions: triggers of statements are each one's own.
async fn family(client: &Client, table: &str) -> Result<Vec<String>, Problem> {
    let sql = "SELECT relid::regclass::text FROM pg_partition_tree($1::text::regclass) \
               WHERE relid <> $1::text::regclass";
    let mut family = vec![table.to_owned()];
    family.extend(client.query(sql, &[&table]).await?.iter().map(|row| row.get::<_, String>(0)));
    Ok(family)
}

/// Refuses changes of the moving tables' form, which the other side would not follow.
async fn guard_schema(client: &Client, stream: &Stream) -> Result<(), Problem> {
    let name = &stream.name;
    let tables: Vec<String> =
        stream.tables.iter().map(|table| escape_literal(&table.quoted())).collect();
    let tables = tables.join(", ");
    let pair = |table: &MovedTable| {
        format!("({}, {})", escape_literal(&table.schema), escape_literal(&table.name))
    };
    let pairs: Vec<String> = stream.tables.iter().map(|table| pair(&table.table)).collect();
    let pairs = pairs.join(", ");
    let sql = format!(
        "CREATE OR REPLACE FUNCTION pgherd.{name}_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    found text;
BEGIN
    IF pg_catalog.current_setting('pgherd.mover', true) = 'on' THEN
        RETURN;
    END IF;
    SELECT c.object_identity INTO found FROM pg_catalog.pg_event_trigger_ddl_commands() c
        WHERE c.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND c.command_tag <> 'CREATE INDEX'
        AND c.objid = ANY (ARRAY[{tables}]::pg_catalog.regclass[]::pg_catalog.oid[]) LIMIT 1;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'cannot change table % while its rows are being moved', found
            USING ERRCODE = '55006',
            HINT = 'Finish or cancel first: pgherd reshard status.';
    END IF;
END $$;
CREATE OR REPLACE FUNCTION pgherd.{name}_drop() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    found text;
BEGIN
    IF pg_catalog.current_setting('pgherd.mover', true) = 'on' THEN
        RETURN;
    END IF;
    SELECT o.object_identity INTO found FROM pg_catalog.pg_event_trigger_dropped_objects() o
        WHERE (o.object_type = 'trigger' AND o.object_identity LIKE '\\_{name}\\_%')
        OR (o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND (o.schema_name, o.object_name) IN ({pairs})) LIMIT 1;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'cannot drop % while rows are being moved', found
            USING ERRCODE = '55006',
            HINT = 'Finish or cancel first: pgherd reshard status.';
    END IF;
END $$;
DROP EVENT TRIGGER IF EXISTS {name}_ddl;
CREATE EVENT TRIGGER {name}_ddl ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
    EXECUTE FUNCTION pgherd.{name}_ddl();
DROP EVENT TRIGGER IF EXISTS {name}_drop;
CREATE EVENT TRIGGER {name}_drop ON sql_drop EXECUTE FUNCTION pgherd.{name}_drop();"
    );
    Ok(client.batch_execute(&sql).await?)
}

pub(super) async fn is_there(client: &Client, stream: &Stream) -> Result<bool, Problem> {
    let sql = "SELECT to_regclass($1) IS NOT NULL";
    Ok(client.query_one(sql, &[&stream.gate()]).await?.get(0))
}

pub(super) async fn is_closed(client: &Client, stream: &Stream) -> Result<bool, Problem> {
    if !is_there(client, stream).await? {
        return Ok(false);
    }
    let sql = format!("SELECT last_value FROM {}", stream.gate());
    Ok(client.query_one(&sql, &[]).await?.get::<_, i64>(0) == Gate::Closed.value())
}

/// Opens or closes the gate: at once for whoever looks after, whatever its snapshot.
pub(super) async fn set(client: &Client, stream: &Stream, gate: Gate) -> Result<(), Problem> {
    Ok(client.batch_execute(&set_sql(stream, gate)).await?)
}

/// SQL for the same.
pub(super) fn set_sql(stream: &Stream, gate: Gate) -> String {
    format!("SELECT setval('{}', {})", stream.gate(), gate.value())
}

/// Takes the gate away, if it is there.
pub(super) async fn remove(client: &Client, stream: &Stream) -> Result<(), Problem> {
    let name = &stream.name;
    client
        .batch_execute(&format!(
            "DROP EVENT TRIGGER IF EXISTS {name}_ddl; DROP EVENT TRIGGER IF EXISTS {name}_drop;"
        ))
        .await?;
    for table in &stream.tables {
        let target = table.quoted();
        let mut drops = ['i', 'u', 'd']
            .map(|letter| format!("DROP TRIGGER IF EXISTS _{name}_{letter} ON {target};"))
            .concat();
        for part in family(client, &target).await? {
            drops += &format!("DROP TRIGGER IF EXISTS _{name}_t ON {part};");
        }
        let sql = format!("BEGIN; SET LOCAL lock_timeout = '{DDL_WAIT}'; {drops} COMMIT");
        patiently(client, &sql).await?;
    }
    let functions = ["pass", "keep", "ddl", "drop"]
        .map(|part| format!("DROP FUNCTION IF EXISTS pgherd.{name}_{part}();"))
        .concat();
    let sql = format!("{functions} DROP SEQUENCE IF EXISTS {};", stream.gate());
    Ok(client.batch_execute(&sql).await?)
}

/// The gate's lock, held alone.
#[derive(Debug)]
pub(super) struct Lock {
    client: Client,
}

impl Lock {
    /// Waits for writers under way, no longer than `wait`; new ones wait behind. If the connection
    /// is lost, or whoever holds it falls silent for longer than `silence`, the lock is free again.
    /// Cancelled, it may have been taken.
    pub(super) async fn take(
        client: Client,
        stream: &Stream,
        wait: Duration,
        silence: Duration,
    ) -> Result<Self, Problem> {
        let lock = lock_key(&client, stream).await?;
        let sql = format!(
            "SET lock_timeout = {}; SET idle_session_timeout = {}; \
             SELECT pg_advisory_lock({lock})",
            wait.as_millis().max(1),
            silence.as_millis(),
        );
        match client.batch_execute(&sql).await {
            Ok(()) => Ok(Self { client }),
            Err(error) if error.code().is_some_and(|code| code.code() == "55P03") => {
                Err(Problem::new(
                    format!(
                        "transactions that write moving rows of shard {} did not end in time",
                        stream.source
                    ),
                    "Nothing has moved. Try again, with a longer --max-pause, or end them.",
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The connection that holds it.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Lets the writers that waited look at the gate.
    pub(super) async fn release(self) -> Result<(), Problem> {
        Ok(self.client.batch_execute("SELECT pg_advisory_unlock_all()").await?)
    }
}

/// Ends the sessions that keep the gate's lock from being taken: how many. Transactions that are
/// prepared already have none.
pub(super) async fn end_writers(client: &Client, stream: &Stream) -> Result<i64, Problem> {
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' \
        AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
        AND (classid, objid, objsubid) = ($1, $2::text::regclass, 2) AND mode = 'ShareLock'";
    let class = LOCK_CLASS.cast_unsigned();
    Ok(client.query_one(sql, &[&class, &stream.gate()]).await?.get(0))
}

/// The lock's key, as SQL: a class of our own, and the sequence's oid.
async fn lock_key(client: &Client, stream: &Stream) -> Result<String, Problem> {
    let sql = "SELECT $1::text::regclass::oid";
    let oid: u32 = client.query_one(sql, &[&stream.gate()]).await?.get(0);
    Ok(format!("{LOCK_CLASS}, {}", oid.cast_signed()))
}

/// Runs DDL that asks for its lock for a moment at a time, so that nobody waits behind it for long.
pub(super) async fn patiently(client: &Client, sql: &str) -> Result<(), Problem> {
    let mut tries = 0;
    loop {
        let Err(error) = client.batch_execute(sql).await else { return Ok(()) };
        client.batch_execute("ROLLBACK").await?;
        tries += 1;
        if error.code().is_none_or(|code| code.code() != "55P03") {
            return Err(error.into());
        }
        if tries == DDL_TRIES {
            return Err(Problem::new(
                "a moving table is held by a transaction that does not end",
                "pg_locks tells which; a prepared one is in pg_prepared_xacts. End it, and run the \
                 same command again.",
            ));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
