//! Events ([`Event`]), writes ([`Write`]) and actions ([`Action`]) of the core.

use std::sync::Arc;

use bytes::Bytes;
use quintet_contract::JsonObject;
use quintet_contract::api::Done;
use quintet_contract::display::LineState;
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
    /// A worker sent a frame, and may wait for the answer.
    FrameReceived(WorkerId, Bytes, Option<RequestId<Done>>),
    /// A client sent a frame straight to the display.
    Ingested(Bytes, Option<RequestId<IngestReply>>),
    /// A heartbeat of a worker.
    HeartbeatReceived(WorkerId, FrameWorkerHeartbeat),
    /// A client requests the status.
    StatusRequested(RequestId<FramesReply>),
    /// A client requests what the display shows.
    ImageRequested(RequestId<PictureReply>, GetPicture),
    /// A client requests the settings of a worker.
    SettingsRequested(RequestId<FrameWorkerSettings>, WorkerId),
    /// An operator wants something changed.
    CommandReceived(RequestId<Done>, Command),
    /// The write in flight is stored, or is not.
    Stored(Result<(), ErrorReply>),
    /// The process of a worker runs.
    ProcessStarted(WorkerId),
    /// The process of a worker has ended.
    ProcessEnded(WorkerId),
    /// The state of the line to the panels changed.
    LineChanged(LineState),
}

/// A change of the desired state.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Another worker, or none, is to be shown.
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

/// What is to be stored before it holds; [`Event::Stored`] brings the outcome. One at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// What an operator set for all.
    State(FramesState),
    /// What an operator set for one worker.
    Settings(WorkerId, FrameWorkerSettings),
}

replies! {
    /// An answer.
    pub enum Answer {
        /// It is done.
        Done(Done),
        /// The status.
        Status(FramesReply),
        /// What a worker is set to.
        Settings(FrameWorkerSettings),
        /// What the display shows.
        Image(PictureReply),
        /// The display took a frame.
        Ingested(IngestReply),
    }
}

/// Something to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Answer a request.
    Answer(Reply<Answer>),
    /// Send a message to a worker.
    Notify(WorkerId, FrameWorkerMessage),
    /// Write this to the panels.
    Show(Arc<Bitmap>),
    /// Publish statistics.
    Publish(FrameStats),
    /// Start the process of a worker; [`Event::ProcessStarted`] and [`Event::ProcessEnded`] follow.
    Run(WorkerId),
    /// End the process of a worker.
    Halt(WorkerId),
}
