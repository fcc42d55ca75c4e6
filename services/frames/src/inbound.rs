//! What arrives on the bus, as events of the core, and the duty to answer each.
//!
//! Requests that nobody waits for any more are not taken in. Frames come in one subscription, whoever sent them: what it may
//! hold unread is bounded, and so is the memory that a worker without manners can take.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all};
use quintet_bus::asking::{self, Answering, Asker, Refusing, asked, misfit};
use quintet_bus::{Bus, Micro, Responder, SubscribeError, waiting};
use quintet_contract::api::Done;
use quintet_contract::error::ErrorReply;
use quintet_contract::frame_api::{FrameWorkerSettings, FramesReply, IngestReply, PictureReply};
use quintet_contract::subject::{
    ActivateFrameWorker, ConfigureFrameWorkers, FrameWorkerHeartbeat, GetDisplayPicture,
    GetFrameWorkerSettings, IngestFrame, LookAtAllFrames, SetFrameRate, StartFrameWorker,
    StopFrameWorker, WorkerFrame,
};
use tracing::Span;

use crate::core::{Answer, Event, RequestId, Wish};
use crate::error::Error;

/// A message of somebody who waits.
type Asked = asking::Inbound<RequestId, Waiting, Event>;
/// Those who wait.
pub(crate) type Askers = asking::Askers<RequestId, Waiting>;

/// One message.
pub(crate) enum Inbound {
    /// Somebody waits for an answer.
    Asked(Asked),
    /// Nobody does.
    Told(Event),
}

waiting! {
    Done(Done),
    Look(FramesReply),
    Settings(FrameWorkerSettings),
    Picture(PictureReply),
    Ingested(IngestReply),
}

impl Answering for Waiting {
    type Answer = Answer;

    async fn answer(self, answer: Answer) {
        match (self, answer) {
            (waiting, Answer::Refused(error)) => waiting.refuse(&error).await,
            (Self::Done(to), Answer::Done) => to.ok(&Done { ok: true }).await,
            (Self::Look(to), Answer::Look(reply)) => to.ok(&*reply).await,
            (Self::Settings(to), Answer::Settings(reply)) => to.ok(&reply).await,
            (Self::Picture(to), Answer::Picture(reply)) => to.ok(&reply).await,
            (Self::Ingested(to), Answer::Ingested(reply)) => to.ok(&reply).await,
            (waiting, _) => misfit(waiting, "frames service").await,
        }
    }
}

impl Inbound {
    /// Takes it in; the event is for the core.
    pub(crate) fn enter(self, askers: &mut Askers) -> Event {
        match self {
            Self::Asked(asked) => askers.enter(asked),
            Self::Told(event) => event,
        }
    }
}

/// Why nothing is done now: NATS does not store, or else the display changes hands.
pub(crate) fn refusal(not_storing: &BTreeSet<String>) -> ErrorReply {
    match not_storing.first() {
        Some(bucket) => ErrorReply::not_storing(bucket),
        None => ErrorReply::unavailable(
            "the service that drives the display is changing; send the same request again in a moment",
        ),
    }
}

/// Everything that the service which drives the display hears.
pub(crate) struct Inbox {
    pub(crate) micro: Micro,
    pub(crate) messages: SelectAll<BoxStream<'static, Inbound>>,
}

impl Inbox {
    /// Opens all endpoints, and hears workers.
    pub(crate) async fn open(bus: &Bus) -> Result<Self, Error> {
        let micro = bus.micro(
            "frames",
            "frames: activate, start, stop, configure, rate, look, picture",
        );
        let micro = micro.await.map_err(subscribing("the frames service"))?;
        macro_rules! ask {
            ($subject:ident, $name:literal, $event:expr) => {{
                let requests = micro
                    .endpoint($name, &$subject {})
                    .await
                    .map_err(subscribing($name))?;
                requests
                    .filter_map(async |incoming| {
                        asked(incoming, "frames", $name, $event).map(Inbound::Asked)
                    })
                    .boxed()
            }};
        }
        let ingest = micro
            .raw_endpoint("ingest", &IngestFrame {})
            .await
            .map_err(subscribing("ingest"))?;
        let frames = bus
            .serve_raw::<WorkerFrame>(WorkerFrame::filter(bus.prefix(), None))
            .await
            .map_err(subscribing("frames"))?;
        let beats = bus
            .subscribe::<FrameWorkerHeartbeat>(FrameWorkerHeartbeat::filter(bus.prefix(), None))
            .await
            .map_err(subscribing("heartbeats"))?;
        let streams = vec![
            ask!(LookAtAllFrames, "look", |id, _| Event::Looked(id)),
            ask!(ActivateFrameWorker, "activate", |id, asked| {
                Event::Wished(id, Wish::Activate(asked.id))
            }),
            ask!(StartFrameWorker, "start", |id, asked| {
                Event::Wished(id, Wish::Start(asked.id))
            }),
            ask!(StopFrameWorker, "stop", |id, asked| {
                Event::Wished(id, Wish::Stop(asked.id))
            }),
            ask!(GetFrameWorkerSettings, "settings", |id, asked| {
                Event::SettingsAsked(id, asked.id)
            }),
            ask!(ConfigureFrameWorkers, "configure", |id, asked| {
                Event::Wished(id, Wish::Configure(asked.id, asked.settings))
            }),
            ask!(SetFrameRate, "fps", |id, asked| {
                Event::Wished(id, Wish::SetRate(asked.fps))
            }),
            ask!(GetDisplayPicture, "picture", Event::PictureAsked),
            // Frames are too many for spans.
            ingest
                .map(|incoming| {
                    let body = incoming.body;
                    raw(incoming.responder, move |id| Event::Ingested(body, id))
                })
                .boxed(),
            frames
                .map(|incoming| {
                    let (worker, body) = (incoming.subject.worker, incoming.body);
                    raw(incoming.responder, move |id| {
                        Event::Framed(worker, body, id)
                    })
                })
                .boxed(),
            beats
                .map(|delivery| {
                    Inbound::Told(Event::Heard(delivery.subject.worker, delivery.message))
                })
                .boxed(),
        ];
        Ok(Self {
            micro,
            messages: select_all(streams),
        })
    }

    /// Takes the service off the bus and turns away whoever is still in line.
    pub(crate) async fn close(mut self, why: &ErrorReply) {
        self.micro.stop().await;
        while let Some(Some(inbound)) = futures::FutureExt::now_or_never(self.messages.next()) {
            if let Inbound::Asked(asked) = inbound {
                asked.turn_away(why).await;
            }
        }
    }
}

fn raw<R>(
    responder: Option<Responder<R>>,
    event: impl FnOnce(Option<RequestId>) -> Event + Send + 'static,
) -> Inbound
where
    Waiting: From<Responder<R>>,
{
    match responder {
        Some(responder) => {
            let asker = Asker::new(responder, Span::none());
            Inbound::Asked(Asked::new(asker, |id| event(Some(id))))
        }
        None => Inbound::Told(event(None)),
    }
}

pub(crate) fn subscribing(what: &'static str) -> impl FnOnce(SubscribeError) -> Error {
    move |source| Error::Subscribe { what, source }
}
