//! Handlers of tasks: [`Handler`], and its context ([`TaskContext`]).

use std::fmt;
use std::sync::Arc;

use quintet_contract::JsonObject;
use quintet_contract::event::LogStream;
use quintet_contract::id::{NodeId, RunId};
use quintet_contract::job::Attempt;
use quintet_contract::task::{Task, WorkerEvent};
use quintet_worker::task::{Stop, TaskReporter};
use serde_json::Value;
use tokio::sync::watch;

/// Does tasks, each when it is granted.
///
/// An async function is one: it is dropped when its task is to be stopped. A handler that implements the trait itself is
/// notified by [`TaskContext::stopping`] and has the grace of the configuration; then its future is dropped.
///
/// ```
/// use quintet_workers::{Handler, TaskContext, TaskFailure};
/// use quintet_contract::JsonObject;
/// use serde_json::json;
///
/// async fn double(task: TaskContext) -> Result<JsonObject, TaskFailure> {
///     let number = task.task().input.as_ref().and_then(|input| input["number"].as_i64());
///     let number = number.ok_or(TaskFailure::new("the input has no number"))?;
///     task.log(&format!("doubling {number}"));
///     Ok(JsonObject::from_iter([("number".to_owned(), json!(2 * number))]))
/// }
/// # fn is_handler(_: impl Handler) {}
/// # is_handler(double);
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Does a task; what it gives is merged into the node's output.
    fn handle(
        &self,
        task: TaskContext,
    ) -> impl Future<Output = Result<JsonObject, TaskFailure>> + Send;
}

impl<F, Work> Handler for F
where
    F: Fn(TaskContext) -> Work + Send + Sync + 'static,
    Work: Future<Output = Result<JsonObject, TaskFailure>> + Send,
{
    async fn handle(&self, task: TaskContext) -> Result<JsonObject, TaskFailure> {
        let mut stop = task.stop.clone();
        let work = self(task);
        // What is dropped here did not end and reports nothing: the run of the task knows why.
        tokio::select! {
            biased;
            done = work => done,
            () = stopping(&mut stop) => Err(TaskFailure::new("it was stopped")),
        }
    }
}

/// Why a task failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFailure {
    /// One sentence for people.
    pub error: String,
    /// Whether another attempt may help.
    pub retryable: bool,
}

impl TaskFailure {
    /// A failure that another attempt would meet again.
    pub fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            retryable: false,
        }
    }

    /// A failure that another attempt may not meet.
    pub fn retryable(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            retryable: true,
        }
    }
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for TaskFailure {}

/// One attempt at a task, and the ways to report on it. Reports are stored in their order and before the end.
#[derive(Clone, Debug)]
pub struct TaskContext {
    task: Arc<Task>,
    attempt: Attempt,
    resume_state: Option<Value>,
    reporter: Arc<TaskReporter>,
    stop: watch::Receiver<Option<Stop>>,
}

impl TaskContext {
    pub(crate) fn new(
        task: Arc<Task>,
        attempt: Attempt,
        resume_state: Option<Value>,
        reporter: Arc<TaskReporter>,
    ) -> Self {
        let stop = reporter.stopping();
        Self {
            task,
            attempt,
            resume_state,
            reporter,
            stop,
        }
    }

    /// The run.
    pub fn run_id(&self) -> RunId {
        self.task.run_id
    }

    /// The node.
    pub fn node_id(&self) -> &NodeId {
        &self.task.node_id
    }

    /// Which attempt this is, from 1.
    pub const fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// What is to be done.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The last checkpoint of an earlier attempt.
    pub const fn resume_state(&self) -> Option<&Value> {
        self.resume_state.as_ref()
    }

    /// Marks where another attempt can continue. Waits only while much is unanswered.
    pub async fn checkpoint(&self, name: Option<String>, data: Option<Value>) {
        let event = WorkerEvent::Checkpoint { name, data };
        self.reporter.report(event).await;
    }

    /// Adds to the node's output.
    pub async fn output(&self, data: JsonObject) {
        self.reporter.report(WorkerEvent::Output { data }).await;
    }

    /// Reports progress; of what comes faster than four times a second the newest counts.
    pub async fn progress(&self, data: JsonObject) {
        self.reporter.progress(data).await;
    }

    /// Adds a line to the log of the run. Never waits: what is too much is dropped and counted.
    pub fn log(&self, line: &str) {
        self.log_from(LogStream::Stdout, line);
    }

    pub(crate) fn log_from(&self, stream: LogStream, line: &str) {
        self.reporter.log(stream, line);
    }

    /// Writes a note of the worker's own to the log.
    pub(crate) fn note(&self, line: String) {
        self.reporter.note(line);
    }

    /// Resolves when the task is to be stopped. Cancel-safe: it only looks.
    pub async fn stopping(&self) {
        stopping(&mut self.stop.clone()).await;
    }
}

async fn stopping(stop: &mut watch::Receiver<Option<Stop>>) {
    // Fails only without the reporter, and the caller holds it.
    if stop.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}
