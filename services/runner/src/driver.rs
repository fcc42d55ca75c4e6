//! The life of a runner: for each shard a seat, which is taken when this runner should have it and its lease can be had.
//!
//! Who sits loads everything of the shard, leads it, and begins again when it is not sure what is stored. The only select!
//! over a core is here.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::ReadyChunks;
use futures::{FutureExt, StreamExt, TryStreamExt};
use quintet_bus::pending::PendingReplies;
use quintet_bus::{Bus, HeldLease, now, run_blocking};
use quintet_contract::bucket::{LeaseKey, RunKey, Runs};
use quintet_contract::id::RunShard;
use quintet_contract::subject::RunLog;
use quintet_contract::task::RunReport;
use quintet_contract::time::Timestamp;
use quintet_contract::topology::stream;
use quintet_service::health::ComponentHandle;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_service::telemetry::chain;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::RunnerConfig;
use crate::core::{Core, Effect, Event, StoredRun, Terms};
use crate::error::Error;
use crate::execute::Executions;
use crate::inbound::{Inbound, Inbox, checkpoint_for, refusal};
use crate::kubernetes::Kubernetes;
use crate::metrics;
use crate::outbound::{Outbound, Place, Unsure, Written};
use crate::peers::{Peers, leave, meet};
use crate::plans;
use crate::runlog;

/// Life of a lease; after a kill, another runner leads so much later.
const LEASE: Duration = Duration::from_secs(2);
/// Messages taken in at once at most.
const MESSAGES: usize = 1024;
/// Wait before everything is loaded again after a failure.
const RELOAD_PAUSE: Duration = Duration::from_millis(200);
/// A seat that others should have is given up after so long: who comes and goes at once moves nothing.
const GIVE_UP_AFTER: Duration = Duration::from_secs(1);
/// A seat whose lease somebody else holds for so long is in good hands.
const TRIED: Duration = Duration::from_secs(3);
/// Logs read at once while a shard is loaded.
const LOGS_AT_ONCE: usize = 64;
/// Reports of this process that wait to be taken in.
const REPORTS: usize = 256;
/// How long the tasks of a runner may take to end.
const END: Duration = Duration::from_secs(2);
/// How often the gauges are written.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

/// Why a seat is empty again.
enum End {
    /// The runner was asked to end.
    Shutdown,
    /// Somebody else may lead now.
    Deposed,
    /// Somebody else should have it.
    GivenUp,
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

/// Runs a runner until `shutdown` is cancelled: owns its share of all runs.
///
/// Fails only when the bus refuses what it cannot work without; everything that may pass is tried again.
pub async fn run(
    config: RunnerConfig,
    bus: Bus,
    health: ComponentHandle,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let kubernetes = match config.kubernetes.is_configured() {
        true => Some(Kubernetes::connect(&config.kubernetes).await?),
        false => None,
    };
    let tasks = Tasks::new("runner");
    let (known, peers) = watch::channel(Peers::only(config.holder.clone()));
    let meeting = meet(bus.clone(), config.holder.clone(), known, tasks.token());
    tasks.spawn("peers", ExitPolicy::Essential, meeting);
    let planning = plans::serve(bus.clone(), tasks.token());
    tasks.spawn("plans", ExitPolicy::Essential, planning);
    let config = Arc::new(config);
    let (settled, seats) = watch::channel(BTreeSet::new());
    for shard in RunShard::all() {
        let seat = Seat {
            shard,
            config: config.clone(),
            bus: bus.clone(),
            kubernetes: kubernetes.clone(),
            peers: peers.clone(),
            settled: settled.clone(),
            tasks: tasks.clone(),
            shutdown: tasks.token(),
        };
        tasks.spawn("seat", ExitPolicy::Essential, seat.keep());
    }
    let ready = tell_when_ready(health, seats, tasks.token());
    tasks.spawn("health", ExitPolicy::Optional, ready);
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        end = tasks.wait() => warn!(error = %chain(&end), "a part of the runner ended"),
    }
    let _ = leave(&bus, &config.holder).await;
    let report = tasks.shutdown(END).await;
    if !report.is_clean() {
        warn!(aborted = ?report.aborted, "some parts of the runner did not end in time");
    }
    Ok(())
}

