//! What arrives on the bus, as events of the core, and the duty to answer each.
//!
//! Ids are attached here: each report gets one for the checkpoint that it may be. Requests that nobody waits for any more
//! are not taken in.

use std::collections::{BTreeSet, HashMap};

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all};
use quintet_bus::{Bus, Incoming, Micro, Responder, SubscribeError, new_checkpoint_id, now};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::{CheckpointId, RunShard};
use quintet_contract::run_api::{CancelReply, CheckpointReply, RunPage, RunReply};
use quintet_contract::subject::{
    AddRunCheckpoint, CancelRun, CompleteRuns, CreateRuns, DecideGates, GetRun, ListRunsOf,
    Request, RunReporting,
};
use quintet_contract::task::{MAX_REPORTS, RunReport, RunReportsReply, WorkerEvent};
use quintet_service::trace::current_traceparent;
use serde::Serialize;
use tracing::Span;

use crate::core::{Answer, Event, RequestId};
use crate::error::Error;

/// One message: what to tell the core once it has an id, and who waits.
pub(crate) struct Inbound {
    make: Box<dyn FnOnce(RequestId) -> Event + Send>,
    asker: Asker,
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
    Run(RunReply),
    Runs(RunPage),
    Canceled(CancelReply),
    Checkpoint(CheckpointReply),
    Reports(RunReportsReply),
}

impl Asker {
    /// Gives the core's answer.
    pub(crate) async fn answer(self, answer: Answer) {
        let _entered = &self.span;
        match (self.answer, answer) {
            (waiting, Answer::Refused(error)) => waiting.refuse(&error).await,
            (Waiting::Run(to), Answer::Run(reply)) => to.ok(&*reply).await,
            (Waiting::Runs(to), Answer::Runs(reply)) => to.ok(&reply).await,
            (Waiting::Canceled(to), Answer::Canceled(reply)) => to.ok(&reply).await,
            (Waiting::Checkpoint(to), Answer::Checkpoint(reply)) => to.ok(&reply).await,
            (Waiting::Reports(to), Answer::Verdicts(verdicts)) => {
                to.ok(&RunReportsReply { verdicts }).await
            }
            (waiting, _) => {
                tracing::error!("the core answered something else than was asked");
                let text = "the runner answered something else than was asked; this is a defect";
                waiting
                    .refuse(&ErrorReply::new(ErrorCode::Internal, text))
                    .await;
            }
        }
    }
}

/// Why nothing is done now: NATS does not store, or else these runs change hands.
pub(crate) fn refusal(not_storing: &BTreeSet<String>) -> ErrorReply {
    match not_storing.first() {
        Some(bucket) => ErrorReply::not_storing(bucket),
        None => ErrorReply::unavailable(
            "the runner of this run is changing; send the same request again in a moment",
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
        let id = RequestId(self.next);
        self.next += 1;
        self.waiting.insert(id, inbound.asker);
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
        macro_rules! ask {
            ($subject:ident, $name:literal, $event:expr) => {{
                let requests = micro
                    .endpoint(concat!($name), &$subject { shard })
                    .await
                    .map_err(subscribing($name))?;
                requests
                    .filter_map(async |incoming| asked(incoming, $name, $event))
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
            ask!(GetRun, "get", |id, asked| Event::Get(id, asked.run_id)),
            ask!(ListRunsOf, "list", Event::List),
            ask!(CancelRun, "cancel", |id, asked| Event::Cancel(
                id,
                asked.run_id
            )),
            ask!(AddRunCheckpoint, "checkpoint", |id, add| {
                Event::Checkpoint(id, Box::new(add))
            }),
            ask!(CompleteRuns, "complete", |id, complete| {
                Event::Complete(id, Box::new(complete))
            }),
            ask!(DecideGates, "decide", Event::Decide),
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
            inbound.asker.answer.refuse(why).await;
        }
    }
}

pub(crate) fn subscribing(what: &'static str) -> impl FnOnce(SubscribeError) -> Error {
    move |source| Error::Subscribe { what, source }
}

/// Nobody waits for a late request: it is dropped, which answers it too.
fn is_late<S: Request>(incoming: &Incoming<S>) -> bool
where
    S::Reply: Serialize,
{
    incoming.responder.is_late(now())
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
    if is_late(&incoming) {
        return None;
    }
    let span = incoming.span("runner");
    tracing::debug!(parent: &span, operation = name, "asked");
    let message = incoming.message;
    Some(Inbound {
        make: Box::new(move |id| event(id, message)),
        asker: Asker {
            answer: incoming.responder.into(),
            span,
        },
    })
}

/// The run's whole life belongs to the trace of the request that made it.
fn created(incoming: Incoming<CreateRuns>) -> Option<Inbound> {
    if is_late(&incoming) {
        return None;
    }
    let span = incoming.span("runner");
    let traceparent = span.in_scope(current_traceparent);
    let create = Box::new(incoming.message);
    Some(Inbound {
        make: Box::new(move |id| Event::Create(id, create, traceparent)),
        asker: Asker {
            answer: incoming.responder.into(),
            span,
        },
    })
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
    Some(Inbound {
        make: Box::new(move |id| Event::Reported(id, reports)),
        asker: Asker {
            answer: incoming.responder.into(),
            span: Span::none(),
        },
    })
}

/// A fresh id where the report is a checkpoint.
pub(crate) fn checkpoint_for(report: &RunReport) -> CheckpointId {
    match report.event {
        WorkerEvent::Checkpoint { .. } => new_checkpoint_id(),
        _ => CheckpointId::from_uuid(uuid::Uuid::nil()),
    }
}
