//! Subjects as types: each fixes its message, renders to text under the configured prefix, and parses back.
//!
//! A pattern is a list of tokens; `{name}` is a field, `{pool?}` one that is left out for the default pool.
//! No other crate formats or splits subjects. [`crate::table`] describes the same subjects for documents
//! and permissions.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agent::{
    AgentCommand, AgentReports, Assignment, CommandReply, Heartbeat, HeartbeatReply, ReportsReply,
};
use crate::api::{
    AgentPage, AgentRef, AgentReply, BatchReply, ControlJob, ControlReply, Done, DrainAgent,
    DryRunReply, Explanation, JobPage, JobRef, JobReply, ListAgents, ListJobs, ListTemplates,
    MetadataReply, PatchMetadata, PutTemplate, SubmitBatch, SubmitJob, SubmitReply, TemplateList,
    TemplateRef, TemplateReply,
};
use crate::event::{JobEvent, JobLog};
use crate::frame::RawFrame;
use crate::frame_api::{
    ActivateWorker, ConfigureFrameWorker, FrameStats, FrameWorkerHeartbeat, FrameWorkerMessage,
    FrameWorkerRef, FrameWorkerSettings, FramesReply, GetFramesStatus, GetPicture, IngestReply,
    PictureReply, SetFps,
};
use crate::id::{
    AgentId, HolderId, JobId, NameError, PoolName, QueueName, RateIdentity, RateWindow, RunId,
    RunShard, Token, WorkerId,
};
use crate::run::RunLogBatch;
use crate::run_api::{
    AddCheckpoint, CancelReply, CheckpointReply, CompleteRun, CreateRun, DecideGate, ListRuns,
    PlanReply, PlanRun, RunPage, RunRef, RunReply,
};
use crate::task::{RunReports, RunReportsReply, Task, WorkerCommand};
use crate::worker::{WorkerHeartbeat, WorkerKind};

/// The first token or tokens of every subject; keeps several installations on one NATS apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prefix(std::sync::Arc<str>);

impl Prefix {
    /// The prefix when none is configured.
    pub const DEFAULT: &'static str = "quintet";

    /// Takes one or more tokens of letters, digits, `_` and `-`, separated by dots.
    ///
    /// # Errors
    /// [`NameError`] for a text that cannot begin a subject.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty("subject prefix"));
        }
        let legal = text
            .split('.')
            .all(|token| !token.is_empty() && crate::id::escape(token) == token);
        if !legal {
            return Err(NameError::Control("subject prefix"));
        }
        Ok(Self(text.into()))
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Prefix {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A subject with its fields filled in.
pub trait Subject: Sized + Clone + Send + Sync + 'static {
    /// What is published there.
    type Message: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// The tokens after the prefix.
    const PATTERN: &'static str;
    /// The whole subject.
    fn render(&self, prefix: &Prefix) -> String;
    /// Reads a subject back; `None` for any other subject.
    fn parse(prefix: &Prefix, subject: &str) -> Option<Self>;
}

/// A subject whose messages are answered.
pub trait Request: Subject {
    /// The answer when nothing failed.
    type Reply: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}

fn render(prefix: &Prefix, pattern: &str, fields: &[Option<Cow<'_, str>>]) -> String {
    let mut subject = String::with_capacity(64);
    subject.push_str(prefix.as_str());
    let mut fields = fields.iter();
    for token in pattern.split('.') {
        if token.starts_with('{') {
            if let Some(Some(value)) = fields.next() {
                subject.push('.');
                subject.push_str(value);
            }
        } else {
            subject.push('.');
            subject.push_str(token);
        }
    }
    subject
}

/// The values of the pattern's fields in order; `None` inside for an optional field that was left out.
fn split<'s>(prefix: &Prefix, pattern: &str, subject: &'s str) -> Option<Vec<Option<&'s str>>> {
    let mut rest = subject
        .strip_prefix(prefix.as_str())?
        .strip_prefix('.')?
        .split('.');
    let mut fields = Vec::new();
    for token in pattern.split('.') {
        if token.ends_with("?}") {
            fields.push(rest.next());
        } else if token.starts_with('{') {
            fields.push(Some(rest.next()?));
        } else if rest.next()? != token {
            return None;
        }
    }
    rest.next().is_none().then_some(fields)
}