/// The runner is ready when every shard is in somebody's hands.
async fn tell_when_ready(
    health: ComponentHandle,
    mut seats: watch::Receiver<BTreeSet<RunShard>>,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    loop {
        let open = usize::from(RunShard::COUNT) - seats.borrow_and_update().len();
        if open == 0 {
            health.ready();
        } else {
            health.not_ready(format!("{open} of the shards of runs are not led yet"));
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            changed = seats.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// The place of one shard's leader.
struct Seat {
    shard: RunShard,
    config: Arc<RunnerConfig>,
    bus: Bus,
    kubernetes: Option<Kubernetes>,
    peers: watch::Receiver<Peers>,
    settled: watch::Sender<BTreeSet<RunShard>>,
    tasks: Tasks,
    shutdown: CancellationToken,
}

impl Seat {
    fn is_preferred(&self) -> bool {
        self.peers.borrow().prefer(&self.config.holder, self.shard)
    }

    fn settle(&self, is_settled: bool) {
        self.settled.send_if_modified(|seats| {
            if is_settled {
                seats.insert(self.shard)
            } else {
                seats.remove(&self.shard)
            }
        });
    }

    /// Takes the seat whenever it should and can.
    async fn keep(mut self) -> Result<(), Error> {
        let mut candidate = self.bus.lease(
            LeaseKey::Runner(self.shard),
            self.config.holder.clone(),
            LEASE,
        );
        let mut tried = Instant::now() + TRIED;
        let mut search = None;
        loop {
            if !self.is_preferred() {
                self.settle(true);
                tokio::select! {
                    biased;
                    () = self.shutdown.cancelled() => return Ok(()),
                    changed = self.peers.changed() => if changed.is_err() { return Ok(()) },
                }
                tried = Instant::now() + TRIED;
                continue;
            }
            let lease = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(()),
                held = candidate.acquire() => held,
                _ = self.peers.changed() => continue,
                // Somebody else has it, and keeps it.
                () = sleep_until(tried), if search.is_none() => {
                    self.settle(true);
                    tried = Instant::now() + TRIED;
                    continue;
                }
            };
            let mut lease = match lease {
                Ok(lease) => lease,
                Err(error) => {
                    self.settle(false);
                    if search.is_none() {
                        warn!(shard = %self.shard, error = %chain(&error), "cannot try for the lease");
                        search = Some(self.bus.server_failover());
                    }
                    sleep(RELOAD_PAUSE).await;
                    continue;
                }
            };
            search = None;
            metrics::led(1.0);
            let end = self.hold(&mut lease).await;
            metrics::led(-1.0);
            self.settle(false);
            match end? {
                End::Shutdown => {
                    lease.release().await;
                    return Ok(());
                }
                End::GivenUp => {
                    info!(shard = %self.shard, "gives a shard to another runner");
                    lease.release().await;
                }
                End::Deposed | End::Unsure(_) => info!(shard = %self.shard, "leads no longer"),
            }
            tried = Instant::now() + TRIED;
        }
    }

    /// Leads as long as the lease is held, loading everything anew as often as needed.
    async fn hold(&mut self, lease: &mut HeldLease) -> Result<End, Error> {
        let mut unwritable = self.bus.unwritable();
        while lease.is_held() {
            // What is loaded now could not be changed.
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(End::Shutdown),
                () = lease.lost() => return Ok(End::Deposed),
                // An error means that the connection is gone for good, which ends everything else as well.
                _ = unwritable.wait_for(BTreeSet::is_empty) => {}
            }
            let loaded = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(End::Shutdown),
                () = lease.lost() => return Ok(End::Deposed),
                loaded = self.load() => loaded,
            };
            let unsure = match loaded {
                Ok(start) => match self.lead(lease, start).await? {
                    End::Unsure(unsure) => unsure,
                    end => return Ok(end),
                },
                Err(unsure) => unsure,
            };
            metrics::reloaded();
            warn!(error = %chain(&unsure), shard = %self.shard, "loads everything again");
            self.settle(false);
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(End::Shutdown),
                () = sleep(RELOAD_PAUSE) => {}
            }
        }
        Ok(End::Deposed)
    }

    /// Reads the runs of the shard, and of those that have not ended what their logs hold beyond their records.
    async fn load(&self) -> Result<Start, Unsure> {
        let began = Instant::now();
        let loaded = self
            .bus
            .bucket::<Runs>()
            .load_of(&RunKey::filter(self.shard))
            .await?;
        let mut places = HashMap::new();
        let mut stored = Vec::with_capacity(loaded.entries.len());
        let mut open = Vec::new();
        for (RunKey(run), found) in loaded.entries {
            if !found.record.run.status.is_final() {
                let place = Place {
                    revision: found.revision,
                    sequence: 0,
                };
                places.insert(run, place);
                open.push(RunLog { run });
            }
            stored.push(StoredRun {
                record: found.record,
                log: Vec::new(),
            });
        }
        let log = stream::run_logs(self.bus.prefix());
        for (RunLog { run }, sequence, _) in self.bus.last_for_subjects(log, &open).await? {
            places.entry(run).or_default().sequence = sequence;
        }
        let is_behind = |stored: &StoredRun| {
            let place = places.get(&stored.record.run.id);
            place.is_some_and(|place| place.sequence > stored.record.private.log_sequence)
        };
        let stored: Vec<StoredRun> = futures::stream::iter(stored)
            .map(|mut stored| {
                let (bus, is_behind) = (&self.bus, is_behind(&stored));
                async move {
                    if is_behind {
                        let run = stored.record.run.id;
                        let from = stored.record.private.log_sequence + 1;
                        stored.log = runlog::replay(bus, run, from).await?;
                    }
                    Ok::<_, quintet_bus::BusError>(stored)
                }
            })
            .buffer_unordered(LOGS_AT_ONCE)
            .try_collect()
            .await?;
        let terms = Terms {
            prefix: self.bus.prefix().clone(),
            task_ack_wait: self.config.task_ack_wait,
            run_retention: self.config.run_retention,
            has_kubernetes: self.kubernetes.is_some(),
        };
        let clock = Clock::start();
        let (core, first) = run_blocking(move || Core::restore(terms, stored, clock.now())).await;
        let (runs, ended) = core.sizes();
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(shard = %self.shard, runs, ended, took_ms, "loaded a shard of runs");
        Ok(Start {
            core,
            clock,
            first,
            places,
        })
    }

    async fn lead(&mut self, lease: &mut HeldLease, start: Start) -> Result<End, Error> {
        let Start {
            core,
            clock,
            first,
            places,
        } = start;
        let tasks = self.tasks.child("executions", ExitPolicy::Optional);
        let (reports, mut reported) = mpsc::channel(REPORTS);
        let executions = Executions::new(
            self.bus.clone(),
            self.kubernetes.clone(),
            tasks.clone(),
            reports,
        );
        let outbound = Outbound::new(
            self.bus.clone(),
            places,
            self.config.run_retention,
            executions,
        );
        let Inbox { micro, messages } = Inbox::open(&self.bus, self.shard).await?;
        let mut leader = Leader {
            core,
            clock,
            outbound,
            pending: PendingReplies::default(),
            lease,
            unwritable: self.bus.unwritable(),
        };
        self.settle(true);
        let mut messages = messages.ready_chunks(MESSAGES);
        let end = match leader.conclude(first).await {
            Ok(()) => {
                let mut wishes = Wishes {
                    shutdown: &self.shutdown,
                    peers: self.peers.clone(),
                    holder: &self.config.holder,
                    shard: self.shard,
                };
                leader
                    .go_on(&mut messages, &mut reported, &mut wishes)
                    .await
            }
            Err(unsure) => End::Unsure(unsure),
        };
        let why = refusal(&leader.unwritable.borrow());
        leader.pending.reject_all(&why).await;
        Inbox {
            micro,
            messages: messages.into_inner(),
        }
        .close(&why)
        .await;
        // Executions are begun again by whoever leads next.
        let _ = tasks.shutdown(END).await;
        Ok(end)
    }
}

