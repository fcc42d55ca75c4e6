//! The follower of one run: brings every entry of its log into the tail, in order and without a gap.
//!
//! ```text
//!   starting ── end of the log found ──▶ following ── no subscribers, or the bus is closed ──▶ gone
//! ```
//!
//! Entries come live, and are numbered: a number that is skipped shows that something was missed, and so does a new
//! connection or an entry that is known from elsewhere. Then the stream is read from the last entry on. It is also read
//! from time to time, since what was missed may have been the last.

use std::time::Duration;

use futures::StreamExt;
use quintet_bus::{Bus, Deliveries, Delivery, LinkState};
use quintet_contract::subject::{LiveRunEvents, RunLog};
use quintet_contract::topology::stream;
use quintet_service::telemetry::chain;
use std::sync::Arc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::encode::{Kind, encode};
use super::feed_state::{Feeds, RunFeed, State};
use super::replay_buffer::ReplayBuffer;
use crate::error::HttpError;
use crate::live::unpoisoned;
use crate::runs::events::run_log::RunLogReader;
use crate::runs::payloads;

/// How often the stream of a quiet run is read.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// Wait before the stream is read again that could not be read, or lacked what must be there; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(25);
/// Longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(1);

pub(super) struct Follower {
    feed: Arc<RunFeed>,
    bus: Bus,
    reader: RunLogReader,
    has_marks: bool,
    /// An entry that is known to exist.
    known: u64,
    /// When the stream is read next.
    due: Instant,
    /// How long after that, when it still lacks what must be there.
    retry: Duration,
}

impl Follower {
    pub(super) fn new(feed: Arc<RunFeed>, bus: Bus) -> Self {
        let reader = RunLogReader::new(bus.clone(), feed.run_id);
        Self {
            feed,
            bus,
            reader,
            has_marks: false,
            known: 0,
            due: Instant::now(),
            retry: RETRY_MIN,
        }
    }

