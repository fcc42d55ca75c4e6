//! Agents: their announcements, their reports, commands to them, and their representation.
//!
//! An agent speaks in *sessions*: a hello opens one, a newer hello of the same agent replaces it. Within a
//! session a *clock* counts every message, so that the owner can distinguish an old heartbeat from a new report.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::JsonObject;
use crate::id::{AgentId, AgentSession, IdempotencyKey, JobId, PoolName};
use crate::job::{Attempt, JobAttempt, JobError, JobStatus};
use crate::time::Timestamp;

/// How an agent is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AgentState {
    /// Not seen for the heartbeat timeout, or its link is closed.
    Offline,
    /// Nothing to do.
    Idle,
    /// A placement is unanswered.
    Reserved,
    /// A job is being prepared.
    Starting,
    /// A job runs.
    Running,
    /// A job is being stopped.
    Stopping,
    /// It reported an error of its own.
    Error,
    /// Busy, and to take no more.
    Draining,
}

/// An agent as clients see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its display name.
    pub name: String,
    /// Version of its program.
    pub version: String,
    /// Its status.
    pub state: AgentState,
    /// The job it took first of those it has.
    #[serde(default)]
    pub current_job_id: Option<JobId>,
    /// All jobs it has.
    #[serde(default)]
    pub jobs: Vec<JobId>,
    /// When it was last seen.
    pub last_seen_at: Timestamp,
    /// Whether an operator wants it to take no more jobs.
    #[serde(default)]
    pub drain: bool,
    /// What it announced, as it came.
    #[serde(default)]
    pub capabilities: JsonObject,
    /// Any other metadata of its own.
    #[serde(default)]
    pub meta: JsonObject,
    /// Its own error, while it has one.
    #[serde(default)]
    pub error: Option<AgentFault>,
    /// The pool it belongs to.
    #[serde(default)]
    pub pool: PoolName,
    /// When it was first seen; agents are listed in this order.
    pub registered_at: Timestamp,
}

/// A fault that an agent reports of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentFault {
    /// Machine code.
    pub code: String,
    /// One sentence for people.
    pub message: String,
}

/// What the scheduler stores of an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentRecord {
    /// What clients see.
    pub agent: Agent,
    /// Its current session, the only one that is listened to; none once its link is closed.
    #[serde(default)]
    pub session: Option<AgentSession>,
    /// Its latest former sessions, newest last: what still arrives from them is too late.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_sessions: Vec<AgentSession>,
    /// When it last took a job, for least-recently-used placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
}

/// A job that an agent has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveJob {
    /// The job.
    pub job_id: JobId,
    /// Which placement; older agents leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// Its status there.
    pub status: JobStatus,
}

/// "I am here": opens a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Its display name.
    #[serde(default)]
    pub name: String,
    /// Version of its program.
    #[serde(default)]
    pub version: String,
    /// What it can do, as it announces it.
    #[serde(default)]
    pub capabilities: JsonObject,
    /// Whether it wants to take no jobs; sets the operator's flag only on first registration.
    #[serde(default)]
    pub drain: bool,
    /// The jobs it has.
    #[serde(default)]
    pub active_jobs: Vec<ActiveJob>,
    /// Anything else about it.
    #[serde(default)]
    pub meta: JsonObject,
}

/// A batch of facts from one agent, in order; sent again until acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentReports {
    /// The session that speaks.
    pub session: AgentSession,
    /// Counts the messages of the session.
    pub clock: u64,
    /// The facts.
    pub reports: Vec<AgentReport>,
}

/// One fact from an agent. A report without attempt counts for the agent's current attempt of the job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum AgentReport {
    /// It is here; the first report of every session.
    Hello {
        /// Who it is and what it has.
        hello: Hello,
    },
    /// It accepted a job or rejected it. An agent that accepted one may still reject it as long as it was not started.
    AssignAck {
        /// The job.
        job_id: JobId,
        /// Which placement.
        #[serde(default)]
        attempt: Option<Attempt>,
        /// Took it or not.
        accepted: bool,
        /// Why not.
        #[serde(default)]
        reason: Option<String>,
    },
    /// A job moved on.
    JobUpdate {
        /// The job.
        job_id: JobId,
        /// Which placement.
        #[serde(default)]
        attempt: Option<Attempt>,
        /// Its status.
        status: JobStatus,
    },
    /// A job's work ended.
    JobStopped {
        /// The job.
        job_id: JobId,
        /// Which placement.
        #[serde(default)]
        attempt: Option<Attempt>,
        /// `STOPPED` or `FAILED`.
        status: JobStatus,
        /// Why it failed.
        #[serde(default)]
        error: Option<JobError>,
    },
    /// A mute or unmute took effect or did not.
    JobMuted {
        /// The job.
        job_id: JobId,
        /// Which placement.
        #[serde(default)]
        attempt: Option<Attempt>,
        /// Muted or not muted.
        muted: bool,
        /// Whether it took effect.
        success: bool,
    },
    /// News about a job's stream, merged into its metadata.
    JobMetadata {
        /// The job.
        job_id: JobId,
        /// Which placement.
        #[serde(default)]
        attempt: Option<Attempt>,
        /// Fields to merge.
        metadata: JsonObject,
    },
    /// Something is wrong with the agent itself.
    AgentError {
        /// Machine code.
        code: String,
        /// One sentence for people.
        message: String,
    },
    /// It leaves, or its link closed; its jobs become `UNKNOWN` at once.
    Goodbye {
        /// Why.
        reason: String,
    },
    /// A report of a newer version.
    #[serde(other)]
    Unknown,
}

