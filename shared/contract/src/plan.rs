//! A plan: what a run does, as a graph of nodes. What it means that a plan is sound is decided by the runner.
//!
//! A [`Node`] is one struct for all kinds: its `kind` decides which of the further fields it needs, so that a plan with
//! several mistakes can still be read and every one of them be named.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::JsonObject;

/// Most nodes of one plan, those inside a `foreach` included.
pub const MAX_NODES: usize = 1_000;
/// Most items of one `foreach`.
pub const MAX_ITEMS: usize = 1_000;
/// Most bytes of a plan with its inputs as JSON: a record holds it together with the outputs of its nodes.
pub const MAX_PLAN_BYTES: usize = 256 * 1024;
/// The kinds of nodes, as they are written.
pub const KINDS: [&str; 8] = [
    "command",
    "task",
    "inference",
    "job",
    "gate",
    "condition",
    "foreach",
    "sleep",
];

/// A graph of nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// What is to be done; at most 1000.
    pub nodes: Vec<Node>,
    /// What must be done before what; the same as `needs` of the node at the end of an edge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<Edge>,
    /// The run fails when it takes longer, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_ms: Option<u64>,
    /// Most nodes that run at once; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_parallel: Option<u32>,
    /// What the failure of a node means for nodes that do not depend on it.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// What the failure of a node means for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// What runs is canceled, and the run fails at once.
    #[default]
    Stop,
    /// What does not depend on it is finished; then the run fails.
    Continue,
}

/// That one node comes before another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// The id of the node that comes first.
    pub from: String,
    /// The id of the node that waits for it.
    pub to: String,
}

/// One step of a plan. In every string of it `{{inputs.x}}` and `{{nodes.a.output.x}}` stand for a value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// Unique in the plan: 1 to 64 letters, digits, `_` and `-`.
    #[schemars(regex(pattern = "^[A-Za-z0-9_-]{1,64}$"))]
    pub id: String,
    /// `command`, `task`, `inference`, `job`, `gate`, `condition`, `foreach` or `sleep`.
    #[schemars(extend("enum" = KINDS))]
    pub kind: String,
    /// Ids of nodes that must have ended well, or been skipped, before this one begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Whether it is tried again after a failure that allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Longest time of one attempt, in milliseconds; for a gate, how long it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_ms: Option<u64>,
    /// An attempt without a heartbeat for so many milliseconds has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub heartbeat_timeout_ms: Option<u64>,

    /// command: the program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// command: further environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// command: the container image, needed where the run's mode is `k8s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// task: the queue whose workers take it; command: `command` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// task, inference, command: what it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// inference: the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// job: what is submitted to the agents, as for `POST /v1/jobs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JsonObject>,
    /// gate: what happens without a decision in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<OnTimeout>,
    /// condition: an expression of the Common Expression Language over `inputs` and `nodes` that is true or false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// condition: direct dependents that are skipped unless the expression is true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<String>,
    /// condition: direct dependents that are skipped unless the expression is false.
    #[serde(default, rename = "else", skip_serializing_if = "Vec::is_empty")]
    pub otherwise: Vec<String>,
    /// foreach: a list, or a string that stands for one, such as `{{nodes.a.output.files}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Value>,
    /// foreach: most items that are worked on at once; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_parallel: Option<u32>,
    /// foreach: what is done for each item; `{{item}}` and `{{index}}` stand for the item and its place from 0, and
    /// `{{nodes.b.output.x}}` for another node of the same item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Node>,
    /// sleep: the moment at which it ends, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// sleep: how long it takes, such as `1h 30m` or `250ms`.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
}

/// What happens to a gate without a decision in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnTimeout {
    /// As if it had been approved.
    Approve,
    /// As if it had been rejected: it fails.
    Reject,
}

/// Whether and when a node is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retry {
    /// How often at most after the first attempt.
    pub max: u32,
    /// Wait before the second attempt, in milliseconds.
    pub backoff_ms: u64,
    /// Longest wait, in milliseconds.
    pub backoff_max_ms: u64,
    /// How the wait grows.
    pub kind: Backoff,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max: 0,
            backoff_ms: 1_000,
            backoff_max_ms: 60_000,
            kind: Backoff::Exponential,
        }
    }
}

/// How waits between attempts grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Backoff {
    /// Always the same.
    Fixed,
    /// Doubled every time.
    #[default]
    Exponential,
}

/// One thing that is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Where: a path such as `nodes[2].needs[0]`; empty for the plan as a whole.
    pub path: String,
    /// What kind: `shape`, `missing`, `value`, `duplicateId`, `unknownKind`, `danglingEdge`, `cycle`, `expression`,
    /// `template`, `limit` or `unsupported`.
    pub code: String,
    /// One sentence for people.
    pub message: String,
}

/// What would run, in which order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanView {
    /// Ids of nodes that can run at the same time, layer after layer.
    pub layers: Vec<Vec<String>>,
    /// Every node.
    pub nodes: Vec<PlannedNode>,
    /// Every edge once, also those that the plan gives as `needs`.
    pub edges: Vec<Edge>,
    /// The ids along the longest path, by number of nodes.
    pub critical_path: Vec<String>,
    /// What will not keep the plan from starting but perhaps from ending, one sentence each.
    pub warnings: Vec<String>,
}

/// A node of a plan, and what would execute it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedNode {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// The ids it waits for.
    pub needs: Vec<String>,
    /// The queue that it goes to, if it goes to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Whether a worker takes from that queue now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_worker: Option<bool>,
}
