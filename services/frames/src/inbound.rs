//! What arrives on the bus, as events of the core, and the duty to answer each.
//!
//! Requests that nobody waits for any more are not taken in. Frames come in one subscription, whoever sent them: what it may
//! hold unread is bounded, and so is the memory that a worker without manners can take.

use std::collections::{BTreeSet, HashMap};

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all};
use quintet_bus::{Bus, Incoming, Micro, Responder, SubscribeError, now};
use quintet_contract::api::Done;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::frame_api::{FrameWorkerSettings, FramesReply, IngestReply, PictureReply};
use quintet_contract::subject::{
    ActivateFrameWorker, ConfigureFrameWorkers, FrameWorkerHeartbeat, GetDisplayPicture,
    GetFrameWorkerSettings, IngestFrame, LookAtAllFrames, Request, SetFrameRate, StartFrameWorker,
    StopFrameWorker, WorkerFrame,
};
use serde::Serialize;
use tracing::Span;

use crate::core::{Answer, Event, RequestId, Wish};
use crate::error::Error;

/// One message: what to tell the core, and who waits.
pub(crate) struct Inbound {
    make: Box<dyn FnOnce(Option<RequestId>) -> Event + Send>,
    asker: Option<Asker>,
}

/// Somebody who waits for an answer, and the span in which it is given.
pub(crate) struct Asker {
    answer: Waiting,
    span: Span,
}

macro_rules! waiting {
    ($($variant:ident($reply:ty)),* $(,)?) => {
        /// The duty to answer, by kind of answer.
        enum Waiting {
            $($variant(Responder<$reply>)),*
        }

        impl Waiting {
            async fn refuse(self, error: &ErrorReply) {
                match self {
                    $(Self::$variant(responder) => responder.err(error).await),*
                }
            }
        }

        $(impl From<Responder<$reply>> for Waiting {
            fn from(responder: Responder<$reply>) -> Self {
                Self::$variant(responder)
            }
        })*
    };
}

waiting! {
    Done(Done),
    Look(FramesReply),
    Settings(FrameWorkerSettings),
    Picture(PictureReply),
    Ingested(IngestReply),
}

impl Asker {
    /// Gives the core's answer.
    pub(crate) async fn answer(self, answer: Answer) {
        let _entered = &self.span;
        match (self.answer, answer) {
            (waiting, Answer::Refused(error)) => waiting.refuse(&error).await,
            (Waiting::Done(to), Answer::Done) => to.ok(&Done { ok: true }).await,
            (Waiting::Look(to), Answer::Look(reply)) => to.ok(&*reply).await,
            (Waiting::Settings(to), Answer::Settings(reply)) => to.ok(&reply).await,
            (Waiting::Picture(to), Answer::Picture(reply)) => to.ok(&reply).await,
            (Waiting::Ingested(to), Answer::Ingested(reply)) => to.ok(&reply).await,
            (waiting, _) => {
                tracing::error!("the core answered something else than was asked");
                let text =
                    "the frames service answered something else than was asked; this is a defect";
                let error = ErrorReply::new(ErrorCode::Internal, text);
                waiting.refuse(&error).await;
            }
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

/// Those who wait, by the id that the core knows them by.
#[derive(Default)]
pub(crate) struct Askers {
    waiting: HashMap<RequestId, Asker>,
    next: u64,
}

impl Askers {
    /// Takes a message in; the event is for the core.
    pub(crate) fn enter(&mut self, inbound: Inbound) -> Event {
        let id = inbound.asker.map(|asker| {
            let id = RequestId(self.next);
            self.next += 1;
            self.waiting.insert(id, asker);
            id
        });
        (inbound.make)(id)
    }

    pub(crate) fn take(&mut self, id: RequestId) -> Option<Asker> {
        self.waiting.remove(&id)
    }

    pub(crate) async fn turn_all_away(&mut self, why: &ErrorReply) {
        for (_, asker) in self.waiting.drain() {
            asker.answer.refuse(why).await;
        }
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
                    .filter_map(async |incoming| asked(incoming, $name, $event))
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
                .map(|incoming| Inbound {
                    make: Box::new(move |id| Event::Ingested(incoming.body, id)),
                    asker: incoming.responder.map(unspanned),
                })
                .boxed(),
            frames
                .map(|incoming| Inbound {
                    make: Box::new(move |id| {
                        Event::Framed(incoming.subject.worker, incoming.body, id)
                    }),
                    asker: incoming.responder.map(unspanned),
                })
                .boxed(),
            beats
                .map(|delivery| Inbound {
                    make: Box::new(move |_| {
                        Event::Heard(delivery.subject.worker, delivery.message)
                    }),
                    asker: None,
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
            if let Some(asker) = inbound.asker {
                asker.answer.refuse(why).await;
            }
        }
    }
}

fn unspanned<R>(responder: Responder<R>) -> Asker
where
    Waiting: From<Responder<R>>,
{
    Asker {
        answer: responder.into(),
        span: Span::none(),
    }
}

pub(crate) fn subscribing(what: &'static str) -> impl FnOnce(SubscribeError) -> Error {
    move |source| Error::Subscribe { what, source }
}

fn asked<S>(
    incoming: Incoming<S>,
    name: &'static str,
    event: impl FnOnce(RequestId, S::Message) -> Event + Send + 'static,
) -> Option<Inbound>
where
    S: Request,
    S::Reply: Serialize,
    Waiting: From<Responder<S::Reply>>,
{
    // Nobody waits for a late request: it is dropped, which answers it too.
    if incoming.responder.is_late(now()) {
        return None;
    }
    let span = incoming.span("frames");
    tracing::debug!(parent: &span, operation = name, "asked");
    let message = incoming.message;
    Some(Inbound {
        make: Box::new(move |id| match id {
            Some(id) => event(id, message),
            // Every request that comes here is one that somebody waits for.
            None => Event::Due,
        }),
        asker: Some(Asker {
            answer: incoming.responder.into(),
            span,
        }),
    })
}
