//! What arrives on the bus, as events of the core, and the duty to answer each.
//!
//! Time and ids are attached here: a submission that names no id gets one. Requests that nobody waits for any more are
//! not taken in.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all};
use quintet_bus::asking::{self, Answering, Asker, Refusing, is_late, misfit};
use quintet_bus::{Bus, Incoming, Micro, Responder, SubscribeError, new_job_id, waiting};
use quintet_contract::agent::{HeartbeatReply, ReportsReply};
use quintet_contract::api::{
    AgentPage, AgentReply, BatchReply, ControlReply, Done, DryRunReply, Explanation, JobPage,
    JobReply, MetadataReply, SubmitJob, SubmitReply,
};
use quintet_contract::error::ErrorReply;
use quintet_contract::id::PoolName;
use quintet_contract::subject::{
    AgentHeartbeat, AgentReporting, ControlJobs, DrainAgents, DryRunJob, ExplainJob, ForgetAgent,
    GetAgent, GetJob, ListAgentsOf, ListJobsOf, PatchJobMetadata, Request, StopJob, SubmitJobBatch,
    SubmitJobs,
};
use quintet_service::trace::current_traceparent;
use serde::Serialize;
use tracing::Span;

use crate::core::{Answer, Event, Question, RequestId, Traceparent};
use crate::error::Error;

/// One message of somebody who waits.
pub(crate) type Inbound = asking::Inbound<RequestId, Waiting, Event>;
/// Those who wait.
pub(crate) type Askers = asking::Askers<RequestId, Waiting>;

waiting! {
    Submitted(SubmitReply),
    Batch(BatchReply),
    DryRun(DryRunReply),
    Jobs(JobPage),
    Job(JobReply),
    Control(ControlReply),
    Metadata(MetadataReply),
    Explanation(Explanation),
    Agents(AgentPage),
    Agent(AgentReply),
    Done(Done),
    Reports(ReportsReply),
    Heartbeat(HeartbeatReply),
}

impl Answering for Waiting {
    type Answer = Answer;

    async fn answer(self, answer: Answer) {
        match (self, answer) {
            (waiting, Answer::Refused(error)) => waiting.refuse(&error).await,
            (Self::Submitted(to), Answer::Submitted(reply)) => to.ok(&*reply).await,
            (Self::Batch(to), Answer::Batch(reply)) => to.ok(&reply).await,
            (Self::DryRun(to), Answer::DryRun(reply)) => to.ok(&reply).await,
            (Self::Jobs(to), Answer::Jobs(reply)) => to.ok(&reply).await,
            (Self::Job(to), Answer::Job(reply)) => to.ok(&*reply).await,
            (Self::Control(to), Answer::Control(reply)) => to.ok(&*reply).await,
            (Self::Metadata(to), Answer::Metadata(reply)) => to.ok(&reply).await,
            (Self::Explanation(to), Answer::Explanation(reply)) => to.ok(&reply).await,
            (Self::Agents(to), Answer::Agents(reply)) => to.ok(&reply).await,
            (Self::Agent(to), Answer::Agent(reply)) => to.ok(&*reply).await,
            (Self::Done(to), Answer::Done(reply)) => to.ok(&reply).await,
            (Self::Reports(to), Answer::Reports(reply)) => to.ok(&reply).await,
            (Self::Heartbeat(to), Answer::Heartbeat(reply)) => to.ok(&reply).await,
            (waiting, _) => misfit(waiting, "scheduler").await,
        }
    }
}

/// Why nothing is done now: NATS does not store, or else a leader is going and another one, or the same, will come.
pub(crate) fn refusal(not_storing: &BTreeSet<String>) -> ErrorReply {
    match not_storing.first() {
        Some(bucket) => ErrorReply::not_storing(bucket),
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
        macro_rules! ask {
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
            ask!(jobs, SubmitJobs, "submit", |submit| Question::Submit(
                Box::new(with_id(submit))
            )),
            ask!(jobs, SubmitJobBatch, "batch", |mut batch| {
                batch.jobs = batch.jobs.into_iter().map(with_id).collect();
                Question::SubmitBatch(batch)
            }),
            ask!(jobs, DryRunJob, "dryrun", |submit| Question::DryRun(
                Box::new(submit)
            )),
            ask!(jobs, ListJobsOf, "list", Question::List),
            ask!(jobs, GetJob, "get", Question::Get),
            ask!(jobs, StopJob, "stop", Question::Stop),
            ask!(jobs, ControlJobs, "control", Question::Control),
            ask!(jobs, PatchJobMetadata, "metadata", Question::Metadata),
            ask!(jobs, ExplainJob, "explain", Question::Explain),
            ask!(agents, ListAgentsOf, "list", Question::ListAgents),
            ask!(agents, GetAgent, "get", Question::GetAgent),
            ask!(agents, DrainAgents, "drain", Question::Drain),
            ask!(agents, ForgetAgent, "forget", Question::Forget),
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
            inbound.turn_away(why).await;
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
    question: impl FnOnce(S::Message) -> Question,
) -> Option<Inbound>
where
    S: Request,
    S::Reply: Serialize,
    Waiting: From<Responder<S::Reply>>,
{
    if is_late(&incoming) {
        return None;
    }
    let span = incoming.span("scheduler");
    let traceparent: Traceparent = span.in_scope(current_traceparent);
    tracing::debug!(parent: &span, operation = name, "asked");
    let question = question(incoming.message);
    let asker = Asker::new(incoming.responder, span);
    Some(Inbound::new(asker, move |from| Event::Asked {
        from,
        question,
        traceparent,
    }))
}

fn reports_of(incoming: Incoming<AgentReporting>) -> Option<Inbound> {
    if is_late(&incoming) {
        return None;
    }
    let span = incoming.span("reports");
    let (agent, reports) = (incoming.subject.agent, incoming.message);
    let asker = Asker::new(incoming.responder, span);
    Some(Inbound::new(asker, move |from| Event::Reported {
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
    // Heartbeats are too many and too dull for spans.
    let asker = Asker::new(incoming.responder, Span::none());
    Some(Inbound::new(asker, move |from| Event::HeartbeatCame {
        from,
        agent,
        heartbeat,
    }))
}
