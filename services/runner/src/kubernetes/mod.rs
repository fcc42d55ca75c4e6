//! Runs nodes on Kubernetes: one attempt of one node is one Job.
//!
//! [`Kubernetes::execute`] makes the Job, or adopts the one that a runner before made, and reports what happens as a
//! run worker would: the program's events from the log of its pod, and last how it ended. The end is reported only when
//! the log was read to its end, so that no output of a node that succeeded is missing.
//!
//! ```text
//!   make or adopt the Job ── refused ───────────────────────────────► failed
//!        │
//!   wait for its pod ── stuck, or not started in time: remove Job ──► failed
//!        │
//!   read the log until the program ended and the log is whole ──────► how it ended
//!        │
//!   at any moment: cancel ── remove Job, nothing more is reported
//! ```
//!
//! Kubernetes keeps one log of both outputs of a program: lines of standard error are reported as if they were standard
//! output.
//!
//! Dropping the future leaves the Job alone, so that another runner can adopt it. An API that does not answer is
//! asked again without an end: a Job that may run must not be given up for a second one.

mod attempt;
mod config;
mod error;
mod follow;
mod job;
mod log;
mod names;
mod pod;
mod retry;
mod verdict;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config};
use quintet_contract::id::{NodeId, RunId};
use quintet_contract::job::Attempt;
use quintet_contract::task::{CommandSpec, WorkerEvent};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use config::{KubernetesConfig, ParseQuantityError, Quantity};
pub use error::KubernetesError;

/// One attempt of one node.
#[derive(Clone, Debug)]
pub(crate) struct Execution {
    /// The run.
    pub(crate) run: RunId,
    /// The node.
    pub(crate) node: NodeId,
    /// Its attempt.
    pub(crate) attempt: Attempt,
    /// The program; its image is needed.
    pub(crate) command: CommandSpec,
    /// `INPUT_SPEC`, `INPUT_CONTEXT` and `RESUME_STATE`, as in the texts of a `ProgramInput`; the program's identity is
    /// added.
    pub(crate) env: BTreeMap<String, String>,
    /// Longest time of the attempt; the cluster ends it.
    pub(crate) timeout: Option<Duration>,
    /// A heartbeat is due this often.
    pub(crate) heartbeat: Option<Duration>,
    /// Number of the last event of this attempt that was processed by a runner before; 0 when there was none.
    pub(crate) after: u64,
}

impl Execution {
    /// The name of its Job.
    pub(crate) fn job_name(&self) -> String {
        names::job_name(self.run, &self.node, self.attempt)
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reported {
    /// Its number: higher than those before it, with gaps, and the same whenever the log is read again. 0 for heartbeats.
    pub(crate) seq: u64,
    /// What happened.
    pub(crate) event: WorkerEvent,
}

/// How often and how long things are waited for.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How often the Job is polled, at least.
    poll: Duration,
    /// First wait before asking again.
    retry_min: Duration,
    /// Longest wait before asking again.
    retry_max: Duration,
    /// A log that is silent for this long is opened again: the connection may be dead.
    log_silence: Duration,
    /// The same once the program has ended.
    last_silence: Duration,
    /// How long the Job's own end may come after that of its pod, and the other way round.
    settle: Duration,
}

impl Pace {
    const NORMAL: Self = Self {
        poll: Duration::from_secs(15),
        retry_min: Duration::from_millis(200),
        retry_max: Duration::from_secs(20),
        log_silence: Duration::from_secs(300),
        last_silence: Duration::from_secs(10),
        settle: Duration::from_secs(30),
    };
}

/// A cluster in which nodes run.
#[derive(Clone)]
pub(crate) struct Kubernetes {
    jobs: Api<Job>,
    pods: Api<Pod>,
    config: KubernetesConfig,
    pace: Pace,
}

impl Kubernetes {
    /// Reads where the cluster is. The cluster itself is not asked for anything yet.
    pub(crate) async fn connect(config: &KubernetesConfig) -> Result<Self, KubernetesError> {
        config.check()?;
        let cluster = cluster(config).await?;
        let client = Client::try_from(cluster).map_err(|source| KubernetesError::Client {
            source: Box::new(source),
        })?;
        Ok(Self {
            jobs: Api::namespaced(client.clone(), &config.namespace),
            pods: Api::namespaced(client, &config.namespace),
            config: config.clone(),
            pace: Pace::NORMAL,
        })
    }

    /// Runs one attempt of one node, or continues with it if its Job exists, until it ends or `cancel` fires.
    ///
    /// The last event is `succeeded` or `failed`; after `cancel` there is none, and the Job is removed. Ends early when
    /// the receiver of the events is gone; the Job then continues, as it does when this future is dropped.
    pub(crate) async fn execute(
        &self,
        execution: Execution,
        events: mpsc::Sender<Reported>,
        cancel: CancellationToken,
    ) {
        let name = execution.job_name();
        attempt::Running {
            kubernetes: self,
            execution: &execution,
            name: &name,
            events: &events,
            cancel: &cancel,
        }
        .run()
        .await;
    }
}

async fn cluster(config: &KubernetesConfig) -> Result<Config, KubernetesError> {
    if let Some(path) = &config.kubeconfig {
        let refused = |source| KubernetesError::Kubeconfig {
            path: path.clone(),
            source: Box::new(source),
        };
        let kubeconfig = read(path).map_err(refused)?;
        return Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(refused);
    }
    if config.in_cluster {
        return Config::incluster().map_err(|source| KubernetesError::InCluster {
            source: Box::new(source),
        });
    }
    Err(KubernetesError::NotConfigured)
}

/// The files of a kubeconfig, the first of which wins.
fn read(paths: &Path) -> Result<Kubeconfig, KubeconfigError> {
    let paths = std::env::split_paths(paths).filter(|path| !path.as_os_str().is_empty());
    paths
        .into_iter()
        .try_fold(Kubeconfig::default(), |merged, path| {
            merged.merge(Kubeconfig::read_from(path)?)
        })
}
