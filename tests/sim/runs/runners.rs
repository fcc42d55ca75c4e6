//! The runners: their leases, their writes, and the results of these.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quintet_contract::id::RunId;
use quintet_contract::run_api::RunReply;
use quintet_contract::subject::Prefix;
use quintet_leader::Core as _;
use quintet_runner::core::{
    Action, Answer, Core, CoreConfig, Effects, Event, RunWrite, StoredRun, Write,
};
use rand::Rng;

use super::store::{Applied, StoreWrite};
use super::{Millis, Requester, SimEvent, ToEvent, World, at};

const LEASE: Millis = 2_000;
const TICK: Millis = 200;
/// How long a runner waits for the bus to confirm a write.
const WRITE_DEADLINE: Millis = 5_000;

#[derive(Default)]
pub(crate) struct Runner {
    /// Counts starts and loads: messages for an earlier one are dropped.
    life: u64,
    core: Option<Core>,
    /// By its own clock.
    leads_until: Millis,
    pub(crate) frozen_until: Millis,
    places: BTreeMap<RunId, (u64, u64)>,
    requesters: BTreeMap<u64, Requester>,
    requests: u64,
    /// What comes while it is frozen.
    missed: VecDeque<SimEvent>,
    /// When its last write arrives: they keep their order.
    writes_until: Millis,
    /// What is done once the writes of these runs are confirmed.
    waiting: Vec<(BTreeSet<RunId>, Vec<Action>)>,
}

impl Runner {
    pub(crate) fn crash(&mut self) -> u64 {
        *self = Self {
            life: self.life + 1,
            requests: self.requests,
            ..Self::default()
        };
        self.life
    }

    fn forget(&mut self) {
        self.life += 1;
        self.core = None;
        self.places.clear();
        self.requesters.clear();
        self.waiting.clear();
    }

    /// The write of a run is confirmed: what may be done now.
    fn confirmed(&mut self, run: RunId) -> Vec<Action> {
        let mut ready = Vec::new();
        for (missing, acts) in &mut self.waiting {
            missing.remove(&run);
            if missing.is_empty() {
                ready.append(acts);
            }
        }
        self.waiting.retain(|(missing, _)| !missing.is_empty());
        ready
    }
}

impl World {
    pub(super) fn runner_tick(&mut self, index: usize, life: u64) {
        let now = self.now;
        let runner = &mut self.runners[index];
        // A load makes a new life; the clock continues with it, but not with a crash.
        if life > runner.life || runner.frozen_until > now {
            let wait = (runner.frozen_until - now).max(TICK);
            self.after(wait, SimEvent::RunnerTick(index, life));
            return;
        }
        if life != runner.life {
            return;
        }
        while let Some(missed) = self.runners[index].missed.pop_front() {
            self.handle(missed);
        }
        let leads = self.try_lease(index);
        if leads && self.runners[index].core.is_none() {
            self.load(index);
        }
        if !leads && self.runners[index].core.is_some() {
            self.trace(|| format!("runner {index} is deposed"));
            self.runners[index].forget();
        }
        self.settle(index);
        let runner = &self.runners[index];
        let (life, due) = (
            runner.life,
            runner.core.as_ref().and_then(|core| core.next_due()),
        );
        let wait = due.map_or(TICK, |due| (due.as_millis() - now).clamp(1, TICK));
        self.after(wait, SimEvent::RunnerTick(index, life));
    }

    /// The lease is in the store: a key with a TTL of two seconds.
    fn try_lease(&mut self, index: usize) -> bool {
        let now = self.now;
        let free = match self.rules.lease {
            Some((holder, until)) => holder == index || until <= now,
            None => true,
        };
        if free {
            self.rules.lease = Some((index, now + LEASE));
            self.runners[index].leads_until = now + LEASE;
        }
        self.runners[index].leads_until > now
    }

