//! What every request passes through, from the outside in:
//!
//! 1. [`finish`] gives it an id, and writes the body of every answer that says no.
//! 2. A panic becomes a 500 (a layer of tower-http).
//! 3. [`observe`] traces, measures and logs it: the access log is the line "answered".
//! 4. Pages of other origins are let in, or not ([`crate::cors`]).
//! 5. [`crate::admit`] finds out who asks, and whether they may and not too often.

use std::time::Instant;

use axum::Json;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_service::trace::set_parent;
use serde_json::Value;
use tracing::{Instrument, info_span};
use uuid::Uuid;

use crate::metrics;

/// Names a request and its answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over from a client.
const REQUEST_ID_BYTES: usize = 128;

/// The id of a request, for handlers and logs.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) HeaderValue);

/// Gives the request an id, and completes the answer.
pub(crate) async fn finish(mut request: Request, next: Next) -> Response {
    let id = id_of(request.headers());
    let method = request.method().clone();
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        response = explained(response, &method, &id);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn id_of(headers: &HeaderMap) -> HeaderValue {
    let is_sane = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        !bytes.is_empty()
            && bytes.len() <= REQUEST_ID_BYTES
            && bytes.iter().all(u8::is_ascii_graphic)
    };
    let given = headers.get(REQUEST_ID).filter(is_sane).cloned();
    given.unwrap_or_else(|| {
        let id = Uuid::now_v7().hyphenated().to_string();
        HeaderValue::from_str(&id).expect("a UUID is a header value")
    })
}

/// An answer that says no, with a body that says why.
fn explained(response: Response, method: &Method, id: &HeaderValue) -> Response {
    let (parts, _) = response.into_parts();
    let reply = match parts.extensions.get::<ErrorReply>() {
        Some(reply) => reply.clone(),
        None => of_status(parts.status, method, &parts.headers),
    };
    let mut body = reply.details;
    body.insert("error".to_owned(), Value::String(reply.error));
    body.insert(
        "code".to_owned(),
        serde_json::to_value(reply.code).unwrap_or_default(),
    );
    body.insert(
        "requestId".to_owned(),
        Value::String(id.to_str().unwrap_or_default().to_owned()),
    );
    let mut answer = (parts.status, Json(body)).into_response();
    for (name, value) in &parts.headers {
        if name != CONTENT_TYPE && name != axum::http::header::CONTENT_LENGTH {
            answer.headers_mut().append(name, value.clone());
        }
    }
    answer
}

/// What is said of an answer that comes from the framework itself.
fn of_status(status: StatusCode, method: &Method, headers: &HeaderMap) -> ErrorReply {
    let allowed = headers
        .get(ALLOW)
        .and_then(|allow| allow.to_str().ok())
        .unwrap_or_default();
    match status {
        StatusCode::NOT_FOUND => ErrorReply::not_found(),
        StatusCode::METHOD_NOT_ALLOWED => ErrorReply::new(
            ErrorCode::MethodNotAllowed,
            format!("this path does not take {method}; it takes {allowed}"),
        ),
        StatusCode::PAYLOAD_TOO_LARGE => {
            ErrorReply::new(ErrorCode::PayloadTooLarge, "the request is too large")
        }
        status if status.is_client_error() => ErrorReply::new(
            ErrorCode::BadRequest,
            "the request cannot be read; see /docs for what it must look like",
        ),
        _ => {
            let text = "something went wrong here; it is in the log under this request's id";
            ErrorReply::new(ErrorCode::Internal, text)
        }
    }
}

/// What a panic becomes.
pub(crate) fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    tracing::error!(panic = text, "a handler panicked");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// Traces, measures and logs.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = name_of(request.method());
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
    let is_dull = is_dull(method, &route);
    span.in_scope(|| match status {
        500.. => tracing::warn!(method, route, status, took_us, "answered"),
        _ if is_dull => tracing::debug!(method, route, status, took_us, "answered"),
        _ => tracing::info!(method, route, status, took_us, "answered"),
    });
    metrics::request(method, route, status, took);
    response
}

/// Whether it is what machines ask all the time, which is not worth a line each.
fn is_dull(method: &str, route: &str) -> bool {
    match route {
        "/healthz" | "/health" | "/ready" | "/metrics" => true,
        "/workers/{id}/frame" | "/ingest/rbm" | "/frame.png" | "/debug/panel.png" => true,
        "/workers/{id}/config" | "/stats" => method == "GET",
        _ => false,
    }
}

fn name_of(method: &Method) -> &'static str {
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
