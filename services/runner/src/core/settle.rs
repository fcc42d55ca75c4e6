//! What is to be done next in a run: a reconciler. It looks at the plan and at how its nodes stand, and ignores what woke
//! it; so it does the same after a restart as without one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::id::RunShard;
use quintet_contract::id::{NodeId, WorkerId};
use quintet_contract::job::Attempt;
use quintet_contract::plan::{Backoff, MAX_ITEMS, Node, OnFailure, OnTimeout, Retry};
use quintet_contract::run::{
    Fact, MAX_OUTPUTS_BYTES, NodeFact, NodeState, NodeStatus, RunMode, RunStatus,
};
use quintet_contract::subject::{Prefix, RunReporting, Subject};
use quintet_contract::task::{CommandSpec, Task};
use quintet_contract::time::Timestamp;
use serde_json::{Value, json};

use crate::core::active::{Active, QueuedTask, Urgency, bytes_of};
use crate::core::event::{Effect, Execution, ExecutionWork, KubernetesWork};
use crate::core::plan::{queue_of, wait};
use crate::core::{expression, template};

/// The worker of what the runner's own process sees to.
pub(crate) const OWN_WORKER: &str = "runner";
/// A runner that loads a run stops again what was canceled in it so long ago at most: longer than it takes another to lead.
pub(crate) const STOP_AGAIN: Duration = Duration::from_secs(600);
/// Most nodes of a run, those of every item of a foreach counted.
const MAX_STATES: usize = 2_000;
/// Longest reason of a failure that is kept of one node, in bytes.
const MAX_ERROR_BYTES: usize = 2_048;
/// Longest time between two looks for a task that waits for a worker.
const LOOK_AT_MOST: Duration = Duration::from_secs(600);
/// A run in which nothing is due for so long is quiet: its record is written, so that a restart need not read its log.
const QUIET: Duration = Duration::from_secs(5);

/// Looks at one run, and does what is to be done.
pub(crate) struct Settle<'a> {
    pub(crate) active: &'a mut Active,
    pub(crate) prefix: &'a Prefix,
    pub(crate) ack_wait: Duration,
    pub(crate) now: Timestamp,
    pub(crate) effects: &'a mut Vec<Effect>,
}

/// Where in the plan a node stands: at the top, or in an item of a foreach.
#[derive(Clone, Default)]
struct Place {
    /// What its id begins with.
    prefix: String,
    /// The item and its index.
    item: Option<(Value, usize)>,
    /// The ids around it: those of the foreach nodes.
    outer: Vec<String>,
}

impl Place {
    /// The id of a node that is called so here.
    fn id_of<'n>(&self, name: &'n str) -> Cow<'n, str> {
        if self.prefix.is_empty() {
            Cow::Borrowed(name)
        } else {
            Cow::Owned(format!("{}{name}", self.prefix))
        }
    }
}

/// How one look went.
#[derive(Default)]
struct Walk {
    has_changed: bool,
    /// Nodes that are queued or run.
    at_work: usize,
    /// Most such nodes at once.
    limit: usize,
    due: Option<Timestamp>,
    failed: Option<String>,
}

