//! What arrives on the bus, as events of the core, and the pending reply to each.
//!
//! Ids are attached here: each report gets one for the checkpoint that it may be. Requests that nobody waits for any more
//! are not taken in.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all};
use quintet_bus::pending::{InboundRequest, PendingReply, accept, is_late};
use quintet_bus::{Bus, Incoming, Micro, SubscribeError, new_checkpoint_id};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::{CheckpointId, RunShard};
use quintet_contract::subject::{
    AddRunCheckpoint, CancelRun, CompleteRuns, CreateRuns, DecideGates, GetRun, ListRunsOf,
    RunReporting,
};
use quintet_contract::task::{MAX_REPORTS, RunReport, WorkerEvent};
use quintet_service::trace::current_traceparent;
use tracing::Span;

use crate::core::Event;
use crate::error::Error;

/// One request that waits for a reply.
pub(crate) type Inbound = InboundRequest<Event>;

/// Why nothing is done now: NATS does not store, or else these runs change hands.
pub(crate) fn refusal(unwritable: &BTreeSet<String>) -> ErrorReply {
    match unwritable.first() {
        Some(bucket) => ErrorReply::unwritable(bucket),
        None => ErrorReply::unavailable(
            "the runner of this run is changing; send the same request again in a moment",
        ),
    }
}

/// Everything that the runner of a shard serves.
pub(crate) struct Inbox {
    pub(crate) micro: Micro,
    pub(crate) messages: SelectAll<BoxStream<'static, Inbound>>,
}

impl Inbox {
    /// Opens all endpoints of a shard, and hears its workers.
    pub(crate) async fn open(bus: &Bus, shard: RunShard) -> Result<Self, Error> {
        let micro = bus.micro(
            "runs",
            "runs: create, get, list, cancel, checkpoint, complete",
        );
        let micro = micro.await.map_err(subscribing("the runs service"))?;
        macro_rules! operation {
            ($subject:ident, $name:literal, $event:expr) => {{
                let requests = micro
                    .endpoint(concat!($name), &$subject { shard })
                    .await
                    .map_err(subscribing($name))?;
                requests
                    .filter_map(async |incoming| accept(incoming, "runner", $name, $event))
                    .boxed()
            }};
        }
        let create = micro
            .endpoint("create", &CreateRuns { shard })
            .await
            .map_err(subscribing("create"))?;
        let reports = bus
            .serve::<RunReporting>(RunReporting::filter(bus.prefix(), Some(&shard)), None)
            .await
            .map_err(subscribing("reports"))?;
        let streams = vec![
            create
                .filter_map(async |incoming| created(incoming))
                .boxed(),
            operation!(GetRun, "get", |id, asked| Event::Get(id, asked.run_id)),
            operation!(ListRunsOf, "list", Event::List),
            operation!(CancelRun, "cancel", |id, asked| Event::Cancel(
                id,
                asked.run_id
            )),
            operation!(AddRunCheckpoint, "checkpoint", |id, add| {
                Event::Checkpoint(id, Box::new(add))
            }),
            operation!(CompleteRuns, "complete", |id, complete| {
                Event::Complete(id, Box::new(complete))
            }),
            operation!(DecideGates, "decide", Event::Decide),
            reports
                .filter_map(async |incoming| reported(incoming))
                .boxed(),
        ];
        Ok(Self {
            micro,
            messages: select_all(streams),
        })
    }

    /// Takes the services off the bus and turns away whoever is still in line.
    pub(crate) async fn close(mut self, why: &ErrorReply) {
        self.micro.stop().await;
        while let Some(Some(inbound)) = futures::FutureExt::now_or_never(self.messages.next()) {
            inbound.reject(why).await;
        }
    }
}

pub(crate) fn subscribing(what: &'static str) -> impl FnOnce(SubscribeError) -> Error {
    move |source| Error::Subscribe { what, source }
}

/// The run's whole life belongs to the trace of the request that made it.
fn created(incoming: Incoming<CreateRuns>) -> Option<Inbound> {
    if is_late(&incoming) {
        return None;
    }
    let span = incoming.span("runner");
    let traceparent = span.in_scope(current_traceparent);
    let create = Box::new(incoming.message);
    let pending = PendingReply::new(incoming.responder, span);
    Some(Inbound::new(pending, move |id| {
        Event::Create(id, create, traceparent)
    }))
}

fn reported(incoming: Incoming<RunReporting>) -> Option<Inbound> {
    if is_late(&incoming) {
        return None;
    }
    let mut reports = incoming.message.reports;
    if reports.len() > MAX_REPORTS {
        let text = format!("a message may hold {MAX_REPORTS} reports");
        let error = ErrorReply::new(ErrorCode::ValidationFailed, text);
        tokio::spawn(async move { incoming.responder.err(&error).await });
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

/// A fresh id where the report is a checkpoint.
pub(crate) fn checkpoint_for(report: &RunReport) -> CheckpointId {
    match report.event {
        WorkerEvent::Checkpoint { .. } => new_checkpoint_id(),
        _ => CheckpointId::from_uuid(uuid::Uuid::nil()),
    }
}
