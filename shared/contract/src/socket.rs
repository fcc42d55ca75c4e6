//! Frames of the `/agent` and `/ui` WebSockets: one JSON object each, the same envelope both ways.
//!
//! The clients are third-party, so reading is lenient: a payload is read by its own type only after the
//! envelope's `type` is known, and what cannot be read is ignored and counted, never answered with a close.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::JsonObject;
use crate::agent::{ActiveJob, AgentSettings};
use crate::id::{AgentId, IdempotencyKey, JobId};
use crate::job::{Attempt, JobError, JobStatus};
use crate::time::Timestamp;

/// Close code for a bad or missing agent token.
pub const CLOSE_UNAUTHORIZED: u16 = 4001;
/// Close code for a socket on which no hello came in time.
pub const CLOSE_NO_HELLO: u16 = 4002;
/// Close code for a socket that does not read what it is sent.
pub const CLOSE_TOO_SLOW: u16 = 1013;

/// The envelope of every frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<P> {
    /// What the payload is, for example `agent.hello`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Names this frame; a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msg_id: Option<String>,
    /// When it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<String>,
    /// The `msgId` this frame answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The content.
    pub payload: P,
}

/// Types of frames from agents.
pub mod from_agent {
    /// [`HelloPayload`](super::HelloPayload).
    pub const HELLO: &str = "agent.hello";
    /// [`HeartbeatPayload`](super::HeartbeatPayload).
    pub const HEARTBEAT: &str = "agent.heartbeat";
    /// [`AssignAckPayload`](super::AssignAckPayload).
    pub const ASSIGN_ACK: &str = "agent.assign.ack";
    /// [`JobUpdatePayload`](super::JobUpdatePayload).
    pub const JOB_UPDATE: &str = "agent.job.update";
    /// [`JobStoppedPayload`](super::JobStoppedPayload).
    pub const JOB_STOPPED: &str = "agent.job.stopped";
    /// [`MutedPayload`](super::MutedPayload).
    pub const JOB_MUTE: &str = "agent.job.mute";
    /// [`MutedPayload`](super::MutedPayload).
    pub const JOB_UNMUTE: &str = "agent.job.unmute";
    /// [`JobLogPayload`](super::JobLogPayload).
    pub const JOB_LOG: &str = "agent.job.log";
    /// [`AgentErrorPayload`](super::AgentErrorPayload).
    pub const ERROR: &str = "agent.error";
}

/// Types of frames to agents.
pub mod to_agent {
    /// [`HelloOkPayload`](super::HelloOkPayload).
    pub const HELLO_OK: &str = "orchestrator.hello.ok";
    /// [`AssignStartPayload`](super::AssignStartPayload).
    pub const ASSIGN_START: &str = "orchestrator.assign.start";
    /// [`JobStopPayload`](super::JobStopPayload).
    pub const JOB_STOP: &str = "orchestrator.job.stop";
    /// [`JobPayload`](super::JobPayload).
    pub const JOB_KILL: &str = "orchestrator.job.kill";
    /// [`JobPayload`](super::JobPayload).
    pub const JOB_MUTE: &str = "orchestrator.job.mute";
    /// [`JobPayload`](super::JobPayload).
    pub const JOB_UNMUTE: &str = "orchestrator.job.unmute";
}

/// Types of frames to and from UI clients.
pub mod ui {
    /// An agent, or on connect the array of agents.
    pub const AGENT_UPDATE: &str = "ui.agent.update";
    /// A job, or on connect the array of jobs.
    pub const JOB_UPDATE: &str = "ui.job.update";
    /// An agent is forgotten: [`RemovedPayload`](super::RemovedPayload).
    pub const AGENT_REMOVED: &str = "ui.agent.removed";
    /// A job is deleted: [`RemovedPayload`](super::RemovedPayload).
    pub const JOB_REMOVED: &str = "ui.job.removed";
    /// A [`JobEvent`](crate::event::JobEvent).
    pub const JOB_EVENT: &str = "ui.job.event";
    /// From the client: [`SubscribePayload`](super::SubscribePayload).
    pub const SUBSCRIBE: &str = "ui.subscribe";
}

