//! Health, readiness, metrics, and the interface's own description.

use aide::axum::ApiRouter;
use aide::axum::routing::get_with;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::http::docs::Operation;
use crate::router::NeedsKey;
use crate::state::App;

/// Where the description of the interface is.
pub(crate) const OPENAPI: &str = "/openapi.json";

pub(crate) fn routes() -> ApiRouter<App> {
    ApiRouter::new()
        .api_route(
            "/healthz",
            get_with(healthz, |operation| {
                status_docs(operation, "Say that the process lives")
            }),
        )
        .api_route(
            "/health",
            get_with(health, |operation| {
                status_docs(operation, "Say how every component is")
            }),
        )
        .api_route("/ready", get_with(ready, ready_docs))
        .api_route(
            "/metrics",
            get_with(metrics, |operation| {
                operation
                    .summary("Metrics for Prometheus")
                    .tag("service")
                    .response::<200, String>()
            }),
        )
        .route(OPENAPI, axum::routing::get(document))
}

fn status_docs<'t>(operation: Operation<'t>, summary: &str) -> Operation<'t> {
    operation
        .summary(summary)
        .tag("service")
        .response::<200, Json<Value>>()
}

async fn healthz() -> Json<Value> {
    Json(json!({"ok": true, "status": "healthy"}))
}

async fn health(State(app): State<App>) -> Response {
    Json(app.health.snapshot()).into_response()
}

async fn ready(State(app): State<App>) -> Response {
    let readiness = app.health.readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if readiness.ready {
        return (status, Json(json!({"ok": true, "ready": true}))).into_response();
    }
    let reasons: Vec<String> = readiness
        .reasons
        .iter()
        .map(|(what, why)| format!("{what}: {why}"))
        .collect();
    let text = format!("not ready: {}", reasons.join("; "));
    crate::error::HttpError::from(
        quintet_contract::error::ErrorReply::unavailable(text).with("reasons", reasons),
    )
    .into_response()
}

fn ready_docs(operation: Operation<'_>) -> Operation<'_> {
    status_docs(operation, "Say whether requests can be served")
        .response::<503, Json<crate::error::ErrorBody>>()
}

async fn metrics(State(app): State<App>) -> Response {
    let kind = quintet_service::telemetry::Prometheus::CONTENT_TYPE;
    ([(header::CONTENT_TYPE, kind)], app.prometheus.render()).into_response()
}

async fn document(State(app): State<App>) -> Json<&'static Value> {
    let keys = match app.config.api_keys.as_slice() {
        [] => NeedsKey::No,
        [_, ..] => NeedsKey::Yes,
    };
    Json(crate::router::served(keys))
}
