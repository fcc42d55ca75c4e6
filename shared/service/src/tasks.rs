//! Supervised tasks: every task has a name, a parent and an exit policy.
//!
//! ```text
//!   group "quintet" ── task "signals"
//!        └─ group "quintet/edge" ── task "quintet/edge/http"     Essential: its end stops the group
//!                                └─ task "quintet/edge/gauges"   Optional: its end is logged
//! ```
//!
//! Stopping goes down (a child's token is a child of its parent's token); the end of an essential task
//! goes up as far as the groups on the way are themselves essential. A task that panics is a task that
//! ended, under its own name. A task learns of the stop by its group's token and is aborted only when it
//! outlives the deadline of [`Tasks::shutdown`].

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::telemetry::chain;

/// How long an aborted task may take to notice; one that blocks its thread never does.
const ABORT_WAIT: Duration = Duration::from_secs(1);

/// What the end of a task, or of an essential task in a child group, means for the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitPolicy {
    /// The group cannot continue without it and stops.
    Essential,
    /// The group continues; a failure is logged.
    Optional,
}

/// How a task ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It returned without an error.
    Finished,
    /// It returned this error.
    Failed(Arc<dyn Error + Send + Sync>),
    /// It panicked with this message.
    Panicked(String),
    /// It was aborted.
    Aborted,
}

/// The end of one task. As an error it reads as the reason why a process stops.
#[derive(Clone, Debug)]
pub struct TaskEnd {
    /// The full name: its groups and itself, separated by slashes.
    pub task: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// What [`Tasks::shutdown`] found.
#[derive(Clone, Debug, Default)]
#[must_use = "an unclean shutdown deserves a log line"]
pub struct Report {
    /// Names of tasks that did not end before the deadline and were aborted.
    pub aborted: Vec<String>,
    /// Tasks that failed or panicked while stopping.
    pub failed: Vec<TaskEnd>,
}

/// A group of supervised tasks; a cheap handle, all clones are the same group.
#[derive(Clone)]
pub struct Tasks {
    group: Arc<Group>,
}

struct Group {
    path: String,
    token: CancellationToken,
    parent: Option<(Tasks, ExitPolicy)>,
    running: watch::Sender<Running>,
    first_end: watch::Sender<Option<TaskEnd>>,
    /// Failures after the stop began: never more than there were tasks running at that moment.
    late_failures: Mutex<Vec<TaskEnd>>,
}

/// Tasks of a group and of the groups below it, by a process-wide number.
type Running = BTreeMap<u64, (String, AbortHandle)>;

impl Tasks {
    /// A new group without a parent.
    pub fn new(name: impl Into<String>) -> Self {
        Self::with(name.into(), CancellationToken::new(), None)
    }

    /// A group below this one: stopped with it, and counted by its [`Tasks::shutdown`].
    ///
    /// `policy` decides what the end of an essential task in the child means for this group.
    pub fn child(&self, name: &str, policy: ExitPolicy) -> Tasks {
        let path = format!("{}/{name}", self.group.path);
        Self::with(
            path,
            self.group.token.child_token(),
            Some((self.clone(), policy)),
        )
    }

    fn with(path: String, token: CancellationToken, parent: Option<(Tasks, ExitPolicy)>) -> Self {
        let group = Group {
            path,
            token,
            parent,
            running: watch::Sender::new(BTreeMap::new()),
            first_end: watch::Sender::new(None),
            late_failures: Mutex::new(Vec::new()),
        };
        Self {
            group: Arc::new(group),
        }
    }

    /// The group's full name.
    pub fn name(&self) -> &str {
        &self.group.path
    }

    /// Cancelled when the group is to stop; tasks wait for it, and cancelling it stops the group.
    pub fn token(&self) -> CancellationToken {
        self.group.token.clone()
    }

    /// Asks the group and everything below it to stop, without waiting.
    pub fn stop(&self) {
        self.group.token.cancel();
    }

