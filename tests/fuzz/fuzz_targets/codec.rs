//! Every message and record from arbitrary bytes: what can be read can be written in both encodings, and is read back
//! as what it was.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use quintet_bus::{Encoding, decode, encode, to_json_text};
use quintet_contract::bucket::{
    Access, Agents, Bucket, Frames, Jobs, Keys, Leases, Runs, Secrets, Templates,
};
use quintet_contract::error::ErrorReply;
use quintet_contract::job::JobRecord;
use quintet_contract::subject::{self, Request, Subject};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok((message, _)) = decode::<T>(bytes) else {
        return;
    };
    for encoding in [Encoding::MessagePack, Encoding::Json] {
        let written = encode(&message, encoding).expect("what was read can be written");
        let (read, how) = decode::<T>(&written).expect("what was written can be read");
        assert_eq!((&read, how), (&message, encoding));
    }
}

macro_rules! messages {
    (requests: $($request:ident)*; messages: $($message:ident)*; records: $($bucket:ident)*) => {
        /// The subjects whose messages are read here.
        const COVERED: &[&str] = &[$(stringify!($request),)* $(stringify!($message)),*];

        fn every_message(bytes: &[u8]) {
            $(comes_back::<<subject::$request as Subject>::Message>(bytes);
            comes_back::<<subject::$request as Request>::Reply>(bytes);)*
            $(comes_back::<<subject::$message as Subject>::Message>(bytes);)*
            $(comes_back::<<$bucket as Bucket>::Record>(bytes);)*
        }
    };
}

messages! {
    requests: SubmitJobs SubmitJobBatch DryRunJob ListJobsOf GetJob StopJob ControlJobs PatchJobMetadata ExplainJob
        ListAgentsOf GetAgent DrainAgents ForgetAgent ListStoredTemplates GetTemplate PutStoredTemplate DeleteTemplate
        AgentHeartbeat AgentReporting CommandAgent
        PlanRuns CreateRuns GetRun ListRunsOf CancelRun AddRunCheckpoint CompleteRuns DecideGates
        RunReporting CommandWorker
        FramesStatus FormerFramesStatus ActivateFrameWorker StartFrameWorker StopFrameWorker GetFrameWorkerSettings ConfigureFrameWorkers
        SetFrameRate GetDisplayPicture IngestFrame WorkerFrame;
    messages: AssignQueue Assigned JobLogged JobEvents LiveJobLog LiveJobEvent
        RunnerHeartbeat TaskQueue RunLog LiveRunEvents CountRequests
        FrameWorkerMessages FrameWorkerHeartbeats FrameStatsPublished WorkerHeartbeats;
    records: Access Agents Frames Jobs Keys Leases Runs Secrets Templates
}

/// A job can be shown as it stood at any position of its timeline.
fn can_be_shown(bytes: &[u8]) {
    let Ok((JobRecord { job, .. }, _)) = decode::<JobRecord>(bytes) else {
        return;
    };
    for position in [0, job.timeline_dropped, job.position(), u64::MAX] {
        let shown = job.at_position(position);
        assert!(shown.position() <= job.position());
        assert!(job.entries_after(position).all(|(at, _)| at > position));
    }
}

fuzz_target!(
    init: {
        for subject in subject::SUBJECTS {
            assert!(COVERED.contains(&subject.name), "name {} in this file", subject.name);
        }
    },
    |bytes: &[u8]| {
        every_message(bytes);
        comes_back::<ErrorReply>(bytes);
        can_be_shown(bytes);
        let _ = to_json_text(bytes);
    }
);
