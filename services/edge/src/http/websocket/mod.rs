//! WebSockets: how they are opened, written to and closed.

pub(crate) mod latest_queue;
pub(crate) mod raw;
pub(crate) mod send_queue;

use axum::extract::ws::{CloseFrame, Message};

/// Close code of a server that leaves and may be found again elsewhere.
pub(crate) const CLOSE_LEAVING: u16 = 1012;

pub(crate) fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame {
        code,
        reason: reason.into(),
    }))
}