    /// Names of the tasks that run in this group and below it.
    pub fn running(&self) -> Vec<String> {
        self.group
            .running
            .borrow()
            .values()
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Runs `future` as a supervised task of this group. Must be called within a Tokio runtime.
    pub fn spawn<F, E>(&self, name: &str, policy: ExitPolicy, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let task = format!("{}/{name}", self.group.path);

        let work = tokio::spawn(future.in_current_span());
        self.enter(id, &task, &work.abort_handle());
        let tasks = self.clone();
        // Supervision is a task of its own so that it outlives a panic and an abort of the work.
        tokio::spawn(async move {
            let outcome = outcome(work.await);
            tasks.ended(TaskEnd { task, outcome }, policy);
            // Left last: a waiter for the empty group sees what its tasks reported.
            tasks.leave(id);
        });
    }

    /// Resolves when an essential task has ended before the group was asked to stop.
    ///
    /// Cancel-safe: the end is kept and every later call returns it at once.
    pub async fn wait(&self) -> TaskEnd {
        let mut ends = self.group.first_end.subscribe();
        match ends.wait_for(Option::is_some).await {
            Ok(end) => end.clone().expect("waited until an end is there"),
            Err(_) => unreachable!("the sender is a field of self"),
        }
    }

    /// Stops the group: cancels, waits up to `deadline`, then aborts and names what is left.
    ///
    /// Not to be awaited in a task of the group itself, which would wait for its own end.
    pub async fn shutdown(&self, deadline: Duration) -> Report {
        self.stop();
        let mut report = Report::default();
        if tokio::time::timeout(deadline, self.emptied())
            .await
            .is_err()
        {
            for (name, task) in self.group.running.borrow().values() {
                task.abort();
                report.aborted.push(name.clone());
            }
            // An aborted task that blocks its thread is named already; it is not waited for.
            let _ = tokio::time::timeout(ABORT_WAIT, self.emptied()).await;
        }
        report.failed = self.late_failures().drain(..).collect();
        report
    }

    /// Cancel-safe: it only looks.
    async fn emptied(&self) {
        let mut running = self.group.running.subscribe();
        // Fails only without a sender, and the sender is a field of self.
        let _ = running.wait_for(BTreeMap::is_empty).await;
    }

    fn enter(&self, id: u64, task: &str, work: &AbortHandle) {
        for tasks in self.lineage() {
            let entry = (task.to_owned(), work.clone());
            tasks.group.running.send_modify(|running| {
                running.insert(id, entry);
            });
        }
    }

    fn leave(&self, id: u64) {
        for tasks in self.lineage() {
            tasks.group.running.send_modify(|running| {
                running.remove(&id);
            });
        }
    }

    fn ended(&self, end: TaskEnd, policy: ExitPolicy) {
        if self.group.token.is_cancelled() {
            self.ended_late(end);
            return;
        }
        if policy == ExitPolicy::Essential {
            self.essential_ended(&end);
            return;
        }
        match end.outcome {
            Outcome::Finished => tracing::debug!(task = end.task, "optional task finished"),
            Outcome::Failed(_) | Outcome::Panicked(_) | Outcome::Aborted => {
                tracing::warn!(task = end.task, error = %chain(&end), "optional task failed");
            }
        }
    }

    /// Logged without its cause: [`Tasks::wait`] returns that to its caller, which decides what it means.
    fn essential_ended(&self, end: &TaskEnd) {
        for tasks in self.lineage() {
            tracing::info!(
                task = end.task,
                group = tasks.name(),
                "essential task ended, stopping its group"
            );
            tasks.group.first_end.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert_with(|| end.clone());
                is_first
            });
            tasks.stop();
            if matches!(tasks.group.parent, Some((_, ExitPolicy::Optional))) {
                // Here the end of the group is the end of something optional: it is not reported upwards.
                tracing::warn!(task = end.task, error = %chain(end), "optional group stopped");
                return;
            }
        }
    }

    /// Ending is what a stopping task should do; failing is worth a line, an abort is in the report.
    fn ended_late(&self, end: TaskEnd) {
        if !matches!(end.outcome, Outcome::Failed(_) | Outcome::Panicked(_)) {
            return;
        }
        tracing::warn!(task = end.task, error = %chain(&end), "task failed while stopping");
        for tasks in self
            .lineage()
            .filter(|tasks| tasks.group.token.is_cancelled())
        {
            tasks.late_failures().push(end.clone());
        }
    }

    fn late_failures(&self) -> std::sync::MutexGuard<'_, Vec<TaskEnd>> {
        self.group
            .late_failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// This group, its parent, and so on up.
    fn lineage(&self) -> impl Iterator<Item = &Tasks> {
        std::iter::successors(Some(self), |tasks| {
            tasks.group.parent.as_ref().map(|(parent, _)| parent)
        })
    }
}

impl Report {
    /// Whether everything ended in time and without failing.
    pub fn is_clean(&self) -> bool {
        self.aborted.is_empty() && self.failed.is_empty()
    }
}

impl TaskEnd {
    /// Whether the task returned without an error.
    pub fn is_finished(&self) -> bool {
        matches!(self.outcome, Outcome::Finished)
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("name", &self.name())
            .field("running", &self.running())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for TaskEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Finished => write!(f, "task {} ended", self.task),
            Outcome::Failed(_) => write!(f, "task {} failed", self.task),
            Outcome::Panicked(message) => write!(f, "task {} panicked: {message}", self.task),
            Outcome::Aborted => write!(f, "task {} was aborted", self.task),
        }
    }
}

impl Error for TaskEnd {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.outcome {
            Outcome::Failed(error) => Some(error.as_ref()),
            Outcome::Finished | Outcome::Panicked(_) | Outcome::Aborted => None,
        }
    }
}

fn outcome<E: Error + Send + Sync + 'static>(ended: Result<Result<(), E>, JoinError>) -> Outcome {
    match ended {
        Ok(Ok(())) => Outcome::Finished,
        Ok(Err(error)) => Outcome::Failed(Arc::new(error)),
        Err(join) => match join.try_into_panic() {
            Ok(payload) => Outcome::Panicked(panic_message(payload.as_ref())),
            Err(_) => Outcome::Aborted,
        },
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    payload
        .downcast_ref::<String>()
        .cloned()
        .unwrap_or_else(|| "with a value that is no text".to_owned())
}

#[cfg(test)]
mod tests;