/// The owner's answer to a batch of reports, after everything in it was stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReportsReply {
    /// Whether this session is the agent's current one.
    #[serde(rename = "standing")]
    pub status: SessionStatus,
    /// Timings the agent must keep; sent in answer to a hello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<AgentSettings>,
    /// Placements whose acceptance is confirmed: the agent may start them now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start: Vec<JobAttempt>,
    /// Placements that are no longer wanted here: kill them without a report.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kill: Vec<JobAttempt>,
}

/// The status of a session with the owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SessionStatus {
    /// It is the agent's session.
    #[default]
    Current,
    /// The owner does not know it: send hello first.
    HelloRequired,
    /// A newer session took its place: stop everything and leave.
    Replaced,
}

/// The timings that scheduler and agents share, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentSettings {
    /// How often to send a heartbeat.
    pub heartbeat_interval_ms: u64,
    /// Silence after which an agent is lost, and after which it stops restartable jobs itself.
    pub heartbeat_timeout_ms: u64,
    /// How long a stop may take before the kill.
    pub stop_grace_ms: u64,
    /// How long a kill may take before the slot is written off.
    pub kill_after_ms: u64,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            heartbeat_interval_ms: 3000,
            heartbeat_timeout_ms: 10_000,
            stop_grace_ms: 10_000,
            kill_after_ms: 5000,
        }
    }
}

/// A heartbeat; a request, so that the agent knows that its owner received it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The session that speaks.
    pub session: AgentSession,
    /// Counts the messages of the session.
    pub clock: u64,
    /// The jobs it has, so that owner and agent can reconcile; agents that do not know leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Vec<ActiveJob>>,
    /// `ok: true` ends an error state; everything else is shown as it comes.
    #[serde(default, skip_serializing_if = "JsonObject::is_empty")]
    pub metrics: JsonObject,
}

/// The owner's answer to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatReply {
    /// Whether this session is the agent's current one.
    #[serde(rename = "standing")]
    pub status: SessionStatus,
    /// Placements that are no longer wanted here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kill: Vec<JobAttempt>,
}

/// A job offered to an agent through its queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The job.
    pub job_id: JobId,
    /// Which placement.
    pub attempt: Attempt,
    /// What to run: the inline configuration, the resolved template, or `{templateId}`.
    pub config: JsonObject,
    /// The client's key, else the job's id.
    pub idempotency_key: IdempotencyKey,
    /// After this the offer is void.
    pub expires_at: Timestamp,
    /// Whether the job may be started elsewhere when this agent is lost: then the agent must fence itself.
    #[serde(default)]
    pub restartable: bool,
    /// Who submitted it.
    pub requested_by: String,
    /// What is known about its stream.
    #[serde(default)]
    pub stream_metadata: JsonObject,
}

/// A command to one agent, about one job or about its session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum AgentCommand {
    /// Stop the job within the deadline.
    Stop {
        /// The job.
        job_id: JobId,
        /// Which placement.
        attempt: Attempt,
        /// Why.
        reason: String,
        /// Milliseconds until it is killed.
        deadline_ms: u64,
    },
    /// Kill the job now.
    Kill {
        /// The job.
        job_id: JobId,
        /// Which placement.
        attempt: Attempt,
    },
    /// A live command to the running job.
    Control {
        /// The job.
        job_id: JobId,
        /// Which placement.
        attempt: Attempt,
        /// Its name, for example `mute`.
        command: String,
        /// Its arguments.
        #[serde(default)]
        args: JsonObject,
    },
    /// A newer session of this agent took over; sessions other than `current` leave.
    Replaced {
        /// The session that stays.
        current: AgentSession,
    },
    /// A command of a newer version.
    #[serde(other)]
    Unknown,
}

/// The agent's answer to a command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CommandReply {
    /// What the job answered to a live command.
    pub answer: JsonObject,
}
