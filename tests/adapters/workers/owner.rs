//! A runner reduced to what a run worker sees of one, and a worker to go with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use quintet_bus::{Bus, BusConfig, new_run_id};
use quintet_contract::JsonObject;
use quintet_contract::api::Done;
use quintet_contract::event::LogStream;
use quintet_contract::id::{NodeId, QueueName, RunId, RunShard, WorkerId};
use quintet_contract::job::Attempt;
use quintet_contract::subject::{CommandWorker, RunReporting, Subject, TaskQueue};
use quintet_contract::task::{
    CommandSpec, RunReport, RunReports, RunReportsReply, Task, Verdict, WorkerCommand, WorkerEvent,
    command_queue,
};
use quintet_service::health::Health;
use quintet_testkit::{Nats, wait_for};
use quintet_workers::{Error, Handler, RunWorkerConfig, run, serve};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// A short time until a task is redelivered to another worker.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(1);

/// An owner and its NATS, and workers as the test starts them.
pub(crate) struct Fixture {
    pub(crate) nats: Nats,
    pub(crate) bus: Bus,
    pub(crate) folder: TempDir,
    owner: Arc<Mutex<Owner>>,
    serving: JoinSet<()>,
}

/// A worker that runs; dropped, it ends without a goodbye.
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

/// What the owner knows.
#[derive(Default)]
struct Owner {
    nodes: BTreeMap<NodeId, Node>,
    /// Every report in the order in which it came, repetitions included.
    received: Vec<RunReport>,
    messages: Vec<usize>,
    is_deaf: bool,
}

#[derive(Clone, Default)]
struct Node {
    attempt: u32,
    worker: Option<WorkerId>,
    seq: u64,
    resume_state: Option<Value>,
    heartbeat_ms: Option<u64>,
    output: JsonObject,
    facts: Vec<(u32, WorkerEvent)>,
    ended: bool,
}

pub(crate) async fn connect(url: &str) -> Bus {
    let config = BusConfig::open(url, "test");
    let bus = Bus::connect(config).await.unwrap();
    bus.ensure_topology().await.unwrap();
    bus
}

