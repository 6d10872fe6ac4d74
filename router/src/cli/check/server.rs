//! Each server by itself: who it is, and whether it can do what a shard must. Asked in
//! `Server::read`; judged, without IO, in `judge`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgherd_shard_map::store::{self, Local, StoreError};
use pgherd_shard_map::{Epoch, ShardId};
use tokio_postgres::Client;

use super::kept::Kept;
use super::report::{Finding, Part, Severity, grouped, name, those};
use super::settings::{self, Settings};

/// Clocks that are further apart than this.
const CLOCK_MAX: Duration = Duration::from_secs(1);

const SERVER_SQL: &str = "SELECT current_setting('server_version_num')::int, \
    current_setting('server_version'), pg_is_in_recovery(), \
    (SELECT system_identifier FROM pg_control_system()), \
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), \
    coalesce((SELECT datcollversion <> pg_database_collation_actual_version(oid) \
        FROM pg_database WHERE datname = current_database()), false)";

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
    settings: Settings,
    clock: Clock,
    kept: Kept,
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
        Ok(Self {
            version_number: row.get(0),
            version: row.get(1),
            standby: row.get(2),
            identifier: row.get(3),
            superuser: row.get(4),
            collation_changed: row.get(5),
            local: store::read_local(client).await?,
            settings: Settings::read(client).await?,
            clock,
            kept: Kept::read(client).await?,
        })
    }

    const fn major(&self) -> i32 {
        self.version_number / 10_000
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
    let settings: Vec<_> =
        servers.iter().map(|(shard, server)| (*shard, &server.settings)).collect();
    found.extend(settings::judge(expected.moving, &settings));
    found.extend(clocks(expected, servers));
    for (shard, server) in servers {
        found.extend(server.kept.judge(*shard, expected.moving));
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
    if let Some((shards, on)) = those(servers, |server| server.collation_changed) {
        found.push(finding(
            Severity::Warning,
            &shards,
            format!("{on}: the operating system sorts text otherwise than when it was made"),
            "Indexes over text may miss rows: REINDEX DATABASE, then ALTER DATABASE … REFRESH \
             COLLATION VERSION, on the shard itself.",
        ));
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

fn clocks(expected: &Expected, servers: &[(ShardId, &Server)]) -> Vec<Finding> {
    let home =
        servers.iter().find(|(shard, _)| *shard == expected.home).or_else(|| servers.first());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn good(shard: u32) -> Server {
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
            settings: Settings::good(),
            clock: Clock { ahead: 0.0, uncertain: 0.01 },
            kept: Kept::default(),
        }
    }

    /// What is found in two servers, the second one changed; each finding in a line.
    fn lines(change: impl FnOnce(&mut Server)) -> Vec<String> {
        let (home, mut other) = (good(0), good(1));
        change(&mut other);
        let expected = Expected { home: ShardId(0), epoch: Epoch(3), moving: false };
        judge(&expected, &[(ShardId(0), &home), (ShardId(1), &other)])
            .iter()
            .map(Finding::line)
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
}