/// Everything that a leader starts from.
struct Start {
    core: Core,
    clock: Clock,
    /// What the core wants done first.
    first: Vec<Effect>,
    places: HashMap<quintet_contract::id::RunId, Place>,
}

/// What may end a reign from outside.
struct Wishes<'a> {
    shutdown: &'a CancellationToken,
    peers: watch::Receiver<Peers>,
    holder: &'a quintet_contract::id::HolderId,
    shard: RunShard,
}

impl Wishes<'_> {
    /// Resolves when another runner should lead, and has been for a while. Cancel-safe: what it waits for is looked at
    /// anew each time.
    async fn given_up(&mut self) {
        loop {
            let (holder, shard) = (self.holder, self.shard);
            if self
                .peers
                .wait_for(|peers| !peers.prefer(holder, shard))
                .await
                .is_err()
            {
                // The runner ends, which is told otherwise.
                return std::future::pending().await;
            }
            let back = self.peers.wait_for(|peers| peers.prefer(holder, shard));
            if tokio::time::timeout(GIVE_UP_AFTER, back).await.is_err() {
                return;
            }
        }
    }
}

/// A runner that leads a shard.
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
    GivenUp,
    Deposed,
    Unwritable,
    Written(Result<Written, Unsure>),
    Event(Option<Event>),
    Report(Option<RunReport>),
    Messages(Vec<Inbound>),
    Due,
    BusEnded,
}

