//! Outbound: performs the effects of the core. Writes of one run follow each other; those of different runs go side by
//! side.
//!
//! The revision of every record and the last sequence of every log are kept here. What is read for a reply comes back as the
//! reply, so that a request stays pending, and is rejected at a hand-over like any other.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use quintet_bus::pending::PendingReplies;
use quintet_bus::{BucketHandle, Bus, KvError, PublishError, Revision, new_checkpoint_id, now};
use quintet_contract::bucket::{RunKey, Runs};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::{CheckpointId, NodeId, QueueName, RunId, WorkerId};
use quintet_contract::job::Attempt;
use quintet_contract::reply::RequestId;
use quintet_contract::run::{Run, RunRecord};
use quintet_contract::run_api::{RunPage, RunReply};
use quintet_contract::subject::{CommandWorker, TaskQueue};
use quintet_contract::task::{
    RunReport, RunReportsReply, Task, Verdict, WorkerCommand, WorkerEvent,
};
use quintet_contract::time::Timestamp;
use quintet_contract::topology::stream;
use quintet_leader::{Confirmation, Signal, WriteError};
use quintet_service::telemetry::chain;
use tracing::{debug, warn};

use crate::core::{Action, Answer, Core, Event, Rejection, RunWrite, Write, listed};
use crate::execute::Executions;
use crate::runlog;

/// How long a worker is requested to stop; after that the answer to its next report repeats it.
const CANCEL_DEADLINE: Duration = Duration::from_secs(5);
/// Records of a page that are read at once.
const READ_AT_ONCE: usize = 32;

type Came = Signal<Event, Action>;
/// Work that runs beside the loop, and what comes of it.
type Work = FuturesUnordered<BoxFuture<'static, Vec<Came>>>;

/// Where a run is stored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    pub(crate) revision: Revision,
    /// Sequence of the last message of its log.
    pub(crate) sequence: u64,
}

/// A write that is confirmed.
pub(crate) enum Written {
    Record(Revision),
    Log(u64),
}

/// Everything that effects act on.
pub(crate) struct Outbound {
    bus: Bus,
    runs: BucketHandle<Runs>,
    positions: HashMap<RunId, Position>,
    retention: Duration,
    work: Work,
    /// What came of work and was not returned yet.
    came: VecDeque<Came>,
    pub(crate) executions: Executions,
}

impl Outbound {
    pub(crate) fn new(
        bus: Bus,
        positions: HashMap<RunId, Position>,
        retention: Duration,
        executions: Executions,
    ) -> Self {
        Self {
            runs: bus.bucket(),
            bus,
            positions,
            retention,
            work: Work::new(),
            came: VecDeque::new(),
            executions,
        }
    }
}

impl quintet_leader::Outbound for Outbound {
    type Core = Core;
    type Key = RunId;
    type Receipt = Written;

    fn key(RunWrite(run, _): &RunWrite) -> RunId {
        *run
    }

    async fn begin(
        &mut self,
        _: &Core,
        RunWrite(run, write): RunWrite,
        _: Timestamp,
    ) -> Result<Option<Confirmation<Written>>, WriteError> {
        let position = self.positions.get(&run).copied().unwrap_or_default();
        let (record, ttl) = match write {
            Write::Append(events) => {
                let last = position.sequence;
                let pending = runlog::append(&self.bus, run, &events, last).await?;
                return Ok(Some(Box::pin(
                    async move { Ok(Written::Log(pending.await?)) },
                )));
            }
            Write::Create(record) | Write::Snapshot(record) => (record, None),
            Write::End(record) => (record, Some(self.retention)),
        };
        let key = RunKey(run);
        let pending = self.runs.begin(&key, &record, position.revision, ttl);
        let pending = pending.await?;
        Ok(Some(Box::pin(async move {
            Ok(Written::Record(pending.await?))
        })))
    }

