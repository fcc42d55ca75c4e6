//! The pools, and the pool of a job or an agent.
//!
//! A pool is there when a scheduler leads it, which the bucket of leases shows; the default pool always counts. As long
//! as there is only one, no lookup is needed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use quintet_bus::{Bus, Change, WatchFrom};
use quintet_contract::bucket::{Agents, Jobs, LeaseKey, Leases};
use quintet_contract::id::{AgentId, JobId, PoolName};
use quintet_service::tasks::{ExitPolicy, Tasks};
use tokio_util::sync::CancellationToken;

use crate::error::HttpError;
use crate::live::Part;

/// Wait before the watch is restarted after it ended.
const RETRY_DELAY: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Pools {
    bus: Bus,
    known: Arc<RwLock<BTreeSet<PoolName>>>,
    /// Whether the leases were read once; before that there may be more pools than are known.
    is_loaded: Arc<AtomicBool>,
}

impl Part for Pools {
    fn start(bus: &Bus, tasks: &Tasks) -> Self {
        let pools = Self {
            bus: bus.clone(),
            known: Arc::default(),
            is_loaded: Arc::default(),
        };
        let following = pools.clone().follow(tasks.token());
        tasks.spawn("pools", ExitPolicy::Essential, async move {
            following.await;
            Ok::<_, std::convert::Infallible>(())
        });
        pools
    }
}

impl Pools {
    /// Follows the leases until `shutdown`. A pool whose leader is gone stays known: its jobs are still there.
    async fn follow(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.watch() => {}
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY_DELAY) => {}
            }
        }
    }

    async fn watch(&self) {
        let Ok(mut changes) = self.bus.bucket::<Leases>().watch(WatchFrom::Start).await else {
            return;
        };
        while let Some(Ok(change)) = changes.next().await {
            if matches!(change, Change::UpToDate) {
                self.is_loaded.store(true, Ordering::Relaxed);
            }
            if let Change::Put {
                key: LeaseKey::Scheduler(pool),
                ..
            } = change
            {
                let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                known.insert(pool);
            }
        }
    }

    /// Every pool, the default one first.
    pub(crate) fn all(&self) -> Vec<PoolName> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let others = known.iter().filter(|pool| !pool.is_default()).cloned();
        std::iter::once(PoolName::default()).chain(others).collect()
    }

    fn only(&self) -> Option<PoolName> {
        let mut all = self.all();
        let is_only = all.len() == 1 && self.is_loaded.load(Ordering::Relaxed);
        is_only.then(|| all.remove(0))
    }

    /// The pool of a job; for one that is not stored, the default pool, which answers that it is unknown.
    pub(crate) async fn of_job(&self, id: &JobId) -> Result<PoolName, HttpError> {
        if let Some(only) = self.only() {
            return Ok(only);
        }
        let found = self.bus.bucket::<Jobs>().get(id).await?;
        Ok(found.map(|job| job.record.job.pool).unwrap_or_default())
    }

    /// The pool of an agent, likewise.
    pub(crate) async fn of_agent(&self, id: &AgentId) -> Result<PoolName, HttpError> {
        if let Some(only) = self.only() {
            return Ok(only);
        }
        let found = self.bus.bucket::<Agents>().get(id).await?;
        Ok(found
            .map(|agent| agent.record.agent.pool)
            .unwrap_or_default())
    }
}
