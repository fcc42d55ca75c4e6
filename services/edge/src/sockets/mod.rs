//! WebSockets: `/ui` for people's screens, `/agent` for other people's agents, `/ws` for who looks on at frames, and
//! `/workers/{id}/ws` for those who draw them.

pub(crate) mod agent;
mod frames;
mod frames_worker;
pub(crate) mod raw;
mod ui;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message};
use axum::routing::{MethodRouter, get};

use crate::routes::frames::{STATS_SOCKET, WORKER_SOCKET};
use crate::state::App;

/// Close code of a server that leaves and may be found again elsewhere.
const CLOSE_LEAVING: u16 = 1012;

/// Every socket and where it is.
pub(crate) fn all() -> [(&'static str, MethodRouter<App>); 4] {
    [
        ("/ui", get(ui::connect)),
        ("/agent", get(agent::connect)),
        (STATS_SOCKET, get(frames::connect)),
        (WORKER_SOCKET, get(frames_worker::connect)),
    ]
}

pub(crate) fn routes() -> Router<App> {
    all()
        .into_iter()
        .fold(Router::new(), |router, (path, socket)| {
            router.route(path, socket)
        })
}

fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame {
        code,
        reason: reason.into(),
    }))
}
