//! Names of the metrics of workers and the few functions that count them.

use metrics::counter;

/// Messages to the owner, by `kind` (hello, reports, heartbeat) and `outcome` (ok, unreachable, refused).
pub const MESSAGES_TOTAL: &str = "link_messages_total";
/// Reports that the owner stored.
pub const REPORTS_TOTAL: &str = "link_reports_total";
/// Times an agent had to fence itself.
pub const FENCED_TOTAL: &str = "link_fenced_total";
/// Offers, by `source`: live, queue (read after a reconnect or a gap).
pub const OFFERS_TOTAL: &str = "link_offers_total";

/// Reports of run tasks that were answered.
pub const TASK_REPORTS_TOTAL: &str = "run_worker_reports_total";
/// Messages with reports of run tasks that had to be sent again.
pub const TASK_REPORTS_REPEATED_TOTAL: &str = "run_worker_repeats_total";
/// Lines of output of run tasks that were dropped.
pub const LINES_DROPPED_TOTAL: &str = "run_worker_lines_dropped_total";

pub(crate) fn task_reports(count: usize) {
    counter!(TASK_REPORTS_TOTAL).increment(count as u64);
}

pub(crate) fn task_reports_repeated() {
    counter!(TASK_REPORTS_REPEATED_TOTAL).increment(1);
}

pub(crate) fn lines_dropped(count: u64) {
    counter!(LINES_DROPPED_TOTAL).increment(count);
}

pub(crate) fn message(kind: &'static str, outcome: &'static str) {
    counter!(MESSAGES_TOTAL, "kind" => kind, "outcome" => outcome).increment(1);
}

pub(crate) fn reports(count: usize) {
    counter!(REPORTS_TOTAL).increment(count as u64);
}

pub(crate) fn fenced() {
    counter!(FENCED_TOTAL).increment(1);
}

pub(crate) fn offer(source: &'static str) {
    counter!(OFFERS_TOTAL, "source" => source).increment(1);
}
