//! Watch of the pod of a Job: list once, then watch from there.
//!
//! A watch that ends is resumed where it stopped; bookmarks move that place on while nothing happens. When the API has
//! forgotten the place (410 Gone) everything is listed again. A watch that is silent for longer than the API would let
//! it be is a dead connection, and is resumed too.

use std::convert::Infallible;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Pace;
use super::pod::{self, PodState};
use super::retry::{ApiFailure, Retries, send};

/// After this long the API ends a watch by itself.
const WATCH_SECONDS: u32 = 240;
/// How long a watch may be silent.
const WATCH_SILENCE: Duration = Duration::from_secs(270);

/// The pod of a Job as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodSeen {
    /// Its name, once there is one.
    pub(super) name: Option<String>,
    /// Its state.
    pub(super) state: PodState,
}

impl Default for PodSeen {
    fn default() -> Self {
        Self {
            name: None,
            state: PodState::Waiting(None),
        }
    }
}

/// Watches the pod of one Job.
pub(super) struct PodWatch<'a> {
    pub(super) job: &'a str,
    pub(super) pods: &'a Api<Pod>,
    /// Selects the pods of the Job.
    pub(super) selector: &'a str,
    pub(super) seen: &'a watch::Sender<PodSeen>,
    pub(super) pace: Pace,
}

impl PodWatch<'_> {
    /// Publishes the state of the pod, until it is dropped.
    pub(super) async fn run(&self) -> Infallible {
        let mut retries = Retries::new(self.pace);
        let mut version = None;
        loop {
            let step = match &version {
                None => self.list(&mut version).await,
                Some(_) => self.watch(&mut version).await,
            };
            match step {
                Ok(()) => retries.succeeded(),
                Err(api_failure) if api_failure.is_forgotten() => version = None,
                Err(api_failure) => retries.wait("watch pod", self.job, &api_failure).await,
            }
        }
    }

    async fn list(&self, version: &mut Option<String>) -> Result<(), ApiFailure> {
        let params = ListParams::default().labels(self.selector);
        let mut pods = send(self.pods.list(&params)).await?;
        *version = Some(pods.metadata.resource_version.unwrap_or_default());
        // A Job whose controller was in two minds may have a second pod for a moment; the first one is ours.
        pods.items.sort_by(|one, other| born(one).cmp(&born(other)));
        let name = self.seen.borrow().name.clone();
        match name {
            None => {
                if let Some(pod) = pods.items.first() {
                    self.publish(pod);
                }
            }
            Some(name) => match pods.items.iter().find(|pod| has_name(pod, &name)) {
                Some(pod) => self.publish(pod),
                None => self.publish_state(PodState::Gone),
            },
        }
        Ok(())
    }

    /// Watches until the API ends it.
    async fn watch(&self, version: &mut Option<String>) -> Result<(), ApiFailure> {
        let params = WatchParams::default()
            .labels(self.selector)
            .timeout(WATCH_SECONDS);
        let from = version.clone().unwrap_or_default();
        let mut events = Box::pin(send(self.pods.watch(&params, &from)).await?);
        while let Ok(Some(event)) = timeout(WATCH_SILENCE, events.next()).await {
            match event? {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    version.clone_from(&pod.metadata.resource_version);
                    self.publish(&pod);
                }
                WatchEvent::Deleted(pod) => {
                    version.clone_from(&pod.metadata.resource_version);
                    self.publish(&pod);
                    if self.is_ours(&pod) {
                        self.publish_state(PodState::Gone);
                    }
                }
                WatchEvent::Bookmark(bookmark) => {
                    *version = Some(bookmark.metadata.resource_version);
                }
                WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            }
        }
        // An API that ends every watch at once is not asked in a busy loop.
        sleep(self.pace.retry_min).await;
        Ok(())
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let seen = self.seen.borrow();
        seen.name.as_deref().is_none_or(|name| has_name(pod, name))
    }

    fn publish(&self, pod: &Pod) {
        if !self.is_ours(pod) {
            return;
        }
        self.seen.send_if_modified(|seen| {
            seen.name.clone_from(&pod.metadata.name);
            change(seen, pod::state(pod))
        });
    }

    fn publish_state(&self, state: PodState) {
        self.seen.send_if_modified(|seen| change(seen, state));
    }
}

/// The end of a program is final: later changes of its pod do not count.
fn change(seen: &mut PodSeen, state: PodState) -> bool {
    if matches!(seen.state, PodState::Ended(_)) || seen.state == state {
        return false;
    }
    seen.state = state;
    true
}

fn born(pod: &Pod) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time> {
    pod.metadata.creation_timestamp.as_ref()
}

fn has_name(pod: &Pod, name: &str) -> bool {
    pod.metadata.name.as_deref() == Some(name)
}
