//! Feeds of jobs: the [`Hub`] of jobs and agents, started with the first client that needs it, and the output of the jobs that
//! are followed ([`LogFeeds`]).

use std::sync::Arc;

use quintet_bus::{Bus, KvError};
use quintet_contract::bucket::Jobs;
use quintet_contract::id::JobId;
use quintet_service::tasks::Tasks;
use tokio::sync::{OnceCell, watch};

use super::hub::{Hub, Snapshot};
use super::log_feed::{LogBatch, LogFeeds};
use super::snapshot::JobSnapshot;
use crate::error::HttpError;
use crate::live::Part;
use crate::live::topic::Subscription;

/// The feeds of jobs.
pub(crate) struct JobFeeds {
    bus: Bus,
    tasks: Tasks,
    hub: OnceCell<Arc<Hub>>,
    logs: LogFeeds,
}

/// The newest state of one job and what happens to it, for as long as it is followed.
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

impl Part for JobFeeds {
    fn start(bus: &Bus, tasks: &Tasks) -> Self {
        Self {
            bus: bus.clone(),
            tasks: tasks.clone(),
            hub: OnceCell::new(),
            logs: LogFeeds::new(bus.clone(), tasks.clone()),
        }
    }
}

impl JobFeeds {
    async fn hub(&self) -> Result<&Arc<Hub>, KvError> {
        let start = || Hub::start(self.bus.clone(), &self.tasks);
        self.hub.get_or_try_init(start).await
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
            let found = self.bus.bucket::<Jobs>().get(id).await?;
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

    /// The output of a job from now on.
    pub(crate) async fn logs(&self, id: &JobId) -> Result<Subscription<Arc<LogBatch>>, HttpError> {
        self.logs.follow(id).await
    }
}
