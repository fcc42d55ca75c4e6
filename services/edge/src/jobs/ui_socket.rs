//! The UI's socket: two snapshots, then every change.
//!
//! A client that does not read falls behind the feed, whose backlog is shared and bounded; then it gets a fresh snapshot
//! instead of what it missed.

use std::collections::HashSet;

use axum::extract::State;
use axum::response::Response;
use bytes::Buf;
use quintet_contract::id::JobId;
use quintet_contract::socket::{CLOSE_TOO_SLOW, Envelope, SubscribePayload, ui};
use tokio_tungstenite::tungstenite::Message;

use super::feeds::JobFeeds;
use super::hub::{Snapshot, Update};
use crate::http::websocket::CLOSE_LEAVING;
use crate::http::websocket::accept::{SocketOptions, SocketUpgrade};
use crate::http::websocket::raw::{self, Frames, RawSocket};
use crate::live::topic::RecvError;
use crate::metrics;
use crate::state::App;

/// Clients send little.
const OPTIONS: SocketOptions = SocketOptions {
    kind: "ui",
    max_message: 64 * 1024,
    read_buffer: 512,
};
/// From so many bytes on, frames are written before more is taken from the feed.
const WRITE_BYTES: usize = 256 * 1024;

pub(crate) async fn connect(State(app): State<App>, upgrade: SocketUpgrade) -> Response {
    upgrade.accept(OPTIONS, |socket| run(app, socket.into()))
}

/// Which jobs a client wants to see.
#[derive(Debug, Default, PartialEq, Eq)]
struct Interest(Option<HashSet<JobId>>);

impl Interest {
    fn wants(&self, job: &JobId) -> bool {
        self.0.as_ref().is_none_or(|jobs| jobs.contains(job))
    }

    /// Reads a message of a client; everything but a subscription is ignored.
    fn subscribe(&mut self, text: &str) {
        let Ok(envelope) = serde_json::from_str::<Envelope<SubscribePayload>>(text) else {
            return;
        };
        if envelope.kind == ui::SUBSCRIBE {
            self.0 = envelope.payload.jobs.map(|jobs| jobs.into_iter().collect());
        }
    }

    /// Adds the frames of an update that the client wants; a resync has none.
    fn collect(&self, update: Update, frames: &mut Frames) {
        match update {
            Update::Job(id, all) if self.wants(&id) => {
                all.iter().cloned().for_each(|frame| frames.push(frame));
            }
            Update::Event(id, frame) if self.wants(&id) => frames.push(frame),
            Update::Agent(frame) => frames.push(frame),
            Update::Job(..) | Update::Event(..) | Update::Resync => {}
        }
    }
}

async fn run(app: App, mut socket: RawSocket) {
    let mut interest = Interest::default();
    // Every end of this function ends the connection; a failed write has no receiver for its error.
    let _ = pump(&app, &mut socket, &mut interest).await;
}

/// Why a connection ended: for the reader of the code, not for the client.
enum CloseReason {
    Gone,
    Leaving,
}

async fn pump(
    app: &App,
    socket: &mut RawSocket,
    interest: &mut Interest,
) -> Result<(), CloseReason> {
    let mut pacer = app.live.pacer();
    loop {
        let Ok(snapshot) = app.live.part::<JobFeeds>().snapshot().await else {
            return close(socket, CLOSE_TOO_SLOW, "try again later").await;
        };
        let Snapshot {
            agents,
            jobs,
            mut updates,
        } = snapshot;
        let mut frames = Frames::default();
        frames.push(agents);
        frames.push(jobs);
        write(socket, frames).await?;
        let mut is_current = true;
        while is_current {
            pacer.record_write();
            // Cancel-safe: a message or an update is taken only when it is returned.
            let update = loop {
                tokio::select! {
                    biased;
                    () = app.shutdown.cancelled() => {
                        close(socket, CLOSE_LEAVING, "this server is leaving").await?;
                        return Err(CloseReason::Leaving);
                    }
                    message = socket.recv() => match message {
                        Some(Ok(Message::Text(text))) => interest.subscribe(&text),
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(CloseReason::Gone),
                        Some(Ok(_)) => {}
                    },
                    update = async { pacer.ready().await; updates.recv().await } => break update,
                }
            };
            let mut frames = Frames::default();
            let mut next = Some(update);
            while let Some(update) = next {
                match update {
                    Ok(Update::Resync) => is_current = false,
                    Ok(update) => interest.collect(update, &mut frames),
                    Err(RecvError::Lagged) => {
                        metrics::slow_client(OPTIONS.kind);
                        is_current = false;
                    }
                    Err(RecvError::Closed) => return Err(CloseReason::Gone),
                }
                if !is_current || frames.remaining() >= WRITE_BYTES {
                    break;
                }
                next = updates.try_recv();
            }
            write(socket, frames).await?;
        }
    }
}

async fn close(socket: &mut RawSocket, code: u16, reason: &'static str) -> Result<(), CloseReason> {
    raw::close_in_time(socket, code, reason)
        .await
        .map_err(|raw::Gone| CloseReason::Gone)
}

async fn write(socket: &mut RawSocket, frames: Frames) -> Result<(), CloseReason> {
    raw::write_in_time(socket, frames, OPTIONS.kind)
        .await
        .map_err(|raw::Gone| CloseReason::Gone)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn id(text: &str) -> JobId {
        JobId::parse(text).unwrap()
    }

    #[test]
    fn a_subscription_narrows_widens_and_nothing_else_is_handled() {
        let mut interest = Interest::default();
        for nonsense in [
            "",
            "null",
            "[]",
            r#"{"type":"ui.subscribe"}"#,
            r#"{"type":"x","payload":{"jobs":[]}}"#,
        ] {
            interest.subscribe(nonsense);
            assert!(interest.wants(&id("a")), "{nonsense}");
        }
        interest.subscribe(r#"{"type":"ui.subscribe","payload":{"jobs":["a"]}}"#);
        assert!(interest.wants(&id("a")) && !interest.wants(&id("b")));
        let frame = Bytes::from_static(b"x");
        let mut frames = Frames::default();
        interest.collect(Update::Event(id("b"), frame.clone()), &mut frames);
        assert!(!frames.has_remaining());
        interest.collect(Update::Agent(frame), &mut frames);
        assert!(frames.has_remaining());
        interest.subscribe(r#"{"type":"ui.subscribe","payload":{}}"#);
        assert!(interest.wants(&id("b")));
    }
}
