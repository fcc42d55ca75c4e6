//! Topics: one source, many subscribers. The backlog is shared and bounded in bytes; a subscriber that falls further behind is
//! notified and continues with the oldest message that is left.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use quintet_bus::{Bus, Deliveries, Delivery};
use quintet_contract::subject::Subject;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::retry::until_ok;
use super::unpoisoned;

/// The publishing side; clones are the same topic.
#[derive(Clone, Debug)]
pub(crate) struct Topic<T> {
    backlog: Arc<Mutex<Backlog<T>>>,
    /// Counts what was published.
    published: Arc<watch::Sender<u64>>,
}

/// Messages that some subscriber has not taken yet.
#[derive(Debug)]
struct Backlog<T> {
    messages: VecDeque<Slot<T>>,
    /// The number of the first of them.
    first: u64,
    bytes: usize,
    max_bytes: usize,
    subscribers: usize,
}

#[derive(Debug)]
struct Slot<T> {
    message: T,
    bytes: usize,
    /// Subscribers that have not taken it.
    unread: usize,
}

/// One subscriber.
#[derive(Debug)]
pub(crate) struct Subscription<T> {
    backlog: Arc<Mutex<Backlog<T>>>,
    published: watch::Receiver<u64>,
    /// The number of the message that is taken next.
    next: u64,
}

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecvError {
    /// Messages are lost to this subscriber.
    Lagged,
    /// There will be no more.
    Closed,
}