/// "I am here."
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HelloPayload {
    /// The agent's stable id.
    pub agent_id: AgentId,
    /// Its display name.
    #[serde(default)]
    pub name: Option<String>,
    /// Version of its program.
    #[serde(default)]
    pub version: Option<String>,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Option<JsonObject>,
    /// Whether it wants to take no jobs.
    #[serde(default)]
    pub drain: Option<bool>,
    /// The job it has, if one.
    #[serde(default)]
    pub active_job: Option<ActiveJob>,
    /// The jobs it has, if several.
    #[serde(default)]
    pub active_jobs: Option<Vec<ActiveJob>>,
    /// Its credentials.
    #[serde(default)]
    pub auth: Option<HelloAuth>,
    /// Anything else about it.
    #[serde(default)]
    pub meta: Option<JsonObject>,
    /// The pool it belongs to.
    #[serde(default)]
    pub pool: Option<crate::id::PoolName>,
}

/// An agent's credentials.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HelloAuth {
    /// The shared agent token.
    #[serde(default)]
    pub token: Option<String>,
}

impl std::fmt::Debug for HelloAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HelloAuth { token: *** }")
    }
}

/// A heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatPayload {
    /// `ok: true` ends an error state.
    #[serde(default)]
    pub metrics: Option<JsonObject>,
}

/// Accepted the job or rejected it; `correlationId` is the `msgId` of the offer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignAckPayload {
    /// The job.
    pub job_id: JobId,
    /// Took it or not.
    pub accepted: bool,
    /// Why not.
    #[serde(default)]
    pub reason: Option<String>,
    /// Which placement.
    #[serde(default)]
    pub attempt: Option<Attempt>,
}

/// A job moved on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobUpdatePayload {
    /// The job.
    pub job_id: JobId,
    /// Its status.
    pub status: JobStatus,
    /// Which placement.
    #[serde(default)]
    pub attempt: Option<Attempt>,
}

/// A job's work ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStoppedPayload {
    /// The job.
    pub job_id: JobId,
    /// `STOPPED` or `FAILED`.
    pub status: JobStatus,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<JobError>,
    /// Which placement.
    #[serde(default)]
    pub attempt: Option<Attempt>,
}

/// Answer to a mute or unmute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MutedPayload {
    /// The job.
    pub job_id: JobId,
    /// Whether it took effect.
    pub success: bool,
    /// Which placement.
    #[serde(default)]
    pub attempt: Option<Attempt>,
}

/// Output of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobLogPayload {
    /// The job.
    pub job_id: JobId,
    /// One line.
    #[serde(default)]
    pub line: Option<String>,
    /// Several lines.
    #[serde(default)]
    pub lines: Option<Vec<String>>,
    /// `stdout` or `stderr`.
    #[serde(default)]
    pub stream: Option<crate::event::LogStream>,
    /// Which placement.
    #[serde(default)]
    pub attempt: Option<Attempt>,
}

/// Something is wrong with the agent itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentErrorPayload {
    /// Machine code.
    #[serde(default)]
    pub code: Option<String>,
    /// One sentence for people.
    #[serde(default)]
    pub message: Option<String>,
}

/// Welcome, with the timings to keep.
pub type HelloOkPayload = AgentSettings;

/// A job to start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignStartPayload {
    /// The job.
    pub job_id: JobId,
    /// The client's key, else the job's id.
    pub idempotency_key: IdempotencyKey,
    /// What to run.
    pub config: JsonObject,
    /// After this the offer is void.
    pub expires_at: Timestamp,
    /// Which placement.
    pub attempt: Attempt,
    /// Who asked.
    pub metadata: AssignMetadata,
    /// What is known about its stream.
    pub stream_metadata: JsonObject,
}

/// Who asked for a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignMetadata {
    /// Who submitted it.
    pub requested_by: String,
}

/// Stop within the deadline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStopPayload {
    /// The job.
    pub job_id: JobId,
    /// Why.
    pub reason: String,
    /// Milliseconds until it is killed.
    pub deadline_ms: u64,
}

/// Names a job: kill, mute, unmute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobPayload {
    /// The job.
    pub job_id: JobId,
}

/// What a UI no longer shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovedPayload {
    /// The id of the agent or the job.
    pub id: String,
}

/// Narrows a UI's feed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubscribePayload {
    /// Only these jobs; absent or null means all again.
    #[serde(default)]
    pub jobs: Option<Vec<JobId>>,
}
