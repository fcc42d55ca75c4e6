//! The state of a watched run, folded from its events.

use std::collections::{BTreeMap, VecDeque};

use quintet_contract::event::LogStream;
use quintet_contract::job::Attempt;
use quintet_contract::plan::Plan;
use quintet_contract::run::{Checkpoint, NodeState, NodeStatus, Run, RunStatus, RunStreamEvent};
use quintet_contract::time::Timestamp;
use serde_json::Value;

use super::graph::Graph;

/// Lines of output that are kept for drawing.
const LINES: usize = 8;
/// Checkpoints that are kept for drawing.
const CHECKPOINTS: usize = 3;

/// Everything that is shown of a run.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) status: RunStatus,
    pub(super) error: Option<String>,
    pub(super) created: Timestamp,
    pub(super) began: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
    /// The nodes of the plan in its order, and how they hang together.
    pub(super) nodes: Vec<PlanNode>,
    pub(super) graph: Graph,
    /// The status of each, those inside a `foreach` included.
    pub(super) states: BTreeMap<String, State>,
    /// The newest lines of output.
    pub(super) lines: VecDeque<Line>,
    /// The newest checkpoints, and how many there were.
    pub(super) checkpoints: VecDeque<Checkpoint>,
    pub(super) checkpoint_count: u64,
    pub(super) connected: bool,
}

/// A node of the plan.
#[derive(Clone, Debug)]
pub(super) struct PlanNode {
    pub(super) id: String,
    pub(super) kind: String,
    /// Which condition lets it run, and with which answer.
    pub(super) chosen_by: Option<(String, bool)>,
}

/// The status of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) status: NodeStatus,
    pub(super) attempt: Attempt,
    /// When its current attempt began.
    pub(super) began: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
    pub(super) error: Option<String>,
    /// Its newest progress or checkpoint.
    pub(super) activity: Option<Activity>,
}

/// The newest progress or checkpoint of a node.
#[derive(Clone, Debug)]
pub(super) enum Activity {
    Progress(Value),
    Checkpoint(String, Option<Value>),
}

/// A line of output of a node.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) node: String,
    pub(super) stream: LogStream,
    pub(super) text: String,
}

impl View {
    pub(super) fn of(run: Run) -> Self {
        let plan = run.plan.unwrap_or_default();
        let states = run.nodes.unwrap_or_default();
        Self {
            id: run.id.to_string(),
            name: run.name,
            status: run.status,
            error: run.error,
            created: run.created_at,
            began: run.started_at,
            ended: run.ended_at,
            graph: graph(&plan),
            nodes: shown(&plan),
            states: states
                .into_iter()
                .map(|(id, state)| (id.to_string(), state.into()))
                .collect(),
            lines: VecDeque::new(),
            checkpoints: VecDeque::new(),
            checkpoint_count: 0,
            connected: true,
        }
    }

    /// Applies an event; its moment comes from its id.
    pub(super) fn apply(&mut self, at: Option<Timestamp>, event: RunStreamEvent) {
        match event {
            RunStreamEvent::Hello { .. } => {}
            RunStreamEvent::Status { status, error, .. } => {
                self.status = status;
                self.error = error;
                if status == RunStatus::Running && self.began.is_none() {
                    self.began = at;
                }
                if status.is_final() {
                    self.ended = at;
                }
            }
            RunStreamEvent::Checkpoint(checkpoint) => self.apply_checkpoint(checkpoint),
            RunStreamEvent::Node {
                node_id,
                status,
                attempt,
                error,
                ..
            } => {
                let state = self.states.entry(node_id.to_string()).or_default();
                state.transition(at, status, attempt, error);
            }
            RunStreamEvent::Output { .. } => {}
            RunStreamEvent::Progress { node_id, data, .. } => {
                let state = self.states.entry(node_id.to_string()).or_default();
                state.activity = Some(Activity::Progress(Value::Object(data)));
            }
            RunStreamEvent::Log {
                node_id,
                stream,
                line,
                ..
            } => {
                self.lines.push_back(Line {
                    node: node_id.to_string(),
                    stream,
                    text: line,
                });
                keep_newest(&mut self.lines, LINES);
            }
        }
    }

