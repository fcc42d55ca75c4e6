//! Inbound: messages of the bus as events of the core, and the pending reply to each request.
//!
//! Ids are attached here: each report gets one for the checkpoint that it may be. Requests that came too late are dropped.

use futures::StreamExt;
use quintet_bus::Incoming;
use quintet_bus::pending::{InboundRequest, PendingReply, is_late};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::RunShard;
use quintet_contract::run_api::{AddCheckpoint, CompleteRun, RunRef};
use quintet_contract::subject::{
    AddRunCheckpoint, CancelRun, CompleteRuns, CreateRuns, DecideGates, GetRun, ListRunsOf,
    RunReporting,
};
use quintet_contract::task::MAX_REPORTS;
use quintet_leader::{Error, InboxOf, Message};
use tracing::Span;

use crate::core::Event;
use crate::outbound::{Outbound, checkpoint_for};

type Inbound = InboundRequest<Event>;

/// Opens all endpoints of a shard, and subscribes to what its workers report.
pub(crate) async fn open(inbox: &mut InboxOf<Outbound>, shard: RunShard) -> Result<(), Error> {
    let bus = inbox.bus().clone();
    let description = "runs: create, get, list, cancel, checkpoint, complete";
    let micro = inbox.service("runs", description).await?;
    let create = micro.endpoint("create", &CreateRuns { shard }).await;
    let create = create.map_err(Error::subscribing("create"))?;
    let reports = bus
        .serve::<RunReporting>(RunReporting::filter(bus.prefix(), Some(&shard)), None)
        .await
        .map_err(Error::subscribing("reports"))?;
    let create = create.filter_map(async |incoming| created(incoming).map(Message::Request));
    inbox.add_endpoint(create.boxed());
    let event = |id, request: RunRef| Event::Get(id, request.run_id);
    inbox.endpoint("get", &GetRun { shard }, event).await?;
    let subject = ListRunsOf { shard };
    inbox.endpoint("list", &subject, Event::List).await?;
    let event = |id, request: RunRef| Event::Cancel(id, request.run_id);
    let subject = CancelRun { shard };
    inbox.endpoint("cancel", &subject, event).await?;
    let event = |id, add: AddCheckpoint| Event::Checkpoint(id, Box::new(add));
    let subject = AddRunCheckpoint { shard };
    inbox.endpoint("checkpoint", &subject, event).await?;
    let event = |id, complete: CompleteRun| Event::Complete(id, Box::new(complete));
    let subject = CompleteRuns { shard };
    inbox.endpoint("complete", &subject, event).await?;
    let subject = DecideGates { shard };
    inbox.endpoint("decide", &subject, Event::Decide).await?;
    let reports =
        reports.filter_map(async |incoming| reported(incoming).await.map(Message::Request));
    inbox.add(reports.boxed());
    Ok(())
}

/// The run's whole life belongs to the trace of the request that made it.
fn created(incoming: Incoming<CreateRuns>) -> Option<Inbound> {
    if is_late(&incoming) {
        return None;
    }
    let span = incoming.span("runner");
    let traceparent = Some(incoming.traceparent(&span));
    let create = Box::new(incoming.message);
    let pending = PendingReply::new(incoming.responder, span);
    Some(Inbound::new(pending, move |id| {
        Event::Create(id, create, traceparent)
    }))
}

async fn reported(incoming: Incoming<RunReporting>) -> Option<Inbound> {
    if is_late(&incoming) {
        return None;
    }
    let mut reports = incoming.message.reports;
    if reports.len() > MAX_REPORTS {
        let text = format!("a message may hold {MAX_REPORTS} reports");
        let error = ErrorReply::new(ErrorCode::ValidationFailed, text);
        incoming.responder.err(&error).await;
        return None;
    }
    let reports = reports.drain(..).map(|report| {
        let id = checkpoint_for(&report);
        (report, id)
    });
    let reports: Vec<_> = reports.collect();
    // Reports are too many for spans.
    let pending = PendingReply::new(incoming.responder, Span::none());
    Some(Inbound::new(pending, move |id| {
        Event::Reported(id, reports)
    }))
}
