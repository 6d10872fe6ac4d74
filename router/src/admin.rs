//! HTTP for machines: `/metrics` for Prometheus, `/healthz` (the process runs), `/readyz` (it can
//! serve statements).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::recovery::ShardHealth;
use crate::reshard::{Seen, SeenStream};
use crate::telemetry::Metrics;
use crate::worker::{Phase, Shared, WorkerFigures};

/// Serves until the process ends.
pub async fn serve_http(listener: TcpListener, metrics: Arc<Metrics>, shared: Arc<Shared>) {
    let scraped = Arc::clone(&shared);
    let app = Router::new()
        .route("/metrics", get(move || scrape(metrics, scraped)))
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(move || std::future::ready(readiness(&shared))));
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the HTTP listener failed");
    }
}

/// Ready while the home shard answers, since every login needs it. Another shard that does not is
/// named, but hurts only the statements that need it.
fn readiness(shared: &Shared) -> (StatusCode, String) {
    let home = shared.map.load().home;
    let health = shared.health.load();
    let mut text = String::new();
    let mut status = StatusCode::OK;
    for shard in health.iter() {
        if let Some(error) = &shard.error {
            if shard.shard == home {
                status = StatusCode::SERVICE_UNAVAILABLE;
            }
            // Writing to a String cannot fail.
            let _ = writeln!(text, "shard {}: {error}", shard.shard);
        }
    }
    if *shared.phase.borrow() > Phase::Serving || shared.disabled.load(Ordering::Relaxed) {
        status = StatusCode::SERVICE_UNAVAILABLE;
        text.push_str("no new clients are taken\n");
    }
    let word = if status == StatusCode::OK { "ready" } else { "not ready" };
    (status, format!("{word}\n{text}"))
}

