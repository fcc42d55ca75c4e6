//! The run of one task, from its pull to its acknowledgement.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use quintet_bus::{AckHandle, Pulled};
use quintet_contract::JsonObject;
use quintet_contract::job::Attempt;
use quintet_contract::task::{Task, Verdict, WorkerEvent};
use quintet_worker::Slot;
use quintet_worker::task::{InFlight, InFlightGuard, Outboxes, Stop, TaskReporter};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::RunWorkerConfig;
use crate::handler::{Handler, TaskContext, TaskFailure};
use crate::metrics;

/// Longest wait between two heartbeats of a task: the runner's answer to them reaches us also when its command did not.
const HEARTBEAT_MAX: Duration = Duration::from_secs(5);
/// Shortest such wait, whatever a plan asks for.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
/// How long after its grace a handler that was asked to stop may take to notice; then it is dropped.
const STOP_SLACK: Duration = Duration::from_secs(2);

/// What every task needs.
pub(crate) struct Worker<H> {
    pub(crate) config: RunWorkerConfig,
    pub(crate) handler: H,
    pub(crate) outboxes: Outboxes,
    pub(crate) in_flight: Arc<InFlight>,
    /// Whether an operator lets it take no more tasks.
    pub(crate) draining: watch::Sender<bool>,
    /// Cancelled when no task may begin any more.
    pub(crate) closing: CancellationToken,
}

/// What the queue is reported of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disposition {
    /// It is done with.
    Ack,
    /// Redeliver it to another worker, now.
    Nak,
    /// Nothing: it comes again, later.
    Abandon,
}

/// Runs a task.
pub(crate) async fn run_task<H: Handler>(worker: Arc<Worker<H>>, pulled: Pulled, slot: Slot) {
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
    let id = config.worker.clone();
    let reporter = worker.outboxes.reporter(&task, id, config.log_limits);
    let task_run = TaskRun {
        worker: &worker,
        reporter,
        task: Arc::new(task),
    };
    let disposition = keep_in_progress(&held, config.task_ack_wait / 3, task_run.run(take)).await;
    drop(slot);
    match disposition {
        Disposition::Ack => held.ack().await,
        Disposition::Nak => held.nak().await,
        Disposition::Abandon => drop(held),
    }
}

/// Marks the task as in progress at the queue, until it has ended.
async fn keep_in_progress(
    held: &AckHandle,
    period: Duration,
    task_run: impl Future<Output = Disposition>,
) -> Disposition {
    let mut task_run = pin!(task_run);
    loop {
        // A task that is not finished is polled again.
        tokio::select! {
            biased;
            disposition = &mut task_run => return disposition,
            () = sleep(period) => held.in_progress().await,
        }
    }
}

struct TaskRun<'w, H> {
    worker: &'w Arc<Worker<H>>,
    reporter: Arc<TaskReporter>,
    task: Arc<Task>,
}

