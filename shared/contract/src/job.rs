//! A job: what the client sees ([`Job`]), what the scheduler keeps beside it ([`JobRecord`]), and the life
//! of its status ([`JobStatus`]).
//!
//! The timeline of a job is its log: every status appears there once and in order, and its position is the
//! resume point of status streams. It keeps the newest [`TIMELINE_KEPT`] entries and counts the older ones.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capability::Requirements;
use crate::cause::{CausedBy, TraceId};
use crate::id::{AgentId, AgentSession, IdempotencyKey, JobId, PoolName, TemplateId};
use crate::time::Timestamp;
use crate::{JsonObject, nesting};

/// Entries of a timeline that a record keeps; a job that restarts for years stays small.
pub const TIMELINE_KEPT: usize = 128;

/// The status of a job.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobStatus {
    /// Stored, not to be placed yet.
    Created,
    /// Waiting for an agent.
    Pending,
    /// Offered to an agent, no answer yet.
    Assigned,
    /// The agent took it.
    Accepted,
    /// The agent prepares the work.
    Starting,
    /// The work runs.
    Running,
    /// Asked to stop.
    Stopping,
    /// Ended as it should; final.
    Stopped,
    /// Ended with an error; final.
    Failed,
    /// Stopped before an agent took it; final.
    Canceled,
    /// Its agent is lost; what the job does is not known.
    Unknown,
}

impl JobStatus {
    /// Every status, in the order of a job's life.
    pub const ALL: [JobStatus; 11] = [
        Self::Created,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
        Self::Canceled,
        Self::Unknown,
    ];

    /// Whether the job has ended for good.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed | Self::Canceled)
    }

    /// Whether an agent is bound to the job, so that it takes one of the agent's slots.
    pub const fn holds_agent(self) -> bool {
        matches!(
            self,
            Self::Assigned
                | Self::Accepted
                | Self::Starting
                | Self::Running
                | Self::Stopping
                | Self::Unknown
        )
    }

    /// The status as it is written on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Pending => "PENDING",
            Self::Assigned => "ASSIGNED",
            Self::Accepted => "ACCEPTED",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
            Self::Failed => "FAILED",
            Self::Canceled => "CANCELED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl std::fmt::Display for JobStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for JobStatus {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(())
    }
}

/// Whether and when a job is started again after its work ended or its agent was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RestartPolicy {
    /// It ends when its work ends.
    #[default]
    Never,
    /// Again after a failure or the loss of its agent.
    OnFailure,
    /// Again after any end that was not requested.
    Always,
}

/// Number of one placement of a job, from 1; zero before the first.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The attempt after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One placement of one job: the subject of reports, commands and fencing.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct JobAttempt {
    /// The job.
    pub job_id: JobId,
    /// Which placement of it.
    pub attempt: Attempt,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobError {
    /// Machine code, for example `AGENT_OFFLINE`, `KILL_TIMEOUT`, `LOST`, `STALLED`, `EXIT_STATUS`.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// More, for example the last lines of the program's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

impl JobError {
    /// An error without detail.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            detail: None,
        }
    }

    /// Without its detail, if that is nested too deeply to be stored.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.detail = self.detail.filter(nesting::is_bounded);
        self
    }
}

