//! Executions in the runner's own process: nodes of kind `job`, and commands as Jobs of Kubernetes.
//!
//! Each execution reports as a run worker would; so what the core does with its reports is the same. Everything here can
//! be begun again: after a restart the runner finds the node running and starts the execution again, which continues
//! with what is there. So an execution ends in two ways: stopped, it stops what it began; left, it leaves all as it is
//! for the next leader.

use std::collections::HashMap;
use std::time::Duration;

use futures::{Stream, StreamExt};
use quintet_bus::{Bus, with_traceparent};
use quintet_contract::id::{NodeId, RunId, WorkerId};
use quintet_contract::job::Attempt;
use quintet_contract::task::{RunReport, WorkerEvent};
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_service::telemetry::chain;
use quintet_worker::program::ProgramInput;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::core::{Execution, ExecutionWork, KubernetesWork, OWN_WORKER};
use crate::jobs;
use crate::kubernetes::{self, Kubernetes, Reported};
use crate::runlog::last_checkpoint;

/// Events of one execution that wait to be reported; the execution waits when it is full.
const EVENTS: usize = 64;
/// Wait before NATS is asked again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

type Key = (RunId, NodeId, Attempt);

/// Reports of executions that wait to be processed; when full, executions wait.
const REPORTS: usize = 256;

/// Everything that is being executed for one shard, and what it reports.
pub(crate) struct Executions {
    bus: Bus,
    kubernetes: Option<Kubernetes>,
    tasks: Tasks,
    sender: mpsc::Sender<RunReport>,
    reports: mpsc::Receiver<RunReport>,
    going: HashMap<Key, CancellationToken>,
}

impl Executions {
    pub(crate) fn new(bus: Bus, kubernetes: Option<Kubernetes>, tasks: Tasks) -> Self {
        let (sender, reports) = mpsc::channel(REPORTS);
        Self {
            bus,
            kubernetes,
            tasks,
            sender,
            reports,
            going: HashMap::new(),
        }
    }

    /// The next report. Cancel-safe: the channel keeps what was not returned.
    pub(crate) async fn next(&mut self) -> Option<RunReport> {
        self.reports.recv().await
    }

    /// Ends all of them, within the deadline.
    pub(crate) async fn shutdown(self, deadline: Duration) {
        let _ = self.tasks.shutdown(deadline).await;
    }

    pub(crate) fn start(&mut self, execution: Execution) {
        let key = (execution.run, execution.node.clone(), execution.attempt);
        self.going.retain(|_, stop| !stop.is_cancelled());
        let stop = CancellationToken::new();
        self.going.insert(key, stop.clone());
        let (bus, kubernetes) = (self.bus.clone(), self.kubernetes.clone());
        let (reports, left) = (self.sender.clone(), self.tasks.token());
        self.tasks
            .spawn("execution", ExitPolicy::Optional, async move {
                let work = execute(bus, kubernetes, execution, reports, &stop);
                tokio::select! {
                    biased;
                    () = left.cancelled() => {}
                    () = work => {}
                }
                stop.cancel();
                Ok::<(), std::convert::Infallible>(())
            });
    }

    pub(crate) fn stop(&mut self, run: RunId, node: &NodeId, attempt: Attempt) {
        if let Some(stop) = self.going.remove(&(run, node.clone(), attempt)) {
            stop.cancel();
        }
    }
}

async fn execute(
    bus: Bus,
    kubernetes: Option<Kubernetes>,
    execution: Execution,
    reports: mpsc::Sender<RunReport>,
    stop: &CancellationToken,
) {
    let key = (execution.run, execution.node.clone(), execution.attempt);
    match execution.work {
        ExecutionWork::Job(job) => {
            let (events, receiver) = mpsc::channel(EVENTS);
            // The same each time it is begun: what was reported before counts once.
            let reported = received(receiver)
                .enumerate()
                .map(|(before, event)| Reported {
                    seq: before as u64 + 1,
                    event,
                });
            let work = jobs::execute(bus, key.clone(), job, events, stop.clone());
            let work = with_traceparent(execution.traceparent, work);
            tokio::join!(work, report(reports, reported, key));
        }
        ExecutionWork::Kubernetes(work) => {
            let (events, receiver) = mpsc::channel(EVENTS);
            let attempt = OnKubernetes {
                bus,
                kubernetes,
                work: *work,
                after: execution.reports,
                events,
            };
            let work = attempt.run(key.clone(), stop);
            tokio::join!(work, report(reports, received(receiver), key));
        }
    }
}

/// One attempt of a node on Kubernetes.
struct OnKubernetes {
    bus: Bus,
    kubernetes: Option<Kubernetes>,
    work: KubernetesWork,
    /// Number of its last event that was processed.
    after: u64,
    events: mpsc::Sender<Reported>,
}

impl OnKubernetes {
    async fn run(self, (run, node, attempt): Key, stop: &CancellationToken) {
        let Some(kubernetes) = self.kubernetes.clone() else {
            let text = "the runner that came to lead this run has no Kubernetes cluster; give all runners the same \
                        KUBECONFIG or K8S_IN_CLUSTER, then retry the node";
            return self.refuse(text.to_owned()).await;
        };
        let resume_state = self.resume_state(run, &node, stop).await;
        let input = match ProgramInput::of(&self.work.task, resume_state.as_ref()) {
            Ok(input) => input,
            Err(error) => return self.refuse(format!("its input is no JSON: {error}")).await,
        };
        let texts = input.texts();
        let execution = kubernetes::Execution {
            run,
            node,
            attempt,
            command: self.work.command,
            env: texts
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .collect(),
            timeout: self.work.timeout_ms.map(Duration::from_millis),
            heartbeat: self.work.heartbeat_ms.map(Duration::from_millis),
            after: self.after,
        };
        kubernetes
            .execute(execution, self.events, stop.clone())
            .await;
    }

    /// The last checkpoint; an execution that is stopped before it could be read needs none.
    async fn resume_state(
        &self,
        run: RunId,
        node: &NodeId,
        stop: &CancellationToken,
    ) -> Option<Value> {
        if !self.work.resume_from_log {
            return self.work.resume_state.clone();
        }
        while !stop.is_cancelled() {
            match last_checkpoint(&self.bus, run, node).await {
                Ok(found) => return found,
                Err(error) => {
                    debug!(%run, %node, error = %chain(&error), "cannot read the last checkpoint of a node yet");
                    sleep(RETRY_DELAY).await;
                }
            }
        }
        None
    }

    async fn refuse(&self, error: String) {
        let event = WorkerEvent::Failed {
            error,
            retryable: false,
        };
        let seq = self.after.saturating_add(1);
        // The receiver may be gone.
        let _ = self.events.send(Reported { seq, event }).await;
    }
}

fn received<T>(mut receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    futures::stream::poll_fn(move |context| receiver.poll_recv(context))
}

/// Hands on the events of one execution.
async fn report(
    reports: mpsc::Sender<RunReport>,
    events: impl Stream<Item = Reported>,
    (run_id, node_id, attempt): Key,
) {
    let worker = WorkerId::parse(OWN_WORKER).expect("the name of the runner as a worker is a name");
    let mut events = std::pin::pin!(events);
    while let Some(Reported { seq, event }) = events.next().await {
        let report = RunReport {
            run_id,
            node_id: node_id.clone(),
            worker: worker.clone(),
            attempt,
            seq,
            event,
        };
        // Fails when the shard is given up; the next leader begins again.
        if reports.send(report).await.is_err() {
            return;
        }
    }
}
