//! What goes on with frames, for everybody who looks on at this edge: one subscription, and every message made into a
//! frame of a WebSocket once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use quintet_bus::{Bus, Deliveries};
use quintet_contract::error::ErrorReply;
use quintet_contract::frame_api::FrameStats;
use quintet_contract::subject::FramesTold;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_service::telemetry::chain;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, broadcast};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::error::HttpError;
use crate::http::websocket::raw::text_frame;
use crate::live::Part;

/// What a listener may be behind; one that is further behind is told the next that comes.
const BACKLOG: usize = 64;
/// Wait before it is subscribed again after a failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The one subscription, started by its first subscriber.
pub(crate) struct StatsFeeds {
    bus: Bus,
    tasks: Tasks,
    feed: OnceCell<StatsFeed>,
}

impl Part for StatsFeeds {
    fn start(bus: &Bus, tasks: &Tasks) -> Self {
        Self {
            bus: bus.clone(),
            tasks: tasks.clone(),
            feed: OnceCell::new(),
        }
    }
}

impl StatsFeeds {
    /// What is published from now on.
    pub(crate) async fn subscribe(&self) -> Result<StatsSubscription, HttpError> {
        let start = || StatsFeed::start(self.bus.clone(), &self.tasks);
        Ok(self.feed.get_or_try_init(start).await?.listen())
    }
}

/// What all subscribers share.
struct StatsFeed {
    messages: broadcast::Sender<Bytes>,
    subscribers: Arc<AtomicUsize>,
}

/// One who looks on; counted as long as it lives.
pub(crate) struct StatsSubscription {
    messages: broadcast::Receiver<Bytes>,
    subscribers: Arc<AtomicUsize>,
}

/// What a listener is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FeedItem {
    /// A message, as a frame of a WebSocket.
    Message(Bytes),
    /// It did not listen for so long that messages are lost to it.
    Lagged,
    /// There will be no more.
    Closed,
}

impl StatsFeed {
    /// Everything that is said after this call is told.
    pub(crate) async fn start(bus: Bus, tasks: &Tasks) -> Result<Self, HttpError> {
        let unavailable =
            || ErrorReply::unavailable("the bus does not answer now; try again in a moment");
        let deliveries = subscribe(&bus).await.map_err(|_| unavailable())?;
        bus.flush().await.map_err(|_| unavailable())?;
        let feed = Self {
            messages: broadcast::Sender::new(BACKLOG),
            subscribers: Arc::default(),
        };
        let following = run(
            bus,
            deliveries,
            feed.messages.clone(),
            feed.subscribers.clone(),
            tasks.token(),
        );
        tasks.spawn("frames", ExitPolicy::Essential, async move {
            following.await;
            Ok::<_, std::convert::Infallible>(())
        });
        Ok(feed)
    }

    pub(crate) fn listen(&self) -> StatsSubscription {
        self.subscribers.fetch_add(1, Ordering::Relaxed);
        StatsSubscription {
            messages: self.messages.subscribe(),
            subscribers: self.subscribers.clone(),
        }
    }
}

impl StatsSubscription {
    /// Waits for the next message. Cancel-safe: it is taken only when it is returned.
    pub(crate) async fn next(&mut self) -> FeedItem {
        match self.messages.recv().await {
            Ok(frame) => FeedItem::Message(frame),
            Err(broadcast::error::RecvError::Closed) => FeedItem::Closed,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                // What is still kept is as old as what was lost.
                self.messages = self.messages.resubscribe();
                FeedItem::Lagged
            }
        }
    }

    /// The same message for this listener alone.
    pub(crate) fn frame(&self, stats: &FrameStats) -> Bytes {
        stats_frame(stats, &self.subscribers)
    }
}

impl Drop for StatsSubscription {
    fn drop(&mut self) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}

type StatsDeliveries = Deliveries<FramesTold>;

async fn subscribe(bus: &Bus) -> Result<StatsDeliveries, quintet_bus::SubscribeError> {
    bus.subscribe::<FramesTold>(FramesTold::filter(bus.prefix()))
        .await
}

async fn run(
    bus: Bus,
    mut deliveries: StatsDeliveries,
    messages: broadcast::Sender<Bytes>,
    subscribers: Arc<AtomicUsize>,
    shutdown: CancellationToken,
) {
    loop {
        // Cancel-safe: a message is taken only when it is returned.
        let next = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            next = deliveries.next() => next,
        };
        if let Some(delivery) = next {
            if messages.receiver_count() > 0 {
                let _ = messages.send(stats_frame(&delivery.message, &subscribers));
            }
            continue;
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY_DELAY) => {}
        }
        match subscribe(&bus).await {
            Ok(again) => deliveries = again,
            Err(error) => {
                warn!(error = %chain(&error), "cannot listen to what goes on with frames")
            }
        }
    }
}

/// A message of the socket.
fn stats_frame(stats: &FrameStats, subscribers: &AtomicUsize) -> Bytes {
    let mut message = json!(stats);
    if let Value::Object(fields) = &mut message {
        fields.insert("type".to_owned(), "stats".into());
        let connections = subscribers.load(Ordering::Relaxed);
        fields.insert("wsConnections".to_owned(), connections.into());
    }
    text_frame(&message.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> StatsFeed {
        StatsFeed {
            messages: broadcast::Sender::new(BACKLOG),
            subscribers: Arc::default(),
        }
    }

    #[test]
    fn a_message_is_the_stats_with_how_many_look_on() {
        let feed = feed();
        let (one, other) = (feed.listen(), feed.listen());
        drop(other);
        let stats: FrameStats = serde_json::from_value(json!({
            "active": "a", "counts": {"received": 3, "forwarded": 2, "dropped": 1}, "sources": ["a"], "fps": 30,
            "running": ["a"], "errors": {"b": "bad magic"}, "degraded": false,
        }))
        .unwrap();
        let frame = one.frame(&stats);
        // A head of four bytes: the text is longer than 125.
        let deliveries: Value = serde_json::from_slice(&frame[4..]).unwrap();
        let expected = json!({
            "type": "stats", "wsConnections": 1, "active": "a",
            "counts": {"received": 3, "forwarded": 2, "dropped": 1}, "sources": ["a"], "fps": 30, "running": ["a"],
            "errors": {"b": "bad magic"}, "degraded": false,
        });
        assert_eq!(deliveries, expected);
    }

    #[tokio::test]
    async fn who_does_not_listen_misses_what_is_old_and_is_told_the_next() {
        let feed = feed();
        let mut slow = feed.listen();
        let messages = |text: &str| FeedItem::Message(Bytes::copy_from_slice(text.as_bytes()));
        for number in 0..BACKLOG + 1 {
            feed.messages
                .send(Bytes::from(format!("{number}")))
                .unwrap();
        }
        assert_eq!(slow.next().await, FeedItem::Lagged);
        feed.messages.send(Bytes::from_static(b"new")).unwrap();
        assert_eq!(slow.next().await, messages("new"));
        drop(feed);
        assert_eq!(slow.next().await, FeedItem::Closed);
    }
}