    fn load(&mut self, index: usize) {
        let mut places = BTreeMap::new();
        let mut stored = Vec::new();
        for (run, (revision, record)) in &self.store.records {
            places.insert(*run, (*revision, self.store.last(*run)));
            let log = self.store.entries(*run);
            stored.push(StoredRun {
                record: record.clone(),
                log: log
                    .filter(|(sequence, _)| *sequence > record.private.log_sequence)
                    .map(|(sequence, entry)| (sequence, entry.clone()))
                    .collect(),
            });
        }
        self.rules.replays_alike(&self.store, self.now);
        let config = CoreConfig {
            prefix: Prefix::default(),
            task_ack_wait: Duration::from_secs(10),
            run_retention: Duration::from_secs(3600),
            has_kubernetes: false,
        };
        let (core, effects) = Core::restore(config, stored, at(self.now));
        let runner = &mut self.runners[index];
        runner.life += 1;
        runner.core = Some(core);
        runner.places = places;
        runner.requesters.clear();
        self.trace(|| format!("runner {index} leads"));
        self.act(index, effects);
    }

    /// Delivers a request to every runner that believes that it leads.
    pub(super) fn deliver_request(&mut self, requester: &Requester, request: &dyn ToEvent) {
        for index in 0..self.runners.len() {
            let runner = &mut self.runners[index];
            if runner.core.is_none() {
                continue;
            }
            if runner.frozen_until > self.now {
                runner
                    .missed
                    .push_back(SimEvent::Request(requester.clone(), request.boxed()));
                continue;
            }
            runner.requests += 1;
            let number = runner.requests;
            runner.requesters.insert(number, requester.clone());
            self.step(index, request.event(number));
        }
    }

    /// A task that ran beside the event loop has finished.
    pub(super) fn task_finished(&mut self, index: usize, life: u64, event: Event) {
        let runner = &self.runners[index];
        if runner.life == life && runner.frozen_until <= self.now {
            self.step(index, event);
        }
    }

    fn step(&mut self, index: usize, event: Event) {
        let now = at(self.now);
        let Some(core) = self.runners[index].core.as_mut() else {
            return;
        };
        let mut effects = core.step(event, now);
        effects.extend(core.reconcile(now));
        self.act(index, effects);
    }

    fn settle(&mut self, index: usize) {
        let now = at(self.now);
        if let Some(core) = self.runners[index].core.as_mut() {
            let effects = core.reconcile(now);
            self.act(index, effects);
        }
    }

    fn act(&mut self, index: usize, effects: Effects) {
        if effects.is_empty() {
            return;
        }
        if self.runners[index].leads_until <= self.now {
            self.runners[index].forget();
            let life = self.runners[index].life;
            self.after(TICK, SimEvent::RunnerTick(index, life));
            return;
        }
        let runs: BTreeSet<RunId> = effects.writes.iter().map(|RunWrite(run, _)| *run).collect();
        for RunWrite(run, write) in effects.writes {
            self.write(index, run, write);
        }
        if runs.is_empty() {
            self.perform(index, effects.then);
        } else {
            self.runners[index].waiting.push((runs, effects.then));
        }
    }

