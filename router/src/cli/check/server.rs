//! Each server by itself: who it is, whether it can do what a shard must, and what it has kept for
//! too long. Asked in `Server::read`; judged, without IO, in `judge`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgherd_shard_map::store::{self, Local, StoreError};
use pgherd_shard_map::{Epoch, ShardId};
use tokio_postgres::Client;

use super::report::{Finding, Part, Severity, grouped, name};
use crate::cli::reshard::bytes;
use crate::two_phase::Gid;

/// A prepared transaction that nobody has finished for so long: recovery takes a few seconds.
const PREPARED_MAX: f64 = 10.0;

/// Clocks that are further apart than this.
const CLOCK_MAX: Duration = Duration::from_secs(1);

/// What a replication slot may keep.
const SLOT_MAX: u64 = 1 << 30;

/// What is named of a long list.
const NAMED_MAX: usize = 5;

const SERVER_SQL: &str = "SELECT current_setting('server_version_num')::int, \
    current_setting('server_version'), pg_is_in_recovery(), \
    (SELECT system_identifier FROM pg_control_system()), \
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), \
    coalesce((SELECT datcollversion <> pg_database_collation_actual_version(oid) \
        FROM pg_database WHERE datname = current_database()), false)";

const SETTINGS_SQL: &str = "SELECT name, reset_val FROM pg_settings WHERE name IN ('fsync', \
    'full_page_writes', 'max_connections', 'max_prepared_transactions', 'synchronous_commit', \
    'wal_level')";

const PREPARED_SQL: &str = "SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 \
    FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared";

const SLOTS_SQL: &str = "SELECT slot_name::text, active, coalesce(wal_status, ''), \
    greatest(0, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
        ELSE pg_current_wal_lsn() END, restart_lsn))::int8 \
    FROM pg_replication_slots WHERE NOT temporary ORDER BY slot_name";

const INVALID_SQL: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_index i \
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE NOT i.indisvalid AND n.nspname !~ '^pg_toast' AND NOT EXISTS (SELECT \
        FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) ORDER BY 1";

/// What a run of `pgherd reshard` makes in the database, and takes away when it is over.
const LEFT_SQL: &str = "SELECT 'publication ' || pubname FROM pg_publication \
        WHERE pubname ~ '^pgherd_[0-9]+_[0-9]+_[0-9]+$' \
    UNION ALL SELECT 'subscription ' || subname FROM pg_subscription \
        WHERE subname ~ '^pgherd_[0-9]+_[0-9]+_[0-9]+$' \
        AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    UNION ALL SELECT format('trigger %s on %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t \
        JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace \
        WHERE n.nspname = 'pgherd' AND NOT t.tgisinternal AND t.tgparentid = 0 ORDER BY 1";

/// What one server said.
#[derive(Debug, Clone)]
pub(super) struct Server {
    version_number: i32,
    version: String,
    standby: bool,
    /// Of the server's data directory.
    identifier: i64,
    superuser: bool,
    /// Text was sorted by another version of the operating system's rules when the database was made.
    collation_changed: bool,
    local: Option<Local>,
    settings: BTreeMap<String, String>,
    /// Gids and ages in seconds, the oldest first.
    prepared: Vec<(String, f64)>,
    slots: Vec<Slot>,
    invalid_indexes: Vec<String>,
    /// Objects of a run of `pgherd reshard`.
    moving_objects: Vec<String>,
    clock: Clock,
}

#[derive(Debug, Clone)]
struct Slot {
    name: String,
    active: bool,
    status: String,
    kept: u64,
}

/// How far a server's clock is ahead of this machine's, and how wrong that may be, in seconds.
#[derive(Debug, Clone, Copy)]
struct Clock {
    ahead: f64,
    uncertain: f64,
}