impl<H: Handler> TaskRun<'_, H> {
    async fn run(&self, take: WorkerEvent) -> Disposition {
        let taken = tokio::select! {
            biased;
            () = self.worker.closing.cancelled() => None,
            taken = self.take(take) => Some(taken),
        };
        let Some(taken) = taken else {
            metrics::task("given_back");
            return Disposition::Nak;
        };
        let (guard, verdict) = taken;
        match verdict {
            Some(Verdict::Granted {
                attempt,
                resume_state,
                heartbeat_ms,
            }) => {
                guard.grant(attempt);
                let done = self.work(attempt, resume_state, heartbeat_ms).await;
                self.report_end(done).await
            }
            Some(Verdict::Gone { reason }) => {
                debug!(run = %self.task.run_id, node = %self.task.node_id, reason, "a task is not wanted any more");
                metrics::task("gone");
                Disposition::Ack
            }
            answer @ (Some(Verdict::Ok | Verdict::Refused { .. }) | None) => {
                warn!(run = %self.task.run_id, node = %self.task.node_id, ?answer, "a task was not granted");
                metrics::task("forgotten");
                Disposition::Abandon
            }
        }
    }

    /// Waits for an earlier delivery to end, then asks whether to begin.
    async fn take(&self, take: WorkerEvent) -> (InFlightGuard, Option<Verdict>) {
        let guard = loop {
            match self.worker.in_flight.try_claim(&self.reporter) {
                Ok(guard) => break guard,
                Err(earlier) => earlier.ended().await,
            }
        };
        let verdict = self.reporter.report_and_wait(take).await;
        (guard, verdict)
    }

    /// Lets the handler do it; `None` when it was reported to stop and did not.
    async fn work(
        &self,
        attempt: Attempt,
        resume_state: Option<Value>,
        heartbeat_ms: Option<u64>,
    ) -> Option<Result<JsonObject, TaskFailure>> {
        let reporter = self.reporter.clone();
        let context = TaskContext::new(self.task.clone(), attempt, resume_state, reporter);
        let mut stop = self.reporter.stopping();
        let handled = AssertUnwindSafe(self.worker.handler.handle(context)).catch_unwind();
        let mut handled = pin!(handled);
        let period = heartbeat_period(heartbeat_ms);
        let mut beat = interval_at(Instant::now() + period, period);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let patience = self.worker.config.kill_grace + STOP_SLACK;
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
                _ = beat.tick() => self.reporter.beat(),
            }
        }
    }

    /// Reports how it ended, to every waiter.
    async fn report_end(&self, done: Option<Result<JsonObject, TaskFailure>>) -> Disposition {
        self.reporter.flush_output();
        let mut stop = self.reporter.stopping();
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
        let reported = tokio::select! {
            biased;
            disposition = self.last_report(outcome, event) => Some(disposition),
            true = drained => None,
        };
        match reported {
            Some(disposition) => disposition,
            // The end is not stored: another worker resumes from the last checkpoint.
            None => self.give_back().await,
        }
    }

    async fn last_report(&self, outcome: &'static str, event: WorkerEvent) -> Disposition {
        let verdict = match self.reporter.report_and_wait(event).await {
            Some(Verdict::Refused { reason }) => {
                let error = format!("its end could not be stored: {reason}");
                let retryable = false;
                self.reporter
                    .report_and_wait(WorkerEvent::Failed { error, retryable })
                    .await
            }
            verdict => verdict,
        };
        match verdict {
            Some(Verdict::Gone { reason }) => self.gone(&reason),
            Some(Verdict::Ok | Verdict::Granted { .. } | Verdict::Refused { .. }) => {
                metrics::task(outcome);
                Disposition::Ack
            }
            None => {
                metrics::task("forgotten");
                Disposition::Abandon
            }
        }
    }

    fn gone(&self, reason: &str) -> Disposition {
        let attempt = self.reporter.attempt();
        debug!(run = %self.task.run_id, node = %self.task.node_id, %attempt, reason, "a task is no longer ours");
        metrics::task("gone");
        Disposition::Ack
    }

    async fn give_back(&self) -> Disposition {
        self.reporter.flush().await;
        metrics::task("given_back");
        Disposition::Nak
    }
}

/// The last report of a task, and its name in the metrics.
fn ending(
    why: Option<Stop>,
    done: Option<Result<JsonObject, TaskFailure>>,
) -> (&'static str, WorkerEvent) {
    let failed = |TaskFailure { error, retryable }| WorkerEvent::Failed { error, retryable };
    match (why, done) {
        // The owner that canceled it knows its status.
        (Some(_), _) => ("canceled", failed(TaskFailure::new("it was canceled"))),
        (None, Some(Ok(output))) => {
            let output = (!output.is_empty()).then_some(output);
            ("succeeded", WorkerEvent::Succeeded { output })
        }
        (None, Some(Err(failure))) => ("failed", failed(failure)),
        (None, None) => ("failed", failed(TaskFailure::new("it did not end in time"))),
    }
}

fn heartbeat_period(heartbeat_ms: Option<u64>) -> Duration {
    let wanted = heartbeat_ms.map_or(HEARTBEAT_MAX, |millis| Duration::from_millis(millis) / 3);
    wanted.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX)
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> TaskFailure {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    TaskFailure::new(format!(
        "the handler panicked: {}",
        text.unwrap_or("without a disposition")
    ))
}