impl<T: Clone> Topic<T> {
    /// A topic that keeps at most so many bytes, or one message that is larger.
    pub(crate) fn new(max_bytes: usize) -> Self {
        let backlog = Backlog {
            messages: VecDeque::new(),
            first: 0,
            bytes: 0,
            max_bytes,
            subscribers: 0,
        };
        Self {
            backlog: Arc::new(Mutex::new(backlog)),
            published: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Publishes a message that takes so many bytes; without subscribers it is dropped.
    pub(crate) fn publish(&self, message: T, bytes: usize) {
        unpoisoned(self.backlog.lock()).push(message, bytes);
        self.published.send_modify(|count| *count += 1);
    }

    /// Everything that is published from now on.
    pub(crate) fn subscribe(&self) -> Subscription<T> {
        let mut backlog = unpoisoned(self.backlog.lock());
        backlog.subscribers += 1;
        Subscription {
            next: backlog.end(),
            backlog: self.backlog.clone(),
            published: self.published.subscribe(),
        }
    }

    pub(crate) fn subscribers(&self) -> usize {
        unpoisoned(self.backlog.lock()).subscribers
    }

    /// Resolves when there is no subscriber. Cancel-safe: it only waits.
    pub(crate) async fn unused(&self) {
        self.published.closed().await;
    }
}

impl<T> Backlog<T> {
    /// The number of the next message.
    fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    fn push(&mut self, message: T, bytes: usize) {
        if self.subscribers == 0 {
            return;
        }
        self.bytes += bytes;
        self.messages.push_back(Slot {
            message,
            bytes,
            unread: self.subscribers,
        });
        while self.bytes > self.max_bytes && self.messages.len() > 1 {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(slot) = self.messages.pop_front() {
            self.bytes -= slot.bytes;
            self.first += 1;
        }
    }

    /// Marks messages as taken by one subscriber, and drops those that all have taken.
    fn taken(&mut self, numbers: std::ops::Range<u64>) {
        let first = self.first;
        let index =
            |number: u64| usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        let range = index(numbers.start)..index(numbers.end).min(self.messages.len());
        if range.start < range.end {
            for slot in self.messages.range_mut(range) {
                slot.unread -= 1;
            }
        }
        while self.messages.front().is_some_and(|slot| slot.unread == 0) {
            self.pop();
        }
    }
}

impl<T: Clone> Subscription<T> {
    /// Waits for the next message. Cancel-safe: it is taken only when it is returned.
    pub(crate) async fn recv(&mut self) -> Result<T, RecvError> {
        loop {
            self.published.mark_unchanged();
            if let Some(taken) = self.try_recv() {
                return taken;
            }
            if self.published.changed().await.is_err() {
                return self.try_recv().unwrap_or(Err(RecvError::Closed));
            }
        }
    }

    /// The next message, if there is one now.
    pub(crate) fn try_recv(&mut self) -> Option<Result<T, RecvError>> {
        let mut backlog = unpoisoned(self.backlog.lock());
        if self.next < backlog.first {
            self.next = backlog.first;
            return Some(Err(RecvError::Lagged));
        }
        let index = usize::try_from(self.next - backlog.first).ok()?;
        let message = backlog.messages.get(index)?.message.clone();
        backlog.taken(self.next..self.next + 1);
        self.next += 1;
        Some(Ok(message))
    }

    /// How many subscribers the topic has.
    pub(crate) fn subscribers(&self) -> usize {
        unpoisoned(self.backlog.lock()).subscribers
    }

    /// Goes on with what is published from now on.
    pub(crate) fn skip_backlog(&mut self) {
        let mut backlog = unpoisoned(self.backlog.lock());
        let end = backlog.end();
        backlog.taken(self.next..end);
        self.next = end;
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        let mut backlog = unpoisoned(self.backlog.lock());
        let end = backlog.end();
        backlog.taken(self.next..end);
        backlog.subscribers -= 1;
    }
}

/// Passes on what comes on a subscription of the bus until `shutdown`; subscribes again when it ends.
pub(crate) async fn relay<S: Subject>(
    bus: Bus,
    filter: String,
    mut deliveries: Deliveries<S>,
    shutdown: CancellationToken,
    mut publish: impl FnMut(Delivery<S>),
) {
    loop {
        // Cancel-safe: a message is taken only when it is returned.
        let next = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            next = deliveries.next() => next,
        };
        if let Some(delivery) = next {
            publish(delivery);
            continue;
        }
        // Cancel-safe: a subscription that is given up is ended.
        deliveries = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            again = subscribe(&bus, &filter) => again,
        };
    }
}

/// Subscribes as soon as that is possible.
pub(crate) async fn subscribe<S: Subject>(bus: &Bus, filter: &str) -> Deliveries<S> {
    let attempt = || bus.subscribe::<S>(filter.to_owned());
    until_ok("cannot subscribe", attempt).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(subscription: &mut Subscription<u32>) -> Vec<Result<u32, RecvError>> {
        std::iter::from_fn(|| subscription.try_recv()).collect()
    }

    #[tokio::test]
    async fn every_subscriber_gets_what_is_published_after_it_came() {
        let topic = Topic::new(100);
        topic.publish(0, 10);
        let (mut early, mut never) = (topic.subscribe(), topic.subscribe());
        topic.publish(1, 10);
        let mut late = topic.subscribe();
        topic.publish(2, 10);
        assert_eq!(taken(&mut early), [Ok(1), Ok(2)]);
        assert_eq!(taken(&mut late), [Ok(2)]);
        assert_eq!(never.recv().await, Ok(1));
        drop(never);
        assert_eq!(
            unpoisoned(topic.backlog.lock()).bytes,
            0,
            "no client waits for the rest"
        );
        topic.publish(3, 10);
        drop(topic);
        assert_eq!(late.recv().await, Ok(3));
        assert_eq!(late.recv().await, Err(RecvError::Closed));
    }

    #[test]
    fn a_backlog_is_bounded_in_bytes_and_a_lagging_subscriber_is_notified() {
        let topic = Topic::new(100);
        let (mut slow, mut fast) = (topic.subscribe(), topic.subscribe());
        for number in 0..1_000 {
            topic.publish(number, 30);
            assert_eq!(taken(&mut fast), [Ok(number)]);
            assert!(unpoisoned(topic.backlog.lock()).bytes <= 100);
        }
        assert_eq!(
            taken(&mut slow),
            [Err(RecvError::Lagged), Ok(997), Ok(998), Ok(999)]
        );
        topic.publish(1_000, 1_000);
        assert_eq!(taken(&mut slow), [Ok(1_000)], "one message may be larger");
        topic.publish(1_001, 1);
        slow.skip_backlog();
        assert_eq!(taken(&mut slow), []);
        drop((slow, fast));
        assert_eq!(topic.subscribers(), 0);
    }
}
