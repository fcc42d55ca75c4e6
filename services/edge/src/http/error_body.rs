//! The body of every response that reports an error: `{error, code, requestId}` and fields that help.

use std::sync::Arc;

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use quintet_contract::error::{ErrorCode, ErrorReply};
use serde_json::Value;

use super::request_id::id_of;
use super::route::RouteTable;

/// Writes the body of a response that reports an error.
pub(crate) async fn error_body(
    State(table): State<Arc<RouteTable>>,
    request: Request,
    next: Next,
) -> Response {
    let (method, id) = (request.method().clone(), id_of(&request));
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let unexplained = || {
        let taken = table.methods(path.as_ref().map(MatchedPath::as_str));
        from_status(status, &method, &taken.into_iter().collect::<Vec<_>>())
    };
    let reply = response.extensions().get::<ErrorReply>().cloned();
    render_error(response, reply.unwrap_or_else(unexplained), id)
}

/// An error response with its body.
fn render_error(response: Response, reply: ErrorReply, id: String) -> Response {
    let (parts, _) = response.into_parts();
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
fn from_status(status: StatusCode, method: &Method, taken: &[&str]) -> ErrorReply {
    match status {
        StatusCode::NOT_FOUND => ErrorReply::not_found(),
        StatusCode::METHOD_NOT_ALLOWED => ErrorReply::new(
            ErrorCode::MethodNotAllowed,
            format!(
                "this path does not take {method}; it takes {}",
                taken.join(", ")
            ),
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
