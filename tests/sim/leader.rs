//! A scheduler's process: its core, its view of the lease, its commits in flight. It does what the driver of
//! the real one does, on a bus and a clock that belong to the world.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quintet_contract::id::{AgentId, IdempotencyKey, JobId, PoolName};
use quintet_contract::job::{Attempt, JobStatus};
use quintet_leader::Core as _;
use quintet_scheduler::core::{Action, Core, CoreConfig, Effects, Event, Write as CoreWrite};

use crate::store::{Outcome, Store, Write};
use crate::world::{Millis, SLOTS, at};

/// As many as the real driver has.
const COMMITS_AT_ONCE: usize = 4;

pub(crate) fn config() -> CoreConfig {
    CoreConfig {
        pool: PoolName::default(),
        heartbeat_interval: Duration::from_secs(3),
        heartbeat_timeout: Duration::from_secs(10),
        stop_grace: Duration::from_secs(10),
        kill_after: Duration::from_secs(5),
        assign_ack_timeout: Duration::from_secs(5),
        job_retention: Duration::from_secs(100_000),
        max_agents: 100,
    }
}

/// A scheduler that leads, or believes that it does.
pub(crate) struct Leader {
    pub(crate) core: Core,
    job_revisions: BTreeMap<JobId, u64>,
    agent_revisions: BTreeMap<AgentId, u64>,
    commits: VecDeque<Commit>,
    count: u64,
    jobs_writing: BTreeSet<JobId>,
    agents_writing: BTreeSet<AgentId>,
    blocked: Option<Effects>,
    inbox: VecDeque<Event>,
    /// The calls that wait for an answer, by request.
    pub(crate) requesters: BTreeMap<u64, u64>,
    requests: u64,
    /// Claims of keys in flight.
    pub(crate) claims: BTreeSet<IdempotencyKey>,
    pub(crate) due_at: Option<Millis>,
    placed: BTreeSet<(JobId, Attempt)>,
}

struct Commit {
    number: u64,
    missing: usize,
    jobs: Vec<JobId>,
    agents: Vec<AgentId>,
    acts: Vec<Action>,
}

/// The effects of a step, as the simulation performs them.
#[derive(Default)]
pub(crate) struct Outputs {
    /// Writes in their order, each with its commit.
    pub(crate) writes: Vec<(u64, Write)>,
    /// Everything else, now that it may be done.
    pub(crate) acts: Vec<Action>,
    /// A write is indeterminate: the state must be reloaded.
    pub(crate) indeterminate: bool,
}

impl Leader {
    pub(crate) fn load(store: &Store, now: Millis) -> (Self, Outputs) {
        let (core, first) = Core::restore(config(), store.everything(), at(now));
        let jobs = store.jobs.iter();
        let agents = store.agents.iter();
        let mut leader = Self {
            core,
            job_revisions: jobs.map(|(id, (found, _))| (id.clone(), *found)).collect(),
            agent_revisions: agents
                .map(|(id, (found, _))| (id.clone(), *found))
                .collect(),
            commits: VecDeque::new(),
            count: 0,
            jobs_writing: BTreeSet::new(),
            agents_writing: BTreeSet::new(),
            blocked: Some(first),
            inbox: VecDeque::new(),
            requesters: BTreeMap::new(),
            requests: 0,
            claims: BTreeSet::new(),
            due_at: None,
            placed: store
                .jobs
                .iter()
                .map(|(id, (_, record))| (id.clone(), record.job.attempt))
                .collect(),
        };
        leader.check_placements();
        let outputs = leader.advance(now);
        (leader, outputs)
    }

    /// A new request; the event that it makes is for [`Leader::step`].
    pub(crate) fn enter(&mut self, call: u64) -> u64 {
        self.requests += 1;
        self.requesters.insert(self.requests, call);
        self.requests
    }

    /// Something happened, or time passed.
    pub(crate) fn step(&mut self, event: Option<Event>, now: Millis) -> Outputs {
        self.inbox.extend(event);
        if self.blocked.is_none() {
            self.gather(now);
        }
        self.advance(now)
    }

    /// Something came for a process that does not run now.
    pub(crate) fn keep(&mut self, event: Event) {
        self.inbox.push_back(event);
    }

    /// Group commit: everything that waits goes along.
    fn gather(&mut self, now: Millis) {
        let mut effects = Effects::default();
        while let Some(event) = self.inbox.pop_front() {
            effects.extend(self.core.step(event, at(now)));
        }
        effects.extend(self.core.reconcile(at(now)));
        if !effects.is_empty() {
            self.blocked = Some(effects);
        }
        self.check_placements();
    }

    /// No agent is given more than it has slots for. Less than a whole commit may have been stored by a leader that
    /// died, so more may be found; but nothing is added to it.
    fn check_placements(&mut self) {
        let mut held: BTreeMap<AgentId, u32> = BTreeMap::new();
        let mut given = BTreeSet::new();
        for record in self.core.jobs() {
            let job = &record.job;
            if let Some(agent) = &job.agent_id
                && (job.status.holds_agent() || record.private.holds_slot)
            {
                *held.entry(agent.clone()).or_default() += 1;
                if job.status == JobStatus::Assigned
                    && self.placed.insert((job.id.clone(), job.attempt))
                {
                    given.insert(agent.clone());
                }
            }
        }
        for agent in given {
            assert!(
                held[&agent] <= SLOTS,
                "{agent} was given more than it has slots for"
            );
        }
    }

