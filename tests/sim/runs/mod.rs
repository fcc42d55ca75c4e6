//! Runs under faults, simulated: two runners that want to lead a shard, with the real core; three run workers; clients that
//! ask until they are answered; a queue that gives a task again when its worker is silent; and a bus that loses, doubles,
//! delays and reorders, while any process crashes or freezes and comes back.
//!
//! What a runner writes reaches the store late, and perhaps after another one leads; the confirmation may be lost.

mod plans;
mod rules;
mod runners;
mod store;
mod workers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use quintet_contract::id::{CheckpointId, NodeId, RunId};
use quintet_contract::reply::RequestId;
use quintet_contract::run::RunMode;
use quintet_contract::run::RunStatus;
use quintet_contract::run_api::{AddCheckpoint, CompleteRun, CreateRun, DecideGate, Decision};
use quintet_contract::task::{RunReport, Task, Verdict};
use quintet_contract::time::Timestamp;
use quintet_runner::core::{Answer, Event};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use runners::Runner;
use store::{Applied, Store, StoreWrite};
use workers::Worker;

/// Simulated time in milliseconds.
type Millis = i64;

const START: Millis = 1_000_000;
const RUNS: usize = 5;
const RUNNERS: usize = 2;
const WORKERS: usize = 3;
/// Faults happen until then; afterwards everything is healed.
const FAULTS_END: Millis = START + 60_000;
/// By then everything must have come to rest.
const REST: Millis = START + 400_000;
const ASK_AGAIN: Millis = 1_000;

fn at(millis: Millis) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// The sender of a request, which gets the answer.
#[derive(Clone, Debug)]
enum Requester {
    Client(usize),
    /// A worker as it was started that time, and which of its reports.
    Worker(usize, u64, u64),
}

/// The request that a client repeats until it is answered.
#[derive(Clone, Debug)]
enum ClientRequest {
    Create(Box<CreateRun>),
    Cancel(RunId),
    Checkpoint(AddCheckpoint),
    Complete(RunId),
    Approve(RunId, NodeId),
}

#[derive(Clone, Debug)]
struct Client {
    request: ClientRequest,
    is_answered: bool,
    /// Approvals are repeated: the gate may not wait yet.
    refusals: u32,
}

#[derive(Clone, Debug)]
enum SimEvent {
    /// A runner looks at its lease, its timers.
    RunnerTick(usize, u64),
    /// A request for the leader: reaches every runner that then believes that it leads.
    Request(Requester, Box<dyn ToEvent>),
    /// A write arrives at the store.
    Apply(usize, u64, StoreWrite),
    /// The outcome of a write, or that its confirmation was lost.
    Applied(usize, u64, Option<Applied>),
    Dispatch(usize, u64, Box<Task>),
    /// A task is not in its queue.
    TaskMissing(usize, u64, RunId, NodeId, u64),
    WorkerTick(usize, u64),
    Verdict(usize, u64, u64, Option<Verdict>),
    CancelWorker(usize, RunId, NodeId, u32),
    Answered(usize, bool),
    ClientAsks(usize),
    Fault,
}

/// A message that becomes an event of the core that receives it.
trait ToEvent: std::fmt::Debug + Send {
    fn event(&self, number: u64) -> Event;
    fn boxed(&self) -> Box<dyn ToEvent>;
}

impl Clone for Box<dyn ToEvent> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

impl ToEvent for ClientRequest {
    fn event(&self, number: u64) -> Event {
        match self.clone() {
            Self::Create(create) => Event::Create(RequestId::new(number), create, None),
            Self::Cancel(run) => Event::Cancel(RequestId::new(number), run),
            Self::Checkpoint(add) => Event::Checkpoint(RequestId::new(number), Box::new(add)),
            Self::Complete(run_id) => Event::Complete(
                RequestId::new(number),
                Box::new(CompleteRun {
                    run_id,
                    status: RunStatus::Completed,
                    error: None,
                    output: None,
                }),
            ),
            Self::Approve(run_id, node_id) => Event::Decide(
                RequestId::new(number),
                DecideGate {
                    run_id,
                    node_id,
                    decision: Decision::Approve,
                    by: None,
                    actor: None,
                },
            ),
        }
    }

    fn boxed(&self) -> Box<dyn ToEvent> {
        Box::new(self.clone())
    }
}

impl ToEvent for (RunReport, CheckpointId) {
    fn event(&self, number: u64) -> Event {
        Event::Reported(RequestId::new(number), vec![self.clone()])
    }

    fn boxed(&self) -> Box<dyn ToEvent> {
        Box::new(self.clone())
    }
}

/// A task in its queue.
#[derive(Clone, Debug)]
struct Queued {
    key: u64,
    task: Task,
    visible_at: Millis,
    delivered: u32,
}

