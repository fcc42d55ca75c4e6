//! Names of the workers' metrics and the few functions that count them.

use metrics::{counter, gauge};

/// Tasks, by `outcome`: succeeded, failed, gone, canceled, given_back, forgotten.
pub const TASKS_TOTAL: &str = "run_worker_tasks_total";
/// Tasks that have a slot now.
pub const SLOTS_USED: &str = "run_worker_slots_used";
/// Reports that were answered.
pub const REPORTS_TOTAL: &str = "run_worker_reports_total";
/// Messages with reports that had to be sent again.
pub const REPEATS_TOTAL: &str = "run_worker_repeats_total";
/// Lines of output that were dropped.
pub const LINES_DROPPED_TOTAL: &str = "run_worker_lines_dropped_total";
/// Frames that effects drew, by `effect`.
pub const FRAMES_DRAWN_TOTAL: &str = "effect_frames_drawn_total";

pub(crate) fn task(outcome: &'static str) {
    counter!(TASKS_TOTAL, "outcome" => outcome).increment(1);
}

pub(crate) fn slots_used(count: usize) {
    gauge!(SLOTS_USED).set(count as f64);
}

pub(crate) fn reported(count: usize) {
    counter!(REPORTS_TOTAL).increment(count as u64);
}

pub(crate) fn repeated() {
    counter!(REPEATS_TOTAL).increment(1);
}

pub(crate) fn lines_dropped(count: u64) {
    counter!(LINES_DROPPED_TOTAL).increment(count);
}

pub(crate) fn frame_drawn(effect: &'static str) {
    counter!(FRAMES_DRAWN_TOTAL, "effect" => effect).increment(1);
}
