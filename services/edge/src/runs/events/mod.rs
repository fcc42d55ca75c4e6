//! The log of a run as it grows, resumable on any edge: entries are numbered, and an event's id holds its number.
//!
//! A listener knows the last number it told. What comes after is taken from what all listeners of the run share, or from
//! the stream when that no longer reaches back so far; either way by number, so nothing is told twice or left out.

mod encode;
mod feed;
mod follower;
mod replay_buffer;
mod stream;

use std::str::FromStr;

use axum::Json;
use axum::extract::{FromRef, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use quintet_contract::time::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use self::encode::{Kind, encode, event_text};
pub(crate) use self::feed::{RunFeeds, RunSubscription};
pub(crate) use self::replay_buffer::{Mark, Replay};
use self::stream::RunEventStream;
use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded, of_one};
use crate::http::extract::{Client, Headers, Params};
use crate::http::sse::{event_stream_content, last_event_id, sse_response};
use crate::runs::RunOf;
use crate::runs::client::RunsClient;
use crate::state::App;

/// Checkpoints that a new listener is told when it does not say how many.
const REPLAY: usize = 10;
/// Most checkpoints that it may ask for.
const MAX_REPLAY: usize = 100;
/// What [`Last`] reads, as far as a pattern can say it.
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
                    .input::<(Query<EventParams>, Headers<EventHeaders>)>()
                    .response_with::<200, String, _>(|response| event_stream_content(response.description("the events")))
                    .response::<422, Json<ErrorBody>>()
}

/// Documents the parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "describes the query")]
struct EventParams {
    /// How many of the last checkpoints to begin with; 10 when absent.
    #[schemars(range(max = MAX_REPLAY))]
    replay: Option<u32>,
    /// As the header `Last-Event-ID`, for clients that cannot send it.
    #[schemars(regex(pattern = LAST_PATTERN))]
    last_event_id: Option<String>,
}

/// Documents the headers.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code, reason = "describes the headers")]
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
    RunOf(id): RunOf,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, HttpError> {
    let last = last_event_id(&headers, &params, |text| text.parse::<Last>().ok())?;
    let expected = format!("a number from 0 to {MAX_REPLAY}");
    let replay = params.parse::<usize>("replay", &expected)?;
    if replay.is_some_and(|count| count > MAX_REPLAY) {
        return Err(HttpError::invalid(
            "replay",
            format!("replay must be {expected}"),
        ));
    }
    let permit = app.streams.acquire(address)?;
    // Who listens first and asks then misses nothing that the answer does not tell.
    let found = RunsClient::from_ref(&app).run(id).await?;
    let subscription = app.live.part::<RunFeeds>().subscribe(id).await?;
    let mut stream = RunEventStream::new(app, id, subscription, permit);
    stream.begin(&found, last, replay.unwrap_or(REPLAY)).await?;
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
