//! What SHOW shows. Columns have PgBouncer's names where they mean the same; a shard takes the
//! place of PgBouncer's database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use pgherd_shard_map::ShardId;

use super::Table;
use crate::pool::PoolFigures;
use crate::telemetry::Traffic;
use crate::worker::{Phase, Shared};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Clients,
    Config,
    Databases,
    Help,
    Lists,
    Mem,
    Pools,
    Servers,
    Shards,
    State,
    Statements,
    Stats,
    StatsAverages,
    StatsTotals,
    Users,
    Version,
}

/// Name, what it shows, columns.
type Kind = (&'static str, Show, &'static str, &'static [&'static str]);

const KINDS: [Kind; 16] = [
    (
        "clients",
        Show::Clients,
        "who is connected",
        &[
            "type",
            "user",
            "database",
            "state",
            "addr",
            "port",
            "connect_time",
            "messages",
            "link",
            "id",
        ],
    ),
    ("config", Show::Config, "settings of this router", &["key", "value", "changeable"]),
    (
        "databases",
        Show::Databases,
        "shards as targets of connections",
        &[
            "name",
            "host",
            "port",
            "database",
            "pool_size",
            "min_pool_size",
            "pool_mode",
            "current_connections",
            "paused",
            "disabled",
        ],
    ),
    ("help", Show::Help, "this list", &["command", "meaning"]),
    ("lists", Show::Lists, "how many there are of everything", &["list", "items"]),
    ("mem", Show::Mem, "memory of the process", &["name", "bytes"]),
    (
        "pools",
        Show::Pools,
        "server connections by shard and user",
        &[
            "database",
            "user",
            "cl_active",
            "cl_waiting",
            "sv_active",
            "sv_idle",
            "sv_login",
            "maxwait",
            "maxwait_us",
            "pool_mode",
            "pool_size",
            "paused",
        ],
    ),
    (
        "servers",
        Show::Servers,
        "server connections one by one",
        &["type", "user", "database", "state", "addr", "port", "link", "remote_pid"],
    ),
    (
        "shards",
        Show::Shards,
        "shards and whether they answer",
        &[
            "shard",
            "host",
            "port",
            "home",
            "up",
            "error",
            "paused",
            "prepared",
            "oldest_prepared_seconds",
        ],
    ),
    (
        "statements",
        Show::Statements,
        "what has been run, what took longest first; times in milliseconds",
        &["user", "query", "tier", "calls", "total_ms", "mean_ms", "max_ms"],
    ),
    ("state", Show::State, "whether this router serves", &["key", "value"]),
    (
        "stats",
        Show::Stats,
        "statements and bytes by shard since the start",
        &[
            "database",
            "total_query_count",
            "total_received",
            "total_sent",
            "total_query_time",
            "avg_query_time",
        ],
    ),
    (
        "stats_averages",
        Show::StatsAverages,
        "their average time, in microseconds",
        &["database", "avg_query_time"],
    ),
    (
        "stats_totals",
        Show::StatsTotals,
        "their number, bytes and time, in microseconds",
        &["database", "query_count", "bytes_received", "bytes_sent", "query_time"],
    ),
    (
        "users",
        Show::Users,
        "who is connected, by name",
        &["name", "pool_mode", "current_connections"],
    ),
    ("version", Show::Version, "the version of this router", &["version"]),
];

const ACTIONS: [(&str, &str); 9] = [
    ("PAUSE [shard]", "hold new work back, and wait for what runs"),
    ("RESUME [shard]", "let it go on"),
    ("RECONNECT [shard]", "close server connections as they come free"),
    ("RELOAD", "read the configuration file again"),
    ("DISABLE", "refuse new clients"),
    ("ENABLE", "take new clients again"),
    ("KILL id", "end a client's session (KILL without an id: all)"),
    ("SHUTDOWN", "end now; transactions are rolled back"),
    (
        "SHUTDOWN WAIT_FOR_SERVERS | WAIT_FOR_CLIENTS",
        "end when transactions have ended, or when clients have left",
    ),
];

impl Show {
    pub(super) fn named(name: &str) -> Option<Self> {
        KINDS.iter().find(|(known, ..)| *known == name).map(|(_, show, ..)| *show)
    }
}

pub(super) fn columns(show: Show) -> &'static [&'static str] {
    KINDS.iter().find(|(_, known, ..)| *known == show).map_or(&[], |(.., columns)| columns)
}

type Row = Vec<Option<String>>;

