//! The reconciler of a run: it compares the plan with the status of its nodes, and ignores what woke it; so it does the same
//! after a restart as without one.

mod attempts;
mod dispatch;
mod items;

use std::borrow::Cow;
use std::time::Duration;

use quintet_contract::id::NodeId;
use quintet_contract::job::Attempt;
use quintet_contract::plan::{Node, OnFailure, OnTimeout};
use quintet_contract::run::{
    MAX_OUTPUTS_BYTES, NodeEvent, NodeStatus, RunEvent, RunMode, RunStatus,
};
use quintet_contract::subject::Prefix;
use quintet_contract::time::Timestamp;
use serde_json::{Value, json};

use crate::core::active::{Active, Urgency};
use crate::core::event::Action;
use crate::core::plan::{queue_of, wait};
use crate::core::{expression, template};

pub(crate) use dispatch::{OWN_WORKER, REPEAT_STOP_WITHIN};

/// Longest reason of a failure that is kept of one node, in bytes.
const MAX_ERROR_BYTES: usize = 2_048;
/// A run in which nothing is due for so long is quiet: its record is written, so that a restart need not read its log.
const QUIET_AFTER: Duration = Duration::from_secs(5);

/// Reconciles one run.
pub(crate) struct Reconciler<'a> {
    pub(crate) active: &'a mut Active,
    pub(crate) prefix: &'a Prefix,
    pub(crate) ack_wait: Duration,
    pub(crate) now: Timestamp,
    /// What is done once everything so far is stored.
    pub(crate) acts: &'a mut Vec<Action>,
}

/// The position of a node in the plan: at the top, or in an item of a foreach.
#[derive(Clone, Default)]
struct Nesting {
    /// What its id begins with.
    prefix: String,
    /// The item and its index.
    item: Option<(Value, usize)>,
    /// The ids around it: those of the foreach nodes.
    outer: Vec<String>,
}

