//! Frames services as a test starts them, and the requests of clients.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use quintet_bus::{Bus, BusConfig, Deliveries, RequestError};
use quintet_contract::frame::{Bitmap, Canvas, Rbm, Thousandths};
use quintet_contract::frame_api::{
    ActivateWorker, FrameWorkerHeartbeat, FrameWorkerMessage, FrameWorkerRef, FramesReply,
    GetFramesStatus, GetPicture, SetFps,
};
use quintet_contract::id::{HolderId, WorkerId};
use quintet_contract::subject::{
    ActivateFrameWorker, FrameWorkerHeartbeats, FrameWorkerMessages, FramesStatus,
    GetDisplayPicture, SetFrameRate, StartFrameWorker, StopFrameWorker, WorkerFrame,
};
use quintet_frames::{Error, FramesConfig, run};
use quintet_service::health::Health;
use quintet_testkit::{Nats, wait_for};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
pub(crate) const CANVAS: Canvas = Canvas {
    width: 28,
    height: 14,
};

/// A NATS, and a client of whatever runs on it.
pub(crate) struct Fixture {
    pub(crate) nats: Nats,
    pub(crate) bus: Bus,
}

/// A frames service that runs.
pub(crate) struct Service {
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

pub(crate) fn id(name: &str) -> WorkerId {
    WorkerId::parse(name).unwrap()
}

/// A frame with one pixel lit.
pub(crate) fn frame(x: u16, y: u16) -> Bytes {
    let mut bitmap = Bitmap::dark(CANVAS);
    bitmap.set(x, y, true);
    bitmap.to_rbm(1, 0).into()
}

async fn connect(url: &str) -> Bus {
    let config = BusConfig::open(url, "test");
    Bus::connect(config).await.unwrap()
}

impl Service {
    /// Asks it to end, and waits until it has.
    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

impl Fixture {
    pub(crate) async fn open() -> Self {
        Self::on(Nats::start().await.unwrap()).await
    }

    pub(crate) async fn on(nats: Nats) -> Self {
        let bus = connect(&nats.url()).await;
        bus.ensure_topology().await.unwrap();
        Self { nats, bus }
    }

    pub(crate) async fn serve(&self, name: &str, edit: impl FnOnce(&mut FramesConfig)) -> Service {
        let mut config = FramesConfig::new(HolderId::parse(name).unwrap());
        edit(&mut config);
        let bus = connect(&self.nats.url()).await;
        let health = Health::new("test").component("frames");
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(config, bus, health, shutdown.clone()));
        Service { shutdown, running }
    }

    pub(crate) async fn status(&self) -> FramesReply {
        let request = GetFramesStatus {};
        self.bus
            .request_until(&FramesStatus {}, &request, TIMEOUT)
            .await
            .unwrap()
    }

    /// Looks until something holds.
    pub(crate) async fn until(
        &self,
        what: &str,
        holds: impl Fn(&FramesReply) -> bool,
    ) -> FramesReply {
        let found = wait_for(what, TIMEOUT, async || {
            let status = self.status().await;
            if holds(&status) {
                Ok(status)
            } else {
                Err(format!("{status:?}"))
            }
        });
        found.await.unwrap()
    }

    pub(crate) async fn activate(&self, worker: Option<&str>) -> Result<(), RequestError> {
        let asked = ActivateWorker { id: worker.map(id) };
        let done = self
            .bus
            .request_until(&ActivateFrameWorker {}, &asked, TIMEOUT);
        done.await.map(drop)
    }

    pub(crate) async fn start(&self, worker: &str) {
        let asked = FrameWorkerRef { id: id(worker) };
        let done = self
            .bus
            .request_until(&StartFrameWorker {}, &asked, TIMEOUT);
        done.await.unwrap();
    }

    pub(crate) async fn stop(&self, worker: &str) {
        let asked = FrameWorkerRef { id: id(worker) };
        let done = self.bus.request_until(&StopFrameWorker {}, &asked, TIMEOUT);
        done.await.unwrap();
    }

    pub(crate) async fn set_fps(&self, fps: f64) {
        let asked = SetFps {
            fps: Thousandths::of(fps),
        };
        let done = self.bus.request_until(&SetFrameRate {}, &asked, TIMEOUT);
        done.await.unwrap();
    }

    /// Sends a frame and returns the answer.
    pub(crate) async fn send(&self, worker: &str, frame: Bytes) -> Result<(), RequestError> {
        let subject = WorkerFrame { worker: id(worker) };
        self.bus
            .request_raw(&subject, frame, TIMEOUT)
            .await
            .map(drop)
    }

    pub(crate) async fn beat(&self, worker: &str, session: &str, running: bool) {
        let beat = FrameWorkerHeartbeat {
            session: session.to_owned(),
            running,
            ..FrameWorkerHeartbeat::default()
        };
        let subject = FrameWorkerHeartbeats { worker: id(worker) };
        self.bus.publish(&subject, &beat).await.unwrap();
    }

    pub(crate) async fn listen(&self, worker: &str) -> Deliveries<FrameWorkerMessages> {
        let filter = FrameWorkerMessages::filter(self.bus.prefix(), Some(&id(worker)));
        let messages = self.bus.subscribe(filter).await.unwrap();
        self.bus.flush().await.unwrap();
        messages
    }

    /// Waits until the display shows exactly one pixel.
    pub(crate) async fn until_shown(&self, x: u16, y: u16) {
        let expected = frame(x, y);
        let shown = wait_for("the image", TIMEOUT, async || {
            let image = self
                .bus
                .request_until(&GetDisplayPicture {}, &GetPicture::default(), TIMEOUT)
                .await
                .map_err(|error| error.to_string())?;
            let rbm = image.rbm.ok_or("no pixels")?.0;
            let read = Rbm::read(&rbm, CANVAS).unwrap();
            match read.payload() == &expected[16..] {
                true => Ok(()),
                false => Err(format!("{:02x?}", read.payload())),
            }
        });
        shown.await.unwrap();
    }
}

/// The next message for a worker, apart from ticks.
pub(crate) async fn next_message(
    messages: &mut Deliveries<FrameWorkerMessages>,
) -> FrameWorkerMessage {
    let next = async {
        loop {
            let message = messages.next().await.unwrap().message;
            if !matches!(message, FrameWorkerMessage::Tick { .. }) {
                return message;
            }
        }
    };
    tokio::time::timeout(TIMEOUT, next).await.unwrap()
}

/// The next tick, passing over everything else.
pub(crate) async fn next_tick(messages: &mut Deliveries<FrameWorkerMessages>) -> f64 {
    let next = async {
        loop {
            if let FrameWorkerMessage::Tick { t } = messages.next().await.unwrap().message {
                return t.get();
            }
        }
    };
    tokio::time::timeout(TIMEOUT, next).await.unwrap()
}
