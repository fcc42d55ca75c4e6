//! Settings of a scheduler.

use std::time::Duration;

use quintet_scheduler::SchedulerConfig;
use quintet_service::settings::{Reader, Setting};

use super::process::holder;
use super::shared::{JOB_RETENTION, POOL, STOP_GRACE, pool, setting};

/// The settings of this file, and those that a scheduler shares with others.
pub(crate) const TABLE: &[Setting] = &[
    POOL,
    setting(
        "heartbeat_interval_ms",
        "HEARTBEAT_INTERVAL_MS",
        Some("3000"),
        "how often agents send heartbeats",
    ),
    setting(
        "heartbeat_timeout_ms",
        "HEARTBEAT_TIMEOUT_MS",
        Some("10000"),
        "silence after which an agent is lost",
    ),
    STOP_GRACE,
    setting(
        "kill_after_ms",
        "KILL_AFTER_MS",
        Some("5000"),
        "how long an agent may take to confirm a kill",
    ),
    setting(
        "assign_ack_timeout_ms",
        "ASSIGN_ACK_TIMEOUT_MS",
        Some("5000"),
        "how long an agent may take to answer an offer",
    ),
    JOB_RETENTION,
    setting(
        "max_agents",
        "MAX_AGENTS",
        Some("20000"),
        "most agents of a pool, online or not; a new one beyond that is refused",
    ),
];

/// Reads [`TABLE`].
pub(crate) fn read(read: &mut Reader<'_>) -> SchedulerConfig {
    let mut scheduler = SchedulerConfig::new(holder());
    scheduler.pool = pool(read);
    scheduler.heartbeat_interval = read.millis("heartbeat_interval_ms");
    scheduler.heartbeat_timeout = read.millis("heartbeat_timeout_ms");
    scheduler.stop_grace = read.millis("stop_grace_ms");
    scheduler.kill_after = read.millis("kill_after_ms");
    scheduler.assign_ack_timeout = read.millis("assign_ack_timeout_ms");
    scheduler.job_retention = read.duration("job_retention");
    scheduler.max_agents = read.parse("max_agents");
    let longer = scheduler.heartbeat_timeout > scheduler.heartbeat_interval;
    read.check(
        "heartbeat_timeout_ms",
        longer,
        "must be longer than the heartbeat interval",
    );
    read.check(
        "heartbeat_interval_ms",
        !scheduler.heartbeat_interval.is_zero(),
        "must be 1 or more",
    );
    let long_enough = scheduler.job_retention >= Duration::from_secs(1);
    read.check("job_retention", long_enough, "must be 1 s or more");
    scheduler
}
