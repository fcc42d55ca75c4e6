//! WebSockets: how they are opened, written to and closed.

pub(crate) mod accept;
pub(crate) mod latest_queue;
pub(crate) mod ping;
pub(crate) mod raw;
pub(crate) mod send_queue;

use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Close code of a server that leaves and may be found again elsewhere.
pub(crate) const CLOSE_LEAVING: u16 = 1012;

pub(crate) fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame {
        code: code.into(),
        reason: reason.into(),
    }))
}
