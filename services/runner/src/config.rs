//! Configuration of a runner.

use std::time::Duration;

use quintet_contract::id::HolderId;

use crate::kubernetes::KubernetesConfig;

/// All settings of a runner. [`RunnerConfig::new`] has the documented default of all but the holder.
#[derive(Clone, Debug)]
pub struct RunnerConfig {
    /// Names this process among the runners; unique to it.
    pub holder: HolderId,
    /// How long ended runs and their logs are kept.
    pub run_retention: Duration,
    /// How long a run worker may be silent to its queue before its task is given to another.
    pub task_ack_wait: Duration,
    /// The cluster for runs of the mode `k8s`.
    pub kubernetes: KubernetesConfig,
}

impl RunnerConfig {
    /// The defaults of the specification.
    pub fn new(holder: HolderId) -> Self {
        Self {
            holder,
            run_retention: Duration::from_secs(7 * 24 * 3600),
            task_ack_wait: Duration::from_secs(10),
            kubernetes: KubernetesConfig::default(),
        }
    }
}
