//! Requests about runs that the edge, the client and `nats request` send to the runner, and their replies.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::JsonObject;
use crate::id::{CheckpointId, NodeId, RunId};
use crate::plan::PlanView;
use crate::run::{Checkpoint, NodeState, Run, RunMode, RunStatus};

/// A new run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateRun {
    /// The id that the run shall have: made by the edge, so that a request that is sent again stays one run. It must be
    /// of the shard in the subject.
    pub run_id: RunId,
    /// The executor of its work.
    #[serde(default)]
    pub mode: RunMode,
    /// Its plan, as received: all problems are reported at once. Absent when an outside program does the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Value>,
    /// What `{{inputs.x}}` stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<JsonObject>,
    /// Its display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whatever its creator wants to find again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<JsonObject>,
    /// Who creates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The ended run that this one continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<RunId>,
    /// What of that run is finished and not done again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub finished: BTreeMap<NodeId, NodeState>,
}

/// A plan to be checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanRun {
    /// The plan, as it came.
    pub plan: Value,
    /// Who would do the work.
    #[serde(default)]
    pub mode: RunMode,
}

/// What a plan would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanReply {
    /// What would run.
    pub plan: PlanView,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRef {
    /// Its id.
    pub run_id: RunId,
}

/// A run as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunReply {
    /// The run.
    pub run: Run,
    /// Number of the last entry of its log.
    pub entries: u64,
}

/// Which runs of a shard to list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListRuns {
    /// At most so many; at most 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only those that were created before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<RunId>,
    /// Only those of this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<RunStatus>,
    /// Only those of this owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Most runs of one page.
pub const MAX_RUNS_PAGE: u32 = 100;

/// Runs of a shard, newest first, without their plans and without the outputs of their nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunPage {
    /// The runs.
    pub runs: Vec<Run>,
}

/// The requested end of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelReply {
    /// True.
    pub ok: bool,
    /// `canceled`.
    pub status: RunStatus,
}

/// A checkpoint from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddCheckpoint {
    /// The run.
    pub run_id: RunId,
    /// The id that the checkpoint shall have: made by the edge, so that a request that is sent again stays one checkpoint.
    pub checkpoint_id: CheckpointId,
    /// What it marks; trimmed, then 1 to 256 bytes.
    #[serde(rename = "type")]
    pub kind: String,
    /// What its author wants to find again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Where the data is, when it is too large for a message: its name in the store of large values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
}

/// A checkpoint is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointReply {
    /// Its id.
    pub checkpoint_id: CheckpointId,
}

/// All checkpoints of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointPage {
    /// The run.
    pub run_id: RunId,
    /// Oldest first.
    pub checkpoints: Vec<Checkpoint>,
}

/// The end of a run without a plan, as reported by the program that does it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompleteRun {
    /// The run.
    pub run_id: RunId,
    /// `completed` or `failed`.
    pub status: RunStatus,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What came out of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// A decision about a gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecideGate {
    /// The run.
    pub run_id: RunId,
    /// The gate.
    pub node_id: NodeId,
    /// What was decided.
    pub decision: Decision,
    /// Who decided: the name of the API key, at most [`MAX_NAME_BYTES`](crate::id::MAX_NAME_BYTES).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// For whom, as the client claims, of the same length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
}

/// A decision about a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// Go on.
    Approve,
    /// The gate fails.
    Reject,
}
