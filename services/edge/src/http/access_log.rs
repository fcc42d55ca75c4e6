//! The access log: every request is traced, measured and logged as one line "answered".

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use quintet_bus::{new_traceparent, with_traceparent};
use quintet_contract::cause::is_traceparent;
use quintet_service::trace::set_parent;
use tracing::{Instrument, Span, info_span};

use super::request_id::id_of;
use super::route::{Level, RouteTable, Target};
use crate::metrics;

/// Traces, measures and logs.
pub(crate) async fn access_log(
    State(routes): State<Arc<RouteTable>>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let method = method_name(request.method());
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map(MatchedPath::as_str);
    let (kind, level) = match routes.find(path, request.method()) {
        Target::Route(route) => (route.kind, route.level),
        Target::OtherMethod(route) => (route.kind, Level::Normal),
        Target::Nothing => ("none", Level::Normal),
    };
    // Requests that match nothing share one name: a label is never made by a client.
    let route = path.unwrap_or("none").to_owned();
    let id = id_of(&request);
    let span = info_span!(
        "http",
        kind,
        method,
        route,
        request_id = id,
        status = tracing::field::Empty
    );
    let traceparent = traceparent_of(&span, request.headers());
    let answering = next.run(request).instrument(span.clone());
    let response = with_traceparent(Some(traceparent), answering).await;
    let (status, took) = (response.status().as_u16(), began.elapsed());
    span.record("status", status);
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    span.in_scope(|| match (status, level) {
        (500.., _) => tracing::warn!(method, route, status, took_us, "answered"),
        (_, Level::Quiet) => tracing::debug!(method, route, status, took_us, "answered"),
        (_, Level::Normal) => tracing::info!(method, route, status, took_us, "answered"),
    });
    metrics::request(method, route, status, took);
    response
}

/// Makes a request's span part of the client's trace; of a client without one the trace begins here.
fn traceparent_of(span: &Span, headers: &HeaderMap) -> String {
    let header = |name: &str| {
        let value = headers.get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    set_parent(span, header);
    header("traceparent")
        .filter(|given| is_traceparent(given))
        .unwrap_or_else(new_traceparent)
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