    fn perform(&mut self, index: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dispatch(_, task) => {
                    self.rules.dispatched(&task);
                    // Tried until it is stored; twice does no harm.
                    let copies = if self.has_faults() && self.rng.random_bool(0.1) {
                        2
                    } else {
                        1
                    };
                    for _ in 0..copies {
                        let wait = self.delay();
                        self.after(
                            wait,
                            SimEvent::Dispatch(index, self.runners[index].life, task.clone()),
                        );
                    }
                }
                Action::VerifyEnqueued(run, node, sequence) => {
                    let is_there = self.queue.iter().any(|queued| queued.key == sequence);
                    if !is_there {
                        let (wait, life) = (self.delay(), self.runners[index].life);
                        let gone = SimEvent::TaskMissing(index, life, run, node, sequence);
                        self.after(wait, gone);
                    }
                }
                Action::Cancel(worker, run, node, attempt) => {
                    if let Some(worker) = worker
                        .as_str()
                        .strip_prefix('w')
                        .and_then(|w| w.split('.').next()?.parse().ok())
                    {
                        self.send(SimEvent::CancelWorker(worker, run, node, attempt.0));
                    }
                }
                Action::Reply(reply) => {
                    let (id, answer) = reply.into_parts();
                    if let Some(requester) = self.runners[index].requesters.remove(&id) {
                        self.answer(&requester, answer);
                    }
                }
                Action::Forget(run) => {
                    self.runners[index].places.remove(&run);
                }
                Action::Read(id, run) => {
                    let record = self
                        .store
                        .records
                        .get(&run)
                        .map(|(_, record)| record.clone());
                    let requester = self.runners[index].requesters.remove(&id.number());
                    if let (Some(requester), Some(record)) = (requester, record) {
                        let entries = record.private.entries;
                        let reply = RunReply {
                            run: record.run,
                            entries,
                        };
                        self.answer(&requester, Answer::from(reply));
                    }
                }
                Action::List(..)
                | Action::ReplyWithResume(..)
                | Action::Execute(_)
                | Action::Stop(..) => {
                    panic!("nothing here needs that")
                }
            }
        }
    }

    fn write(&mut self, index: usize, run: RunId, write: Write) {
        let (revision, sequence) = self.runners[index]
            .places
            .get(&run)
            .copied()
            .unwrap_or_default();
        let write = match write {
            Write::Append(events) => StoreWrite::Log {
                run,
                expected: sequence,
                events,
            },
            Write::Create(record) | Write::Snapshot(record) | Write::End(record) => {
                StoreWrite::Record {
                    run,
                    expected: revision,
                    record,
                }
            }
        };
        let wait = self.delay();
        let arrives = (self.now + wait).max(self.runners[index].writes_until);
        self.runners[index].writes_until = arrives;
        let life = self.runners[index].life;
        // A cut connection loses it.
        if self.has_faults() && self.rng.random_bool(0.01) {
            self.after(WRITE_DEADLINE, SimEvent::Applied(index, life, None));
            return;
        }
        self.after(arrives - self.now, SimEvent::Apply(index, life, write));
    }

    pub(super) fn apply(&mut self, index: usize, life: u64, write: StoreWrite) {
        let applied = self.store.apply(write.clone());
        if let StoreWrite::Log { run, events, .. } = &write
            && !matches!(applied, Applied::Refused)
        {
            for entry in &events.entries {
                self.trace(|| format!("log of {run}: {} {:?}", entry.n, entry.fact));
                self.rules.logged(*run, entry);
            }
        }
        let is_lost = self.has_faults() && self.rng.random_bool(0.01);
        let (wait, applied) = match is_lost {
            true => (WRITE_DEADLINE, None),
            false => (self.delay(), Some(applied)),
        };
        self.after(wait, SimEvent::Applied(index, life, applied));
    }

    pub(super) fn applied(&mut self, index: usize, life: u64, applied: Option<Applied>) {
        let runner = &mut self.runners[index];
        if runner.life != life {
            return;
        }
        if runner.frozen_until > self.now {
            runner
                .missed
                .push_back(SimEvent::Applied(index, life, applied));
            return;
        }
        match applied {
            Some(Applied::Record(run, revision)) => {
                let place = runner.places.entry(run).or_default();
                place.0 = revision;
                let sequence = place.1;
                let ready = runner.confirmed(run);
                self.perform(index, ready);
                self.step(index, Event::Written(run, sequence));
            }
            Some(Applied::Log(run, sequence)) => {
                runner.places.entry(run).or_default().1 = sequence;
                let ready = runner.confirmed(run);
                self.perform(index, ready);
                self.step(index, Event::Written(run, sequence));
            }
            // A write is indeterminate: the state is reloaded.
            Some(Applied::Refused) | None => {
                runner.forget();
                self.trace(|| format!("runner {index} reloads: {applied:?}"));
                let life = self.runners[index].life;
                self.after(TICK, SimEvent::RunnerTick(index, life));
            }
        }
    }
}
