//! Names of the workers' metrics and the few functions that count them; those of reports are in `quintet_worker::metrics`.

use metrics::{Gauge, counter, gauge};

/// Tasks, by `outcome`: succeeded, failed, gone, canceled, given_back, forgotten.
pub const TASKS_TOTAL: &str = "run_worker_tasks_total";
/// Tasks that have a slot now.
pub const SLOTS_USED: &str = "run_worker_slots_used";
/// Frames that effects drew, by `effect`.
pub const FRAMES_DRAWN_TOTAL: &str = "effect_frames_drawn_total";

pub(crate) fn task(outcome: &'static str) {
    counter!(TASKS_TOTAL, "outcome" => outcome).increment(1);
}

pub(crate) fn slots_used() -> Gauge {
    gauge!(SLOTS_USED)
}

pub(crate) fn frame_drawn(effect: &'static str) {
    counter!(FRAMES_DRAWN_TOTAL, "effect" => effect).increment(1);
}
