//! CORS: which pages of other origins may use the interface from a browser.
//!
//! Only requests with the header `Origin` are concerned: without it OPTIONS is a method like any other.

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tower::{Layer, ServiceExt};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::authorize::RATE_HEADERS;
use super::request_id;
use super::route::RouteTable;
use crate::access::origin::{OriginPolicy, host};

/// Headers that are not safe on their own, and that this interface reads.
const ALLOWED: [HeaderName; 12] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_TYPE,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("idempotency-strict"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-actor-id"),
    HeaderName::from_static("x-api-key"),
    request_id::REQUEST_ID,
];

/// Lets in the pages of the origins that may also change something here; see [`OriginPolicy`].
pub(crate) fn layer(origins: OriginPolicy, routes: &RouteTable) -> CorsLayer {
    let allowed = match origins.is_any() {
        true => AllowOrigin::any(),
        false => AllowOrigin::predicate(move |origin: &HeaderValue, parts: &Parts| {
            origins.allows(origin, host(&parts.uri, &parts.headers).as_ref())
        }),
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(AllowHeaders::list(ALLOWED))
        .expose_headers(exposed(routes))
}

/// What scripts may read: headers of all responses, and those that single routes expose.
fn exposed(routes: &RouteTable) -> Vec<HeaderName> {
    let mut all = vec![request_id::REQUEST_ID];
    all.extend(RATE_HEADERS);
    for header in routes.iter().flat_map(|route| &route.exposes) {
        if !all.contains(header) {
            all.push(header.clone());
        }
    }
    all.push(header::RETRY_AFTER);
    all
}

/// Adds the CORS headers, and answers preflight requests.
pub(crate) async fn answer(
    State(cors): State<CorsLayer>,
    request: Request,
    next: Next,
) -> Response {
    if !request.headers().contains_key(header::ORIGIN) {
        return next.run(request).await;
    }
    match cors.layer(next).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
