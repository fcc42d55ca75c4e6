//! The core of the scheduler: pure, synchronous, total. `step` processes an event, `reconcile` then does what time and
//! free slots allow; both return what is to be stored and what is to be done then. No clock, no I/O, no logging.
//!
//! The core holds every job and agent of its pool. Its driver stores what it changed before it acts on anything, and
//! makes a new core from the stored records when it is not sure what is stored.
//!
//! - `submit` takes new jobs in, `request` answers what clients ask, `control` and `explain` are two of those.
//! - `report` processes the reports of agents, `observe` compares them with the records, `registry` knows the agents,
//!   `queue` the jobs that wait, `place` matches them.
//! - `life` is the legal steps of a status; `ending` is stops, losses, failures, restarts, and what time brings.

mod control;
mod ending;
mod event;
mod explain;
mod life;
mod observe;
mod place;
mod queue;
mod registry;
mod rejected;
mod report;
mod request;
mod submit;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use quintet_contract::agent::AgentRecord;
use quintet_contract::api::JobCursor;
use quintet_contract::error::ErrorReply;
use quintet_contract::id::{AgentId, IdempotencyKey, JobId, PoolName, TemplateId};
use quintet_contract::job::{Job, JobRecord, JobStatus};
use quintet_contract::reply::RequestId;
use quintet_contract::template::Template;
use quintet_contract::time::Timestamp;

use self::control::PendingCommand;
pub use self::event::{
    Action, Anomaly, Answer, Claim, CommandId, Event, Question, Record, Rejection, Traceparent,
    Write,
};
use self::queue::Queue;
use self::registry::Registry;
use self::submit::{Claims, PendingBatch};
use self::timers::{Timer, Timers};

/// What a step leads to.
pub type Effects = quintet_leader::Effects<Write, Action>;

/// Added to the heartbeat timeout before an agent is declared lost, so that a heartbeat in flight still counts.
pub const SLACK: Duration = Duration::from_secs(1);
/// The public record of an agent is stored at most so often.
const MIN_UPDATE_INTERVAL: Duration = Duration::from_millis(50);

/// The timings and names that decisions depend on.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The pool.
    pub pool: PoolName,
    /// How often agents send heartbeats.
    pub heartbeat_interval: Duration,
    /// An agent without a heartbeat for this long is lost.
    pub heartbeat_timeout: Duration,
    /// How long a job may take to stop before it is killed.
    pub stop_grace: Duration,
    /// How long an agent may take to confirm a kill.
    pub kill_after: Duration,
    /// How long an agent may take to answer an offer.
    pub assign_ack_timeout: Duration,
    /// How long ended jobs and their keys are kept.
    pub job_retention: Duration,
    /// Most agents of the pool, online or not; a new one beyond that is refused.
    pub max_agents: usize,
}

/// The state of one pool.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    /// Since when this core leads; it received no heartbeat before.
    since: Timestamp,
    /// Boxed: a table of large records would move them all whenever it grows.
    jobs: HashMap<JobId, Box<JobRecord>>,
    /// All jobs by age.
    order: BTreeSet<JobCursor>,
    keys: HashMap<IdempotencyKey, JobId>,
    agents: Registry,
    templates: BTreeMap<TemplateId, Template>,
    queue: Queue,
    timers: Timers,
    claims: Claims,
    pending_batches: BTreeMap<u64, PendingBatch>,
    next_gather: u64,
    pending_commands: BTreeMap<CommandId, PendingCommand>,
    next_command: u64,
    effects: Effects,
}

/// What was stored, and what a new core starts from.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The jobs of the pool.
    pub jobs: Vec<JobRecord>,
    /// The agents of the pool.
    pub agents: Vec<AgentRecord>,
    /// All templates.
    pub templates: Vec<Template>,
}

