//! Every decision about the runs of one shard. Synchronous and total: no clock, no I/O, no randomness.
//!
//! ```text
//!                       ┌────────────── canceled ◀──────────────┐
//!   run:   pending ─────┴──▶ running ──▶ completed | failed      │ (asked for, at any time before the end)
//!
//!   node:  pending ─▶ queued ─▶ running ─▶ succeeded | failed
//!             │         ▲          │  ▲ somebody else took it: the next attempt
//!             │         └─ waiting ◀──┘ failed, once more after the backoff
//!             ├─▶ waiting (gate, sleep) ─▶ succeeded | failed
//!             └─▶ skipped
//! ```
//!
//! [`Core::step`] takes in what happened, [`Core::settle`] lets every run that was touched, or that is due, go on as far as
//! it can. What changes a run is an entry of its log; what must wait until an entry is stored waits here.

mod active;
mod event;
mod expression;
mod plan;
mod report;
mod request;
mod runs;
mod settle;
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
    Answer, Effect, Event, Execution, ExecutionWork, KubernetesWork, Traceparent, Write,
};
pub(crate) use request::plan_view;
pub(crate) use settle::OWN_WORKER;

use active::Active;
use runs::Runs;
use settle::{STOP_AGAIN, Settle};

/// How often ended runs that have expired are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// What a core is told at its start.
#[derive(Clone, Debug)]
pub struct Terms {
    /// First part of every subject.
    pub prefix: Prefix,
    /// How long a worker may be silent to its queue.
    pub task_ack_wait: Duration,
    /// How long ended runs are kept.
    pub run_retention: Duration,
    /// Whether runs may have the mode `k8s`.
    pub has_kubernetes: bool,
}

impl Terms {
    fn look_at<'a>(
        &'a self,
        active: &'a mut Active,
        now: Timestamp,
        effects: &'a mut Vec<Effect>,
    ) -> Settle<'a> {
        Settle {
            active,
            prefix: &self.prefix,
            ack_wait: self.task_ack_wait,
            now,
            effects,
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
    effect: Effect,
    /// In how many runs.
    left: usize,
}

/// The runs of one shard.
#[derive(Debug)]
pub struct Core {
    terms: Terms,
    runs: Runs,
    ended: BTreeMap<RunId, Ended>,
    /// When which run is to be looked at.
    timers: BTreeSet<(Timestamp, RunId)>,
    timer_of: HashMap<RunId, Timestamp>,
    touched: BTreeSet<RunId>,
    /// By the number of their request.
    pending: HashMap<u64, Pending>,
    sweep_at: Timestamp,
}

impl Core {
    /// Goes on with what is stored.
    pub fn restore(terms: Terms, stored: Vec<StoredRun>, now: Timestamp) -> (Self, Vec<Effect>) {
        let mut core = Self {
            terms,
            runs: Runs::default(),
            ended: BTreeMap::new(),
            timers: BTreeSet::new(),
            timer_of: HashMap::new(),
            touched: BTreeSet::new(),
            pending: HashMap::new(),
            sweep_at: now.after(SWEEP_EVERY),
        };
        let mut effects = Vec::new();
        for StoredRun { record, log } in stored {
            let id = record.run.id;
            if record.run.status.is_final() {
                let ended = Ended::of(&record);
                if record.run.status == RunStatus::Canceled && ended.at.after(STOP_AGAIN) > now {
                    let mut active = Active::restore(record);
                    let mut settle = core.terms.look_at(&mut active, now, &mut effects);
                    settle.stop_again();
                }
                core.ended.insert(id, ended);
                continue;
            }
            let mut active = Active::restore(record);
            for (sequence, entry) in &log {
                active.replay(entry, *sequence);
            }
            core.with(active, now, &mut effects, |settle| {
                settle.stop_again();
                settle.resume();
            });
            core.touched.insert(id);
        }
        effects.extend(core.settle(now));
        (core, effects)
    }

    /// How many runs go on, and how many ended ones are known.
    pub fn sizes(&self) -> (usize, usize) {
        (self.runs.len(), self.ended.len())
    }

    /// When the core wants to be asked again, if nothing happens before.
    pub fn next_due(&self) -> Option<Timestamp> {
        let first = self.timers.first().map(|(at, _)| *at);
        Some(first.map_or(self.sweep_at, |at| at.min(self.sweep_at)))
    }