    /// Follows until there are no subscribers.
    pub(super) async fn run(mut self, feeds: &Feeds, shutdown: CancellationToken) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.follow(feeds) => {}
        }
        let mut feeds = unpoisoned(feeds.lock());
        self.feed.state.send_replace(State::Gone);
        // A newer follower may have taken the place.
        if feeds
            .get(&self.feed.run_id)
            .is_some_and(|feed| Arc::ptr_eq(feed, &self.feed))
        {
            feeds.remove(&self.feed.run_id);
        }
    }

    async fn follow(&mut self, feeds: &Feeds) {
        let mut link = self.bus.link();
        let feed = self.feed.clone();
        let mut live = loop {
            match self.begin().await {
                Ok(live) => break live,
                Err(reason) => debug!(run = %feed.run_id, reason, "cannot follow a run yet"),
            }
            // Cancel-safe: both only wait.
            tokio::select! {
                biased;
                () = feed.state.closed() => if feed.close_if_unused(feeds) {
                    return;
                },
                () = sleep(RETRY_MAX / 4) => {}
            }
        };
        let mut wanted = feed.wanted.subscribe();
        wanted.mark_changed();
        loop {
            // Cancel-safe: all that is awaited here waits only; what was found is dealt with after.
            tokio::select! {
                biased;
                () = feed.state.closed() => if feed.close_if_unused(feeds) {
                    return;
                },
                changed = link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if *link.borrow_and_update() == LinkState::Connected {
                        self.due = Instant::now();
                    }
                }
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = *wanted.borrow_and_update();
                    let lacks = wanted.n > feed.buffer().last_n() || (wanted.marks && !self.has_marks);
                    if lacks {
                        self.due = Instant::now();
                    }
                }
                () = sleep_until(self.due) => self.catch_up().await,
                delivery = live.next() => match delivery {
                    Some(delivery) => self.receive(delivery).await,
                    None => return,
                },
            }
        }
    }

    /// Subscribes, then finds the end of the log: all of it, when it is short.
    async fn begin(&mut self) -> Result<Deliveries<LiveRunEvents>, String> {
        let filter = LiveRunEvents::filter(self.bus.prefix(), Some(&self.feed.run_id));
        let live = self.bus.subscribe::<LiveRunEvents>(filter).await;
        let live = live.map_err(|error| chain(&error).to_string())?;
        // What is read from the stream next must not be older than the subscription.
        let flushed = self.bus.flush().await;
        flushed.map_err(|error| chain(&error).to_string())?;
        let refused = |error: HttpError| error.reply.error;
        let first = self.reader.page().await.map_err(refused)?;
        if self.reader.is_at_end() {
            self.has_marks = true;
            self.push(first);
        } else {
            self.skip_to_end().await.map_err(refused)?;
        }
        self.due = Instant::now() + POLL_INTERVAL;
        self.publish();
        Ok(live)
    }

    /// Leaves a long log in the stream, but for its newest message.
    async fn skip_to_end(&mut self) -> Result<(), HttpError> {
        let subject = RunLog {
            run: self.feed.run_id,
        };
        let stream = stream::run_logs(self.bus.prefix());
        let newest = self.bus.last_for_subjects(stream, &[subject]).await;
        let newest = newest.map_err(crate::runs::events::run_log::unreadable)?;
        if let Some((_, sequence, _)) = newest.first() {
            self.reader.seek(0, *sequence);
            let page = self.reader.page().await?;
            if let Some((_, first)) = page.first() {
                let before = first.n.saturating_sub(1);
                self.feed
                    .buffer()
                    .begin_at(before, sequence.saturating_sub(1));
            }
            self.push(page);
        }
        Ok(())
    }

    /// Takes in what came live, if it follows on what is known.
    async fn receive(&mut self, delivery: Delivery<LiveRunEvents>) {
        let Some(sequence) = delivery.meta.sequence else {
            return;
        };
        let mut entries = delivery.message.entries;
        let last = self.feed.buffer().last_n();
        if entries.first().is_some_and(|entry| entry.n > last + 1) {
            debug!(run = %self.feed.run_id, "missed entries of a run; reading them");
            self.known = entries.last().map_or(self.known, |entry| entry.n);
            self.due = Instant::now();
            return;
        }
        for entry in &mut entries {
            if payloads::rehydrate(&self.bus, &mut entry.fact)
                .await
                .is_err()
            {
                self.due = Instant::now() + RETRY_MIN;
                return;
            }
        }
        self.push(entries.into_iter().map(|entry| (sequence, entry)).collect());
        self.publish();
    }

    /// Reads what is in the stream and not known yet, and looks for the newest checkpoints if they are wanted.
    async fn catch_up(&mut self) {
        let read = self.read_on().await;
        self.publish();
        let known = self.known.max(self.feed.wanted.borrow().n);
        let wait = if read.is_ok() && self.feed.buffer().last_n() >= known {
            self.retry = RETRY_MIN;
            POLL_INTERVAL
        } else {
            self.retry = (self.retry * 2).min(RETRY_MAX);
            self.retry
        };
        self.due = Instant::now() + wait;
    }

    async fn read_on(&mut self) -> Result<(), HttpError> {
        // After a new connection the subscription must be there before the stream is read.
        if self.bus.flush().await.is_err() {
            return Err(super::feed_state::unavailable());
        }
        let (n, sequence) = {
            let buffer = self.feed.buffer();
            (buffer.last_n(), buffer.last_sequence())
        };
        self.reader.seek(n, sequence + 1);
        while !self.reader.is_at_end() {
            let page = self.reader.page().await?;
            self.push(page);
        }
        if self.feed.wanted.borrow().marks && !self.has_marks {
            self.find_marks().await?;
            self.has_marks = true;
        }
        Ok(())
    }

    /// Reads the whole log for the checkpoints in it.
    async fn find_marks(&mut self) -> Result<(), HttpError> {
        let end = self.feed.buffer().last_n();
        let mut reader = RunLogReader::new(self.bus.clone(), self.feed.run_id);
        let mut older = ReplayBuffer::default();
        while let Some(page) = reader.page_up_to(end).await? {
            for (sequence, entry) in page {
                if entry.n <= end && Kind::of(&entry.fact) != Kind::Other {
                    older.push(encode(self.feed.run_id, sequence, &entry));
                }
            }
        }
        self.feed.buffer().add_older(older);
        Ok(())
    }

    fn push(&mut self, page: Vec<crate::runs::events::run_log::Placed>) {
        let run_id = self.feed.run_id;
        // Written before the lock is taken.
        let all: Vec<_> = page
            .iter()
            .map(|(sequence, entry)| encode(run_id, *sequence, entry))
            .collect();
        let mut buffer = self.feed.buffer();
        for encoded in all {
            buffer.push(encoded);
        }
    }

    fn publish(&self) {
        let n = self.feed.buffer().last_n();
        let state = State::At {
            n,
            has_marks: self.has_marks,
        };
        self.feed
            .state
            .send_if_modified(|seen| std::mem::replace(seen, state) != state);
    }
}
