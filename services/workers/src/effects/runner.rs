//! The driver of all effects: each has an id, subscriptions and a loop of its own, and draws beside the runtime.

use std::future::pending;
use std::time::Duration;

use futures::StreamExt;
use quintet_bus::{Bus, LinkState, PublishError, SubscribeError, new_session, run_blocking};
use quintet_contract::frame_api::FrameWorkerHeartbeat;
use quintet_contract::id::WorkerId;
use quintet_contract::subject::{FrameWorkerHeartbeats, FrameWorkerMessages, WorkerFrame};
use quintet_service::health::ComponentHandle;
use quintet_service::telemetry::chain;
use quintet_worker::host;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Kind;
use super::player::{Drawn, Effect, Event, Player};
use crate::error::Error;
use crate::metrics;

/// Time between two beats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long the last beats may take to be sent.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Configuration of the program of effects.
#[derive(Clone, Debug, Default)]
pub struct EffectsConfig {
    /// Effects have their own names, or `prefix-name`. Of two programs with the same names the one that began later draws, and
    /// the other takes over when it is gone.
    pub prefix: Option<String>,
}

impl EffectsConfig {
    fn id(&self, kind: Kind) -> Result<WorkerId, Error> {
        let name = match &self.prefix {
            Some(prefix) => format!("{prefix}-{}", kind.name()),
            None => kind.name().to_owned(),
        };
        WorkerId::parse(&name).map_err(|source| Error::EffectName { name, source })
    }
}

/// Offers all effects on the bus until `shutdown` is cancelled. Fails only when the prefix makes no names, or the bus
/// refuses what it cannot work without or is closed.
pub async fn run(
    config: EffectsConfig,
    bus: Bus,
    health: ComponentHandle,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    // Dropped, it ends all of them.
    let mut stages = JoinSet::new();
    for kind in Kind::ALL {
        let id = config.id(kind)?;
        let runner = EffectRunner::open(kind, id, bus.clone()).await?;
        stages.spawn(runner.run(shutdown.clone()));
    }
    health.ready();
    info!("effects started");
    while let Some(ended) = stages.join_next().await {
        match ended {
            Ok(ended) => ended?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    // The process may end now: its last beats must be in flight.
    if !matches!(timeout(GOODBYE_TIMEOUT, bus.flush()).await, Ok(Ok(()))) {
        warn!("the last heartbeats were not sent before the end");
    }
    info!("effects left");
    Ok(())
}

/// One effect and all that it is connected with.
struct EffectRunner {
    kind: Kind,
    id: WorkerId,
    host: String,
    bus: Bus,
    messages: quintet_bus::Deliveries<FrameWorkerMessages>,
    heartbeats: quintet_bus::Deliveries<FrameWorkerHeartbeats>,
    player: Player,
    /// One frame at most: the player asks for the next when it has this one.
    drawing: Option<futures::future::BoxFuture<'static, Drawn>>,
    /// The last frame or heartbeat was not taken: logged once.
    is_failing: bool,
}

/// What woke the loop.
enum Woken {
    Shutdown,
    BusClosed,
    By(Event),
    Nothing,
}

impl EffectRunner {
    async fn open(kind: Kind, id: WorkerId, bus: Bus) -> Result<Self, Error> {
        let refused = |source: SubscribeError| Error::Subscribe { source };
        let messages = FrameWorkerMessages::filter(bus.prefix(), Some(&id));
        let heartbeats = FrameWorkerHeartbeats::filter(bus.prefix(), Some(&id));
        Ok(Self {
            messages: bus.subscribe(messages).await.map_err(refused)?,
            heartbeats: bus.subscribe(heartbeats).await.map_err(refused)?,
            player: Player::new(kind, new_session().to_string()),
            kind,
            id,
            host: host(),
            bus,
            drawing: None,
            is_failing: false,
        })
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut beats = interval(HEARTBEAT_INTERVAL);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut link = self.bus.link();
        loop {
            let drawn = async {
                match &mut self.drawing {
                    Some(drawing) => drawing.await,
                    None => pending().await,
                }
            };
            // Every branch is cancel-safe: a token, a future that is kept, a watch, an interval, subscriptions.
            let woken = tokio::select! {
                biased;
                () = shutdown.cancelled() => Woken::Shutdown,
                drawn = drawn => Woken::By(Event::Drawn(drawn)),
                changed = link.changed() => match changed.map(|()| *link.borrow_and_update()) {
                    Ok(LinkState::Connected) => Woken::By(Event::Reconnected(new_session().to_string())),
                    Ok(LinkState::Disconnected) => Woken::Nothing,
                    Err(_) => Woken::BusClosed,
                },
                _ = beats.tick() => Woken::By(Event::SecondPassed(new_session().to_string())),
                heartbeat = self.heartbeats.next() => match heartbeat {
                    Some(beat) => Woken::By(Event::HeartbeatReceived(beat.message)),
                    None => Woken::BusClosed,
                },
                message = self.messages.next() => match message {
                    Some(message) => Woken::By(Event::MessageReceived(message.message)),
                    None => Woken::BusClosed,
                },
            };
            match woken {
                Woken::By(event) => self.step(event).await,
                Woken::Nothing => {}
                Woken::BusClosed => return Err(Error::BusClosed),
                Woken::Shutdown => {
                    if let Some(goodbye) = self.player.goodbye() {
                        self.publish(&goodbye).await;
                    }
                    return Ok(());
                }
            }
        }
    }

    async fn step(&mut self, event: Event) {
        if let Event::Drawn(_) = event {
            self.drawing = None;
        }
        for act in self.player.step(event, Instant::now()) {
            match act {
                Effect::Publish(beat) => self.publish(&beat).await,
                Effect::Draw(draw) => {
                    self.drawing = Some(Box::pin(run_blocking(move || draw.run())))
                }
                Effect::Send(frame) => {
                    let subject = WorkerFrame {
                        worker: self.id.clone(),
                    };
                    let sent = self.bus.publish_raw(&subject, frame.into()).await;
                    metrics::frame_drawn(self.kind.name());
                    self.record_publish(sent);
                }
                Effect::ReportError(error) => {
                    warn!(worker = %self.id, %error, "settings are invalid; the last valid ones stay in effect");
                }
            }
        }
    }

    async fn publish(&mut self, beat: &FrameWorkerHeartbeat) {
        let subject = FrameWorkerHeartbeats {
            worker: self.id.clone(),
        };
        // So that it is listed like workers of other kinds.
        let beat = FrameWorkerHeartbeat {
            name: self.id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.host.clone(),
            ..beat.clone()
        };
        let published = self.bus.publish(&subject, &beat).await;
        self.record_publish(published);
    }

    fn record_publish(&mut self, sent: Result<(), PublishError>) {
        if let (Err(error), false) = (&sent, self.is_failing) {
            warn!(worker = %self.id, error = %chain(error), "cannot send frames or heartbeats");
        }
        self.is_failing = sent.is_err();
    }
}
