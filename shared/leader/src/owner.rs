//! Owner and outbound: what a service brings along to be led.
//!
//! The owner is the service for as long as it runs: its configuration, how it loads, what it serves. The outbound belongs
//! to one term of leading: the revisions of records, and whatever runs beside the event loop.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use quintet_bus::pending::PendingReplies;
use quintet_bus::{Bus, HeldLease};
use quintet_contract::bucket::LeaseKey;
use quintet_contract::error::ErrorReply;
use quintet_contract::id::HolderId;

use crate::clock::Clock;
use crate::commits::Order;
use crate::effects::{Core, Effects, Rejection};
use crate::error::{Error, ReloadReason, StopReason, WriteError};
use crate::inbox::Inbox;

/// How a service is led.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The lease of what it owns.
    pub lease: LeaseKey,
    /// This process among those that may lead.
    pub holder: HolderId,
    /// Life of the lease; after a kill, another process leads so much later.
    pub lease_ttl: Duration,
    /// A candidate whose lease was another's for so long stands by.
    pub standby_after: Duration,
    /// Messages of one batch at most.
    pub batch: usize,
    /// In which order commits complete.
    pub order: Order,
    /// What becomes of writes while the bus stores nothing.
    pub when_unwritable: WhenUnwritable,
    /// One sentence for requests in flight when the leader changes, which are to be sent again.
    pub changing: &'static str,
}

/// What a leader does while the bus confirms no writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnwritable {
    /// It rejects writes, with their requests, and continues with everything else.
    RejectWrites,
    /// It stops serving, and reloads once writes are confirmed again.
    Reload,
}

/// How an owner stands, for health and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Another process leads, as far as is known.
    Standby,
    /// The lease cannot be tried for.
    Unreachable,
    /// It has the lease, and loads.
    Elected,
    /// It serves.
    Serving,
    /// It has the lease, serves nothing, and is about to load again.
    Reloading,
    /// It no longer leads.
    Ended(StopReason),
}

/// Resolves when this process is preferred as a leader (`true`), or another is (`false`). Each call makes a new future.
pub type Preference = Arc<dyn Fn(bool) -> BoxFuture<'static, ()> + Send + Sync>;

/// The core that an outbound belongs to.
pub type CoreOf<T> = <T as Outbound>::Core;
/// Events of that core.
pub type EventOf<T> = <CoreOf<T> as Core>::Event;
/// Its writes.
pub type WriteOf<T> = <CoreOf<T> as Core>::Write;
/// Its actions.
pub type ActionOf<T> = <CoreOf<T> as Core>::Action;
/// Its time.
pub type TimeOf<T> = <CoreOf<T> as Core>::Time;
/// Its effects.
pub type EffectsOf<T> = Effects<WriteOf<T>, ActionOf<T>>;
/// The inbox of an outbound's leader.
pub type InboxOf<T> = Inbox<EventOf<T>>;
/// A write that was sent; resolves when its outcome is known.
pub type Confirmation<R> = BoxFuture<'static, Result<R, WriteError>>;

/// The result of work beside the event loop.
pub enum Signal<E, A> {
    /// Something happened.
    Event(E),
    /// Something is to be done that waits for no write, such as the reply with what was read.
    Act(A),
    /// A record changed: [`Outbound::is_stale`] may return true once nothing is in flight.
    Changed,
    /// What is in memory may be out of date.
    Reload(ReloadReason),
}