/// One status that the job had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    /// The status.
    pub status: JobStatus,
    /// Since when.
    pub at: Timestamp,
    /// Why, where it is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A job as clients see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The template it was submitted with; exactly one of this and `inline_config` is set.
    #[serde(default)]
    pub template_id: Option<TemplateId>,
    /// The configuration it was submitted with.
    #[serde(default)]
    pub inline_config: Option<JsonObject>,
    /// Values for the template's places.
    #[serde(default, skip_serializing_if = "JsonObject::is_empty")]
    pub params: JsonObject,
    /// The status of the job.
    pub status: JobStatus,
    /// Its agent, while it has one and after it ended there.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When anything about it last changed.
    pub updated_at: Timestamp,
    /// When its current attempt began to run.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// Why it failed, or why its last attempt did.
    #[serde(default)]
    pub error: Option<JobError>,
    /// Who submitted it.
    pub requested_by: String,
    /// The client's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// Whether it is started again.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    /// How often at most; absent means 3 for `onFailure` and no limit for `always`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    /// What it asks of its agent.
    #[serde(default, skip_serializing_if = "Requirements::is_empty")]
    pub requirements: Requirements,
    /// Higher is placed first.
    #[serde(default)]
    pub priority: i32,
    /// Not to be placed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The pool it is placed in.
    #[serde(default)]
    pub pool: PoolName,
    /// Number of its placement.
    #[serde(default)]
    pub attempt: Attempt,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u32,
    /// Title, viewers, mute and whatever else is known about its stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_metadata: Option<JsonObject>,
    /// Every status it had, oldest first.
    #[serde(default)]
    pub timeline: Vec<TimelineEntry>,
    /// How many older entries the timeline no longer holds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeline_dropped: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Job {
    /// Number of statuses this job had so far; the position of the newest timeline entry, counted from 1.
    pub fn position(&self) -> u64 {
        self.timeline_dropped
            .saturating_add(self.timeline.len() as u64)
    }

    /// Timeline entries after `position`, each with its own position.
    pub fn entries_after(&self, position: u64) -> impl Iterator<Item = (u64, &TimelineEntry)> {
        let dropped = self.timeline_dropped;
        self.timeline
            .iter()
            .enumerate()
            .map(move |(index, entry)| (dropped.saturating_add(index as u64 + 1), entry))
            .filter(move |(at, _)| *at > position)
    }

    /// This job as it stood at a timeline position: used to show every status when several were written at once.
    #[must_use]
    pub fn at_position(&self, position: u64) -> Job {
        let mut job = self.clone();
        if position >= self.position() || position <= self.timeline_dropped {
            return job;
        }
        job.timeline
            .truncate(usize::try_from(position - self.timeline_dropped).unwrap_or(usize::MAX));
        if let Some(entry) = job.timeline.last() {
            job.status = entry.status;
            job.updated_at = entry.at;
        }
        if !job.status.is_final() {
            job.ended_at = None;
            job.error = None;
        }
        job
    }
}

/// What the scheduler stores: the job and its private bookkeeping. One record, one key, one owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobRecord {
    /// What clients see.
    pub job: Job,
    /// What only the scheduler needs.
    #[serde(default)]
    pub private: JobPrivate,
    /// The piece of work that it was made for; absent or null for none.
    #[serde(default)]
    pub caused_by: Option<CausedBy>,
    /// The trace of the request that made it.
    #[serde(default)]
    pub trace_id: Option<TraceId>,
}

/// The scheduler's bookkeeping for one job; survives the scheduler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobPrivate {
    /// Digest of the request that made the job, for strict idempotency.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_digest: String,
    /// Revision of the key's record, so that its owner can end it without reading it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_revision: Option<u64>,
    /// The session in which the agent last showed that it has the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<AgentSession>,
    /// A stop was asked for and when; kept whatever the agent answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_requested_at: Option<Timestamp>,
    /// Not to be placed before this because of a restart backoff.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_until: Option<Timestamp>,
    /// Agents that refused or did not answer, each with its own backoff.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<AgentId, Refusal>,
    /// When the current offer stops being valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer_expires_at: Option<Timestamp>,
    /// When the agent was asked to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_sent_at: Option<Timestamp>,
    /// When the agent was commanded to kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill_sent_at: Option<Timestamp>,
    /// Since when the agent is lost; set while the status is `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Timestamp>,
    /// The job ended for clients, but its agent never confirmed the kill: the slot stays taken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub holds_slot: bool,
    /// Trace context of the request that made the job, so that its whole life is one trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// How often an agent rejected a job, and until when it is not asked again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// How often.
    pub count: u32,
    /// Not asked before.
    pub until: Timestamp,
    /// Its answer, or that it was silent.
    pub reason: String,
}

/// What the `keys` bucket holds under an idempotency key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecord {
    /// The job that the key stands for.
    pub job_id: JobId,
    /// Its pool.
    #[serde(default)]
    pub pool: PoolName,
    /// The job as first submitted, so that a scheduler that died between the two writes loses nothing.
    pub first: JobRecord,
    /// Whether the job has ended: then a missing job has expired and is not recreated.
    #[serde(default)]
    pub ended: bool,
}

/// The executor that a configuration asks for: its `executor` field, else what its other fields imply.
/// `None` when it names nothing that Quintet knows, as configurations for third-party agents may.
pub fn executor_of(config: &JsonObject) -> Option<&str> {
    if let Some(named) = config.get("executor") {
        return named.as_str();
    }
    [
        ("command", "exec"),
        ("streamUrl", "ffmpeg"),
        ("durationMs", "noop"),
        ("failAfterMs", "noop"),
    ]
    .into_iter()
    .find(|(field, _)| config.contains_key(*field))
    .map(|(_, executor)| executor)
}