    fn advance(&mut self, now: Millis) -> Outputs {
        let mut outputs = Outputs::default();
        while let Some(effects) = self.blocked.take() {
            if !self.may_begin(&effects) {
                self.blocked = Some(effects);
                return outputs;
            }
            self.begin(effects, now, &mut outputs);
            if !self.inbox.is_empty() {
                self.gather(now);
            }
        }
        outputs
    }

    fn may_begin(&self, effects: &Effects) -> bool {
        self.commits.len() < COMMITS_AT_ONCE
            && effects.writes.iter().all(|write| match write {
                CoreWrite::Job(id) => !self.jobs_writing.contains(id),
                CoreWrite::Agent(id) | CoreWrite::NoAgent(id) => !self.agents_writing.contains(id),
            })
    }

    fn begin(&mut self, effects: Effects, now: Millis, outputs: &mut Outputs) {
        self.count += 1;
        let mut commit = Commit {
            number: self.count,
            missing: 0,
            jobs: Vec::new(),
            agents: Vec::new(),
            acts: effects.then,
        };
        // Each record once, in its newest form.
        let mut writes: Vec<CoreWrite> = Vec::new();
        for write in effects.writes.into_iter().rev() {
            let is_same = |other: &CoreWrite| match (other, &write) {
                (CoreWrite::Job(a), CoreWrite::Job(b)) => a == b,
                (
                    CoreWrite::Agent(a) | CoreWrite::NoAgent(a),
                    CoreWrite::Agent(b) | CoreWrite::NoAgent(b),
                ) => a == b,
                (CoreWrite::Job(_), _) | (_, CoreWrite::Job(_)) => false,
            };
            if !writes.iter().any(is_same) {
                writes.push(write);
            }
        }
        for write in writes.into_iter().rev() {
            let write = match write {
                CoreWrite::Job(id) => {
                    let expected = self.job_revisions.get(&id).copied().unwrap_or_default();
                    let Some((record, _)) = self.core.job_record(&id, at(now)) else {
                        continue;
                    };
                    let record = Box::new(record.clone());
                    self.jobs_writing.insert(id.clone());
                    commit.jobs.push(id);
                    let job = &record.job;
                    match job.status.is_final() && job.idempotency_key.is_some() {
                        true => Write::LastOfKey(record, expected),
                        false => Write::Job(record, expected),
                    }
                }
                CoreWrite::Agent(id) => {
                    let expected = self.agent_revisions.get(&id).copied().unwrap_or_default();
                    let Some(record) = self.core.agent_record(&id) else {
                        continue;
                    };
                    self.agents_writing.insert(id.clone());
                    commit.agents.push(id);
                    Write::Agent(Box::new(record), expected)
                }
                CoreWrite::NoAgent(id) => {
                    let expected = self.agent_revisions.remove(&id).unwrap_or_default();
                    self.agents_writing.insert(id.clone());
                    commit.agents.push(id.clone());
                    Write::NoAgent(id, expected)
                }
            };
            commit.missing += 1;
            outputs.writes.push((self.count, write));
        }
        self.commits.push_back(commit);
        outputs.acts.extend(self.done());
    }

    /// What may be done now that the oldest commits are stored.
    fn done(&mut self) -> Vec<Action> {
        let mut acts = Vec::new();
        while self
            .commits
            .front()
            .is_some_and(|commit| commit.missing == 0)
            && let Some(commit) = self.commits.pop_front()
        {
            for id in &commit.jobs {
                self.jobs_writing.remove(id);
            }
            for id in &commit.agents {
                self.agents_writing.remove(id);
            }
            acts.extend(commit.acts);
        }
        acts
    }

    /// A write of a commit ended.
    pub(crate) fn stored(&mut self, number: u64, outcome: Outcome, now: Millis) -> Outputs {
        match outcome {
            Outcome::Job(id, revision) => {
                self.job_revisions.insert(id, revision);
            }
            Outcome::Agent(id, revision) => {
                self.agent_revisions.insert(id, revision);
            }
            Outcome::NoAgent => {}
            Outcome::Conflict => {
                return Outputs {
                    indeterminate: true,
                    ..Outputs::default()
                };
            }
            Outcome::Claimed(..) | Outcome::Offered(_) => return Outputs::default(),
        }
        let commit = self
            .commits
            .iter_mut()
            .find(|commit| commit.number == number);
        if let Some(commit) = commit {
            commit.missing -= 1;
        }
        let acts = self.done();
        let mut outputs = self.advance(now);
        outputs.acts.splice(0..0, acts);
        outputs
    }

    /// Whether a commit is still in flight.
    pub(crate) fn waits_for(&self, number: u64) -> bool {
        self.commits.iter().any(|commit| commit.number == number)
    }
}
