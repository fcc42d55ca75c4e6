//! The generated documents: a JSON Schema per message and record, the subject table, the sockets as AsyncAPI, and the
//! example configuration of NATS. Committed under `schemas/`; a test fails when they are out of date.

use schemars::{JsonSchema, schema_for};
use serde_json::{Value, json};

use crate::{
    access, agent, api, bucket, display, error, event, frame, frame_api, job, permission, plan,
    run, run_api, socket, table, task, template, worker,
};

/// A file to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path from the root of the repository.
    pub path: String,
    /// Its content.
    pub content: String,
}

/// Every generated file of the contract.
pub fn files() -> Vec<File> {
    // The names by which clients know what travels over HTTP.
    let public = [
        ("run", schema::<run::Run>()),
        ("checkpoint", schema::<run::Checkpoint>()),
        ("event", schema::<run::RunStreamEvent>()),
        ("plan", schema::<plan::Plan>()),
    ];
    let mut files: Vec<File> = schemas()
        .into_iter()
        .chain(public)
        .map(|(name, schema)| File {
            path: format!("schemas/{name}.schema.json"),
            content: pretty(&schema),
        })
        .collect();
    files.push(File {
        path: "schemas/SUBJECTS.md".to_owned(),
        content: table::render_markdown(),
    });
    files.push(File {
        path: "schemas/asyncapi.json".to_owned(),
        content: pretty(&asyncapi()),
    });
    files.push(File {
        path: "nats.conf".to_owned(),
        content: permission::render_nats_conf(&permission::example()),
    });
    files
}

/// Text as it is committed.
pub fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

macro_rules! schemas {
    ($($module:ident: $($name:ident),+;)+) => {
        /// Every message and record by name.
        fn schemas() -> Vec<(&'static str, Value)> {
            vec![$($((stringify!($name), schema::<$module::$name>())),+),+]
        }
    };
}

schemas! {
    job: Job, JobRecord, KeyRecord;
    agent: Agent, AgentRecord, AgentReports, ReportsReply, Heartbeat, HeartbeatReply, Assignment, AgentCommand, CommandReply;
    template: Template;
    bucket: Lease;
    access: AccessKey, SecretRecord;
    event: JobLog, JobEvent;
    error: ErrorReply;
    run: RunRecord, RunLogBatch;
    task: Task, RunReports, RunReportsReply, WorkerCommand;
    worker: Worker, WorkerHeartbeat;
    run_api: CreateRun, PlanRun, PlanReply, RunRef, RunReply, ListRuns, RunPage, CancelReply, AddCheckpoint, CheckpointReply,
        CheckpointPage, CompleteRun, DecideGate;
    display: DisplayConfig, DisplayStats;
    frame_api: FrameWorkerMessage, FrameWorkerHeartbeat, FrameStats, GetFramesStatus, FramesReply, ActivateWorker, FrameWorkerRef,
        FrameWorkerSettings, ConfigureFrameWorker, SetFps, GetPicture, PictureReply, IngestReply, FramesRecord;
    api: SubmitJob, SubmitReply, SubmitBatch, BatchReply, DryRunReply, JobRef, JobReply, ListJobs, JobPage, ControlJob,
        ControlReply, PatchMetadata, MetadataReply, Explanation, ListAgents, AgentPage, AgentRef, DrainAgent, AgentReply,
        Done, ListTemplates, TemplateList, TemplateRef, PutTemplate, TemplateReply;
}

fn schema<T: JsonSchema>() -> Value {
    schema_for!(T).to_value()
}

/// A message of the sockets of frames, which have no payload of their own.
fn flat(kind: &str, fields: &Value) -> Value {
    let mut properties = json!({"type": {"const": kind}});
    if let (Some(properties), Some(fields)) = (properties.as_object_mut(), fields.as_object()) {
        properties.extend(fields.clone());
    }
    json!({"name": kind, "payload": {"type": "object", "required": ["type"], "properties": properties}})
}

