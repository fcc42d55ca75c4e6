//! Events and effects of an agent.

use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::agent::{AgentReport, AgentSettings, Assignment, CommandReply};
use quintet_contract::error::ErrorReply;
use quintet_contract::job::{JobAttempt, JobError};
use serde_json::{Value, json};

use crate::executors::{NoopEnd, Plan};

/// Names a command that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AnswerId(pub(crate) u64);

/// An event.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The owner takes us; its timings.
    Welcome(AgentSettings),
    /// A job is offered.
    Assigned(Box<Assignment>),
    /// An acceptance is stored: the job may start.
    Confirmed(JobAttempt),
    /// The owner does not want this placement here any more.
    Revoked(JobAttempt),
    /// The owner asks something of a job.
    CommandReceived {
        placement: JobAttempt,
        request: Request,
        answer: AnswerId,
    },
    /// The owner asks something that this version does not know.
    UnknownCommand { answer: AnswerId },
    /// The job does what it is for.
    Working(JobAttempt),
    /// The job is this far.
    Progressed(JobAttempt, JsonObject),
    /// The job has not moved for this long.
    Stalled(JobAttempt, Duration),
    /// The job's processes are gone.
    Exited(JobAttempt, Exit),
    /// A live command was executed, or not and why.
    Controlled {
        placement: JobAttempt,
        command: String,
        answer: AnswerId,
        outcome: Result<(), String>,
    },
    /// A scheduled deadline passed; it may be stale.
    DeadlinePassed(JobAttempt, Deadline),
    /// The owner has stored the end of the job.
    FinalStored(JobAttempt),
    /// The bus was lost for too long.
    Fenced,
    /// A newer session took over.
    Replaced,
    /// The link to the bus ended by itself.
    LinkClosed,
    /// The agent is to leave.
    DrainAsked { grace: Duration },
    /// Leaving took too long.
    DrainOverdue,
}

/// What an owner can ask of a job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    /// End within the deadline.
    Stop { deadline: Duration },
    /// End now.
    Kill,
    /// A live command.
    Control { command: String, args: JsonObject },
}

/// Deadlines of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// The acceptance must be confirmed.
    Confirmation,
    /// The stop must be done.
    Stop,
}

/// Why the agent leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It was asked to.
    Drained,
    /// A newer session took over.
    Replaced,
    /// The link to the bus ended.
    LinkClosed,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Report to the owner.
    Report(AgentReport),
    /// Start the job; the flag is whether it may be started elsewhere when this agent loses contact.
    Start(JobAttempt, Plan, bool),
    /// Ask the job's processes to end.
    Terminate(JobAttempt),
    /// End the job's processes.
    Kill(JobAttempt),
    /// Pass a live command on.
    Control {
        placement: JobAttempt,
        command: String,
        args: JsonObject,
        answer: AnswerId,
    },
    /// Come back with [`Event::DeadlinePassed`] after this time.
    Schedule(JobAttempt, Deadline, Duration),
    /// Answer a command.
    Answer(AnswerId, Result<CommandReply, ErrorReply>),
    /// Store an event of the job.
    RecordEvent {
        placement: JobAttempt,
        kind: &'static str,
        message: String,
        data: Option<Value>,
    },
    /// Write a note to the job's log.
    Note(JobAttempt, String),
    /// Leave.
    Leave(Leaving),
}

/// How a job's process ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Exit {
    /// With status 0.
    Success,
    /// With another status.
    Status { code: i32, tail: Vec<String> },
    /// By a signal.
    Signal { signal: i32, tail: Vec<String> },
    /// It was never started.
    NotStarted { reason: String },
    /// It failed on purpose.
    OnPurpose,
}

impl From<NoopEnd> for Exit {
    fn from(end: NoopEnd) -> Self {
        match end {
            NoopEnd::Done => Self::Success,
            NoopEnd::Failed => Self::OnPurpose,
        }
    }
}

impl Exit {
    /// The outcome of the job by its exit.
    pub(super) fn into_result(self) -> Result<(), JobError> {
        let (code, message) = match &self {
            Self::Success => return Ok(()),
            Self::Status { code, .. } => ("EXIT_STATUS", format!("exited with status {code}")),
            Self::Signal { signal, .. } => ("SIGNAL", format!("ended by signal {signal}")),
            Self::NotStarted { reason } => ("SPAWN_FAILED", reason.clone()),
            Self::OnPurpose => (
                "NOOP_FAILED",
                "failed after failAfterMs, as asked".to_owned(),
            ),
        };
        Err(self.explain(JobError::new(code, message)))
    }

    /// Adds what is known about the exit to an error.
    pub(super) fn explain(self, mut error: JobError) -> JobError {
        error.detail = match self {
            Self::Status { code, tail } => Some(json!({"exitStatus": code, "stderrTail": tail})),
            Self::Signal { signal, tail } => Some(json!({"signal": signal, "stderrTail": tail})),
            Self::Success | Self::NotStarted { .. } | Self::OnPurpose => None,
        };
        error
    }
}