impl Core {
    /// A core that continues where an earlier one stopped, and what it does first: offers and stops that may never have
    /// reached their agents are sent again.
    pub fn restore(config: CoreConfig, stored: Stored, now: Timestamp) -> (Self, Effects) {
        let mut core = Self {
            agents: Registry::new(config.pool.clone()),
            config,
            since: now,
            jobs: HashMap::with_capacity(stored.jobs.len()),
            order: BTreeSet::new(),
            keys: HashMap::new(),
            templates: stored
                .templates
                .into_iter()
                .map(|template| (template.id.clone(), template))
                .collect(),
            queue: Queue::default(),
            timers: Timers::default(),
            claims: Claims::default(),
            pending_batches: BTreeMap::new(),
            next_gather: 0,
            pending_commands: BTreeMap::new(),
            next_command: 0,
            effects: Effects::default(),
        };
        for record in stored.agents {
            let id = record.agent.id.clone();
            core.agents.restore(record, now);
            core.watch_silence(&id, now);
        }
        let mut jobs: Vec<Box<JobRecord>> = stored.jobs.into_iter().map(Box::new).collect();
        jobs.sort_by(|a, b| (a.job.created_at, &a.job.id).cmp(&(b.job.created_at, &b.job.id)));
        let ids: Vec<JobId> = jobs.iter().map(|record| record.job.id.clone()).collect();
        for record in jobs {
            core.insert(record);
        }
        for id in ids {
            core.resume(&id, now);
        }
        core.advance_due(now);
        let effects = std::mem::take(&mut core.effects);
        (core, effects)
    }

