//! The processes of workers: each is started by a task of its own, which waits for its end.
//!
//! Each is in a process group of its own, and none outlives this service: see [`quintet_worker::process`]. What it writes on
//! its standard error goes to our log, line by line; its standard output goes nowhere, since frames come another way.

use std::collections::{BTreeMap, HashMap};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use quintet_contract::id::WorkerId;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_worker::output::{Limiter, Line, LineSplitter, LogLimits};
use quintet_worker::process::{Group, Spawner, Started};
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::ProcessSpec;
use crate::core::Event;

/// The variable that holds the worker's id for a program.
const WORKER_ID: &str = "QUINTET_WORKER_ID";
/// Most bytes of a line of output that are logged.
const LONGEST_LINE: usize = 4096;
/// Bytes of output that are read at once.
const READ: usize = 8 * 1024;

/// Starts and ends the processes of workers.
pub(crate) struct Processes {
    specs: BTreeMap<WorkerId, Arc<ProcessSpec>>,
    spawner: Option<Spawner>,
    kill_grace: Duration,
    tasks: Tasks,
    events: mpsc::Sender<Event>,
    halts: HashMap<WorkerId, CancellationToken>,
}

impl Processes {
    pub(crate) fn new(
        specs: &[ProcessSpec],
        spawner: Option<Spawner>,
        kill_grace: Duration,
        tasks: Tasks,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let specs = specs
            .iter()
            .map(|spec| (spec.id.clone(), Arc::new(spec.clone())));
        Self {
            specs: specs.collect(),
            spawner,
            kill_grace,
            tasks,
            events,
            halts: HashMap::new(),
        }
    }

    /// Starts the process of a worker; its end, also that it could not be started, comes back as an event.
    pub(crate) fn run(&mut self, worker: &WorkerId) {
        let (Some(spec), Some(spawner)) = (self.specs.get(worker), &self.spawner) else {
            return;
        };
        let halt = self.tasks.token().child_token();
        self.halts.insert(worker.clone(), halt.clone());
        let (spec, spawner, events) = (spec.clone(), spawner.clone(), self.events.clone());
        let grace = self.kill_grace;
        let name = format!("process {worker}");
        self.tasks.spawn(&name, ExitPolicy::Optional, async move {
            live(&spec, &spawner, grace, &halt, &events).await;
            // No receiver is left when the service ends.
            let _ = events.send(Event::ProcessEnded(spec.id.clone())).await;
            Ok::<_, std::convert::Infallible>(())
        });
    }

    /// Ends the process of a worker.
    pub(crate) fn halt(&mut self, worker: &WorkerId) {
        if let Some(halt) = self.halts.remove(worker) {
            halt.cancel();
        }
    }
}

async fn live(
    spec: &ProcessSpec,
    spawner: &Spawner,
    grace: Duration,
    halt: &CancellationToken,
    events: &mpsc::Sender<Event>,
) {
    let started = spawner.spawn(command(spec), false).await;
    let Started { mut child, group } = match started {
        Ok(started) => started,
        Err(error) => {
            warn!(worker = %spec.id, program = ?spec.command.first(), %error, "cannot start the process of a worker");
            return;
        }
    };
    info!(worker = %spec.id, pid = ?child.id(), "started the process of a worker");
    let _ = events.send(Event::ProcessStarted(spec.id.clone())).await;
    let errors = child.stderr.take();
    let logging = async {
        if let Some(errors) = errors {
            log_lines(&spec.id, errors).await;
        }
    };
    let living = run_until(&mut child, &group, grace, halt);
    let ended = tokio::select! {
        biased;
        ended = living => ended,
        // Its pipe is closed, but it keeps running.
        ((), ended) = async {
            logging.await;
            ((), std::future::pending::<std::io::Result<std::process::ExitStatus>>().await)
        } => ended,
    };
    match ended {
        Ok(status) => info!(worker = %spec.id, %status, "the process of a worker ended"),
        Err(error) => {
            warn!(worker = %spec.id, %error, "waiting for the process of a worker failed")
        }
    }
}

fn command(spec: &ProcessSpec) -> Command {
    let (program, arguments) = spec
        .command
        .split_first()
        .expect("the configuration was checked");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(&spec.environment)
        .env(WORKER_ID, spec.id.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if let Some(directory) = &spec.directory {
        command.current_dir(directory);
    }
    command
}

/// Waits until a process has ended; ends it on request.
async fn run_until(
    child: &mut Child,
    group: &Group,
    grace: Duration,
    halt: &CancellationToken,
) -> std::io::Result<std::process::ExitStatus> {
    tokio::select! {
        biased;
        () = halt.cancelled() => {}
        ended = child.wait() => return ended,
    }
    group.signal(Signal::TERM);
    if let Ok(ended) = timeout(grace, child.wait()).await {
        return ended;
    }
    group.signal(Signal::KILL);
    child.wait().await
}

/// Writes lines to our log, as many as its limits allow.
async fn log_lines(worker: &WorkerId, mut output: impl AsyncRead + Unpin) {
    let mut limiter = Limiter::new(LogLimits::default(), Instant::now());
    let mut lines = LineSplitter::new(LONGEST_LINE);
    let mut buffer = vec![0; READ];
    let mut log = |line: Line<'_>| {
        let text = line.text(LONGEST_LINE);
        if limiter.allows(text.len(), Instant::now()) {
            info!(%worker, line = %text, "output of a worker's process");
        }
    };
    loop {
        match output.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => lines.feed(&buffer[..read], &mut log),
        }
    }
    lines.finish(&mut log);
}
