//! The log of a run as it grows, resumable on any edge: entries are numbered, and an event's id holds its number.
//!
//! A stream knows the last number it sent. What comes after is taken from what all streams of the run share, or from
//! the stream when that no longer reaches back so far; either way by number, so nothing is sent twice or left out.

mod encode;
mod feed;
mod feed_state;
mod follower;
mod replay_buffer;
pub(crate) mod run_log;
mod stream;

use std::str::FromStr;

use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::HeaderMap;
use axum::response::Response;
use quintet_contract::id::RunId;
use quintet_contract::time::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use self::encode::{Kind, encode, event_text};
pub(crate) use self::feed::{RunFeeds, RunSubscription};
pub(crate) use self::replay_buffer::{Mark, Replay};
use self::stream::RunEventStream;
use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded, of_one};
use crate::http::extract::{Client, Headers, PathId};
use crate::http::query::{Query, QueryParams};
use crate::http::sse::{event_stream_content, last_event_id, sse_response};
use crate::runs::client::RunsClient;
use crate::state::App;

/// Checkpoints that a new stream begins with by default.
const REPLAY: usize = 10;
/// Most checkpoints that may be requested.
const MAX_REPLAY: usize = 100;
/// What [`Last`] reads, as far as a pattern can express it.
const LAST_PATTERN: &str = "^([0-9]{1,15}|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:\
     [0-5][0-9][.][0-9]{3}Z(_[0-9]{1,15})?)?$";

pub(crate) fn docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
                    .id("followRun").summary("Follow a run (server-sent events)")
                    .description(
                        "First `hello`, then `status`, `node`, `checkpoint`, `output`, `progress` and `log`, each with an `id` \
                         for `Last-Event-ID` (also `?lastEventId=`), which may as well be a time (all that is later) or the \
                         number of an entry (0: all there is). Without it the last checkpoints come first, then what is new. \
                         The stream ends after the last status.",
                    )
                    .tag("runs")
                    .input::<Headers<EventHeaders>>()
                    .response_with::<200, String, _>(|response| event_stream_content(response.description("the events")))
                    .response::<422, Json<ErrorBody>>()
}

/// The parameters of the stream.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventParams {
    /// How many of the last checkpoints to begin with; 10 when absent.
    #[schemars(range(max = MAX_REPLAY))]
    replay: Option<u32>,
    /// As the header `Last-Event-ID`, for clients that cannot send it.
    #[schemars(regex(pattern = LAST_PATTERN))]
    last_event_id: Option<String>,
}

impl QueryParams for EventParams {
    fn expected(name: &str) -> String {
        match name {
            "replay" => format!("a number from 0 to {MAX_REPLAY}"),
            _ => "the id of an event of this stream".to_owned(),
        }
    }

    fn out_of_bounds(&self) -> Option<&'static str> {
        let is_wrong = self.replay.is_some_and(|count| count as usize > MAX_REPLAY);
        is_wrong.then_some("replay")
    }
}

/// Documents the headers.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "describes the headers")]
struct EventHeaders {
    /// Go on after this event, this time, or this number.
    #[schemars(regex(pattern = LAST_PATTERN))]
    last_event_id: Option<String>,
}

/// What a client has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// Everything up to this entry.
    Entry(u64),
    /// Everything that happened until then.
    Time(Timestamp),
}

impl FromStr for Last {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Entry).map_err(|_| ());
        }
        let time = |text: &str| text.parse::<Timestamp>().map_err(|_| ());
        match text.rsplit_once('_') {
            None => time(text).map(Self::Time),
            Some((at, n)) if n.bytes().all(|byte| byte.is_ascii_digit()) => {
                time(at)?;
                n.parse().map(Self::Entry).map_err(|_| ())
            }
            Some(_) => Err(()),
        }
    }
}

pub(crate) async fn events(
    State(app): State<App>,
    Client(address): Client,
    PathId(id): PathId<RunId>,
    headers: HeaderMap,
    Query(params): Query<EventParams>,
) -> Result<Response, HttpError> {
    let param = params.last_event_id.as_deref();
    let last = last_event_id(&headers, param, |text| text.parse::<Last>().ok())?;
    let replay = params.replay.map_or(REPLAY, |count| count as usize);
    let permit = app.streams.acquire(address)?;
    // Entries that come between the two are not missed: the feed reads at least up to what was found.
    let found = RunsClient::from_ref(&app).run(id).await?;
    let subscription = app.live.part::<RunFeeds>().subscribe(id).await?;
    let mut stream = RunEventStream::new(app, id, subscription, permit);
    stream.begin(&found, last, replay).await?;
    Ok(sse_response(futures::stream::unfold(
        stream,
        |mut stream| async move { Some((stream.next().await?, stream)) },
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_has_seen_is_an_id_a_time_or_a_number() {
        let at: Timestamp = "2024-01-01T00:00:00.005Z".parse().unwrap();
        for (text, last) in [
            ("0", Some(Last::Entry(0))),
            ("0000000012", Some(Last::Entry(12))),
            ("2024-01-01T00:00:00.005Z_0000000012", Some(Last::Entry(12))),
            ("2024-01-01T00:00:00.005Z_12", Some(Last::Entry(12))),
            ("2024-01-01T00:00:00.005Z", Some(Last::Time(at))),
            ("2024-01-01T01:00:00.005+01:00", Some(Last::Time(at))),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("12_", None),
            ("x_12", None),
            ("2024-01-01T00:00:00.005Z_", None),
            ("2024-01-01T00:00:00.005Z_+1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(text.parse::<Last>().ok(), last, "{text}");
        }
    }
}
