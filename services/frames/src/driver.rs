//! The display and its owner: its leader, the state that a term starts from, and the state between terms.

use std::sync::Arc;
use std::time::Duration;

use quintet_bus::{Bus, now};
use quintet_contract::bucket::LeaseKey;
use quintet_contract::frame::Bitmap;
use quintet_leader::{
    Clock, CoreOf, EffectsOf, InboxOf, Order, Owner, Policy, ReloadReason, Status, StopReason,
    Term, WhenUnwritable, lead,
};
use quintet_service::health::ComponentHandle;
use quintet_service::tasks::Tasks;
use quintet_worker::process::Spawner;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{ConfigError, FramesConfig};
use crate::core::{Core, CoreConfig};
use crate::display::Map;
use crate::error::Error;
use crate::inbound;
use crate::line::Line;
use crate::metrics;
use crate::outbound::{Loaded, Outbound, load};
use crate::processes::Processes;

/// Life of the lease; after a kill, another process drives the display so much later, and up to a quarter of a second more:
/// so late NATS may notice. With the two seconds of other leases that would be more than two seconds.
const LEASE_TTL: Duration = Duration::from_secs(1);
/// A candidate whose lease was another's for so long stands by.
const STANDBY_AFTER: Duration = Duration::from_secs(1);
/// Messages of one batch at most: what is due is done after each event, and in between.
const BATCH: usize = 256;
/// Events of processes that wait to be processed; when full, their tasks wait.
const PROCESS_EVENTS: usize = 64;
/// How long processes may take to end beside their grace.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a frames service until `shutdown` is cancelled.
///
/// # Errors
/// Only when its configuration is invalid, or the bus refuses what it cannot work without; everything that may pass is tried
/// again.
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
    let owner = DisplayOwner {
        config,
        bus: bus.clone(),
        health,
        map,
        spawner,
        image: None,
    };
    Ok(lead(owner, bus, shutdown).await?)
}

/// Drives the display while it has the lease.
struct DisplayOwner {
    config: FramesConfig,
    bus: Bus,
    health: ComponentHandle,
    map: Map,
    spawner: Option<Spawner>,
    /// What is shown; kept over an interruption, in which the display did not change.
    image: Option<Arc<Bitmap>>,
}

impl DisplayOwner {
    fn core_config(&self) -> CoreConfig {
        let display = &self.config.display;
        let managed = self.config.processes.iter().map(|spec| spec.id.clone());
        CoreConfig {
            display: display.shown(),
            max_fps: display.max_fps,
            buffer: display.buffer,
            gap: display.frame_gap,
            managed: managed.collect(),
            epoch: now(),
            shown: self.image.clone(),
        }
    }
}

impl Owner for DisplayOwner {
    type Outbound = Outbound;
    const NAME: &'static str = "frames";

    fn policy(&self) -> Policy {
        Policy {
            lease: LeaseKey::Frames,
            holder: self.config.holder.clone(),
            lease_ttl: LEASE_TTL,
            standby_after: STANDBY_AFTER,
            batch: BATCH,
            // The core begins one write at a time; what is shown meanwhile does not wait for it.
            order: Order::PerKey,
            when_unwritable: WhenUnwritable::RejectWrites,
            changing: "the service that drives the display is changing; send the same request again in a moment",
        }
    }

    async fn load(&mut self) -> Result<Term<Outbound>, ReloadReason> {
        let Loaded { stored, config } = load(&self.bus).await?;
        let display = &self.config.display;
        let line = Line::open(&display.line, self.map.clone(), display.skip_unchanged)
            .map_err(|error| ReloadReason::Read(error.into()))?;
        let tasks = Tasks::new("frames processes");
        let (sender, process_events) = mpsc::channel(PROCESS_EVENTS);
        let processes = Processes::new(
            &self.config.processes,
            self.spawner.clone(),
            self.config.kill_grace,
            tasks.clone(),
            sender,
        );
        let clock = Clock::start();
        let (core, first) = Core::restore(self.core_config(), stored, clock.now());
        let outbound = Outbound {
            bus: self.bus.clone(),
            bucket: self.bus.bucket(),
            config,
            line_state: line.state(),
            line,
            processes,
            process_events,
            tasks,
        };
        Ok(Term {
            core,
            clock,
            first,
            outbound,
        })
    }

    async fn open(&self, inbox: &mut InboxOf<Outbound>) -> Result<(), quintet_leader::Error> {
        inbound::open(inbox).await
    }

    fn status(&self, status: Status) {
        match status {
            Status::Standby | Status::Serving => self.health.ready(),
            Status::Unreachable => self
                .health
                .not_ready("the lease of the display cannot be tried for"),
            Status::Elected => metrics::leads(true),
            Status::Reloading => {}
            Status::Ended(reason) => {
                metrics::leads(false);
                if reason != StopReason::Shutdown {
                    self.health
                        .not_ready("no process is known to drive the display");
                }
            }
        }
    }

    /// The image stays where it is, and workers run on.
    async fn reload(
        &mut self,
        core: &mut CoreOf<Outbound>,
        outbound: &mut Outbound,
        clock: Clock,
    ) -> Result<Option<EffectsOf<Outbound>>, ReloadReason> {
        let Loaded { stored, config } = load(&self.bus).await?;
        outbound.config = config;
        Ok(Some(core.reload(stored, clock.now())))
    }

    async fn end_term(&mut self, core: CoreOf<Outbound>, outbound: Outbound) {
        self.image = Some(core.shown());
        let tasks = outbound.tasks.clone();
        // With the channel of their events closed, processes wait for nothing.
        drop(outbound);
        let ended = tasks
            .shutdown(self.config.kill_grace + SHUTDOWN_TIMEOUT)
            .await;
        if !ended.is_clean() {
            warn!(aborted = ?ended.aborted, "some processes of workers did not end in time");
        }
    }
}
