//! Names of the metrics of the frames service, and the few functions that write them.

use metrics::{counter, gauge};
use quintet_contract::frame_api::FrameStats;

/// Whether this process drives the display: 1 or 0.
pub const LEADS: &str = "quintet_frames_leads";
/// Frames received.
pub const RECEIVED_TOTAL: &str = "quintet_frames_received_total";
/// Frames forwarded to the display.
pub const FORWARDED_TOTAL: &str = "quintet_frames_forwarded_total";
/// Frames dropped.
pub const DROPPED_TOTAL: &str = "quintet_frames_dropped_total";
/// Running workers.
pub const RUNNING: &str = "quintet_frames_workers_running";
/// Times the line to the panels was lost.
pub const LINE_LOST_TOTAL: &str = "quintet_frames_line_lost_total";

pub(crate) fn leads(does: bool) {
    gauge!(LEADS).set(if does { 1.0 } else { 0.0 });
}

/// Of this term: earlier terms are counted there.
pub(crate) fn published(stats: &FrameStats) {
    counter!(RECEIVED_TOTAL).absolute(stats.counts.received);
    counter!(FORWARDED_TOTAL).absolute(stats.counts.forwarded);
    counter!(DROPPED_TOTAL).absolute(stats.counts.dropped);
    gauge!(RUNNING).set(stats.running.len() as f64);
}

pub(crate) fn line_lost() {
    counter!(LINE_LOST_TOTAL).increment(1);
}
