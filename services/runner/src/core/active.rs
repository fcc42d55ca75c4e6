//! A run that has not ended, as its runner holds it: the state that follows from its log, and what of the log is not
//! stored yet.
//!
//! There is one way to change a run: an entry of its log, by [`Active::apply`]. New entries are made by [`Active::push`],
//! which applies them; entries that were stored before are applied again after a restart. So what a run is follows from
//! its record and its log alone.

mod rejected;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::cause::{CausedBy, TraceId};
use quintet_contract::id::{CheckpointId, NodeId, RunId};
use quintet_contract::plan::{Node, Plan};
use quintet_contract::run::{
    LogEntry, NodeEvent, NodePrivate, NodeState, NodeStatus, ReportMark, Run, RunEvent,
    RunLogBatch, RunPrivate, RunRecord, RunStatus,
};
use quintet_contract::time::Timestamp;
use serde_json::Value;

use crate::core::event::{Action, Write};

pub(crate) use rejected::Consequence;

/// How long an entry without a waiter may stay in memory, so that it travels with what follows.
const FLUSH_DELAY: Duration = Duration::from_millis(20);
/// Most entries of one message of the log.
const ENTRIES_AT_ONCE: usize = 512;
/// Most bytes of one message of the log, roughly: it must fit one of the bus.
const BYTES_AT_ONCE: usize = 768 * 1024;
/// Entries after which the record is written again, so that a restart has less to read.
const SNAPSHOT_EVERY: u64 = 1_024;
/// A checkpoint up to this size is kept beside its node; a larger one is read from the log when it is needed.
const RESUME_BYTES: usize = 16 * 1024;
/// Ids of checkpoints that are remembered, so that one that is sent again is not stored again.
const RECENT_CHECKPOINTS: usize = 100_000;

/// Whether a requester waits for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    Now,
    Lazy,
}

/// A run that has not ended, or whose end is not stored.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    /// Without its plan, which is beside it.
    run: Run,
    private: RunPrivate,
    caused_by: Option<CausedBy>,
    trace_id: Option<TraceId>,
    pub(crate) plan: Option<Arc<Plan>>,
    last_at: Timestamp,
    /// When a running node was last seen.
    pub(crate) last_seen: HashMap<NodeId, Timestamp>,
    /// The message with which a running node was taken, and how often it had been delivered then.
    pub(crate) delivered: HashMap<NodeId, (u64, u32)>,
    /// What is known of the tasks of nodes that are queued or run.
    pub(crate) tasks: HashMap<NodeId, QueuedTask>,
    recent: Recent,
    writer: Writer,
    /// Bytes of the outputs and the errors of its nodes, as JSON.
    pub(crate) weight: usize,
    /// When the run is to be reconciled again.
    pub(crate) due: Option<Timestamp>,
}

/// The task of a node, which must be in its queue until the node has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueuedTask {
    /// Its sequence, once that is known.
    pub(crate) sequence: Option<u64>,
    /// When its queue is checked.
    pub(crate) check_at: Timestamp,
    /// How long after that its queue is checked again.
    pub(crate) wait: Duration,
}

/// The newest checkpoints from outside.
#[derive(Clone, Debug, Default)]
struct Recent {
    order: VecDeque<CheckpointId>,
    known: HashSet<CheckpointId>,
}

/// What of a run is stored, and what is to be.
#[derive(Clone, Debug, Default)]
struct Writer {
    is_busy: bool,
    /// How many of the pending entries are being written.
    in_flight: usize,
    is_created: bool,
    pending: Vec<LogEntry>,
    flush_at: Option<Timestamp>,
    /// Number of the last entry that is stored.
    stored: u64,
    /// The last entry that the stored record includes.
    recorded: u64,
    is_quiet: bool,
    end: EndState,
    /// So many of the pending entries are written one by one, to find the one that is rejected.
    singly: usize,
    /// What waits until an entry is stored.
    waiting: VecDeque<(u64, Deferred)>,
}

