//! What arrives on the bus, as events of the core, and the pending reply to each.
//!
//! Time and ids are attached here: a submission that names no id gets one. Requests that nobody waits for any more are
//! not taken in.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all};
use quintet_bus::pending::{InboundRequest, PendingReply, is_late};
use quintet_bus::{Bus, Incoming, Micro, SubscribeError, new_job_id};
use quintet_contract::api::SubmitJob;
use quintet_contract::error::ErrorReply;
use quintet_contract::id::PoolName;
use quintet_contract::reply::RequestId;
use quintet_contract::subject::{
    AgentHeartbeat, AgentReporting, ControlJobs, DrainAgents, DryRunJob, ExplainJob, ForgetAgent,
    GetAgent, GetJob, ListAgentsOf, ListJobsOf, PatchJobMetadata, Request, StopJob, SubmitJobBatch,
    SubmitJobs,
};
use quintet_service::trace::current_traceparent;
use tracing::Span;

use crate::core::{Event, Question, Traceparent};
use crate::error::Error;

/// One request or message that waits for a reply.
pub(crate) type Inbound = InboundRequest<Event>;

/// Why nothing is done now: NATS does not store, or else a leader is going and another one, or the same, will come.
pub(crate) fn refusal(unwritable: &BTreeSet<String>) -> ErrorReply {
    match unwritable.first() {
        Some(bucket) => ErrorReply::unwritable(bucket),
        None => ErrorReply::unavailable(
            "the scheduler of this pool is changing hands; send the same request again in a moment",
        ),
    }
}

/// Everything that a leading scheduler serves.
pub(crate) struct Inbox {
    pub(crate) micros: Vec<Micro>,
    pub(crate) messages: SelectAll<BoxStream<'static, Inbound>>,
}

impl Inbox {
    /// Opens all endpoints of a pool, and hears its agents.
    pub(crate) async fn open(bus: &Bus, pool: &PoolName) -> Result<Self, Error> {
        let mut inbox = Self::services(bus, pool).await?;
        let filter = AgentReporting::filter(bus.prefix(), None, Some(pool));
        let reports = bus.serve::<AgentReporting>(filter, None).await;
        let reports = reports.map_err(subscribing("reports"))?;
        let filter = AgentHeartbeat::filter(bus.prefix(), None, Some(pool));
        let heartbeats = bus.serve::<AgentHeartbeat>(filter, None).await;
        let heartbeats = heartbeats.map_err(subscribing("heartbeats"))?;
        let messages = &mut inbox.messages;
        messages.push(
            reports
                .filter_map(async |incoming| reports_of(incoming))
                .boxed(),
        );
        messages.push(
            heartbeats
                .filter_map(async |incoming| heartbeat_of(incoming))
                .boxed(),
        );
        Ok(inbox)
    }

    /// Opens what is asked of a pool, and is deaf for its agents: each of their messages must reach the leader.
    pub(crate) async fn services(bus: &Bus, pool: &PoolName) -> Result<Self, Error> {
        let jobs = bus.micro("jobs", "jobs of a pool: submit, list, get, stop, control");
        let jobs = jobs.await.map_err(subscribing("the jobs service"))?;
        let agents = bus.micro("agents", "agents of a pool: list, get, drain, forget");
        let agents = agents.await.map_err(subscribing("the agents service"))?;
        let pool = pool.clone();
        macro_rules! operation {
            ($micro:ident, $subject:ident, $name:literal, $question:expr) => {{
                let subject = $subject { pool: pool.clone() };
                let requests = $micro
                    .endpoint($name, &subject)
                    .await
                    .map_err(subscribing($name))?;
                requests
                    .filter_map(async |incoming| question(incoming, $name, $question))
                    .boxed()
            }};
        }
        let streams = vec![
            operation!(jobs, SubmitJobs, "submit", |from, submit| {
                Question::Submit(from, Box::new(with_id(submit)))
            }),
            operation!(jobs, SubmitJobBatch, "batch", |from, mut batch| {
                batch.jobs = batch.jobs.into_iter().map(with_id).collect();
                Question::SubmitBatch(from, batch)
            }),
            operation!(jobs, DryRunJob, "dryrun", |from, submit| {
                Question::DryRun(from, Box::new(submit))
            }),
            operation!(jobs, ListJobsOf, "list", Question::List),
            operation!(jobs, GetJob, "get", Question::Get),
            operation!(jobs, StopJob, "stop", Question::Stop),
            operation!(jobs, ControlJobs, "control", Question::Control),
            operation!(jobs, PatchJobMetadata, "metadata", Question::Metadata),
            operation!(jobs, ExplainJob, "explain", Question::Explain),
            operation!(agents, ListAgentsOf, "list", Question::ListAgents),
            operation!(agents, GetAgent, "get", Question::GetAgent),
            operation!(agents, DrainAgents, "drain", Question::Drain),
            operation!(agents, ForgetAgent, "forget", Question::Forget),
        ];
        Ok(Self {
            micros: vec![jobs, agents],
            messages: select_all(streams),
        })
    }

    /// Takes the services off the bus and turns away whoever is still in line.
    pub(crate) async fn close(mut self, why: &ErrorReply) {
        for micro in self.micros.drain(..) {
            micro.stop().await;
        }
        while let Some(Some(inbound)) = futures::FutureExt::now_or_never(self.messages.next()) {
            inbound.reject(why).await;
        }
    }
}

fn subscribing(what: &'static str) -> impl FnOnce(SubscribeError) -> Error {
    move |source| Error::Subscribe { what, source }
}

fn with_id(submit: SubmitJob) -> SubmitJob {
    SubmitJob {
        job_id: Some(submit.job_id.unwrap_or_else(new_job_id)),
        ..submit
    }
}

fn question<S>(
    incoming: Incoming<S>,
    name: &'static str,
    question: impl FnOnce(RequestId<S::Reply>, S::Message) -> Question + Send + 'static,
) -> Option<Inbound>
where
    S: Request,
{
    if is_late(&incoming) {
        return None;
    }
    let span = incoming.span("scheduler");
    let traceparent: Traceparent = span.in_scope(current_traceparent);
    tracing::debug!(parent: &span, operation = name, "accepted a request");
    let message = incoming.message;
    let pending = PendingReply::new(incoming.responder, span);
    Some(InboundRequest::new(pending, move |from| Event::Asked {
        question: question(from, message),
        traceparent,
    }))
}

fn reports_of(incoming: Incoming<AgentReporting>) -> Option<Inbound> {
    if is_late(&incoming) {
        return None;
    }
    let span = incoming.span("reports");
    let (agent, reports) = (incoming.subject.agent, incoming.message);
    let pending = PendingReply::new(incoming.responder, span);
    Some(InboundRequest::new(pending, move |from| Event::Reported {
        from,
        agent,
        reports,
    }))
}

fn heartbeat_of(incoming: Incoming<AgentHeartbeat>) -> Option<Inbound> {
    if is_late(&incoming) {
        return None;
    }
    let (agent, heartbeat) = (incoming.subject.agent, incoming.message);
    // Heartbeats are too many for spans.
    let pending = PendingReply::new(incoming.responder, Span::none());
    Some(InboundRequest::new(pending, move |from| {
        Event::HeartbeatCame {
            from,
            agent,
            heartbeat,
        }
    }))
}
