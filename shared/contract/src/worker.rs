//! Workers of every kind: their heartbeats, and their listing.
//!
//! A worker is a program that subscribes to work. It publishes a [`WorkerHeartbeat`] on `hb.<kind>.<id>` at an interval and
//! whenever its state changes; one that is not seen for [`WorkerHeartbeat::ttl_ms`] counts as gone. Heartbeats are never
//! stored. The subject holds kind and id; the message holds the rest. Every field may be left out: `{}` is a heartbeat, and
//! those of frame workers ([`FrameWorkerHeartbeat`](crate::frame_api::FrameWorkerHeartbeat)) are read as such.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cause::CausedBy;
use crate::id::{QueueName, Token, WorkerId};
use crate::job::Attempt;
use crate::time::Timestamp;

/// Most pieces of work that one heartbeat names; further ones are only counted in its load.
pub const MAX_WORK_ITEMS: usize = 64;

/// The kinds of workers. Agents are none of them: they have sessions and an owner of their own.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum WorkerKind {
    /// Takes tasks of runs from queues.
    Run,
    /// Draws frames for the display.
    Frames,
    /// Answers inference requests.
    Infer,
    /// Speaks: text to speech.
    Tts,
    /// Listens: automatic speech recognition.
    Asr,
}

impl WorkerKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Run, Self::Frames, Self::Infer, Self::Tts, Self::Asr];

    /// Its name in subjects and lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Frames => "frames",
            Self::Infer => "infer",
            Self::Tts => "tts",
            Self::Asr => "asr",
        }
    }

    /// How long a worker of this kind counts as present after a heartbeat without a TTL of its own, in milliseconds.
    pub const fn default_ttl_ms(self) -> u64 {
        match self {
            // As the frames service has it: they heartbeat every second.
            Self::Frames => 3_000,
            Self::Run | Self::Infer | Self::Tts | Self::Asr => 30_000,
        }
    }
}

impl fmt::Display for WorkerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WorkerKind {
    type Err = UnknownWorkerKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or(UnknownWorkerKind)
    }
}

/// A text that names no kind of worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a kind of worker is one of run, frames, infer, tts, asr")]
pub struct UnknownWorkerKind;

impl Token for WorkerKind {
    fn to_token(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self.as_str()))
    }

    fn from_token(token: Option<&str>) -> Option<Self> {
        token?.parse().ok()
    }
}

/// How much of a worker is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerLoad {
    /// Pieces of work that it can do at once.
    pub slots: u32,
    /// How many of them it does now.
    #[serde(default)]
    pub used: u32,
}

/// A piece of work that a worker does now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkItem {
    /// What it does.
    pub work: CausedBy,
    /// Which attempt; absent where the kind has none, or it is not granted yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

/// A heartbeat of a worker of any kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerHeartbeat {
    /// Distinguishes one start of the program from the next; later ones compare greater.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// Its display name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Version of the program.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The machine that it runs on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Its slots; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<WorkerLoad>,
    /// The queues that it takes tasks from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<QueueName>,
    /// The models that it has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// The effects that it draws.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<String>,
    /// What it works on, at most 64 pieces, so that owners can reconcile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub work: Vec<WorkItem>,
    /// It takes no more work; what it has continues.
    #[serde(skip_serializing_if = "is_false")]
    pub draining: bool,
    /// Whether it runs, where that is switched: a frame worker that draws when it is ticked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// How long it counts as present after this heartbeat, in milliseconds; by its kind when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// It leaves: nothing more will come.
    #[serde(skip_serializing_if = "is_false")]
    pub leaves: bool,
}

const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Whether a worker takes work now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// It takes more work.
    Ready,
    /// All of its slots are in use; a frame worker that draws.
    Busy,
    /// It takes no more work; what it has continues.
    Draining,
}

impl WorkerHeartbeat {
    /// Whether it takes work now.
    pub fn state(&self) -> WorkerState {
        let is_full = self.load.is_some_and(|load| load.used >= load.slots);
        if self.draining {
            WorkerState::Draining
        } else if is_full || self.running == Some(true) {
            WorkerState::Busy
        } else {
            WorkerState::Ready
        }
    }
}

/// A worker that is present, as `GET /v1/workers` lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Its id, unique within its kind.
    pub id: WorkerId,
    /// Its kind.
    pub kind: WorkerKind,
    /// Whether it takes work now.
    pub state: WorkerState,
    /// Its display name; its id where it has no name.
    pub name: String,
    /// Version of the program; empty when it is not announced.
    pub version: String,
    /// The machine that it runs on; empty when it is not announced.
    pub host: String,
    /// Its slots; null where it has none.
    pub load: Option<WorkerLoad>,
    /// The queues that it takes tasks from.
    pub queues: Vec<QueueName>,
    /// The models that it has.
    pub models: Vec<String>,
    /// The effects that it draws.
    pub effects: Vec<String>,
    /// What it works on, at most 64 pieces.
    pub work: Vec<WorkItem>,
    /// When its last heartbeat came.
    pub last_seen_at: Timestamp,
    /// Milliseconds until it counts as gone, unless another heartbeat comes.
    pub ttl_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame_api::FrameWorkerHeartbeat;
    use crate::subject::{Prefix, Subject, WorkerHeartbeats};

    #[test]
    fn the_subject_of_a_kind_is_read_back_and_others_are_no_workers() {
        let prefix = Prefix::default();
        let worker = WorkerId::parse("w 1").unwrap();
        for kind in WorkerKind::ALL {
            let worker = worker.clone();
            let subject = WorkerHeartbeats { kind, worker };
            let text = subject.render(&prefix);
            assert_eq!(text, format!("quintet.hb.{kind}.w=201"));
            assert_eq!(WorkerHeartbeats::parse(&prefix, &text), Some(subject));
        }
        for other in ["quintet.hb.agent.a", "quintet.hb.runner.r"] {
            assert_eq!(WorkerHeartbeats::parse(&prefix, other), None, "{other}");
        }
    }

    #[test]
    fn a_heartbeat_of_a_frame_worker_is_one_of_a_worker() {
        let frames = FrameWorkerHeartbeat {
            session: "s".to_owned(),
            effects: vec!["text".to_owned()],
            ..FrameWorkerHeartbeat::default()
        };
        let text = serde_json::to_string(&frames).unwrap();
        let worker: WorkerHeartbeat = serde_json::from_str(&text).unwrap();
        assert_eq!((worker.session.as_str(), worker.running), ("s", Some(true)));
        assert_eq!(worker.effects, ["text"]);
        assert_eq!(worker.state(), WorkerState::Busy);
        let nothing: WorkerHeartbeat = serde_json::from_str("{}").unwrap();
        assert_eq!(nothing, WorkerHeartbeat::default());
        assert_eq!(nothing.state(), WorkerState::Ready);
    }

    #[test]
    fn a_worker_is_busy_without_a_free_slot_and_draining_before_all() {
        let mut heartbeat = WorkerHeartbeat::default();
        for (used, draining, expected) in [
            (1, false, WorkerState::Ready),
            (2, false, WorkerState::Busy),
            (2, true, WorkerState::Draining),
            (0, true, WorkerState::Draining),
        ] {
            heartbeat.load = Some(WorkerLoad { slots: 2, used });
            heartbeat.draining = draining;
            assert_eq!(heartbeat.state(), expected);
        }
    }
}