/// What is done once an entry is stored.
#[derive(Clone, Debug)]
pub(crate) enum Deferred {
    /// The request with this number is answered, as far as this run goes.
    Reply(u64),
    /// An action.
    Act(Action),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EndState {
    #[default]
    Open,
    Writing,
    Stored,
}

impl Active {
    /// A run that is new.
    pub(crate) fn new(record: RunRecord) -> Self {
        let mut active = Self::of(record);
        active.writer.is_created = false;
        active
    }

    /// A run as it was stored, up to the entries of its record.
    pub(crate) fn restore(record: RunRecord) -> Self {
        let mut active = Self::of(record);
        active.writer.is_created = true;
        active
    }

    /// A run of which this record holds everything.
    pub(crate) fn reloaded(record: RunRecord, last_at: Timestamp) -> Self {
        let mut active = Self::restore(record);
        active.last_at = last_at;
        active.writer.is_quiet = true;
        active
    }

    /// Whether its record holds everything that matters about it: it waits, and all of it is stored.
    pub(crate) fn may_be_passivated(&self) -> bool {
        let writer = &self.writer;
        writer.is_quiet
            && writer.is_created
            && !writer.is_busy
            && writer.end == EndState::Open
            && writer.pending.is_empty()
            && writer.waiting.is_empty()
            && writer.recorded == self.private.entries
            && self.recent.known.is_empty()
    }

    /// When the last entry was made.
    pub(crate) fn last_at(&self) -> Timestamp {
        self.last_at
    }

    fn of(mut record: RunRecord) -> Self {
        let plan = record.run.plan.take().map(Arc::new);
        let last_at = record.run.started_at.unwrap_or(record.run.created_at);
        let stored = record.private.entries;
        let mut active = Self {
            run: record.run,
            private: record.private,
            caused_by: record.caused_by,
            trace_id: record.trace_id,
            plan,
            last_at,
            last_seen: HashMap::new(),
            delivered: HashMap::new(),
            tasks: HashMap::new(),
            recent: Recent::default(),
            writer: Writer {
                stored,
                recorded: stored,
                ..Writer::default()
            },
            weight: 0,
            due: None,
        };
        active.weight = active
            .states()
            .map(|(_, state)| {
                let output = state.output.as_ref().map_or(0, bytes_of_object);
                output + state.error.as_ref().map_or(0, String::len)
            })
            .sum();
        active
    }

    /// Takes in an entry that is in the log already. Those that the record includes change nothing.
    pub(crate) fn replay(&mut self, entry: &LogEntry, sequence: u64) {
        if let RunEvent::Checkpoint { checkpoint } = &entry.fact
            && checkpoint.node_id.is_none()
        {
            self.remember(checkpoint.id);
        }
        if entry.n != self.private.entries + 1 {
            return;
        }
        self.apply(entry);
        self.writer.stored = entry.n;
        self.private.log_sequence = sequence;
    }

    /// Makes an entry of something that happened.
    pub(crate) fn push(
        &mut self,
        fact: RunEvent,
        report: Option<ReportMark>,
        urgency: Urgency,
        now: Timestamp,
    ) {
        let entry = LogEntry {
            n: self.private.entries + 1,
            // Ids of events begin with their time and must sort.
            at: now.max(self.last_at),
            fact,
            report,
        };
        self.apply(&entry);
        self.writer.pending.push(entry);
        let flush_at = match urgency {
            Urgency::Now => now,
            Urgency::Lazy => now.after(FLUSH_DELAY),
        };
        self.writer.flush_at = Some(
            self.writer
                .flush_at
                .map_or(flush_at, |other| other.min(flush_at)),
        );
    }

