//! The UI's socket: two snapshots, then every change.
//!
//! A client that does not read falls behind the feed, whose backlog is shared and bounded; then it gets a fresh snapshot
//! instead of what it missed.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use quintet_contract::id::JobId;
use quintet_contract::socket::{Envelope, SubscribePayload, ui};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::{CLOSE_LEAVING, close};
use crate::extract::Client;
use crate::feeds::{Snapshot, Update};
use crate::metrics::{self, OpenStream};
use crate::state::{App, Place};

/// Largest frame that a client may send; what it says is small.
const MAX_FRAME: usize = 64 * 1024;
/// How long a client may take to read one frame before it is let go.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn connect(
    State(app): State<App>,
    Client(address): Client,
    upgrade: WebSocketUpgrade,
) -> Response {
    match app.streams.enter(address) {
        Ok(place) => upgrade
            .max_message_size(MAX_FRAME)
            .on_upgrade(move |socket| run(app, socket, place)),
        Err(error) => error.into_response(),
    }
}

/// Which jobs a client wants to see.
#[derive(Debug, Default, PartialEq, Eq)]
struct Interest(Option<HashSet<JobId>>);

impl Interest {
    fn wants(&self, job: &JobId) -> bool {
        self.0.as_ref().is_none_or(|jobs| jobs.contains(job))
    }

    /// Reads what a client says; everything but a subscription is ignored.
    fn hear(&mut self, text: &str) {
        let Ok(envelope) = serde_json::from_str::<Envelope<SubscribePayload>>(text) else {
            return;
        };
        if envelope.kind == ui::SUBSCRIBE {
            self.0 = envelope.payload.jobs.map(|jobs| jobs.into_iter().collect());
        }
    }

    /// The frames of an update that the client wants; none of a resync, which is not told but done.
    fn frames(&self, update: Update) -> Vec<Utf8Bytes> {
        match update {
            Update::Job(id, frames) if self.wants(&id) => frames.to_vec(),
            Update::Event(id, frame) if self.wants(&id) => vec![frame],
            Update::Agent(frame) => vec![frame],
            Update::Job(..) | Update::Event(..) | Update::Resync => Vec::new(),
        }
    }
}

async fn run(app: App, mut socket: WebSocket, _place: Place) {
    let _open = OpenStream::new("ui");
    let mut interest = Interest::default();
    // Every end of this function ends the connection; there is nobody to tell about a failed write.
    let _ = pump(&app, &mut socket, &mut interest).await;
}

/// Why a connection ended: for the reader of the code, not for the client.
enum Over {
    Gone,
    Leaving,
}

async fn pump(app: &App, socket: &mut WebSocket, interest: &mut Interest) -> Result<(), Over> {
    loop {
        let Ok(snapshot) = app.feeds.snapshot().await else {
            return unavailable(socket).await;
        };
        let Snapshot {
            agents,
            jobs,
            mut updates,
        } = snapshot;
        send(socket, Message::text(agents)).await?;
        send(socket, Message::text(jobs)).await?;
        loop {
            // Cancel-safe: a message is taken only when it is returned.
            let update = tokio::select! {
                biased;
                () = app.shutdown.cancelled() => {
                    send(socket, close(CLOSE_LEAVING, "this server is leaving")).await?;
                    return Err(Over::Leaving);
                }
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => { interest.hear(&text); continue }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Over::Gone),
                    Some(Ok(_)) => continue,
                },
                update = updates.recv() => update,
            };
            match update {
                Ok(Update::Resync) => break,
                Ok(update) => {
                    for frame in interest.frames(update) {
                        send(socket, Message::Text(frame)).await?;
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    metrics::slow_client("ui");
                    break;
                }
                Err(RecvError::Closed) => return Err(Over::Gone),
            }
        }
    }
}

async fn unavailable(socket: &mut WebSocket) -> Result<(), Over> {
    send(
        socket,
        close(quintet_contract::socket::CLOSE_TOO_SLOW, "try again later"),
    )
    .await
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), Over> {
    match timeout(WRITE_DEADLINE, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Over::Gone),
        Err(_) => {
            metrics::slow_client("ui");
            Err(Over::Gone)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> JobId {
        JobId::parse(text).unwrap()
    }

    #[test]
    fn a_subscription_narrows_widens_and_nothing_else_is_heard() {
        let mut interest = Interest::default();
        for nonsense in [
            "",
            "null",
            "[]",
            r#"{"type":"ui.subscribe"}"#,
            r#"{"type":"x","payload":{"jobs":[]}}"#,
        ] {
            interest.hear(nonsense);
            assert!(interest.wants(&id("a")), "{nonsense}");
        }
        interest.hear(r#"{"type":"ui.subscribe","payload":{"jobs":["a"]}}"#);
        assert!(interest.wants(&id("a")) && !interest.wants(&id("b")));
        let frame = Utf8Bytes::from_static("x");
        assert!(
            interest
                .frames(Update::Event(id("b"), frame.clone()))
                .is_empty()
        );
        assert_eq!(interest.frames(Update::Agent(frame.clone())), [frame]);
        interest.hear(r#"{"type":"ui.subscribe","payload":{}}"#);
        assert!(interest.wants(&id("b")));
    }
}
