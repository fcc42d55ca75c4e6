//! The life of a scheduler: waits for the lease, loads everything, leads, and begins again when it is not sure what is
//! stored. The only select! is here.
//!
//! A group commit: everything that is waiting is taken in, the core steps for each, all records that changed are written
//! at once, and only then is anything said or sent. Several commits may be on their way, as long as no record is in two of
//! them; what follows from them is done in their order.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::ReadyChunks;
use futures::{FutureExt, StreamExt};
use quintet_bus::pending::PendingReplies;
use quintet_bus::{Bus, Change, HeldLease, KvError, Loaded, Watch, WatchFrom, now, run_blocking};
use quintet_contract::bucket::{Agents, Jobs, LeaseKey, Templates};
use quintet_contract::id::PoolName;
use quintet_contract::time::Timestamp;
use quintet_service::health::ComponentHandle;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_service::telemetry::chain;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::SchedulerConfig;
use crate::core::{Core, Effect, Event, Sizes, Stored, Terms};
use crate::desk;
use crate::error::Error;
use crate::inbound::{Inbound, Inbox, refusal};
use crate::metrics;
use crate::outbound::{self, Commit, Outbound, Unsure};
use crate::templates;

/// Life of the lease; after a kill, another scheduler leads so much later.
const LEASE: Duration = Duration::from_secs(2);
/// Messages taken into one commit at most.
const COMMIT_MESSAGES: usize = 1024;
/// Wait before everything is loaded again after a failure.
const RELOAD_PAUSE: Duration = Duration::from_millis(200);
/// A candidate that was not refused for so long can try for the lease.
const TRIED: Duration = Duration::from_secs(2);
/// How long the services beside the loop may take to end.
const END: Duration = Duration::from_secs(2);
/// How often the gauges are written.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

/// Why a scheduler stopped leading.
enum End {
    /// It was asked to.
    Shutdown,
    /// Somebody else may lead now.
    Deposed,
    /// It may still lead, but must load everything again.
    Unsure(Unsure),
}

/// Time for the core: the wall clock at the start, then only forward, whatever is done to the wall clock.
#[derive(Clone, Copy)]
struct Clock {
    wall: Timestamp,
    start: Instant,
}

impl Clock {
    fn start() -> Self {
        Self {
            wall: now(),
            start: Instant::now(),
        }
    }

    fn now(self) -> Timestamp {
        self.wall.after(self.start.elapsed())
    }

    fn instant(self, at: Timestamp) -> Instant {
        // Timers are late rather than early: a millisecond is all that a timestamp knows.
        self.start + at.since(self.wall) + Duration::from_millis(1)
    }
}

/// Runs a scheduler until `shutdown` is cancelled: leads its pool, or waits to.
///
/// Fails only when the bus refuses what it cannot work without; everything that may pass is tried again.
pub async fn run(
    config: SchedulerConfig,
    bus: Bus,
    health: ComponentHandle,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let tasks = Tasks::new("scheduler");
    let serving = templates::serve(bus.clone(), tasks.token());
    tasks.spawn("templates", ExitPolicy::Essential, serving);
    let (pool, token) = (config.pool.clone(), tasks.token());
    let attending = desk::attend(bus.clone(), pool, health.clone(), token);
    tasks.spawn("desk", ExitPolicy::Essential, attending);
    let outcome = tokio::select! {
        biased;
        outcome = reign(&config, &bus, &health, &shutdown) => outcome,
        end = tasks.wait() => {
            warn!(error = %chain(&end), "a service of the scheduler ended");
            Ok(())
        }
    };
    metrics::leading(false);
    let report = tasks.shutdown(END).await;
    if !report.is_clean() {
        warn!(aborted = ?report.aborted, "some services did not end in time");
    }
    outcome
}