    fn confirmed(&mut self, run: RunId, written: Written) -> Option<Event> {
        let position = self.positions.entry(run).or_default();
        match written {
            Written::Record(revision) => position.revision = revision,
            Written::Log(sequence) => position.sequence = sequence,
        }
        Some(Event::Written(run, position.sequence))
    }

    fn rejected(&mut self, rejection: Rejection) -> Event {
        Event::WriteRejected(rejection)
    }

    async fn act(&mut self, action: Action, pending: &mut PendingReplies) {
        let bus = self.bus.clone();
        match action {
            Action::Dispatch(queue, task) => self.work.push(Box::pin(dispatch(bus, queue, task))),
            Action::VerifyEnqueued(run, node, sequence) => {
                let verifying = verify_enqueued(bus, run, node, sequence);
                self.work.push(Box::pin(verifying));
            }
            Action::Execute(execution) => self.executions.start(*execution),
            Action::Stop(run, node, attempt) => self.executions.stop(run, &node, attempt),
            Action::Cancel(worker, run, node, attempt) => {
                self.work
                    .push(Box::pin(cancel(bus, worker, run, node, attempt)));
            }
            Action::Reply(reply) => pending.send(reply).await,
            Action::ReplyWithResume(request, verdicts, lacking) => {
                let reading = with_resume(bus, request, verdicts, lacking);
                self.work.push(Box::pin(reading));
            }
            Action::Read(request, run) => {
                self.work
                    .push(Box::pin(read(self.runs.clone(), request, run)));
            }
            Action::List(request, active, ended) => {
                let listing = list(self.runs.clone(), request, active, ended);
                self.work.push(Box::pin(listing));
            }
            Action::Forget(run) => {
                self.positions.remove(&run);
            }
        }
    }

    /// Cancel-safe: work and channel keep what was not returned.
    async fn next(&mut self) -> Came {
        loop {
            if let Some(came) = self.came.pop_front() {
                return came;
            }
            tokio::select! {
                biased;
                Some(came) = self.work.next() => self.came.extend(came),
                Some(report) = self.executions.next() => {
                    let id = checkpoint_for(&report);
                    return Signal::Event(Event::Executed(Box::new(report), id));
                }
                else => std::future::pending().await,
            }
        }
    }
}

fn unreadable(error: &KvError) -> ErrorReply {
    warn!(error = %chain(error), "cannot read a run");
    let text = "the runs cannot be read now; send the same request again in a moment";
    ErrorReply::unavailable(text)
}

/// Stores a task in its queue, however long it takes: the run waits for it. One that is stored twice does no harm.
async fn dispatch(bus: Bus, queue: QueueName, task: Box<Task>) -> Vec<Came> {
    let subject = TaskQueue { queue };
    let store = async || bus.store_json(&subject, &task).await?.await;
    let patience = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times();
    let stored = store
        .retry(patience)
        .when(|error: &PublishError| {
            !matches!(
                error,
                PublishError::TooLarge { .. } | PublishError::Codec(_)
            )
        })
        .notify(|error, _| debug!(error = %chain(error), "cannot store a task, trying again"))
        .await;
    match stored {
        Ok(sequence) => {
            let event = Event::Dispatched(task.run_id, task.node_id.clone(), sequence);
            vec![Signal::Event(event)]
        }
        Err(error) => {
            warn!(run = %task.run_id, node = %task.node_id, error = %chain(&error), "a task cannot be stored");
            let reason = WriteError::from(error).to_reply().error;
            let event = Event::TaskRejected(task.run_id, task.node_id.clone(), reason);
            vec![Signal::Event(event)]
        }
    }
}

/// Verifies that a task is still in its queue.
async fn verify_enqueued(bus: Bus, run: RunId, node: NodeId, sequence: u64) -> Vec<Came> {
    match bus.is_stored(stream::tasks(bus.prefix()), sequence).await {
        Ok(true) => Vec::new(),
        Ok(false) => vec![Signal::Event(Event::TaskMissing(run, node, sequence))],
        Err(error) => {
            debug!(%run, %node, error = %chain(&error), "cannot verify that a task is in its queue");
            Vec::new()
        }
    }
}