macro_rules! subjects {
    ($(#[doc = $doc:literal] $name:ident { $($field:ident: $ty:ty),* } = $pattern:literal, $message:ty $(=> $reply:ty)?;)*) => {
        /// Every subject, in the order of this file.
        pub const SUBJECTS: &[SubjectInfo] = &[$(SubjectInfo {
            name: stringify!($name),
            pattern: $pattern,
            doc: $doc,
            message: stringify!($message),
            reply: {
                const REPLY: &[&str] = &[$(stringify!($reply))?];
                match REPLY {
                    [reply] => reply,
                    _ => "",
                }
            },
        }),*];

        $(
        #[doc = $doc]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $(#[doc = concat!("The `", stringify!($field), "` token.")] pub $field: $ty,)*
        }

        impl Subject for $name {
            type Message = $message;
            const PATTERN: &'static str = $pattern;

            fn render(&self, prefix: &Prefix) -> String {
                render(prefix, $pattern, &[$(Token::to_token(&self.$field)),*])
            }

            fn parse(prefix: &Prefix, subject: &str) -> Option<Self> {
                let mut fields = split(prefix, $pattern, subject)?.into_iter();
                let found = Self { $($field: Token::from_token(fields.next()?)?),* };
                fields.next().is_none().then_some(found)
            }
        }

        impl $name {
            /// A subscription filter: a field that is `None` matches any value.
            pub fn filter(prefix: &Prefix $(, $field: Option<&$ty>)*) -> String {
                render(prefix, $pattern, &[$($field.map_or(Some(Cow::Borrowed("*")), Token::to_token)),*])
            }
        }

        $(impl Request for $name {
            type Reply = $reply;
        })?
    )*};
}

/// What is known of one subject, for documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectInfo {
    /// Name of its type.
    pub name: &'static str,
    /// Its tokens after the prefix; a `{field}` is a token of its own, a `{field?}` may be left out.
    pub pattern: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// What is sent on it.
    pub message: &'static str,
    /// What is answered; empty when nothing is.
    pub reply: &'static str,
}

