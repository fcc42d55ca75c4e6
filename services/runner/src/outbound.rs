//! Does what the core decided. Writes of one run follow each other; those of different runs go side by side.
//!
//! The revision of every record and the place of every log are kept here. A write that loses, or whose fate is not known,
//! means that this process is not sure any more what is stored: [`Unsure`]. Then the driver forgets everything and loads it
//! anew.

use std::collections::HashMap;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use quintet_bus::pending::{PendingReplies, PendingReply};
use quintet_bus::{BucketHandle, Bus, BusError, KvError, PublishError, Revision, now};
use quintet_contract::bucket::{RunKey, Runs};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::{NodeId, QueueName, RunId, WorkerId};
use quintet_contract::job::Attempt;
use quintet_contract::reply::RequestId;
use quintet_contract::run::{Run, RunRecord};
use quintet_contract::run_api::{RunPage, RunReply};
use quintet_contract::subject::{CommandWorker, TaskQueue};
use quintet_contract::task::{RunReportsReply, Task, Verdict, WorkerCommand};
use quintet_contract::topology::stream;
use quintet_service::telemetry::chain;
use tracing::{debug, warn};

use crate::core::{Effect, Event, Write, listed};
use crate::execute::Executions;
use crate::runlog;

/// How long a worker is asked to stop; after that its next report tells it.
const CANCEL_DEADLINE: Duration = Duration::from_secs(5);
/// How long the records of a page may take to be read.
const READ_AT_ONCE: usize = 32;

/// Work that goes on beside the loop and may come back as an event.
pub(crate) type Work = FuturesUnordered<BoxFuture<'static, Option<Event>>>;

/// It is not certain what is stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsure {
    /// A record could not be written for sure.
    #[error("writing a run")]
    Record(#[from] KvError),
    /// A log could not be added to for sure.
    #[error("adding to the log of a run")]
    Log(#[from] PublishError),
    /// A log could not be read.
    #[error("reading the log of a run")]
    Read(#[from] BusError),
    /// A bucket does not confirm writes, although NATS is there.
    #[error("NATS does not store what changed")]
    Unwritable,
    /// The lease is no longer ours.
    #[error("the lease was lost before the changes were written")]
    Lease,
}

/// Where a run is stored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(crate) revision: Revision,
    /// Sequence of the last message of its log.
    pub(crate) sequence: u64,
}

/// A write that is confirmed.
pub(crate) enum Written {
    Record(RunId, Revision),
    Log(RunId, u64),
}

/// Everything that effects act on.
pub(crate) struct Outbound {
    bus: Bus,
    runs: BucketHandle<Runs>,
    places: HashMap<RunId, Place>,
    retention: Duration,
    pub(crate) writes: FuturesUnordered<BoxFuture<'static, Result<Written, Unsure>>>,
    pub(crate) work: Work,
    executions: Executions,
}

impl Outbound {
    pub(crate) fn new(
        bus: Bus,
        places: HashMap<RunId, Place>,
        retention: Duration,
        executions: Executions,
    ) -> Self {
        Self {
            runs: bus.bucket(),
            bus,
            places,
            retention,
            writes: FuturesUnordered::new(),
            work: Work::new(),
            executions,
        }
    }

    /// A write is confirmed; the event is for the core.
    pub(crate) fn written(&mut self, written: Written) -> Event {
        match written {
            Written::Record(run, revision) => {
                let place = self.places.entry(run).or_default();
                place.revision = revision;
                Event::Written(run, place.sequence)
            }
            Written::Log(run, sequence) => {
                self.places.entry(run).or_default().sequence = sequence;
                Event::Written(run, sequence)
            }
        }
    }

    /// Does one thing, or begins to.
    pub(crate) async fn act(
        &mut self,
        effect: Effect,
        pending: &mut PendingReplies,
    ) -> Result<(), Unsure> {
        match effect {
            Effect::Write(run, write) => self.write(run, write).await?,
            Effect::Dispatch(queue, task) => {
                self.work
                    .push(Box::pin(dispatch(self.bus.clone(), queue, task)));
            }
            Effect::LookFor(run, node, sequence) => {
                let looking = look_for(self.bus.clone(), run, node, sequence);
                self.work.push(Box::pin(looking));
            }
            Effect::Execute(execution) => self.executions.start(*execution),
            Effect::Stop(run, node, attempt) => self.executions.stop(run, &node, attempt),
            Effect::Cancel(worker, run, node, attempt) => {
                let bus = self.bus.clone();
                self.work
                    .push(Box::pin(cancel(bus, worker, run, node, attempt)));
            }
            Effect::Reply(reply) => pending.send(reply).await,
            Effect::ReplyWithResume(request, verdicts, lacking) => {
                if let Some(pending) = pending.take(request) {
                    let answering = with_resume(self.bus.clone(), pending, verdicts, lacking);
                    self.work.push(Box::pin(answering));
                }
            }
            Effect::Read(request, run) => self.read(request, run, pending),
            Effect::List(request, active, ended) => {
                if let Some(pending) = pending.take(request) {
                    let listing = list(self.runs.clone(), pending, active, ended);
                    self.work.push(Box::pin(listing));
                }
            }
            Effect::Forget(run) => {
                self.places.remove(&run);
            }
        }
        Ok(())
    }

    async fn write(&mut self, run: RunId, write: Write) -> Result<(), Unsure> {
        let place = self.places.get(&run).copied().unwrap_or_default();
        let (record, ttl) = match write {
            Write::Append(events) => {
                let pending = runlog::append(&self.bus, run, &events, place.sequence).await?;
                self.writes.push(Box::pin(
                    async move { Ok(Written::Log(run, pending.await?)) },
                ));
                return Ok(());
            }
            Write::Create(record) | Write::Snapshot(record) => (record, None),
            Write::End(record) => (record, Some(self.retention)),
        };
        let pending = self
            .runs
            .begin(&RunKey(run), &record, place.revision, ttl)
            .await?;
        self.writes.push(Box::pin(
            async move { Ok(Written::Record(run, pending.await?)) },
        ));
        Ok(())
    }

    fn read(&mut self, request: RequestId<RunReply>, run: RunId, pending: &mut PendingReplies) {
        let Some(pending) = pending.take(request) else {
            return;
        };
        let runs = self.runs.clone();
        self.work.push(Box::pin(async move {
            match runs.get(&RunKey(run)).await {
                Ok(Some(found)) => {
                    let RunRecord { run, private, .. } = found.record;
                    let entries = private.entries;
                    let reply = RunReply { run, entries };
                    pending.reply(Ok(reply)).await;
                    None
                }
                Ok(None) => {
                    let error = ErrorReply::new(ErrorCode::NotFound, "run not found");
                    pending.reject(&error).await;
                    Some(Event::Expired(run))
                }
                Err(error) => {
                    pending.reject(&unreadable(&error)).await;
                    None
                }
            }
        }));
    }
}

fn unreadable(error: &KvError) -> ErrorReply {
    warn!(error = %chain(error), "cannot read a run");
    let text = "the runs cannot be read now; send the same request again in a moment";
    ErrorReply::unavailable(text)
}

/// Stores a task in its queue, however long it takes: the run waits for it. One that is stored twice does no harm.
async fn dispatch(bus: Bus, queue: QueueName, task: Box<Task>) -> Option<Event> {
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
        Ok(sequence) => Some(Event::Dispatched(
            task.run_id,
            task.node_id.clone(),
            sequence,
        )),
        Err(error) => {
            warn!(run = %task.run_id, node = %task.node_id, error = %chain(&error), "a task cannot be stored");
            None
        }
    }
}

