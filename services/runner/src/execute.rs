//! What the runner's own process sees to: nodes of kind `job`, and commands as Jobs of Kubernetes.
//!
//! Each execution reports as a run worker would, with numbers of its own; so what the core does with its reports is the
//! same. Everything here can be begun again: after a restart the runner finds the node running and starts the execution
//! anew, which goes on with what is there.

use std::collections::HashMap;

use quintet_bus::Bus;
use quintet_contract::id::{NodeId, RunId, WorkerId};
use quintet_contract::job::Attempt;
use quintet_contract::task::{RunReport, WorkerEvent};
use quintet_service::tasks::{ExitPolicy, Tasks};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::core::{Execution, ExecutionWork, OWN_WORKER};
use crate::jobs;

/// Events of one execution that wait to be reported; the execution waits when it is full.
const EVENTS: usize = 64;

type Key = (RunId, NodeId, Attempt);

/// Everything that is being executed for one shard.
pub(crate) struct Executions {
    bus: Bus,
    tasks: Tasks,
    reports: mpsc::Sender<RunReport>,
    going: HashMap<Key, CancellationToken>,
}

impl Executions {
    pub(crate) fn new(bus: Bus, tasks: Tasks, reports: mpsc::Sender<RunReport>) -> Self {
        Self {
            bus,
            tasks,
            reports,
            going: HashMap::new(),
        }
    }

    pub(crate) fn start(&mut self, execution: Execution) {
        let token = self.tasks.token().child_token();
        let key = (execution.run, execution.node.clone(), execution.attempt);
        self.going.retain(|_, token| !token.is_cancelled());
        self.going.insert(key, token.clone());
        let (events, heard) = mpsc::channel(EVENTS);
        let reporting = report(
            self.reports.clone(),
            heard,
            (execution.run, execution.node.clone(), execution.attempt),
        );
        let (bus, ended) = (self.bus.clone(), token.clone());
        self.tasks
            .spawn("execution", ExitPolicy::Optional, async move {
                let work = async {
                    match execution.work {
                        ExecutionWork::Job(job) => {
                            let key = (execution.run, execution.node, execution.attempt);
                            jobs::execute(bus, key, job, events, token).await;
                        }
                        ExecutionWork::Kubernetes(_) => {
                            let text = "mode k8s is not configured at this runner";
                            let _ = events
                                .send(WorkerEvent::Failed {
                                    error: text.to_owned(),
                                    retryable: false,
                                })
                                .await;
                        }
                    }
                };
                tokio::join!(work, reporting);
                ended.cancel();
                Ok::<(), std::convert::Infallible>(())
            });
    }

    pub(crate) fn stop(&mut self, run: RunId, node: &NodeId, attempt: Attempt) {
        if let Some(token) = self.going.remove(&(run, node.clone(), attempt)) {
            token.cancel();
        }
    }
}

/// Numbers the events of one execution.
async fn report(
    reports: mpsc::Sender<RunReport>,
    mut events: mpsc::Receiver<WorkerEvent>,
    (run_id, node_id, attempt): Key,
) {
    let Ok(worker) = WorkerId::parse(OWN_WORKER) else {
        return;
    };
    let mut seq = 0;
    while let Some(event) = events.recv().await {
        seq += 1;
        let report = RunReport {
            run_id,
            node_id: node_id.clone(),
            worker: worker.clone(),
            attempt,
            seq,
            event,
        };
        // Fails when the shard is given up; whoever takes it over begins again.
        if reports.send(report).await.is_err() {
            return;
        }
    }
}
