//! Health and metrics of a process that has no edge: a listener of its own with three routes.

use std::net::{SocketAddr, TcpListener};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use quintet_service::health::Health;
use quintet_service::telemetry::Prometheus;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Serves `/healthz`, `/ready` and `/metrics` until `shutdown`.
pub async fn serve_health(
    address: SocketAddr,
    health: Health,
    prometheus: Prometheus,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let ready = move || {
        let readiness = health.readiness();
        let status = if readiness.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let reasons: Vec<String> = readiness
            .reasons
            .iter()
            .map(|(what, why)| format!("{what}: {why}\n"))
            .collect();
        std::future::ready((status, reasons.concat()))
    };
    let metrics = move || {
        let kind = [(header::CONTENT_TYPE, Prometheus::CONTENT_TYPE)];
        std::future::ready((kind, prometheus.render()).into_response())
    };
    let routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics));
    let leaving = shutdown.cancelled_owned();
    let served = axum::serve(listener, routes)
        .with_graceful_shutdown(leaving)
        .await;
    served.map_err(|source| Error::Serve { address, source })
}