pub(super) async fn show(shared: &Shared, show: Show) -> Table {
    let rows = match show {
        Show::Clients => clients(shared).await,
        Show::Config => config(shared),
        Show::Databases => databases(shared).await,
        Show::Help => help(),
        Show::Lists => lists(shared).await,
        Show::Mem => memory(),
        Show::Pools => pools(shared).await,
        Show::Servers => servers(shared).await,
        Show::Shards => shards(shared),
        Show::State => state(shared),
        Show::Statements => statements(shared).await,
        Show::Stats | Show::StatsAverages | Show::StatsTotals => stats(shared, show),
        Show::Users => users(shared).await,
        Show::Version => vec![vec![text(concat!("pgherd ", env!("CARGO_PKG_VERSION")))]],
    };
    Table { columns: columns(show), rows }
}

fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

fn name(shard: ShardId) -> Option<String> {
    Some(format!("shard_{shard}"))
}

fn mode(shared: &Shared) -> Option<String> {
    text(if shared.settings.session_pooling { "session" } else { "transaction" })
}

fn flag(value: bool) -> Option<String> {
    text(u8::from(value))
}

async fn pools(shared: &Shared) -> Vec<Row> {
    let pools = shared.pools().await;
    let size = shared.live.load().pool.size;
    let row = |((shard, user), pool): (&(ShardId, Box<str>), &PoolFigures)| {
        vec![
            name(*shard),
            text(user),
            text(pool.active),
            text(pool.waiting),
            text(pool.active),
            text(pool.idle),
            text(pool.opening),
            text(pool.longest.as_secs()),
            text(pool.longest.subsec_micros()),
            mode(shared),
            text(size),
            flag(pool.paused),
        ]
    };
    pools.iter().map(row).collect()
}

async fn clients(shared: &Shared) -> Vec<Row> {
    let row = |client: &crate::worker::ClientFigures| {
        let links: Vec<String> = client.servers.iter().map(ToString::to_string).collect();
        vec![
            text("C"),
            text(&client.user),
            text(&shared.settings.database),
            text(client.doing.name()),
            client.peer.map_or_else(|| text("unix"), |peer| text(peer.ip())),
            client.peer.and_then(|peer| text(peer.port())),
            text(humantime::format_rfc3339_seconds(client.since)),
            text(client.messages),
            text(links.join(" ")),
            text(client.pid),
        ]
    };
    shared.clients().await.iter().map(row).collect()
}

async fn servers(shared: &Shared) -> Vec<Row> {
    let row = |server: &crate::worker::ServerFigures| {
        vec![
            text("S"),
            text(&server.user),
            name(server.shard),
            text(server.state()),
            text(server.address.ip()),
            text(server.address.port()),
            server.client.and_then(text),
            text(server.pid),
        ]
    };
    shared.servers().await.iter().map(row).collect()
}

/// Host and port of a shard's address.
fn place(dsn: &str) -> (Option<String>, Option<String>) {
    let config: Option<tokio_postgres::Config> = dsn.parse().ok();
    let host = config.as_ref().and_then(|config| match config.get_hosts().first()? {
        tokio_postgres::config::Host::Tcp(host) => Some(host.clone()),
        other => Some(format!("{other:?}")),
    });
    let port = config.and_then(|config| config.get_ports().first().copied()).unwrap_or(5432);
    (host, text(port))
}

async fn databases(shared: &Shared) -> Vec<Row> {
    let pools = shared.pools().await;
    let live = shared.live.load();
    let paused = shared.paused.load();
    let disabled = shared.disabled.load(Ordering::Relaxed);
    let row = |shard: &pgherd_shard_map::Shard| {
        let (host, port) = place(&shard.dsn);
        let of_shard = pools.iter().filter(|((id, _), _)| *id == shard.id);
        let open: usize = of_shard.map(|(_, p)| p.active + p.idle + p.opening).sum();
        vec![
            name(shard.id),
            host,
            port,
            text(&shared.settings.database),
            text(live.pool.size),
            text(live.pool.min_size),
            mode(shared),
            text(open),
            flag(paused.contains(&shard.id)),
            flag(disabled),
        ]
    };
    shared.map.load().shards().map(row).collect()
}

