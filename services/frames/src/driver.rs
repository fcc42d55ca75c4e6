//! The life of a frames service: it waits for the lease, loads what people have set, drives the display, and begins again
//! when somebody else may have driven it meanwhile. The only select! over the core is here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::ReadyChunks;
use quintet_bus::pending::PendingReplies;
use quintet_bus::{Bus, HeldLease, KvError, LeaseCandidate, now};
use quintet_contract::bucket::LeaseKey;
use quintet_contract::display::LineState;
use quintet_contract::error::ErrorReply;
use quintet_contract::frame::Bitmap;
use quintet_service::health::ComponentHandle;
use quintet_service::tasks::Tasks;
use quintet_service::telemetry::chain;
use quintet_worker::process::Spawner;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{ConfigError, FramesConfig};
use crate::core::{Core, Effect, Event, Terms};
use crate::display::Map;
use crate::error::Error;
use crate::inbound::{Inbound, Inbox, refusal};
use crate::line::Line;
use crate::metrics;
use crate::outbound::{Loaded, Outbound, Outcome, Sight, load};
use crate::processes::Processes;

/// Life of the lease; after a kill, another service drives the display so much later, and up to a quarter of a second more:
/// so late NATS may notice. With the two seconds of other leases that would be more than two seconds.
const LEASE: Duration = Duration::from_secs(1);
/// Messages taken in at once at most: what is due is looked at after each of them, and in between.
const MESSAGES: usize = 256;
/// Wait before something that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// Somebody who has waited for the lease for so long stands by.
const STANDS_BY: Duration = Duration::from_secs(1);
/// Events of processes that wait to be taken in; when full, their tasks wait.
const PROCESS_EVENTS: usize = 64;
/// How long processes may take to end beside their grace.
const END: Duration = Duration::from_secs(2);

/// Why a service no longer drives the display.
enum End {
    /// It was asked to end.
    Shutdown,
    /// Somebody else may drive it now.
    Deposed,
}

/// Runs a frames service until `shutdown` is cancelled.
///
/// Fails only when its configuration is of no use, or the bus refuses what it cannot work without; everything that may pass
/// is tried again.
pub async fn run(
    config: FramesConfig,
    bus: Bus,
    health: ComponentHandle,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    config.check()?;
    let map = config.display.map().map_err(ConfigError::from)?;
    let spawner = match config.processes.is_empty() {
        true => None,
        false => Some(Spawner::start(
            config.reaper.as_deref(),
            config.environment.clone(),
        )?),
    };
    let service = Service {
        config,
        bus,
        health,
        map,
        spawner,
        shutdown,
    };
    service.live().await
}

struct Service {
    config: FramesConfig,
    bus: Bus,
    health: ComponentHandle,
    map: Map,
    spawner: Option<Spawner>,
    shutdown: CancellationToken,
}

impl Service {
    async fn live(self) -> Result<(), Error> {
        let holder = self.config.holder.clone();
        let mut candidate = self.bus.lease(LeaseKey::Frames, holder, LEASE);
        // Kept over an interruption, in which the display did not change.
        let mut picture = None;
        loop {
            let Some(mut lease) = self.wait(&mut candidate).await else {
                return Ok(());
            };
            metrics::leads(true);
            let end = self.lead(&mut lease, &mut picture).await;
            metrics::leads(false);
            match end? {
                End::Shutdown => {
                    lease.release().await;
                    return Ok(());
                }
                End::Deposed => {
                    info!("drives the display no longer");
                    self.health
                        .not_ready("nobody is known to drive the display");
                }
            }
        }
    }