/// Requests a worker to stop. Where that is lost, the answer to its next report repeats it.
async fn cancel(
    bus: Bus,
    worker: WorkerId,
    run_id: RunId,
    node_id: NodeId,
    attempt: Attempt,
) -> Vec<Came> {
    let subject = CommandWorker { worker };
    let command = WorkerCommand::Cancel {
        run_id,
        node_id,
        attempt,
    };
    let sent = bus.request_until(&subject, &command, CANCEL_DEADLINE).await;
    if let Err(error) = sent {
        debug!(error = %chain(&error), "a worker was not reached");
    }
    Vec::new()
}

/// Reads the last checkpoints of nodes, then answers.
async fn with_resume(
    bus: Bus,
    request: RequestId<RunReportsReply>,
    mut verdicts: Vec<Verdict>,
    lacking: Vec<(usize, RunId, NodeId)>,
) -> Vec<Came> {
    for (index, run, node) in lacking {
        match runlog::last_checkpoint(&bus, run, &node).await {
            Ok(found) => {
                if let Some(Verdict::Granted { resume_state, .. }) = verdicts.get_mut(index) {
                    *resume_state = found;
                }
            }
            Err(error) => {
                warn!(%run, %node, error = %chain(&error), "cannot read the last checkpoint of a node");
                let text =
                    "the last checkpoint of this node cannot be read now; try again in a moment";
                return vec![reply(request, Err(ErrorReply::unavailable(text)))];
            }
        }
    }
    vec![reply(request, Ok(RunReportsReply { verdicts }))]
}

/// Answers with active runs and runs that have ended, newest first.
async fn list(
    runs: BucketHandle<Runs>,
    request: RequestId<RunPage>,
    mut found: Vec<Run>,
    ended: Vec<RunId>,
) -> Vec<Came> {
    let began = now();
    let records: Vec<_> = futures::stream::iter(ended)
        .map(|id| {
            let runs = runs.clone();
            async move { (id, runs.get(&RunKey(id)).await) }
        })
        .buffered(READ_AT_ONCE)
        .collect()
        .await;
    let mut came = Vec::new();
    for (id, record) in records {
        match record {
            Ok(Some(record)) => found.push(listed(record.record.run)),
            Ok(None) => came.push(Signal::Event(Event::Expired(id))),
            Err(error) => {
                return vec![reply(request, Err(unreadable(&error)))];
            }
        }
    }
    debug!(took = ?now().since(began), "read ended runs");
    found.sort_by_key(|run| std::cmp::Reverse(run.id));
    came.push(reply(request, Ok(RunPage { runs: found })));
    came
}

/// Answers with the record of a run that has ended.
async fn read(runs: BucketHandle<Runs>, request: RequestId<RunReply>, run: RunId) -> Vec<Came> {
    match runs.get(&RunKey(run)).await {
        Ok(Some(found)) => {
            let RunRecord { run, private, .. } = found.record;
            let entries = private.entries;
            vec![reply(request, Ok(RunReply { run, entries }))]
        }
        Ok(None) => {
            let error = ErrorReply::new(ErrorCode::NotFound, "run not found");
            vec![
                reply(request, Err(error)),
                Signal::Event(Event::Expired(run)),
            ]
        }
        Err(error) => vec![reply(request, Err(unreadable(&error)))],
    }
}

fn reply<R>(request: RequestId<R>, outcome: Result<R, ErrorReply>) -> Came
where
    Answer: From<R>,
{
    Signal::Act(Action::Reply(request.reply(outcome)))
}

/// A fresh id where the report is a checkpoint.
pub(crate) fn checkpoint_for(report: &RunReport) -> CheckpointId {
    match report.event {
        WorkerEvent::Checkpoint { .. } => new_checkpoint_id(),
        _ => CheckpointId::from_uuid(uuid::Uuid::nil()),
    }
}
