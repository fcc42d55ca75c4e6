//! Names of the agent's metrics and the few functions that count them.

use metrics::{counter, gauge};

/// Offers, by `answer`: accepted, refused.
pub const OFFERS_TOTAL: &str = "agent_offers_total";
/// Jobs that ended here and were reported, by `status`: stopped, failed.
pub const JOBS_ENDED_TOTAL: &str = "agent_jobs_ended_total";
/// Jobs that have a slot now.
pub const SLOTS_USED: &str = "agent_slots_used";
/// Log lines, by `fate`: stored, dropped.
pub const LOG_LINES_TOTAL: &str = "agent_log_lines_total";
/// Events of jobs that could not be stored.
pub const EVENTS_DROPPED_TOTAL: &str = "agent_events_dropped_total";

pub(crate) fn offer(accepted: bool) {
    let answer = if accepted { "accepted" } else { "refused" };
    counter!(OFFERS_TOTAL, "answer" => answer).increment(1);
}

pub(crate) fn job_ended(status: &'static str) {
    counter!(JOBS_ENDED_TOTAL, "status" => status).increment(1);
}

pub(crate) fn slots_used(count: usize) {
    gauge!(SLOTS_USED).set(count as f64);
}

pub(crate) fn log_lines(fate: &'static str, count: u64) {
    counter!(LOG_LINES_TOTAL, "fate" => fate).increment(count);
}

pub(crate) fn event_dropped() {
    counter!(EVENTS_DROPPED_TOTAL).increment(1);
}
