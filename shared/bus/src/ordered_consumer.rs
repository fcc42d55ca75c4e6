//! A stream's messages in order and without gaps: the basis of watches and loads.
//!
//! One ephemeral push consumer without acknowledgements, with heartbeats and flow control, delivering to an
//! inbox of ours. Whenever its numbering has a gap, its heartbeats stop, or the client reconnected,
//! it is replaced by one that starts after the last message seen.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, push};
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::{StatusCode, Subscriber};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::connect::{Bus, Link};
use crate::direct_get;
use crate::error::ReadError;
use crate::metrics;
use crate::stored::Stored;

/// How often the server sends an idle heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence after which the consumer counts as lost: three heartbeats.
const STALE_AFTER: Duration = Duration::from_secs(6);
/// How long the server keeps a consumer without a subscriber.
const INACTIVE: Duration = Duration::from_secs(10);
/// First wait between attempts to make the consumer again; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest wait between attempts to make the consumer again.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long "no such stream" is taken for a server that is still starting.
const MISSING_STREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers of heartbeats: the number of the last delivery, and where to acknowledge flow control.
const HEADER_LAST_CONSUMER: &str = "Nats-Last-Consumer";
const HEADER_STALLED: &str = "Nats-Consumer-Stalled";

/// What a feed brings.
pub(crate) enum ConsumerItem {
    /// The next message; `pending` is how many more there are now.
    Message { stored: Stored, pending: u64 },
    /// Nothing more for now.
    CaughtUp,
}

/// An ordered reading of one stream.
pub(crate) struct OrderedConsumer {
    bus: Bus,
    stream: String,
    /// What of the stream is read; everything when empty.
    filter: String,
    /// The last stream sequence that was handed out.
    last: u64,
    consumer: Option<Consumer>,
    link: watch::Receiver<Link>,
}

struct Consumer {
    subscriber: Subscriber,
    name: String,
    /// Number of its last delivery.
    delivered: u64,
    /// It had no messages when it was created, which is not reported yet.
    empty: bool,
}

impl OrderedConsumer {
    /// Starts after a sequence; fails at once when the stream cannot be read.
    pub(crate) async fn start(
        bus: &Bus,
        stream: &str,
        filter: &str,
        after: u64,
    ) -> Result<Self, ReadError> {
        let mut feed = Self {
            bus: bus.clone(),
            stream: stream.to_owned(),
            filter: filter.to_owned(),
            last: after,
            consumer: None,
            link: bus.link_events(),
        };
        feed.link.mark_unchanged();
        feed.consumer = Some(feed.make_consumer().await?);
        Ok(feed)
    }

