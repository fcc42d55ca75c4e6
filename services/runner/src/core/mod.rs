//! The core of a runner: every decision about the runs of one shard. Synchronous and total: no clock, no I/O, no
//! randomness.
//!
//! ```text
//!                       ┌────────────── canceled ◀──────────────┐
//!   run:   pending ─────┴──▶ running ──▶ completed | failed      │ (asked for, at any time before the end)
//!
//!   node:  pending ─▶ queued ─▶ running ─▶ succeeded | failed
//!             │         ▲          │  ▲ another worker took it: the next attempt
//!             │         └─ waiting ◀──┘ failed, once more after the backoff
//!             ├─▶ waiting (gate, sleep) ─▶ succeeded | failed
//!             └─▶ skipped
//! ```
//!
//! `step` processes what happened, `reconcile` advances every run that was touched, or that is due, as far as it can. What
//! changes a run is an entry of its log. Entries are written one message of a run at a time, so that some wait for their
//! write: what depends on them waits here, and is returned when they are stored.

mod active;
mod event;
mod expression;
mod plan;
mod reconciler;
mod rejected;
mod report;
mod request;
mod runs;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use quintet_contract::id::{CheckpointId, RunId};
use quintet_contract::reply::RequestId;
use quintet_contract::run::{LogEntry, RunMode, RunRecord, RunStatus};
use quintet_contract::subject::Prefix;
use quintet_contract::task::{RunReport, RunReportsReply, Verdict};
use quintet_contract::time::Timestamp;

pub(crate) use active::listed;
pub use event::{
    Action, Answer, Event, Execution, ExecutionWork, KubernetesWork, Rejection, RunWrite,
    Traceparent, Write,
};
pub(crate) use reconciler::OWN_WORKER;
pub(crate) use request::plan_view;

use active::{Active, Deferred};
use reconciler::{REPEAT_STOP_WITHIN, Reconciler};
use runs::Runs;

/// How often ended runs are checked for expiry.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// What a step leads to.
pub type Effects = quintet_leader::Effects<RunWrite, Action>;

/// Configuration of a core.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// First part of every subject.
    pub prefix: Prefix,
    /// How long a worker may be silent to its queue.
    pub task_ack_wait: Duration,
    /// How long ended runs are kept.
    pub run_retention: Duration,
    /// Whether runs may have the mode `k8s`.
    pub has_kubernetes: bool,
}

impl CoreConfig {
    fn reconciler<'a>(
        &'a self,
        active: &'a mut Active,
        now: Timestamp,
        acts: &'a mut Vec<Action>,
    ) -> Reconciler<'a> {
        Reconciler {
            active,
            prefix: &self.prefix,
            ack_wait: self.task_ack_wait,
            now,
            acts,
        }
    }
}

/// A run as it is stored: its record and the entries of its log after it, each with its sequence.
#[derive(Clone, Debug)]
pub struct StoredRun {
    /// The record.
    pub record: RunRecord,
    /// Entries of the log; those that the record includes do no harm.
    pub log: Vec<(u64, LogEntry)>,
}

/// What is remembered of a run that has ended.
#[derive(Clone, Debug)]
struct Ended {
    status: RunStatus,
    owner: Option<Arc<str>>,
    at: Timestamp,
}

/// An answer that waits until something is stored.
#[derive(Debug)]
struct Pending {
    action: Action,
    /// In how many runs.
    left: usize,
}

/// The runs of one shard.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    runs: Runs,
    ended: BTreeMap<RunId, Ended>,
    /// When each run is to be reconciled.
    timers: BTreeSet<(Timestamp, RunId)>,
    timer_of: HashMap<RunId, Timestamp>,
    touched: BTreeSet<RunId>,
    /// By the number of their request.
    pending: HashMap<u64, Pending>,
    sweep_at: Timestamp,
}

impl Core {
    /// Goes on with what is stored.
    pub fn restore(config: CoreConfig, stored: Vec<StoredRun>, now: Timestamp) -> (Self, Effects) {
        let mut core = Self {
            config,
            runs: Runs::default(),
            ended: BTreeMap::new(),
            timers: BTreeSet::new(),
            timer_of: HashMap::new(),
            touched: BTreeSet::new(),
            pending: HashMap::new(),
            sweep_at: now.after(SWEEP_EVERY),
        };
        let mut effects = Effects::default();
        for StoredRun { record, log } in stored {
            let id = record.run.id;
            if record.run.status.is_final() {
                let ended = Ended::of(&record);
                if record.run.status == RunStatus::Canceled
                    && ended.at.after(REPEAT_STOP_WITHIN) > now
                {
                    let mut active = Active::restore(record);
                    let mut reconciler =
                        core.config.reconciler(&mut active, now, &mut effects.then);
                    reconciler.stop_again();
                }
                core.ended.insert(id, ended);
                continue;
            }
            let mut active = Active::restore(record);
            for (sequence, entry) in &log {
                active.replay(entry, *sequence);
            }
            core.with(active, now, &mut effects, |reconciler| {
                reconciler.stop_again();
                reconciler.resume();
            });
            core.touched.insert(id);
        }
        core.advance(now, &mut effects);
        (core, effects)
    }

