//! The driver of a run worker: its queues, its commands, its heartbeats, and its end.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::try_join_all;
use quintet_bus::{Bus, Pull, Pulled, QueueError, Requests};
use quintet_contract::api::Done;
use quintet_contract::id::QueueName;
use quintet_contract::subject::CommandWorker;
use quintet_contract::task::WorkerCommand;
use quintet_contract::worker::{WorkerHeartbeat, WorkerKind, WorkerLoad};
use quintet_service::health::ComponentHandle;
use quintet_service::telemetry::chain;
use quintet_worker::process::Spawner;
use quintet_worker::task::{InFlight, Outboxes};
use quintet_worker::{Announce, Slots, this_program};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::command::CommandHandler;
use crate::config::RunWorkerConfig;
use crate::error::Error;
use crate::handler::Handler;
use crate::metrics;
use crate::task_run::{Worker, run_task};

/// First wait before a queue that could not be opened is tried again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long the last reports may take to be sent.
const LAST_REPORTS: Duration = Duration::from_secs(1);

/// Does tasks of nodes of kind `command` until `shutdown` is cancelled and every task in flight has ended or was
/// returned to the queue.
///
/// Fails only when the machine or the bus refuses what it cannot work without; everything that may pass is tried again.
pub async fn run(
    config: RunWorkerConfig,
    bus: Bus,
    health: ComponentHandle,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let spawner = Spawner::start(config.reaper.as_deref(), config.environment.clone())?;
    let handler = CommandHandler::new(&config, spawner).await?;
    serve(config, handler, bus, health, shutdown).await
}

/// Lets a handler do the tasks of the configured queues, in this process. For the rest as [`run`]; when its future is
/// dropped everything stops at once, and tasks in flight are redelivered to another worker after the acknowledgement
/// time.
pub async fn serve<H: Handler>(
    config: RunWorkerConfig,
    handler: H,
    bus: Bus,
    health: ComponentHandle,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let filter = CommandWorker::filter(bus.prefix(), Some(&config.worker));
    let commands = bus
        .serve::<CommandWorker>(filter, None)
        .await
        .map_err(|source| Error::Subscribe { source })?;
    let in_flight = Arc::new(InFlight::default());
    let mut services = JoinSet::new();
    let outboxes = Outboxes::start(&bus, &mut services);
    let slots = Slots::new(config.slots, metrics::slots_used());
    let announce = announce(&config, &slots, &in_flight);
    let (drain_grace, queues) = (config.drain_grace, config.queues.clone());
    let draining = watch::Sender::new(false);
    services.spawn(handle_commands(
        commands,
        in_flight.clone(),
        draining.clone(),
        announce.clone(),
    ));
    let worker = Arc::new(Worker {
        config,
        handler,
        outboxes,
        in_flight: in_flight.clone(),
        draining,
        closing: shutdown.clone(),
    });
    let open = async {
        let opened = queues
            .iter()
            .map(|queue| open(&bus, queue, worker.config.task_ack_wait, &health));
        futures::future::join_all(opened).await
    };
    let pulls = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(()),
        pulls = open => pulls,
    };
    health.ready();
    let name = worker.config.worker.clone();
    info!(worker = %name, ?queues, slots = worker.config.slots, "run worker started");
    let left = CancellationToken::new();
    services.spawn(keep_announced(
        announce.clone(),
        bus.clone(),
        slots.clone(),
        left.clone(),
    ));
    let server = QueueServer {
        worker: &worker,
        bus: &bus,
        slots: &slots,
        shutdown: &shutdown,
    };
    let serving = pulls
        .into_iter()
        .zip(&queues)
        .map(|(pull, queue)| server.serve(queue, pull));
    let drain = async {
        shutdown.cancelled().await;
        announce.update(|heartbeat| heartbeat.draining = true);
        sleep(drain_grace).await;
        in_flight.stop_all();
        std::future::pending::<()>().await;
    };
    let served = tokio::select! {
        biased;
        served = try_join_all(serving) => served,
        () = drain => Ok(Vec::new()),
    };
    info!(worker = %name, "run worker left");
    // Its goodbye is sent beside the last reports.
    left.cancel();
    // The outboxes end when nothing can be reported any more; commands only with the connection.
    drop(worker);
    let last = async { while services.len() > 1 && services.join_next().await.is_some() {} };
    if timeout(LAST_REPORTS, last).await.is_err() {
        warn!("some reports were not sent before the end");
    }
    served.map(|_| ())
}