    /// The one place where a run changes.
    fn apply(&mut self, entry: &LogEntry) {
        self.private.entries = entry.n;
        self.last_at = entry.at;
        match &entry.fact {
            RunEvent::Status {
                status,
                error,
                output,
            } => {
                self.run.status = *status;
                self.run.error.clone_from(error);
                self.run.output.clone_from(output);
                if *status == RunStatus::Running {
                    self.run.started_at = Some(entry.at);
                }
                if status.is_final() {
                    self.run.ended_at = Some(entry.at);
                    self.private.nodes.clear();
                }
            }
            RunEvent::Node { node } => self.apply_node(node, entry.at),
            RunEvent::Checkpoint { checkpoint } => {
                if let Some(node) = &checkpoint.node_id {
                    self.resume_from(node, checkpoint.data.clone());
                }
            }
            RunEvent::Output {
                node_id, output, ..
            } => self.merge(node_id, output),
            RunEvent::Log { node_id, .. } => self.private_of(node_id).lines += 1,
            RunEvent::Progress { .. } | RunEvent::Unknown => {}
        }
        if let Some(mark) = &entry.report
            && !self.run.status.is_final()
            && self
                .state(mark.node_id.as_str())
                .is_some_and(|state| !state.status.is_final())
        {
            let private = self.private_of(&mark.node_id);
            private.reports = private.reports.max(mark.seq);
        }
    }

    fn apply_node(&mut self, node: &NodeEvent, at: Timestamp) {
        let id = &node.node_id;
        if let Some(output) = &node.output {
            self.merge(id, output);
        }
        if let Some(items) = &node.items {
            self.expand(id, items.len());
        }
        let state = self
            .run
            .nodes
            .get_or_insert_default()
            .entry(id.clone())
            .or_default();
        let is_new_attempt = node.attempt > state.attempt;
        state.status = node.status;
        state.attempt = node.attempt;
        if is_new_attempt {
            state.started_at = Some(at);
            state.ended_at = None;
        }
        let lost = state.error.as_ref().map_or(0, String::len);
        if node.status == NodeStatus::Succeeded {
            state.error = None;
            self.weight -= lost.min(self.weight);
        } else if let Some(error) = &node.error {
            state.error = Some(error.clone());
            self.weight = (self.weight - lost.min(self.weight)) + error.len();
        }
        if node.status.is_final() {
            state.ended_at = Some(at);
            self.private.nodes.remove(id.as_str());
            self.last_seen.remove(id.as_str());
            self.delivered.remove(id.as_str());
            self.tasks.remove(id.as_str());
            return;
        }
        let private = self.private.nodes.entry(id.clone()).or_default();
        if is_new_attempt {
            private.reports = 0;
        }
        private.worker.clone_from(&node.worker);
        private.task = node.task;
        private.due = node.due;
        if node.failed_attempt {
            private.failures = private.failures.saturating_add(1);
        }
        if node.items.is_some() {
            private.items.clone_from(&node.items);
        }
    }

    /// The nodes that a foreach with so many items consists of.
    fn expand(&mut self, id: &NodeId, items: usize) {
        let Some(plan) = self.plan.clone() else {
            return;
        };
        let Some(node) = find(&plan.nodes, id.as_str()) else {
            return;
        };
        let states = self.run.nodes.get_or_insert_default();
        for index in 0..items {
            for step in &node.nodes {
                if let Ok(step) = NodeId::parse(format!("{id}[{index}].{}", step.id)) {
                    states.entry(step).or_default();
                }
            }
        }
    }

    fn merge(&mut self, id: &NodeId, output: &JsonObject) {
        let state = self
            .run
            .nodes
            .get_or_insert_default()
            .entry(id.clone())
            .or_default();
        let merged = state.output.get_or_insert_default();
        let before = bytes_of_object(merged);
        merged.extend(output.clone());
        self.weight = (self.weight - before.min(self.weight)) + bytes_of_object(merged);
    }

    fn resume_from(&mut self, id: &NodeId, data: Option<Value>) {
        let is_small = data
            .as_ref()
            .is_none_or(|data| bytes_of(data) <= RESUME_BYTES);
        let private = self.private_of(id);
        private.resume_in_log = !is_small;
        private.resume_state = data.filter(|_| is_small);
    }

    pub(crate) fn remember(&mut self, id: CheckpointId) {
        if self.recent.known.insert(id) {
            self.recent.order.push_back(id);
        }
        if self.recent.order.len() > RECENT_CHECKPOINTS
            && let Some(oldest) = self.recent.order.pop_front()
        {
            self.recent.known.remove(&oldest);
        }
    }

