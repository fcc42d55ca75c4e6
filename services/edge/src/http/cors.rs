//! CORS: which pages of other origins may use the interface from a browser.
//!
//! Only requests with the header `Origin` are concerned: without it OPTIONS is a method like any other.

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use tower::{Layer, ServiceExt};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::authorize::RATE_HEADERS;
use super::request_id;
use super::route::RouteTable;

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

/// Hosts of pages on the client's own machine.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Lets in the pages of these origins; of this machine and of the edge itself, when there are none.
pub(crate) fn layer(origins: &[String], routes: &RouteTable) -> CorsLayer {
    let allowed = match origins {
        [] => AllowOrigin::predicate(|origin: &HeaderValue, parts: &Parts| {
            is_near(origin, parts.headers.get(header::HOST))
        }),
        origins if origins.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        origins => AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
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

/// Whether a page is of this machine, or of the host that is asked.
fn is_near(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let Some(origin) = origin
        .to_str()
        .ok()
        .and_then(|text| text.parse::<Uri>().ok())
    else {
        return false;
    };
    let is_web = matches!(origin.scheme_str(), Some("http" | "https"));
    let Some(authority) = origin.authority().filter(|_| is_web) else {
        return false;
    };
    let is_same = host.is_some_and(|host| host.as_bytes() == authority.as_str().as_bytes());
    is_same || LOCAL_HOSTS.contains(&authority.host())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_this_machine_on_any_port_and_the_host_that_is_asked() {
        let host = HeaderValue::from_static("runs.example:7070");
        for (origin, expected) in [
            ("http://localhost", true),
            ("http://localhost:5173", true),
            ("https://127.0.0.1:3000", true),
            ("http://[::1]:9", true),
            ("https://runs.example:7070", true),
            ("https://runs.example", false),
            ("http://localhost.evil.example", false),
            ("http://evil.example/localhost", false),
            ("http://localhost@evil.example", false),
            ("ftp://localhost", false),
            ("null", false),
            ("", false),
        ] {
            let origin = HeaderValue::from_static(origin);
            assert_eq!(is_near(&origin, Some(&host)), expected, "{origin:?}");
        }
    }
}
