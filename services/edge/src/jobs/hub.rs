//! The hub: the one watcher of jobs and agents, whose updates go to all clients of this edge.
//!
//! State and announcements change under one lock, so that a snapshot and the subscription taken with it fit together. The
//! lock is held for memory work only.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::StreamExt;
use quintet_bus::{Bus, Change, KvError, Watch, WatchFrom, now};
use quintet_contract::bucket::{Agents, Jobs};
use quintet_contract::event::JobEvent;
use quintet_contract::id::JobId;
use quintet_contract::job::Job;
use quintet_contract::socket::{Envelope, RemovedPayload, ui};
use quintet_contract::subject::LiveJobEvent;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_service::telemetry::chain;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::view::View;
use crate::http::websocket::raw::text_frame;
use crate::live::retry::until_ok;
use crate::live::topic::{self, Subscription, Topic};
use crate::live::unpoisoned;

/// Bytes that a client may be behind; one that is further behind starts again from a snapshot.
const BACKLOG_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that an update takes besides its frames.
const UPDATE_BYTES: usize = 64;
/// Bytes of the jobs of a snapshot; one job may take most of a MiB.
const MAX_SNAPSHOT_BYTES: usize = 16 * 1024 * 1024;

/// Something changed. Frames are whole frames of a WebSocket, the same bytes for all clients.
#[derive(Clone, Debug)]
pub(crate) enum Update {
    /// A job: one frame per status it went through.
    Job(JobId, Arc<[Bytes]>),
    /// An agent, as a frame.
    Agent(Bytes),
    /// An event of a job, as a frame.
    Event(JobId, Bytes),
    /// The state was read again: updates before may have gaps.
    Resync,
}

impl Update {
    /// Bytes of its frames.
    fn bytes(&self) -> usize {
        match self {
            Self::Job(_, frames) => frames.iter().map(Bytes::len).sum(),
            Self::Agent(frame) | Self::Event(_, frame) => frame.len(),
            Self::Resync => 0,
        }
    }
}

pub(crate) struct Hub {
    view: Mutex<View>,
    updates: Topic<Update>,
    /// The frames of the newest snapshot, and of which version of the view it is.
    snapshot: Mutex<Option<(u64, [Bytes; 2])>>,
}

/// Everything that a UI starts with, and the changes after it.
pub(crate) struct Snapshot {
    pub(crate) agents: Bytes,
    pub(crate) jobs: Bytes,
    pub(crate) updates: Subscription<Update>,
}

struct Watches {
    jobs: Watch<Jobs>,
    agents: Watch<Agents>,
}

impl Hub {
    /// Reads everything there is, and watches from there.
    pub(crate) async fn start(bus: Bus, tasks: &Tasks) -> Result<Arc<Self>, KvError> {
        let (view, watches) = read(&bus).await?;
        let hub = Arc::new(Self {
            view: Mutex::new(view),
            updates: Topic::new(BACKLOG_BYTES),
            snapshot: Mutex::default(),
        });
        let following = hub
            .clone()
            .watch_changes(bus.clone(), watches, tasks.token());
        tasks.spawn(
            "jobs and agents",
            ExitPolicy::Essential,
            infallible(following),
        );
        let listening = hub.clone().watch_events(bus, tasks.token());
        tasks.spawn("job events", ExitPolicy::Essential, infallible(listening));
        Ok(hub)
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        unpoisoned(self.view.lock())
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let (version, agents, jobs, updates) = {
            let view = self.view();
            let (version, updates) = (view.version(), self.updates.subscribe());
            if let Some((of, [agents, jobs])) = &*unpoisoned(self.snapshot.lock())
                && *of == version
            {
                return Snapshot {
                    agents: agents.clone(),
                    jobs: jobs.clone(),
                    updates,
                };
            }
            (version, view.agents(), view.jobs(), updates)
        };
        let agents = frame(ui::AGENT_UPDATE, &agents);
        let jobs = jobs_frame(jobs, MAX_SNAPSHOT_BYTES);
        // Thousands of clients come at once when another edge left; they share it as long as nothing changes.
        *unpoisoned(self.snapshot.lock()) = Some((version, [agents.clone(), jobs.clone()]));
        Snapshot {
            agents,
            jobs,
            updates,
        }
    }

