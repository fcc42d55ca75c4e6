//! Events ([`Event`]), writes ([`RunWrite`]) and actions ([`Action`]) of a runner; actions happen once the writes are
//! stored.

use quintet_contract::JsonObject;
use quintet_contract::id::{CheckpointId, NodeId, QueueName, RunId, WorkerId};
use quintet_contract::job::Attempt;
use quintet_contract::replies;
use quintet_contract::reply::{Reply, RequestId};
use quintet_contract::run::{Run, RunLogBatch, RunRecord};
use quintet_contract::run_api::{
    AddCheckpoint, CancelReply, CheckpointReply, CompleteRun, CreateRun, DecideGate, ListRuns,
    RunPage, RunReply,
};
use quintet_contract::task::{CommandSpec, RunReport, RunReportsReply, Task, Verdict};

/// Trace context of a request.
pub type Traceparent = Option<String>;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client wants a new run.
    Create(RequestId<RunReply>, Box<CreateRun>, Traceparent),
    /// A client requests a run.
    Get(RequestId<RunReply>, RunId),
    /// A client requests runs.
    List(RequestId<RunPage>, ListRuns),
    /// A client wants a run to end.
    Cancel(RequestId<CancelReply>, RunId),
    /// A client adds a checkpoint.
    Checkpoint(RequestId<CheckpointReply>, Box<AddCheckpoint>),
    /// A client reports how a run without a plan ended.
    Complete(RequestId<RunReply>, Box<CompleteRun>),
    /// An operator decided about a gate.
    Decide(RequestId<RunReply>, DecideGate),
    /// A worker reported. Each report comes with an id for the checkpoint that it may be.
    Reported(RequestId<RunReportsReply>, Vec<(RunReport, CheckpointId)>),
    /// Something that this process does itself reported.
    Executed(Box<RunReport>, CheckpointId),
    /// A write of a run is confirmed; for an addition to its log, with its sequence there.
    Written(RunId, u64),
    /// The task of a node is in its queue, with this sequence.
    Dispatched(RunId, NodeId, u64),
    /// The task with this sequence is no longer in its queue.
    TaskMissing(RunId, NodeId, u64),
    /// The task of a node cannot be stored in its queue, for this reason.
    TaskRejected(RunId, NodeId, String),
    /// The store rejected writes of runs.
    WriteRejected(Rejection),
    /// The record of an ended run is no longer there.
    Expired(RunId),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Give a task to a queue.
    Dispatch(QueueName, Box<Task>),
    /// See whether the task with this sequence is still in its queue, and report it missing if it is not.
    VerifyEnqueued(RunId, NodeId, u64),
    /// Do something in this process, or continue with it, and report how it goes.
    Execute(Box<Execution>),
    /// Stop doing it.
    Stop(RunId, NodeId, Attempt),
    /// Command a worker to stop.
    Cancel(WorkerId, RunId, NodeId, Attempt),
    /// Answer.
    Reply(Reply<Answer>),
    /// Answer a worker; these verdicts, by place, still lack the last checkpoint of a node, which is in the log.
    ReplyWithResume(
        RequestId<RunReportsReply>,
        Vec<Verdict>,
        Vec<(usize, RunId, NodeId)>,
    ),
    /// Answer with the record of a run that has ended.
    Read(RequestId<RunReply>, RunId),
    /// Answer with these runs and with the records of those that have ended, newest first.
    List(RequestId<RunPage>, Vec<Run>, Vec<RunId>),
    /// A run is no longer in memory.
    Forget(RunId),
}

/// A write of a run; confirmed by [`Event::Written`]. One at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct RunWrite(pub RunId, pub Write);

/// Writes of runs that the store rejected.
pub type Rejection = quintet_leader::Rejection<RunId, Action>;

/// One write of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Its first record.
    Create(Box<RunRecord>),
    /// More of its log.
    Append(RunLogBatch),
    /// Its record again.
    Snapshot(Box<RunRecord>),
    /// Its last record.
    End(Box<RunRecord>),
}

/// Something that the runner's own process sees to.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// Which attempt.
    pub attempt: Attempt,
    /// How many of its reports were processed already, where it is continued.
    pub reports: u64,
    /// The trace of the run.
    pub traceparent: Traceparent,
    /// What it is.
    pub work: ExecutionWork,
}

/// What the runner's own process sees to.
#[derive(Clone, Debug, PartialEq)]
pub enum ExecutionWork {
    /// Submit this job, and follow it to its end.
    Job(JsonObject),
    /// Run this as a Job of Kubernetes.
    Kubernetes(Box<KubernetesWork>),
}

/// A command for Kubernetes.
#[derive(Clone, Debug, PartialEq)]
pub struct KubernetesWork {
    /// The task as a run worker would get it.
    pub task: Task,
    /// What to start.
    pub command: CommandSpec,
    /// The last checkpoint.
    pub resume_state: Option<serde_json::Value>,
    /// There is a last checkpoint, but only the log has it.
    pub resume_from_log: bool,
    /// Longest time, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// A heartbeat is due at least this often, in milliseconds.
    pub heartbeat_ms: Option<u64>,
}

replies! {
    /// What is answered.
    pub enum Answer {
        /// A run.
        Run(RunReply),
        /// It is canceled.
        Canceled(CancelReply),
        /// The checkpoint is stored.
        Checkpoint(CheckpointReply),
        /// Several runs.
        Runs(RunPage),
        /// To a worker.
        Reports(RunReportsReply),
    }
}
