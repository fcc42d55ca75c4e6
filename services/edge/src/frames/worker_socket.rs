//! The socket of a worker of frames. The edge stands in for the worker on the bus: it publishes its heartbeats and frames, and
//! forwards the messages for it.
//!
//! ```text
//!   subscribed ──first heartbeat──▶ waiting ──hello──▶ greeted: settings and ticks are forwarded
//!                                 │                 │
//!                                 ▼                 ▼
//!       close 4000 by the heartbeat of a newer socket · close 1012 at shutdown · gone after 3 pings of silence
//! ```
//!
//! Frames are read only as fast as the bus takes them. What the worker does not read in time is replaced by the newest.

use std::pin::pin;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use futures::StreamExt;
use futures::stream::SplitStream;
use quintet_bus::{Bus, Deliveries, LinkState, SubscribeError};
use quintet_contract::frame_api::{FrameWorkerHeartbeat, FrameWorkerMessage, Via};
use quintet_contract::id::WorkerId;
use quintet_contract::subject::{FrameWorkerHeartbeats, FrameWorkerMessages, WorkerFrame};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tracing::debug;
use uuid::Uuid;

use crate::http::extract::PathId;
use crate::http::websocket::CLOSE_LEAVING;
use crate::http::websocket::accept::{Socket, SocketOptions, SocketUpgrade};
use crate::http::websocket::latest_queue::ConflatingQueue;
use crate::http::websocket::ping::{Activity, Due, Pings};
use crate::metrics;
use crate::state::App;

/// Close code of a socket whose worker has opened a newer one.
const CLOSE_REPLACED: u16 = 4000;
/// Close code of a socket on which something came that is too large.
const CLOSE_UNREADABLE: u16 = 1009;
/// How often the worker's heartbeat is published.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long the close frame and the last heartbeat may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages that wait for a worker that does not read: the newest of each kind, in this order.
const MESSAGE_KINDS: usize = 3;

type Queue = ConflatingQueue<MESSAGE_KINDS>;

pub(crate) async fn connect(
    State(app): State<App>,
    PathId(worker): PathId<WorkerId>,
    upgrade: SocketUpgrade,
) -> Response {
    let options = SocketOptions {
        kind: "frame_worker",
        max_message: app.config.body_limit,
        read_buffer: 8 * 1024,
    };
    upgrade.accept(options, |socket| serve(app, worker, socket))
}

/// Why a socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseReason {
    /// The other end closed, or is gone.
    Gone,
    /// It sent what is too large, or no message at all.
    Unreadable,
    /// A newer socket speaks for the worker.
    Replaced,
    /// The edge leaves, or its connection to the bus is over.
    ShuttingDown,
}

async fn serve(app: App, worker: WorkerId, socket: Socket) {
    let (sink, mut stream) = socket.split();
    let queue = Queue::start(sink, &app.sockets);
    let session = Session {
        app,
        worker,
        id: Uuid::now_v7().hyphenated().to_string(),
        activity: Activity::default(),
    };
    let end = session
        .run(&mut stream, &queue)
        .await
        .unwrap_or_else(|error| {
            debug!(%error, "cannot act for a worker");
            CloseReason::ShuttingDown
        });
    session.finish(end, stream, queue).await;
}

/// One socket.
struct Session {
    app: App,
    worker: WorkerId,
    /// Later sockets have greater ones.
    id: String,
    activity: Activity,
}

