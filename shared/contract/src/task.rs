//! Messages between run workers and the runner: tasks, reports, verdicts, commands.
//!
//! A worker pulls a [`Task`] from its queue, takes it by a report ([`WorkerEvent::Take`]), and works only if the verdict
//! is [`Verdict::Granted`], which holds the number of the attempt. Everything that happens it reports with a number of
//! its own; a report is sent again until it is answered. After the last one it acknowledges the task to the queue.
//! Messages may come twice and late: what counts is decided by attempt and number.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::JsonObject;
use crate::event::LogStream;
use crate::id::{NodeId, QueueName, RunId, WorkerId};
use crate::job::Attempt;

/// Most reports of one message.
pub const MAX_REPORTS: usize = 256;
/// Most lines of output that are kept of one node; further ones are dropped, which the log notes.
pub const MAX_LINES: u64 = 10_000;

/// Work for a run worker. It is written as JSON, so that a program in any language can read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// The run.
    pub run_id: RunId,
    /// The node.
    pub node_id: NodeId,
    /// The subject to which everything about this task is reported.
    pub report_to: String,
    /// The node's `input`, its places filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What to start, for a node of kind `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandSpec>,
    /// What the run was given.
    #[serde(default, skip_serializing_if = "JsonObject::is_empty")]
    pub inputs: JsonObject,
    /// The outputs of the nodes that this one needs, by their id.
    #[serde(default, skip_serializing_if = "JsonObject::is_empty")]
    pub context: JsonObject,
    /// Trace context of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// A program to start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Further environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The container image, where it is to run in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Reports of a worker, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunReports {
    /// At most 256, all of runs of the shard in the subject.
    pub reports: Vec<RunReport>,
}

/// A report of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// The run.
    pub run_id: RunId,
    /// The node.
    pub node_id: NodeId,
    /// The reporting worker; unique to the process.
    pub worker: WorkerId,
    /// The attempt that was granted; zero when the task is only being taken.
    #[serde(default)]
    pub attempt: Attempt,
    /// Its number within the attempt, from 1; zero when the task is only being taken, and for heartbeats.
    #[serde(default)]
    pub seq: u64,
    /// What happened.
    pub event: WorkerEvent,
}

/// What can happen at a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum WorkerEvent {
    /// It has the task from the queue and asks whether to begin.
    Take {
        /// How often the queue has delivered this task, from 1.
        #[serde(default)]
        delivered: u32,
        /// Sequence of the task's message in the stream of tasks: the same task can be there twice.
        #[serde(default)]
        sequence: u64,
    },
    /// It is still at it.
    Heartbeat,
    /// It can continue from here.
    Checkpoint {
        /// What the checkpoint is called; `checkpoint` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// What it needs to continue.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<Value>,
    },
    /// It put something out; merged into the node's output.
    Output {
        /// What.
        data: JsonObject,
    },
    /// How far it is.
    Progress {
        /// In its own words.
        data: JsonObject,
    },
    /// A line of output.
    Log {
        /// Where it came from.
        #[serde(default)]
        stream: LogStream,
        /// The text.
        line: String,
    },
    /// It ended well.
    Succeeded {
        /// Merged into the node's output.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<JsonObject>,
    },
    /// It failed.
    Failed {
        /// One sentence for people.
        error: String,
        /// Whether another attempt may help.
        #[serde(default)]
        retryable: bool,
    },
    /// Something of a newer version.
    #[serde(other)]
    Unknown,
}

/// The answers to reports, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunReportsReply {
    /// One per report.
    pub verdicts: Vec<Verdict>,
}

/// The runner's answer to a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Verdict {
    /// It is stored, now or already before.
    Ok,
    /// Begin.
    Granted {
        /// Which attempt this is, from 1.
        attempt: Attempt,
        /// The node's last checkpoint.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume_state: Option<Value>,
        /// Send a heartbeat at least this often, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        heartbeat_ms: Option<u64>,
    },
    /// This is no longer yours: stop, and acknowledge the task to the queue.
    Gone {
        /// Why, in one sentence.
        reason: String,
    },
    /// The report cannot be taken: too large, or of the wrong shape. The task continues.
    Refused {
        /// Why, in one sentence.
        reason: String,
    },
}

/// A command to a run worker, from the runner or an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum WorkerCommand {
    /// Stop working on this: terminate its program, then kill it.
    Cancel {
        /// The run.
        run_id: RunId,
        /// The node.
        node_id: NodeId,
        /// The attempt.
        attempt: Attempt,
    },
    /// Take no more tasks, or take tasks again; those in flight continue.
    Drain {
        /// True: no more; false: as before.
        drain: bool,
    },
    /// Something of a newer version.
    #[serde(other)]
    Unknown,
}

/// The queue of nodes of kind `command` that name none.
pub fn command_queue() -> QueueName {
    QueueName::parse("command").expect("a word is a name")
}