impl Server {
    /// # Errors
    /// Why it cannot be asked.
    pub(super) async fn read(client: &Client) -> Result<Self, StoreError> {
        let clock = Clock::read(client).await?;
        let row = client.query_one(SERVER_SQL, &[]).await?;
        let settings = client.query(SETTINGS_SQL, &[]).await?;
        let prepared = client.query(PREPARED_SQL, &[]).await?;
        let slots = client.query(SLOTS_SQL, &[]).await?;
        let names = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get(0)).collect();
        Ok(Self {
            version_number: row.get(0),
            version: row.get(1),
            standby: row.get(2),
            identifier: row.get(3),
            superuser: row.get(4),
            collation_changed: row.get(5),
            local: store::read_local(client).await?,
            settings: settings.iter().map(|row| (row.get(0), row.get(1))).collect(),
            prepared: prepared.iter().map(|row| (row.get(0), row.get(1))).collect(),
            slots: slots.iter().map(Slot::from).collect(),
            invalid_indexes: names(client.query(INVALID_SQL, &[]).await?),
            moving_objects: names(client.query(LEFT_SQL, &[]).await?),
            clock,
        })
    }

    fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", |value| value)
    }

    fn number(&self, name: &str) -> i64 {
        self.setting(name).parse().unwrap_or_default()
    }

    const fn major(&self) -> i32 {
        self.version_number / 10_000
    }
}

impl From<&tokio_postgres::Row> for Slot {
    fn from(row: &tokio_postgres::Row) -> Self {
        let kept = row.get::<_, Option<i64>>(3).unwrap_or_default().max(0).cast_unsigned();
        Self { name: row.get(0), active: row.get(1), status: row.get(2), kept }
    }
}

impl Clock {
    async fn read(client: &Client) -> Result<Self, StoreError> {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let before = now();
        let sql = "SELECT extract(epoch FROM clock_timestamp())::float8";
        let there: f64 = client.query_one(sql, &[]).await?.get(0);
        let after = now();
        let half = (after - before) / 2.0;
        Ok(Self { ahead: there - (before + half), uncertain: half })
    }
}

/// What the catalog says of the shards.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) home: ShardId,
    pub(super) epoch: Epoch,
    /// Whether a run of `pgherd reshard` is under way.
    pub(super) moving: bool,
}

/// What is wrong with these servers, in the order of their numbers.
pub(super) fn judge(expected: &Expected, servers: &[(ShardId, &Server)]) -> Vec<Finding> {
    let mut found = identities(expected, servers);
    found.extend(versions(servers));
    found.extend(settings(expected, servers));
    found.extend(clocks(expected, servers));
    for (shard, server) in servers {
        found.extend(kept(*shard, server, expected.moving));
    }
    found
}

/// Makes a finding of this part.
fn finding(
    severity: Severity,
    shards: &[ShardId],
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Finding {
    Finding::new(severity, Part::Server, shards, message, hint)
}

/// The shards that something is true of, if there are any.
fn those(
    servers: &[(ShardId, &Server)],
    is: impl Fn(&Server) -> bool,
) -> Option<(Vec<ShardId>, String)> {
    let ids: Vec<ShardId> =
        servers.iter().filter(|(_, server)| is(server)).map(|(shard, _)| *shard).collect();
    let on = name(&ids);
    (!ids.is_empty()).then_some((ids, on))
}

fn identities(expected: &Expected, servers: &[(ShardId, &Server)]) -> Vec<Finding> {
    let mut found = Vec::new();
    let address = "Is its address in the catalog right? SELECT * FROM pgherd.shards shows all, and \
                   pgherd.local on a server says which shard it is.";
    let cluster = servers
        .iter()
        .find(|(shard, _)| *shard == expected.home)
        .and_then(|(_, home)| Some(&home.local.as_ref()?.cluster));
    for (shard, server) in servers {
        let one = [*shard];
        let mut error = |message: String, hint: &str| {
            found.push(finding(Severity::Error, &one, message, hint));
        };
        match &server.local {
            None => error(
                format!("shard {shard} is not a shard: its database has no schema pgherd"),
                address,
            ),
            Some(local) if cluster.is_some_and(|cluster| *cluster != local.cluster) => error(
                format!("shard {shard} belongs to another cluster, {}", local.cluster),
                address,
            ),
            Some(local) if local.shard != *shard => error(
                format!("the address of shard {shard} leads to shard {}", local.shard),
                address,
            ),
            Some(local) if local.epoch > expected.epoch => error(
                format!(
                    "shard {shard} has seen epoch {} of the map, and the catalog is at {}",
                    local.epoch, expected.epoch
                ),
                "The catalog has lost changes, as after a restore from an older backup: routers \
                 open no sessions on this shard. Restore the home shard to its newest state.",
            ),
            Some(_) => {}
        }
    }
    for (_, shards) in grouped(servers.iter().map(|(shard, server)| (*shard, server.identifier))) {
        if shards.len() > 1 {
            found.push(finding(
                Severity::Error,
                &shards,
                format!("{} are on one server, or a server and its standby", name(&shards)),
                address,
            ));
        }
    }
    if let Some((shards, on)) = those(servers, |server| server.standby) {
        found.push(finding(
            Severity::Error,
            &shards,
            format!("{on}: a standby answers, which takes no writes"),
            "Promote it, or give the catalog the address of the primary.",
        ));
    }
    if let Some((shards, on)) = those(servers, |server| !server.superuser) {
        found.push(finding(
            Severity::Error,
            &shards,
            format!("{on}: the catalog's login is not a superuser"),
            "Routers finish other users' prepared transactions with it: ALTER ROLE … SUPERUSER.",
        ));
    }
    found
}

fn versions(servers: &[(ShardId, &Server)]) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some((shards, on)) = those(servers, |server| server.major() < 15) {
        let hint = "A shard needs PostgreSQL 15 or newer: upgrade it with pg_upgrade.";
        found.push(finding(Severity::Error, &shards, format!("{on}: PostgreSQL is too old"), hint));
    }
    let list = |groups: BTreeMap<String, Vec<ShardId>>| {
        let parts: Vec<String> =
            groups.iter().map(|(version, on)| format!("{version} on {}", name(on))).collect();
        (parts.len() > 1).then(|| parts.join("; "))
    };
    let majors = grouped(servers.iter().map(|(shard, one)| (*shard, one.major().to_string())));
    let all = grouped(servers.iter().map(|(shard, one)| (*shard, one.version.clone())));
    if let Some(list) = list(majors) {
        found.push(finding(
            Severity::Warning,
            &[],
            format!("the shards run different major versions of PostgreSQL: {list}"),
            "They may answer differently. Upgrade all shards to the newest of them.",
        ));
    } else if let Some(list) = list(all) {
        found.push(finding(
            Severity::Note,
            &[],
            format!("the shards run different minor versions of PostgreSQL: {list}"),
            "Update them to the newest when you can.",
        ));
    }
    found
}

