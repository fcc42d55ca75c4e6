//! One task, from the moment it is pulled to the word to its queue.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use quintet_bus::{Held, Pulled};
use quintet_contract::JsonObject;
use quintet_contract::job::Attempt;
use quintet_contract::task::{Task, Verdict, WorkerEvent};
use quintet_worker::output::LogLimits;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::RunWorkerConfig;
use crate::desk::{Desk, Seat};
use crate::handler::{Handler, TaskContext, TaskFailure};
use crate::metrics;
use crate::outbox::{Account, Outboxes, Stop};
use crate::slots::Slot;

/// Longest wait between two signs of life: what the runner says to them reaches us also when its command did not.
const BEAT_MAX: Duration = Duration::from_secs(5);
/// Shortest such wait, whatever a plan asks for.
const BEAT_MIN: Duration = Duration::from_millis(100);
/// How long after its grace a handler that was told to stop may take to notice; then it is dropped.
const SLACK: Duration = Duration::from_secs(2);

/// What every task needs.
pub(crate) struct Worker<H> {
    pub(crate) config: RunWorkerConfig,
    pub(crate) handler: H,
    pub(crate) outboxes: Outboxes,
    pub(crate) desk: Arc<Desk>,
    /// Cancelled when no task may begin any more.
    pub(crate) closing: CancellationToken,
}

/// What the queue is told of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// It is done with.
    Done,
    /// Somebody else shall have it, now.
    GiveBack,
    /// Nothing: it comes again, later.
    Nothing,
}

/// Lives a task's life.
pub(crate) async fn live<H: Handler>(worker: Arc<Worker<H>>, pulled: Pulled, slot: Slot) {
    let Pulled {
        task,
        delivered,
        sequence,
        held,
        ..
    } = pulled;
    let take = WorkerEvent::Take {
        delivered,
        sequence,
    };
    let config = &worker.config;
    let (outbox, limits): (_, LogLimits) = (worker.outboxes.of(&task), config.log_limits);
    let key = (task.run_id, task.node_id.clone());
    let account = Account::new(key, config.worker.clone(), outbox, limits);
    let life = Life {
        worker: &worker,
        account,
        task: Arc::new(task),
    };
    let word = hold(&held, config.task_ack_wait / 3, life.run(take)).await;
    drop(slot);
    match word {
        Word::Done => held.done().await,
        Word::GiveBack => held.give_back().await,
        Word::Nothing => drop(held),
    }
}

/// Tells the queue again and again that the task is worked on, until it is not any more.
async fn hold(held: &Held, period: Duration, life: impl Future<Output = Word>) -> Word {
    let mut life = pin!(life);
    loop {
        // A life that is not finished is looked at again.
        tokio::select! {
            biased;
            word = &mut life => return word,
            () = sleep(period) => held.working().await,
        }
    }
}

struct Life<'w, H> {
    worker: &'w Arc<Worker<H>>,
    account: Arc<Account>,
    task: Arc<Task>,
}