    pub(crate) fn knows(&self, id: CheckpointId) -> bool {
        self.recent.known.contains(&id)
    }

    pub(crate) fn id(&self) -> RunId {
        self.run.id
    }

    pub(crate) fn run(&self) -> &Run {
        &self.run
    }

    pub(crate) fn status(&self) -> RunStatus {
        self.run.status
    }

    /// Number of the last entry, stored or not.
    pub(crate) fn entries(&self) -> u64 {
        self.private.entries
    }

    pub(crate) fn traceparent(&self) -> Option<&str> {
        self.private.traceparent.as_deref()
    }

    pub(crate) fn state(&self, id: &str) -> Option<&NodeState> {
        self.run.nodes.as_ref()?.get(id)
    }

    /// What is known of a node that has not ended.
    pub(crate) fn private(&self, id: &str) -> Option<&NodePrivate> {
        self.private.nodes.get(id)
    }

    fn private_of(&mut self, id: &NodeId) -> &mut NodePrivate {
        self.private.nodes.entry(id.clone()).or_default()
    }

    /// Every node and its status.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&NodeId, &NodeState)> {
        self.run.nodes.iter().flatten()
    }

    /// The run as clients see it.
    pub(crate) fn shown(&self) -> Run {
        Run {
            plan: self.plan.as_deref().cloned(),
            ..self.run.clone()
        }
    }

    /// The run as it is listed: without its plan and without the outputs of its nodes.
    pub(crate) fn listed(&self) -> Run {
        listed(self.run.clone())
    }

    pub(crate) fn record(&self) -> Box<RunRecord> {
        Box::new(RunRecord {
            run: self.shown(),
            private: self.private.clone(),
            caused_by: self.caused_by.clone(),
            trace_id: self.trace_id.clone(),
        })
    }

    /// An answer that is to be given when everything so far is stored; false when it is already.
    pub(crate) fn answer_when_stored(&mut self, request: u64) -> bool {
        if self.writer.stored >= self.private.entries && self.writer.is_created {
            return false;
        }
        let deferred = Deferred::Reply(request);
        self.writer
            .waiting
            .push_back((self.private.entries, deferred));
        true
    }

    /// Actions that are to be done when everything so far is stored; those that can be done now are returned.
    pub(crate) fn act_when_stored(&mut self, acts: Vec<Action>) -> Vec<Action> {
        if self.writer.stored >= self.private.entries && self.writer.is_created {
            return acts;
        }
        let entries = self.private.entries;
        let deferred = acts.into_iter().map(|act| (entries, Deferred::Act(act)));
        self.writer.waiting.extend(deferred);
        Vec::new()
    }

    /// Whether the run has ended and everything about it is stored.
    pub(crate) fn is_over(&self) -> bool {
        self.writer.end == EndState::Stored
    }

    /// Whether nothing about the run will happen for a while.
    pub(crate) fn set_quiet(&mut self, is_quiet: bool) {
        self.writer.is_quiet = is_quiet;
    }

    /// When something is to be written that can wait.
    pub(crate) fn flush_at(&self) -> Option<Timestamp> {
        self.writer.flush_at.filter(|_| !self.writer.is_busy)
    }

    /// The next write, if it is time for one and none is in flight.
    pub(crate) fn next_write(&mut self, now: Timestamp) -> Option<Write> {
        if self.writer.is_busy {
            return None;
        }
        let write = self.due_write(now)?;
        self.writer.is_busy = true;
        Some(write)
    }

