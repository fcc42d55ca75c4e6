//! Server-sent events: the statuses of a job, and its output.

mod events;
mod logs;

use std::convert::Infallible;
use std::time::Duration;

use aide::axum::ApiRouter;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;

use crate::state::App;

/// How often a comment shows that a quiet stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After this a client that was asked to leave shall come back, to another edge.
const RECONNECT: Duration = Duration::from_millis(500);
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

/// Says when to come back; the last event of a stream whose edge leaves.
fn come_back() -> Event {
    Event::default()
        .retry(RECONNECT)
        .comment("this server is leaving")
}

/// What the client has seen, by header or by parameter.
fn last_event_id<'r>(
    headers: &'r HeaderMap,
    params: &'r crate::extract::Params,
) -> Option<&'r str> {
    let header = headers
        .get(LAST_EVENT_ID)
        .and_then(|value| value.to_str().ok());
    header
        .filter(|value| !value.is_empty())
        .or_else(|| params.text("lastEventId"))
}