    async fn watch_changes(
        self: Arc<Self>,
        bus: Bus,
        mut watches: Watches,
        shutdown: CancellationToken,
    ) {
        loop {
            // Cancel-safe: a change is taken only when it is returned.
            let failure = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                change = watches.jobs.next() => match change {
                    Some(Ok(change)) => { self.job_changed(change); None }
                    Some(Err(error)) => Some(chain(&error).to_string()),
                    None => Some("the watch of jobs ended".to_owned()),
                },
                change = watches.agents.next() => match change {
                    Some(Ok(change)) => { self.agent_changed(change); None }
                    Some(Err(error)) => Some(chain(&error).to_string()),
                    None => Some("the watch of agents ended".to_owned()),
                },
            };
            let Some(reason) = failure else { continue };
            warn!(reason, "watching jobs and agents again");
            let again = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                again = until_ok("cannot watch jobs and agents", || read(&bus)) => again,
            };
            watches = again.1;
            let mut view = self.view();
            let before = std::mem::replace(&mut *view, again.0);
            view.replace(before);
            self.publish(Update::Resync);
        }
    }

    fn job_changed(&self, change: Change<Jobs>) {
        match change {
            Change::Put { record, .. } => {
                let id = record.job.id.clone();
                let mut view = self.view();
                let states = view.put_job(record.job);
                if self.updates.subscribers() > 0 {
                    let frames = states
                        .iter()
                        .map(|job| frame(ui::JOB_UPDATE, job))
                        .collect();
                    self.publish(Update::Job(id, frames));
                }
            }
            Change::Gone { key, .. } => {
                let mut view = self.view();
                view.remove_job(&key);
                if self.updates.subscribers() > 0 {
                    let frames = [removed(ui::JOB_REMOVED, key.as_str())].into();
                    self.publish(Update::Job(key, frames));
                }
            }
            Change::UpToDate => {}
        }
    }

    fn agent_changed(&self, change: Change<Agents>) {
        match change {
            Change::Put { record, .. } => {
                let frame = frame(ui::AGENT_UPDATE, &record.agent);
                let mut view = self.view();
                view.put_agent(record.agent);
                self.publish(Update::Agent(frame));
            }
            Change::Gone { key, .. } => {
                let mut view = self.view();
                view.remove_agent(&key);
                self.publish(Update::Agent(removed(ui::AGENT_REMOVED, key.as_str())));
            }
            Change::UpToDate => {}
        }
    }

    /// Passes events on as they come.
    async fn watch_events(self: Arc<Self>, bus: Bus, shutdown: CancellationToken) {
        let filter = LiveJobEvent::filter(bus.prefix(), None);
        let deliveries = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            deliveries = topic::subscribe::<LiveJobEvent>(&bus, &filter) => deliveries,
        };
        topic::relay(bus, filter, deliveries, shutdown, |event| {
            self.event_received(event.message);
        })
        .await;
    }

    fn publish(&self, update: Update) {
        let bytes = UPDATE_BYTES + update.bytes();
        self.updates.publish(update, bytes);
    }

    fn event_received(&self, event: JobEvent) {
        self.view().record_event(&event);
        if self.updates.subscribers() > 0 {
            let frame = frame(ui::JOB_EVENT, &event);
            self.publish(Update::Event(event.job_id, frame));
        }
    }
}

async fn infallible(work: impl Future<Output = ()>) -> Result<(), std::convert::Infallible> {
    work.await;
    Ok(())
}

/// A frame for UIs.
fn frame<P: Serialize>(kind: &str, payload: &P) -> Bytes {
    let envelope = Envelope {
        kind: kind.to_owned(),
        msg_id: Some(quintet_bus::new_message_id().to_string()),
        ts: Some(now().to_string()),
        correlation_id: None,
        payload,
    };
    text_frame(&serde_json::to_string(&envelope).unwrap_or_default())
}

