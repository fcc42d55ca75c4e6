//! Inbound: messages of the bus as events of the core, and the pending reply to each request.
//!
//! Time and ids are attached here: a submission that names no id gets one. Requests that came too late are dropped.

use futures::StreamExt;
use quintet_bus::pending::{InboundRequest, PendingReply, is_late};
use quintet_bus::{Incoming, new_job_id};
use quintet_contract::api::{SubmitBatch, SubmitJob};
use quintet_contract::id::PoolName;
use quintet_contract::reply::RequestId;
use quintet_contract::subject::{
    AgentHeartbeat, AgentReporting, ControlJobs, DrainAgents, DryRunJob, ExplainJob, ForgetAgent,
    GetAgent, GetJob, ListAgentsOf, ListJobsOf, PatchJobMetadata, Request, StopJob, SubmitJobBatch,
    SubmitJobs,
};
use quintet_leader::{Error, InboxOf, Message};
use tracing::Span;

use crate::core::{Event, Question, Traceparent};
use crate::outbound::Outbound;

/// The inbox of a scheduler.
pub(crate) type Inbox = InboxOf<Outbound>;
type Inbound = InboundRequest<Event>;

/// Opens all endpoints of a pool, and subscribes to what its agents send.
pub(crate) async fn open(inbox: &mut Inbox, pool: &PoolName) -> Result<(), Error> {
    open_services(inbox, pool).await?;
    let bus = inbox.bus().clone();
    let filter = AgentReporting::filter(bus.prefix(), None, Some(pool));
    let reports = bus.serve::<AgentReporting>(filter, None).await;
    let reports = reports.map_err(Error::subscribing("reports"))?;
    let filter = AgentHeartbeat::filter(bus.prefix(), None, Some(pool));
    let heartbeats = bus.serve::<AgentHeartbeat>(filter, None).await;
    let heartbeats = heartbeats.map_err(Error::subscribing("heartbeats"))?;
    let reports = reports.filter_map(async |incoming| reports_of(incoming).map(Message::Request));
    inbox.add(reports.boxed());
    let heartbeats =
        heartbeats.filter_map(async |incoming| heartbeat_of(incoming).map(Message::Request));
    inbox.add(heartbeats.boxed());
    Ok(())
}

/// Opens what clients request of a pool, without the messages of agents: each of those must reach the leader.
pub(crate) async fn open_services(inbox: &mut Inbox, pool: &PoolName) -> Result<(), Error> {
    let pool = pool.clone();
    macro_rules! endpoint {
        ($inbox:ident, $subject:ident, $name:literal, $question:expr) => {{
            let subject = $subject { pool: pool.clone() };
            let micro = $inbox.micro();
            let requests = micro.endpoint($name, &subject).await;
            let requests = requests.map_err(Error::subscribing($name))?;
            let requests = requests.filter_map(async |incoming| {
                question(incoming, $name, $question).map(Message::Request)
            });
            $inbox.add_endpoint(requests.boxed());
        }};
    }
    let description = "jobs of a pool: submit, list, get, stop, control";
    inbox.service("jobs", description).await?;
    endpoint!(inbox, SubmitJobs, "submit", |from, submit| {
        Question::Submit(from, Box::new(with_id(submit)))
    });
    endpoint!(
        inbox,
        SubmitJobBatch,
        "batch",
        |from, batch: SubmitBatch| {
            let jobs = batch.jobs.into_iter().map(with_id).collect();
            Question::SubmitBatch(from, SubmitBatch { jobs })
        }
    );
    endpoint!(inbox, DryRunJob, "dryrun", |from, submit| {
        Question::DryRun(from, Box::new(submit))
    });
    endpoint!(inbox, ListJobsOf, "list", Question::List);
    endpoint!(inbox, GetJob, "get", Question::Get);
    endpoint!(inbox, StopJob, "stop", Question::Stop);
    endpoint!(inbox, ControlJobs, "control", Question::Control);
    endpoint!(inbox, PatchJobMetadata, "metadata", Question::Metadata);
    endpoint!(inbox, ExplainJob, "explain", Question::Explain);
    let description = "agents of a pool: list, get, drain, forget";
    inbox.service("agents", description).await?;
    endpoint!(inbox, ListAgentsOf, "list", Question::ListAgents);
    endpoint!(inbox, GetAgent, "get", Question::GetAgent);
    endpoint!(inbox, DrainAgents, "drain", Question::Drain);
    endpoint!(inbox, ForgetAgent, "forget", Question::Forget);
    Ok(())
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
    S::Reply: 'static,
    S::Message: Send + 'static,
{
    if is_late(&incoming) {
        return None;
    }
    let span = incoming.span("scheduler");
    let traceparent: Traceparent = Some(incoming.traceparent(&span));
    tracing::debug!(parent: &span, operation = name, "accepted a request");
    let message = incoming.message;
    let pending = PendingReply::new(incoming.responder, span);
    Some(InboundRequest::new(pending, move |from| {
        Event::RequestReceived {
            question: question(from, message),
            traceparent,
        }
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
        Event::HeartbeatReceived {
            from,
            agent,
            heartbeat,
        }
    }))
}
