//! Registry: the agents, the jobs of each, and which are free.
//!
//! An agent's slots in use are the jobs that hold one, nothing else is counted. Free agents are kept in the order of
//! placement: least loaded first, then least recently used, then longest registered.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use quintet_contract::JsonObject;
use quintet_contract::agent::{Agent, AgentFault, AgentRecord, AgentState, Hello};
use quintet_contract::capability::Capabilities;
use quintet_contract::id::{AgentId, AgentSession, JobId, PoolName};
use quintet_contract::job::JobStatus;
use quintet_contract::time::Timestamp;

/// Former sessions that a record remembers; a message would have to be older than this many reconnects to deceive us.
const FORMER_SESSIONS: usize = 8;

/// The rank of an agent among the free ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// Used slots per million.
    load: u64,
    last_used: Timestamp,
    registered: (Timestamp, AgentId),
}

impl Candidate {
    pub(super) fn agent(&self) -> &AgentId {
        &self.registered.1
    }
}

/// One agent.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: AgentRecord,
    pub(super) capabilities: Capabilities,
    /// Jobs that take a slot, in the order they came, each with its status.
    jobs: Vec<JobId>,
    statuses: HashMap<JobId, JobStatus>,
    /// When it was last seen.
    pub(super) heard_at: Timestamp,
    /// The clock of the newest reports of its session.
    pub(super) reports_clock: u64,
    /// Jobs that its latest heartbeats did not mention, and how many heartbeats in a row.
    pub(super) missing: HashMap<JobId, u32>,
    /// Whether a timer will store its public record.
    pub(super) show_planned: bool,
    candidate: Option<Candidate>,
}

impl Entry {
    fn new(record: AgentRecord, now: Timestamp) -> Self {
        // An agent that is online counts as seen now: a new leader waits for a heartbeat of every agent once.
        let heard_at = if record.session.is_some() {
            now
        } else {
            record.agent.last_seen_at
        };
        Self {
            capabilities: Capabilities::read(&record.agent.capabilities),
            record,
            jobs: Vec::new(),
            statuses: HashMap::new(),
            heard_at,
            reports_clock: 0,
            missing: HashMap::new(),
            show_planned: false,
            candidate: None,
        }
    }

    pub(super) fn is_online(&self) -> bool {
        self.record.session.is_some()
    }

    /// Jobs that take a slot, in the order they came.
    pub(super) fn jobs(&self) -> &[JobId] {
        &self.jobs
    }

    pub(super) fn has_free_slot(&self) -> bool {
        self.jobs.len() < self.capabilities.slots as usize
    }

    pub(super) fn state(&self) -> AgentState {
        let any =
            |wanted: &[JobStatus]| self.statuses.values().any(|status| wanted.contains(status));
        if !self.is_online() {
            AgentState::Offline
        } else if self.record.agent.error.is_some() {
            AgentState::Error
        } else if self.record.agent.drain && !self.jobs.is_empty() {
            AgentState::Draining
        } else if any(&[JobStatus::Running]) {
            AgentState::Running
        } else if any(&[JobStatus::Stopping, JobStatus::Failed]) {
            // A job that failed and still takes its slot was never confirmed dead.
            AgentState::Stopping
        } else if any(&[JobStatus::Accepted, JobStatus::Starting]) {
            AgentState::Starting
        } else if any(&[JobStatus::Assigned]) {
            AgentState::Reserved
        } else {
            AgentState::Idle
        }
    }

    /// The agent as it is shown now.
    pub(super) fn shown(&self) -> Agent {
        let mut agent = self.record.agent.clone();
        agent.state = self.state();
        agent.current_job_id = self.jobs.first().cloned();
        agent.jobs.clone_from(&self.jobs);
        agent.last_seen_at = self.heard_at;
        agent
    }

    /// Its record as it is to be stored now.
    pub(super) fn stored(&self) -> AgentRecord {
        AgentRecord {
            agent: self.shown(),
            ..self.record.clone()
        }
    }

    pub(super) fn is_former(&self, session: AgentSession) -> bool {
        self.record.former_sessions.contains(&session)
    }

    /// Ends its current session; nothing that still arrives from it counts.
    pub(super) fn end_session(&mut self) {
        let Some(session) = self.record.session.take() else {
            return;
        };
        let former = &mut self.record.former_sessions;
        former.push(session);
        if former.len() > FORMER_SESSIONS {
            former.remove(0);
        }
    }

    fn announce(&mut self, hello: Hello, session: AgentSession, now: Timestamp) {
        let agent = &mut self.record.agent;
        agent.name = if hello.name.is_empty() {
            agent.id.to_string()
        } else {
            hello.name
        };
        agent.version = hello.version;
        agent.capabilities = hello.capabilities;
        agent.meta = hello.meta;
        agent.error = None;
        self.capabilities = Capabilities::read(&self.record.agent.capabilities);
        if self.record.session != Some(session) {
            self.end_session();
            self.record.session = Some(session);
            self.missing.clear();
        }
        self.heard_at = now;
    }
}