subjects! {
    /// Stores a new job.
    SubmitJobs { pool: PoolName } = "svc.jobs.submit.{pool?}", SubmitJob => SubmitReply;
    /// Stores several new jobs.
    SubmitJobBatch { pool: PoolName } = "svc.jobs.batch.{pool?}", SubmitBatch => BatchReply;
    /// Finds where a job would go now, and stores nothing.
    DryRunJob { pool: PoolName } = "svc.jobs.dryrun.{pool?}", SubmitJob => DryRunReply;
    /// Lists jobs.
    ListJobsOf { pool: PoolName } = "svc.jobs.list.{pool?}", ListJobs => JobPage;
    /// Gets one job.
    GetJob { pool: PoolName } = "svc.jobs.get.{pool?}", JobRef => JobReply;
    /// Stops a job.
    StopJob { pool: PoolName } = "svc.jobs.stop.{pool?}", JobRef => JobReply;
    /// Sends a live command to a running job.
    ControlJobs { pool: PoolName } = "svc.jobs.control.{pool?}", ControlJob => ControlReply;
    /// Merges stream metadata.
    PatchJobMetadata { pool: PoolName } = "svc.jobs.metadata.{pool?}", PatchMetadata => MetadataReply;
    /// Explains the status of a job.
    ExplainJob { pool: PoolName } = "svc.jobs.explain.{pool?}", JobRef => Explanation;
    /// Lists agents.
    ListAgentsOf { pool: PoolName } = "svc.agents.list.{pool?}", ListAgents => AgentPage;
    /// Gets one agent.
    GetAgent { pool: PoolName } = "svc.agents.get.{pool?}", AgentRef => AgentReply;
    /// Sets an agent's drain flag.
    DrainAgents { pool: PoolName } = "svc.agents.drain.{pool?}", DrainAgent => AgentReply;
    /// Forgets an offline agent.
    ForgetAgent { pool: PoolName } = "svc.agents.forget.{pool?}", AgentRef => Done;
    /// Lists templates.
    ListStoredTemplates {} = "svc.templates.list", ListTemplates => TemplateList;
    /// Gets one template.
    GetTemplate {} = "svc.templates.get", TemplateRef => TemplateReply;
    /// Stores a template.
    PutStoredTemplate {} = "svc.templates.put", PutTemplate => TemplateReply;
    /// Deletes a template.
    DeleteTemplate {} = "svc.templates.delete", TemplateRef => Done;

    /// Plans a run, and stores nothing.
    PlanRuns {} = "svc.runs.plan", PlanRun => PlanReply;
    /// Stores a new run.
    CreateRuns { shard: RunShard } = "svc.runs.create.{shard}", CreateRun => RunReply;
    /// Gets a run that has not ended.
    GetRun { shard: RunShard } = "svc.runs.get.{shard}", RunRef => RunReply;
    /// Lists runs.
    ListRunsOf { shard: RunShard } = "svc.runs.list.{shard}", ListRuns => RunPage;
    /// Cancels a run.
    CancelRun { shard: RunShard } = "svc.runs.cancel.{shard}", RunRef => CancelReply;
    /// Adds a checkpoint from outside.
    AddRunCheckpoint { shard: RunShard } = "svc.runs.checkpoint.{shard}", AddCheckpoint => CheckpointReply;
    /// Ends a run that has no plan.
    CompleteRuns { shard: RunShard } = "svc.runs.complete.{shard}", CompleteRun => RunReply;
    /// Decides about a gate.
    DecideGates { shard: RunShard } = "svc.runs.decide.{shard}", DecideGate => RunReply;

    /// Heartbeats of a runner, for the other runners.
    RunnerHeartbeat { runner: HolderId } = "hb.runner.{runner}", Done;
    /// Facts from run workers; sent again until the shard's runner has stored them.
    RunReporting { shard: RunShard } = "report.run.{shard}", RunReports => RunReportsReply;
    /// A queue of tasks for run workers.
    TaskQueue { queue: QueueName } = "task.{queue}", Task;
    /// Commands to one run worker.
    CommandWorker { worker: WorkerId } = "work.{worker}.ctl", WorkerCommand => Done;

    /// Gets the status of frames, their workers and the display.
    FramesStatus {} = "svc.frames.status", GetFramesStatus => FramesReply;
    /// The former name of `svc.frames.status`; served for programs that still use it.
    FormerFramesStatus {} = "svc.frames.look", GetFramesStatus => FramesReply;
    /// Makes a worker the one whose frames are shown.
    ActivateFrameWorker {} = "svc.frames.activate", ActivateWorker => Done;
    /// Starts a worker of frames.
    StartFrameWorker {} = "svc.frames.start", FrameWorkerRef => Done;
    /// Stops a worker of frames.
    StopFrameWorker {} = "svc.frames.stop", FrameWorkerRef => Done;
    /// Gets the settings of a frame worker.
    GetFrameWorkerSettings {} = "svc.frames.settings", FrameWorkerRef => FrameWorkerSettings;
    /// Changes the settings of a frame worker.
    ConfigureFrameWorkers {} = "svc.frames.configure", ConfigureFrameWorker => Done;
    /// Sets the rate of frames.
    SetFrameRate {} = "svc.frames.fps", SetFps => Done;
    /// Gets what the display shows.
    GetDisplayPicture {} = "svc.frames.picture", GetPicture => PictureReply;
    /// Puts a frame on the display, past all that workers' frames go through.
    IngestFrame {} = "svc.frames.ingest", RawFrame => IngestReply;
    /// A frame of one worker: the bytes themselves. Published, or requested where its sender wants the outcome.
    WorkerFrame { worker: WorkerId } = "frame.{worker}", RawFrame => Done;
    /// Messages to one worker of frames, always as JSON.
    FrameWorkerMessages { worker: WorkerId } = "tick.{worker}", FrameWorkerMessage;
    /// Heartbeats of one worker of frames.
    FrameWorkerHeartbeats { worker: WorkerId } = "hb.frames.{worker}", FrameWorkerHeartbeat;
    /// Statistics of frames, once a second and whenever something changes.
    FrameStatsPublished {} = "live.frames", FrameStats;

    /// Heartbeats of one worker of any kind; those of frame workers are read as such, too.
    WorkerHeartbeats { kind: WorkerKind, worker: WorkerId } = "hb.{kind}.{worker}", WorkerHeartbeat;

    /// Heartbeats of one agent; answered by the pool's leading scheduler.
    AgentHeartbeat { agent: AgentId, pool: PoolName } = "hb.agent.{agent}.{pool?}", Heartbeat => HeartbeatReply;
    /// Facts from one agent; sent again until the leading scheduler has stored them.
    AgentReporting { agent: AgentId, pool: PoolName } = "report.agent.{agent}.{pool?}", AgentReports => ReportsReply;
    /// An agent's queue in the stream.
    AssignQueue { agent: AgentId } = "assign.{agent}", Assignment;
    /// The same queue as it is republished to subscribers.
    Assigned { agent: AgentId } = "assigned.{agent}", Assignment;
    /// Commands to one agent.
    CommandAgent { agent: AgentId, verb: CommandVerb } = "agent.{agent}.{verb}", AgentCommand => CommandReply;

    /// Log lines of a job, kept in the stream of events.
    JobLogged { job: JobId } = "evt.job.{job}.log", JobLog;
    /// Events of a job, kept in the stream of events.
    JobEvents { job: JobId } = "evt.job.{job}.event", JobEvent;
    /// The log of a run, kept in the stream of run events.
    RunLog { run: RunId } = "evt.run.{run}.event", RunLogBatch;
    /// The log of a run as it is republished live, with its sequence in a header.
    LiveRunEvents { run: RunId } = "live.run.{run}.event", RunLogBatch;
    /// How many requests of a caller were let through in a window; the server adds up what edges send.
    CountRequests { identity: RateIdentity, window: RateWindow } = "rate.{identity}.{window}", Done;
    /// Log lines as they are republished live, with their sequence in a header.
    LiveJobLog { job: JobId } = "live.job.{job}.log", JobLog;
    /// Events as they are republished live, with their sequence in a header.
    LiveJobEvent { job: JobId } = "live.job.{job}.event", JobEvent;
}