impl Walk {
    fn due_at(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

/// Why an attempt failed.
pub(crate) struct Failure {
    pub(crate) error: String,
    /// Whether another attempt may help.
    pub(crate) is_retryable: bool,
}

/// Whether a node can begin.
enum Readiness {
    Waits,
    Ready,
    /// It will not be done; with the reason where that is a failure.
    Skipped(Option<String>),
}

impl Settle<'_> {
    pub(crate) fn settle(&mut self) {
        self.active.due = None;
        if self.active.status().is_final() {
            return;
        }
        if self.active.status() == RunStatus::Pending {
            self.status(RunStatus::Running, None);
        }
        let Some(plan) = self.active.plan.clone() else {
            self.active.set_quiet(false);
            return;
        };
        let mut due = None;
        if let (Some(timeout), Some(started)) = (plan.timeout_ms, self.active.run().started_at) {
            let end = started.after(Duration::from_millis(timeout));
            if end <= self.now {
                self.end(
                    RunStatus::Failed,
                    Some(format!("the run took longer than {timeout} ms")),
                );
                return;
            }
            due = Some(end);
        }
        let walk = loop {
            let mut walk = Walk {
                at_work: self.at_work(),
                limit: plan.max_parallel.map_or(usize::MAX, |limit| limit as usize),
                ..Walk::default()
            };
            self.walk(&plan.nodes, &Place::default(), &mut walk);
            if let Some(failed) = walk.failed.take_if(|_| plan.on_failure == OnFailure::Stop) {
                self.end(RunStatus::Failed, Some(failed));
                return;
            }
            if !walk.has_changed {
                break walk;
            }
        };
        let top = plan.nodes.iter().map(|node| self.status_of(&node.id));
        if top.clone().all(NodeStatus::is_final) {
            let failed = walk.failed;
            let status = match failed {
                Some(_) => RunStatus::Failed,
                None => RunStatus::Completed,
            };
            self.end(status, failed);
            return;
        }
        self.active.due = match (due, walk.due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let is_quiet = walk.at_work == 0
            && self
                .active
                .due
                .is_none_or(|due| due > self.now.after(QUIET));
        self.active.set_quiet(is_quiet);
    }

    /// Begins again what this process did, and gives out again what may not have been given out: after a restart.
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
            // Whoever has it is given the time to say so.
            self.active.heard.insert(id.clone(), now);
            let task = self
                .active
                .private(id.as_str())
                .and_then(|private| private.task);
            self.expect_task(&id, task);
            let Some((node, place)) = self.locate(&plan.nodes, id.as_str(), Place::default())
            else {
                continue;
            };
            let is_own = is_own(node, self.active.run().mode);
            if is_own || node.kind == "foreach" {
                self.active.tasks.remove(id.as_str());
            }
            if node.kind != "foreach" && is_own == (status == NodeStatus::Running) {
                self.give_out(node, &id, &place);
            }
        }
    }

    /// Stops again what this process did and was to stop: who led before may have died before it was done.
    pub(crate) fn stop_again(&mut self) {
        let Some(plan) = self.active.plan.clone() else {
            return;
        };
        let now = self.now;
        let is_recent = |state: &NodeState| {
            let ended = state.ended_at.or(state.started_at);
            ended.is_some_and(|at| at.after(STOP_AGAIN) > now)
        };
        let ended: Vec<NodeId> = self
            .active
            .states()
            .filter(|(_, state)| state.status == NodeStatus::Canceled && is_recent(state))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ended {
            let found = self.locate(&plan.nodes, id.as_str(), Place::default());
            if let Some((node, place)) = found
                && is_own(node, self.active.run().mode)
                && self.fact(&id).attempt > Attempt(0)
            {
                self.give_out(node, &id, &place);
                let (run, attempt) = (self.active.id(), self.fact(&id).attempt);
                self.effects.push(Effect::Stop(run, id, attempt));
            }
        }
    }

    fn at_work(&self) -> usize {
        self.active
            .states()
            .filter(|(id, state)| match state.status {
                NodeStatus::Queued => true,
                NodeStatus::Running => self
                    .active
                    .private(id.as_str())
                    .is_none_or(|private| private.items.is_none()),
                NodeStatus::Pending
                | NodeStatus::Waiting
                | NodeStatus::Succeeded
                | NodeStatus::Failed
                | NodeStatus::Skipped
                | NodeStatus::Canceled => false,
            })
            .count()
    }

    fn walk(&mut self, nodes: &[Node], place: &Place, walk: &mut Walk) {
        for node in nodes {
            let id = place.id_of(&node.id);
            let status = self.status_of(&id);
            // Most nodes, most of the time: nothing is done with them.
            let readiness = match status {
                NodeStatus::Succeeded | NodeStatus::Skipped | NodeStatus::Canceled => continue,
                NodeStatus::Pending => match self.readiness(nodes, node, place) {
                    Readiness::Waits => continue,
                    readiness => readiness,
                },
                NodeStatus::Queued
                | NodeStatus::Running
                | NodeStatus::Waiting
                | NodeStatus::Failed => Readiness::Waits,
            };
            let Ok(id) = NodeId::parse(id) else {
                continue;
            };
            match readiness {
                Readiness::Waits => self.go_on(node, &id, place, walk),
                Readiness::Skipped(reason) => {
                    self.node(NodeFact {
                        status: NodeStatus::Skipped,
                        error: reason,
                        ..self.fact(&id)
                    });
                    walk.has_changed = true;
                }
                Readiness::Ready => {
                    if !takes_worker(node) || walk.at_work < walk.limit {
                        self.begin(node, &id, place, walk);
                    }
                }
            }
        }
    }