/// All agents of a pool.
#[derive(Debug)]
pub(super) struct Registry {
    pool: PoolName,
    agents: BTreeMap<AgentId, Entry>,
    free: BTreeSet<Candidate>,
    /// Agents that may serve what they could not before: they came free, or sent hello.
    newly_available: BTreeSet<AgentId>,
}

impl Registry {
    pub(super) fn new(pool: PoolName) -> Self {
        Self {
            pool,
            agents: BTreeMap::new(),
            free: BTreeSet::new(),
            newly_available: BTreeSet::new(),
        }
    }

    pub(super) fn get(&self, id: &AgentId) -> Option<&Entry> {
        self.agents.get(id)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&AgentId, &Entry)> {
        self.agents.iter()
    }

    /// Changes an agent and updates its place; `None` when there is no such agent.
    pub(super) fn change<T>(
        &mut self,
        id: &AgentId,
        change: impl FnOnce(&mut Entry) -> T,
    ) -> Option<T> {
        let entry = self.agents.get_mut(id)?;
        let result = change(entry);
        let candidate = candidate_of(entry);
        if candidate != entry.candidate {
            match entry.candidate.take() {
                Some(old) => {
                    self.free.remove(&old);
                }
                None => {
                    self.newly_available.insert(id.clone());
                }
            }
            self.free.extend(candidate.clone());
            entry.candidate = candidate;
        }
        Some(result)
    }

    /// Brings back what was stored.
    pub(super) fn restore(&mut self, record: AgentRecord, now: Timestamp) {
        let id = record.agent.id.clone();
        self.agents.insert(id.clone(), Entry::new(record, now));
        self.change(&id, |_| ());
    }

    /// An agent sends hello: it is registered or announced again, and `session` is its session.
    pub(super) fn hello(
        &mut self,
        id: &AgentId,
        hello: Hello,
        session: AgentSession,
        now: Timestamp,
    ) {
        self.agents.entry(id.clone()).or_insert_with(|| {
            let agent = Agent {
                id: id.clone(),
                name: String::new(),
                version: String::new(),
                state: AgentState::Offline,
                current_job_id: None,
                jobs: Vec::new(),
                last_seen_at: now,
                // The flag is the operator's; an agent may only start with it.
                drain: hello.drain,
                capabilities: JsonObject::new(),
                meta: JsonObject::new(),
                error: None,
                pool: self.pool.clone(),
                registered_at: now,
            };
            let record = AgentRecord {
                agent,
                session: None,
                former_sessions: Vec::new(),
                last_used_at: None,
            };
            Entry::new(record, now)
        });
        self.change(id, |entry| entry.announce(hello, session, now));
        self.newly_available.insert(id.clone());
    }

    pub(super) fn remove(&mut self, id: &AgentId) {
        if let Some(candidate) = self.agents.remove(id).and_then(|entry| entry.candidate) {
            self.free.remove(&candidate);
        }
    }

    /// A job takes a slot, or its status there changed.
    pub(super) fn hold(&mut self, id: &AgentId, job: &JobId, status: JobStatus) {
        self.change(id, |entry| {
            if entry.statuses.insert(job.clone(), status).is_none() {
                entry.jobs.push(job.clone());
            }
        });
    }

    /// A job gives its slot back.
    pub(super) fn release(&mut self, id: &AgentId, job: &JobId) {
        self.change(id, |entry| {
            if entry.statuses.remove(job).is_some() {
                entry.jobs.retain(|held| held != job);
            }
            entry.missing.remove(job);
        });
    }

    pub(super) fn used_at(&mut self, id: &AgentId, now: Timestamp) {
        self.change(id, |entry| entry.record.last_used_at = Some(now));
    }

    pub(super) fn set_error(&mut self, id: &AgentId, error: Option<AgentFault>) {
        self.change(id, |entry| entry.record.agent.error = error);
    }

    /// The agents that can take a job, best first.
    pub(super) fn free(&self) -> impl Iterator<Item = &Candidate> {
        self.free.iter()
    }

    /// The agents that are newly available since the last call.
    pub(super) fn take_newly_available(&mut self) -> BTreeSet<AgentId> {
        std::mem::take(&mut self.newly_available)
    }

    /// Those of these agents that can take a job, best first.
    pub(super) fn free_of(&self, agents: &BTreeSet<AgentId>) -> BTreeSet<&Candidate> {
        let entries = agents.iter().filter_map(|id| self.agents.get(id));
        entries
            .filter_map(|entry| entry.candidate.as_ref())
            .collect()
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }
}

fn candidate_of(entry: &Entry) -> Option<Candidate> {
    let agent = &entry.record.agent;
    let schedulable =
        entry.is_online() && !agent.drain && agent.error.is_none() && entry.has_free_slot();
    schedulable.then(|| Candidate {
        load: entry.jobs.len() as u64 * 1_000_000 / u64::from(entry.capabilities.slots.max(1)),
        last_used: entry.record.last_used_at.unwrap_or_default(),
        registered: (agent.registered_at, agent.id.clone()),
    })
}
