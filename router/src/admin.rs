//! HTTP for machines: `/metrics` for Prometheus, `/healthz` (the process runs), `/readyz` (it can
//! serve statements).

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::telemetry::Metrics;

/// Serves until the process ends. `ready` says whether the router can serve statements.
pub async fn serve_http(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    ready: impl Fn() -> bool + Clone + Send + Sync + 'static,
) {
    let readiness = move || {
        let answer = if ready() {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the shard map is not loaded\n")
        };
        std::future::ready(answer)
    };
    let app = Router::new()
        .route("/metrics", get(move || std::future::ready(metrics.render())))
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(readiness));
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the HTTP listener failed");
    }
}