    /// How many runs continue, and how many ended ones are known.
    pub fn sizes(&self) -> (usize, usize) {
        (self.runs.len(), self.ended.len())
    }

    fn process(&mut self, event: Event, now: Timestamp, effects: &mut Effects) {
        match event {
            Event::Create(request, create, traceparent) => {
                self.create(request, (*create, traceparent), now, effects);
            }
            Event::Get(request, run) => self.answer_with_run(request, run, effects),
            Event::List(request, list) => effects.act(self.list(request, &list)),
            Event::Cancel(request, run) => self.cancel(request, run, now, effects),
            Event::Checkpoint(request, add) => self.checkpoint(request, *add, now, effects),
            Event::Complete(request, complete) => self.complete(request, *complete, now, effects),
            Event::Decide(request, decide) => self.decide(request, decide, now, effects),
            Event::Reported(request, reports) => {
                self.reported(request, reports, now, effects);
            }
            Event::Executed(report, checkpoint) => {
                self.report(*report, checkpoint, now, effects);
            }
            Event::Written(run, sequence) => self.written(run, sequence, now, effects),
            Event::Dispatched(run, node, sequence) => {
                if let Some(active) = self.runs.remove(&run) {
                    self.with(active, now, effects, |reconciler| {
                        reconciler.dispatched(&node, sequence);
                    });
                }
            }
            Event::TaskMissing(run, node, sequence) => {
                if let Some(active) = self.runs.remove(&run) {
                    self.with(active, now, effects, |reconciler| {
                        reconciler.task_missing(&node, sequence);
                    });
                }
            }
            Event::TaskRejected(run, node, reason) => {
                if let Some(active) = self.runs.remove(&run) {
                    self.with(active, now, effects, |reconciler| {
                        reconciler.task_rejected(&node, reason);
                    });
                }
            }
            Event::WriteRejected(rejection) => self.write_rejected(rejection, now, effects),
            Event::Expired(run) => {
                self.ended.remove(&run);
            }
        }
    }