/// Looks whether a task is still in its queue.
async fn look_for(bus: Bus, run: RunId, node: NodeId, sequence: u64) -> Option<Event> {
    match bus.is_stored(stream::tasks(bus.prefix()), sequence).await {
        Ok(true) => None,
        Ok(false) => Some(Event::TaskGone(run, node, sequence)),
        Err(error) => {
            debug!(%run, %node, error = %chain(&error), "cannot look for a task");
            None
        }
    }
}

/// Asks a worker to stop. Where that is lost, the answer to its next report says it too.
async fn cancel(
    bus: Bus,
    worker: WorkerId,
    run_id: RunId,
    node_id: NodeId,
    attempt: Attempt,
) -> Option<Event> {
    let subject = CommandWorker { worker };
    let command = WorkerCommand::Cancel {
        run_id,
        node_id,
        attempt,
    };
    let asked = bus.request_until(&subject, &command, CANCEL_DEADLINE).await;
    if let Err(error) = asked {
        debug!(error = %chain(&error), "a worker was not reached");
    }
    None
}

/// Looks up the last checkpoints of nodes, then answers.
async fn with_resume(
    bus: Bus,
    pending: PendingReply<RunReportsReply>,
    mut verdicts: Vec<Verdict>,
    lacking: Vec<(usize, RunId, NodeId)>,
) -> Option<Event> {
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
                    "the last checkpoint of this node cannot be read now; ask again in a moment";
                pending.reject(&ErrorReply::unavailable(text)).await;
                return None;
            }
        }
    }
    pending.reply(Ok(RunReportsReply { verdicts })).await;
    None
}

/// Answers with runs that go on and runs that have ended, newest first.
async fn list(
    runs: BucketHandle<Runs>,
    pending: PendingReply<RunPage>,
    mut found: Vec<Run>,
    ended: Vec<RunId>,
) -> Option<Event> {
    use futures::StreamExt;
    let began = now();
    let records: Vec<_> = futures::stream::iter(ended)
        .map(|id| {
            let runs = runs.clone();
            async move { (id, runs.get(&RunKey(id)).await) }
        })
        .buffered(READ_AT_ONCE)
        .collect()
        .await;
    let mut expired = None;
    for (id, record) in records {
        match record {
            Ok(Some(record)) => found.push(listed(record.record.run)),
            Ok(None) => expired = Some(Event::Expired(id)),
            Err(error) => {
                pending.reject(&unreadable(&error)).await;
                return None;
            }
        }
    }
    debug!(took = ?now().since(began), "read ended runs");
    found.sort_by_key(|run| std::cmp::Reverse(run.id));
    pending.reply(Ok(RunPage { runs: found })).await;
    expired
}
