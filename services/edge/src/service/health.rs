//! Health and readiness.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::http::docs::Operation;
use crate::state::App;

pub(crate) fn healthz_docs(operation: Operation<'_>) -> Operation<'_> {
    status_docs(operation, "Check that the process is alive").id("getLiveness")
}

pub(crate) fn health_docs(operation: Operation<'_>) -> Operation<'_> {
    status_docs(operation, "Get the health of every component").id("getHealth")
}

fn status_docs<'t>(operation: Operation<'t>, summary: &str) -> Operation<'t> {
    operation
        .summary(summary)
        .tag("service")
        .response::<200, Json<Value>>()
}

pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({"ok": true, "status": "healthy"}))
}

pub(crate) async fn health(State(app): State<App>) -> Response {
    Json(app.health.snapshot()).into_response()
}

pub(crate) async fn ready(State(app): State<App>) -> Response {
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

pub(crate) fn ready_docs(operation: Operation<'_>) -> Operation<'_> {
    status_docs(operation, "Get the readiness to serve requests")
        .id("getReadiness")
        .response::<503, Json<crate::error::ErrorBody>>()
}