    /// Waits for the lease; none when the service is to end.
    async fn wait(&self, candidate: &mut LeaseCandidate) -> Option<HeldLease> {
        let mut stands_by = Instant::now() + STANDS_BY;
        let mut search = None;
        loop {
            let held = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                // Cancel-safe: a creation on its way stays with the candidate.
                held = candidate.acquire() => held,
                () = sleep_until(stands_by), if search.is_none() => {
                    self.health.ready();
                    stands_by = Instant::now() + STANDS_BY;
                    continue;
                }
            };
            match held {
                Ok(lease) => return Some(lease),
                Err(error) => {
                    self.health
                        .not_ready("the lease of the display cannot be had");
                    if search.is_none() {
                        warn!(error = %chain(&error), "cannot try for the lease of the display");
                        search = Some(self.bus.server_failover());
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Drives the display as long as the lease is held.
    async fn lead(
        &self,
        lease: &mut HeldLease,
        picture: &mut Option<Arc<Bitmap>>,
    ) -> Result<End, Error> {
        let loaded = loop {
            let failure = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(End::Shutdown),
                () = lease.lost() => return Ok(End::Deposed),
                loaded = load(&self.bus) => match loaded {
                    Ok(loaded) => break loaded,
                    Err(error) => error,
                },
            };
            warn!(error = %chain(&failure), "cannot load what people have set, tries again");
            sleep(RETRY).await;
        };
        let line = Line::open(
            &self.config.display.line,
            self.map.clone(),
            self.config.display.skip_unchanged,
        );
        let line =
            line.map_err(|source| quintet_worker::process::ProcessError::Spawner { source })?;
        let tasks = Tasks::new("frames processes");
        let (tell, process_events) = mpsc::channel(PROCESS_EVENTS);
        let processes = Processes::new(
            &self.config.processes,
            self.spawner.clone(),
            self.config.kill_grace,
            tasks.clone(),
            tell,
        );
        let line_state = line.state();
        let Loaded {
            stored,
            revisions,
            sight,
        } = loaded;
        let outbound = Outbound::new(self.bus.clone(), revisions, line, processes);
        let Inbox { micro, messages } = Inbox::open(&self.bus).await?;
        let start = Instant::now();
        let (core, first) = Core::restore(self.terms(picture.clone()), stored, Duration::ZERO);
        info!("drives the display");
        let mut leader = Leader {
            bus: &self.bus,
            core,
            start,
            outbound,
            sight,
            pending: PendingReplies::default(),
            lease,
            unwritable: self.bus.unwritable(),
            line_state,
        };
        self.health.ready();
        let mut messages = messages.ready_chunks(MESSAGES);
        let mut process_events = process_events;
        let end = leader
            .go_on(first, &mut messages, &mut process_events, &self.shutdown)
            .await;
        let why = refusal(&leader.unwritable.borrow());
        leader.pending.reject_all(&why).await;
        let inbox = Inbox {
            micro,
            messages: messages.into_inner(),
        };
        inbox.close(&why).await;
        *picture = Some(leader.core.shown());
        // Nobody hears what they still have to say.
        process_events.close();
        drop(leader);
        let ended = tasks.shutdown(self.config.kill_grace + END).await;
        if !ended.is_clean() {
            warn!(aborted = ?ended.aborted, "some processes of workers did not end in time");
        }
        Ok(end)
    }

    fn terms(&self, shown: Option<Arc<Bitmap>>) -> Terms {
        let display = &self.config.display;
        Terms {
            display: display.shown(),
            max_fps: display.max_fps,
            buffer: display.buffer,
            gap: display.frame_gap,
            managed: self
                .config
                .processes
                .iter()
                .map(|spec| spec.id.clone())
                .collect(),
            epoch: now(),
            shown,
        }
    }
}

/// The service that drives the display.
struct Leader<'a> {
    bus: &'a Bus,
    core: Core,
    /// The core's time zero.
    start: Instant,
    outbound: Outbound,
    sight: Sight,
    pending: PendingReplies,
    lease: &'a mut HeldLease,
    unwritable: watch::Receiver<BTreeSet<String>>,
    line_state: watch::Receiver<LineState>,
}

/// What woke the loop.
enum Wake {
    Shutdown,
    Deposed,
    Written(Outcome),
    Stirred(Result<(), KvError>),
    Process(Option<Event>),
    Line,
    Messages(Vec<Inbound>),
    Due,
}

type Messages =
    ReadyChunks<futures::stream::SelectAll<futures::stream::BoxStream<'static, Inbound>>>;

impl Leader<'_> {
    async fn go_on(
        &mut self,
        first: Vec<Effect>,
        messages: &mut Messages,
        process_events: &mut mpsc::Receiver<Event>,
        shutdown: &CancellationToken,
    ) -> End {
        let mut effects = first;
        loop {
            // A process that was frozen for a while finds out here, before it acts.
            if !self.lease.is_held() {
                return End::Deposed;
            }
            if let Some(end) = self.conclude(&mut effects, shutdown).await {
                return end;
            }
            // Here nothing waits to be written that was made of what is stored no longer.
            if self.sight.is_ahead_of(&self.outbound) {
                info!("somebody else changed what is stored, loads it again");
                if let Some(end) = self.reload(&mut effects, shutdown).await {
                    return end;
                }
                continue;
            }
            let due = self.start + self.core.due();
            // Each branch is cancel-safe: streams and channels keep what they were not asked for, and so does the write.
            let wake = tokio::select! {
                biased;
                () = shutdown.cancelled() => Wake::Shutdown,
                () = self.lease.lost() => Wake::Deposed,
                outcome = self.outbound.written() => Wake::Written(outcome),
                stirred = self.sight.changed() => Wake::Stirred(stirred),
                event = process_events.recv() => Wake::Process(event),
                Ok(()) = self.line_state.changed() => Wake::Line,
                // Before messages: those never end while a worker floods.
                () = sleep_until(due) => Wake::Due,
                chunk = messages.next() => match chunk {
                    Some(chunk) => Wake::Messages(chunk),
                    None => Wake::Deposed,
                },
            };
            match wake {
                Wake::Shutdown => return End::Shutdown,
                Wake::Deposed => return End::Deposed,
                Wake::Written(outcome) => {
                    if let Some(end) = self.written(outcome, &mut effects, shutdown).await {
                        return end;
                    }
                }
                Wake::Stirred(Ok(())) => {}
                Wake::Stirred(Err(error)) => {
                    warn!(error = %chain(&error), "lost sight of what people have set, loads it again");
                    if let Some(end) = self.reload(&mut effects, shutdown).await {
                        return end;
                    }
                }
                Wake::Process(event) => {
                    if let Some(event) = event {
                        self.step(event, &mut effects);
                    }
                }
                Wake::Line => {
                    let state = *self.line_state.borrow_and_update();
                    self.core.set_line(state);
                    self.step(Event::Due, &mut effects);
                }
                Wake::Due => self.step(Event::Due, &mut effects),
                Wake::Messages(chunk) => {
                    for inbound in chunk {
                        let event = inbound.enter(&mut self.pending);
                        self.step(event, &mut effects);
                    }
                }
            }
        }
    }

    fn step(&mut self, event: Event, effects: &mut Vec<Effect>) {
        let now = self.start.elapsed();
        self.core.step(event, now, effects);
    }

    /// Does what is to be done, and what follows from it.
    async fn conclude(
        &mut self,
        effects: &mut Vec<Effect>,
        shutdown: &CancellationToken,
    ) -> Option<End> {
        while !effects.is_empty() {
            for effect in std::mem::take(effects) {
                let is_store = matches!(effect, Effect::Store(_));
                let unwritable = match is_store {
                    true => self.unwritable.borrow().first().cloned(),
                    false => None,
                };
                if let Some(bucket) = unwritable {
                    let refusal = ErrorReply::unwritable(&bucket);
                    self.step(Event::Stored(Err(refusal)), effects);
                } else if let Some(outcome) = self.outbound.act(effect, &mut self.pending).await
                    && let Some(end) = self.written(outcome, effects, shutdown).await
                {
                    return Some(end);
                }
            }
        }
        None
    }

    /// The write is over. When nobody knows how, what is stored is read again: the picture stays where it is meanwhile.
    async fn written(
        &mut self,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
        shutdown: &CancellationToken,
    ) -> Option<End> {
        let stored = match outcome {
            Outcome::Written => Ok(()),
            Outcome::Unsure(refusal) => {
                if let Some(end) = self.reload(effects, shutdown).await {
                    return Some(end);
                }
                Err(refusal)
            }
        };
        self.step(Event::Stored(stored), effects);
        None
    }

    /// Goes on with what is stored.
    async fn reload(
        &mut self,
        effects: &mut Vec<Effect>,
        shutdown: &CancellationToken,
    ) -> Option<End> {
        loop {
            let failure = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Some(End::Shutdown),
                () = self.lease.lost() => return Some(End::Deposed),
                loaded = load(self.bus) => match loaded {
                    Ok(loaded) => {
                        self.outbound.reload(loaded.revisions);
                        self.sight = loaded.sight;
                        self.core.reload(loaded.stored, self.start.elapsed(), effects);
                        return None;
                    }
                    Err(error) => error,
                },
            };
            warn!(error = %chain(&failure), "cannot load what people have set, tries again");
            sleep(RETRY).await;
        }
    }
}