    fn process(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::RequestReceived {
                question,
                traceparent,
            } => self.request_received(question, traceparent, now),
            Event::KeyClaimed { key, outcome } => self.key_claimed(&key, outcome, now),
            Event::Reported {
                from,
                agent,
                reports,
            } => self.reported(from, &agent, reports, now),
            Event::HeartbeatReceived {
                from,
                agent,
                heartbeat,
            } => self.heartbeat(from, &agent, heartbeat, now),
            Event::CommandAnswered {
                command_id,
                outcome,
            } => self.command_answered(command_id, outcome, now),
            Event::WriteRejected {
                rejection,
                unstored,
            } => self.write_rejected(rejection, &unstored, now),
            Event::TemplateStored(template) => {
                let id = template.id.clone();
                self.templates.insert(id.clone(), *template);
                self.template_changed(&id, now);
            }
            Event::TemplateDeleted(id) => {
                self.templates.remove(&id);
                self.template_changed(&id, now);
            }
        }
    }

    /// Does what is due, then places what can be placed.
    fn advance_due(&mut self, now: Timestamp) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::Silence(agent) => self.check_silence(&agent, now),
                Timer::Show(agent) => self.show_now(&agent),
                Timer::Job(job) => self.job_due(&job, now),
                Timer::Command(command_id) => self.command_due(command_id),
            }
        }
        self.place(now);
    }

    /// The record of a job as it is to be stored now, and how long it shall live; `None` for a job that is gone.
    pub fn job_record(&self, id: &JobId, now: Timestamp) -> Option<(&JobRecord, Option<Duration>)> {
        let record: &JobRecord = self.jobs.get(id)?;
        let expires = record
            .job
            .ended_at
            .map(|ended| ended.after(self.config.job_retention));
        // The server counts whole seconds, and a record must not go before its time.
        let ttl = expires.map(|at| at.since(now).max(Duration::from_secs(1)));
        Some((record, ttl))
    }

    /// The record of an agent as it is to be stored now; `None` for one that was forgotten.
    pub fn agent_record(&self, id: &AgentId) -> Option<AgentRecord> {
        self.agents.get(id).map(registry::Entry::stored)
    }

    /// Every job, oldest first.
    pub fn jobs(&self) -> impl Iterator<Item = &JobRecord> {
        self.order
            .iter()
            .filter_map(|cursor| self.jobs.get(&cursor.id).map(AsRef::as_ref))
    }

    /// Counts of jobs by whether they ended and of agents by whether they are online, for the metrics.
    pub fn sizes(&self) -> Sizes {
        let online = self
            .agents
            .iter()
            .filter(|(_, entry)| entry.is_online())
            .count();
        Sizes {
            jobs: self.jobs.len(),
            waiting: self.queue.len(),
            agents: self.agents.iter().count(),
            online,
        }
    }

    fn insert(&mut self, record: Box<JobRecord>) {
        let job = &record.job;
        self.order.insert(cursor(job));
        if let Some(key) = &job.idempotency_key {
            self.keys.insert(key.clone(), job.id.clone());
        }
        if let Some(agent) = &job.agent_id
            && (job.status.holds_agent() || record.private.holds_slot)
        {
            self.agents.hold(agent, &job.id, job.status);
        }
        self.jobs.insert(job.id.clone(), record);
    }

    /// Forgets a job whose time is over; its record expires by itself.
    fn remove(&mut self, id: &JobId) {
        let Some(record) = self.jobs.remove(id) else {
            return;
        };
        self.order.remove(&cursor(&record.job));
        self.queue.remove(id);
        if let Some(key) = &record.job.idempotency_key
            && self.keys.get(key) == Some(id)
        {
            self.keys.remove(key);
        }
        if let Some(agent) = &record.job.agent_id {
            self.agents.release(agent, id);
        }
        self.effects.act(Action::Forget(id.clone()));
    }

    /// Moves a job on, keeps its agent's slot in step, and has it stored. False, and nothing changed, when the step is
    /// not legal.
    fn advance(&mut self, id: &JobId, to: JobStatus, now: Timestamp, reason: Option<&str>) -> bool {
        let Some(record) = self.jobs.get_mut(id) else {
            return false;
        };
        if !life::advance(record, to, now, reason.map(str::to_owned)) {
            self.effects.act(Action::Count(Anomaly::Backward));
            return false;
        }
        let holds = to.holds_agent() || record.private.holds_slot;
        if let Some(agent) = record.job.agent_id.clone() {
            if holds {
                self.agents.hold(&agent, id, to);
            } else {
                self.agents.release(&agent, id);
            }
            self.show_soon(&agent, now);
        }
        self.store_job(id);
        true
    }

    /// Changes a job and has it stored.
    fn change(&mut self, id: &JobId, now: Timestamp, change: impl FnOnce(&mut JobRecord)) {
        if let Some(record) = self.jobs.get_mut(id) {
            change(record);
            record.job.updated_at = record.job.updated_at.max(now);
            self.store_job(id);
        }
    }

    fn store_job(&mut self, id: &JobId) {
        self.effects.write(Write::Job(id.clone()));
    }

    fn job(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(id).map(|record| &record.job)
    }

    fn reply<R>(&mut self, to: RequestId<R>, outcome: Result<R, ErrorReply>)
    where
        Answer: From<R>,
    {
        self.effects.act(Action::Reply(to.reply(outcome)));
    }

    fn count(&mut self, anomaly: Anomaly) {
        self.effects.act(Action::Count(anomaly));
    }

    /// Stores how an agent is shown, soon and once for many changes.
    fn show_soon(&mut self, id: &AgentId, now: Timestamp) {
        let planned = self
            .agents
            .change(id, |entry| std::mem::replace(&mut entry.show_planned, true));
        if planned == Some(false) {
            self.timers
                .set(now.after(MIN_UPDATE_INTERVAL), Timer::Show(id.clone()));
        }
    }

    fn show_now(&mut self, id: &AgentId) {
        if self
            .agents
            .change(id, |entry| entry.show_planned = false)
            .is_some()
        {
            self.effects.write(Write::Agent(id.clone()));
        }
    }
}

impl quintet_leader::Core for Core {
    type Time = Timestamp;
    type Event = Event;
    type Write = Write;
    type Action = Action;

    fn step(&mut self, event: Event, now: Timestamp) -> Effects {
        self.process(event, now);
        std::mem::take(&mut self.effects)
    }

    fn reconcile(&mut self, now: Timestamp) -> Effects {
        self.advance_due(now);
        std::mem::take(&mut self.effects)
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.timers.next()
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Jobs, ended ones included.
    pub jobs: usize,
    /// Jobs that wait for an agent.
    pub waiting: usize,
    /// Agents, offline ones included.
    pub agents: usize,
    /// Agents that are online.
    pub online: usize,
}

fn cursor(job: &Job) -> JobCursor {
    JobCursor {
        created_at: job.created_at,
        id: job.id.clone(),
    }
}