fn settings(expected: &Expected, servers: &[(ShardId, &Server)]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |severity, is: &dyn Fn(&Server) -> bool, what: &str, hint: &str| {
        if let Some((shards, on)) = those(servers, is) {
            found.push(finding(severity, &shards, format!("{on}: {what}"), hint));
        }
    };
    let prepared = |server: &Server| server.number("max_prepared_transactions");
    add(
        Severity::Error,
        &|server| prepared(server) == 0,
        "max_prepared_transactions is 0: every commit over several shards fails",
        "Set it to max_connections in postgresql.conf and restart the server.",
    );
    add(
        Severity::Warning,
        &|server| prepared(server) > 0 && prepared(server) < server.number("max_connections"),
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
            &|server| server.setting(setting) == "off",
            &format!("{setting} is off: {then}, and with it a part of transactions over shards"),
            "Set it to on in postgresql.conf and reload.",
        );
    }
    let severity = if expected.moving { Severity::Error } else { Severity::Note };
    add(
        severity,
        &|server| server.setting("wal_level") != "logical",
        "wal_level is not logical: pgherd reshard cannot move rows",
        "Set wal_level = logical in postgresql.conf and restart the server.",
    );
    add(
        Severity::Warning,
        &|server| server.collation_changed,
        "the operating system sorts text otherwise than when the database was made",
        "Indexes over text may miss rows: REINDEX DATABASE, then ALTER DATABASE … REFRESH \
         COLLATION VERSION, on the shard itself.",
    );
    let connections =
        grouped(servers.iter().map(|(shard, one)| (*shard, one.number("max_connections"))));
    if connections.len() > 1 {
        let parts: Vec<String> =
            connections.iter().map(|(number, on)| format!("{number} on {}", name(on))).collect();
        found.push(finding(
            Severity::Note,
            &[],
            format!("max_connections differs: {}", parts.join("; ")),
            "Routers open as many to each shard: the least of them is what [pool] size of all \
             routers must fit into.",
        ));
    }
    found
}