/// Does what a core decides: writes by revision, then acts.
pub trait Outbound: Send + Sized + 'static {
    /// The core.
    type Core: Core;
    /// Names one record.
    type Key: Clone + Debug + Eq + Hash + Send;
    /// What is known of a record once it is stored, such as its revision.
    type Receipt: Send + 'static;

    /// Which record a write changes.
    fn key(write: &WriteOf<Self>) -> Self::Key;

    /// Sends a write; `None` when nothing is left to write. Of two writes of one record in a commit only the later is
    /// sent, so that it must include the earlier one.
    fn begin(
        &mut self,
        core: &Self::Core,
        write: WriteOf<Self>,
        now: TimeOf<Self>,
    ) -> impl Future<Output = Result<Option<Confirmation<Self::Receipt>>, WriteError>> + Send;

    /// Notes that a record is stored; the event, if the core is to learn of it.
    fn confirmed(&mut self, key: Self::Key, receipt: Self::Receipt) -> Option<EventOf<Self>>;

    /// The event for records that were rejected.
    fn rejected(&mut self, rejection: Rejection<Self::Key, ActionOf<Self>>) -> EventOf<Self>;

    /// Does one thing, or begins to.
    fn act(
        &mut self,
        action: ActionOf<Self>,
        pending: &mut PendingReplies,
    ) -> impl Future<Output = ()> + Send;

    /// Waits for the result of work beside the loop. Cancel-safe: nothing is taken unless it is returned.
    fn next(&mut self) -> impl Future<Output = Signal<EventOf<Self>, ActionOf<Self>>> + Send;

    /// Whether another process wrote what this one owns; asked while nothing is in flight.
    fn is_stale(&mut self) -> bool {
        false
    }

    /// So many records were committed together, and it took this long.
    fn committed(&self, _records: usize, _took: Duration) {}
}

/// One term of leading, as it is loaded.
pub struct Term<T: Outbound> {
    /// The core, restored from what is stored.
    pub core: T::Core,
    /// Its clock.
    pub clock: Clock,
    /// What the core wants first.
    pub first: EffectsOf<T>,
    /// Everything that effects act on.
    pub outbound: T,
}

/// A service that is led: one process at a time owns its state.
pub trait Owner: Send + Sync + Sized {
    /// What does its effects.
    type Outbound: Outbound;
    /// Name of the service, for logs and spans.
    const NAME: &'static str;

    /// How it is led.
    fn policy(&self) -> Policy;

    /// Loads everything that a term starts from. Dropped when the lease is lost meanwhile.
    fn load(&mut self) -> impl Future<Output = Result<Term<Self::Outbound>, ReloadReason>> + Send;

    /// Opens the endpoints and subscriptions of a leader.
    fn open(
        &self,
        inbox: &mut InboxOf<Self::Outbound>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Reports its status.
    fn status(&self, status: Status);

    /// Reloads without an interruption, where the core can: what follows from it; `None` to begin a new term. Until it
    /// returns, core and outbound must be as they were.
    fn reload(
        &mut self,
        _core: &mut CoreOf<Self::Outbound>,
        _outbound: &mut Self::Outbound,
        _clock: Clock,
    ) -> impl Future<Output = Result<Option<EffectsOf<Self::Outbound>>, ReloadReason>> + Send {
        std::future::ready(Ok(None))
    }

    /// Ends a term: its work beside the loop, and what is kept of it for the next.
    fn end_term(
        &mut self,
        _core: CoreOf<Self::Outbound>,
        _outbound: Self::Outbound,
    ) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Whether this process is preferred; by default it always is.
    fn preference(&self) -> Preference {
        Arc::new(|preferred| match preferred {
            true => std::future::ready(()).boxed(),
            false => std::future::pending().boxed(),
        })
    }

    /// Writes the gauges, about once a second.
    fn gauges(&self, _core: &CoreOf<Self::Outbound>) {}
}

/// What a leader is given besides its owner.
pub(crate) struct Leadership<'a> {
    pub(crate) bus: &'a Bus,
    pub(crate) policy: &'a Policy,
    pub(crate) lease: &'a mut HeldLease,
    pub(crate) preference: &'a Preference,
}

impl Policy {
    /// The answer to a request in flight when nothing is stored, or else when the leader changes. Always retryable.
    pub fn refusal(&self, unwritable: &std::collections::BTreeSet<String>) -> ErrorReply {
        match unwritable.first() {
            Some(bucket) => ErrorReply::unwritable(bucket),
            None => ErrorReply::unavailable(self.changing),
        }
    }
}
