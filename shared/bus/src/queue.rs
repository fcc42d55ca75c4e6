//! Queues of tasks: a stream with work-queue retention, and in it one durable pull consumer per queue that all its
//! workers share.
//!
//! A worker asks for as many tasks as it has room for. A task that is neither acknowledged nor marked as in progress
//! within the acknowledgement time is redelivered to another worker.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::{Client, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use quintet_contract::id::{QueueName, Token};
use quintet_contract::subject::{Prefix, Subject, TaskQueue};
use quintet_contract::task::Task;
use quintet_contract::topology::stream;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::codec::decode;
use crate::connect::{Bus, Link};
use crate::error::{Cause, QueueError};
use crate::metrics::{self, DecodeSite};
use crate::stored::Position;

/// How long a request for tasks stays open at the server.
const OPEN: Duration = Duration::from_secs(30);
/// After this without a message the server no longer knows of our requests.
const STALE_AFTER: Duration = Duration::from_secs(35);
/// Wait after a request that the server did not take, before the next one.
const PAUSE: Duration = Duration::from_millis(250);
/// How long what is in flight to a worker that takes no more is waited for.
const CLOSING: Duration = Duration::from_secs(1);
/// Requests for tasks that one queue holds open at most, of all its workers together.
const REQUESTS: i64 = 16_384;
/// How much of a batch was not delivered.
const HEADER_PENDING: &str = "Nats-Pending-Messages";

/// The status of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Workers that wait for a task.
    pub waiting: usize,
    /// Tasks that are delivered and not acknowledged.
    pub ack_pending: usize,
    /// Tasks that are not delivered yet.
    pub pending: u64,
}

impl QueueState {
    /// Whether a worker takes from it, as far as can be seen: waits for a task, or has one.
    pub fn has_worker(self) -> bool {
        self.waiting > 0 || self.ack_pending > 0
    }
}

impl Bus {
    /// Makes the consumer of a queue, or gives it this acknowledgement time if it is there already.
    ///
    /// # Errors
    /// [`QueueError`] when the stream of tasks is missing, or the consumer exists with another configuration.
    pub async fn ensure_queue(
        &self,
        queue: &QueueName,
        ack_wait: Duration,
    ) -> Result<(), QueueError> {
        let config = pull::Config {
            durable_name: Some(consumer_of(queue)),
            filter_subject: subject_of(queue).render(self.prefix()),
            ack_policy: AckPolicy::Explicit,
            ack_wait,
            max_deliver: -1,
            max_ack_pending: -1,
            max_waiting: REQUESTS,
            ..pull::Config::default()
        };
        let made = self
            .jetstream()
            .create_consumer_on_stream(config, stream::tasks(self.prefix()))
            .await;
        made.map(|_| ())
            .map_err(|error| failed("make", queue, error.into()))
    }

    /// The status of a queue; `None` when it was never used.
    ///
    /// # Errors
    /// [`QueueError`] when the server does not answer.
    pub async fn queue_state(&self, queue: &QueueName) -> Result<Option<QueueState>, QueueError> {
        let tasks = stream::tasks(self.prefix());
        let request = format!("CONSUMER.INFO.{tasks}.{}", consumer_of(queue));
        let answer: Result<serde_json::Value, _> =
            self.jetstream().request(request, &json!({})).await;
        let answer = answer.map_err(|error| failed("look at", queue, error.into()))?;
        if answer.get("error").is_some() {
            return Ok(None);
        }
        let number = |field: &str| answer.get(field).and_then(serde_json::Value::as_u64);
        let small = |field: &str| usize::try_from(number(field).unwrap_or(0)).unwrap_or(usize::MAX);
        Ok(Some(QueueState {
            waiting: small("num_waiting"),
            ack_pending: small("num_ack_pending"),
            pending: number("num_pending").unwrap_or(0),
        }))
    }

    /// Takes tasks from a queue, which must be there.
    ///
    /// # Errors
    /// [`QueueError`] when the connection is closed.
    pub async fn pull(&self, queue: &QueueName) -> Result<Pull, QueueError> {
        let inbox = self.client().new_inbox();
        let subscribed = self.client().subscribe(inbox.clone()).await;
        let subscriber = subscribed.map_err(|error| failed("take from", queue, error.into()))?;
        let tasks = stream::tasks(self.prefix());
        Ok(Pull {
            request: format!("$JS.API.CONSUMER.MSG.NEXT.{tasks}.{}", consumer_of(queue)),
            inbox,
            subscriber,
            link: self.link_events(),
            bus: self.clone(),
            requested: 0,
            received: Instant::now(),
            pull_from: Instant::now(),
        })
    }
}

fn subject_of(queue: &QueueName) -> TaskQueue {
    TaskQueue {
        queue: queue.clone(),
    }
}

/// Consumers are named like the token of the queue, which every server takes for a name.
fn consumer_of(queue: &QueueName) -> String {
    queue
        .to_token()
        .map(std::borrow::Cow::into_owned)
        .unwrap_or_default()
}

fn failed(attempt: &'static str, queue: &QueueName, source: Cause) -> QueueError {
    QueueError {
        attempt,
        queue: queue.to_string(),
        source,
    }
}

/// A worker's end of a queue.
pub struct Pull {
    bus: Bus,
    request: String,
    inbox: String,
    subscriber: Subscriber,
    link: watch::Receiver<Link>,
    /// Tasks that were requested and have not arrived yet.
    requested: usize,
    /// When the server last sent a message.
    received: Instant,
    /// Nothing is requested before.
    pull_from: Instant,
}

