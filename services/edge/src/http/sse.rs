//! Server-sent events: how they are written, kept alive, resumed and ended.

use std::convert::Infallible;
use std::time::Duration;

use aide::transform::TransformResponse;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use tokio::time::timeout;

use crate::error::HttpError;

/// How often a comment shows that a quiet stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After this a client that was asked to leave shall come back, to another edge.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);
/// The media type of server-sent events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// The header with the last event that a client has seen.
const LAST_EVENT_ID: &str = "last-event-id";

/// An answer of events as they come, with a comment where none comes for a while.
pub(crate) fn sse_response(events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let kept_alive = futures::stream::unfold(Box::pin(events), |mut events| async move {
        let event = match timeout(KEEP_ALIVE, events.next()).await {
            Ok(event) => event?,
            Err(_) => Bytes::from_static(b":\n\n"),
        };
        Some((Ok::<_, Infallible>(event), events))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM)),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, Body::from_stream(kept_alive)).into_response()
}

/// Documents that the answer is server-sent events.
pub(crate) fn event_stream_content<T>(
    mut response: TransformResponse<'_, T>,
) -> TransformResponse<'_, T> {
    let content = &mut response.inner().content;
    let texts = std::mem::take(content).into_values();
    content.extend(texts.map(|media| (EVENT_STREAM.to_owned(), media)));
    response
}

/// Documents that the answer is server-sent events when they are asked for.
pub(crate) fn or_event_stream_content<T>(
    mut response: TransformResponse<'_, T>,
) -> TransformResponse<'_, T> {
    let content = &mut response.inner().content;
    if let Some(media) = content.values().next().cloned() {
        content.insert(EVENT_STREAM.to_owned(), media);
    }
    response
}

/// Sends the time to reconnect; the last event of a stream whose edge leaves.
pub(crate) fn retry_event() -> Bytes {
    let wait = RECONNECT_DELAY.as_millis();
    format!("retry: {wait}\n: this server is leaving\n\n").into()
}

/// What the client has seen, by header or by parameter; the header is the stronger, but neither may be nonsense.
pub(crate) fn last_event_id<T>(
    headers: &HeaderMap,
    param: Option<&str>,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, HttpError> {
    let parsed = |text: &str| {
        let text_of_error = "Last-Event-ID must be the id of an event of this stream";
        read(text).ok_or_else(|| HttpError::invalid("lastEventId", text_of_error))
    };
    let header = headers
        .get(LAST_EVENT_ID)
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .filter(|text| !text.is_empty())
        .map(|text| parsed(&text))
        .transpose()?;
    let param = param.map(parsed).transpose()?;
    Ok(header.or(param))
}