/// Leads whenever it can.
async fn reign(
    config: &SchedulerConfig,
    bus: &Bus,
    health: &ComponentHandle,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let mut candidate = bus.lease(
        LeaseKey::Scheduler(config.pool.clone()),
        config.holder.clone(),
        LEASE,
    );
    health.ready();
    // Lives while the lease cannot be tried for.
    let mut search = None;
    loop {
        let mut lease = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            held = candidate.acquire() => match held {
                Ok(lease) => lease,
                Err(error) => {
                    if search.is_none() {
                        health.not_ready("the bucket of leases is missing, or most of the cluster of NATS is away");
                        warn!(error = %chain(&error), "cannot try for the lease");
                        search = Some(bus.server_failover());
                    }
                    sleep(RELOAD_PAUSE).await;
                    continue;
                }
            },
            // It can be tried for again, and somebody else has it.
            () = sleep(TRIED), if search.is_some() => {
                search = None;
                health.ready();
                continue;
            }
        };
        search = None;
        // Whoever can take the lease may still be unable to write elsewhere; then the desk has said so.
        if bus.unwritable().borrow().is_empty() {
            health.ready();
        }
        metrics::leading(true);
        let end = hold(config, bus, &mut lease, shutdown).await?;
        metrics::leading(false);
        match end {
            End::Shutdown => {
                lease.release().await;
                return Ok(());
            }
            End::Deposed | End::Unsure(_) => info!(pool = %config.pool, "leads no longer"),
        }
    }
}

/// Leads as long as the lease is held, loading everything anew as often as needed.
async fn hold(
    config: &SchedulerConfig,
    bus: &Bus,
    lease: &mut HeldLease,
    shutdown: &CancellationToken,
) -> Result<End, Error> {
    let mut unwritable = bus.unwritable();
    while lease.is_held() {
        // What is loaded now could not be changed; meanwhile the desk says so to everybody.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(End::Shutdown),
            () = lease.lost() => return Ok(End::Deposed),
            // An error means that the connection is gone for good, which ends everything else as well.
            _ = unwritable.wait_for(BTreeSet::is_empty) => {}
        }
        let loaded = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(End::Shutdown),
            () = lease.lost() => return Ok(End::Deposed),
            loaded = load(config, bus) => loaded,
        };
        let unsure = match loaded {
            Ok(start) => match lead(config, bus, lease, shutdown, start).await? {
                End::Unsure(unsure) => unsure,
                end => return Ok(end),
            },
            Err(error) => Unsure::Write(error),
        };
        metrics::reloaded();
        warn!(error = %chain(&unsure), pool = %config.pool, "loads everything again");
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(End::Shutdown),
            () = sleep(RELOAD_PAUSE) => {}
        }
    }
    Ok(End::Deposed)
}

/// Everything that a leader starts from.
struct Start {
    core: Core,
    clock: Clock,
    /// What the core wants done first.
    first: Vec<Effect>,
    outbound: Outbound,
    templates: Watch<Templates>,
}

async fn load(config: &SchedulerConfig, bus: &Bus) -> Result<Start, KvError> {
    let began = Instant::now();
    let templates = bus.bucket::<Templates>();
    let (jobs, agents) = (bus.bucket::<Jobs>(), bus.bucket::<Agents>());
    let (jobs, agents, stored) = futures::try_join!(jobs.load(), agents.load(), templates.load())?;
    let templates = templates.watch(WatchFrom::After(stored.last)).await?;
    let (terms, bus, clock) = (terms(config), bus.clone(), Clock::start());
    let restoring = move || {
        let outbound = Outbound::new(bus, &jobs, &agents);
        let stored = stored_of(&terms.pool, jobs, agents, stored);
        let (core, first) = Core::restore(terms, stored, clock.now());
        (outbound, core, first)
    };
    let (outbound, core, first) = run_blocking(restoring).await;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Sizes { jobs, agents, .. } = core.sizes();
    info!(pool = %config.pool, jobs, agents, took_ms, "loaded the pool");
    Ok(Start {
        core,
        clock,
        first,
        outbound,
        templates,
    })
}