impl Session {
    async fn run(
        &self,
        stream: &mut SplitStream<Socket>,
        queue: &Queue,
    ) -> Result<CloseReason, SubscribeError> {
        // Before the first heartbeat, so that its answer is received.
        let (mut messages, mut heartbeats) = self.subscribe().await?;
        let mut greeting = Greeting::default();
        let mut reading = pin!(self.read(stream));
        let mut heartbeating = pin!(self.heartbeat());
        let mut pings = Pings::start();
        loop {
            // Cancel-safe: messages are taken only when they are returned; the other two resume where they were.
            tokio::select! {
                biased;
                () = self.app.shutdown.cancelled() => return Ok(CloseReason::ShuttingDown),
                heartbeat = heartbeats.next() => match heartbeat {
                    Some(heartbeat) if is_newer(&heartbeat.message, &self.id) => return Ok(CloseReason::Replaced),
                    Some(_) => {}
                    None => return Ok(CloseReason::ShuttingDown),
                },
                message = messages.next() => match message {
                    Some(message) => greeting.forward(message.message, queue),
                    None => return Ok(CloseReason::ShuttingDown),
                },
                () = &mut heartbeating => return Ok(CloseReason::ShuttingDown),
                due = pings.due(&self.activity) => match due {
                    Due::Gone => return Ok(CloseReason::Gone),
                    Due::Ping => queue.ping(),
                },
                end = &mut reading => return Ok(end),
            }
        }
    }

    async fn subscribe(
        &self,
    ) -> Result<
        (
            Deliveries<FrameWorkerMessages>,
            Deliveries<FrameWorkerHeartbeats>,
        ),
        SubscribeError,
    > {
        let bus = &self.app.bus;
        let (prefix, worker) = (bus.prefix(), Some(&self.worker));
        let messages = bus.subscribe(FrameWorkerMessages::filter(prefix, worker));
        let heartbeats = bus.subscribe(FrameWorkerHeartbeats::filter(prefix, worker));
        Ok((messages.await?, heartbeats.await?))
    }

    /// Publishes what the worker sends, each when the bus has taken the one before; ends with the stream.
    async fn read(&self, stream: &mut SplitStream<Socket>) -> CloseReason {
        let link = self.app.bus.link();
        let subject = WorkerFrame {
            worker: self.worker.clone(),
        };
        while let Some(read) = stream.next().await {
            let Ok(message) = read else {
                return CloseReason::Unreadable;
            };
            self.activity.record();
            match message {
                // An image that would be sent when the bus is back is stale then.
                Message::Binary(_) if *link.borrow() == LinkState::Disconnected => {
                    metrics::ignored_frame("bus_away");
                }
                Message::Binary(frame) => {
                    if let Err(error) = self.app.bus.publish_raw(&subject, frame).await {
                        metrics::ignored_frame("not_published");
                        debug!(%error, "cannot publish a frame");
                    }
                }
                Message::Close(_) => return CloseReason::Gone,
                // A hello holds nothing that matters here, and no other text is known.
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        CloseReason::Gone
    }

    /// Sends the worker's heartbeat, at once and then every second; ends when the bus is closed.
    async fn heartbeat(&self) {
        let mut pulse = interval(HEARTBEAT_INTERVAL);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pulse.tick().await;
            if let Err(error) = publish_heartbeat(
                &self.app.bus,
                &self.worker,
                self.heartbeat_message(Leaves::No),
            )
            .await
            {
                debug!(%error, "sending a worker's heartbeat failed");
                return;
            }
        }
    }

    fn heartbeat_message(&self, leaves: Leaves) -> FrameWorkerHeartbeat {
        FrameWorkerHeartbeat {
            session: self.id.clone(),
            via: Via::Socket,
            leaves: leaves == Leaves::Yes,
            ..FrameWorkerHeartbeat::default()
        }
    }

    /// Publishes the end and closes the socket. A worker that is replaced has not left.
    async fn finish(self, end: CloseReason, stream: SplitStream<Socket>, queue: Queue) {
        let (code, reason) = match end {
            CloseReason::Gone => (1000, "bye"),
            CloseReason::Unreadable => (CLOSE_UNREADABLE, "a message is too large or none"),
            CloseReason::Replaced => (CLOSE_REPLACED, "replaced by a newer socket"),
            CloseReason::ShuttingDown => (CLOSE_LEAVING, "this server is leaving"),
        };
        let leaving = async {
            if end != CloseReason::Replaced {
                let left = publish_heartbeat(
                    &self.app.bus,
                    &self.worker,
                    self.heartbeat_message(Leaves::Yes),
                )
                .await;
                let _ =
                    left.inspect_err(|error| debug!(%error, "sending a worker's goodbye failed"));
            }
        };
        let closing = async {
            let closed = queue.close(code, reason);
            // What is still in flight is read: a connection that is cut off before loses the reason for it.
            let read = stream.for_each(|_| std::future::ready(()));
            futures::future::join(closed, read).await
        };
        // A client that does not take them misses them.
        let _ = timeout(CLOSE_TIMEOUT, futures::future::join(leaving, closing)).await;
    }
}

/// Whether a heartbeat is the last one of its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    Yes,
    No,
}