    fn apply_checkpoint(&mut self, checkpoint: Checkpoint) {
        if let Some(node) = &checkpoint.node_id {
            let state = self.states.entry(node.to_string()).or_default();
            let kind = checkpoint.kind.clone();
            state.activity = Some(Activity::Checkpoint(kind, checkpoint.data.clone()));
        }
        self.checkpoint_count += 1;
        self.checkpoints.push_back(checkpoint);
        keep_newest(&mut self.checkpoints, CHECKPOINTS);
    }

    /// The status of a node.
    pub(super) fn state(&self, id: &str) -> State {
        self.states.get(id).cloned().unwrap_or_default()
    }

    /// The status of the nodes inside a `foreach`, by their ids.
    pub(super) fn items<'a>(&'a self, id: &str) -> impl Iterator<Item = (&'a str, &'a State)> {
        let prefix = format!("{id}[");
        let from = self.states.range(prefix.clone()..);
        from.take_while(move |(id, _)| id.starts_with(&prefix))
            .map(|(id, state)| (id.as_str(), state))
    }
}

impl State {
    fn transition(
        &mut self,
        at: Option<Timestamp>,
        status: NodeStatus,
        attempt: Attempt,
        error: Option<String>,
    ) {
        let begins = match status {
            NodeStatus::Running => true,
            // A gate or a sleep begins by waiting; for others it is the wait between two attempts.
            NodeStatus::Waiting => self.began.is_none(),
            NodeStatus::Pending
            | NodeStatus::Queued
            | NodeStatus::Succeeded
            | NodeStatus::Failed
            | NodeStatus::Skipped
            | NodeStatus::Canceled => false,
        };
        if begins {
            self.began = at;
        }
        if attempt != self.attempt && begins {
            self.activity = None;
        }
        self.ended = if status.is_final() { at } else { None };
        self.status = status;
        self.attempt = attempt;
        // Why the last attempt failed is worth seeing until the next one is under way.
        if error.is_some() || begins || status == NodeStatus::Succeeded {
            self.error = error;
        }
    }
}

impl From<NodeState> for State {
    fn from(state: NodeState) -> Self {
        Self {
            status: state.status,
            attempt: state.attempt,
            began: state.started_at,
            ended: state.ended_at,
            error: state.error,
            activity: None,
        }
    }
}

fn keep_newest<T>(list: &mut VecDeque<T>, count: usize) {
    while list.len() > count {
        list.pop_front();
    }
}

fn shown(plan: &Plan) -> Vec<PlanNode> {
    let chosen_by = |id: &str| {
        plan.nodes.iter().find_map(|node| {
            let names = |list: &[String]| list.iter().any(|name| name == id);
            match (names(&node.then), names(&node.otherwise)) {
                (true, _) => Some((node.id.clone(), true)),
                (_, true) => Some((node.id.clone(), false)),
                (false, false) => None,
            }
        })
    };
    plan.nodes
        .iter()
        .map(|node| PlanNode {
            id: node.id.clone(),
            kind: node.kind.clone(),
            chosen_by: chosen_by(&node.id),
        })
        .collect()
}

fn graph(plan: &Plan) -> Graph {
    let ids: Vec<&str> = plan.nodes.iter().map(|node| node.id.as_str()).collect();
    let needs = plan.nodes.iter().flat_map(|node| {
        let needs = node.needs.iter();
        needs.map(|need| (need.as_str(), node.id.as_str()))
    });
    let edges = plan.edges.iter();
    let edges = edges.map(|edge| (edge.from.as_str(), edge.to.as_str()));
    Graph::new(&ids, needs.chain(edges))
}