impl Nesting {
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
struct Pass {
    has_changed: bool,
    /// Nodes that are queued or run.
    at_work: usize,
    /// Most such nodes at once.
    limit: usize,
    due: Option<Timestamp>,
    failed: Option<String>,
}

impl Pass {
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

impl Reconciler<'_> {
    pub(crate) fn reconcile(&mut self) {
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
        let pass = loop {
            let mut pass = Pass {
                at_work: self.at_work(),
                limit: plan.max_parallel.map_or(usize::MAX, |limit| limit as usize),
                ..Pass::default()
            };
            self.visit(&plan.nodes, &Nesting::default(), &mut pass);
            if let Some(failed) = pass.failed.take_if(|_| plan.on_failure == OnFailure::Stop) {
                self.end(RunStatus::Failed, Some(failed));
                return;
            }
            if !pass.has_changed {
                break pass;
            }
        };
        let top = plan.nodes.iter().map(|node| self.status_of(&node.id));
        if top.clone().all(NodeStatus::is_final) {
            let failed = pass.failed;
            let status = match failed {
                Some(_) => RunStatus::Failed,
                None => RunStatus::Completed,
            };
            self.end(status, failed);
            return;
        }
        self.active.due = match (due, pass.due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let is_quiet = pass.at_work == 0
            && self
                .active
                .due
                .is_none_or(|due| due > self.now.after(QUIET_AFTER));
        self.active.set_quiet(is_quiet);
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

    fn visit(&mut self, nodes: &[Node], nesting: &Nesting, pass: &mut Pass) {
        for node in nodes {
            let id = nesting.id_of(&node.id);
            let status = self.status_of(&id);
            // Most nodes, most of the time: nothing is done with them.
            let readiness = match status {
                NodeStatus::Succeeded | NodeStatus::Skipped | NodeStatus::Canceled => continue,
                NodeStatus::Pending => match self.readiness(nodes, node, nesting) {
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
                Readiness::Waits => self.continue_node(node, &id, nesting, pass),
                Readiness::Skipped(reason) => {
                    self.node(NodeEvent {
                        status: NodeStatus::Skipped,
                        error: reason,
                        ..self.fact(&id)
                    });
                    pass.has_changed = true;
                }
                Readiness::Ready => {
                    if !takes_worker(node) || pass.at_work < pass.limit {
                        self.begin(node, &id, nesting, pass);
                    }
                }
            }
        }
    }

    /// A node that has begun.
    fn continue_node(&mut self, node: &Node, id: &NodeId, nesting: &Nesting, pass: &mut Pass) {
        match self.status_of(id.as_str()) {
            NodeStatus::Waiting => self.wait_on(node, id, nesting, pass),
            NodeStatus::Running if node.kind == "foreach" => {
                self.visit_items(node, id, nesting, pass)
            }
            NodeStatus::Running => {
                self.watch_over(node, id, pass);
                self.verify_enqueued(node, id, nesting, pass);
            }
            NodeStatus::Queued => self.verify_enqueued(node, id, nesting, pass),
            NodeStatus::Failed => {
                if pass.failed.is_none() {
                    let state = self.active.state(id.as_str());
                    let error = state.and_then(|state| state.error.clone());
                    pass.failed = Some(format!(
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

    fn readiness(&self, nodes: &[Node], node: &Node, nesting: &Nesting) -> Readiness {
        let mut is_any_done = node.needs.is_empty();
        for need in &node.needs {
            let Some(state) = self.active.state(&nesting.id_of(need)) else {
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
            condition.is_none_or(|condition| self.chooses(condition, &node.id, nesting))
        });
        if is_any_done && is_chosen {
            Readiness::Ready
        } else {
            Readiness::Skipped(None)
        }
    }

    /// Whether a node that ended lets another one continue; only a condition may not.
    fn chooses(&self, condition: &Node, target: &str, nesting: &Nesting) -> bool {
        let is_then = condition.then.iter().any(|id| id == target);
        let is_else = condition.otherwise.iter().any(|id| id == target);
        if !is_then && !is_else {
            return true;
        }
        let id = nesting.id_of(&condition.id);
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

    fn begin(&mut self, node: &Node, id: &NodeId, nesting: &Nesting, pass: &mut Pass) {
        pass.has_changed = true;
        let begun = match node.kind.as_str() {
            "gate" => {
                let due = node
                    .timeout_ms
                    .map(|timeout| self.now.after(Duration::from_millis(timeout)));
                Ok(NodeEvent {
                    status: NodeStatus::Waiting,
                    attempt: Attempt(1),
                    due,
                    ..self.fact(id)
                })
            }
            "sleep" => self.sleep(node, nesting).map(|due| NodeEvent {
                status: NodeStatus::Waiting,
                attempt: Attempt(1),
                due: Some(due),
                ..self.fact(id)
            }),
            "condition" => {
                let when = node.when.as_deref().unwrap_or_default();
                expression::is_true(when, &self.scope(nesting)).map(|value| NodeEvent {
                    status: NodeStatus::Succeeded,
                    attempt: Attempt(1),
                    output: json!({"value": value}).as_object().cloned(),
                    ..self.fact(id)
                })
            }
            "foreach" => self.items(node, nesting).map(|items| NodeEvent {
                status: NodeStatus::Running,
                attempt: Attempt(1),
                items: Some(items),
                ..self.fact(id)
            }),
            _ => {
                if takes_worker(node) {
                    pass.at_work += 1;
                }
                self.start_attempt(node, id, nesting);
                return;
            }
        };
        match begun {
            Ok(fact) => self.node(fact),
            Err(error) => self.fail(id, Attempt(1), error),
        }
    }

    fn sleep(&self, node: &Node, nesting: &Nesting) -> Result<Timestamp, String> {
        let scope = self.scope(nesting);
        if let Some(until) = &node.until {
            let text = template::filled_string(until, &scope)?;
            return text
                .parse()
                .map_err(|_| format!("until is {text:?}, which is no RFC 3339 time"));
        }
        let text = template::filled_string(node.duration.as_deref().unwrap_or_default(), &scope)?;
        wait(&text).map(|wait| self.now.after(wait))
    }

    /// A node that waits for a moment: the end of a sleep, the patience of a gate, its next attempt.
    fn wait_on(&mut self, node: &Node, id: &NodeId, nesting: &Nesting, pass: &mut Pass) {
        let due = self
            .active
            .private(id.as_str())
            .and_then(|private| private.due);
        let Some(due) = due else { return };
        if due > self.now {
            pass.due_at(due);
            return;
        }
        match node.kind.as_str() {
            "sleep" => self.node(NodeEvent {
                status: NodeStatus::Succeeded,
                ..self.fact(id)
            }),
            "gate" if node.on_timeout == Some(OnTimeout::Approve) => self.node(NodeEvent {
                status: NodeStatus::Succeeded,
                output: json!({"decision": "approve", "timedOut": true})
                    .as_object()
                    .cloned(),
                ..self.fact(id)
            }),
            "gate" => self.fail(id, Attempt(1), "no decision in time".to_owned()),
            _ => {
                if takes_worker(node) && pass.at_work >= pass.limit {
                    return;
                }
                pass.at_work += 1;
                self.start_attempt(node, id, nesting);
            }
        }
        pass.has_changed = true;
    }

    pub(crate) fn fail(&mut self, id: &NodeId, attempt: Attempt, error: String) {
        self.node(NodeEvent {
            node_id: id.clone(),
            status: NodeStatus::Failed,
            attempt,
            error: Some(self.cut(error)),
            failed_attempt: true,
            ..NodeEvent::default()
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

    /// Ends the run, and with it whatever of it is still running.
    pub(crate) fn end(&mut self, status: RunStatus, error: Option<String>) {
        let open: Vec<NodeId> = self
            .active
            .states()
            .filter(|(_, state)| !state.status.is_final())
            .map(|(id, _)| id.clone())
            .collect();
        for id in open {
            self.stop(&id);
            self.node(NodeEvent {
                status: NodeStatus::Canceled,
                ..self.fact(&id)
            });
        }
        self.status(status, error);
    }

    fn status(&mut self, status: RunStatus, error: Option<String>) {
        let fact = RunEvent::Status {
            status,
            error,
            output: None,
        };
        self.active.push(fact, None, Urgency::Now, self.now);
    }

    fn node(&mut self, node: NodeEvent) {
        self.active
            .push(RunEvent::Node { node }, None, Urgency::Now, self.now);
    }

    fn status_of(&self, id: &str) -> NodeStatus {
        self.active
            .state(id)
            .map_or(NodeStatus::Pending, |state| state.status)
    }

    /// An event of a node without new content yet.
    fn fact(&self, id: &NodeId) -> NodeEvent {
        NodeEvent {
            node_id: id.clone(),
            status: self.status_of(id.as_str()),
            attempt: self
                .active
                .state(id.as_str())
                .map_or(Attempt(0), |state| state.attempt),
            ..NodeEvent::default()
        }
    }

    /// A node of the plan and its nesting, by its id.
    fn locate<'p>(
        &self,
        nodes: &'p [Node],
        id: &str,
        nesting: Nesting,
    ) -> Option<(&'p Node, Nesting)> {
        let (first, rest) = match id.split_once('[') {
            None => (id, None),
            Some((first, rest)) => (first, rest.split_once("].")),
        };
        let node = nodes.iter().find(|node| node.id == first)?;
        let Some((index, rest)) = rest else {
            return Some((node, nesting));
        };
        let index: usize = index.parse().ok()?;
        let each = format!("{}{first}", nesting.prefix);
        let items = self.active.private(&each)?.items.as_ref()?;
        let mut outer = nesting.outer;
        outer.push(nesting.prefix);
        let inner = Nesting {
            prefix: format!("{each}[{index}]."),
            item: items.get(index).map(|item| (item.clone(), index)),
            outer,
        };
        self.locate(&node.nodes, rest, inner)
    }
}

/// Whether a node needs a worker, so that it counts against the plan's limit.
fn takes_worker(node: &Node) -> bool {
    matches!(node.kind.as_str(), "command" | "task" | "job" | "inference")
}

/// How often a node's worker is to send a heartbeat, in milliseconds: two may be lost.
pub(crate) fn heartbeat_of(node: &Node) -> Option<u64> {
    node.heartbeat_timeout_ms.map(|limit| (limit / 3).max(1))
}

/// Whether the runner's own process sees to a node.
fn is_own(node: &Node, mode: RunMode) -> bool {
    takes_worker(node) && queue_of(node, mode).is_none()
}