pub(crate) fn node(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

impl Owner {
    /// The answer that the runner would give, by the same rules.
    fn judge(&mut self, report: RunReport) -> Verdict {
        self.received.push(report.clone());
        let gone = |reason: &str| Verdict::Gone {
            reason: reason.to_owned(),
        };
        let Some(node) = self.nodes.get_mut(&report.node_id) else {
            return gone("there is no such node");
        };
        if node.ended {
            return gone("it has ended");
        }
        if let WorkerEvent::Take { .. } = report.event {
            if node.worker.as_ref() != Some(&report.worker) || node.seq > 0 {
                node.attempt += 1;
                node.worker = Some(report.worker);
                node.seq = 0;
            }
            return Verdict::Granted {
                attempt: Attempt(node.attempt),
                resume_state: node.resume_state.clone(),
                heartbeat_ms: node.heartbeat_ms,
            };
        }
        if report.attempt.0 != node.attempt || Some(report.worker) != node.worker {
            return gone("another attempt has begun");
        }
        if let WorkerEvent::Heartbeat = report.event {
            return Verdict::Ok;
        }
        if report.seq <= node.seq {
            return Verdict::Ok;
        }
        node.seq = report.seq;
        match &report.event {
            WorkerEvent::Checkpoint { data, .. } => node.resume_state.clone_from(data),
            WorkerEvent::Output { data } => node.output.extend(data.clone()),
            WorkerEvent::Succeeded { output } => {
                node.output.extend(output.clone().unwrap_or_default());
                node.ended = true;
            }
            WorkerEvent::Failed { .. } => node.ended = true,
            _ => {}
        }
        node.facts.push((node.attempt, report.event));
        Verdict::Ok
    }
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        let nats = Nats::start().await.unwrap();
        let bus = connect(&nats.url()).await;
        let mut fixture = Self {
            nats,
            bus,
            folder: TempDir::new().unwrap(),
            owner: Arc::default(),
            serving: JoinSet::new(),
        };
        fixture.serve().await;
        fixture
    }

    async fn serve(&mut self) {
        let filter = RunReporting::filter(self.bus.prefix(), None);
        let mut reports = self.bus.serve::<RunReporting>(filter, None).await.unwrap();
        let owner = self.owner.clone();
        self.serving.spawn(async move {
            while let Some(request) = reports.next().await {
                let RunReports { reports } = request.message;
                let verdicts = {
                    let mut owner = owner.lock().unwrap();
                    owner.messages.push(reports.len());
                    let judged = reports.into_iter().map(|report| owner.judge(report));
                    judged.collect()
                };
                let is_deaf = owner.lock().unwrap().is_deaf;
                if is_deaf {
                    // The answer is lost in transit, though everything was stored.
                    std::mem::forget(request.responder);
                    continue;
                }
                request.responder.ok(&RunReportsReply { verdicts }).await;
            }
        });
        self.bus.flush().await.unwrap();
    }

    /// Answers nothing any more, as if no runner led.
    pub(crate) async fn fall_silent(&mut self) {
        self.serving.shutdown().await;
        self.bus.flush().await.unwrap();
    }

    pub(crate) async fn speak_again(&mut self) {
        self.serve().await;
    }

    /// Stores everything and answers nothing, or answers again.
    pub(crate) fn lose_answers(&self, lose: bool) {
        self.owner.lock().unwrap().is_deaf = lose;
    }

    pub(crate) fn config(&self, id: &str) -> RunWorkerConfig {
        let mut config = RunWorkerConfig::new(WorkerId::parse(id).unwrap());
        config.slots = 4;
        config.work_dir = self.folder.path().join("runs");
        config.kill_grace = Duration::from_millis(500);
        config.drain_grace = Duration::from_millis(300);
        config.task_ack_wait = ACK_WAIT;
        config.reaper = Some(quintet_tests::binary());
        config
    }

    /// A worker that runs programs.
    pub(crate) async fn worker(&self, id: &str) -> Worker {
        self.worker_with(self.config(id)).await
    }

    pub(crate) async fn worker_with(&self, config: RunWorkerConfig) -> Worker {
        let (id, shutdown) = (config.worker.clone(), CancellationToken::new());
        let bus = connect(&self.nats.url()).await;
        let health = Health::new("test").component("run worker");
        let running = tokio::spawn(run(config, bus, health, shutdown.clone()));
        Worker {
            id,
            shutdown,
            running,
        }
    }

    /// A worker that does tasks in this process.
    pub(crate) async fn worker_of(&self, config: RunWorkerConfig, handler: impl Handler) -> Worker {
        let (id, shutdown) = (config.worker.clone(), CancellationToken::new());
        let bus = connect(&self.nats.url()).await;
        let health = Health::new("test").component("run worker");
        let running = tokio::spawn(serve(config, handler, bus, health, shutdown.clone()));
        Worker {
            id,
            shutdown,
            running,
        }
    }

    /// A node whose task is in the queue of commands; `script` is run by a shell.
    pub(crate) async fn shell(&self, name: &str, script: &str) -> RunId {
        self.shell_with(name, script, |_| {}).await
    }

    pub(crate) async fn shell_with(
        &self,
        name: &str,
        script: &str,
        change: impl FnOnce(&mut Task),
    ) -> RunId {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let command = CommandSpec {
            argv,
            ..CommandSpec::default()
        };
        let change = |task: &mut Task| {
            task.command = Some(command);
            change(task);
        };
        self.task(name, command_queue(), None, change).await
    }

    /// A node with its task in a queue.
    pub(crate) async fn task(
        &self,
        name: &str,
        queue: QueueName,
        heartbeat_ms: Option<u64>,
        change: impl FnOnce(&mut Task),
    ) -> RunId {
        let run_id = new_run_id();
        let shard = RunShard::of(run_id);
        let mut task = Task {
            run_id,
            node_id: node(name),
            report_to: RunReporting { shard }.render(self.bus.prefix()),
            input: None,
            command: None,
            inputs: JsonObject::new(),
            context: JsonObject::new(),
            traceparent: None,
        };
        change(&mut task);
        let known = Node {
            heartbeat_ms,
            ..Node::default()
        };
        self.owner.lock().unwrap().nodes.insert(node(name), known);
        self.send(queue, &task).await;
        run_id
    }

    pub(crate) async fn send(&self, queue: QueueName, task: &Task) {
        let body = quintet_bus::encode(task, quintet_bus::Encoding::Json).unwrap();
        assert_eq!(body.first(), Some(&b'{'), "tasks are JSON");
        let stored = self.bus.store(&TaskQueue { queue }, task, None).await;
        stored.unwrap().await.unwrap();
    }

    /// Commands a worker to stop an attempt.
    pub(crate) async fn cancel(&self, worker: &Worker, run_id: RunId, name: &str, attempt: u32) {
        let command = WorkerCommand::Cancel {
            run_id,
            node_id: node(name),
            attempt: Attempt(attempt),
        };
        let worker = worker.id.clone();
        let subject = CommandWorker { worker };
        let done = self.bus.request_until(&subject, &command, TIMEOUT).await;
        assert_eq!(done.unwrap(), Done { ok: true });
    }

    /// The node has ended for the owner: whatever comes of it now is answered `gone`.
    pub(crate) fn end(&self, name: &str) {
        self.with(name, |node| node.ended = true);
    }

    fn with<T>(&self, name: &str, change: impl FnOnce(&mut Node) -> T) -> T {
        let mut owner = self.owner.lock().unwrap();
        change(owner.nodes.get_mut(&node(name)).unwrap())
    }

    /// Everything stored of a node, with the attempt of each.
    pub(crate) fn facts(&self, name: &str) -> Vec<(u32, WorkerEvent)> {
        self.with(name, |node| node.facts.clone())
    }

    pub(crate) fn output(&self, name: &str) -> JsonObject {
        self.with(name, |node| node.output.clone())
    }

    pub(crate) fn attempt(&self, name: &str) -> u32 {
        self.with(name, |node| node.attempt)
    }

    /// How many reports of a kind came of a node, repetitions included.
    pub(crate) fn received(&self, name: &str, wanted: impl Fn(&WorkerEvent) -> bool) -> usize {
        let owner = self.owner.lock().unwrap();
        let of_node = owner
            .received
            .iter()
            .filter(|report| report.node_id == node(name));
        of_node.filter(|report| wanted(&report.event)).count()
    }

    /// How many reports each message held.
    pub(crate) fn messages(&self) -> Vec<usize> {
        self.owner.lock().unwrap().messages.clone()
    }

    /// The lines that were stored of a node.
    pub(crate) fn log(&self, name: &str) -> Vec<(LogStream, String)> {
        let facts = self.facts(name).into_iter();
        let lines = facts.filter_map(|(_, event)| match event {
            WorkerEvent::Log { stream, line } => Some((stream, line)),
            _ => None,
        });
        lines.collect()
    }

    /// Waits for a line of output of a node.
    pub(crate) async fn logged(&self, name: &str, wanted: &str) {
        let what = format!("the line {wanted:?} of {name}");
        let logged = wait_for(&what, TIMEOUT, async || {
            let log = self.log(name);
            let found = log.iter().any(|(_, line)| line.contains(wanted));
            found.then_some(()).ok_or(format!("{log:?}"))
        });
        logged.await.unwrap();
    }

    /// Waits for the end of a node; the failure with whether it may be tried again, if it failed.
    pub(crate) async fn ended(&self, name: &str) -> Option<(String, bool)> {
        let what = format!("the end of {name}");
        let ended = wait_for(&what, TIMEOUT, async || {
            let facts = self.facts(name);
            match facts.last() {
                Some((_, WorkerEvent::Succeeded { .. })) => Ok(None),
                Some((_, WorkerEvent::Failed { error, retryable })) => {
                    Ok(Some((error.clone(), *retryable)))
                }
                other => Err(format!("{other:?}")),
            }
        });
        ended.await.unwrap()
    }

    /// Waits until a queue holds nothing, neither pending nor in flight.
    pub(crate) async fn until_empty(&self, queue: &QueueName) {
        let empty = wait_for("an empty queue", TIMEOUT, async || {
            let state = self.bus.queue_state(queue).await.unwrap().unwrap();
            let is_empty = state.ack_pending == 0 && state.pending == 0;
            is_empty.then_some(()).ok_or(format!("{state:?}"))
        });
        empty.await.unwrap();
    }
}

impl Worker {
    /// Asks it to end, and waits for that.
    pub(crate) async fn shut_down(mut self) {
        self.shutdown.cancel();
        let running = &mut self.running;
        let ended = tokio::time::timeout(TIMEOUT, running).await;
        ended.expect("an end in time").unwrap().unwrap();
    }

    /// Ends it without giving it time for anything.
    pub(crate) async fn kill(mut self) {
        self.running.abort();
        assert!((&mut self.running).await.unwrap_err().is_cancelled());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.running.abort();
    }
}
