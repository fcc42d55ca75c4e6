//! Server-sent events: the statuses of a job, and its output.

mod events;
mod logs;

use std::convert::Infallible;
use std::time::Duration;

use aide::axum::ApiRouter;
use aide::transform::TransformResponse;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;

use crate::error::HttpError;
use crate::extract::Params;
use crate::state::App;

/// How often a comment shows that a quiet stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After this a client that was asked to leave shall come back, to another edge.
const RECONNECT: Duration = Duration::from_millis(500);
/// The media type of server-sent events.
const EVENT_STREAM: &str = "text/event-stream";
/// Where a client says what it has seen.
const LAST_EVENT_ID: &str = "last-event-id";

pub(crate) fn routes() -> ApiRouter<App> {
    ApiRouter::new()
        .merge(events::routes())
        .merge(logs::routes())
}

fn sse(stream: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

/// Documents that the answer is server-sent events.
fn only_events<T>(mut response: TransformResponse<'_, T>) -> TransformResponse<'_, T> {
    let content = &mut response.inner().content;
    let texts = std::mem::take(content).into_values();
    content.extend(texts.map(|media| (EVENT_STREAM.to_owned(), media)));
    response
}

/// Documents that the answer is server-sent events when they are asked for.
fn also_events<T>(mut response: TransformResponse<'_, T>) -> TransformResponse<'_, T> {
    let content = &mut response.inner().content;
    if let Some(media) = content.values().next().cloned() {
        content.insert(EVENT_STREAM.to_owned(), media);
    }
    response
}

/// Says when to come back; the last event of a stream whose edge leaves.
fn come_back() -> Event {
    Event::default()
        .retry(RECONNECT)
        .comment("this server is leaving")
}

/// What the client has seen, by header or by parameter; the header is the stronger, but neither may be nonsense.
fn last_event_id<T>(
    headers: &HeaderMap,
    params: &Params,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, HttpError> {
    let understood = |text: &str| {
        let text_of_error = "Last-Event-ID must be the id of an event of this stream";
        read(text).ok_or_else(|| HttpError::invalid("lastEventId", text_of_error))
    };
    let header = headers
        .get(LAST_EVENT_ID)
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .filter(|text| !text.is_empty())
        .map(|text| understood(&text))
        .transpose()?;
    let param = params.text("lastEventId").map(understood).transpose()?;
    Ok(header.or(param))
}
