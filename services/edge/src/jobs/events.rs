//! Every status of a job in order, resumable on any edge: the id of an event is its position in the job's timeline.
//!
//! The record carries the whole timeline, so a client that has seen position *n* gets everything after *n* from any newer
//! record: nothing is skipped when several statuses are written at once, or when a listener is slow.

use std::collections::VecDeque;

use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use quintet_contract::id::JobId;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::access::quota::QuotaPermit;
use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded, of_one};
use crate::http::extract::{Client, Headers, PathId};
use crate::http::query::{Query, QueryParams};
use crate::http::sse::{event_stream_content, last_event_id, retry_event, sse_response};
use crate::jobs::client::JobsClient;
use crate::jobs::feeds::{JobFeeds, JobWatch};
use crate::jobs::snapshot::{JobSnapshot, sse};
use crate::live::write_pacer::WritePacer;
use crate::metrics::OpenStream;
use crate::state::App;

pub(crate) fn docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
                .id("followJob").summary("Follow a job's statuses (server-sent events)")
                .description(
                    "`job.status` for every status in order, with `id` for `Last-Event-ID` (also `?lastEventId=`); \
                     `job.event` for what else happens. The stream ends after the last status.",
                )
                .tag("jobs")
                .input::<Headers<EventHeaders>>()
                .response_with::<200, String, _>(|response| event_stream_content(response.description("the events")))
                .response::<422, Json<ErrorBody>>()
}

/// The parameters of the stream.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventParams {
    /// As the header `Last-Event-ID`, for clients that cannot send it.
    #[schemars(regex(pattern = "^([0-9]{1,19})?$"))]
    last_event_id: Option<String>,
}

impl QueryParams for EventParams {
    fn expected(_: &str) -> String {
        "the id of an event of this stream".to_owned()
    }
}

/// Documents the headers.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code, reason = "describes the headers")]
struct EventHeaders {
    /// Go on after this event.
    #[schemars(regex(pattern = "^([0-9]{1,19})?$"))]
    last_event_id: Option<String>,
}

pub(crate) async fn events(
    State(app): State<App>,
    Client(address): Client,
    PathId(id): PathId<JobId>,
    headers: HeaderMap,
    Query(params): Query<EventParams>,
) -> Result<Response, HttpError> {
    let position = last_event_id(&headers, params.last_event_id.as_deref(), |text| {
        text.parse().ok()
    })?
    .unwrap_or(0);
    let permit = app.streams.acquire(address)?;
    let job = app.live.part::<JobFeeds>().job(&id).await?;
    if job.latest.borrow().job.is_none() {
        // What was stored a moment ago may not have reached the feed.
        let found = JobsClient::from_ref(&app).job(&id).await?;
        if job.latest.borrow().job.is_none() && found.status.is_final() {
            return Err(HttpError::not_found());
        }
    }
    let seen_events = job.latest.borrow().event_count();
    let stream = JobEventStream {
        job,
        position,
        seen_events,
        ready: VecDeque::new(),
        is_done: false,
        pacer: app.live.pacer(),
        shutdown: app.shutdown.clone(),
        _place: permit,
        _open: OpenStream::new("events"),
    };
    Ok(sse_response(futures::stream::unfold(
        stream,
        |mut stream| async move { Some((stream.next().await?, stream)) },
    )))
}

/// One listener.
struct JobEventStream {
    job: JobWatch,
    /// The last position that was sent.
    position: u64,
    /// How many of the job's events were sent or missed.
    seen_events: u64,
    ready: VecDeque<Bytes>,
    is_done: bool,
    pacer: WritePacer,
    shutdown: CancellationToken,
    _place: QuotaPermit,
    _open: OpenStream,
}

impl JobEventStream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_done {
                return None;
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    self.is_done = true;
                    return Some(retry_event());
                }
                () = self.pacer.ready() => {}
            }
            self.collect();
            if !self.ready.is_empty() {
                self.pacer.record_write();
                continue;
            }
            if self.is_done {
                return None;
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {}
                changed = self.job.latest.changed() => {
                    // A job that is gone has no more events.
                    let gone = self.job.latest.borrow().job.is_none();
                    self.is_done = changed.is_err() || gone;
                }
            }
        }
    }

    /// Makes ready what is new: the statuses, then what happened, and the last status of all at the end.
    fn collect(&mut self) {
        let latest = self.job.latest.borrow_and_update();
        let latest: &JobSnapshot = &latest;
        let last = latest.job.as_ref().and_then(|shown| {
            let job = &shown.job;
            if job.timeline_dropped > self.position {
                let gap = json!({"from": self.position + 1, "to": job.timeline_dropped});
                self.ready.push_back(sse("gap", None, &gap));
            }
            self.ready.extend(shown.events_after(self.position));
            let is_news = job.position() > self.position;
            self.position = self.position.max(job.position());
            self.is_done |= job.status.is_final();
            (self.is_done && is_news).then(|| self.ready.pop_back())?
        });
        self.ready.extend(latest.events_since(self.seen_events));
        self.seen_events = latest.event_count();
        self.ready.extend(last);
    }
}