    /// A node that has begun.
    fn go_on(&mut self, node: &Node, id: &NodeId, place: &Place, walk: &mut Walk) {
        match self.status_of(id.as_str()) {
            NodeStatus::Waiting => self.wait_on(node, id, place, walk),
            NodeStatus::Running if node.kind == "foreach" => self.walk_items(node, id, place, walk),
            NodeStatus::Running => {
                self.watch_over(node, id, walk);
                self.look_for_task(node, id, place, walk);
            }
            NodeStatus::Queued => self.look_for_task(node, id, place, walk),
            NodeStatus::Failed => {
                if walk.failed.is_none() {
                    let state = self.active.state(id.as_str());
                    let error = state.and_then(|state| state.error.clone());
                    walk.failed = Some(format!(
                        "node {id} failed: {}",
                        error.unwrap_or_else(|| "it gave no reason".to_owned())
                    ));
                }
            }
            NodeStatus::Pending
            | NodeStatus::Succeeded
            | NodeStatus::Skipped
            | NodeStatus::Canceled => {}
        }
    }

    fn readiness(&self, nodes: &[Node], node: &Node, place: &Place) -> Readiness {
        let mut is_any_done = node.needs.is_empty();
        for need in &node.needs {
            let Some(state) = self.active.state(&place.id_of(need)) else {
                return Readiness::Waits;
            };
            match state.status {
                NodeStatus::Failed | NodeStatus::Canceled => {
                    return Readiness::Skipped(Some(format!("{need}, which it needs, failed")));
                }
                NodeStatus::Skipped if state.error.is_some() => {
                    let reason = format!("{need}, which it needs, was skipped after a failure");
                    return Readiness::Skipped(Some(reason));
                }
                NodeStatus::Skipped => {}
                NodeStatus::Succeeded => is_any_done = true,
                NodeStatus::Pending
                | NodeStatus::Queued
                | NodeStatus::Running
                | NodeStatus::Waiting => return Readiness::Waits,
            }
        }
        let is_chosen = node.needs.iter().all(|need| {
            let condition = nodes.iter().find(|other| other.id == *need);
            condition.is_none_or(|condition| self.chooses(condition, &node.id, place))
        });
        if is_any_done && is_chosen {
            Readiness::Ready
        } else {
            Readiness::Skipped(None)
        }
    }

    /// Whether a node that ended lets another one go on; only a condition may not.
    fn chooses(&self, condition: &Node, target: &str, place: &Place) -> bool {
        let is_then = condition.then.iter().any(|id| id == target);
        let is_else = condition.otherwise.iter().any(|id| id == target);
        if !is_then && !is_else {
            return true;
        }
        let id = place.id_of(&condition.id);
        let output = self
            .active
            .state(&id)
            .and_then(|state| state.output.as_ref());
        match output.and_then(|output| output.get("value")) {
            Some(Value::Bool(value)) => (*value && is_then) || (!*value && is_else),
            // It was skipped itself.
            Some(_) | None => false,
        }
    }

    fn begin(&mut self, node: &Node, id: &NodeId, place: &Place, walk: &mut Walk) {
        walk.has_changed = true;
        let begun = match node.kind.as_str() {
            "gate" => {
                let due = node
                    .timeout_ms
                    .map(|timeout| self.now.after(Duration::from_millis(timeout)));
                Ok(NodeFact {
                    status: NodeStatus::Waiting,
                    attempt: Attempt(1),
                    due,
                    ..self.fact(id)
                })
            }
            "sleep" => self.sleep(node, place).map(|due| NodeFact {
                status: NodeStatus::Waiting,
                attempt: Attempt(1),
                due: Some(due),
                ..self.fact(id)
            }),
            "condition" => {
                let when = node.when.as_deref().unwrap_or_default();
                expression::is_true(when, &self.scope(place)).map(|value| NodeFact {
                    status: NodeStatus::Succeeded,
                    attempt: Attempt(1),
                    output: json!({"value": value}).as_object().cloned(),
                    ..self.fact(id)
                })
            }
            "foreach" => self.items(node, place).map(|items| NodeFact {
                status: NodeStatus::Running,
                attempt: Attempt(1),
                items: Some(items),
                ..self.fact(id)
            }),
            _ => {
                if takes_worker(node) {
                    walk.at_work += 1;
                }
                self.give_out_anew(node, id, place);
                return;
            }
        };
        match begun {
            Ok(fact) => self.node(fact),
            Err(error) => self.fail(id, Attempt(1), error),
        }
    }