    /// Advances every run that was touched or is due.
    fn advance(&mut self, now: Timestamp, effects: &mut Effects) {
        while let Some((at, run)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, run));
            self.timer_of.remove(&run);
            self.touched.insert(run);
        }
        for id in std::mem::take(&mut self.touched) {
            let Some(mut active) = self.runs.remove(&id) else {
                continue;
            };
            let mut acts = Vec::new();
            self.config
                .reconciler(&mut active, now, &mut acts)
                .reconcile();
            effects.then.extend(active.act_when_stored(acts));
            if let Some(write) = active.next_write(now) {
                effects.write(RunWrite(id, write));
            }
            self.set_timer(id, &active);
            self.runs.passivate_if_quiet(active);
        }
        if self.sweep_at <= now {
            self.sweep_at = now.after(SWEEP_EVERY);
            let retention = self.config.run_retention;
            self.ended
                .retain(|_, ended| ended.at.after(retention) > now);
        }
    }

    fn set_timer(&mut self, id: RunId, active: &Active) {
        let due = match (active.due, active.flush_at()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if self.timer_of.get(&id).copied() == due {
            return;
        }
        if let Some(before) = self.timer_of.remove(&id) {
            self.timers.remove(&(before, id));
        }
        if let Some(due) = due {
            self.timers.insert((due, id));
            self.timer_of.insert(id, due);
        }
    }

    /// Does something with a run, and puts it (back) among the others.
    fn with<T>(
        &mut self,
        mut active: Active,
        now: Timestamp,
        effects: &mut Effects,
        work: impl FnOnce(&mut Reconciler<'_>) -> T,
    ) -> T {
        let id = active.id();
        let mut acts = Vec::new();
        let done = work(&mut self.config.reconciler(&mut active, now, &mut acts));
        effects.then.extend(active.act_when_stored(acts));
        self.runs.insert(active);
        self.touched.insert(id);
        done
    }

    fn reported(
        &mut self,
        request: RequestId<RunReportsReply>,
        reports: Vec<(RunReport, CheckpointId)>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let mut verdicts = Vec::with_capacity(reports.len());
        let mut to_look_up = Vec::new();
        let mut runs = BTreeSet::new();
        for (report, checkpoint) in reports {
            let (run, node) = (report.run_id, report.node_id.clone());
            let must_be_stored = is_stored_first(&report);
            let reply = self.report(report, checkpoint, now, effects);
            if must_be_stored && matches!(reply.verdict, Verdict::Ok | Verdict::Granted { .. }) {
                runs.insert(run);
            }
            if reply.resume_from_log {
                to_look_up.push((verdicts.len(), run, node));
            }
            verdicts.push(reply.verdict);
        }
        let action = match to_look_up.as_slice() {
            [] => Action::Reply(request.reply(Ok(RunReportsReply { verdicts }))),
            _ => Action::ReplyWithResume(request, verdicts, to_look_up),
        };
        self.reply_when_stored(request, action, runs, effects);
    }

    fn report(
        &mut self,
        report: RunReport,
        checkpoint: CheckpointId,
        now: Timestamp,
        effects: &mut Effects,
    ) -> report::Reply {
        let Some(active) = self.runs.remove(&report.run_id) else {
            return Verdict::Gone {
                reason: "there is no such run, or it has ended".to_owned(),
            }
            .into();
        };
        self.with(active, now, effects, |reconciler| {
            reconciler.report(report, checkpoint)
        })
    }

    /// Gives an answer once everything that these runs have so far is stored.
    fn reply_when_stored<R>(
        &mut self,
        request: RequestId<R>,
        action: Action,
        runs: impl IntoIterator<Item = RunId>,
        effects: &mut Effects,
    ) {
        let mut left = 0;
        for run in runs {
            if let Some(active) = self.runs.awake_mut(&run)
                && active.answer_when_stored(request.number())
            {
                left += 1;
            }
        }
        if left == 0 {
            effects.act(action);
        } else {
            self.pending
                .insert(request.number(), Pending { action, left });
        }
    }

    fn written(&mut self, run: RunId, sequence: u64, now: Timestamp, effects: &mut Effects) {
        let Some(active) = self.runs.get_mut(&run) else {
            return;
        };
        for deferred in active.written(sequence, now) {
            let request = match deferred {
                Deferred::Act(action) => {
                    effects.act(action);
                    continue;
                }
                Deferred::Reply(request) => request,
            };
            let is_complete = self.pending.get_mut(&request).is_some_and(|pending| {
                pending.left -= 1;
                pending.left == 0
            });
            if is_complete && let Some(pending) = self.pending.remove(&request) {
                effects.act(pending.action);
            }
        }
        if active.is_over() {
            let ended = Ended::of_run(active.run());
            self.ended.insert(run, ended);
            self.forget(run, effects);
            return;
        }
        self.touched.insert(run);
    }

    /// Removes a run from memory.
    fn forget(&mut self, run: RunId, effects: &mut Effects) {
        self.runs.remove(&run);
        if let Some(at) = self.timer_of.remove(&run) {
            self.timers.remove(&(at, run));
        }
        effects.act(Action::Forget(run));
    }

    /// Whether a run may have this mode here.
    fn allows(&self, mode: RunMode) -> bool {
        match mode {
            RunMode::Queue => true,
            RunMode::K8s => self.config.has_kubernetes,
        }
    }
}

/// Whether the worker may only continue when what it reported is stored: an attempt is begun by one worker, and nothing
/// that it reports is lost. A heartbeat comes again.
fn is_stored_first(report: &RunReport) -> bool {
    use quintet_contract::task::WorkerEvent;
    match report.event {
        WorkerEvent::Heartbeat | WorkerEvent::Unknown => false,
        WorkerEvent::Take { .. }
        | WorkerEvent::Checkpoint { .. }
        | WorkerEvent::Output { .. }
        | WorkerEvent::Progress { .. }
        | WorkerEvent::Log { .. }
        | WorkerEvent::Succeeded { .. }
        | WorkerEvent::Failed { .. } => true,
    }
}

impl quintet_leader::Core for Core {
    type Time = Timestamp;
    type Event = Event;
    type Write = RunWrite;
    type Action = Action;

    fn step(&mut self, event: Event, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        self.process(event, now, &mut effects);
        effects
    }

    fn reconcile(&mut self, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        self.advance(now, &mut effects);
        effects
    }

    fn next_due(&self) -> Option<Timestamp> {
        let first = self.timers.first().map(|(at, _)| *at);
        Some(first.map_or(self.sweep_at, |at| at.min(self.sweep_at)))
    }
}

impl Ended {
    fn of(record: &RunRecord) -> Self {
        Self::of_run(&record.run)
    }

    fn of_run(run: &quintet_contract::run::Run) -> Self {
        Self {
            status: run.status,
            owner: run.owner.as_deref().map(Arc::from),
            at: run.ended_at.unwrap_or(run.created_at),
        }
    }
}