fn clocks(expected: &Expected, servers: &[(ShardId, &Server)]) -> Vec<Finding> {
    let home = servers.iter().find(|(shard, _)| *shard == expected.home).or(servers.first());
    let Some((reference, home)) = home else { return Vec::new() };
    let apart = |server: &Server| {
        let difference = server.clock.ahead - home.clock.ahead;
        let uncertain = server.clock.uncertain + home.clock.uncertain;
        (difference.abs() > CLOCK_MAX.as_secs_f64() + uncertain).then_some(difference)
    };
    let told = |(shard, server): &(ShardId, &Server)| {
        let difference = apart(server)?;
        let way = if difference > 0.0 { "ahead of" } else { "behind" };
        let seconds = difference.abs();
        let text =
            format!("the clock of shard {shard} is {seconds:.1} s {way} that of shard {reference}");
        let hint = "now() and defaults made of it differ by that. Let all machines follow the same \
                    time servers (chrony, ntpd).";
        Some(finding(Severity::Warning, &[*shard], text, hint))
    };
    servers.iter().filter_map(told).collect()
}

/// Prepared transactions, slots, invalid indexes, leftovers.
fn kept(shard: ShardId, server: &Server, moving: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let one = [shard];
    let old = server.prepared.iter().filter(|(_, age)| *age >= PREPARED_MAX);
    let (ours, others): (Vec<_>, Vec<_>) = old.partition(|(gid, _)| Gid::parse(gid).is_some());
    for (list, severity, whose, hint) in [
        (
            ours,
            Severity::Error,
            "of pgherd",
            "They hold locks, and VACUUM cannot pass them. A running router finishes them within \
             seconds, if the deciding shard answers; pgherd txn list says what is in the way \
             (docs/runbooks/in-doubt-transactions.md).",
        ),
        (
            others,
            Severity::Warning,
            "of somebody else",
            "They hold locks, and VACUUM cannot pass them. Whoever prepared them must end them: \
             COMMIT PREPARED or ROLLBACK PREPARED, on the shard itself.",
        ),
    ] {
        if let Some((gid, age)) = list.first() {
            let text = format!(
                "shard {shard}: prepared transactions {whose} that nobody has finished: {}; the \
                 oldest, {gid}, is {age:.0} s old",
                list.len()
            );
            found.push(finding(severity, &one, text, hint));
        }
    }
    found.extend(server.slots.iter().filter_map(|slot| slot_finding(shard, slot, moving)));
    if !server.invalid_indexes.is_empty() {
        let text = format!("shard {shard}: invalid indexes: {}", some(&server.invalid_indexes));
        let hint = "Nobody uses them, every write pays for them, and a unique one does not keep \
                    rows unique: REINDEX INDEX CONCURRENTLY on the shard itself, or DROP INDEX and \
                    make it anew.";
        found.push(finding(Severity::Warning, &one, text, hint));
    }
    if !moving && !server.moving_objects.is_empty() {
        let text = format!(
            "shard {shard}: a run of pgherd reshard has left {}",
            some(&server.moving_objects)
        );
        let hint = "No run is under way: drop it on the shard itself, triggers first.";
        found.push(finding(Severity::Warning, &one, text, hint));
    }
    found
}

fn slot_finding(shard: ShardId, slot: &Slot, moving: bool) -> Option<Finding> {
    let Slot { name, kept, .. } = slot;
    // A running one is `pgherd reshard status`' to tell of.
    if moving && name.starts_with("pgherd_") && *kept < SLOT_MAX {
        return None;
    }
    let what = format!("shard {shard}: the replication slot {name}");
    let hint = "What it keeps fills the disk. Start its reader again; if nobody reads it any more: \
                SELECT pg_drop_replication_slot('…') on the shard itself.";
    let (severity, message) = match (&*slot.status, slot.active) {
        ("lost", _) => (Severity::Warning, format!("{what} has lost what it needs")),
        (_, false) if *kept >= SLOT_MAX => {
            (Severity::Warning, format!("{what} has no reader and keeps {} of log", bytes(*kept)))
        }
        (_, true) if *kept >= SLOT_MAX => {
            (Severity::Warning, format!("{what}'s reader is {} behind", bytes(*kept)))
        }
        (_, false) => {
            (Severity::Note, format!("{what} has no reader and keeps {} of log", bytes(*kept)))
        }
        (_, true) => return None,
    };
    Some(finding(severity, &[shard], message, hint))
}