/// What it announces: its load and its tasks are read for every heartbeat.
fn announce(config: &RunWorkerConfig, slots: &Slots, in_flight: &Arc<InFlight>) -> Announce {
    let heartbeat = WorkerHeartbeat {
        queues: config.queues.clone(),
        ..this_program(config.name.clone(), env!("CARGO_PKG_VERSION"))
    };
    let (slots, in_flight) = (slots.clone(), in_flight.clone());
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Announce::with(
        WorkerKind::Run,
        config.worker.clone(),
        heartbeat,
        config.announce_interval,
        move |heartbeat| {
            heartbeat.load = Some(WorkerLoad {
                slots: count(slots.count()),
                used: count(slots.used()),
            });
            heartbeat.work = in_flight.work();
        },
    )
}

/// Announces the worker until it has left.
async fn keep_announced(announce: Announce, bus: Bus, slots: Slots, left: CancellationToken) {
    let mut free = slots.free();
    let load_changes = async {
        // Never fails: the slots are held.
        while free.changed().await.is_ok() {
            announce.changed();
        }
    };
    // Cancel-safe: the watch is not used again.
    tokio::select! {
        biased;
        () = announce.run(&bus, &left) => {}
        () = load_changes => {}
    }
}

/// Opens a queue, trying again until it works.
async fn open(bus: &Bus, queue: &QueueName, ack_wait: Duration, health: &ComponentHandle) -> Pull {
    let mut wait = RETRY_MIN;
    loop {
        let opened: Result<Pull, QueueError> = async {
            bus.ensure_queue(queue, ack_wait).await?;
            bus.pull(queue).await
        }
        .await;
        match opened {
            Ok(pull) => return pull,
            Err(error) => {
                let reason = chain(&error).to_string();
                warn!(%queue, error = reason, "cannot open a queue yet");
                health.not_ready(reason);
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// What all queues of a worker are served with.
struct QueueServer<'w, H> {
    worker: &'w Arc<Worker<H>>,
    bus: &'w Bus,
    slots: &'w Slots,
    shutdown: &'w CancellationToken,
}

impl<H: Handler> QueueServer<'_, H> {
    /// Takes tasks from a queue as long as there are slots and it is not drained; at the end waits for those in flight.
    async fn serve(&self, queue: &QueueName, pull: Pull) -> Result<(), Error> {
        let mut running = JoinSet::new();
        let mut free = self.slots.free();
        let mut draining = self.worker.draining.subscribe();
        // None while it is drained: what NATS had sent for the pull was returned to the queue.
        let mut pull = Some(pull);
        loop {
            let is_draining = *draining.borrow_and_update();
            match pull.take() {
                Some(open) if is_draining => open.close().await,
                // Fails only when the connection is closed.
                None if !is_draining => {
                    let opened = self.bus.pull(queue).await;
                    pull = Some(opened.map_err(|_| Error::BusClosed)?);
                }
                unchanged => pull = unchanged,
            }
            let room = *free.borrow_and_update();
            let next = async {
                match &mut pull {
                    Some(pull) => pull.next(room).await,
                    None => std::future::pending().await,
                }
            };
            // Every branch is cancel-safe: a token, a set of tasks, watches, a pull.
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                Some(ended) = running.join_next(), if !running.is_empty() => check(ended),
                Ok(()) = free.changed() => {}
                Ok(()) = draining.changed() => {}
                pulled = next => match pulled {
                    Some(pulled) => self.begin(pulled, &mut running).await,
                    None => return Err(Error::BusClosed),
                },
            }
        }
        if let Some(pull) = pull {
            pull.close().await;
        }
        while let Some(ended) = running.join_next().await {
            check(ended);
        }
        Ok(())
    }

    /// Begins a task; one that came although another queue took the last slot is returned to its queue.
    async fn begin(&self, pulled: Pulled, running: &mut JoinSet<()>) {
        match self.slots.take() {
            Some(slot) => drop(running.spawn(run_task(self.worker.clone(), pulled, slot))),
            None => pulled.held.nak().await,
        }
    }
}

/// The run of a task ends by itself; handlers that panic are caught in it.
fn check(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

async fn handle_commands(
    mut commands: Requests<CommandWorker>,
    in_flight: Arc<InFlight>,
    draining: watch::Sender<bool>,
    announce: Announce,
) {
    while let Some(request) = commands.next().await {
        match request.message {
            WorkerCommand::Cancel {
                run_id,
                node_id,
                attempt,
            } => in_flight.cancel(run_id, node_id, attempt),
            WorkerCommand::Drain { drain } => {
                info!(drain, "draining changed");
                draining.send_replace(drain);
                announce.update(|heartbeat| heartbeat.draining = drain);
            }
            WorkerCommand::Unknown => warn!("received a command of a newer version"),
        }
        request.responder.ok(&Done { ok: true }).await;
    }
}