/// What belongs to a pool.
fn stored_of(
    pool: &PoolName,
    jobs: Loaded<Jobs>,
    agents: Loaded<Agents>,
    templates: Loaded<Templates>,
) -> Stored {
    let jobs = jobs.entries.into_iter().map(|(_, found)| found.record);
    let agents = agents.entries.into_iter().map(|(_, found)| found.record);
    let templates = templates.entries.into_iter().map(|(_, found)| found.record);
    Stored {
        jobs: jobs.filter(|record| record.job.pool == *pool).collect(),
        agents: agents.filter(|record| record.agent.pool == *pool).collect(),
        templates: templates.collect(),
    }
}

/// A scheduler that leads.
struct Leader<'a> {
    core: Core,
    clock: Clock,
    outbound: Outbound,
    pending: PendingReplies,
    lease: &'a mut HeldLease,
    unwritable: watch::Receiver<BTreeSet<String>>,
}

/// What woke the loop.
enum Wake {
    Shutdown,
    Deposed,
    Unwritable,
    Events(Vec<Event>),
    Messages(Vec<Inbound>),
    Template(Option<Result<Change<Templates>, KvError>>),
    Stored(Result<outbound::Stored, KvError>),
    Due,
    BusEnded,
}

async fn lead(
    config: &SchedulerConfig,
    bus: &Bus,
    lease: &mut HeldLease,
    shutdown: &CancellationToken,
    start: Start,
) -> Result<End, Error> {
    let Start {
        core,
        clock,
        first,
        outbound,
        templates,
    } = start;
    let inbox = Inbox::open(bus, &config.pool).await?;
    let unwritable = bus.unwritable();
    let mut leader = Leader {
        core,
        clock,
        outbound,
        pending: PendingReplies::default(),
        lease,
        unwritable,
    };
    let Inbox { micros, messages } = inbox;
    let mut messages = messages.ready_chunks(COMMIT_MESSAGES);
    let end = match leader.conclude(first).await {
        Ok(()) => leader.go_on(&mut messages, templates, shutdown).await,
        Err(unsure) => End::Unsure(unsure),
    };
    let why = refusal(&leader.unwritable.borrow());
    leader.pending.reject_all(&why).await;
    Inbox {
        micros,
        messages: messages.into_inner(),
    }
    .close(&why)
    .await;
    Ok(end)
}

type Messages =
    ReadyChunks<futures::stream::SelectAll<futures::stream::BoxStream<'static, Inbound>>>;

