//! WebSockets: `/ui` for people's screens, `/agent` for other people's agents.

pub(crate) mod agent;
pub(crate) mod raw;
mod ui;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message};
use axum::routing::get;

use crate::state::App;

/// Close code of a server that leaves and may be found again elsewhere.
const CLOSE_LEAVING: u16 = 1012;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/ui", get(ui::connect))
        .route("/agent", get(agent::connect))
}

fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame {
        code,
        reason: reason.into(),
    }))
}
