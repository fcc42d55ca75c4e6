//! The client of the frames service: one function per request. One instance leads; when none
//! does, requests wait for it, frames do not.

use axum::extract::FromRef;
use bytes::Bytes;
use quintet_contract::api::Done;
use quintet_contract::frame::RawFrame;
use quintet_contract::frame_api::{
    ActivateWorker, ConfigureFrameWorker, FrameWorkerRef, FrameWorkerSettings, FramesReply,
    GetFramesStatus, GetPicture, IngestReply, PictureReply, SetFps,
};
use quintet_contract::id::WorkerId;
use quintet_contract::subject::{
    ActivateFrameWorker, ConfigureFrameWorkers, FramesStatus, GetDisplayPicture,
    GetFrameWorkerSettings, IngestFrame, Request, SetFrameRate, StartFrameWorker, StopFrameWorker,
    WorkerFrame,
};

use crate::error::HttpError;
use crate::state::App;

type Reply<T> = Result<T, HttpError>;

/// What handlers ask about frames.
#[derive(Clone)]
pub(crate) struct FramesClient {
    app: App,
}

impl FromRef<App> for FramesClient {
    fn from_ref(app: &App) -> Self {
        Self { app: app.clone() }
    }
}

impl FramesClient {
    pub(crate) async fn frames_status(&self) -> Reply<FramesReply> {
        self.app
            .request(&FramesStatus {}, &GetFramesStatus {})
            .await
    }

    pub(crate) async fn activate_worker(&self, activate: &ActivateWorker) -> Reply<Done> {
        self.app.request(&ActivateFrameWorker {}, activate).await
    }

    pub(crate) async fn start_worker(&self, worker: &FrameWorkerRef) -> Reply<Done> {
        self.app.request(&StartFrameWorker {}, worker).await
    }

    pub(crate) async fn stop_worker(&self, worker: &FrameWorkerRef) -> Reply<Done> {
        self.app.request(&StopFrameWorker {}, worker).await
    }

    pub(crate) async fn worker_settings(
        &self,
        worker: &FrameWorkerRef,
    ) -> Reply<FrameWorkerSettings> {
        self.app.request(&GetFrameWorkerSettings {}, worker).await
    }

    pub(crate) async fn configure_worker(&self, configure: &ConfigureFrameWorker) -> Reply<Done> {
        self.app.request(&ConfigureFrameWorkers {}, configure).await
    }

    pub(crate) async fn set_fps(&self, set: &SetFps) -> Reply<Done> {
        self.app.request(&SetFrameRate {}, set).await
    }

    pub(crate) async fn picture(&self, get: &GetPicture) -> Reply<PictureReply> {
        self.app.request(&GetDisplayPicture {}, get).await
    }

    /// Asked once: when it fails there is a newer frame to send.
    pub(crate) async fn worker_frame(&self, worker: WorkerId, frame: Bytes) -> Reply<Done> {
        self.send_frame(&WorkerFrame { worker }, frame).await
    }

    /// Asked once: a frame that is sent again would be shown twice.
    pub(crate) async fn ingest_frame(&self, frame: Bytes) -> Reply<IngestReply> {
        self.send_frame(&IngestFrame {}, frame).await
    }

    async fn send_frame<S: Request<Message = RawFrame>>(
        &self,
        subject: &S,
        frame: Bytes,
    ) -> Reply<S::Reply> {
        let patience = self.app.config.request_timeout;
        Ok(self.app.bus.request_raw(subject, frame, patience).await?)
    }
}
