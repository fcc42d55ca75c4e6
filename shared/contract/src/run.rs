//! A run: what the client sees ([`Run`]), what is stored of it ([`RunRecord`]), and the log that is its truth
//! ([`RunLogBatch`]).
//!
//! The log of a run is a sequence of [`LogEntry`]s, numbered from 1 without gaps. What a run is at any moment follows
//! from its record and the entries after it; the record is only written now and then.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::JsonObject;
use crate::cause::{CausedBy, TraceId};
use crate::event::LogStream;
use crate::id::{CheckpointId, NodeId, RunId, WorkerId};
use crate::job::Attempt;
use crate::plan::Plan;
use crate::time::Timestamp;

/// Most bytes of a checkpoint's body.
pub const MAX_CHECKPOINT_BYTES: usize = 1024 * 1024;
/// Data of a checkpoint that is larger than this does not travel in messages, but is stored apart.
pub const MAX_INLINE_BYTES: usize = 512 * 1024;
/// Longest type of a checkpoint in bytes.
pub const MAX_CHECKPOINT_TYPE_BYTES: usize = 256;
/// Most bytes of the output of one node, as JSON; its dependents get it with their tasks.
pub const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// Most bytes of the outputs of all nodes of a run, as JSON: one record holds them.
pub const MAX_OUTPUTS_BYTES: usize = 512 * 1024;

/// The status of a run.
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
#[serde(rename_all = "camelCase")]
pub enum RunStatus {
    /// Stored, not begun.
    #[default]
    Pending,
    /// Begun.
    Running,
    /// Ended well; final.
    Completed,
    /// Ended with an error; final.
    Failed,
    /// Ended on request; final.
    Canceled,
}

impl RunStatus {
    /// Every status.
    pub const ALL: [RunStatus; 5] = [
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Canceled,
    ];

    /// Whether the run has ended for good.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }

    /// Whether the one may follow the other.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending => matches!(next, Self::Running | Self::Canceled),
            Self::Running => next.is_final(),
            Self::Completed | Self::Failed | Self::Canceled => false,
        }
    }

    /// The status as it is written on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

impl std::fmt::Display for RunStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for RunStatus {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(())
    }
}

/// The executor of the work of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RunMode {
    /// Run workers that take tasks from queues, or an outside program where there is no plan.
    #[default]
    Queue,
    /// Kubernetes: each command is a Job there.
    K8s,
}

/// The status of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum NodeStatus {
    /// What it needs has not ended.
    #[default]
    Pending,
    /// Given to a queue, not taken yet.
    Queued,
    /// Taken.
    Running,
    /// Waits for a person, a moment, or its next attempt; holds no worker.
    Waiting,
    /// Ended well; final.
    Succeeded,
    /// Ended with an error; final.
    Failed,
    /// Will not be done; final.
    Skipped,
    /// Ended with its run; final.
    Canceled,
}

impl NodeStatus {
    /// Whether the node has ended for good.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Skipped | Self::Canceled
        )
    }
}

/// The status of one node of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// The status of the node.
    pub status: NodeStatus,
    /// Which attempt, from 1; zero before the first.
    #[serde(default)]
    pub attempt: Attempt,
    /// When its current attempt was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Why it failed, or why its last attempt did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<JsonObject>,
}

/// A run as clients see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The executor of its work.
    #[serde(default)]
    pub mode: RunMode,
    /// Its display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The status of the run.
    pub status: RunStatus,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The creator, as claimed by the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whatever its creator wants to find again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<JsonObject>,
    /// What `{{inputs.x}}` stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<JsonObject>,
    /// What it does; absent when an outside program does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// The status of its nodes, by id; those of a `foreach` are called `each[0].step`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<BTreeMap<NodeId, NodeState>>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The result that an outside program reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// The run that this one continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<RunId>,
}

/// A mark in the log of a run, from which its work can continue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Its id.
    pub id: CheckpointId,
    /// The run.
    pub run_id: RunId,
    /// When the runner took it in.
    pub ts: Timestamp,
    /// What it marks, as its author calls it.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = MAX_CHECKPOINT_TYPE_BYTES))]
    pub kind: String,
    /// What its author wants to find again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// The node whose worker wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// On the bus: where its data is, when that is too large for a message. Clients are shown the data instead, as long as
    /// it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
}

/// What the runner stores: the run up to an entry of its log, and its private bookkeeping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// What clients see.
    pub run: Run,
    /// What only the runner needs.
    #[serde(default)]
    pub private: RunPrivate,
    /// The piece of work that it was made for; absent or null for none.
    #[serde(default)]
    pub caused_by: Option<CausedBy>,
    /// The trace of the request that made it.
    #[serde(default)]
    pub trace_id: Option<TraceId>,
}

/// The runner's bookkeeping for one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RunPrivate {
    /// Number of the last entry of the log that this record includes.
    pub entries: u64,
    /// Sequence in the stream of the message that holds that entry; zero when there is none.
    pub log_sequence: u64,
    /// Bookkeeping of nodes, by id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<NodeId, NodePrivate>,
    /// Trace context of the request that made the run, so that its whole life is one trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// The runner's bookkeeping for one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodePrivate {
    /// The worker that has its current attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// Sequence of the task with which it was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<u64>,
    /// Number of the last report of that attempt that was processed.
    #[serde(skip_serializing_if = "is_zero")]
    pub reports: u64,
    /// When a wait ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// How many attempts failed.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub failures: u32,
    /// Its last checkpoint: where its next attempt begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_state: Option<Value>,
    /// Its last checkpoint is too large to be kept here; it is in the log.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resume_in_log: bool,
    /// How many lines of output were kept.
    #[serde(skip_serializing_if = "is_zero")]
    pub lines: u64,
    /// The items of a `foreach` that has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<Value>>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