    /// Takes in what happened.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Create(request, create, traceparent) => {
                self.create(request, (*create, traceparent), now, &mut effects);
            }
            Event::Get(request, run) => self.answer_with_run(request, run, &mut effects),
            Event::List(request, list) => effects.push(self.list(request, &list)),
            Event::Cancel(request, run) => self.cancel(request, run, now, &mut effects),
            Event::Checkpoint(request, add) => self.checkpoint(request, *add, now, &mut effects),
            Event::Complete(request, complete) => {
                self.complete(request, *complete, now, &mut effects)
            }
            Event::Decide(request, decide) => self.decide(request, decide, now, &mut effects),
            Event::Reported(request, reports) => {
                self.reported(request, reports, now, &mut effects);
            }
            Event::Executed(report, checkpoint) => {
                self.report(*report, checkpoint, now, &mut effects);
            }
            Event::Written(run, sequence) => self.written(run, sequence, now, &mut effects),
            Event::Dispatched(run, node, sequence) => {
                if let Some(active) = self.runs.remove(&run) {
                    self.with(active, now, &mut effects, |settle| {
                        settle.dispatched(&node, sequence);
                    });
                }
            }
            Event::TaskGone(run, node, sequence) => {
                if let Some(active) = self.runs.remove(&run) {
                    self.with(active, now, &mut effects, |settle| {
                        settle.task_gone(&node, sequence);
                    });
                }
            }
            Event::Expired(run) => {
                self.ended.remove(&run);
            }
        }
        effects
    }

    /// Lets every run that was touched or is due go on.
    pub fn settle(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some((at, run)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, run));
            self.timer_of.remove(&run);
            self.touched.insert(run);
        }
        for id in std::mem::take(&mut self.touched) {
            let Some(mut active) = self.runs.remove(&id) else {
                continue;
            };
            let mut settle = self.terms.look_at(&mut active, now, &mut effects);
            settle.settle();
            if let Some(write) = active.next_write(now) {
                effects.push(Effect::Write(id, write));
            }
            self.set_timer(id, &active);
            self.runs.rest(active);
        }
        if self.sweep_at <= now {
            self.sweep_at = now.after(SWEEP_EVERY);
            let retention = self.terms.run_retention;
            self.ended
                .retain(|_, ended| ended.at.after(retention) > now);
        }
        effects
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
        effects: &mut Vec<Effect>,
        work: impl FnOnce(&mut Settle<'_>) -> T,
    ) -> T {
        let id = active.id();
        let done = work(&mut self.terms.look_at(&mut active, now, effects));
        self.runs.insert(active);
        self.touched.insert(id);
        done
    }

    fn reported(
        &mut self,
        request: RequestId<RunReportsReply>,
        reports: Vec<(RunReport, CheckpointId)>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let mut verdicts = Vec::with_capacity(reports.len());
        let mut to_look_up = Vec::new();
        let mut runs = BTreeSet::new();
        for (report, checkpoint) in reports {
            let (run, node) = (report.run_id, report.node_id.clone());
            let must_be_stored = is_stored_first(&report);
            let said = self.report(report, checkpoint, now, effects);
            if must_be_stored && said.verdict == Verdict::Ok {
                runs.insert(run);
            }
            if said.resume_from_log {
                to_look_up.push((verdicts.len(), run, node));
            }
            verdicts.push(said.verdict);
        }
        let effect = match to_look_up.as_slice() {
            [] => Effect::Reply(request.reply(Ok(RunReportsReply { verdicts }))),
            _ => Effect::ReplyWithResume(request, verdicts, to_look_up),
        };
        self.say_when_stored(request, effect, runs, effects);
    }

    fn report(
        &mut self,
        report: RunReport,
        checkpoint: CheckpointId,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> report::Said {
        let Some(active) = self.runs.remove(&report.run_id) else {
            return Verdict::Gone {
                reason: "there is no such run, or it has ended".to_owned(),
            }
            .into();
        };
        self.with(active, now, effects, |settle| {
            settle.report(report, checkpoint)
        })
    }

    /// Gives an answer once everything that these runs have so far is stored.
    fn say_when_stored<R>(
        &mut self,
        request: RequestId<R>,
        effect: Effect,
        runs: impl IntoIterator<Item = RunId>,
        effects: &mut Vec<Effect>,
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
            effects.push(effect);
        } else {
            self.pending
                .insert(request.number(), Pending { effect, left });
        }
    }

    fn written(&mut self, run: RunId, sequence: u64, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(active) = self.runs.get_mut(&run) else {
            return;
        };
        for request in active.written(sequence, now) {
            let is_complete = self.pending.get_mut(&request).is_some_and(|pending| {
                pending.left -= 1;
                pending.left == 0
            });
            if is_complete && let Some(pending) = self.pending.remove(&request) {
                effects.push(pending.effect);
            }
        }
        if active.is_over() {
            let ended = Ended::of_run(active.run());
            self.ended.insert(run, ended);
            self.runs.remove(&run);
            if let Some(at) = self.timer_of.remove(&run) {
                self.timers.remove(&(at, run));
            }
            effects.push(Effect::Forget(run));
            return;
        }
        self.touched.insert(run);
    }

    /// Whether a run may have this mode here.
    fn allows(&self, mode: RunMode) -> bool {
        match mode {
            RunMode::Queue => true,
            RunMode::K8s => self.terms.has_kubernetes,
        }
    }
}

/// Whether the worker may only go on when what it reported is stored. What it says while it works it must not lose; who
/// begins, and that somebody is still at it, can be found out again.
fn is_stored_first(report: &RunReport) -> bool {
    use quintet_contract::task::WorkerEvent;
    match report.event {
        WorkerEvent::Take { .. } | WorkerEvent::Heartbeat | WorkerEvent::Unknown => false,
        WorkerEvent::Checkpoint { .. }
        | WorkerEvent::Output { .. }
        | WorkerEvent::Progress { .. }
        | WorkerEvent::Log { .. }
        | WorkerEvent::Succeeded { .. }
        | WorkerEvent::Failed { .. } => true,
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
