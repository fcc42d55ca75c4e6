//! Dispatch: attempts of nodes go to their workers, and are canceled there.

use std::collections::BTreeMap;
use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::id::{NodeId, RunShard, WorkerId};
use quintet_contract::job::Attempt;
use quintet_contract::plan::Node;
use quintet_contract::run::{NodeEvent, NodeState, NodeStatus};
use quintet_contract::subject::{RunReporting, Subject};
use quintet_contract::task::{CommandSpec, Task};
use serde_json::{Value, json};

use super::{Nesting, Reconciler, heartbeat_of, is_own};
use crate::core::event::{Action, Execution, ExecutionWork, KubernetesWork};
use crate::core::plan::queue_of;
use crate::core::template;

/// The worker of what the runner's own process sees to.
pub(crate) const OWN_WORKER: &str = "runner";
/// A runner that loads a run stops again what was canceled in it so long ago at most: longer than it takes another to lead.
pub(crate) const REPEAT_STOP_WITHIN: Duration = Duration::from_secs(600);

impl Reconciler<'_> {
    /// Restarts the executions of this process, and dispatches again what may not have been dispatched: after a
    /// restart.
    pub(crate) fn resume(&mut self) {
        let Some(plan) = self.active.plan.clone() else {
            return;
        };
        let now = self.now;
        let at_work: Vec<(NodeId, NodeStatus)> = self
            .active
            .states()
            .filter(|(_, state)| matches!(state.status, NodeStatus::Queued | NodeStatus::Running))
            .map(|(id, state)| (id.clone(), state.status))
            .collect();
        for (id, status) in at_work {
            // The worker that has it is given the time to report.
            self.active.last_seen.insert(id.clone(), now);
            let task = self
                .active
                .private(id.as_str())
                .and_then(|private| private.task);
            self.track_enqueued(&id, task);
            let Some((node, nesting)) = self.locate(&plan.nodes, id.as_str(), Nesting::default())
            else {
                continue;
            };
            let is_own = is_own(node, self.active.run().mode);
            if is_own || node.kind == "foreach" {
                self.active.tasks.remove(id.as_str());
            }
            if node.kind != "foreach" && is_own == (status == NodeStatus::Running) {
                self.dispatch(node, &id, &nesting);
            }
        }
    }

    /// Stops again what this process executed and was to stop: the leader before may have died before it was done.
    pub(crate) fn stop_again(&mut self) {
        let Some(plan) = self.active.plan.clone() else {
            return;
        };
        let now = self.now;
        let is_recent = |state: &NodeState| {
            let ended = state.ended_at.or(state.started_at);
            ended.is_some_and(|at| at.after(REPEAT_STOP_WITHIN) > now)
        };
        let ended: Vec<NodeId> = self
            .active
            .states()
            .filter(|(_, state)| state.status == NodeStatus::Canceled && is_recent(state))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ended {
            let found = self.locate(&plan.nodes, id.as_str(), Nesting::default());
            if let Some((node, nesting)) = found
                && is_own(node, self.active.run().mode)
                && self.fact(&id).attempt > Attempt(0)
            {
                self.dispatch(node, &id, &nesting);
                let (run, attempt) = (self.active.id(), self.fact(&id).attempt);
                self.acts.push(Action::Stop(run, id, attempt));
            }
        }
    }

    /// An attempt that no worker has yet.
    pub(super) fn start_attempt(&mut self, node: &Node, id: &NodeId, nesting: &Nesting) {
        let before = self.fact(id);
        if let Err(error) = self.task(node, id, nesting) {
            self.fail(id, before.attempt.next(), error);
            return;
        }
        let fact = if is_own(node, self.active.run().mode) {
            NodeEvent {
                status: NodeStatus::Running,
                attempt: before.attempt.next(),
                worker: WorkerId::parse(OWN_WORKER).ok(),
                ..before
            }
        } else {
            NodeEvent {
                status: NodeStatus::Queued,
                ..before
            }
        };
        self.active.last_seen.insert(id.clone(), self.now);
        self.node(fact);
        self.dispatch(node, id, nesting);
    }

    /// Dispatches an attempt to its executor.
    pub(super) fn dispatch(&mut self, node: &Node, id: &NodeId, nesting: &Nesting) {
        let Ok(task) = self.task(node, id, nesting) else {
            return;
        };
        let mode = self.active.run().mode;
        if let Some(queue) = queue_of(node, mode) {
            self.track_enqueued(id, None);
            self.acts.push(Action::Dispatch(queue, Box::new(task)));
            return;
        }
        let private = self.active.private(id.as_str());
        let work = match node.kind.as_str() {
            "job" => {
                let job = task.input.as_ref().and_then(Value::as_object).cloned();
                ExecutionWork::Job(job.unwrap_or_default())
            }
            _ => ExecutionWork::Kubernetes(Box::new(KubernetesWork {
                command: task.command.clone().unwrap_or_default(),
                resume_state: private.and_then(|private| private.resume_state.clone()),
                resume_from_log: private.is_some_and(|private| private.resume_in_log),
                timeout_ms: node.timeout_ms,
                heartbeat_ms: heartbeat_of(node),
                task,
            })),
        };
        self.acts.push(Action::Execute(Box::new(Execution {
            run: self.active.id(),
            node: id.clone(),
            attempt: self.fact(id).attempt,
            reports: private.map_or(0, |private| private.reports),
            traceparent: self.active.traceparent().map(str::to_owned),
            work,
        })));
    }

    /// The task of a node.
    pub(super) fn task(&self, node: &Node, id: &NodeId, nesting: &Nesting) -> Result<Task, String> {
        let scope = self.scope(nesting);
        let filled = |value: &Value| template::filled(value, &scope);
        let text = |text: &String| template::filled_string(text, &scope);
        let command = match node.kind.as_str() {
            "command" => Some(CommandSpec {
                argv: node.command.iter().map(text).collect::<Result<_, _>>()?,
                env: node
                    .env
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), text(value)?)))
                    .collect::<Result<BTreeMap<_, _>, String>>()?,
                image: node.image.as_ref().map(text).transpose()?,
            }),
            _ => None,
        };
        let input = match (&node.input, &node.job) {
            (Some(input), _) => Some(filled(input)?),
            (None, Some(job)) => Some(filled(&Value::Object(job.clone()))?),
            (None, None) => None,
        };
        let context = node.needs.iter().filter_map(|need| {
            let state = self.active.state(&format!("{}{need}", nesting.prefix))?;
            let output = state.output.clone()?;
            Some((need.clone(), Value::Object(output)))
        });
        let run = self.active.run();
        let shard = RunShard::of(run.id);
        Ok(Task {
            run_id: run.id,
            node_id: id.clone(),
            report_to: RunReporting { shard }.render(self.prefix),
            input,
            command,
            inputs: run.inputs.clone().unwrap_or_default(),
            context: context.collect(),
            traceparent: self.active.traceparent().map(str::to_owned),
        })
    }

    /// The scope of placeholders and expressions of a node.
    pub(super) fn scope(&self, nesting: &Nesting) -> JsonObject {
        let mut nodes = JsonObject::new();
        // What is nearer hides what is farther away.
        let mut prefixes: Vec<&str> = nesting.outer.iter().map(String::as_str).collect();
        prefixes.push(&nesting.prefix);
        for (id, state) in self.active.states() {
            let Some(output) = &state.output else {
                continue;
            };
            for prefix in &prefixes {
                let Some(name) = id.as_str().strip_prefix(prefix) else {
                    continue;
                };
                if !name.contains(['[', '.']) {
                    nodes.insert(name.to_owned(), json!({ "output": output }));
                }
            }
        }
        let inputs = self.active.run().inputs.clone().unwrap_or_default();
        let mut scope = JsonObject::new();
        scope.insert("inputs".to_owned(), Value::Object(inputs));
        scope.insert("nodes".to_owned(), Value::Object(nodes));
        if let Some((item, index)) = &nesting.item {
            scope.insert("item".to_owned(), item.clone());
            scope.insert("index".to_owned(), json!(index));
        }
        scope
    }

    /// Stops the execution of a node.
    pub(super) fn stop(&mut self, id: &NodeId) {
        let run = self.active.id();
        let attempt = self.fact(id).attempt;
        let worker = self
            .active
            .private(id.as_str())
            .and_then(|private| private.worker.clone());
        match worker {
            Some(worker) if worker.as_str() == OWN_WORKER => {
                self.acts.push(Action::Stop(run, id.clone(), attempt));
            }
            Some(worker) => {
                self.acts
                    .push(Action::Cancel(worker, run, id.clone(), attempt));
            }
            None => {}
        }
    }
}