fn shards(shared: &Shared) -> Vec<Row> {
    let map = shared.map.load();
    let health = shared.health.load();
    let paused = shared.paused.load();
    let row = |shard: &pgherd_shard_map::Shard| {
        let (host, port) = place(&shard.dsn);
        let look = health.iter().find(|look| look.shard == shard.id);
        vec![
            text(shard.id),
            host,
            port,
            flag(shard.id == map.home),
            look.and_then(|look| flag(look.error.is_none())),
            look.and_then(|look| look.error.clone()),
            flag(paused.contains(&shard.id)),
            look.and_then(|look| text(look.prepared)),
            look.and_then(|look| text(look.oldest.as_secs())),
        ]
    };
    map.shards().map(row).collect()
}

fn config(shared: &Shared) -> Vec<Row> {
    let config = shared.config.load();
    let row = |(key, value): (&crate::config::Key, Option<String>)| {
        vec![text(key.path), value, text(if key.live { "yes" } else { "no" })]
    };
    config.values().into_iter().map(row).collect()
}

fn help() -> Vec<Row> {
    let shows = KINDS.iter().map(|(name, _, meaning, _)| {
        vec![text(format!("SHOW {}", name.to_uppercase())), text(meaning)]
    });
    let actions = ACTIONS.iter().map(|(command, meaning)| vec![text(command), text(meaning)]);
    shows.chain(actions).collect()
}

async fn lists(shared: &Shared) -> Vec<Row> {
    let workers = shared.figures().await;
    let pools = shared.pools().await;
    let sum = |count: fn(&PoolFigures) -> usize| pools.values().map(count).sum::<usize>();
    let users: BTreeSet<&str> = pools.keys().map(|(_, user)| &**user).collect();
    let lists = [
        ("shards", shared.map.load().shards().count()),
        ("workers", shared.settings.workers),
        ("users", users.len()),
        ("pools", pools.len()),
        ("used_clients", workers.iter().map(|worker| worker.sessions).sum()),
        ("waiting_clients", sum(|pool| pool.waiting)),
        ("waiting_transactions", workers.iter().map(|worker| worker.queued).sum()),
        ("free_servers", sum(|pool| pool.idle)),
        ("used_servers", sum(|pool| pool.active)),
        ("login_servers", sum(|pool| pool.opening)),
    ];
    lists.iter().map(|(list, items)| vec![text(list), text(items)]).collect()
}

fn memory() -> Vec<Row> {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let page = rustix::param::page_size();
    let pages = statm.split_whitespace().map(|n| n.parse::<usize>().ok());
    ["virtual", "resident"]
        .iter()
        .zip(pages)
        .map(|(name, pages)| vec![text(name), pages.map(|n| (n * page).to_string())])
        .collect()
}

fn state(shared: &Shared) -> Vec<Row> {
    let yes = |value: bool| text(if value { "yes" } else { "no" });
    let phase = *shared.phase.borrow();
    let paused = shared.paused.load();
    let all = shared.map.load().shards().all(|shard| paused.contains(&shard.id));
    vec![
        vec![text("active"), yes(phase == Phase::Serving && paused.is_empty())],
        vec![text("paused"), yes(all)],
        vec![text("paused_shards"), text(paused.len())],
        vec![text("disabled"), yes(shared.disabled.load(Ordering::Relaxed))],
    ]
}

fn stats(shared: &Shared, show: Show) -> Vec<Row> {
    let map = shared.map.load();
    let row = |shard: &pgherd_shard_map::Shard| {
        let (count, us) = shared.metrics.answered(shard.id);
        let Traffic { received, sent } = shared.metrics.traffic(shard.id);
        let average = us.checked_div(count).unwrap_or(0);
        let values: &[u64] = match show {
            Show::StatsAverages => &[average],
            Show::StatsTotals => &[count, received, sent, us],
            _ => &[count, received, sent, us, average],
        };
        std::iter::once(name(shard.id)).chain(values.iter().map(text)).collect()
    };
    map.shards().map(row).collect()
}

async fn statements(shared: &Shared) -> Vec<Row> {
    let ms = |ms: f64| text(format_args!("{ms:.3}"));
    let row = |usage: &crate::worker::usage::Usage| {
        vec![
            text(&usage.user),
            text(&usage.text),
            text(usage.tier.as_str()),
            text(usage.calls),
            ms(usage.total_ms()),
            ms(usage.mean_ms()),
            ms(usage.max_ms()),
        ]
    };
    shared.usages().await.iter().map(row).collect()
}

async fn users(shared: &Shared) -> Vec<Row> {
    let mut users: BTreeMap<Box<str>, usize> = BTreeMap::new();
    for client in shared.clients().await {
        *users.entry(client.user).or_default() += 1;
    }
    let row = |(user, count)| vec![text(user), mode(shared), text(count)];
    users.into_iter().map(row).collect()
}
