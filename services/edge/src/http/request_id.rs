//! The id of a request: a client's own where it sent a sane one, else a new one. Its layers are the outermost of all,
//! so that every response carries it, the error body too.
//!
//! The layers are those of tower-http; here is what an id looks like.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use tower_http::request_id::{MakeRequestId, RequestId};
use uuid::Uuid;

/// Names a request and its answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over from a client.
const REQUEST_ID_BYTES: usize = 128;

/// New ids, in the order of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UuidV7;

impl MakeRequestId for UuidV7 {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        let id = Uuid::now_v7().hyphenated().to_string();
        HeaderValue::from_str(&id).ok().map(RequestId::new)
    }
}

/// Takes away an id that is not sane, so that the request gets a new one.
pub(crate) async fn drop_unsafe_id(mut request: Request) -> Request {
    let is_sane = |id: &HeaderValue| {
        let bytes = id.as_bytes();
        !bytes.is_empty()
            && bytes.len() <= REQUEST_ID_BYTES
            && bytes.iter().all(u8::is_ascii_graphic)
    };
    let headers = request.headers_mut();
    if !headers.get(REQUEST_ID).is_some_and(is_sane) {
        headers.remove(REQUEST_ID);
    }
    request
}

/// The id that a request was given.
pub(super) fn id_of(request: &Request) -> String {
    let id = request.extensions().get::<RequestId>();
    let text = id.and_then(|id| id.header_value().to_str().ok());
    text.unwrap_or_default().to_owned()
}
