//! Core and effects: the writes that a pure core decides on, and the actions once these are stored.
//!
//! ```text
//!   event ──▶ Core::step ──▶ Effects { writes, then }
//!                               │ writes: committed together
//!                               ▼ confirmed
//!                             then: replies, dispatches, commands
//! ```
//!
//! Commit before act, by type: an action can only be returned together with the writes that it depends on.

use quintet_contract::error::ErrorReply;

use crate::clock::Moment;

/// What a step of a core leads to.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "effects that are dropped are neither stored nor done"]
pub struct Effects<W, A> {
    /// Records to write, committed together.
    pub writes: Vec<W>,
    /// What is done once every write is confirmed.
    pub then: Vec<A>,
}

impl<W, A> Default for Effects<W, A> {
    fn default() -> Self {
        Self {
            writes: Vec::new(),
            then: Vec::new(),
        }
    }
}

impl<W, A> Effects<W, A> {
    /// Actions that depend on nothing that is still to be stored.
    pub fn acts(then: impl IntoIterator<Item = A>) -> Self {
        Self {
            writes: Vec::new(),
            then: then.into_iter().collect(),
        }
    }

    /// Adds a record to write.
    pub fn write(&mut self, write: W) {
        self.writes.push(write);
    }

    /// Adds an action.
    pub fn act(&mut self, action: A) {
        self.then.push(action);
    }

    /// Adds what another step leads to.
    pub fn extend(&mut self, other: Self) {
        self.writes.extend(other.writes);
        self.then.extend(other.then);
    }

    /// Whether there is nothing to write and nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.then.is_empty()
    }
}

/// The decisions of a service: synchronous and total, without clock, I/O, randomness or logging.
pub trait Core: Send + 'static {
    /// How this core counts time.
    type Time: Moment;
    /// What can happen.
    type Event: Send;
    /// What can be written.
    type Write: Send;
    /// What can be done.
    type Action: Send;

    /// Processes one event.
    fn step(&mut self, event: Self::Event, now: Self::Time) -> Effects<Self::Write, Self::Action>;

    /// Compares what is desired with what is observed, after every batch of events and whenever
    /// [`Core::next_due`] has passed. Ignores what woke it: calling it twice does nothing more.
    fn reconcile(&mut self, now: Self::Time) -> Effects<Self::Write, Self::Action>;

    /// When [`Core::reconcile`] has something to do, if nothing else happens.
    fn next_due(&self) -> Option<Self::Time>;
}

/// Records that the store rejected, as the core learns of it in an event of its own. It concerns these records alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection<K, A> {
    /// The records that are not stored.
    pub keys: Vec<K>,
    /// What was to be done once they were: nothing of it has been done. What depends on other records alone can be
    /// returned again.
    pub withheld: Vec<A>,
    /// Why, for requesters, and whether to retry.
    pub reply: ErrorReply,
}