async fn scrape(metrics: Arc<Metrics>, shared: Arc<Shared>) -> String {
    let mut out = metrics.render();
    let workers = shared.figures().await;
    // Writing to a String cannot fail.
    let _ = render_workers(&workers, &mut out);
    let _ = render_shards(&shared, &mut out);
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn render_workers(workers: &[WorkerFigures], out: &mut String) -> std::fmt::Result {
    let mut pools: BTreeMap<(u32, &str), [usize; 4]> = BTreeMap::new();
    for pool in workers.iter().flat_map(|worker| &worker.pools) {
        let sums = pools.entry((pool.shard.0, &pool.user)).or_default();
        let counts = [pool.idle, pool.active, pool.opening, pool.waiting];
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    let name = "pgherd_pool_connections";
    head(out, name, "gauge", "Server connections by shard, user and state.")?;
    for ((shard, user), [idle, active, opening, _]) in &pools {
        let user = user.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        for (state, count) in [("idle", idle), ("active", active), ("opening", opening)] {
            writeln!(out, "{name}{{shard=\"{shard}\",user=\"{user}\",state=\"{state}\"}} {count}")?;
        }
    }
    let name = "pgherd_pool_waiting";
    head(out, name, "gauge", "Sessions that wait for a server connection.")?;
    for ((shard, user), [.., waiting]) in &pools {
        let user = user.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        writeln!(out, "{name}{{shard=\"{shard}\",user=\"{user}\"}} {waiting}")?;
    }
    let count = |count: fn(&WorkerFigures) -> u64| workers.iter().map(count).sum::<u64>();
    let name = "pgherd_transactions_waiting";
    head(out, name, "gauge", "Transactions that wait to be admitted.")?;
    writeln!(out, "{name} {}", count(|worker| worker.queued as u64))?;
    let name = "pgherd_server_connects_total";
    head(out, name, "counter", "Server connections opened, by how it ended.")?;
    writeln!(out, "{name}{{result=\"opened\"}} {}", count(|worker| worker.opened))?;
    writeln!(out, "{name}{{result=\"failed\"}} {}", count(|worker| worker.refused))?;
    let name = "pgherd_pool_places_lent_total";
    head(out, name, "counter", "Places in pools that moved from one thread to another.")?;
    writeln!(out, "{name} {}", count(|worker| worker.lent))?;
    let name = "pgherd_plan_lookups_total";
    head(out, name, "counter", "Plans by whether they were there already.")?;
    writeln!(out, "{name}{{result=\"hit\"}} {}", count(|worker| worker.plan_hits))?;
    writeln!(out, "{name}{{result=\"miss\"}} {}", count(|worker| worker.plan_misses))
}

fn render_shards(shared: &Shared, out: &mut String) -> std::fmt::Result {
    head(out, "pgherd_map_epoch", "gauge", "Epoch of the shard map in use.")?;
    writeln!(out, "pgherd_map_epoch {}", shared.map.load().epoch)?;
    head(out, "pgherd_draining", "gauge", "Whether this router takes no new clients and ends.")?;
    let draining = *shared.phase.borrow() > Phase::Serving;
    writeln!(out, "pgherd_draining {}", u8::from(draining))?;
    let name = "pgherd_shard_paused";
    head(out, name, "gauge", "Whether an operator has paused the shard on this router.")?;
    let paused = shared.paused.load();
    for shard in shared.map.load().shards() {
        let held = u8::from(paused.contains(&shard.id));
        writeln!(out, "{name}{{shard=\"{}\"}} {held}", shard.id)?;
    }
    let health = shared.health.load();
    let mut gauge = |name, help, value: fn(&ShardHealth) -> f64| {
        head(out, name, "gauge", help)?;
        health.iter().try_for_each(|shard| {
            writeln!(out, "{name}{{shard=\"{}\"}} {}", shard.shard, value(shard))
        })
    };
    gauge("pgherd_shard_up", "Whether the shard answered when it was last asked.", |shard| {
        f64::from(u8::from(shard.error.is_none()))
    })?;
    let help = "Prepared transactions of pgherd, in flight or in doubt.";
    gauge("pgherd_prepared_transactions", help, |shard| shard.prepared as f64)?;
    let help = "Age of the oldest of them: above some seconds it is in doubt.";
    gauge("pgherd_prepared_oldest_seconds", help, |shard| shard.oldest.as_secs_f64())?;
    let help = "Those whose router should have finished them by now.";
    gauge("pgherd_in_doubt_transactions", help, |shard| shard.in_doubt as f64)?;
    let name = "pgherd_recovered_transactions_total";
    head(out, name, "counter", "In-doubt transactions that this router has finished, by end.")?;
    for shard in health.iter() {
        let ends = &shard.ends;
        let ends =
            [("committed", ends.committed), ("rolled_back", ends.rolled_back), ("lost", ends.lost)];
        for (end, count) in ends {
            writeln!(out, "{name}{{shard=\"{}\",end=\"{end}\"}} {count}", shard.shard)?;
        }
    }
    match &**shared.reshard.load() {
        Some(seen) => render_reshard(seen, out),
        None => Ok(()),
    }
}

/// Rows that are being moved, while they are.
fn render_reshard(seen: &Seen, out: &mut String) -> std::fmt::Result {
    let name = "pgherd_reshard_run";
    head(out, name, "gauge", "The run of pgherd reshard that is under way, and its phase.")?;
    writeln!(out, "{name}{{run=\"{}\",phase=\"{}\"}} 1", seen.run, seen.phase)?;
    head(out, "pgherd_reshard_paused", "gauge", "Whether an operator has paused the run.")?;
    writeln!(out, "pgherd_reshard_paused {}", u8::from(seen.paused))?;
    let help = "Whether nothing is copied or deleted now, for others' sake.";
    head(out, "pgherd_reshard_held", "gauge", help)?;
    writeln!(out, "pgherd_reshard_held {}", u8::from(seen.held))?;
    let mut gauge = |name, help, value: fn(&SeenStream) -> u64| {
        head(out, name, "gauge", help)?;
        seen.streams.iter().try_for_each(|stream| {
            let SeenStream { source, target, .. } = stream;
            let labels = format!("source=\"{source}\",target=\"{target}\"");
            writeln!(out, "{name}{{{labels}}} {}", value(stream))
        })
    };
    let help = "Bytes of the source's log that the target has not confirmed.";
    gauge("pgherd_reshard_lag_bytes", help, |stream| stream.lag.try_into().unwrap_or_default())?;
    gauge("pgherd_reshard_rows_copied", "Rows that the target has.", |stream| stream.rows)?;
    let help = "About how many rows move.";
    gauge("pgherd_reshard_rows_expected", help, |stream| stream.expected)
}
