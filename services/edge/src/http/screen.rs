//! Screening: the checks of every request before it is routed.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::access::AccessState;
use crate::access::key_table::KeyPolicy;
use crate::access::origin::HostCheck;

/// Health routes, which show nothing secret: probes and scrapers may call the edge by any name.
const OF_ANY_HOST: [&str; 4] = ["/health", "/healthz", "/ready", "/metrics"];

/// Refuses requests of strangers' pages.
pub(crate) async fn screen(
    State(access): State<Arc<AccessState>>,
    request: Request,
    next: Next,
) -> Response {
    let is_exempt = OF_ANY_HOST.contains(&request.uri().path());
    let host_check = match access.keys.table.policy() {
        KeyPolicy::Open | KeyPolicy::Unknown if !is_exempt => HostCheck::Required,
        KeyPolicy::Open | KeyPolicy::Unknown | KeyPolicy::Required => HostCheck::Exempt,
    };
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    match access.origins.check(method, uri, headers, host_check) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}
