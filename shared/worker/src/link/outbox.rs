//! Outbox: reports in order, one message in flight, kept until they are acknowledged.
//!
//! Everything that waits travels in one message. A message that the owner refuses for good is taken apart,
//! so that one report that it cannot take does not hold up the others for ever.

use std::collections::VecDeque;

use quintet_contract::agent::AgentReport;
use quintet_contract::id::JobId;

/// Most reports of one message; keeps it far below the largest message of the bus.
const BATCH: usize = 256;
/// Reports kept; when full the link takes no more, and its handles wait.
const CAPACITY: usize = 4096;

/// Names a flush or goodbye.
pub type Mark = u64;

#[derive(Debug)]
enum Item {
    Report(AgentReport),
    Mark(Mark),
}

/// Reports that are not acknowledged yet, and marks between them.
#[derive(Debug)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
    in_flight: usize,
    batch: usize,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            items: VecDeque::new(),
            in_flight: 0,
            batch: BATCH,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.items.len() < CAPACITY
    }

    pub(super) fn push(&mut self, report: AgentReport) {
        self.items.push_back(Item::Report(report));
    }

    /// Marks this place: [`Outbox::reached`] names it once everything before it is acknowledged.
    pub(super) fn mark(&mut self, mark: Mark) {
        self.items.push_back(Item::Mark(mark));
    }

    /// The next mark with nothing before it.
    pub(super) fn reached(&mut self) -> Option<Mark> {
        if self.in_flight > 0 {
            return None;
        }
        match self.items.front() {
            Some(Item::Mark(mark)) => {
                let mark = *mark;
                self.items.pop_front();
                Some(mark)
            }
            Some(Item::Report(_)) | None => None,
        }
    }

    /// Takes the next message's reports, leaving them here until they are acknowledged. Empty when there is
    /// nothing to send or a message is in flight.
    pub(super) fn take(&mut self) -> Vec<AgentReport> {
        if self.in_flight > 0 {
            return Vec::new();
        }
        let reports: Vec<AgentReport> = self
            .items
            .iter()
            .map_while(|item| match item {
                Item::Report(report) => Some(report.clone()),
                Item::Mark(_) => None,
            })
            .take(self.batch)
            .collect();
        self.in_flight = reports.len();
        reports
    }

    /// The message in flight is stored: its reports.
    pub(super) fn acknowledged(&mut self) -> Vec<AgentReport> {
        let stored = self.items.drain(..self.in_flight);
        let reports = stored
            .filter_map(|item| match item {
                Item::Report(report) => Some(report),
                Item::Mark(_) => None,
            })
            .collect();
        self.in_flight = 0;
        self.batch = BATCH;
        reports
    }

    /// The message in flight got no answer, or one that it was too early: it is sent again.
    pub(super) fn unanswered(&mut self) {
        self.in_flight = 0;
    }

    /// The message in flight is refused for good. Returns the report to drop, if the message had only one.
    pub(super) fn refused(&mut self) -> Option<AgentReport> {
        let count = std::mem::take(&mut self.in_flight);
        if count != 1 {
            self.batch = 1;
            return None;
        }
        match self.items.pop_front() {
            Some(Item::Report(report)) => Some(report),
            Some(Item::Mark(_)) | None => None,
        }
    }
}

/// The job of a report.
pub(super) fn job_of(report: &AgentReport) -> Option<&JobId> {
    match report {
        AgentReport::AssignAck { job_id, .. }
        | AgentReport::JobUpdate { job_id, .. }
        | AgentReport::JobStopped { job_id, .. }
        | AgentReport::JobMuted { job_id, .. }
        | AgentReport::JobMetadata { job_id, .. } => Some(job_id),
        AgentReport::Hello { .. }
        | AgentReport::AgentError { .. }
        | AgentReport::Goodbye { .. }
        | AgentReport::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str) -> AgentReport {
        AgentReport::Goodbye {
            reason: name.to_owned(),
        }
    }

    #[test]
    fn marks_are_reached_when_everything_before_them_is_acknowledged() {
        let mut outbox = Outbox::new();
        outbox.push(report("a"));
        outbox.mark(1);
        outbox.push(report("b"));
        assert_eq!(outbox.take(), [report("a")], "a mark ends a message");
        assert_eq!(outbox.reached(), None);
        assert_eq!(outbox.take(), [], "one message in flight");
        outbox.unanswered();
        assert_eq!(outbox.take(), [report("a")]);
        assert_eq!(outbox.acknowledged(), [report("a")]);
        assert_eq!(outbox.reached(), Some(1));
        assert_eq!(outbox.take(), [report("b")]);
    }

    #[test]
    fn one_report_that_is_never_taken_does_not_hold_up_the_others() {
        let mut outbox = Outbox::new();
        for name in ["good", "bad", "fine"] {
            outbox.push(report(name));
        }
        assert_eq!(outbox.take().len(), 3);
        assert_eq!(outbox.refused(), None);
        assert_eq!(outbox.take(), [report("good")]);
        outbox.acknowledged();
        assert_eq!(outbox.take().len(), 2);
        assert_eq!(outbox.refused(), None);
        assert_eq!(outbox.take(), [report("bad")]);
        assert_eq!(outbox.refused(), Some(report("bad")));
        assert_eq!(outbox.take(), [report("fine")]);
    }
}
