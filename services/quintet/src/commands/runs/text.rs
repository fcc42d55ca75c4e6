//! Rendering of the statuses and times of a run in the terminal.

use std::time::Duration;

use quintet_contract::run::{NodeStatus, RunStatus};
use ratatui::style::Style;

use crate::client::output::terminal::{BAD, BUSY, CARE, DIM, GOOD};

/// The mark and the look of a node.
pub(super) const fn of_node(status: NodeStatus) -> (&'static str, Style) {
    match status {
        NodeStatus::Pending => ("○", DIM),
        NodeStatus::Queued => ("◌", BUSY),
        NodeStatus::Running => ("●", BUSY),
        NodeStatus::Waiting => ("◇", CARE),
        NodeStatus::Succeeded => ("✓", GOOD),
        NodeStatus::Failed => ("✗", BAD),
        NodeStatus::Skipped => ("–", DIM),
        NodeStatus::Canceled => ("×", DIM),
    }
}

/// A node's status as it is written on the wire.
pub(super) const fn word(status: NodeStatus) -> &'static str {
    match status {
        NodeStatus::Pending => "pending",
        NodeStatus::Queued => "queued",
        NodeStatus::Running => "running",
        NodeStatus::Waiting => "waiting",
        NodeStatus::Succeeded => "succeeded",
        NodeStatus::Failed => "failed",
        NodeStatus::Skipped => "skipped",
        NodeStatus::Canceled => "canceled",
    }
}

/// The mark and the look of a run.
pub(super) const fn of_run(status: RunStatus) -> (&'static str, Style) {
    match status {
        RunStatus::Pending => ("○", DIM),
        RunStatus::Running => ("●", BUSY),
        RunStatus::Completed => ("✓", GOOD),
        RunStatus::Failed => ("✗", BAD),
        RunStatus::Canceled => ("×", DIM),
    }
}

/// A time that something took, roughly.
pub(super) fn took(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded() {
        let printed = |seconds| took(Duration::from_millis(seconds));
        assert_eq!(printed(1_240), "1.2 s");
        assert_eq!(printed(59_900), "59 s");
        assert_eq!(printed(61_000), "1 min 01 s");
        assert_eq!(printed(7_260_000), "2 h 01 min");
    }
}