/// Consecutive entries of the log of one run, stored as one message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunLogBatch {
    /// The run.
    pub run_id: RunId,
    /// Oldest first, at least one.
    pub entries: Vec<LogEntry>,
}

/// One entry of the log of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// Its number in the log, from 1 without gaps.
    pub n: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub fact: RunEvent,
    /// The report that brought it: what a worker sends again is not processed twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportMark>,
}

/// Which report of which attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportMark {
    /// The node.
    pub node_id: NodeId,
    /// Its attempt.
    pub attempt: Attempt,
    /// Number of the report within the attempt, from 1.
    pub seq: u64,
}

/// What can happen to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum RunEvent {
    /// The run has another status.
    Status {
        /// Which.
        status: RunStatus,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// The result that an outside program reported.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Value>,
    },
    /// A node has another status, or another attempt.
    Node {
        /// Its status now.
        node: NodeEvent,
    },
    /// A checkpoint.
    Checkpoint {
        /// The checkpoint.
        checkpoint: Checkpoint,
    },
    /// A node put something out; it is merged into its output.
    Output {
        /// The node.
        node_id: NodeId,
        /// Its attempt.
        attempt: Attempt,
        /// What.
        output: JsonObject,
    },
    /// How far a node is.
    Progress {
        /// The node.
        node_id: NodeId,
        /// Its attempt.
        attempt: Attempt,
        /// In its program's own words.
        data: JsonObject,
    },
    /// A line of output of a node's program.
    Log {
        /// The node.
        node_id: NodeId,
        /// Its attempt.
        attempt: Attempt,
        /// Where it came from.
        stream: LogStream,
        /// The text without its line end.
        line: String,
    },
    /// Something of a newer version.
    #[serde(other)]
    Unknown,
}

/// A node in another status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeEvent {
    /// The node.
    pub node_id: NodeId,
    /// The status of the node now.
    pub status: NodeStatus,
    /// Which attempt.
    pub attempt: Attempt,
    /// Why its attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is merged into its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<JsonObject>,
    /// Who took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// Sequence of the task with which it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<u64>,
    /// When its wait ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// Whether this counts as a failed attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed_attempt: bool,
    /// The items of a `foreach` that begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<Value>>,
}

/// One event of a run in its event stream: the name of the event and its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "type",
    content = "data",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum RunStreamEvent {
    /// The first event of every stream: the status of the run.
    Hello {
        /// The run.
        run_id: RunId,
        /// The status of the run.
        status: RunStatus,
        /// Number of the last entry of its log.
        #[serde(default)]
        entries: u64,
    },
    /// The run has another status.
    Status {
        /// The run.
        run_id: RunId,
        /// Which.
        status: RunStatus,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// A node has another status, or another attempt.
    Node {
        /// The run.
        run_id: RunId,
        /// The node.
        node_id: NodeId,
        /// The status of the node.
        status: NodeStatus,
        /// Which attempt.
        attempt: Attempt,
        /// Why its attempt failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// What was added to its output.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<JsonObject>,
    },
    /// A node put something out.
    Output {
        /// The run.
        run_id: RunId,
        /// The node.
        node_id: NodeId,
        /// Its attempt.
        attempt: Attempt,
        /// What.
        output: JsonObject,
    },
    /// How far a node is.
    Progress {
        /// The run.
        run_id: RunId,
        /// The node.
        node_id: NodeId,
        /// Its attempt.
        attempt: Attempt,
        /// In its program's own words.
        data: JsonObject,
    },
    /// A line of output of a node's program.
    Log {
        /// The run.
        run_id: RunId,
        /// The node.
        node_id: NodeId,
        /// Its attempt.
        attempt: Attempt,
        /// Where it came from.
        stream: LogStream,
        /// The text without its line end.
        line: String,
    },
}

impl RunStreamEvent {
    /// The event of an entry; `None` for an entry of a newer version.
    pub fn of(run_id: RunId, fact: &RunEvent) -> Option<Self> {
        Some(match fact.clone() {
            RunEvent::Status { status, error, .. } => Self::Status {
                run_id,
                status,
                error,
            },
            RunEvent::Node { node } => Self::Node {
                run_id,
                node_id: node.node_id,
                status: node.status,
                attempt: node.attempt,
                error: node.error,
                output: node.output,
            },
            RunEvent::Checkpoint { checkpoint } => Self::Checkpoint(checkpoint),
            RunEvent::Output {
                node_id,
                attempt,
                output,
            } => Self::Output {
                run_id,
                node_id,
                attempt,
                output,
            },
            RunEvent::Progress {
                node_id,
                attempt,
                data,
            } => Self::Progress {
                run_id,
                node_id,
                attempt,
                data,
            },
            RunEvent::Log {
                node_id,
                attempt,
                stream,
                line,
            } => Self::Log {
                run_id,
                node_id,
                attempt,
                stream,
                line,
            },
            RunEvent::Unknown => return None,
        })
    }
}
