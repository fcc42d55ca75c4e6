//! Inbound: messages of the bus as events of the core, and the pending reply to each request.
//!
//! Requests that came too late are dropped. Frames of all workers come in one subscription: what it may hold
//! unread is bounded, and so is the memory that one worker can take.

use futures::StreamExt;
use quintet_bus::Responder;
use quintet_bus::pending::{InboundRequest, PendingReply};
use quintet_contract::api::Done;
use quintet_contract::frame_api::{ActivateWorker, ConfigureFrameWorker, FrameWorkerRef, SetFps};
use quintet_contract::reply::RequestId;
use quintet_contract::subject::{
    ActivateFrameWorker, ConfigureFrameWorkers, FormerFramesStatus, FrameWorkerHeartbeats,
    FramesStatus, GetDisplayPicture, GetFrameWorkerSettings, IngestFrame, SetFrameRate,
    StartFrameWorker, StopFrameWorker, WorkerFrame,
};
use quintet_leader::{Error, InboxOf, Message};
use tracing::Span;

use crate::core::{Command, Event};
use crate::outbound::Outbound;

/// Opens all endpoints, and subscribes to what workers send.
pub(crate) async fn open(inbox: &mut InboxOf<Outbound>) -> Result<(), Error> {
    let description = "frames: activate, start, stop, configure, rate, status, picture";
    inbox.service("frames", description).await?;
    let status = |id, _| Event::StatusRequested(id);
    inbox.endpoint("status", &FramesStatus {}, status).await?;
    let subject = FormerFramesStatus {};
    inbox.endpoint("look", &subject, status).await?;
    let event = |id, request: ActivateWorker| command(id, Command::Activate(request.id));
    let subject = ActivateFrameWorker {};
    inbox.endpoint("activate", &subject, event).await?;
    let event = |id, request: FrameWorkerRef| command(id, Command::Start(request.id));
    inbox.endpoint("start", &StartFrameWorker {}, event).await?;
    let event = |id, request: FrameWorkerRef| command(id, Command::Stop(request.id));
    inbox.endpoint("stop", &StopFrameWorker {}, event).await?;
    let event = |id, request: FrameWorkerRef| Event::SettingsRequested(id, request.id);
    let subject = GetFrameWorkerSettings {};
    inbox.endpoint("settings", &subject, event).await?;
    let event = |id, request: ConfigureFrameWorker| {
        command(id, Command::Configure(request.id, request.settings))
    };
    let subject = ConfigureFrameWorkers {};
    inbox.endpoint("configure", &subject, event).await?;
    let event = |id, request: SetFps| command(id, Command::SetRate(request.fps));
    inbox.endpoint("fps", &SetFrameRate {}, event).await?;
    let subject = GetDisplayPicture {};
    let event = Event::ImageRequested;
    inbox.endpoint("picture", &subject, event).await?;
    subscribe(inbox).await
}

/// Frames are too many for spans, and are not decoded.
async fn subscribe(inbox: &mut InboxOf<Outbound>) -> Result<(), Error> {
    let bus = inbox.bus().clone();
    let ingest = inbox.micro().raw_endpoint("ingest", &IngestFrame {}).await;
    let ingest = ingest.map_err(Error::subscribing("ingest"))?;
    let frames = bus
        .serve_raw::<WorkerFrame>(WorkerFrame::filter(bus.prefix(), None))
        .await
        .map_err(Error::subscribing("frames"))?;
    let beats = bus
        .subscribe::<FrameWorkerHeartbeats>(FrameWorkerHeartbeats::filter(bus.prefix(), None))
        .await
        .map_err(Error::subscribing("heartbeats"))?;
    let ingest = ingest.map(|incoming| {
        let body = incoming.body;
        raw(incoming.responder, move |id| Event::Ingested(body, id))
    });
    inbox.add_endpoint(ingest.boxed());
    let frames = frames.map(|incoming| {
        let (worker, body) = (incoming.subject.worker, incoming.body);
        raw(incoming.responder, move |id| {
            Event::FrameReceived(worker, body, id)
        })
    });
    inbox.add(frames.boxed());
    let beats = beats.map(|delivery| {
        let event = Event::HeartbeatReceived(delivery.subject.worker, delivery.message);
        Message::Notice(event)
    });
    inbox.add(beats.boxed());
    Ok(())
}

fn command(id: RequestId<Done>, command: Command) -> Event {
    Event::CommandReceived(id, command)
}

fn raw<R: 'static>(
    responder: Option<Responder<R>>,
    event: impl FnOnce(Option<RequestId<R>>) -> Event + Send + 'static,
) -> Message<Event> {
    match responder {
        Some(responder) => {
            let pending = PendingReply::new(responder, Span::none());
            Message::Request(InboundRequest::new(pending, |id| event(Some(id))))
        }
        None => Message::Notice(event(None)),
    }
}
