//! Feeds of runs: one follower per run that has subscribers, shared by all of them.
//!
//! The follower alone sees that nothing is missed. What it finds it writes once as events into a
//! short memory; subscribers take from there what comes after the last number they sent. One that is further behind
//! than that buffer reaches reads the stream.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quintet_bus::Bus;
use quintet_contract::id::RunId;
use quintet_service::tasks::{ExitPolicy, Tasks};
use tokio::sync::watch;
use tokio::time::timeout;

use super::encode::EncodedEvent;
use super::feed_state::{Feeds, RunFeed, State, unavailable};
use super::follower::Follower;
use super::replay_buffer::{Mark, Replay};
use crate::error::HttpError;
use crate::live::{Part, unpoisoned};

/// How long a follower may take to begin, or to find what was asked for.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The runs that are followed.
pub(crate) struct RunFeeds {
    bus: Bus,
    tasks: Tasks,
    feeds: Feeds,
}

/// A listener of a run.
pub(crate) struct RunSubscription {
    feed: Arc<RunFeed>,
    state: watch::Receiver<State>,
}

impl Part for RunFeeds {
    fn start(bus: &Bus, tasks: &Tasks) -> Self {
        Self {
            bus: bus.clone(),
            tasks: tasks.clone(),
            feeds: Feeds::default(),
        }
    }
}

impl RunFeeds {
    /// Subscribes to a run: everything that is stored after this call is delivered.
    pub(crate) async fn subscribe(&self, run_id: RunId) -> Result<RunSubscription, HttpError> {
        let mut subscription = self.subscription(run_id);
        let began = subscription.until(|state| state != State::Starting).await;
        match began {
            Some(State::At { .. }) => Ok(subscription),
            Some(State::Starting | State::Gone) | None => Err(unavailable()),
        }
    }

    fn subscription(&self, run_id: RunId) -> RunSubscription {
        let mut feeds = unpoisoned(self.feeds.lock());
        if let Some(feed) = feeds.get(&run_id)
            && *feed.state.borrow() != State::Gone
        {
            // Taken under the lock: a follower without listeners ends under it, too.
            return RunSubscription {
                state: feed.state.subscribe(),
                feed: feed.clone(),
            };
        }
        let (state, seen) = watch::channel(State::Starting);
        let feed = Arc::new(RunFeed {
            run_id,
            buffer: Mutex::default(),
            state,
            wanted: watch::Sender::default(),
        });
        feeds.insert(run_id, feed.clone());
        let follower = Follower::new(feed.clone(), self.bus.clone());
        let (feeds, token) = (self.feeds.clone(), self.tasks.token());
        self.tasks.spawn("run", ExitPolicy::Optional, async move {
            follower.run(&feeds, token).await;
            Ok::<_, std::convert::Infallible>(())
        });
        RunSubscription { feed, state: seen }
    }
}

impl RunSubscription {
    /// What comes after an entry, as far as it is in memory.
    pub(crate) fn after(&mut self, n: u64) -> Replay {
        self.state.mark_unchanged();
        self.feed.buffer().after(n)
    }

    /// Where the newest entry is in the stream.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.feed.buffer().last_sequence()
    }

    /// Waits for more; false when there will be none. Cancel-safe: nothing is taken.
    pub(crate) async fn changed(&mut self) -> bool {
        let is_gone = *self.state.borrow() == State::Gone;
        !is_gone && self.state.changed().await.is_ok() && *self.state.borrow() != State::Gone
    }

    /// Records that the log reaches this entry at least.
    pub(crate) fn expect(&self, n: u64) {
        self.feed.wanted.send_if_modified(|wanted| {
            let is_news = n > wanted.n;
            wanted.n = wanted.n.max(n);
            is_news
        });
    }

    /// The newest `count` checkpoints up to entry `n`, oldest first, and the end of the run, if it is among those.
    pub(crate) async fn marks(
        &mut self,
        n: u64,
        count: usize,
    ) -> Result<(Vec<Mark>, Option<Arc<EncodedEvent>>), HttpError> {
        self.expect(n);
        self.feed
            .wanted
            .send_if_modified(|wanted| !std::mem::replace(&mut wanted.marks, true));
        let found = self.until(|state| match state {
            State::At { n: at, has_marks } => at >= n && has_marks,
            State::Starting => false,
            State::Gone => true,
        });
        match found.await {
            Some(State::At { .. }) => {
                let buffer = self.feed.buffer();
                Ok((buffer.marks(n, count), buffer.end()))
            }
            Some(State::Starting | State::Gone) | None => Err(unavailable()),
        }
    }

    async fn until(&mut self, is_it: impl Fn(State) -> bool) -> Option<State> {
        let reached = self.state.wait_for(|state| is_it(*state));
        let state = timeout(TIMEOUT, reached).await.ok()?.ok()?;
        Some(*state)
    }
}
