//! A simulated system: its processes, the messages in flight, the faults, and the invariants. All of it follows from a
//! seed.
//!
//! Time jumps from event to event. Every message may be lost, doubled, late, and overtake others; what a scheduler writes
//! keeps its order, as on one connection, but may be cut off anywhere.

mod clients;
mod faults;
mod machines;
mod rules;
mod schedulers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quintet_agent::AgentConfig;
use quintet_agent::simulate::Simulated;
use quintet_contract::agent::{
    AgentCommand, AgentReports, Heartbeat, HeartbeatReply, ReportsReply,
};
use quintet_contract::api::{DrainAgent, JobRef, SubmitJob};
use quintet_contract::error::{ErrorCode, ErrorReply, Retry};
use quintet_contract::id::{AgentId, AgentSession, IdempotencyKey, JobId};
use quintet_contract::job::{Attempt, JobRecord, JobStatus, RestartPolicy};
use quintet_contract::reply::RequestId;
use quintet_contract::time::Timestamp;
use quintet_scheduler::core::{Action, Answer, Claim, Event, Question};
use quintet_worker::Moment;
use quintet_worker::core as link;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use uuid::Uuid;

use crate::leader::{Leader, Outputs};
use crate::store::{Offer, Outcome, Store, Write};

/// Simulated time in milliseconds.
pub(crate) type Millis = i64;

const START: Millis = 1_000_000;
const AGENTS: usize = 3;
pub(crate) const SLOTS: u32 = 2;
const SCHEDULERS: usize = 2;
const JOBS: usize = 12;
/// Faults happen until then; afterwards everything is healed.
const FAULTS_END: Millis = START + 90_000;
/// By then everything must have come to rest.
const REST: Millis = START + 700_000;
const LEASE: Millis = 2_000;
const LEASE_EVERY: Millis = 600;
/// How long a scheduler waits for the bus to confirm a write.
const WRITE_DEADLINE: Millis = 5_000;
const RELOAD_PAUSE: Millis = 200;
const REPORTS_DEADLINE: Millis = 3_000;
const CLIENT_DEADLINE: Millis = 2_000;
/// How long processes of a machine that was frozen may continue after it thaws, until its agent has checked the clock
/// and killed them.
const THAW: Millis = 1_500;