async fn publish_heartbeat(
    bus: &Bus,
    worker: &WorkerId,
    heartbeat: FrameWorkerHeartbeat,
) -> Result<(), quintet_bus::PublishError> {
    let subject = FrameWorkerHeartbeats {
        worker: worker.clone(),
    };
    bus.publish(&subject, &heartbeat).await
}

/// Whether the heartbeat of another socket shows that it is the newer one.
fn is_newer(heartbeat: &FrameWorkerHeartbeat, session: &str) -> bool {
    heartbeat.via == Via::Socket && !heartbeat.leaves && heartbeat.session.as_str() > session
}

/// Queues a message by its kind. Start and stop are for workers on the bus.
fn put(queue: &Queue, message: &FrameWorkerMessage) {
    let kind = match message {
        FrameWorkerMessage::Hello { .. } => 0,
        FrameWorkerMessage::Config { .. } => 1,
        FrameWorkerMessage::Tick { .. } => 2,
        FrameWorkerMessage::Start | FrameWorkerMessage::Stop | FrameWorkerMessage::Unknown => {
            return;
        }
    };
    // Plain data: it can always be written.
    if let Ok(text) = serde_json::to_string(message) {
        queue.put(kind, text);
    }
}

/// How the worker was greeted: nothing is passed on before that.
#[derive(Debug, Default)]
struct Greeting(Option<FrameWorkerMessage>);

impl Greeting {
    /// Forwards a message to the worker. Start and stop are for workers on the bus: a socket is open as long as it runs.
    fn forward(&mut self, message: FrameWorkerMessage, queue: &Queue) {
        if self.is_wanted(&message) {
            put(queue, &message);
        }
    }

    /// Another service that drives the display sends a hello again, which matters only where it drives another display.
    fn is_wanted(&mut self, message: &FrameWorkerMessage) -> bool {
        if let FrameWorkerMessage::Hello { .. } = message {
            return self.0.replace(message.clone()).as_ref() != Some(message);
        }
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_before_hello_and_the_same_hello_comes_once() {
        use quintet_contract::frame::{Canvas, Fps, Thousandths};
        let hello = |width| FrameWorkerMessage::Hello {
            fps: Fps::new(30.0).unwrap(),
            canvas: Canvas { width, height: 14 },
        };
        let tick = FrameWorkerMessage::Tick { t: Thousandths(0) };
        let mut greeting = Greeting::default();
        let messages = [&tick, &hello(28), &tick, &hello(28), &hello(14)];
        let wanted = messages.map(|message| greeting.is_wanted(message));
        assert_eq!(wanted, [false, true, true, false, true]);
    }

    #[test]
    fn only_a_later_socket_that_stays_takes_over() {
        let heartbeat = |session: &str, via, leaves| FrameWorkerHeartbeat {
            session: session.to_owned(),
            via,
            leaves,
            ..FrameWorkerHeartbeat::default()
        };
        assert!(is_newer(&heartbeat("c", Via::Socket, false), "b"));
        for other in [
            heartbeat("b", Via::Socket, false),
            heartbeat("a", Via::Socket, false),
            heartbeat("c", Via::Bus, false),
            heartbeat("c", Via::Socket, true),
        ] {
            assert!(!is_newer(&other, "b"), "{other:?}");
        }
    }
}