impl<H: Handler> Life<'_, H> {
    async fn run(&self, take: WorkerEvent) -> Word {
        let taken = tokio::select! {
            biased;
            () = self.worker.closing.cancelled() => None,
            taken = self.take(take) => Some(taken),
        };
        let Some(taken) = taken else {
            metrics::task("given_back");
            return Word::GiveBack;
        };
        let (seat, verdict) = taken;
        match verdict {
            Some(Verdict::Granted {
                attempt,
                resume_state,
                heartbeat_ms,
            }) => {
                seat.grant(attempt);
                let done = self.work(attempt, resume_state, heartbeat_ms).await;
                self.tell(done).await
            }
            Some(Verdict::Gone { reason }) => {
                debug!(run = %self.task.run_id, node = %self.task.node_id, reason, "a task is not wanted any more");
                metrics::task("gone");
                Word::Done
            }
            answer @ (Some(Verdict::Ok | Verdict::Refused { .. }) | None) => {
                warn!(run = %self.task.run_id, node = %self.task.node_id, ?answer, "a task was not granted");
                metrics::task("forgotten");
                Word::Nothing
            }
        }
    }

    /// Waits for an earlier delivery to end, then asks whether to begin.
    async fn take(&self, take: WorkerEvent) -> (Seat, Option<Verdict>) {
        let seat = loop {
            match self.worker.desk.sit(&self.account) {
                Ok(seat) => break seat,
                Err(earlier) => earlier.ended().await,
            }
        };
        let verdict = self.account.ask(take).await;
        (seat, verdict)
    }

    /// Lets the handler do it; `None` when it was told to stop and did not.
    async fn work(
        &self,
        attempt: Attempt,
        resume_state: Option<Value>,
        heartbeat_ms: Option<u64>,
    ) -> Option<Result<JsonObject, TaskFailure>> {
        let account = self.account.clone();
        let context = TaskContext::new(self.task.clone(), attempt, resume_state, account);
        let mut stop = self.account.stopping();
        let handled = AssertUnwindSafe(self.worker.handler.handle(context)).catch_unwind();
        let mut handled = pin!(handled);
        let period = beat_period(heartbeat_ms);
        let mut beat = interval_at(Instant::now() + period, period);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let patience = self.worker.config.kill_grace + SLACK;
        let mut deadline = None;
        loop {
            let late = deadline.unwrap_or_else(Instant::now);
            // Every branch is cancel-safe: a future that is kept, a watch, timers.
            tokio::select! {
                biased;
                done = &mut handled => return Some(done.unwrap_or_else(|panic| Err(panicked(&*panic)))),
                Ok(_) = stop.wait_for(Option::is_some), if deadline.is_none() => {
                    deadline = Some(Instant::now() + patience);
                }
                () = sleep_until(late), if deadline.is_some() => return None,
                _ = beat.tick() => self.account.beat(),
            }
        }
    }

    /// Says how it ended, to whoever wants to know.
    async fn tell(&self, done: Option<Result<JsonObject, TaskFailure>>) -> Word {
        self.account.last_words();
        let mut stop = self.account.stopping();
        let why = stop.borrow_and_update().clone();
        match why {
            Some(Stop::Gone(reason)) => return self.gone(&reason),
            Some(Stop::Drained) => return self.give_back().await,
            Some(Stop::Canceled) | None => {}
        }
        let (outcome, event) = ending(why, done);
        let drained = async {
            stop.wait_for(|stop| *stop == Some(Stop::Drained))
                .await
                .is_ok()
        };
        let told = tokio::select! {
            biased;
            word = self.last_report(outcome, event) => Some(word),
            true = drained => None,
        };
        match told {
            Some(word) => word,
            // The end is not stored: somebody else comes to it from the last checkpoint.
            None => self.give_back().await,
        }
    }

    async fn last_report(&self, outcome: &'static str, event: WorkerEvent) -> Word {
        let verdict = match self.account.ask(event).await {
            Some(Verdict::Refused { reason }) => {
                let error = format!("its end could not be stored: {reason}");
                let retryable = false;
                self.account
                    .ask(WorkerEvent::Failed { error, retryable })
                    .await
            }
            verdict => verdict,
        };
        match verdict {
            Some(Verdict::Gone { reason }) => self.gone(&reason),
            Some(Verdict::Ok | Verdict::Granted { .. } | Verdict::Refused { .. }) => {
                metrics::task(outcome);
                Word::Done
            }
            None => {
                metrics::task("forgotten");
                Word::Nothing
            }
        }
    }

    fn gone(&self, reason: &str) -> Word {
        let attempt = self.account.attempt();
        debug!(run = %self.task.run_id, node = %self.task.node_id, %attempt, reason, "a task is no longer ours");
        metrics::task("gone");
        Word::Done
    }

    async fn give_back(&self) -> Word {
        self.account.settle().await;
        metrics::task("given_back");
        Word::GiveBack
    }
}

/// The last report of a task, and its name in the metrics.
fn ending(
    why: Option<Stop>,
    done: Option<Result<JsonObject, TaskFailure>>,
) -> (&'static str, WorkerEvent) {
    let failed = |TaskFailure { error, retryable }| WorkerEvent::Failed { error, retryable };
    match (why, done) {
        // Whoever canceled it knows better what it is now.
        (Some(_), _) => ("canceled", failed(TaskFailure::new("it was canceled"))),
        (None, Some(Ok(output))) => {
            let output = (!output.is_empty()).then_some(output);
            ("succeeded", WorkerEvent::Succeeded { output })
        }
        (None, Some(Err(failure))) => ("failed", failed(failure)),
        (None, None) => ("failed", failed(TaskFailure::new("it did not end in time"))),
    }
}

fn beat_period(heartbeat_ms: Option<u64>) -> Duration {
    let asked = heartbeat_ms.map_or(BEAT_MAX, |millis| Duration::from_millis(millis) / 3);
    asked.clamp(BEAT_MIN, BEAT_MAX)
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> TaskFailure {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    TaskFailure::new(format!(
        "the handler panicked: {}",
        text.unwrap_or("without a word")
    ))
}