    /// What of the stream is read; everything when empty.
    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }

    /// The last sequence that was handed out, or where the feed began.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Waits for what comes next. Cancel-safe: everything is kept in `self` across awaits, and a message is
    /// taken from the subscription only when it is returned or dealt with.
    pub(crate) async fn next(&mut self) -> Result<ConsumerItem, ReadError> {
        loop {
            let Some(consumer) = &mut self.consumer else {
                self.consumer = Some(self.make_again().await?);
                continue;
            };
            if std::mem::take(&mut consumer.empty) {
                return Ok(ConsumerItem::CaughtUp);
            }
            let quiet = Instant::now() + STALE_AFTER;
            let received = tokio::select! {
                biased;
                changed = self.link.changed() => Received::Link(changed.is_err()),
                message = timeout_at(quiet, consumer.subscriber.next()) => match message {
                    Ok(Some(message)) => Received::Message(message),
                    Ok(None) => Received::Ended,
                    Err(_) => Received::Silence,
                },
            };
            match received {
                Received::Message(message) => match self.take(message).await {
                    Taken::Item(item) => return Ok(item),
                    Taken::Nothing => {}
                    Taken::Gap => self.drop_consumer("gap"),
                },
                Received::Silence => self.drop_consumer("silence"),
                Received::Link(false) if !self.link.borrow().closed => {
                    self.drop_consumer("reconnected")
                }
                Received::Link(_) => {
                    return Err(ReadError::Other("the connection is closed".into()));
                }
                Received::Ended if self.link.borrow().closed => {
                    return Err(ReadError::Other("the connection is closed".into()));
                }
                Received::Ended => self.drop_consumer("subscription ended"),
            }
        }
    }

    /// Whether the stream holds nothing after what was handed out. "Nothing pending" alone does not mean that:
    /// while a record is replaced there is a moment in which its old message no longer counts and its new
    /// one does not yet. With `subjects` that match everything, the whole stream is meant.
    pub(crate) async fn is_at_end(&self, subjects: &str) -> Result<bool, ReadError> {
        let next = direct_get::read(
            &self.bus,
            &self.stream,
            subjects,
            self.last.saturating_add(1),
            1,
        )
        .await?;
        Ok(next.messages.is_empty())
    }

    /// Takes the consumer off the server, instead of leaving that to its inactivity.
    pub(crate) async fn stop(mut self) {
        if let Some(consumer) = self.consumer.take()
            && let Err(error) = self
                .bus
                .jetstream()
                .delete_consumer_from_stream(&consumer.name, &self.stream)
                .await
        {
            debug!(stream = %self.stream, %error, "left a consumer to expire");
        }
    }

    async fn take(&mut self, message: async_nats::Message) -> Taken {
        let Some(consumer) = &mut self.consumer else {
            return Taken::Gap;
        };
        if message.status == Some(StatusCode::IDLE_HEARTBEAT) {
            return Self::take_control(&self.bus, consumer, message).await;
        }
        let Some((stored, position)) = Stored::from_delivery(message) else {
            return Taken::Nothing;
        };
        if position.consumer != consumer.delivered + 1 {
            return Taken::Gap;
        }
        consumer.delivered = position.consumer;
        self.last = stored.sequence;
        Taken::Item(ConsumerItem::Message {
            stored,
            pending: position.pending,
        })
    }

    /// Heartbeats and flow control. The reply to flow control confirms that we read everything before it.
    async fn take_control(
        bus: &Bus,
        consumer: &mut Consumer,
        message: async_nats::Message,
    ) -> Taken {
        let header = |name: &str| {
            message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(name))
        };
        let stalled = header(HEADER_STALLED).map(|value| value.as_str().to_owned());
        let resume = message
            .reply
            .as_ref()
            .map(|reply| reply.to_string())
            .or(stalled);
        if let Some(resume) = resume
            && let Err(error) = bus.client().publish(resume, bytes::Bytes::new()).await
        {
            debug!(%error, "cannot answer flow control");
        }
        match header(HEADER_LAST_CONSUMER).and_then(|value| value.as_str().parse::<u64>().ok()) {
            Some(last) if last > consumer.delivered => Taken::Gap,
            Some(_) => Taken::Item(ConsumerItem::CaughtUp),
            None => Taken::Nothing,
        }
    }

    fn drop_consumer(&mut self, reason: &'static str) {
        metrics::feed_restarted();
        debug!(stream = %self.stream, after = self.last, reason, "recreating an ordered consumer");
        self.consumer = None;
    }

    /// Tries until it works. Gives up only when the stream is gone for longer than a server takes to start.
    async fn make_again(&mut self) -> Result<Consumer, ReadError> {
        let began = Instant::now();
        let mut wait = RETRY_MIN;
        loop {
            self.link.mark_unchanged();
            if self.link.borrow().closed {
                return Err(ReadError::Other("the connection is closed".into()));
            }
            match self.make_consumer().await {
                Ok(consumer) => return Ok(consumer),
                Err(ReadError::NoStream) if began.elapsed() >= MISSING_STREAM_TIMEOUT => {
                    return Err(ReadError::NoStream);
                }
                Err(ReadError::NoStream) => {}
                Err(ReadError::Other(error)) => {
                    warn!(stream = %self.stream, error, "cannot create an ordered consumer, retrying");
                }
            }
            sleep(wait.mul_f64(rand::random_range(0.5..=1.0))).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    async fn make_consumer(&self) -> Result<Consumer, ReadError> {
        let inbox = self.bus.client().new_inbox();
        let subscribed = self.bus.client().subscribe(inbox.clone()).await;
        let subscriber = subscribed.map_err(|error| ReadError::Other(error.into()))?;
        let name = format!("feed-{}", Uuid::now_v7().simple());
        let config = push::Config {
            name: Some(name.clone()),
            deliver_subject: inbox,
            filter_subject: self.filter.clone(),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: self.last.saturating_add(1),
            },
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            max_deliver: 1,
            flow_control: true,
            idle_heartbeat: HEARTBEAT,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..push::Config::default()
        };
        let made = self
            .bus
            .jetstream()
            .create_consumer_on_stream(config, &self.stream)
            .await;
        let consumer = made.map_err(|error| match error.kind() {
            ConsumerErrorKind::JetStream(reason)
                if reason.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND =>
            {
                ReadError::NoStream
            }
            ConsumerErrorKind::TimedOut
            | ConsumerErrorKind::Request
            | ConsumerErrorKind::InvalidConsumerType
            | ConsumerErrorKind::InvalidName
            | ConsumerErrorKind::JetStream(_)
            | ConsumerErrorKind::Other => ReadError::Other(error.into()),
        })?;
        let empty = consumer.cached_info().num_pending == 0;
        Ok(Consumer {
            subscriber,
            name,
            delivered: 0,
            empty,
        })
    }
}

enum Received {
    /// The client reconnected or was closed; true when the sender is gone.
    Link(bool),
    Message(async_nats::Message),
    Ended,
    Silence,
}

enum Taken {
    Item(ConsumerItem),
    Nothing,
    Gap,
}
