//! Effects on a real NATS; the test publishes what the frames service would.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use quintet_bus::{Bus, Deliveries, RawRequests};
use quintet_contract::frame::{Canvas, Fps, Rbm, Thousandths};
use quintet_contract::frame_api::{FrameWorkerHeartbeat, FrameWorkerMessage};
use quintet_contract::id::WorkerId;
use quintet_contract::subject::{FrameWorkerHeartbeats, FrameWorkerMessages, WorkerFrame};
use quintet_service::health::Health;
use quintet_testkit::Nats;
use quintet_workers::Error;
use quintet_workers::effects::{EffectsConfig, run};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::owner::{TIMEOUT, connect};

const CANVAS: Canvas = Canvas {
    width: 28,
    height: 14,
};

/// A frames service reduced to its messages.
struct Leader {
    bus: Bus,
    beats: Deliveries<FrameWorkerHeartbeats>,
    frames: RawRequests<WorkerFrame>,
}

struct Program {
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

impl Program {
    async fn start(nats: &Nats, prefix: Option<&str>) -> Self {
        let bus = connect(&nats.url()).await;
        let shutdown = CancellationToken::new();
        let health = Health::new("test").component("effects");
        let prefix = prefix.map(str::to_owned);
        let config = EffectsConfig { prefix };
        let running = tokio::spawn(run(config, bus, health, shutdown.clone()));
        Self { shutdown, running }
    }

    async fn leave(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

impl Leader {
    async fn start(nats: &Nats) -> Self {
        let bus = connect(&nats.url()).await;
        let beats = FrameWorkerHeartbeats::filter(bus.prefix(), None);
        let frames = WorkerFrame::filter(bus.prefix(), None);
        let leader = Self {
            beats: bus.subscribe(beats).await.unwrap(),
            frames: bus.serve_raw(frames).await.unwrap(),
            bus,
        };
        leader.bus.flush().await.unwrap();
        leader
    }

    /// The next beat of a worker that is as wanted.
    async fn beat(
        &mut self,
        worker: &str,
        is_wanted: impl Fn(&FrameWorkerHeartbeat) -> bool,
    ) -> FrameWorkerHeartbeat {
        let found = async {
            loop {
                let beat = self.beats.next().await.unwrap();
                if beat.subject.worker.as_str() == worker && is_wanted(&beat.message) {
                    return beat.message;
                }
            }
        };
        timeout(TIMEOUT, found).await.expect("a beat in time")
    }

    async fn publish(&self, worker: &str, message: FrameWorkerMessage) {
        let worker = WorkerId::parse(worker).unwrap();
        let subject = FrameWorkerMessages { worker };
        self.bus.publish_json(&subject, &message).await.unwrap();
    }

    async fn hello(&self, worker: &str) {
        let fps = Fps::new(30.0).unwrap();
        let canvas = CANVAS;
        self.publish(worker, FrameWorkerMessage::Hello { fps, canvas })
            .await;
    }

    async fn tick(&self, worker: &str, millis: i64) {
        let t = Thousandths(millis);
        self.publish(worker, FrameWorkerMessage::Tick { t }).await;
    }

    async fn frame(&mut self) -> (String, u32, Vec<u8>) {
        let frame = timeout(TIMEOUT, self.frames.next())
            .await
            .expect("a frame in time")
            .unwrap();
        let rbm = Rbm::read(&frame.body, CANVAS).unwrap();
        let pixels = rbm.payload().to_vec();
        (frame.subject.worker.to_string(), rbm.seq(), pixels)
    }
}

#[tokio::test]
async fn every_effect_beats_draws_when_it_is_started_and_takes_settings_at_once() {
    let nats = Nats::start().await.unwrap();
    let mut leader = Leader::start(&nats).await;
    let program = Program::start(&nats, Some("wall")).await;
    let names = ["wall-bouncing-dot", "wall-text", "wall-simplex-noise"];
    for name in names {
        let beat = leader.beat(name, |_| true).await;
        assert!(!beat.running && !beat.leaves, "{beat:?}");
        leader.hello(name).await;
        leader.publish(name, FrameWorkerMessage::Start).await;
        leader.beat(name, |beat| beat.running).await;
    }
    let mut drawn = BTreeMap::new();
    for name in names {
        leader.tick(name, 2_000).await;
        let (worker, seq, pixels) = leader.frame().await;
        assert_eq!((worker.as_str(), seq), (name, 0));
        drawn.insert(name, pixels);
    }
    assert_eq!(drawn.values().collect::<BTreeSet<_>>().len(), 3);
    let data = json!({"invert": true}).as_object().cloned().unwrap();
    leader
        .publish("wall-text", FrameWorkerMessage::Config { data })
        .await;
    leader.tick("wall-text", 2_000).await;
    let (_, seq, pixels) = leader.frame().await;
    assert_eq!(seq, 1);
    assert_eq!(pixels[0], !drawn["wall-text"][0]);
    leader.publish("wall-text", FrameWorkerMessage::Stop).await;
    leader.beat("wall-text", |beat| !beat.running).await;
    program.leave().await;
    let mut left = BTreeSet::new();
    while left.len() < names.len() {
        let beat = timeout(TIMEOUT, leader.beats.next()).await;
        let beat = beat.expect("the last beats in time").unwrap();
        if beat.message.leaves {
            left.insert(beat.subject.worker.to_string());
        }
    }
}

#[tokio::test]
async fn of_two_programs_with_the_same_names_the_later_draws_and_the_other_takes_over() {
    let nats = Nats::start().await.unwrap();
    let mut leader = Leader::start(&nats).await;
    let first = Program::start(&nats, None).await;
    let early = leader.beat("text", |_| true).await.session;
    let second = Program::start(&nats, None).await;
    let late = leader.beat("text", |beat| beat.session != early).await;
    assert!(late.session > early);
    leader.hello("text").await;
    leader.publish("text", FrameWorkerMessage::Start).await;
    leader.beat("text", |beat| beat.running).await;
    for tick in 0..3 {
        leader.tick("text", tick * 1_000).await;
        // If both drew, each number would come twice.
        assert_eq!(leader.frame().await.1, tick as u32);
    }
    second.running.abort();
    assert!(second.running.await.unwrap_err().is_cancelled());
    let back = leader.beat("text", |beat| beat.session > late.session);
    assert!(!back.await.running);
    leader.hello("text").await;
    leader.publish("text", FrameWorkerMessage::Start).await;
    leader.tick("text", 0).await;
    assert_eq!(leader.frame().await.1, 0);
    first.leave().await;
}
