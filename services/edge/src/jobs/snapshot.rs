//! The newest state of one job and its server-sent events, encoded once for all clients.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quintet_contract::event::JobEvent;
use quintet_contract::id::JobId;
use quintet_contract::job::{Job, JobStatus};
use quintet_contract::time::Timestamp;
use serde::Serialize;

/// Events that a client may be behind; one that is further behind misses the oldest.
const MAX_EVENTS: usize = 256;

/// The newest state of a job, and its latest events.
#[derive(Debug, Default)]
pub(crate) struct JobSnapshot {
    /// None once the job is gone, or when there never was one.
    pub(crate) job: Option<Arc<RenderedJob>>,
    events: VecDeque<Bytes>,
    /// How many events there were that are no longer kept.
    dropped: u64,
}

impl JobSnapshot {
    pub(crate) fn of(job: Option<Arc<Job>>) -> Self {
        Self {
            job: job.map(RenderedJob::new),
            ..Self::default()
        }
    }

    pub(crate) fn put(&mut self, job: Option<Arc<Job>>) {
        self.job = job.map(RenderedJob::new);
    }

    pub(crate) fn record_event(&mut self, event: &JobEvent) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(sse("job.event", None, event));
    }

    /// Whether the job has ended or is gone.
    pub(crate) fn is_done(&self) -> bool {
        self.job
            .as_ref()
            .is_none_or(|rendered| rendered.job.status.is_final())
    }

    /// How many events there were so far.
    pub(crate) fn event_count(&self) -> u64 {
        self.dropped + self.events.len() as u64
    }

    /// The events after the first `seen`, as server-sent events.
    pub(crate) fn events_since(&self, seen: u64) -> impl Iterator<Item = Bytes> {
        let skip = usize::try_from(seen.saturating_sub(self.dropped)).unwrap_or(usize::MAX);
        self.events.iter().skip(skip).cloned()
    }
}

/// A job, and the server-sent events of its statuses.
#[derive(Debug)]
pub(crate) struct RenderedJob {
    pub(crate) job: Arc<Job>,
    /// One per entry of the timeline, written when the first follower needs it.
    events: Box<[OnceLock<Bytes>]>,
}

/// The data of a `job.status` event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    job_id: &'a JobId,
    status: JobStatus,
    at: Timestamp,
    reason: Option<&'a str>,
    position: u64,
    job: &'a Job,
}

impl RenderedJob {
    fn new(job: Arc<Job>) -> Arc<Self> {
        let events = job.timeline.iter().map(|_| OnceLock::new()).collect();
        Arc::new(Self { job, events })
    }

    /// The statuses after a position as server-sent events, oldest first.
    pub(crate) fn events_after(&self, position: u64) -> impl Iterator<Item = Bytes> {
        let entries = self.job.timeline.iter().zip(&self.events);
        let numbered = (self.job.timeline_dropped + 1..).zip(entries);
        numbered
            .filter(move |(at, _)| *at > position)
            .map(|(at, (entry, event))| {
                let written = event.get_or_init(|| {
                    let before;
                    let job = if at == self.job.position() {
                        &*self.job
                    } else {
                        before = self.job.at_position(at);
                        &before
                    };
                    let status = Status {
                        job_id: &job.id,
                        status: entry.status,
                        at: entry.at,
                        reason: entry.reason.as_deref(),
                        position: at,
                        job,
                    };
                    sse("job.status", Some(&at.to_string()), &status)
                });
                written.clone()
            })
    }
}

/// A server-sent event; JSON holds no line end.
pub(crate) fn sse<T: Serialize>(event: &str, id: Option<&str>, data: &T) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_default();
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {event}\n{id}data: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job() -> Arc<Job> {
        let at = "2026-01-01T00:00:00.000Z";
        let timeline = ["CREATED", "PENDING", "CANCELED"]
            .map(|status| json!({"status": status, "at": at, "reason": "because\nof"}));
        let job = json!({"id": "j", "status": "CANCELED", "createdAt": at, "updatedAt": at, "endedAt": at,
            "requestedBy": "x", "timeline": timeline, "timelineDropped": 7});
        Arc::new(serde_json::from_value(job).unwrap())
    }

    #[test]
    fn every_status_is_sent_with_the_job_as_it_was_then_and_encoded_once() {
        let rendered = RenderedJob::new(job());
        let events: Vec<Bytes> = rendered.events_after(8).collect();
        let text = std::str::from_utf8(&events[0]).unwrap();
        let (head, data) = text.split_once("data: ").unwrap();
        assert_eq!(head, "event: job.status\nid: 9\n");
        let data: Value = serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap();
        assert_eq!(
            (&data["status"], &data["position"]),
            (&json!("PENDING"), &json!(9))
        );
        assert_eq!(data["job"]["status"], "PENDING", "not as it is now");
        assert_eq!(events.len(), 2);
        let again: Vec<Bytes> = rendered.events_after(9).collect();
        assert_eq!(again.len(), 1);
        assert_eq!(
            again[0].as_ptr(),
            events[1].as_ptr(),
            "shared, not written again"
        );
    }

    #[test]
    fn a_lagging_client_misses_the_oldest_events_and_no_other() {
        let mut latest = JobSnapshot::default();
        let event: JobEvent = serde_json::from_value(
            json!({"jobId": "j", "type": "t", "message": "m", "ts": "2026-01-01T00:00:00.000Z"}),
        )
        .unwrap();
        for _ in 0..MAX_EVENTS + 10 {
            latest.record_event(&event);
        }
        let total = MAX_EVENTS as u64 + 10;
        assert_eq!(latest.event_count(), total);
        assert_eq!(latest.events_since(0).count(), MAX_EVENTS);
        assert_eq!(latest.events_since(total - 3).count(), 3);
        assert_eq!(latest.events_since(total).count(), 0);
    }
}
