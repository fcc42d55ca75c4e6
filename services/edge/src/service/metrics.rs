//! Metrics for Prometheus.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use quintet_service::telemetry::Prometheus;

use crate::http::docs::Operation;
use crate::state::App;

pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let kind = [(header::CONTENT_TYPE, Prometheus::CONTENT_TYPE)];
    (kind, app.prometheus.render()).into_response()
}

pub(crate) fn docs(operation: Operation<'_>) -> Operation<'_> {
    operation
        .id("getMetrics")
        .summary("Metrics for Prometheus")
        .tag("service")
        .response::<200, String>()
}
