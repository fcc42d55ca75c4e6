//! Names of the scheduler's metrics and the few functions that write them. Labels come from closed sets.

use metrics::{counter, gauge, histogram};

use crate::core::{Anomaly, Sizes};

/// 1 while this process leads its pool, else 0.
pub const LEADING: &str = "scheduler_leading";
/// Jobs in memory, ended ones included.
pub const JOBS: &str = "scheduler_jobs";
/// Jobs that wait for an agent.
pub const JOBS_WAITING: &str = "scheduler_jobs_waiting";
/// Agents, by `state`: online, offline.
pub const AGENTS: &str = "scheduler_agents";
/// Records written.
pub const WRITES_TOTAL: &str = "scheduler_writes_total";
/// Seconds that one group commit took.
pub const COMMIT_SECONDS: &str = "scheduler_commit_seconds";
/// Anomalous reports, by `kind`.
pub const ANOMALIES_TOTAL: &str = "scheduler_oddities_total";
/// Reloads of the state after an indeterminate write.
pub const RELOADS_TOTAL: &str = "scheduler_reloads_total";

pub(crate) fn leading(leads: bool) {
    gauge!(LEADING).set(if leads { 1.0 } else { 0.0 });
}

pub(crate) fn sizes(sizes: Sizes) {
    gauge!(JOBS).set(sizes.jobs as f64);
    gauge!(JOBS_WAITING).set(sizes.waiting as f64);
    gauge!(AGENTS, "state" => "online").set(sizes.online as f64);
    gauge!(AGENTS, "state" => "offline").set((sizes.agents - sizes.online) as f64);
}

pub(crate) fn committed(writes: usize, seconds: f64) {
    counter!(WRITES_TOTAL).increment(writes as u64);
    histogram!(COMMIT_SECONDS).record(seconds);
}

pub(crate) fn reloaded() {
    counter!(RELOADS_TOTAL).increment(1);
}

pub(crate) fn anomaly(anomaly: Anomaly) {
    let kind = match anomaly {
        Anomaly::Duplicate => "duplicate",
        Anomaly::Stale => "stale",
        Anomaly::Backward => "backward",
        Anomaly::Recovered => "recovered",
        Anomaly::UnknownKind => "unknown_kind",
        Anomaly::BadMetadata => "bad_metadata",
        Anomaly::OldSession => "old_session",
        Anomaly::Unstorable => "unstorable",
    };
    counter!(ANOMALIES_TOTAL, "kind" => kind).increment(1);
}
