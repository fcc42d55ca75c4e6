//! Events ([`Event`]), writes ([`Write`]) and actions of the core; actions happen once the writes are stored
//! ([`Action`]).

use quintet_contract::agent::{
    AgentCommand, AgentReports, Assignment, CommandReply, Heartbeat, HeartbeatReply, ReportsReply,
};
use quintet_contract::api::{
    AgentPage, AgentRef, AgentReply, BatchReply, ControlJob, ControlReply, Done, DrainAgent,
    DryRunReply, Explanation, JobPage, JobRef, JobReply, ListAgents, ListJobs, MetadataReply,
    PatchMetadata, SubmitBatch, SubmitJob, SubmitReply,
};
use quintet_contract::error::ErrorReply;
use quintet_contract::id::{AgentId, IdempotencyKey, JobId, TemplateId};
use quintet_contract::job::{Job, KeyRecord};
use quintet_contract::replies;
use quintet_contract::reply::{Reply, RequestId};
use quintet_contract::template::Template;

/// Names a command that waits for an agent's answer; given by the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// Trace context of whatever caused something, as a W3C `traceparent`.
pub type Traceparent = Option<String>;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client asked something.
    RequestReceived {
        /// What it asked.
        question: Question,
        /// The client's trace.
        traceparent: Traceparent,
    },
    /// A claim on an idempotency key was decided.
    KeyClaimed {
        /// The key.
        key: IdempotencyKey,
        /// The agent that has it.
        outcome: Claim,
    },
    /// An agent reported facts.
    Reported {
        /// Where the answer goes.
        from: RequestId<ReportsReply>,
        /// The sender, by its subject.
        agent: AgentId,
        /// The facts.
        reports: AgentReports,
    },
    /// A heartbeat of an agent.
    HeartbeatReceived {
        /// Where the answer goes.
        from: RequestId<HeartbeatReply>,
        /// The sender, by its subject.
        agent: AgentId,
        /// The heartbeat.
        heartbeat: Heartbeat,
    },
    /// An agent answered a command, or did not.
    CommandAnswered {
        /// Which command.
        command_id: CommandId,
        /// Its answer.
        outcome: Result<CommandReply, ErrorReply>,
    },
    /// Records were rejected by the store.
    WriteRejected {
        /// Which, and what was to be done then.
        rejection: Rejection,
        /// Those of the jobs that were never stored.
        unstored: Vec<JobId>,
    },
    /// A template was stored.
    TemplateStored(Box<Template>),
    /// A template was deleted.
    TemplateDeleted(TemplateId),
}

/// The outcome of a claim on an idempotency key.
#[derive(Clone, Debug)]
pub enum Claim {
    /// It is ours, at this revision.
    Created(u64),
    /// It was taken before.
    Taken {
        /// The record under it.
        record: Box<KeyRecord>,
        /// At this revision.
        revision: u64,
        /// The job it stands for, when that belongs to another pool.
        elsewhere: Option<Box<Job>>,
    },
    /// Unknown: the bus did not answer.
    Failed(ErrorReply),
}

/// What clients ask, each with where the answer goes.
#[derive(Clone, Debug)]
pub enum Question {
    /// A new job.
    Submit(RequestId<SubmitReply>, Box<SubmitJob>),
    /// Several new jobs.
    SubmitBatch(RequestId<BatchReply>, SubmitBatch),
    /// Where would it go?
    DryRun(RequestId<DryRunReply>, Box<SubmitJob>),
    /// Which jobs are there?
    List(RequestId<JobPage>, ListJobs),
    /// How is this job?
    Get(RequestId<JobReply>, JobRef),
    /// Stop it.
    Stop(RequestId<JobReply>, JobRef),
    /// A live command to it.
    Control(RequestId<ControlReply>, ControlJob),
    /// Merge this into its stream metadata.
    Metadata(RequestId<MetadataReply>, PatchMetadata),
    /// Why is it where it is?
    Explain(RequestId<Explanation>, JobRef),
    /// Which agents are there?
    ListAgents(RequestId<AgentPage>, ListAgents),
    /// How is this agent?
    GetAgent(RequestId<AgentReply>, AgentRef),
    /// Give it no more jobs, or give it jobs again.
    Drain(RequestId<AgentReply>, DrainAgent),
    /// Forget an offline agent.
    Forget(RequestId<Done>, AgentRef),
}

replies! {
    /// Answers, each to its own request.
    pub enum Answer {
        /// To a submission.
        Submitted(SubmitReply),
        /// To a batch.
        Batch(BatchReply),
        /// To a dry run.
        DryRun(DryRunReply),
        /// To a list.
        Jobs(JobPage),
        /// To a get or a stop.
        Job(JobReply),
        /// To a live command.
        Control(ControlReply),
        /// To a merge.
        Metadata(MetadataReply),
        /// To an explain.
        Explanation(Explanation),
        /// To a list of agents.
        Agents(AgentPage),
        /// To a get or a drain of an agent.
        Agent(AgentReply),
        /// To a forget.
        Done(Done),
        /// To reports.
        Reports(ReportsReply),
        /// To a heartbeat.
        Heartbeat(HeartbeatReply),
    }
}

/// Names one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Record {
    /// Of a job.
    Job(JobId),
    /// Of an agent.
    Agent(AgentId),
}

/// Records that the store rejected.
pub type Rejection = quintet_leader::Rejection<Record, Action>;

/// What is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The job as it is now. The idempotency key of a job that has ended ends before it, to expire with it.
    Job(JobId),
    /// The agent as it is now.
    Agent(AgentId),
    /// That there is no such agent.
    NoAgent(AgentId),
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Claim a key; comes back as [`Event::KeyClaimed`].
    ClaimKey {
        /// The key.
        key: IdempotencyKey,
        /// What to write under it.
        record: Box<KeyRecord>,
        /// The revision to replace; zero for none.
        replaces: u64,
    },
    /// Put an offer into the agent's queue.
    Offer {
        /// The agent.
        agent: AgentId,
        /// The offer.
        assignment: Box<Assignment>,
        /// The job's trace.
        traceparent: Traceparent,
    },
    /// Send a command to an agent.
    Command {
        /// The agent.
        agent: AgentId,
        /// The command.
        command: AgentCommand,
        /// The requester that waits for the answer; it comes back as [`Event::CommandAnswered`].
        command_id: Option<CommandId>,
        /// The job's trace.
        traceparent: Traceparent,
    },
    /// Answer a request.
    Reply(Reply<Answer>),
    /// The job's time is over and its record has expired: nothing about it needs to be kept.
    Forget(JobId),
    /// Count something that should be seen in the metrics.
    Count(Anomaly),
}

/// Messages of agents that make no sense, as far as the core knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// A report that was processed before.
    Duplicate,
    /// A report of an attempt that is no longer the agent's.
    Stale,
    /// A report of a status that cannot follow.
    Backward,
    /// A job without a record.
    Recovered,
    /// A report or command of a kind that this version does not know.
    UnknownKind,
    /// Metadata with wrong types or over the limits.
    BadMetadata,
    /// A message of a session that is not the agent's current one.
    OldSession,
    /// A record that the store rejects however much of it is left out.
    Unstorable,
}