fn removed(kind: &str, id: &str) -> Bytes {
    let id = id.to_owned();
    frame(kind, &RemovedPayload { id })
}

/// The jobs of a snapshot, oldest first, as far as they fit; the most important come first.
fn jobs_frame(jobs: Vec<Arc<Job>>, max_bytes: usize) -> Bytes {
    let mut bytes = 0;
    let mut fitting: Vec<(Arc<Job>, String)> = jobs
        .into_iter()
        .filter_map(|job| {
            let text = serde_json::to_string(&job).ok()?;
            Some((job, text))
        })
        .take_while(|(_, text)| {
            bytes += text.len() + 1;
            bytes <= max_bytes
        })
        .collect();
    fitting.sort_by(|(a, _), (b, _)| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    let texts: Vec<String> = fitting.into_iter().map(|(_, text)| text).collect();
    // An envelope around texts that are JSON already; neither an id nor a time has anything to escape.
    let (kind, id, ts) = (ui::JOB_UPDATE, quintet_bus::new_message_id(), now());
    text_frame(&format!(
        r#"{{"type":"{kind}","msgId":"{id}","ts":"{ts}","payload":[{}]}}"#,
        texts.join(",")
    ))
}

/// Everything there is, and the watches that continue after it.
async fn read(bus: &Bus) -> Result<(View, Watches), KvError> {
    let (jobs, agents) = (bus.bucket::<Jobs>(), bus.bucket::<Agents>());
    let mut watches = Watches {
        jobs: jobs.watch(WatchFrom::Start).await?,
        agents: agents.watch(WatchFrom::Start).await?,
    };
    let mut view = View::default();
    loop {
        match watches.jobs.next().await {
            Some(Ok(Change::Put { record, .. })) => drop(view.put_job(record.job)),
            Some(Ok(Change::Gone { key, .. })) => view.remove_job(&key),
            Some(Ok(Change::UpToDate)) | None => break,
            Some(Err(error)) => return Err(error),
        }
    }
    loop {
        match watches.agents.next().await {
            Some(Ok(Change::Put { record, .. })) => view.put_agent(record.agent),
            Some(Ok(Change::Gone { key, .. })) => view.remove_agent(&key),
            Some(Ok(Change::UpToDate)) | None => break,
            Some(Err(error)) => return Err(error),
        }
    }
    Ok((view, watches))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(id: &str, created: u32) -> Arc<Job> {
        let at = format!("2026-01-01T00:00:{created:02}.000Z");
        let job = json!({"id": id, "status": "RUNNING", "createdAt": at, "updatedAt": at, "requestedBy": "x"});
        Arc::new(serde_json::from_value(job).unwrap())
    }

    /// The text of a frame, behind its header.
    fn envelope(frame: &Bytes) -> Value {
        let begin = frame.windows(2).position(|two| two == b"{\"").unwrap();
        serde_json::from_slice(&frame[begin..]).unwrap()
    }

    #[test]
    fn a_snapshot_holds_the_most_important_jobs_that_fit_in_their_order() {
        let jobs = || vec![job("c", 3), job("b", 2), job("a", 1)];
        let one = serde_json::to_string(&job("a", 1)).unwrap().len() + 1;
        let ids = |max_bytes| {
            let envelope = envelope(&jobs_frame(jobs(), max_bytes));
            assert_eq!(envelope["type"], ui::JOB_UPDATE);
            assert!(envelope["msgId"].is_string() && envelope["ts"].is_string());
            let jobs = envelope["payload"].as_array().unwrap().iter();
            jobs.map(|job| job["id"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(usize::MAX), ["a", "b", "c"]);
        assert_eq!(ids(2 * one), ["b", "c"]);
        assert_eq!(ids(one), ["c"]);
        assert!(ids(one - 1).is_empty());
        let removed = envelope(&removed(ui::JOB_REMOVED, "a \" b"));
        assert_eq!(removed["payload"], json!({"id": "a \" b"}));
    }
}
