//! What the core is told, and what it wants done.

use std::sync::Arc;

use bytes::Bytes;
use quintet_contract::JsonObject;
use quintet_contract::api::Done;
use quintet_contract::error::ErrorReply;
use quintet_contract::frame::{Bitmap, Thousandths};
use quintet_contract::frame_api::{
    FrameStats, FrameWorkerHeartbeat, FrameWorkerMessage, FrameWorkerSettings, FramesReply,
    FramesState, GetPicture, IngestReply, PictureReply,
};
use quintet_contract::id::WorkerId;
use quintet_contract::replies;
use quintet_contract::reply::{Reply, RequestId};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A worker sent a frame, and may want to know what became of it.
    Framed(WorkerId, Bytes, Option<RequestId<Done>>),
    /// Somebody sent a frame straight to the display.
    Ingested(Bytes, Option<RequestId<IngestReply>>),
    /// A worker said that it is there.
    Heard(WorkerId, FrameWorkerHeartbeat),
    /// Somebody asks how everything is.
    Looked(RequestId<FramesReply>),
    /// Somebody asks what the display shows.
    PictureAsked(RequestId<PictureReply>, GetPicture),
    /// Somebody asks what a worker is set to.
    SettingsAsked(RequestId<FrameWorkerSettings>, WorkerId),
    /// Somebody wants something changed.
    Wished(RequestId<Done>, Wish),
    /// The change on its way is stored, or is not.
    Stored(Result<(), ErrorReply>),
    /// The process of a worker runs.
    Began(WorkerId),
    /// The process of a worker has ended.
    Ended(WorkerId),
    /// Time went on.
    Due,
}

/// What somebody wants changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Another worker, or nobody, is to be shown.
    Activate(Option<WorkerId>),
    /// A worker is to run.
    Start(WorkerId),
    /// A worker is not to run.
    Stop(WorkerId),
    /// Settings of a worker are to be other ones.
    Configure(WorkerId, JsonObject),
    /// The rate is to be another one; the display's own without one.
    SetRate(Option<Thousandths>),
}

/// What is to be stored before it holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// What a person set for all.
    State(FramesState),
    /// What a person set for one worker.
    Settings(WorkerId, FrameWorkerSettings),
}

replies! {
    /// An answer.
    pub enum Answer {
        /// It is done.
        Done(Done),
        /// How everything is.
        Look(FramesReply),
        /// What a worker is set to.
        Settings(FrameWorkerSettings),
        /// What the display shows.
        Picture(PictureReply),
        /// The display took a frame.
        Ingested(IngestReply),
    }
}

/// Something to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Answer a request.
    Answer(Reply<Answer>),
    /// Store a change; [`Event::Stored`] says how that went. One at a time.
    Store(Change),
    /// Tell a worker something.
    Tell(WorkerId, FrameWorkerMessage),
    /// Write this to the panels.
    Show(Arc<Bitmap>),
    /// Tell everybody how things are.
    Publish(FrameStats),
    /// Start the process of a worker; [`Event::Began`] and [`Event::Ended`] say what becomes of it.
    Run(WorkerId),
    /// End the process of a worker.
    Halt(WorkerId),
}
