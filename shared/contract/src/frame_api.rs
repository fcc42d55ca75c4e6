//! Frames on the bus: messages to and from workers, requests of the edge, and records.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::JsonObject;
use crate::display::{DisplayConfig, DisplayStats};
use crate::frame::{Base64, Canvas, Fps, Thousandths};
use crate::id::WorkerId;

/// A message to a worker of frames: on the bus on its `tick` subject, always as JSON, and the first three on its
/// WebSocket. A program passes over what it does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum FrameWorkerMessage {
    /// The first message.
    Hello {
        /// Frames per second.
        fps: Fps,
        /// What it draws on.
        canvas: Canvas,
    },
    /// Its settings: at first, and whenever they are changed.
    Config {
        /// All of them.
        data: JsonObject,
    },
    /// It is time for a frame.
    Tick {
        /// Seconds since the worker became the active one.
        t: Thousandths,
    },
    /// It should run: it is the active one, or an operator started it.
    Start,
    /// It should no longer run.
    Stop,
    /// Something of a newer version.
    #[serde(other)]
    Unknown,
}

/// How a worker of frames is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// It is on the bus itself.
    #[default]
    Bus,
    /// It holds a WebSocket of an edge, which speaks for it.
    Socket,
    /// Another way of a newer version.
    #[serde(other)]
    Unknown,
}

/// Heartbeat of a worker of frames, once a second. `{}` is one, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrameWorkerHeartbeat {
    /// Distinguishes one start of the program, or one socket, from the next; later ones compare greater. A new one gets
    /// hello and its settings.
    #[serde(default)]
    pub session: String,
    /// How it is reached.
    #[serde(default)]
    pub via: Via,
    /// Whether it draws when it is ticked, or has to be started.
    #[serde(default = "yes")]
    pub running: bool,
    /// It leaves: nothing more will come.
    #[serde(default)]
    pub leaves: bool,
    /// Its display name, as in a [`WorkerHeartbeat`](crate::worker::WorkerHeartbeat).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Version of the program.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The machine that it runs on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// The effects that it draws.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<String>,
}

impl Default for FrameWorkerHeartbeat {
    /// What `{}` means: a worker on the bus that runs.
    fn default() -> Self {
        Self {
            session: String::new(),
            via: Via::default(),
            running: yes(),
            leaves: false,
            name: String::new(),
            version: String::new(),
            host: String::new(),
            effects: Vec::new(),
        }
    }
}

fn yes() -> bool {
    true
}

/// What became of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrameCounts {
    /// All that came.
    pub received: u64,
    /// Those that the display took.
    pub forwarded: u64,
    /// All others: malformed, of a worker that is not active, the same image again, too many, refused by the display.
    pub dropped: u64,
}

/// Statistics, as `GET /stats` shows them and as they are published on every change and once a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrameStats {
    /// Whose frames are shown.
    pub active: Option<WorkerId>,
    /// What became of frames.
    pub counts: FrameCounts,
    /// Workers that have sent frames.
    pub sources: Vec<WorkerId>,
    /// Frames per second.
    pub fps: Fps,
    /// Running workers.
    pub running: Vec<WorkerId>,
    /// What is wrong with the last frame of a worker.
    pub errors: BTreeMap<WorkerId, String>,
    /// The display refused a frame a moment ago, and is spared.
    pub degraded: bool,
}

/// Asks how everything is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GetFramesStatus {}

/// How everything is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FramesReply {
    /// The statistics.
    pub stats: FrameStats,
    /// Workers that may be activated.
    pub known: Vec<WorkerId>,
    /// Whether an operator set the rate.
    pub manual: bool,
    /// The display as it is configured.
    pub config: DisplayConfig,
    /// What it does.
    pub display: DisplayStats,
}

/// Makes a worker the active one; none without an id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivateWorker {
    /// The worker.
    #[serde(default)]
    pub id: Option<WorkerId>,
}

/// Names a worker of frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrameWorkerRef {
    /// The worker.
    pub id: WorkerId,
}

/// What a worker is set to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrameWorkerSettings {
    /// Its settings.
    #[serde(default)]
    pub settings: JsonObject,
}

/// Changes what a worker is set to: fields that are named are replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigureFrameWorker {
    /// The worker; it need not be known yet.
    pub id: WorkerId,
    /// What changes.
    pub settings: JsonObject,
}

/// Sets the rate; without one the display's own holds again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetFps {
    /// Frames per second.
    #[serde(default)]
    pub fps: Option<Thousandths>,
}

/// Asks what the display shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GetPicture {
    /// One panel as it is mounted, instead of the canvas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panel: Option<String>,
    /// An image that need not be sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless: Option<String>,
}

/// What the display shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PictureReply {
    /// Identifies an image.
    pub digest: String,
    /// The pixels, as an RBM frame; absent when they are those that need not be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rbm: Option<Base64>,
}

/// The display took a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestReply {
    /// Frames that wait, this one counted.
    pub size: usize,
    /// Frames that can wait.
    pub capacity: usize,
    /// The number that the frame had.
    pub seq: u32,
}

/// Further field of a refusal because the display has no room: after how many milliseconds it will.
pub const RETRY_AFTER_MS: &str = "retryAfterMs";

/// What is kept in the bucket of frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum FramesRecord {
    /// What a person set for all.
    State(FramesState),
    /// What a person set for one worker.
    Worker(FrameWorkerSettings),
}

/// What a person set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FramesState {
    /// Whose frames are shown.
    #[serde(default)]
    pub active: Option<WorkerId>,
    /// The rate, where it is not the display's own.
    #[serde(default)]
    pub fps: Option<Fps>,
    /// Who was started besides.
    #[serde(default)]
    pub started: BTreeSet<WorkerId>,
}
