//! The socket for watchers of frames: the present state, then every change.
//!
//! A client that does not read misses what is old and gets the newest again; nothing is kept for it but its place in
//! the feed.

use std::convert::Infallible;

use axum::extract::{FromRef, State};
use axum::response::Response;
use bytes::Bytes;
use quintet_contract::frame_api::FrameStats;
use quintet_contract::socket::CLOSE_TOO_SLOW;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::client::FramesClient;
use super::stats_feed::{FeedItem, StatsFeeds, StatsSubscription};
use crate::http::websocket::CLOSE_LEAVING;
use crate::http::websocket::accept::{SocketOptions, SocketUpgrade};
use crate::http::websocket::raw::{self, Frames, RawSocket, text_frame};
use crate::metrics;
use crate::state::App;

/// Clients send little.
const OPTIONS: SocketOptions = SocketOptions {
    kind: "frames",
    max_message: 4 * 1024,
    read_buffer: 512,
};

pub(crate) async fn connect(State(app): State<App>, upgrade: SocketUpgrade) -> Response {
    upgrade.accept(OPTIONS, |socket| run(app, socket.into()))
}

/// Whether a client requests the statistics.
fn is_stats_request(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|message| message["type"] == "stats")
}

/// Why a connection ends.
enum CloseReason {
    /// The other end closed, is gone or does not read.
    Gone,
    /// We close, with this code and reason.
    Close(u16, &'static str),
}

const SHUTTING_DOWN: CloseReason = CloseReason::Close(CLOSE_LEAVING, "this server is leaving");
const UNAVAILABLE: CloseReason = CloseReason::Close(CLOSE_TOO_SLOW, "try again later");

async fn run(app: App, mut socket: RawSocket) {
    match pump(&app, &mut socket).await {
        Err(CloseReason::Gone) => {}
        Err(CloseReason::Close(code, reason)) => {
            // A failed write has no receiver for its error.
            let _ = raw::close_in_time(&mut socket, code, reason).await;
        }
        Ok(never) => match never {},
    }
}

async fn pump(app: &App, socket: &mut RawSocket) -> Result<Infallible, CloseReason> {
    let mut subscription = app
        .live
        .part::<StatsFeeds>()
        .subscribe()
        .await
        .map_err(|_| UNAVAILABLE)?;
    // Asked after the subscription: nothing is missed in between.
    let stats = status(app).await?.ok_or(UNAVAILABLE)?;
    let hello = json!({"type": "hello", "fps": stats.fps, "active": stats.active});
    write(socket, text_frame(&hello.to_string())).await?;
    loop {
        // Cancel-safe: a message is taken only when it is returned.
        let item = tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return Err(SHUTTING_DOWN),
            message = socket.recv() => {
                match message {
                    Some(Ok(Message::Text(text))) if is_stats_request(&text) => answer(app, socket, &subscription).await?,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(CloseReason::Gone),
                    Some(Ok(_)) => {}
                }
                continue;
            }
            item = subscription.next() => item,
        };
        match item {
            FeedItem::Message(frame) => write(socket, frame).await?,
            FeedItem::Lagged => metrics::slow_client(OPTIONS.kind),
            FeedItem::Closed => return Err(SHUTTING_DOWN),
        }
    }
}

/// The statistics; none when the frames service does not answer.
async fn status(app: &App) -> Result<Option<FrameStats>, CloseReason> {
    let client = FramesClient::from_ref(app);
    tokio::select! {
        biased;
        () = app.shutdown.cancelled() => Err(SHUTTING_DOWN),
        status = client.frames_status() => Ok(status.ok().map(|status| status.stats)),
    }
}

/// Answers a request for the statistics. Without an answer of the frames service the client waits for the next message.
async fn answer(
    app: &App,
    socket: &mut RawSocket,
    subscription: &StatsSubscription,
) -> Result<(), CloseReason> {
    match status(app).await? {
        Some(stats) => write(socket, subscription.frame(&stats)).await,
        None => Ok(()),
    }
}

async fn write(socket: &mut RawSocket, frame: Bytes) -> Result<(), CloseReason> {
    let mut frames = Frames::default();
    frames.push(frame);
    raw::write_in_time(socket, frames, OPTIONS.kind)
        .await
        .map_err(|raw::Gone| CloseReason::Gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_request_for_stats_is_handled() {
        assert!(is_stats_request(r#"{"type":"stats"}"#));
        assert!(is_stats_request(r#"{"type":"stats","more":1}"#));
        for other in [
            "",
            "null",
            "stats",
            r#"{"type":"hello"}"#,
            r#"["stats"]"#,
            r#"{"type":1}"#,
        ] {
            assert!(!is_stats_request(other), "{other}");
        }
    }
}