type Messages =
    ReadyChunks<futures::stream::SelectAll<futures::stream::BoxStream<'static, Inbound>>>;

impl Leader<'_> {
    async fn go_on(
        &mut self,
        messages: &mut Messages,
        reported: &mut mpsc::Receiver<RunReport>,
        wishes: &mut Wishes<'_>,
    ) -> End {
        let mut gauges_at = Instant::now();
        let shutdown = wishes.shutdown.clone();
        let mut given_up = std::pin::pin!(wishes.given_up());
        loop {
            if gauges_at <= Instant::now() {
                gauges_at = Instant::now() + GAUGES_EVERY;
            }
            let due = self.core.next_due().map(|at| self.clock.instant(at));
            let due = due.unwrap_or(gauges_at);
            // Each branch is cancel-safe: streams, channels and work keep what they were not asked for.
            let wake = tokio::select! {
                biased;
                () = shutdown.cancelled() => Wake::Shutdown,
                () = self.lease.lost() => Wake::Deposed,
                () = &mut given_up => Wake::GivenUp,
                Ok(_) = self.unwritable.wait_for(|buckets| !buckets.is_empty()) => Wake::Unwritable,
                Some(written) = self.outbound.writes.next(), if !self.outbound.writes.is_empty() => {
                    Wake::Written(written)
                }
                Some(event) = self.outbound.work.next(), if !self.outbound.work.is_empty() => {
                    Wake::Event(event)
                }
                report = reported.recv() => Wake::Report(report),
                chunk = messages.next() => chunk.map_or(Wake::BusEnded, Wake::Messages),
                () = sleep_until(due) => Wake::Due,
            };
            let mut events = Vec::new();
            match wake {
                Wake::Shutdown => return self.finish(End::Shutdown).await,
                Wake::GivenUp => return self.finish(End::GivenUp).await,
                Wake::Unwritable => return End::Unsure(Unsure::Unwritable),
                Wake::Deposed | Wake::BusEnded => return End::Deposed,
                Wake::Written(Ok(written)) => events.push(self.outbound.written(written)),
                Wake::Written(Err(unsure)) => return End::Unsure(unsure),
                Wake::Event(event) => events.extend(event),
                Wake::Report(report) => events.extend(report.map(executed)),
                Wake::Messages(chunk) => {
                    events.extend(chunk.into_iter().map(|inbound| self.pending.enter(inbound)))
                }
                Wake::Due => {}
            }
            // Whatever else is there already goes along.
            while let Some(Some(written)) = self.outbound.writes.next().now_or_never() {
                match written {
                    Ok(written) => events.push(self.outbound.written(written)),
                    Err(unsure) => return End::Unsure(unsure),
                }
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

    async fn conclude(&mut self, effects: Vec<Effect>) -> Result<(), Unsure> {
        // A process that was frozen for a while finds out here, before it writes.
        if !effects.is_empty() && !self.lease.is_held() {
            return Err(Unsure::Lease);
        }
        for effect in effects {
            self.outbound.act(effect, &mut self.pending).await?;
        }
        Ok(())
    }

    /// Ends what was begun: what is stored is also said.
    async fn finish(&mut self, end: End) -> End {
        while let Some(written) = self.outbound.writes.next().await {
            let concluded = match written {
                Ok(written) => {
                    let event = self.outbound.written(written);
                    self.take_in(vec![event]).await
                }
                Err(unsure) => Err(unsure),
            };
            if let Err(unsure) = concluded {
                warn!(error = %chain(&unsure), "the last changes may not be stored");
                break;
            }
        }
        end
    }
}

fn executed(report: RunReport) -> Event {
    let id = checkpoint_for(&report);
    Event::Executed(Box::new(report), id)
}
