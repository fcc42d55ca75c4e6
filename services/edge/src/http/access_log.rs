//! The access log: every request is traced, measured and logged as one line "answered".

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use quintet_service::trace::set_parent;
use tracing::{Instrument, info_span};

use super::request_id::RequestId;
use crate::metrics;

/// Traces, measures and logs.
pub(crate) async fn access_log(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = method_name(request.method());
    // Requests that match nothing share one name: a label is never made by a client.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let id = request
        .extensions()
        .get::<RequestId>()
        .map(|id| id.0.clone());
    let id = id
        .as_ref()
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let span = info_span!(
        "http",
        method,
        route,
        request_id = id,
        status = tracing::field::Empty
    );
    set_parent(&span, |name| {
        let value = request.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    });
    let response = next.run(request).instrument(span.clone()).await;
    let (status, took) = (response.status().as_u16(), began.elapsed());
    span.record("status", status);
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let is_high_frequency = is_high_frequency(method, &route);
    span.in_scope(|| match status {
        500.. => tracing::warn!(method, route, status, took_us, "answered"),
        _ if is_high_frequency => tracing::debug!(method, route, status, took_us, "answered"),
        _ => tracing::info!(method, route, status, took_us, "answered"),
    });
    metrics::request(method, route, status, took);
    response
}

/// Whether it is what machines ask all the time, which is not worth a line each.
fn is_high_frequency(method: &str, route: &str) -> bool {
    match route {
        "/healthz" | "/health" | "/ready" | "/metrics" => true,
        "/workers/{id}/frame" | "/ingest/rbm" | "/frame.png" | "/debug/panel.png" => true,
        "/workers/{id}/config" | "/stats" => method == "GET",
        _ => false,
    }
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
