//! The body of every response that reports an error: `{error, code, requestId}` and fields that help.

use axum::Json;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use quintet_contract::error::{ErrorCode, ErrorReply};
use serde_json::Value;

use super::request_id::id_of;

/// Writes the body of a response that reports an error.
pub(crate) async fn error_body(request: Request, next: Next) -> Response {
    let (method, id) = (request.method().clone(), id_of(&request));
    let response = next.run(request).await;
    let status = response.status();
    match status.is_client_error() || status.is_server_error() {
        true => render_error(response, &method, id),
        false => response,
    }
}

/// An error response with its body.
fn render_error(response: Response, method: &Method, id: String) -> Response {
    let (parts, _) = response.into_parts();
    let reply = match parts.extensions.get::<ErrorReply>() {
        Some(reply) => reply.clone(),
        None => from_status(parts.status, method, &parts.headers),
    };
    let mut body = reply.details;
    body.insert("error".to_owned(), Value::String(reply.error));
    body.insert(
        "code".to_owned(),
        serde_json::to_value(reply.code).unwrap_or_default(),
    );
    body.insert("requestId".to_owned(), Value::String(id));
    let mut answer = (parts.status, Json(body)).into_response();
    for (name, value) in &parts.headers {
        if name != CONTENT_TYPE && name != axum::http::header::CONTENT_LENGTH {
            answer.headers_mut().append(name, value.clone());
        }
    }
    answer
}

/// The error of a response that comes from the framework itself.
fn from_status(status: StatusCode, method: &Method, headers: &HeaderMap) -> ErrorReply {
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
pub(crate) fn render_panic(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    tracing::error!(panic = text, "a handler panicked");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}
