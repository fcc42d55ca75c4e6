//! What arrives on the bus, as events of the core, and the pending reply to each.
//!
//! Requests that nobody waits for any more are not taken in. Frames come in one subscription, whoever sent them: what it may
//! hold unread is bounded, and so is the memory that a worker without manners can take.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all};
use quintet_bus::pending::{InboundRequest, PendingReplies, PendingReply, accept};
use quintet_bus::{Bus, Micro, Responder, SubscribeError};
use quintet_contract::error::ErrorReply;
use quintet_contract::reply::RequestId;
use quintet_contract::subject::{
    ActivateFrameWorker, ConfigureFrameWorkers, FormerFramesStatus, FrameWorkerHeartbeats,
    FramesStatus, GetDisplayPicture, GetFrameWorkerSettings, IngestFrame, SetFrameRate,
    StartFrameWorker, StopFrameWorker, WorkerFrame,
};
use tracing::Span;

use crate::core::{Event, Wish};
use crate::error::Error;

/// One message.
pub(crate) enum Inbound {
    /// It waits for a reply.
    Request(InboundRequest<Event>),
    /// It does not.
    Message(Event),
}

impl Inbound {
    /// Takes it in; the event is for the core.
    pub(crate) fn enter(self, pending: &mut PendingReplies) -> Event {
        match self {
            Self::Request(request) => pending.enter(request),
            Self::Message(event) => event,
        }
    }
}

/// Why nothing is done now: NATS does not store, or else the display changes hands.
pub(crate) fn refusal(unwritable: &BTreeSet<String>) -> ErrorReply {
    match unwritable.first() {
        Some(bucket) => ErrorReply::unwritable(bucket),
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
            "frames: activate, start, stop, configure, rate, status, picture",
        );
        let micro = micro.await.map_err(subscribing("the frames service"))?;
        macro_rules! operation {
            ($subject:ident, $name:literal, $event:expr) => {{
                let requests = micro
                    .endpoint($name, &$subject {})
                    .await
                    .map_err(subscribing($name))?;
                requests
                    .filter_map(async |incoming| {
                        accept(incoming, "frames", $name, $event).map(Inbound::Request)
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
            .subscribe::<FrameWorkerHeartbeats>(FrameWorkerHeartbeats::filter(bus.prefix(), None))
            .await
            .map_err(subscribing("heartbeats"))?;
        let streams = vec![
            operation!(FramesStatus, "status", |id, _| Event::Looked(id)),
            operation!(FormerFramesStatus, "look", |id, _| Event::Looked(id)),
            operation!(ActivateFrameWorker, "activate", |id, asked| {
                Event::Wished(id, Wish::Activate(asked.id))
            }),
            operation!(StartFrameWorker, "start", |id, asked| {
                Event::Wished(id, Wish::Start(asked.id))
            }),
            operation!(StopFrameWorker, "stop", |id, asked| {
                Event::Wished(id, Wish::Stop(asked.id))
            }),
            operation!(GetFrameWorkerSettings, "settings", |id, asked| {
                Event::SettingsAsked(id, asked.id)
            }),
            operation!(ConfigureFrameWorkers, "configure", |id, asked| {
                Event::Wished(id, Wish::Configure(asked.id, asked.settings))
            }),
            operation!(SetFrameRate, "fps", |id, asked| {
                Event::Wished(id, Wish::SetRate(asked.fps))
            }),
            operation!(GetDisplayPicture, "picture", Event::PictureAsked),
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
                    Inbound::Message(Event::Heard(delivery.subject.worker, delivery.message))
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
            if let Inbound::Request(request) = inbound {
                request.reject(why).await;
            }
        }
    }
}

fn raw<R: 'static>(
    responder: Option<Responder<R>>,
    event: impl FnOnce(Option<RequestId<R>>) -> Event + Send + 'static,
) -> Inbound {
    match responder {
        Some(responder) => {
            let pending = PendingReply::new(responder, Span::none());
            Inbound::Request(InboundRequest::new(pending, |id| event(Some(id))))
        }
        None => Inbound::Message(event(None)),
    }
}

pub(crate) fn subscribing(what: &'static str) -> impl FnOnce(SubscribeError) -> Error {
    move |source| Error::Subscribe { what, source }
}
