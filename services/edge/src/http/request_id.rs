//! The id of a request: a client's own where it sent a sane one, else a new one. The outermost of all layers, so that every
//! response carries it, the error body too.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use super::error_body::render_error;

/// Names a request and its answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over from a client.
const REQUEST_ID_BYTES: usize = 128;

/// The id of a request, for handlers and logs.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) HeaderValue);

/// Gives the request an id, and completes the answer.
pub(crate) async fn request_id(mut request: Request, next: Next) -> Response {
    let id = requested_id(request.headers());
    let method = request.method().clone();
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        response = render_error(response, &method, &id);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn requested_id(headers: &HeaderMap) -> HeaderValue {
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
