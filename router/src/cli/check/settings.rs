//! Settings that a server needs to be a shard. (Those that have to be the same everywhere are compared
//! as a part of the schema.)

use std::collections::BTreeMap;

use pgherd_shard_map::ShardId;
use tokio_postgres::{Client, Error};

use super::report::{Finding, Part, Severity, grouped, name, those};

const SQL: &str = "SELECT name, reset_val FROM pg_settings WHERE name IN ('fsync', \
    'full_page_writes', 'max_connections', 'max_prepared_transactions', 'synchronous_commit', \
    'wal_level')";

/// By name, as a new session finds them.
#[derive(Debug, Clone)]
pub(super) struct Settings(BTreeMap<String, String>);

impl Settings {
    /// # Errors
    /// PostgreSQL's.
    pub(super) async fn read(client: &Client) -> Result<Self, Error> {
        let rows = client.query(SQL, &[]).await?;
        Ok(Self(rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |value| value)
    }

    fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or_default()
    }

    /// Of a server that can be a shard.
    #[cfg(test)]
    pub(super) fn good() -> Self {
        let settings = [
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("synchronous_commit", "on"),
            ("wal_level", "logical"),
            ("max_connections", "100"),
            ("max_prepared_transactions", "100"),
        ];
        Self(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }
}

/// What shards cannot work with, or should not.
pub(super) fn judge(moving: bool, servers: &[(ShardId, &Settings)]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |severity, is: &dyn Fn(&Settings) -> bool, what: &str, hint: &str| {
        if let Some((shards, on)) = those(servers, is) {
            found.push(Finding::new(
                severity,
                Part::Server,
                &shards,
                format!("{on}: {what}"),
                hint,
            ));
        }
    };
    let prepared = |one: &Settings| one.number("max_prepared_transactions");
    add(
        Severity::Error,
        &|one| prepared(one) == 0,
        "max_prepared_transactions is 0: every commit over several shards fails",
        "Set it to max_connections in postgresql.conf and restart the server.",
    );
    add(
        Severity::Warning,
        &|one| prepared(one) > 0 && prepared(one) < one.number("max_connections"),
        "max_prepared_transactions is less than max_connections: commits over several shards fail \
         when too many come at once",
        "Set it to max_connections in postgresql.conf and restart the server. Routers have up to \
         [pool] size connections each, and each may have one prepared.",
    );
    for (setting, then) in [
        ("fsync", "a crash may destroy the whole database"),
        ("full_page_writes", "a crash may leave pages half written"),
        ("synchronous_commit", "a crash may lose commits that clients were told of"),
    ] {
        add(
            Severity::Warning,
            &|one| one.text(setting) == "off",
            &format!("{setting} is off: {then}, and with it a part of transactions over shards"),
            "Set it to on in postgresql.conf and reload.",
        );
    }
    let severity = if moving { Severity::Error } else { Severity::Note };
    add(
        severity,
        &|one| one.text("wal_level") != "logical",
        "wal_level is not logical: pgherd reshard cannot move rows",
        "Set wal_level = logical in postgresql.conf and restart the server.",
    );
    let connections =
        grouped(servers.iter().map(|(shard, one)| (*shard, one.number("max_connections"))));
    if connections.len() > 1 {
        let parts: Vec<String> =
            connections.iter().map(|(number, on)| format!("{number} on {}", name(on))).collect();
        found.push(Finding::new(
            Severity::Note,
            Part::Server,
            &[],
            format!("max_connections differs: {}", parts.join("; ")),
            "Routers open as many to each shard: the least of them is what [pool] size of all \
             routers must fit into.",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_a_shard_cannot_work_with_are_found() {
        let set = |name: &'static str, value: &'static str| {
            let (home, mut other) = (Settings::good(), Settings::good());
            other.0.insert(name.to_owned(), value.to_owned());
            let found = judge(false, &[(ShardId(0), &home), (ShardId(1), &other)]);
            found.iter().map(Finding::line).collect::<Vec<_>>()
        };
        let one = |lines: Vec<String>, start: &str| {
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].starts_with(start), "{lines:?}");
        };
        one(set("max_prepared_transactions", "0"), "error shard 1: max_prepared_transactions is 0");
        one(set("max_prepared_transactions", "9"), "warning shard 1: max_prepared_transactions");
        one(set("wal_level", "replica"), "note shard 1: wal_level is not logical");
        one(set("fsync", "off"), "warning shard 1: fsync is off");
        one(
            set("max_connections", "50"),
            "note max_connections differs: 50 on shard 1; 100 on shard 0",
        );
    }
}