    /// An attempt that nobody has yet.
    fn give_out_anew(&mut self, node: &Node, id: &NodeId, place: &Place) {
        let before = self.fact(id);
        if let Err(error) = self.task(node, id, place) {
            self.fail(id, before.attempt.next(), error);
            return;
        }
        let fact = if is_own(node, self.active.run().mode) {
            NodeFact {
                status: NodeStatus::Running,
                attempt: before.attempt.next(),
                worker: WorkerId::parse(OWN_WORKER).ok(),
                ..before
            }
        } else {
            NodeFact {
                status: NodeStatus::Queued,
                ..before
            }
        };
        self.active.heard.insert(id.clone(), self.now);
        self.node(fact);
        self.give_out(node, id, place);
    }

    /// Hands an attempt to whoever does it.
    fn give_out(&mut self, node: &Node, id: &NodeId, place: &Place) {
        let Ok(task) = self.task(node, id, place) else {
            return;
        };
        let mode = self.active.run().mode;
        if let Some(queue) = queue_of(node, mode) {
            self.expect_task(id, None);
            self.effects.push(Effect::Dispatch(queue, Box::new(task)));
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
        self.effects.push(Effect::Execute(Box::new(Execution {
            run: self.active.id(),
            node: id.clone(),
            attempt: self.fact(id).attempt,
            reports: private.map_or(0, |private| private.reports),
            work,
        })));
    }

    /// What whoever does a node is told.
    fn task(&self, node: &Node, id: &NodeId, place: &Place) -> Result<Task, String> {
        let scope = self.scope(place);
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
            let state = self.active.state(&format!("{}{need}", place.prefix))?;
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

    /// What places and expressions of a node can speak of.
    fn scope(&self, place: &Place) -> JsonObject {
        let mut nodes = JsonObject::new();
        // What is nearer hides what is farther away.
        let mut prefixes: Vec<&str> = place.outer.iter().map(String::as_str).collect();
        prefixes.push(&place.prefix);
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
        if let Some((item, index)) = &place.item {
            scope.insert("item".to_owned(), item.clone());
            scope.insert("index".to_owned(), json!(index));
        }
        scope
    }

    fn sleep(&self, node: &Node, place: &Place) -> Result<Timestamp, String> {
        let scope = self.scope(place);
        if let Some(until) = &node.until {
            let text = template::filled_string(until, &scope)?;
            return text
                .parse()
                .map_err(|_| format!("until is {text:?}, which is no RFC 3339 time"));
        }
        let text = template::filled_string(node.duration.as_deref().unwrap_or_default(), &scope)?;
        wait(&text).map(|wait| self.now.after(wait))
    }

    fn items(&self, node: &Node, place: &Place) -> Result<Vec<Value>, String> {
        let items = node.items.as_ref().unwrap_or(&Value::Null);
        let Value::Array(items) = template::filled(items, &self.scope(place))? else {
            return Err("items is no list".to_owned());
        };
        let states = self.active.states().count() + items.len() * node.nodes.len();
        if items.len() > MAX_ITEMS || states > MAX_STATES {
            return Err(format!(
                "a foreach may have {MAX_ITEMS} items and a run {MAX_STATES} nodes; here are {} items with {} nodes each",
                items.len(),
                node.nodes.len()
            ));
        }
        let bytes: usize = items.iter().map(bytes_of).sum();
        if self.active.weight + bytes > MAX_OUTPUTS_BYTES {
            return Err(format!(
                "the items take {bytes} bytes, which is more than a run can hold"
            ));
        }
        Ok(items)
    }

    fn walk_items(&mut self, node: &Node, id: &NodeId, place: &Place, walk: &mut Walk) {
        let items = self.active.private(id.as_str());
        let items = items
            .and_then(|private| private.items.clone())
            .unwrap_or_default();
        let limit = node.max_parallel.map_or(usize::MAX, |limit| limit as usize);
        let (mut open, mut failed, mut ended) = (0, None, 0);
        for (index, item) in items.iter().enumerate() {
            if open >= limit {
                break;
            }
            let mut outer = place.outer.clone();
            outer.push(place.prefix.clone());
            let inner = Place {
                prefix: format!("{id}[{index}]."),
                item: Some((item.clone(), index)),
                outer,
            };
            let mut of_item = Walk {
                at_work: walk.at_work,
                limit: walk.limit,
                ..Walk::default()
            };
            self.walk(&node.nodes, &inner, &mut of_item);
            walk.at_work = of_item.at_work;
            walk.has_changed |= of_item.has_changed;
            if let Some(due) = of_item.due {
                walk.due_at(due);
            }
            failed = failed.or(of_item.failed);
            let is_ended = node.nodes.iter().all(|step| {
                self.status_of(&format!("{}{}", inner.prefix, step.id))
                    .is_final()
            });
            if is_ended {
                ended += 1;
            } else {
                open += 1;
            }
        }
        if ended < items.len() {
            walk.failed = walk.failed.take().or(failed);
            return;
        }
        walk.has_changed = true;
        if let Some(failed) = failed {
            self.fail(id, Attempt(1), failed);
            return;
        }
        let outputs = (0..items.len()).map(|index| {
            let steps = node.nodes.iter().filter_map(|step| {
                let state = self.active.state(&format!("{id}[{index}].{}", step.id))?;
                Some((step.id.clone(), Value::Object(state.output.clone()?)))
            });
            Value::Object(steps.collect())
        });
        let outputs = Value::Array(outputs.collect());
        if self.active.weight + bytes_of(&outputs) > MAX_OUTPUTS_BYTES {
            let text = format!(
                "what its items put out takes {} bytes, which is more than a run can hold",
                bytes_of(&outputs)
            );
            self.fail(id, Attempt(1), text);
            return;
        }
        self.node(NodeFact {
            status: NodeStatus::Succeeded,
            output: Some(JsonObject::from_iter([("items".to_owned(), outputs)])),
            ..self.fact(id)
        });
    }

    /// A node that waits for a moment: the end of a sleep, the patience of a gate, its next attempt.
    fn wait_on(&mut self, node: &Node, id: &NodeId, place: &Place, walk: &mut Walk) {
        let due = self
            .active
            .private(id.as_str())
            .and_then(|private| private.due);
        let Some(due) = due else { return };
        if due > self.now {
            walk.due_at(due);
            return;
        }
        match node.kind.as_str() {
            "sleep" => self.node(NodeFact {
                status: NodeStatus::Succeeded,
                ..self.fact(id)
            }),
            "gate" if node.on_timeout == Some(OnTimeout::Approve) => self.node(NodeFact {
                status: NodeStatus::Succeeded,
                output: json!({"decision": "approve", "timedOut": true})
                    .as_object()
                    .cloned(),
                ..self.fact(id)
            }),
            "gate" => self.fail(id, Attempt(1), "nobody decided in time".to_owned()),
            _ => {
                if takes_worker(node) && walk.at_work >= walk.limit {
                    return;
                }
                walk.at_work += 1;
                self.give_out_anew(node, id, place);
            }
        }
        walk.has_changed = true;
    }

    /// A node that somebody has: not too long, and not without a word.
    fn watch_over(&mut self, node: &Node, id: &NodeId, walk: &mut Walk) {
        let Some(state) = self.active.state(id.as_str()) else {
            return;
        };
        let (attempt, started) = (state.attempt, state.started_at.unwrap_or(self.now));
        let heard = self.active.heard.get(id.as_str()).copied();
        let limits = [
            (node.timeout_ms, started, "took longer than"),
            (
                node.heartbeat_timeout_ms,
                heard.unwrap_or(started),
                "was not heard of for",
            ),
        ];
        for (limit, since, what) in limits {
            let Some(limit) = limit else { continue };
            let end = since.after(Duration::from_millis(limit));
            if end > self.now {
                walk.due_at(end);
                continue;
            }
            self.stop(id);
            let failure = Failure {
                error: format!("it {what} {limit} ms"),
                is_retryable: true,
            };
            self.fail_attempt(node, id, attempt, failure);
            walk.has_changed = true;
            return;
        }
    }

    /// The task of a node is in a queue, or soon will be.
    pub(crate) fn expect_task(&mut self, id: &NodeId, sequence: Option<u64>) {
        let wait = self.ack_wait * 3;
        let task = QueuedTask {
            sequence,
            look_at: self.now.after(wait),
            wait,
        };
        self.active.tasks.insert(id.clone(), task);
    }

    /// A task that nobody speaks of must be in its queue. One that was acknowledged although its node has not ended, by a
    /// worker that was told wrongly, or that is defect, is given out again.
    fn look_for_task(&mut self, node: &Node, id: &NodeId, place: &Place, walk: &mut Walk) {
        if is_own(node, self.active.run().mode) {
            return;
        }
        let Some(mut task) = self.active.tasks.get(id.as_str()).copied() else {
            return;
        };
        if task.look_at > self.now {
            walk.due_at(task.look_at);
            return;
        }
        let is_running = self.status_of(id.as_str()) == NodeStatus::Running;
        match task.sequence {
            Some(sequence) => {
                let run = self.active.id();
                self.effects
                    .push(Effect::LookFor(run, id.clone(), sequence));
            }
            // Its worker was learnt of from a report.
            None if is_running => {
                self.give_out(node, id, place);
                return;
            }
            // It is still being stored.
            None => {}
        }
        task.wait = (task.wait * 2).min(LOOK_AT_MOST);
        task.look_at = self.now.after(task.wait);
        walk.due_at(task.look_at);
        self.active.tasks.insert(id.clone(), task);
    }

    /// A task is in its queue.
    pub(crate) fn dispatched(&mut self, id: &NodeId, sequence: u64) {
        if let Some(task) = self.active.tasks.get_mut(id.as_str()) {
            task.sequence = task.sequence.or(Some(sequence));
        }
    }

    /// A task is no longer in its queue.
    pub(crate) fn task_gone(&mut self, id: &NodeId, sequence: u64) {
        let Some(plan) = self.active.plan.clone() else {
            return;
        };
        let task = self.active.tasks.get(id.as_str());
        if task.is_none_or(|task| task.sequence != Some(sequence)) {
            return;
        }
        let Some((node, place)) = self.locate(&plan.nodes, id.as_str(), Place::default()) else {
            return;
        };
        match self.status_of(id.as_str()) {
            NodeStatus::Queued => self.give_out(node, id, &place),
            NodeStatus::Running => {
                self.stop(id);
                self.give_out_anew(node, id, &place);
            }
            NodeStatus::Pending
            | NodeStatus::Waiting
            | NodeStatus::Succeeded
            | NodeStatus::Failed
            | NodeStatus::Skipped
            | NodeStatus::Canceled => {}
        }
    }

    /// Tells whoever has a node to stop.
    fn stop(&mut self, id: &NodeId) {
        let run = self.active.id();
        let attempt = self.fact(id).attempt;
        let worker = self
            .active
            .private(id.as_str())
            .and_then(|private| private.worker.clone());
        match worker {
            Some(worker) if worker.as_str() == OWN_WORKER => {
                self.effects.push(Effect::Stop(run, id.clone(), attempt));
            }
            Some(worker) => {
                self.effects
                    .push(Effect::Cancel(worker, run, id.clone(), attempt));
            }
            None => {}
        }
    }

    /// An attempt failed: once more later, or that was it.
    pub(crate) fn fail_attempt(
        &mut self,
        node: &Node,
        id: &NodeId,
        attempt: Attempt,
        failure: Failure,
    ) {
        let Failure {
            error,
            is_retryable,
        } = failure;
        let failures = self
            .active
            .private(id.as_str())
            .map_or(0, |private| private.failures);
        let retry = node.retry.unwrap_or_default();
        if !is_retryable || failures >= retry.max {
            self.fail(id, attempt, error);
            return;
        }
        let due = self.now.after(backoff(retry, failures));
        self.node(NodeFact {
            node_id: id.clone(),
            status: NodeStatus::Waiting,
            attempt,
            error: Some(self.cut(error)),
            due: Some(due),
            failed_attempt: true,
            ..NodeFact::default()
        });
    }

    fn fail(&mut self, id: &NodeId, attempt: Attempt, error: String) {
        self.node(NodeFact {
            node_id: id.clone(),
            status: NodeStatus::Failed,
            attempt,
            error: Some(self.cut(error)),
            failed_attempt: true,
            ..NodeFact::default()
        });
    }

    /// A reason as it is kept: not without end, and short when the run is nearly full.
    fn cut(&self, mut error: String) -> String {
        let room = MAX_OUTPUTS_BYTES.saturating_sub(self.active.weight);
        let mut end = MAX_ERROR_BYTES.min(room.max(100)).min(error.len());
        while !error.is_char_boundary(end) {
            end -= 1;
        }
        error.truncate(end);
        error
    }

    /// Ends the run, and with it whatever of it is still going on.
    pub(crate) fn end(&mut self, status: RunStatus, error: Option<String>) {
        let open: Vec<NodeId> = self
            .active
            .states()
            .filter(|(_, state)| !state.status.is_final())
            .map(|(id, _)| id.clone())
            .collect();
        for id in open {
            self.stop(&id);
            self.node(NodeFact {
                status: NodeStatus::Canceled,
                ..self.fact(&id)
            });
        }
        self.status(status, error);
    }

    fn status(&mut self, status: RunStatus, error: Option<String>) {
        let fact = Fact::Status {
            status,
            error,
            output: None,
        };
        self.active.push(fact, None, Urgency::Now, self.now);
    }

    fn node(&mut self, node: NodeFact) {
        self.active
            .push(Fact::Node { node }, None, Urgency::Now, self.now);
    }

    fn status_of(&self, id: &str) -> NodeStatus {
        self.active
            .state(id)
            .map_or(NodeStatus::Pending, |state| state.status)
    }

    /// A fact about a node that says nothing new yet.
    fn fact(&self, id: &NodeId) -> NodeFact {
        NodeFact {
            node_id: id.clone(),
            status: self.status_of(id.as_str()),
            attempt: self
                .active
                .state(id.as_str())
                .map_or(Attempt(0), |state| state.attempt),
            ..NodeFact::default()
        }
    }

    /// A node of the plan and where it stands, by its id.
    fn locate<'p>(&self, nodes: &'p [Node], id: &str, place: Place) -> Option<(&'p Node, Place)> {
        let (first, rest) = match id.split_once('[') {
            None => (id, None),
            Some((first, rest)) => (first, rest.split_once("].")),
        };
        let node = nodes.iter().find(|node| node.id == first)?;
        let Some((index, rest)) = rest else {
            return Some((node, place));
        };
        let index: usize = index.parse().ok()?;
        let each = format!("{}{first}", place.prefix);
        let items = self.active.private(&each)?.items.as_ref()?;
        let mut outer = place.outer;
        outer.push(place.prefix);
        let inner = Place {
            prefix: format!("{each}[{index}]."),
            item: items.get(index).map(|item| (item.clone(), index)),
            outer,
        };
        self.locate(&node.nodes, rest, inner)
    }
}

/// Whether a node needs somebody to do it, so that it counts against the plan's limit.
fn takes_worker(node: &Node) -> bool {
    matches!(node.kind.as_str(), "command" | "task" | "job" | "inference")
}

/// How often whoever does a node is to show a sign of life, in milliseconds: two may be lost.
pub(crate) fn heartbeat_of(node: &Node) -> Option<u64> {
    node.heartbeat_timeout_ms.map(|limit| (limit / 3).max(1))
}

/// Whether the runner's own process sees to a node.
fn is_own(node: &Node, mode: RunMode) -> bool {
    takes_worker(node) && queue_of(node, mode).is_none()
}

/// How long to wait after so many failures before this one.
fn backoff(retry: Retry, failures: u32) -> Duration {
    let wait = match retry.kind {
        Backoff::Fixed => retry.backoff_ms,
        Backoff::Exponential => retry
            .backoff_ms
            .saturating_mul(1_u64.checked_shl(failures).unwrap_or(u64::MAX)),
    };
    Duration::from_millis(wait.min(retry.backoff_max_ms.max(retry.backoff_ms)))
}
