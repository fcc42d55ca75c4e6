//! Names of the runner's metrics.

use metrics::{counter, gauge};

/// Shards of runs that this process leads.
pub const SHARDS_LED: &str = "quintet_runner_shards_led";
/// Reloads of the state of a shard after an indeterminate write.
pub const RELOADS_TOTAL: &str = "quintet_runner_reloads_total";

pub(crate) fn led(change: f64) {
    gauge!(SHARDS_LED).increment(change);
}

pub(crate) fn reloaded() {
    counter!(RELOADS_TOTAL).increment(1);
}
