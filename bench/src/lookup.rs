//! What it costs to know where a statement goes when its plan is there already: the byte lexer,
//! the fingerprint, the lookup and the shard of its key. One thread, no servers.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use pgherd::session::Settings;
use pgherd::worker::{Planning, Plans};
use pgherd_planner::{Action, NoParams, Scan, scan};
use pgherd_shard_map::ShardMap;

use crate::table::Table;

/// pgbench's own statements, as it sends them in the simple protocol.
const STATEMENTS: [&str; 6] = [
    "SELECT abalance FROM pgbench_accounts WHERE aid = 7354321;",
    "UPDATE pgbench_accounts SET abalance = abalance + -4321 WHERE aid = 7354321;",
    "UPDATE pgbench_tellers SET tbalance = tbalance + -4321 WHERE tid = 73;",
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (73, 7, 7354321, -4321, CURRENT_TIMESTAMP);",
    "BEGIN;",
    "END;",
];

/// Each statement so often in a round; the fastest of the rounds counts, since whatever else the
/// machine does only adds.
const TIMES: u32 = 100_000;
const ROUNDS: u32 = 7;

/// # Errors
/// When a statement cannot be planned.
pub(crate) fn run() -> Result<(), String> {
    let map = ShardMap::from_json(&map()).map_err(|error| error.to_string())?;
    let settings = Rc::new(Settings::default());
    let planning = Planning::new(Arc::new(map), &settings, "postgres", &Rc::from([]), false);
    let mut plans = Plans::default();
    let mut scanned = Scan::default();
    let mut table = Table::new(1, ["statement", "ns"]);
    for sql in STATEMENTS {
        let mut fastest = f64::INFINITY;
        for _ in 0..ROUNDS {
            let started = Instant::now();
            for _ in 0..TIMES {
                look_up(black_box(sql), &planning, &mut plans, &mut scanned)?;
            }
            fastest = fastest.min(started.elapsed().as_nanos() as f64 / f64::from(TIMES));
        }
        table.row(vec![sql.chars().take(60).collect(), format!("{fastest:.0}")]);
    }
    print!("{}", table.render());
    Ok(())
}

fn look_up(
    sql: &str,
    planning: &Planning,
    plans: &mut Plans,
    scanned: &mut Scan,
) -> Result<(), String> {
    scan(sql.as_bytes(), 0, planning.seed, scanned);
    let plan = plans
        .find(sql.trim_end_matches(';'), scanned, planning, &[])
        .map_err(|error| error.to_string())?;
    if let Action::One(one) = &plan.action {
        let shards =
            one.target.resolve(&planning.map, sql.as_bytes(), &scanned.literals, &NoParams);
        black_box(shards.map_err(|error| error.to_string())?);
    }
    black_box(plan);
    Ok(())
}

/// Four shards, pgbench's tables by their own keys.
fn map() -> String {
    let columns = |names: &[&str]| -> Vec<serde_json::Value> {
        let column = |name: &&str| serde_json::json!({ "name": name, "type_name": "integer", "collation": null, "default": "none" });
        names.iter().map(column).collect()
    };
    let table = |name: &str, key: &str, names: &[&str]| {
        serde_json::json!({ "schema": "public", "name": name, "kind": "distributed", "group": 1,
            "key": key, "columns": columns(names) })
    };
    let quarter = 1i64 << 62;
    serde_json::json!({
        "epoch": 1, "home": 0, "bytewise_collation": true,
        "shards": (0..4).map(|id| serde_json::json!({ "id": id, "dsn": "" })).collect::<Vec<_>>(),
        "groups": [{ "id": 1, "key_type": "integer", "placement": { "hash":
            [[i64::MIN, 0], [-quarter * 2 + quarter, 1], [0, 2], [quarter, 3]] } }],
        "relations": [
            table("pgbench_accounts", "aid", &["aid", "bid", "abalance", "filler"]),
            table("pgbench_tellers", "tid", &["tid", "bid", "tbalance", "filler"]),
            table("pgbench_branches", "bid", &["bid", "bbalance", "filler"]),
            table("pgbench_history", "aid", &["tid", "bid", "aid", "delta", "mtime", "filler"]),
        ],
    })
    .to_string()
}
