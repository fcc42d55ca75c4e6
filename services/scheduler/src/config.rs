//! Configuration of a scheduler.

use std::time::Duration;

use quintet_contract::id::{HolderId, PoolName};

/// All settings of a scheduler. [`SchedulerConfig::new`] has the documented default of all but the holder.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Names this process among those that may lead; unique to it.
    pub holder: HolderId,
    /// The pool it leads, or waits to lead.
    pub pool: PoolName,
    /// How often agents send heartbeats.
    pub heartbeat_interval: Duration,
    /// An agent not seen for this long is lost.
    pub heartbeat_timeout: Duration,
    /// How long a job may take to stop before it is killed.
    pub stop_grace: Duration,
    /// How long an agent may take to confirm a kill.
    pub kill_after: Duration,
    /// How long an agent may take to answer an offer.
    pub assign_ack_timeout: Duration,
    /// How long ended jobs and their idempotency keys are kept.
    pub job_retention: Duration,
    /// Most agents of the pool, online or not; a new one beyond that is refused.
    pub max_agents: usize,
}

impl SchedulerConfig {
    /// The defaults of the specification.
    pub fn new(holder: HolderId) -> Self {
        Self {
            holder,
            pool: PoolName::default(),
            heartbeat_interval: Duration::from_secs(3),
            heartbeat_timeout: Duration::from_secs(10),
            stop_grace: Duration::from_secs(10),
            kill_after: Duration::from_secs(5),
            assign_ack_timeout: Duration::from_secs(5),
            job_retention: Duration::from_secs(7 * 24 * 3600),
            max_agents: 20_000,
        }
    }
}