    fn due_write(&mut self, now: Timestamp) -> Option<Write> {
        let writer = &mut self.writer;
        if writer.end == EndState::Stored {
            return None;
        }
        if !writer.pending.is_empty() {
            if !writer.is_created || writer.flush_at.is_none_or(|at| at > now) {
                return None;
            }
            writer.in_flight = match writer.singly {
                0 => part(&writer.pending),
                _ => 1,
            };
            writer.flush_at = None;
            return Some(Write::Append(RunLogBatch {
                run_id: self.run.id,
                entries: writer.pending[..writer.in_flight].to_vec(),
            }));
        }
        if self.run.status.is_final() {
            writer.end = EndState::Writing;
            return Some(Write::End(self.record()));
        }
        let unrecorded = writer.stored - writer.recorded;
        if unrecorded >= SNAPSHOT_EVERY || (writer.is_quiet && unrecorded > 0) {
            writer.recorded = writer.stored;
            return Some(Write::Snapshot(self.record()));
        }
        None
    }

    /// The first record; everything that is pushed later is in the log.
    pub(crate) fn first_write(&mut self) -> Write {
        self.writer.is_busy = true;
        Write::Create(self.record())
    }

    /// A write is confirmed; returns what waited for it.
    pub(crate) fn written(&mut self, sequence: u64, now: Timestamp) -> Vec<Deferred> {
        let writer = &mut self.writer;
        writer.is_busy = false;
        writer.is_created = true;
        if writer.end == EndState::Writing {
            writer.end = EndState::Stored;
        }
        let written = std::mem::take(&mut writer.in_flight);
        if written > 0 {
            writer.stored += u64::try_from(written).unwrap_or(u64::MAX);
            writer.pending.drain(..written);
            writer.singly = writer.singly.saturating_sub(written);
            self.private.log_sequence = sequence;
        }
        if !writer.pending.is_empty() && writer.flush_at.is_none() {
            writer.flush_at = Some(now);
        }
        let mut released = Vec::new();
        while let Some((_, deferred)) = writer.waiting.pop_front_if(|(n, _)| *n <= writer.stored) {
            released.push(deferred);
        }
        released
    }
}

/// How many entries go into one message.
fn part(pending: &[LogEntry]) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for entry in pending.iter().take(ENTRIES_AT_ONCE) {
        bytes += weight(&entry.fact);
        if count > 0 && bytes > BYTES_AT_ONCE {
            break;
        }
        count += 1;
    }
    count
}

/// Roughly the bytes of an entry.
fn weight(fact: &RunEvent) -> usize {
    256 + match fact {
        RunEvent::Status { output, .. } => output.as_ref().map_or(0, bytes_of),
        RunEvent::Node { node } => {
            node.output.as_ref().map_or(0, bytes_of_object)
                + node.items.iter().flatten().map(bytes_of).sum::<usize>()
        }
        RunEvent::Checkpoint { checkpoint } => checkpoint.data.as_ref().map_or(0, bytes_of),
        RunEvent::Output { output, .. } => bytes_of_object(output),
        RunEvent::Progress { data, .. } => bytes_of_object(data),
        RunEvent::Log { line, .. } => line.len(),
        RunEvent::Unknown => 0,
    }
}

/// Bytes of a value as JSON, without writing it.
pub(crate) fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 12,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| 1 + bytes_of(item)).sum::<usize>(),
        Value::Object(fields) => bytes_of_object(fields),
    }
}

/// The same of an object.
pub(crate) fn bytes_of_object(fields: &JsonObject) -> usize {
    2 + fields
        .iter()
        .map(|(name, value)| name.len() + 4 + bytes_of(value))
        .sum::<usize>()
}

/// A run as it is listed: without its plan and without the outputs of its nodes.
pub(crate) fn listed(mut run: Run) -> Run {
    run.plan = None;
    run.inputs = None;
    for state in run.nodes.iter_mut().flat_map(BTreeMap::values_mut) {
        state.output = None;
    }
    run
}

/// The node of a plan that an id such as `each[3].step` belongs to.
pub(crate) fn find<'p>(nodes: &'p [Node], id: &str) -> Option<&'p Node> {
    let (first, rest) = match id.split_once('[') {
        None => (id, None),
        Some((first, rest)) => (first, rest.split_once("].").map(|(_, rest)| rest)),
    };
    let node = nodes.iter().find(|node| node.id == first)?;
    match rest {
        None => Some(node),
        Some(rest) => find(&node.nodes, rest),
    }
}