pub(crate) struct World {
    rng: StdRng,
    verbose: bool,
    now: Millis,
    ties: u64,
    events: BinaryHeap<Reverse<(Millis, u64, usize)>>,
    whats: BTreeMap<usize, SimEvent>,
    next: usize,
    store: Store,
    runners: Vec<Runner>,
    workers: Vec<Worker>,
    clients: Vec<Client>,
    queue: Vec<Queued>,
    rules: rules::Rules,
}

impl World {
    pub(crate) fn new(seed: u64, verbose: bool) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            verbose,
            now: START,
            ties: 0,
            events: BinaryHeap::new(),
            whats: BTreeMap::new(),
            next: 0,
            store: Store::default(),
            runners: (0..RUNNERS).map(|_| Runner::default()).collect(),
            workers: (0..WORKERS).map(Worker::new).collect(),
            clients: Vec::new(),
            queue: Vec::new(),
            rules: rules::Rules::default(),
        };
        for runner in 0..RUNNERS {
            world.after(0, SimEvent::RunnerTick(runner, 0));
        }
        for worker in 0..WORKERS {
            world.after(100, SimEvent::WorkerTick(worker, 0));
        }
        for _ in 0..RUNS {
            world.invent_run();
        }
        world.after(2_000, SimEvent::Fault);
        world
    }

    pub(crate) fn play(mut self) {
        while let Some(Reverse((time, _, key))) = self.events.pop() {
            self.now = time;
            let Some(what) = self.whats.remove(&key) else {
                continue;
            };
            if self.now > REST {
                break;
            }
            self.handle(what);
            if self.is_at_rest() {
                break;
            }
        }
        self.trace(|| {
            let held = self.workers.iter().map(Worker::shown);
            format!(
                "queue {:?}, held {:?}",
                self.queue,
                held.collect::<Vec<_>>()
            )
        });
        self.rules.at_the_end(&self.store, &self.clients);
    }

    fn is_at_rest(&self) -> bool {
        self.now > FAULTS_END
            && self.store.all_ended()
            && self.clients.iter().all(|client| client.is_answered)
    }

    fn trace(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>7} {}", self.now - START, text());
        }
    }

    fn after(&mut self, wait: Millis, what: SimEvent) {
        self.ties += 1;
        let key = self.next;
        self.next += 1;
        self.whats.insert(key, what);
        self.events
            .push(Reverse((self.now + wait.max(0), self.ties, key)));
    }

    fn has_faults(&self) -> bool {
        self.now < FAULTS_END
    }

    /// Sends something over the bus: it may be lost, doubled or late.
    fn send(&mut self, what: SimEvent) {
        let copies = match self.rng.random_range(0..20) {
            0 if self.has_faults() => 0,
            1 if self.has_faults() => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let wait = self.delay();
            self.after(wait, what.clone());
        }
    }

    fn delay(&mut self) -> Millis {
        match self.rng.random_range(0..15) {
            0 if self.has_faults() => self.rng.random_range(100..4_000),
            _ => self.rng.random_range(0..5),
        }
    }

    fn id(&mut self) -> Uuid {
        let (a, b) = (self.rng.random::<u64>(), self.rng.random::<u64>());
        Uuid::from_u64_pair(a, b)
    }

    fn invent_run(&mut self) {
        let id = RunId::from_uuid(self.id());
        let shape = self.rng.random_range(0..plans::COUNT + 1);
        let plan = plans::plan(shape);
        let when = self.rng.random_range(0..20_000);
        let is_outside = plan.is_none();
        let create = CreateRun {
            run_id: id,
            mode: RunMode::Queue,
            plan,
            inputs: plans::inputs(),
            name: None,
            metadata: None,
            owner: None,
            retry_of: None,
            finished: BTreeMap::new(),
        };
        self.send_request(when, ClientRequest::Create(Box::new(create)));
        if self.rng.random_bool(0.15) {
            let later = when + self.rng.random_range(2_000..30_000);
            self.send_request(later, ClientRequest::Cancel(id));
        } else if is_outside {
            for count in 0..4 {
                let add = AddCheckpoint {
                    run_id: id,
                    checkpoint_id: CheckpointId::from_uuid(self.id()),
                    kind: format!("step {count}"),
                    data: None,
                    blob: None,
                };
                let later = when + self.rng.random_range(5_000..30_000);
                self.send_request(later, ClientRequest::Checkpoint(add));
            }
            self.send_request(when + 80_000, ClientRequest::Complete(id));
        }
        if let Ok(gate) = NodeId::parse("gate")
            && plans::has_gate(shape)
        {
            let later = when + self.rng.random_range(1_000..40_000);
            self.send_request(later, ClientRequest::Approve(id, gate));
        }
    }

    fn send_request(&mut self, when: Millis, request: ClientRequest) {
        self.clients.push(Client {
            request,
            is_answered: false,
            refusals: 0,
        });
        let client = self.clients.len() - 1;
        self.after(when, SimEvent::ClientAsks(client));
    }

    fn handle(&mut self, what: SimEvent) {
        match what {
            SimEvent::RunnerTick(runner, life) => self.runner_tick(runner, life),
            SimEvent::Request(requester, request) => self.deliver_request(&requester, &*request),
            SimEvent::Apply(runner, life, write) => self.apply(runner, life, write),
            SimEvent::Applied(runner, life, applied) => self.applied(runner, life, applied),
            SimEvent::Dispatch(runner, life, task) => {
                let key = self.rng.random();
                let visible_at = self.now;
                let event = Event::Dispatched(task.run_id, task.node_id.clone(), key);
                self.queue.push(Queued {
                    key,
                    task: *task,
                    visible_at,
                    delivered: 0,
                });
                self.task_finished(runner, life, event);
            }
            SimEvent::TaskMissing(runner, life, run, node, key) => {
                self.task_finished(runner, life, Event::TaskMissing(run, node, key));
            }
            SimEvent::WorkerTick(worker, life) => self.worker_tick(worker, life),
            SimEvent::Verdict(worker, life, report, verdict) => {
                self.verdict(worker, life, report, verdict);
            }
            SimEvent::CancelWorker(worker, run, node, attempt) => {
                self.workers[worker].cancel(run, &node, attempt);
            }
            SimEvent::ClientAsks(client) => self.client_asks(client),
            SimEvent::Answered(client, is_ok) => self.client_answered(client, is_ok),
            SimEvent::Fault => self.fault(),
        }
    }

    fn client_asks(&mut self, client: usize) {
        if self.clients[client].is_answered {
            return;
        }
        let request = self.clients[client].request.clone();
        self.send(SimEvent::Request(
            Requester::Client(client),
            Box::new(request),
        ));
        self.after(ASK_AGAIN, SimEvent::ClientAsks(client));
    }

    fn client_answered(&mut self, client: usize, is_ok: bool) {
        let created = |world: &Self, run: RunId| {
            world.clients.iter().any(|other| {
                other.is_answered
                    && matches!(&other.request, ClientRequest::Create(create) if create.run_id == run)
            })
        };
        let request = self.clients[client].request.clone();
        let is_answered = match &request {
            ClientRequest::Create(_) => is_ok,
            // Before the run is there, or the gate waits, the answer is no.
            ClientRequest::Approve(run, _)
            | ClientRequest::Cancel(run)
            | ClientRequest::Complete(run) => {
                is_ok || (created(self, *run) && self.store.has_ended(*run))
            }
            ClientRequest::Checkpoint(add) => is_ok || self.store.has_ended(add.run_id),
        };
        let client = &mut self.clients[client];
        client.refusals += u32::from(!is_ok);
        if is_answered && !client.is_answered {
            client.is_answered = true;
            if let (ClientRequest::Checkpoint(add), true) = (&request, is_ok) {
                self.rules.acknowledged(add.run_id, add.checkpoint_id);
            }
        }
    }

    /// Injects a fault.
    fn fault(&mut self) {
        if !self.has_faults() {
            return;
        }
        let next = self.rng.random_range(500..6_000);
        self.after(next, SimEvent::Fault);
        let away = self.rng.random_range(100..15_000);
        match self.rng.random_range(0..5) {
            0 | 1 => {
                let runner = self.rng.random_range(0..RUNNERS);
                self.trace(|| format!("runner {runner} crashes"));
                let life = self.runners[runner].crash();
                self.after(away, SimEvent::RunnerTick(runner, life));
            }
            2 => {
                let runner = self.rng.random_range(0..RUNNERS);
                self.trace(|| format!("runner {runner} freezes for {away}"));
                self.runners[runner].frozen_until = self.now + away;
            }
            3 => {
                let worker = self.rng.random_range(0..WORKERS);
                self.trace(|| format!("worker {worker} crashes"));
                let life = self.workers[worker].crash();
                self.after(away, SimEvent::WorkerTick(worker, life));
            }
            _ => {
                let worker = self.rng.random_range(0..WORKERS);
                self.trace(|| format!("worker {worker} freezes for {away}"));
                self.workers[worker].frozen_until = self.now + away;
            }
        }
    }

    /// Sends an answer to a client or a worker.
    fn answer(&mut self, requester: &Requester, answer: Answer) {
        let what = match (requester, answer) {
            (Requester::Client(client), Answer::Refused(_)) => SimEvent::Answered(*client, false),
            (Requester::Client(client), _) => SimEvent::Answered(*client, true),
            (Requester::Worker(worker, life, report), Answer::Reports(reply)) => {
                let mut verdicts = reply.verdicts;
                self.trace(|| format!("worker {worker}: report {report} is answered {verdicts:?}"));
                SimEvent::Verdict(*worker, *life, *report, verdicts.pop())
            }
            (Requester::Worker(..), other) => panic!("a worker was answered {other:?}"),
        };
        self.send(what);
    }
}
