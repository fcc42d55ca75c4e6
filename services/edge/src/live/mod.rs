//! What changes, once for all listeners of this edge.
//!
//! The first listener starts the hub, which watches the buckets of jobs and agents and the happenings of jobs; every
//! later one shares it. The output of a job is followed by one subscription per job that anybody follows, the
//! log of a run likewise.
//! Nothing is kept per listener but its place: who is too slow reads the current state again.

pub(crate) mod log_reader;
pub(crate) mod write_pacer;

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use quintet_bus::{Bus, KvError};
use quintet_contract::bucket::Jobs;
use quintet_contract::id::{JobId, RunId};
use quintet_service::tasks::Tasks;
use tokio::sync::{OnceCell, broadcast, watch};

use crate::error::HttpError;
use crate::frames::stats_feed::{StatsFeed, StatsSubscription};
use crate::jobs::hub::{Hub, Update};
use crate::jobs::log_feed::{LogBatch, LogFeeds};
use crate::jobs::snapshot::JobSnapshot;
use crate::runs::events::{RunFeeds, RunSubscription};

/// Access to the feeds; clones share them.
#[derive(Clone)]
pub(crate) struct Feeds {
    inner: Arc<Inner>,
}

struct Inner {
    bus: Bus,
    tasks: Tasks,
    hub: OnceCell<Arc<Hub>>,
    frames: OnceCell<StatsFeed>,
    logs: LogFeeds,
    runs: RunFeeds,
}

/// The newest state of one job and what happens to it, for as long as somebody looks.
pub(crate) struct JobWatch {
    hub: Arc<Hub>,
    id: JobId,
    pub(crate) latest: watch::Receiver<JobSnapshot>,
}

impl Drop for JobWatch {
    fn drop(&mut self) {
        self.hub.view().unwatch(&self.id);
    }
}

/// Everything that a UI starts with, and the changes after it.
pub(crate) struct Snapshot {
    pub(crate) agents: Bytes,
    pub(crate) jobs: Bytes,
    pub(crate) updates: broadcast::Receiver<Update>,
}

impl Feeds {
    pub(crate) fn new(bus: Bus, tasks: Tasks) -> Self {
        let logs = LogFeeds::new(bus.clone(), tasks.clone());
        let runs = RunFeeds::new(bus.clone(), tasks.clone());
        Self {
            inner: Arc::new(Inner {
                bus,
                tasks,
                hub: OnceCell::new(),
                frames: OnceCell::new(),
                logs,
                runs,
            }),
        }
    }

    async fn hub(&self) -> Result<&Arc<Hub>, HttpError> {
        let started = self
            .inner
            .hub
            .get_or_try_init(|| Hub::start(self.inner.bus.clone(), &self.inner.tasks));
        started.await.map_err(HttpError::from)
    }

    /// The state of a job from now on.
    pub(crate) async fn job(&self, id: &JobId) -> Result<JobWatch, HttpError> {
        let hub = self.hub().await?.clone();
        let latest = hub.view().watch(id);
        let watch = JobWatch {
            hub,
            id: id.clone(),
            latest,
        };
        if watch.latest.borrow().job.is_none() {
            // An ended job that is no longer among the newest: not in memory, but perhaps in the bucket.
            let found = self
                .inner
                .bus
                .bucket::<Jobs>()
                .get(id)
                .await
                .map_err(HttpError::from)?;
            if let Some(found) = found {
                watch.hub.view().found(&found.record.job);
            }
        }
        Ok(watch)
    }

    /// Agents and jobs as they are now, and every change after that: nothing is missed in between.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, HttpError> {
        Ok(self.hub().await?.snapshot())
    }

    /// What goes on with frames from now on.
    pub(crate) async fn frames(&self) -> Result<StatsSubscription, HttpError> {
        let inner = &self.inner;
        let start = || StatsFeed::start(inner.bus.clone(), &inner.tasks);
        Ok(inner.frames.get_or_try_init(start).await?.listen())
    }

    /// The output of a job from now on.
    pub(crate) async fn logs(
        &self,
        id: &JobId,
    ) -> Result<broadcast::Receiver<Arc<LogBatch>>, HttpError> {
        self.inner.logs.follow(id).await
    }

    /// The log of a run: everything that is stored after this call is told.
    pub(crate) async fn run(&self, id: RunId) -> Result<RunSubscription, HttpError> {
        self.inner.runs.subscribe(id).await
    }
}

/// A lock whose holder panicked is as good as any: every change of a view is complete in itself.
pub(crate) fn unpoisoned<T>(lock: std::sync::LockResult<T>) -> T {
    lock.unwrap_or_else(PoisonError::into_inner)
}

pub(crate) type Started<T> = Result<T, KvError>;
