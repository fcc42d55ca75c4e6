//! A job: one placement on this agent, and its phases.

use quintet_contract::job::{JobError, JobStatus};

use crate::executors::Plan;

/// A placement that this agent accepted.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) plan: Plan,
    /// Whether the owner may start it elsewhere when this agent loses contact.
    pub(super) restartable: bool,
    pub(super) phase: JobPhase,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum JobPhase {
    /// Waits for the confirmation; nothing was started.
    Accepted,
    /// Started, and not known to be gone.
    Live {
        /// STARTING, RUNNING or STOPPING.
        status: JobStatus,
        /// What its end will mean.
        end_reason: EndReason,
        /// What was done to end it.
        stop_level: StopLevel,
    },
    /// Gone; its end is in flight to the owner.
    Ended {
        /// How it was listed last.
        last: JobStatus,
    },
}

/// What the end of a process will mean.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum EndReason {
    /// Its outcome by its exit.
    Own,
    /// It was asked to stop: that it ended is well.
    Requested,
    /// The agent leaves.
    Shutdown,
    /// It failed already.
    Failed(JobError),
    /// Its end is not reported.
    Revoked,
}

/// What was done to end a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopLevel {
    None,
    Terminated,
    Killed,
}

impl JobPhase {
    /// Just started.
    pub(super) const fn live() -> Self {
        Self::Live {
            status: JobStatus::Starting,
            end_reason: EndReason::Own,
            stop_level: StopLevel::None,
        }
    }
}

impl EndReason {
    /// The end of a job that was not started or whose exit decides nothing.
    pub(super) fn end_unstarted(&self) -> Result<(), JobError> {
        match self {
            Self::Shutdown => Err(JobError::new(
                "AGENT_SHUTDOWN",
                "the agent was shut down before the job was done",
            )),
            Self::Failed(error) => Err(error.clone()),
            Self::Own | Self::Requested | Self::Revoked => Ok(()),
        }
    }
}

impl Job {
    /// How hellos and heartbeats list it; `None` when they must not.
    pub(super) fn listed_status(&self) -> Option<JobStatus> {
        match &self.phase {
            JobPhase::Accepted => Some(JobStatus::Accepted),
            JobPhase::Live {
                end_reason: EndReason::Revoked,
                ..
            } => None,
            JobPhase::Live { status, .. } => Some(*status),
            JobPhase::Ended { last } => Some(*last),
        }
    }

    /// Whether it takes a slot: until its process is gone.
    pub(super) fn takes_slot(&self) -> bool {
        match self.phase {
            JobPhase::Accepted | JobPhase::Live { .. } => true,
            JobPhase::Ended { .. } => false,
        }
    }

    /// Whether it can take live commands.
    pub(super) fn is_running(&self) -> bool {
        match self.phase {
            JobPhase::Live { status, .. } => status == JobStatus::Running,
            JobPhase::Accepted | JobPhase::Ended { .. } => false,
        }
    }
}