impl Leader<'_> {
    async fn go_on(
        &mut self,
        messages: &mut Messages,
        mut templates: Watch<Templates>,
        shutdown: &CancellationToken,
    ) -> End {
        let mut gauges_at = Instant::now();
        loop {
            if gauges_at <= Instant::now() {
                metrics::sizes(self.core.sizes());
                gauges_at = Instant::now() + GAUGES_EVERY;
            }
            let due = self.core.next_due().map(|at| self.clock.instant(at));
            let due = due.map_or(gauges_at, |due| due.min(gauges_at));
            // Each branch is cancel-safe: streams and work keep what they were not asked for.
            let wake = tokio::select! {
                biased;
                () = shutdown.cancelled() => Wake::Shutdown,
                () = self.lease.lost() => Wake::Deposed,
                Ok(_) = self.unwritable.wait_for(|buckets| !buckets.is_empty()) => Wake::Unwritable,
                Some(stored) = self.outbound.commits.next(), if !self.outbound.commits.is_empty() => {
                    Wake::Stored(stored)
                }
                Some(event) = self.outbound.work.next(), if !self.outbound.work.is_empty() => {
                    Wake::Events(event.into_iter().collect())
                }
                change = templates.next() => Wake::Template(change),
                chunk = messages.next() => chunk.map_or(Wake::BusEnded, Wake::Messages),
                () = sleep_until(due) => Wake::Due,
            };
            let mut events = Vec::new();
            match wake {
                Wake::Shutdown => return self.finish().await,
                Wake::Stored(stored) => {
                    if let Err(unsure) = self.go_on_after(stored).await {
                        return End::Unsure(unsure);
                    }
                    continue;
                }
                Wake::Unwritable => return End::Unsure(Unsure::Unwritable),
                Wake::Deposed | Wake::BusEnded => return End::Deposed,
                Wake::Events(done) => events.extend(done),
                Wake::Messages(chunk) => {
                    events.extend(chunk.into_iter().map(|inbound| self.pending.enter(inbound)))
                }
                Wake::Template(Some(Ok(change))) => events.extend(template_event(change)),
                Wake::Template(Some(Err(error))) => return End::Unsure(error.into()),
                Wake::Template(None) => return End::Deposed,
                Wake::Due => {}
            }
            // Group commit: whatever else is there already goes along.
            while let Some(Some(event)) = self.outbound.work.next().now_or_never() {
                events.extend(event);
            }
            if let Some(Some(chunk)) = messages.next().now_or_never() {
                events.extend(chunk.into_iter().map(|inbound| self.pending.enter(inbound)));
            }
            if let Err(unsure) = self.take_in(events).await {
                return End::Unsure(unsure);
            }
        }
    }

    async fn take_in(&mut self, events: Vec<Event>) -> Result<(), Unsure> {
        let now = self.clock.now();
        let mut effects = Vec::new();
        for event in events {
            effects.extend(self.core.step(event, now));
        }
        effects.extend(self.core.settle(now));
        self.conclude(effects).await
    }

    /// Begins to store what changed; the rest is done once it is stored.
    async fn conclude(&mut self, effects: Vec<Effect>) -> Result<(), Unsure> {
        if effects.is_empty() {
            return Ok(());
        }
        // A process that was frozen for a while finds out here, before it writes.
        if !self.lease.is_held() {
            return Err(Unsure::Lease);
        }
        let commit = Commit::of(effects);
        while !self.outbound.may_begin(&commit) {
            self.await_oldest().await?;
        }
        let now = self.clock.now();
        self.outbound.begin(&self.core, commit, now).await
    }

    async fn await_oldest(&mut self) -> Result<(), Unsure> {
        match self.outbound.commits.next().await {
            Some(stored) => self.go_on_after(stored).await,
            None => Ok(()),
        }
    }

    /// Does what waited for a commit.
    async fn go_on_after(
        &mut self,
        stored: Result<outbound::Stored, KvError>,
    ) -> Result<(), Unsure> {
        for act in self.outbound.stored(stored)? {
            self.outbound.act(act, &mut self.pending).await;
        }
        Ok(())
    }

    /// Ends what was begun: what is stored is also said.
    async fn finish(&mut self) -> End {
        while !self.outbound.commits.is_empty() {
            if let Err(unsure) = self.await_oldest().await {
                warn!(error = %chain(&unsure), "the last changes may not be stored");
                break;
            }
        }
        End::Shutdown
    }
}

fn template_event(change: Change<Templates>) -> Option<Event> {
    match change {
        Change::Put { record, .. } => Some(Event::TemplateStored(Box::new(record))),
        Change::Gone { key, .. } => Some(Event::TemplateDeleted(key)),
        Change::UpToDate => None,
    }
}

fn terms(config: &SchedulerConfig) -> Terms {
    Terms {
        pool: config.pool.clone(),
        heartbeat_interval: config.heartbeat_interval,
        heartbeat_timeout: config.heartbeat_timeout,
        stop_grace: config.stop_grace,
        kill_after: config.kill_after,
        assign_ack_timeout: config.assign_ack_timeout,
        job_retention: config.job_retention,
        max_agents: config.max_agents,
    }
}
