//! Before anything is made: what the servers must allow, and which tables can move.

use std::collections::BTreeSet;

use pgherd_shard_map::store::{Move, MovedTable};
use pgherd_shard_map::{GroupId, KeyType, RelationKind, ShardId, ShardMap, TableKind};
use tokio_postgres::Client;

use super::stream::quoted;
use super::{Problem, Shards};

/// The tables of the moving groups, as the home shard has them, if all of them can move.
///
/// # Errors
/// The first thing that is in the way.
pub(super) async fn tables(
    home: &Client,
    map: &ShardMap,
    moves: &[Move],
) -> Result<Vec<MovedTable>, Problem> {
    let groups: BTreeSet<GroupId> = moves.iter().map(|part| part.group).collect();
    let sql = "SELECT n.nspname::text, c.relname::text, c.relkind = 'p', c.relpersistence::text, \
        c.relreplident::text, \
        EXISTS (SELECT 1 FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent \
            WHERE p.relkind = 'r' AND c.oid IN (i.inhrelid, i.inhparent)), \
        coalesce((SELECT array_agg(a.attname::text ORDER BY u.n) FROM pg_index i, \
            unnest(i.indkey::int2[]) WITH ORDINALITY AS u (attnum, n) \
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.attnum \
            WHERE i.indrelid = c.oid AND i.indisprimary), '{}') \
        FROM unnest($1::text[]) t (name) JOIN pg_class c ON c.oid = t.name::regclass \
        JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE NOT EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhrelid = c.oid) \
        ORDER BY n.nspname, c.relname";
    let mut tables = Vec::new();
    for group in groups {
        let members =
            map.relations().filter(|(name, _)| map.group_of(name).is_some_and(|of| of.id == group));
        let names: Vec<String> = members.map(|(name, _)| name.quoted()).collect();
        for row in home.query(sql, &[&names]).await? {
            let name = pgherd_shard_map::TableName::new(row.get(0), row.get(1));
            let Some(RelationKind::Sharded(known)) = map.relation(&name) else { continue };
            let (TableKind::Distributed { .. }, Some(key)) = (known.kind, known.key_column())
            else {
                continue;
            };
            if map.group(group).is_some_and(|group| group.key_type == KeyType::Enum) {
                return Err(Problem::new(
                    format!("table {name} is distributed by an enum, and its rows cannot move"),
                    "PostgreSQL does not hold the hash of an enum for immutable. Move the other \
                     groups range by range (--range), or distribute it by another column.",
                ));
            }
            let (persistence, identity): (String, String) = (row.get(3), row.get(4));
            let mut table = MovedTable {
                schema: row.get(0),
                name: row.get(1),
                group,
                key_column: key.name.to_string(),
                identity: row.get(6),
                whole_row: false,
                partitioned: row.get(2),
            };
            if persistence != "p" {
                return Err(Problem::new(
                    format!("table {name} is unlogged, and its changes cannot be followed"),
                    format!("ALTER TABLE {name} SET LOGGED makes it movable."),
                ));
            }
            if row.get::<_, bool>(5) {
                return Err(Problem::new(
                    format!("table {name} has inheritance children"),
                    "Such tables stay where they are; partitions can move.",
                ));
            }
            // A primary key contains the key, else the table could not have been distributed.
            table.whole_row = identity != "f" && table.identity.is_empty();
            if table.whole_row && table.partitioned {
                return Err(Problem::new(
                    format!("the partitioned table {name} has no primary key"),
                    "Give it one that contains the distribution column.",
                ));
            }
            tables.push(table);
        }
    }
    if tables.is_empty() {
        return Err(Problem::new(
            "no table has rows in these ranges",
            "pgherd reshard plan shows what can be moved.",
        ));
    }
    Ok(tables)
}

/// Whether the servers can do it.
///
/// # Errors
/// The first thing that is in the way.
pub(super) async fn servers(
    shards: &mut Shards,
    moves: &[Move],
    tables: &[MovedTable],
) -> Result<(), Problem> {
    let involved: BTreeSet<ShardId> = moves.iter().flat_map(|m| [m.from, m.to]).collect();
    let mut schemas = Vec::new();
    for shard in involved {
        let client = shards.get(shard).await?;
        let streams: BTreeSet<(ShardId, ShardId)> = moves
            .iter()
            .filter(|m| m.from == shard || m.to == shard)
            .map(|m| (m.from, m.to))
            .collect();
        settings(&client, shard, streams.len() as i64).await?;
        schemas.push((shard, fingerprint(&client, tables).await?));
    }
    for pair in schemas.windows(2) {
        for ((name, one), (_, other)) in pair[0].1.iter().zip(&pair[1].1) {
            if one != other {
                return Err(Problem::new(
                    format!(
                        "table {name} is not the same on shard {} and shard {}",
                        pair[0].0, pair[1].0
                    ),
                    "Change tables through a router, so that they are the same everywhere.",
                ));
            }
        }
    }
    Ok(())
}

async fn settings(client: &Client, shard: ShardId, streams: i64) -> Result<(), Problem> {
    let sql = "SELECT current_setting('wal_level'), \
        current_setting('max_replication_slots')::int8 - (SELECT count(*) FROM pg_replication_slots), \
        current_setting('max_wal_senders')::int8 - (SELECT count(*) FROM pg_stat_replication), \
        current_setting('max_logical_replication_workers')::int8 \
            - (SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL), \
        (SELECT min(gid) FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - interval '10s')";
    let row = client.query_one(sql, &[]).await?;
    let level: String = row.get(0);
    if level != "logical" {
        return Err(Problem::new(
            format!("shard {shard} has wal_level = {level}"),
            "Set wal_level = logical in its postgresql.conf and restart it.",
        ));
    }
    // Each table that is being copied takes a slot and a sender beside the stream's own.
    for (at, setting, wanted) in [
        (1, "max_replication_slots", 3 * streams),
        (2, "max_wal_senders", 3 * streams),
        // Tables wait for each other, if need be.
        (3, "max_logical_replication_workers", streams + 1),
    ] {
        let free: i64 = row.get(at);
        if free < wanted {
            return Err(Problem::new(
                format!("shard {shard} has {free} of {setting} left, and {wanted} are needed"),
                format!("Raise {setting} in its postgresql.conf and restart it."),
            ));
        }
    }
    if let Some(gid) = row.get::<_, Option<String>>(4) {
        return Err(Problem::new(
            format!("shard {shard} has an old prepared transaction, {gid}"),
            "It keeps a slot from being made. pgherd txn list tells of it.",
        ));
    }
    Ok(())
}

/// Each table's columns, as far as rows depend on them.
async fn fingerprint(
    client: &Client,
    tables: &[MovedTable],
) -> Result<Vec<(String, Option<String>)>, Problem> {
    let sql = "SELECT string_agg(format('%s %s %s %s %s', a.attname, \
        format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated, a.attidentity), ',' \
        ORDER BY a.attname) FROM pg_attribute a \
        WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped";
    let mut columns = Vec::new();
    for table in tables {
        let name = quoted(table);
        let found = client.query_one(sql, &[&name]).await?.get(0);
        columns.push((name, found));
    }
    Ok(columns)
}