/// The WebSockets of the edge.
fn asyncapi() -> Value {
    let payload = |kind: &str, schema: Value| {
        json!({
            "name": kind,
            "payload": {
                "type": "object",
                "required": ["type", "payload"],
                "properties": {
                    "type": {"const": kind},
                    "msgId": {"type": "string", "format": "uuid"},
                    "ts": {"type": "string", "format": "date-time"},
                    "correlationId": {"type": "string"},
                    "payload": schema
                }
            }
        })
    };
    let from_agent = [
        (socket::from_agent::HELLO, schema::<socket::HelloPayload>()),
        (
            socket::from_agent::HEARTBEAT,
            schema::<socket::HeartbeatPayload>(),
        ),
        (
            socket::from_agent::ASSIGN_ACK,
            schema::<socket::AssignAckPayload>(),
        ),
        (
            socket::from_agent::JOB_UPDATE,
            schema::<socket::JobUpdatePayload>(),
        ),
        (
            socket::from_agent::JOB_STOPPED,
            schema::<socket::JobStoppedPayload>(),
        ),
        (
            socket::from_agent::JOB_MUTE,
            schema::<socket::MutedPayload>(),
        ),
        (
            socket::from_agent::JOB_UNMUTE,
            schema::<socket::MutedPayload>(),
        ),
        (
            socket::from_agent::JOB_LOG,
            schema::<socket::JobLogPayload>(),
        ),
        (
            socket::from_agent::ERROR,
            schema::<socket::AgentErrorPayload>(),
        ),
    ];
    let to_agent = [
        (
            socket::to_agent::HELLO_OK,
            schema::<socket::HelloOkPayload>(),
        ),
        (
            socket::to_agent::ASSIGN_START,
            schema::<socket::AssignStartPayload>(),
        ),
        (
            socket::to_agent::JOB_STOP,
            schema::<socket::JobStopPayload>(),
        ),
        (socket::to_agent::JOB_KILL, schema::<socket::JobPayload>()),
        (socket::to_agent::JOB_MUTE, schema::<socket::JobPayload>()),
        (socket::to_agent::JOB_UNMUTE, schema::<socket::JobPayload>()),
    ];
    let to_ui = [
        (socket::ui::AGENT_UPDATE, schema::<agent::Agent>()),
        (socket::ui::JOB_UPDATE, schema::<job::Job>()),
        (
            socket::ui::AGENT_REMOVED,
            schema::<socket::RemovedPayload>(),
        ),
        (socket::ui::JOB_REMOVED, schema::<socket::RemovedPayload>()),
        (socket::ui::JOB_EVENT, schema::<event::JobEvent>()),
    ];
    let from_ui = [(socket::ui::SUBSCRIBE, schema::<socket::SubscribePayload>())];
    let channel =
        |address: &str, description: &str, messages: &mut dyn Iterator<Item = &(&str, Value)>| {
            let messages: serde_json::Map<String, Value> = messages
                .map(|(kind, schema)| (kind.replace('.', "_"), payload(kind, schema.clone())))
                .collect();
            json!({"address": address, "description": description, "messages": messages})
        };
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Quintet sockets",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The WebSockets of the edge. The subjects of the bus are in SUBJECTS.md."
        },
        "channels": {
            "agent": channel("/agent", "third-party agents", &mut from_agent.iter().chain(&to_agent)),
            "ui": channel("/ui", "on connect the arrays of agents and jobs, then one object per change", &mut to_ui.iter().chain(&from_ui)),
            "frames": {
                "address": "/ws",
                "description": "statistics of frames: hello on connect, then stats once a second and on every event; the client may ask for one more",
                "messages": {
                    "hello": flat("hello", &json!({"fps": schema::<frame::Fps>(), "active": {"type": ["string", "null"]}})),
                    "stats": {"name": "stats", "payload": schema::<frame_api::FrameStats>()},
                    "askStats": flat("stats", &json!({}))
                }
            },
            "frameWorker": {
                "address": "/workers/{id}/ws",
                "description": "a worker of frames: it receives hello, config and ticks, may send hello, and sends frames as binary messages",
                "messages": {
                    "message": {"name": "message", "payload": schema::<frame_api::FrameWorkerMessage>()},
                    "hello": flat("hello", &json!({"caps": {"type": "object", "properties": {"version": {"const": 1}}}})),
                    "frame": {"name": "frame", "contentType": "application/octet-stream", "payload": schema::<frame::RawFrame>()}
                }
            }
        },
        "operations": {
            "agentSpeaks": {"action": "receive", "channel": {"$ref": "#/channels/agent"}},
            "agentListens": {"action": "send", "channel": {"$ref": "#/channels/agent"}},
            "uiListens": {"action": "send", "channel": {"$ref": "#/channels/ui"}},
            "uiSubscribes": {"action": "receive", "channel": {"$ref": "#/channels/ui"}},
            "framesListens": {"action": "send", "channel": {"$ref": "#/channels/frames"}},
            "framesSpeaks": {"action": "receive", "channel": {"$ref": "#/channels/frames"}},
            "frameWorkerListens": {"action": "send", "channel": {"$ref": "#/channels/frameWorker"}},
            "frameWorkerSpeaks": {"action": "receive", "channel": {"$ref": "#/channels/frameWorker"}}
        }
    })
}