impl Pull {
    /// The next task, when there is room for `room` of them; `None` when the connection is closed. Cancel-safe: a task
    /// is taken only when it is returned.
    pub async fn next(&mut self, room: usize) -> Option<Pulled> {
        loop {
            if self.link.has_changed().unwrap_or(true) {
                if self.link.borrow_and_update().closed {
                    return None;
                }
                // The server behind the earlier connection may not know the request any more.
                self.requested = 0;
            }
            let may_pull = self.pull_from <= Instant::now();
            // Half the room at once: a request per task would be as much work as small tasks are.
            if may_pull && self.requested * 2 < room {
                self.pull(room - self.requested).await;
            }
            let wake = if may_pull {
                self.received + STALE_AFTER
            } else {
                self.pull_from
            };
            let message = tokio::select! {
                biased;
                _ = self.link.changed() => {
                    self.link.mark_changed();
                    continue;
                }
                message = self.subscriber.next() => message?,
                () = sleep_until(wake) => {
                    if may_pull {
                        self.requested = 0;
                        self.received = Instant::now();
                    }
                    continue;
                }
            };
            self.received = Instant::now();
            if let Some(status) = message.status.filter(|status| *status != StatusCode::OK) {
                self.note(status, &message);
                continue;
            }
            self.requested = self.requested.saturating_sub(1);
            if let Some(pulled) = self.read(message).await {
                return Some(pulled);
            }
        }
    }

    /// Takes no more; what is in flight is returned to the queue.
    pub async fn close(mut self) {
        if let Err(error) = self.subscriber.drain().await {
            debug!(%error, "the connection was closed before a queue was");
            return;
        }
        let give_back = async {
            while let Some(message) = self.subscriber.next().await {
                let is_task = message.status.is_none_or(|status| status == StatusCode::OK);
                if let Some(reply) = message.reply.filter(|_| is_task) {
                    let client = self.bus.client().clone();
                    AckHandle { client, reply }.nak().await;
                }
            }
        };
        if timeout(CLOSING, give_back).await.is_err() {
            debug!("tasks in flight from a queue did not arrive in time");
        }
    }

    async fn pull(&mut self, count: usize) {
        let expires = u64::try_from(OPEN.as_nanos()).unwrap_or(u64::MAX);
        let body = json!({"batch": count, "expires": expires}).to_string();
        let sent = self
            .bus
            .client()
            .publish_with_reply(self.request.clone(), self.inbox.clone(), body.into())
            .await;
        match sent {
            Ok(()) => {
                if self.requested == 0 {
                    self.received = Instant::now();
                }
                self.requested += count;
            }
            Err(error) => debug!(%error, "pulling tasks failed"),
        }
    }

    /// The end of a request: time is over, or the server is going.
    fn note(&mut self, status: StatusCode, message: &async_nats::Message) {
        let headers = message.headers.as_ref();
        let pending = headers.and_then(|headers| headers.get(HEADER_PENDING));
        let pending = pending.and_then(|value| value.as_str().parse::<usize>().ok());
        self.requested = self
            .requested
            .saturating_sub(pending.unwrap_or(self.requested));
        if status != StatusCode::TIMEOUT {
            self.pull_from = Instant::now() + PAUSE;
        }
        debug!(%status, description = ?message.description, "a request for tasks ended");
    }

    /// Reads a task; one that cannot be read is taken out of the queue, since no other worker could read it either.
    async fn read(&self, message: async_nats::Message) -> Option<Pulled> {
        let reply = message.reply.clone()?;
        let position = Position::read(&reply)?;
        let held = AckHandle {
            client: self.bus.client().clone(),
            reply,
        };
        let prefix: &Prefix = self.bus.prefix();
        let subject = TaskQueue::parse(prefix, &message.subject);
        match (subject, decode::<Task>(&message.payload)) {
            (Some(TaskQueue { queue }), Ok((task, _))) => Some(Pulled {
                queue,
                task,
                delivered: u32::try_from(position.delivered).unwrap_or(u32::MAX),
                sequence: position.stream,
                held,
            }),
            (_, read) => {
                metrics::malformed(DecodeSite::Delivery);
                let error = read.err().map(|error| error.to_string());
                tracing::warn!(subject = %message.subject, ?error, "took an unreadable task out of its queue");
                held.reply(b"+TERM").await;
                None
            }
        }
    }
}

/// A task from a queue.
pub struct Pulled {
    /// The queue.
    pub queue: QueueName,
    /// The task.
    pub task: Task,
    /// How often it was delivered, from 1.
    pub delivered: u32,
    /// Sequence of its message in the stream of tasks.
    pub sequence: u64,
    /// The pending acknowledgement.
    pub held: AckHandle,
}

/// A task in flight. One that is dropped is redelivered after the acknowledgement time.
#[derive(Clone, Debug)]
#[must_use = "a task that is not acknowledged comes again"]
pub struct AckHandle {
    client: Client,
    reply: async_nats::Subject,
}

impl AckHandle {
    /// It is still in progress: the acknowledgement time starts again.
    pub async fn in_progress(&self) {
        self.reply(b"+WPI").await;
    }

    /// It is done with. When this is lost, the task comes again.
    pub async fn ack(self) {
        self.reply(b"+ACK").await;
    }

    /// Redeliver it to another worker, now.
    pub async fn nak(self) {
        self.reply(b"-NAK").await;
    }

    async fn reply(&self, what: &'static [u8]) {
        let sent = self
            .client
            .publish(self.reply.clone(), Bytes::from_static(what))
            .await;
        if let Err(error) = sent {
            debug!(%error, "the acknowledgement of a task failed");
        }
    }
}