/// The first of a list.
pub(super) fn some(list: &[String]) -> String {
    let named = list.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match list.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(shard: u32) -> Server {
        let settings = [
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("synchronous_commit", "on"),
            ("wal_level", "logical"),
            ("max_connections", "100"),
            ("max_prepared_transactions", "100"),
        ];
        Server {
            version_number: 150_004,
            version: "15.4".to_owned(),
            standby: false,
            identifier: i64::from(shard),
            superuser: true,
            collation_changed: false,
            local: Some(Local {
                cluster: "main".to_owned(),
                shard: ShardId(shard),
                epoch: Epoch(3),
            }),
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            prepared: Vec::new(),
            slots: Vec::new(),
            invalid_indexes: Vec::new(),
            moving_objects: Vec::new(),
            clock: Clock { ahead: 0.0, uncertain: 0.01 },
        }
    }

    /// What is found in two servers, the second one changed; each finding in a line.
    fn lines(change: impl FnOnce(&mut Server)) -> Vec<String> {
        let (home, mut other) = (good(0), good(1));
        change(&mut other);
        let expected = Expected { home: ShardId(0), epoch: Epoch(3), moving: false };
        judge(&expected, &[(ShardId(0), &home), (ShardId(1), &other)])
            .iter()
            .map(|finding| {
                let json = serde_json::to_value(finding).unwrap();
                let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
                format!("{} {}", text("severity"), text("message"))
            })
            .collect()
    }

    #[test]
    fn nothing_is_found_in_good_servers() {
        assert!(lines(|_| {}).is_empty());
    }

    #[test]
    fn a_server_that_is_not_the_shard_is_an_error() {
        assert_eq!(
            lines(|server| server.local.as_mut().unwrap().shard = ShardId(4)),
            ["error the address of shard 1 leads to shard 4"]
        );
        assert_eq!(
            lines(|server| server.local.as_mut().unwrap().epoch = Epoch(9)),
            ["error shard 1 has seen epoch 9 of the map, and the catalog is at 3"]
        );
        assert_eq!(
            lines(|server| server.local = None),
            ["error shard 1 is not a shard: its database has no schema pgherd"]
        );
        assert_eq!(
            lines(|server| server.identifier = 0),
            ["error shards 0, 1 are on one server, or a server and its standby"]
        );
        assert_eq!(
            lines(|server| server.standby = true),
            ["error shard 1: a standby answers, which takes no writes"]
        );
    }

    #[test]
    fn settings_that_a_shard_cannot_work_with_are_found() {
        let set = |name: &'static str, value: &'static str| {
            lines(move |server| drop(server.settings.insert(name.to_owned(), value.to_owned())))
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

    #[test]
    fn versions_and_clocks_are_compared() {
        assert_eq!(
            lines(|server| (server.version_number, server.version) = (160_001, "16.1".to_owned())),
            ["warning the shards run different major versions of PostgreSQL: 15 on shard 0; \
              16 on shard 1"]
        );
        assert_eq!(
            lines(|server| server.version = "15.6".to_owned()),
            ["note the shards run different minor versions of PostgreSQL: 15.4 on shard 0; \
              15.6 on shard 1"]
        );
        assert_eq!(
            lines(|server| server.clock.ahead = -1.5),
            ["warning the clock of shard 1 is 1.5 s behind that of shard 0"]
        );
        assert!(lines(|server| server.clock = Clock { ahead: 1.5, uncertain: 0.6 }).is_empty());
    }

    #[test]
    fn what_is_kept_for_too_long_is_told_of() {
        let gid = "pgherd_app_0_r1_0193a0b0c0d000000000000000000001";
        assert_eq!(
            lines(|server| server.prepared = vec![(gid.to_owned(), 70.0), ("x".to_owned(), 11.0)]),
            [
                format!(
                    "error shard 1: prepared transactions of pgherd that nobody has finished: 1; \
                     the oldest, {gid}, is 70 s old"
                ),
                "warning shard 1: prepared transactions of somebody else that nobody has finished: \
                 1; the oldest, x, is 11 s old"
                    .to_owned()
            ]
        );
        assert!(lines(|server| server.prepared = vec![(gid.to_owned(), 2.0)]).is_empty());
        let slot = |active, kept| Slot {
            name: "s".to_owned(),
            active,
            status: "reserved".to_owned(),
            kept,
        };
        assert_eq!(
            lines(|server| server.slots = vec![slot(false, 2 << 30), slot(true, 5)]),
            ["warning shard 1: the replication slot s has no reader and keeps 2.0 GB of log"]
        );
        let indexes: Vec<String> = (1..=6).map(|n| format!("public.i{n}")).collect();
        assert_eq!(
            lines(|server| server.invalid_indexes = indexes),
            ["warning shard 1: invalid indexes: public.i1, public.i2, public.i3, public.i4, \
              public.i5 and 1 more"]
        );
    }
}
