//! Timers: what has to be checked when. A timer is a reminder, not an order: the step that it wakes checks the records
//! and decides again, so that a timer which is no longer true does no harm and none is ever taken back.

use std::collections::BTreeSet;

use quintet_contract::id::{AgentId, JobId};
use quintet_contract::time::Timestamp;

use super::event::CommandId;

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Was this agent seen in time?
    Silence(AgentId),
    /// Store how this agent is shown.
    Show(AgentId),
    /// Whatever this job waits for: its time, a backoff, an answer, a stop, a kill, a lost agent, its expiry.
    Job(JobId),
    /// The answer to this command is overdue.
    Command(CommandId),
}

/// All reminders in order of time.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Timestamp, Timer)>);

impl Timers {
    pub(super) fn set(&mut self, at: Timestamp, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<Timer> {
        let (at, _) = self.0.first()?;
        if *at > now {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }
}
