//! The live statistics of frames for all clients of this edge: one subscription of the bus, and every message encoded as a
//! frame of a WebSocket once.

use bytes::Bytes;
use quintet_bus::Bus;
use quintet_contract::error::ErrorReply;
use quintet_contract::frame_api::FrameStats;
use quintet_contract::subject::FrameStatsPublished;
use quintet_service::tasks::{ExitPolicy, Tasks};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::error::HttpError;
use crate::http::websocket::raw::text_frame;
use crate::live::Part;
use crate::live::topic::{RecvError, Subscription, Topic, relay};

/// Bytes that a client may be behind; one that is further behind gets the next message.
const BACKLOG_BYTES: usize = 256 * 1024;

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
    messages: Topic<Bytes>,
}

/// One subscriber; counted until it is dropped.
pub(crate) struct StatsSubscription {
    messages: Subscription<Bytes>,
}

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FeedItem {
    /// A message, as a frame of a WebSocket.
    Message(Bytes),
    /// It did not read for so long that messages are lost to it.
    Lagged,
    /// There will be no more.
    Closed,
}

impl StatsFeed {
    /// Everything that is published after this call reaches the subscribers.
    async fn start(bus: Bus, tasks: &Tasks) -> Result<Self, HttpError> {
        let unavailable =
            || ErrorReply::unavailable("the bus does not answer now; try again in a moment");
        let filter = FrameStatsPublished::filter(bus.prefix());
        let deliveries = bus.subscribe::<FrameStatsPublished>(filter.clone()).await;
        let deliveries = deliveries.map_err(|_| unavailable())?;
        bus.flush().await.map_err(|_| unavailable())?;
        let messages = Topic::new(BACKLOG_BYTES);
        let (topic, stop) = (messages.clone(), tasks.token());
        let relaying = relay(bus, filter, deliveries, stop, move |delivery| {
            if topic.subscribers() > 0 {
                let frame = stats_frame(&delivery.message, topic.subscribers());
                let bytes = frame.len();
                topic.publish(frame, bytes);
            }
        });
        tasks.spawn("frames", ExitPolicy::Essential, async move {
            relaying.await;
            Ok::<_, std::convert::Infallible>(())
        });
        Ok(Self { messages })
    }

    fn listen(&self) -> StatsSubscription {
        StatsSubscription {
            messages: self.messages.subscribe(),
        }
    }
}

impl StatsSubscription {
    /// Waits for the next message. Cancel-safe: it is taken only when it is returned.
    pub(crate) async fn next(&mut self) -> FeedItem {
        match self.messages.recv().await {
            Ok(frame) => FeedItem::Message(frame),
            Err(RecvError::Closed) => FeedItem::Closed,
            Err(RecvError::Lagged) => {
                // What is still kept is as old as what was lost.
                self.messages.skip_backlog();
                FeedItem::Lagged
            }
        }
    }

    /// The same message for this subscriber alone.
    pub(crate) fn frame(&self, stats: &FrameStats) -> Bytes {
        stats_frame(stats, self.messages.subscribers())
    }
}

/// A message of the socket.
fn stats_frame(stats: &FrameStats, subscribers: usize) -> Bytes {
    let mut message = json!(stats);
    if let Value::Object(fields) = &mut message {
        fields.insert("type".to_owned(), "stats".into());
        fields.insert("wsConnections".to_owned(), subscribers.into());
    }
    text_frame(&message.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> StatsFeed {
        StatsFeed {
            messages: Topic::new(BACKLOG_BYTES),
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
    async fn a_slow_subscriber_misses_old_messages_and_receives_the_next() {
        let feed = feed();
        let mut slow = feed.listen();
        let messages = |text: &str| FeedItem::Message(Bytes::copy_from_slice(text.as_bytes()));
        for number in 0..10 {
            let message = Bytes::from(format!("{number}"));
            feed.messages.publish(message, BACKLOG_BYTES / 8);
        }
        assert_eq!(slow.next().await, FeedItem::Lagged);
        feed.messages.publish(Bytes::from_static(b"new"), 3);
        assert_eq!(slow.next().await, messages("new"));
        drop(feed);
        assert_eq!(slow.next().await, FeedItem::Closed);
    }
}
