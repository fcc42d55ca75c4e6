//! Subjects, keys and ids from arbitrary text: what is read is written as the same text, and every token is one that
//! NATS takes.

#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use quintet_contract::api::JobCursor;
use quintet_contract::bucket::{
    Access, Agents, Bucket, Frames, Jobs, Keys, Leases, Runs, Secrets, Templates,
};
use quintet_contract::id::{
    AgentId, AgentSession, CheckpointId, HolderId, IdempotencyKey, JobId, MessageId, PoolName,
    QueueName, RunId, TemplateId, Token, WorkerId, escape, unescape,
};
use quintet_contract::subject::{self, Prefix, Subject};

/// A prefix of two tokens, so that both of its ends are tried.
const PREFIX: &str = "lab.one";

fn same_subject<S: Subject>(prefix: &Prefix, text: &str) {
    if let Some(subject) = S::parse(prefix, text) {
        assert_eq!(subject.render(prefix), text);
        text.split('.').for_each(is_safe);
    }
}

fn same_key<B: Bucket>(text: &str) {
    if let Some(key) = B::parse_key(text) {
        assert_eq!(B::render_key(&key), text);
        text.split('.').for_each(is_safe);
    }
}

/// A name is shown as it was given, and has one token.
fn same_name<N: FromStr + Display + Token + PartialEq>(text: &str) {
    let Ok(name) = text.parse::<N>() else {
        return;
    };
    assert_eq!(name.to_string(), text);
    let token = name.to_token();
    if let Some(token) = &token {
        is_safe(token);
    }
    assert!(N::from_token(token.as_deref()) == Some(name));
}

/// Other ids may be given in several ways, and are shown in one.
fn same_value<V: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<V>() {
        assert!(value.to_string().parse().is_ok_and(|read: V| read == value));
    }
}

fn is_safe(token: &str) {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte);
    assert!(!token.is_empty() && token.bytes().all(legal), "{token:?}");
}

macro_rules! subjects {
    ($($name:ident)*) => {
        /// The subjects that are read here.
        const COVERED: &[&str] = &[$(stringify!($name)),*];

        fn every_subject(prefix: &Prefix, text: &str) {
            $(same_subject::<subject::$name>(prefix, text);)*
        }
    };
}

subjects! {
    SubmitJobs SubmitJobBatch DryRunJob ListJobsOf GetJob StopJob ControlJobs PatchJobMetadata ExplainJob ListAgentsOf
    GetAgent DrainAgents ForgetAgent ListStoredTemplates GetTemplate PutStoredTemplate DeleteTemplate AgentHeartbeat
    AgentReporting AssignQueue Assigned CommandAgent JobLogged JobEvents LiveJobLog LiveJobEvent PlanRuns CreateRuns
    GetRun ListRunsOf CancelRun AddRunCheckpoint CompleteRuns DecideGates RunnerHeartbeat RunReporting TaskQueue
    CommandWorker RunLog LiveRunEvents CountRequests FramesStatus FormerFramesStatus ActivateFrameWorker StartFrameWorker
    StopFrameWorker GetFrameWorkerSettings ConfigureFrameWorkers SetFrameRate GetDisplayPicture IngestFrame WorkerFrame
    FrameWorkerMessages FrameWorkerHeartbeats FrameStatsPublished WorkerHeartbeats
}

fuzz_target!(
    init: {
        for subject in subject::SUBJECTS {
            assert!(COVERED.contains(&subject.name), "name {} in this file", subject.name);
        }
    },
    |text: &str| {
        every_subject(&Prefix::default(), text);
        every_subject(&Prefix::parse(PREFIX).expect("a legal prefix"), text);
        same_key::<Agents>(text);
        same_key::<Frames>(text);
        same_key::<Jobs>(text);
        same_key::<Keys>(text);
        same_key::<Leases>(text);
        same_key::<Runs>(text);
        same_key::<Templates>(text);
        same_key::<Access>(text);
        same_key::<Secrets>(text);
        same_name::<AgentId>(text);
        same_name::<JobId>(text);
        same_name::<TemplateId>(text);
        same_name::<IdempotencyKey>(text);
        same_name::<PoolName>(text);
        same_name::<HolderId>(text);
        same_name::<QueueName>(text);
        same_name::<WorkerId>(text);
        same_value::<AgentSession>(text);
        same_value::<CheckpointId>(text);
        same_value::<RunId>(text);
        same_value::<MessageId>(text);
        same_value::<JobCursor>(text);
        if let Ok(prefix) = text.parse::<Prefix>() {
            assert_eq!(prefix.as_str(), text);
            text.split('.').for_each(is_safe);
        }
        if let Some(name) = unescape(text) {
            assert_eq!(escape(&name), text);
        }
        if !text.is_empty() {
            is_safe(&escape(text));
            assert_eq!(unescape(&escape(text)).as_deref(), Some(text));
        }
    }
);