pub(crate) fn at(millis: Millis) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn moment(millis: Millis) -> Moment {
    Moment::from_start(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

/// The part that a message or a fault is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Agent(usize),
    Scheduler(usize),
    World,
}

enum SimEvent {
    /// An agent's timer.
    Wake(usize, u64),
    /// A message for an agent, in the life that it had when it was sent.
    Reach(usize, u64, Delivery),
    /// A request for the leader.
    Request(u64, Request),
    /// The caller has given up waiting.
    GiveUp(u64),
    /// The answer to a call.
    Answered(u64, Reply),
    Write(usize, u64, u64, Write),
    Stored(usize, u64, u64, Outcome),
    NotStored(usize, u64, u64),
    ClaimLost(usize, u64, IdempotencyKey),
    Lease(usize),
    Load(usize, u64),
    Due(usize, u64),
    Fault,
    Client(usize),
}

#[derive(Clone)]
enum Delivery {
    Offer(Box<Offer>),
    Command(AgentCommand),
    Link(link::Event),
}

#[derive(Clone)]
enum Request {
    Reports(usize, AgentReports),
    Heartbeat(usize, Heartbeat),
    /// A client's request, once it has a number.
    Question(Arc<dyn Fn(u64) -> Question + Send + Sync>),
}

enum Reply {
    Reports(ReportsReply),
    Heartbeat(HeartbeatReply),
    Client(Answer),
    NoResponder,
}

/// The caller that waits for an answer.
enum Call {
    Reports {
        agent: usize,
        boot: u64,
        sent: Moment,
    },
    Heartbeat {
        agent: usize,
        boot: u64,
        sent: Moment,
        session: AgentSession,
    },
    Client(usize),
}

struct Machine {
    agent: Simulated,
    boot: u64,
    wakes_at: Option<Millis>,
    thawed_at: Millis,
}

enum State {
    Down,
    Waiting,
    Loading,
    Leading(Box<Leader>),
}

struct Scheduler {
    state: State,
    /// Grows with every new life or load; what belongs to an older one does not count.
    term: u64,
    lease_until: Millis,
    /// The order of what is sent is kept.
    sent_until: Millis,
    /// What was sent after this was still in the process when it died.
    died_at: BTreeMap<u64, Millis>,
}

/// A client with one request, which it repeats until it has the answer.
struct Client {
    request: ClientRequest,
    done: bool,
}

#[derive(Clone)]
enum ClientRequest {
    Submit(JobId, Option<IdempotencyKey>),
    Stop(JobId),
    Drain(AgentId, bool),
}

pub(crate) struct World {
    /// Print every event, to find the cause of a failure.
    verbose: bool,
    dice: StdRng,
    now: Millis,
    store: Store,
    machines: Vec<Machine>,
    schedulers: Vec<Scheduler>,
    clients: Vec<Client>,
    calls: BTreeMap<u64, Call>,
    /// Boxed, since it is moved often and large.
    in_flight: BTreeMap<(Millis, u64), Box<SimEvent>>,
    count: u64,
    cut_until: BTreeMap<(bool, usize), Millis>,
    frozen_until: BTreeMap<(bool, usize), Millis>,
    submitted: BTreeSet<JobId>,
    keys: BTreeMap<IdempotencyKey, JobId>,
    /// Agents whose drain was confirmed and not taken back since.
    drained: BTreeSet<AgentId>,
    /// The agents that were ever allowed to start an attempt.
    started: BTreeMap<(JobId, Attempt), AgentId>,
}

impl World {
    pub(crate) fn new(seed: u64, verbose: bool) -> Self {
        let mut world = Self {
            verbose,
            dice: StdRng::seed_from_u64(seed),
            now: START,
            store: Store::default(),
            machines: Vec::new(),
            schedulers: Vec::new(),
            clients: Vec::new(),
            calls: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            count: 0,
            cut_until: BTreeMap::new(),
            frozen_until: BTreeMap::new(),
            submitted: BTreeSet::new(),
            keys: BTreeMap::new(),
            drained: BTreeSet::new(),
            started: BTreeMap::new(),
        };
        for index in 0..SCHEDULERS {
            world.schedulers.push(Scheduler {
                state: State::Waiting,
                term: 0,
                lease_until: 0,
                sent_until: 0,
                died_at: BTreeMap::new(),
            });
            world.plan(1, SimEvent::Lease(index));
        }
        for index in 0..AGENTS {
            let machine = world.machine(index);
            world.machines.push(machine);
            world.open(index);
        }
        world.plan(100, SimEvent::Fault);
        world
    }

    pub(crate) fn play(mut self) {
        while let Some(((when, number), what)) = self.in_flight.pop_first() {
            if when > REST || (when > FAULTS_END + 1_000 && self.is_at_rest()) {
                break;
            }
            let who = what.who();
            let thaw = self.until(&self.frozen_until, who);
            if thaw > when && !matches!(*what, SimEvent::Write(..)) {
                self.in_flight.insert((thaw, number), what);
                continue;
            }
            self.now = when;
            self.happen(*what);
        }
        for client in &self.clients {
            assert!(client.done, "a client was never answered");
        }
        for id in &self.submitted {
            let (_, record) = self
                .store
                .jobs
                .get(id)
                .expect("a submitted job is never lost");
            let job = &record.job;
            assert!(
                job.status.is_final(),
                "a job never came to its end: {job:?}"
            );
        }
    }

    /// Whether every request was answered and every job has ended.
    fn is_at_rest(&self) -> bool {
        let jobs = self.store.jobs.values();
        self.clients.iter().all(|client| client.done)
            && jobs
                .into_iter()
                .all(|(_, record)| record.job.status.is_final())
    }

    fn plan(&mut self, after: Millis, what: SimEvent) {
        self.count += 1;
        self.in_flight
            .insert((self.now + after, self.count), Box::new(what));
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>7} ms  {}", self.now - START, what());
        }
    }

    fn is_faulty(&self) -> bool {
        self.now < FAULTS_END
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.is_faulty() && self.dice.random_bool(probability)
    }

    fn until(&self, what: &BTreeMap<(bool, usize), Millis>, who: Who) -> Millis {
        let key = match who {
            Who::Agent(index) => (true, index),
            Who::Scheduler(index) => (false, index),
            Who::World => return 0,
        };
        what.get(&key).copied().unwrap_or(0).min(FAULTS_END)
    }

    fn is_cut(&self, who: Who) -> bool {
        self.until(&self.cut_until, who) > self.now
    }

    /// How long a message takes; `None` for one that is lost.
    fn journey(&mut self, from: Who, to: Who) -> Option<Millis> {
        if self.is_cut(from) || self.is_cut(to) || self.chance(0.03) {
            return None;
        }
        let late = if self.chance(0.05) { 2_500 } else { 30 };
        Some(self.dice.random_range(1..=late))
    }

    fn happen(&mut self, what: SimEvent) {
        match what {
            SimEvent::Wake(index, boot) => {
                if self.machines[index].boot == boot {
                    self.machines[index].wakes_at = None;
                    self.link_event(index, link::Event::Woken);
                }
            }
            SimEvent::Reach(index, boot, delivery) => self.reach(index, boot, delivery),
            SimEvent::Request(call, request) => self.deliver_request(call, request),
            SimEvent::GiveUp(call) => self.answered(call, Reply::NoResponder),
            SimEvent::Answered(call, reply) => self.answered(call, reply),
            SimEvent::Write(index, term, commit, write) => self.write(index, term, commit, write),
            SimEvent::Stored(index, term, commit, outcome) => {
                self.stored(index, term, commit, outcome);
            }
            SimEvent::NotStored(index, term, commit) => {
                let late = match self.leader(index, term) {
                    Some(leader) => leader.waits_for(commit),
                    None => false,
                };
                if late {
                    self.indeterminate(index);
                }
            }
            SimEvent::ClaimLost(index, term, key) => {
                let error = ErrorReply::unavailable("the bus did not answer");
                self.claimed(index, term, key, Claim::Failed(error));
            }
            SimEvent::Lease(index) => self.try_for_lease(index),
            SimEvent::Load(index, term) => self.load(index, term),
            SimEvent::Due(index, term) => {
                if let Some(leader) = self.leader(index, term) {
                    leader.due_at = None;
                    self.step(index, None);
                }
            }
            SimEvent::Fault => self.fault(),
            SimEvent::Client(index) => self.send_request(index),
        }
    }
}

impl SimEvent {
    /// The part that must be awake for it.
    fn who(&self) -> Who {
        match self {
            Self::Wake(agent, _) | Self::Reach(agent, ..) => Who::Agent(*agent),
            Self::Write(index, ..)
            | Self::Stored(index, ..)
            | Self::NotStored(index, ..)
            | Self::ClaimLost(index, ..)
            | Self::Lease(index)
            | Self::Load(index, _)
            | Self::Due(index, _) => Who::Scheduler(*index),
            Self::Request(..)
            | Self::GiveUp(_)
            | Self::Answered(..)
            | Self::Fault
            | Self::Client(_) => Who::World,
        }
    }
}

fn index_of(agent: &AgentId) -> usize {
    agent.as_str().rsplit('-').next().unwrap().parse().unwrap()
}
