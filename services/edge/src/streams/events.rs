//! Every status of a job in order, resumable on any edge: the id of an event is its position in the job's timeline.
//!
//! The record carries the whole timeline, so whoever has seen position *n* is told everything after *n* from any newer
//! record: nothing is skipped when several statuses are written at once, or when a listener is slow.

use std::collections::VecDeque;
use std::sync::Arc;

use aide::axum::ApiRouter;
use aide::axum::routing::get_with;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use quintet_contract::event::JobEvent;
use quintet_contract::id::JobId;
use quintet_contract::job::Job;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{come_back, last_event_id, only_events, sse};
use crate::error::{ErrorBody, HttpError};
use crate::extract::{Client, Headers, Id, Params};
use crate::feeds::JobWatch;
use crate::metrics::OpenStream;
use crate::routes::{guarded, of_one};
use crate::state::{App, Place};

pub(super) fn routes() -> ApiRouter<App> {
    ApiRouter::new().api_route(
        "/v1/jobs/{id}/events",
        get_with(events, |operation| {
            of_one(guarded(operation))
                .summary("Follow a job's statuses (server-sent events)")
                .description(
                    "`job.status` for every status in order, with `id` for `Last-Event-ID` (also `?lastEventId=`); \
                     `job.event` for what else happens. The stream ends after the last status.",
                )
                .tag("jobs")
                .input::<(Query<EventParams>, Headers<EventHeaders>)>()
                .response_with::<200, String, _>(|response| only_events(response.description("the events")))
                .response::<422, Json<ErrorBody>>()
        }),
    )
}

/// Documents the parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "describes the query")]
struct EventParams {
    /// As the header `Last-Event-ID`, for clients that cannot send it.
    #[schemars(regex(pattern = "^([0-9]{1,19})?$"))]
    last_event_id: Option<String>,
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

async fn events(
    State(app): State<App>,
    Client(address): Client,
    Id(id): Id<JobId>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, HttpError> {
    let position = last_event_id(&headers, &params, |text| text.parse().ok())?.unwrap_or(0);
    let place = app.streams.enter(address)?;
    let job = app.feeds.job(&id).await?;
    if job.latest.borrow().is_none() {
        // What was stored a moment ago may not have reached the feed.
        let found = app.job(&id).await?;
        if job.latest.borrow().is_none() && found.status.is_final() {
            return Err(HttpError::not_found());
        }
    }
    let following = Following {
        happenings: app.feeds.happenings().await?,
        job,
        id,
        position,
        ready: VecDeque::new(),
        is_over: false,
        shutdown: app.shutdown.clone(),
        _place: place,
        _open: OpenStream::new("events"),
    };
    Ok(sse(futures::stream::unfold(
        following,
        |mut following| async move {
            let event = following.next().await?;
            Some((Ok(event), following))
        },
    )))
}

/// One listener.
struct Following {
    job: JobWatch,
    happenings: broadcast::Receiver<Arc<JobEvent>>,
    id: JobId,
    /// The last position that was told.
    position: u64,
    ready: VecDeque<Event>,
    is_over: bool,
    shutdown: CancellationToken,
    _place: Place,
    _open: OpenStream,
}

impl Following {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            let latest = self.job.latest.borrow_and_update().clone();
            if let Some(job) =
                latest.filter(|job| job.position() > self.position || job.status.is_final())
            {
                self.tell(&job);
                continue;
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    self.is_over = true;
                    return Some(come_back());
                }
                changed = self.job.latest.changed() => {
                    // A job that is gone has nothing more to tell.
                    let gone = self.job.latest.borrow().is_none();
                    self.is_over = changed.is_err() || gone;
                }
                happening = self.happenings.recv() => match happening {
                    Ok(event) if event.job_id == self.id => self.ready.push_back(happened(&event)),
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => self.is_over = true,
                },
            }
        }
    }

    fn tell(&mut self, job: &Job) {
        if job.timeline_dropped > self.position {
            let gap = json!({"from": self.position + 1, "to": job.timeline_dropped});
            self.ready
                .push_back(Event::default().event("gap").data(gap.to_string()));
        }
        for (position, entry) in job.entries_after(self.position) {
            let data = json!({
                "jobId": job.id, "status": entry.status, "at": entry.at, "reason": entry.reason, "position": position,
                "job": job.at_position(position),
            });
            let event = Event::default()
                .event("job.status")
                .id(position.to_string());
            self.ready.push_back(event.data(data.to_string()));
        }
        self.position = job.position();
        self.is_over |= job.status.is_final();
    }
}

fn happened(event: &JobEvent) -> Event {
    let data = serde_json::to_string(event).unwrap_or_default();
    Event::default().event("job.event").data(data)
}