/// The last token of a command's subject; follows from the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandVerb {
    /// Stop a job.
    Stop,
    /// Kill a job.
    Kill,
    /// A live command.
    Control,
    /// A newer session took over.
    Replaced,
}

impl CommandVerb {
    const ALL: [(CommandVerb, &'static str); 4] = [
        (Self::Stop, "stop"),
        (Self::Kill, "kill"),
        (Self::Control, "control"),
        (Self::Replaced, "replaced"),
    ];

    /// The verb of a command; `None` for one of a newer version.
    pub const fn of(command: &AgentCommand) -> Option<Self> {
        match command {
            AgentCommand::Stop { .. } => Some(Self::Stop),
            AgentCommand::Kill { .. } => Some(Self::Kill),
            AgentCommand::Control { .. } => Some(Self::Control),
            AgentCommand::Replaced { .. } => Some(Self::Replaced),
            AgentCommand::Unknown => None,
        }
    }
}

impl Token for CommandVerb {
    fn to_token(&self) -> Option<Cow<'_, str>> {
        Self::ALL
            .iter()
            .find(|(verb, _)| verb == self)
            .map(|(_, token)| Cow::Borrowed(*token))
    }

    fn from_token(token: Option<&str>) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, text)| Some(*text) == token)
            .map(|(verb, _)| *verb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(text: &str) -> AgentId {
        AgentId::parse(text).unwrap()
    }

    #[test]
    fn a_subject_renders_and_parses_back() {
        let prefix = Prefix::default();
        let subject = AgentHeartbeat {
            agent: agent("studio 1"),
            pool: PoolName::default(),
        };
        assert_eq!(subject.render(&prefix), "quintet.hb.agent.studio=201");
        assert_eq!(
            AgentHeartbeat::parse(&prefix, "quintet.hb.agent.studio=201"),
            Some(subject)
        );
        let pooled = AgentHeartbeat {
            agent: agent("a"),
            pool: PoolName::parse("gpu").unwrap(),
        };
        assert_eq!(pooled.render(&prefix), "quintet.hb.agent.a.gpu");
        assert_eq!(
            AgentHeartbeat::parse(&prefix, "quintet.hb.agent.a.gpu"),
            Some(pooled)
        );
        let command = CommandAgent {
            agent: agent("a"),
            verb: CommandVerb::Stop,
        };
        assert_eq!(
            CommandAgent::parse(&prefix, "quintet.agent.a.stop"),
            Some(command)
        );
    }

    #[test]
    fn other_subjects_are_not_parsed() {
        let prefix = Prefix::default();
        for subject in [
            "quintet.hb.agent",
            "quintet.hb.agent.a.b.c",
            "other.hb.agent.a",
            "quintet.hb.agent.a.default",
            "",
        ] {
            assert_eq!(AgentHeartbeat::parse(&prefix, subject), None, "{subject}");
        }
        assert_eq!(CommandAgent::parse(&prefix, "quintet.agent.a.dance"), None);
    }

    #[test]
    fn a_filter_leaves_fields_open() {
        let prefix = Prefix::parse("lab.one").unwrap();
        assert_eq!(
            AgentHeartbeat::filter(&prefix, None, Some(&PoolName::default())),
            "lab.one.hb.agent.*"
        );
        assert_eq!(
            CommandAgent::filter(&prefix, Some(&agent("a")), None),
            "lab.one.agent.a.*"
        );
        assert!(Prefix::parse("a..b").is_err());
        assert!(Prefix::parse("a.*").is_err());
    }
}
