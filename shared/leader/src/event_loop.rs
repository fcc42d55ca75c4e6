//! The event loop of a leader: the only select! over a core.
//!
//! A group commit: everything that is waiting becomes one batch, the core steps for each event, all records that changed
//! are written at once, and only when they are confirmed is anything sent.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, ReadyChunks};
use futures::{FutureExt, StreamExt};
use quintet_bus::HeldLease;
use quintet_bus::pending::PendingReplies;
use quintet_service::telemetry::chain;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::{Clock, Moment};
use crate::commits::{CommitId, Commits, Done, Order, Unit};
use crate::effects::Core;
use crate::error::{Error, ReloadReason, StopReason, WriteError, unconfirmed};
use crate::inbox::{Inbox, Message, Messages};
use crate::owner::{
    ActionOf, CoreOf, EffectsOf, EventOf, Leadership, Outbound, Owner, Policy, Preference, Signal,
    Status, Term, TimeOf, WhenUnwritable,
};

/// Delay before what failed is tried again.
pub(crate) const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How often the gauges are written.
const GAUGE_INTERVAL: Duration = Duration::from_secs(1);
/// A process that is no longer preferred yields after so long: one that comes and goes at once moves nothing.
const YIELD_AFTER: Duration = Duration::from_secs(1);
/// How long writes in flight may take to be confirmed when a leader ends: a little longer than the bus waits for one.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);

/// Why serving ended.
pub(crate) enum Outcome {
    /// For good.
    Stopped(StopReason),
    /// Until state is loaded again.
    Reload(ReloadReason),
}

type KeyOf<T> = <T as Outbound>::Key;
type MessageOf<T> = Message<EventOf<T>>;
type Chunks<T> = ReadyChunks<Messages<EventOf<T>>>;

/// The outcome of one write.
struct Written<T: Outbound> {
    commit: CommitId,
    key: T::Key,
    outcome: Result<T::Receipt, WriteError>,
}

/// What woke the loop.
enum Wake<T: Outbound> {
    Stop(StopReason),
    LeaseLost,
    Reload(ReloadReason),
    Written(Written<T>),
    Signal(Signal<EventOf<T>, ActionOf<T>>),
    Messages(Vec<MessageOf<T>>),
    Due,
}

/// A process that leads.
struct Leader<'a, O: Owner> {
    owner: &'a mut O,
    policy: &'a Policy,
    preference: &'a Preference,
    lease: &'a mut HeldLease,
    core: CoreOf<O::Outbound>,
    clock: Clock,
    outbound: O::Outbound,
    pending: PendingReplies,
    commits: Commits<KeyOf<O::Outbound>, ActionOf<O::Outbound>>,
    writes: FuturesUnordered<BoxFuture<'static, Written<O::Outbound>>>,
    /// Events that were not processed yet.
    arrived: Vec<EventOf<O::Outbound>>,
    /// Effects of steps whose commit has not begun. Kept over a reload in place, so that every request is answered.
    unsent: VecDeque<EffectsOf<O::Outbound>>,
    unwritable: watch::Receiver<BTreeSet<String>>,
    gauges_at: Instant,
}

/// Serves until the lease is lost, the service is to end, or state has to be loaded again. Every request that is in flight
/// then is answered that it is to be sent again.
pub(crate) async fn serve<O: Owner>(
    owner: &mut O,
    leadership: &mut Leadership<'_>,
    term: Term<O::Outbound>,
    stop: &CancellationToken,
) -> Result<Outcome, Error> {
    let Term {
        core,
        clock,
        first,
        outbound,
    } = term;
    let mut inbox = Inbox::new(leadership.bus, O::NAME);
    owner.open(&mut inbox).await?;
    inbox.subscribed().await;
    owner.status(Status::Serving);
    info!(lease = %leadership.policy.lease, "became leader");
    let (inbox, messages) = inbox.part();
    let mut messages = messages.ready_chunks(leadership.policy.batch);
    let mut leader = Leader {
        policy: leadership.policy,
        preference: leadership.preference,
        lease: leadership.lease,
        unwritable: leadership.bus.unwritable(),
        commits: Commits::new(leadership.policy.order),
        owner,
        core,
        clock,
        outbound,
        pending: PendingReplies::default(),
        writes: FuturesUnordered::new(),
        arrived: Vec::new(),
        unsent: VecDeque::new(),
        gauges_at: Instant::now(),
    };
    let outcome = leader.event_loop(first, &mut messages, stop).await;
    let why = leader.policy.refusal(&leader.unwritable.borrow());
    leader.pending.reject_all(&why).await;
    inbox.join(messages.into_inner()).close(&why).await;
    let Leader {
        owner,
        core,
        outbound,
        ..
    } = leader;
    owner.end_term(core, outbound).await;
    Ok(outcome)
}

impl<O: Owner> Leader<'_, O> {
    async fn event_loop(
        &mut self,
        first: EffectsOf<O::Outbound>,
        messages: &mut Chunks<O::Outbound>,
        stop: &CancellationToken,
    ) -> Outcome {
        let mut yielded = std::pin::pin!(yielded(self.preference.clone()));
        let mut processed = self.apply_effects(vec![first]).await;
        loop {
            processed = match processed {
                Err(reason) => match self.reload(reason, stop).await {
                    Ok(processed) => processed,
                    Err(outcome) => return outcome,
                },
                Ok(()) => {
                    let wake = tokio::select! {
                        biased;
                        () = stop.cancelled() => Wake::Stop(StopReason::Shutdown),
                        () = &mut yielded => Wake::Stop(StopReason::Yielded),
                        wake = self.wait(messages) => wake,
                    };
                    match wake {
                        Wake::Stop(reason) => return self.drain(reason).await,
                        Wake::LeaseLost => return Outcome::Stopped(StopReason::LeaseLost),
                        Wake::Reload(reason) => Err(reason),
                        Wake::Written(written) => self.written(written).await,
                        Wake::Signal(signal) => match self.signal(signal).await {
                            Ok(()) => self.process_batch(messages).await,
                            Err(reason) => Err(reason),
                        },
                        Wake::Messages(chunk) => {
                            self.enter(chunk);
                            self.process_batch(messages).await
                        }
                        Wake::Due => self.process_batch(messages).await,
                    }
                }
            };
        }
    }

    /// Waits for the next thing. Cancel-safe: streams, channels and writes keep what was not returned.
    async fn wait(&mut self, messages: &mut Chunks<O::Outbound>) -> Wake<O::Outbound> {
        // A process that was frozen for a while finds out here, before it acts.
        if !self.lease.is_held() {
            return Wake::LeaseLost;
        }
        if self.commits.is_empty() && self.outbound.is_stale() {
            return Wake::Reload(ReloadReason::ChangedElsewhere);
        }
        let now = Instant::now();
        if self.gauges_at <= now {
            self.owner.gauges(&self.core);
            self.gauges_at = now + GAUGE_INTERVAL;
        }
        let due = self.core.next_due().map(|at| at.instant(&self.clock));
        let due = due.map_or(self.gauges_at, |due| due.min(self.gauges_at));
        let has_arrived = !self.arrived.is_empty();
        let reloads = self.policy.when_unwritable == WhenUnwritable::Reload;
        tokio::select! {
            biased;
            () = self.lease.lost() => Wake::LeaseLost,
            Ok(_) = self.unwritable.wait_for(|buckets| !buckets.is_empty()), if reloads => {
                Wake::Reload(ReloadReason::Unwritable)
            }
            Some(written) = self.writes.next(), if !self.writes.is_empty() => Wake::Written(written),
            signal = self.outbound.next() => Wake::Signal(signal),
            // Before messages, which may never end. What has arrived needs no timer, which would fire a millisecond late.
            () = std::future::ready(()), if has_arrived => Wake::Due,
            () = sleep_until(due) => Wake::Due,
            // It ends only with the connection.
            chunk = messages.next() => chunk.map_or(Wake::LeaseLost, Wake::Messages),
        }
    }

    /// Steps the core for the events that have arrived, and for everything else that is there already.
    async fn process_batch(
        &mut self,
        messages: &mut Chunks<O::Outbound>,
    ) -> Result<(), ReloadReason> {
        while let Some(Some(written)) = self.writes.next().now_or_never() {
            self.written(written).await?;
        }
        while self.arrived.len() < self.policy.batch
            && let Some(signal) = self.outbound.next().now_or_never()
        {
            self.signal(signal).await?;
        }
        if let Some(Some(chunk)) = messages.next().now_or_never() {
            self.enter(chunk);
        }
        let batch = std::mem::take(&mut self.arrived);
        self.step(batch).await
    }

    async fn step(&mut self, batch: Vec<EventOf<O::Outbound>>) -> Result<(), ReloadReason> {
        let now: TimeOf<O::Outbound> = self.clock.now();
        let mut steps = Vec::with_capacity(batch.len() + 1);
        for event in batch {
            steps.push(self.core.step(event, now));
        }
        steps.push(self.core.reconcile(now));
        self.apply_effects(steps).await
    }

    fn enter(&mut self, chunk: Vec<MessageOf<O::Outbound>>) {
        for message in chunk {
            let event = match message {
                Message::Request(request) => self.pending.enter(request),
                Message::Notice(event) => event,
            };
            self.arrived.push(event);
        }
    }

    async fn signal(
        &mut self,
        signal: Signal<EventOf<O::Outbound>, ActionOf<O::Outbound>>,
    ) -> Result<(), ReloadReason> {
        match signal {
            Signal::Event(event) => self.arrived.push(event),
            Signal::Act(action) => self.outbound.act(action, &mut self.pending).await,
            Signal::Changed => {}
            Signal::Reload(reason) => return Err(reason),
        }
        Ok(())
    }

    /// Begins to write what changed; everything else is done once that is stored.
    async fn apply_effects(
        &mut self,
        steps: Vec<EffectsOf<O::Outbound>>,
    ) -> Result<(), ReloadReason> {
        let steps = steps.into_iter().filter(|step| !step.is_empty());
        self.unsent.extend(steps);
        while !self.unsent.is_empty() {
            // A process that was frozen for a while finds out here, before it writes.
            if !self.lease.is_held() {
                return Err(ReloadReason::LeaseLost);
            }
            let steps = match self.policy.order {
                Order::Pipelined(_) => self.unsent.drain(..).collect(),
                Order::PerKey => self.unsent.drain(..1).collect(),
            };
            self.commit(steps).await?;
        }
        Ok(())
    }

    async fn commit(&mut self, steps: Vec<EffectsOf<O::Outbound>>) -> Result<(), ReloadReason> {
        let (writes, units) = grouped::<O::Outbound>(steps);
        let keys: Vec<_> = writes.iter().map(|(key, _)| key.clone()).collect();
        let mut failed = None;
        while failed.is_none()
            && !self.commits.may_begin(&keys)
            && let Some(written) = self.writes.next().await
        {
            failed = self.written(written).await.err();
        }
        if let Some(reason) = failed {
            // None of it is written: its requests are rejected like those of commits in flight.
            self.commits.begin(keys, units, Instant::now());
            return Err(reason);
        }
        let is_unwritable = self.policy.when_unwritable == WhenUnwritable::RejectWrites
            && !self.unwritable.borrow().is_empty();
        let commit = self.commits.begin(keys, units, Instant::now());
        let now = self.clock.now();
        for (key, write) in writes {
            if is_unwritable {
                let why = self.policy.refusal(&self.unwritable.borrow());
                self.commits.rejected(commit, key, why);
                continue;
            }
            match self.outbound.begin(&self.core, write, now).await {
                Ok(Some(confirmation)) => self.writes.push(Box::pin(async move {
                    let outcome = confirmation.await;
                    Written {
                        commit,
                        key,
                        outcome,
                    }
                })),
                Ok(None) => self.commits.confirmed(commit, &key),
                Err(error) => self.failed(commit, key, error)?,
            }
        }
        self.act().await;
        Ok(())
    }

    /// Processes the outcome of a write.
    async fn written(&mut self, written: Written<O::Outbound>) -> Result<(), ReloadReason> {
        let Written {
            commit,
            key,
            outcome,
        } = written;
        match outcome {
            Ok(receipt) => {
                self.commits.confirmed(commit, &key);
                self.arrived.extend(self.outbound.confirmed(key, receipt));
            }
            Err(error) => self.failed(commit, key, error)?,
        }
        self.act().await;
        Ok(())
    }

    fn failed(
        &mut self,
        commit: CommitId,
        key: KeyOf<O::Outbound>,
        error: WriteError,
    ) -> Result<(), ReloadReason> {
        match error {
            WriteError::Rejected(_) => {
                warn!(?key, error = %chain(&error), "a record was rejected");
                self.commits.rejected(commit, key, error.to_reply());
                Ok(())
            }
            WriteError::Conflict(_) | WriteError::Indeterminate(_) => Err(error.into()),
        }
    }

    /// Does what waited for commits that are complete now.
    async fn act(&mut self) {
        for done in self.commits.take_done() {
            match done {
                Done::Committed(records, began) => {
                    self.outbound.committed(records, began.elapsed());
                }
                Done::Act(action) => self.outbound.act(action, &mut self.pending).await,
                Done::Rejected(rejection) => {
                    self.arrived.push(self.outbound.rejected(rejection));
                }
            }
        }
    }

    /// Reloads in place where the core can; else the term ends. Requests whose writes were in flight are answered that it
    /// is not known whether they hold.
    async fn reload(
        &mut self,
        reason: ReloadReason,
        stop: &CancellationToken,
    ) -> Result<Result<(), ReloadReason>, Outcome> {
        if matches!(reason, ReloadReason::LeaseLost) {
            return Err(Outcome::Stopped(StopReason::LeaseLost));
        }
        loop {
            let reloading = self
                .owner
                .reload(&mut self.core, &mut self.outbound, self.clock);
            let reloaded = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Outcome::Stopped(StopReason::Shutdown)),
                () = self.lease.lost() => return Err(Outcome::Stopped(StopReason::LeaseLost)),
                reloaded = reloading => reloaded,
            };
            match reloaded {
                Ok(None) => return Err(Outcome::Reload(reason)),
                Ok(Some(effects)) => {
                    info!(lease = %self.policy.lease, reason = %chain(&reason), "reloaded state");
                    self.writes = FuturesUnordered::new();
                    let rejections = self.commits.abandon(&unconfirmed());
                    for rejection in rejections {
                        self.arrived.push(self.outbound.rejected(rejection));
                    }
                    return Ok(self.apply_effects(vec![effects]).await);
                }
                Err(error) => {
                    warn!(lease = %self.policy.lease, error = %chain(&error), "cannot reload state, retrying");
                }
            }
            sleep(RETRY_DELAY).await;
        }
    }

    /// Ends what was begun: what is stored is also answered.
    async fn drain(&mut self, reason: StopReason) -> Outcome {
        let draining = async {
            while !self.writes.is_empty() || !self.arrived.is_empty() {
                let events = std::mem::take(&mut self.arrived);
                if !events.is_empty() {
                    self.step(events).await?;
                } else if let Some(written) = self.writes.next().await {
                    self.written(written).await?;
                }
            }
            Ok::<_, ReloadReason>(())
        };
        match timeout(DRAIN_TIMEOUT, draining).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(error = %chain(&error), "the last changes may not be stored");
            }
            Err(_) => warn!("the last changes were not confirmed in time"),
        }
        Outcome::Stopped(reason)
    }
}

type Grouped<T> = (
    Vec<(KeyOf<T>, <CoreOf<T> as Core>::Write)>,
    Vec<Unit<KeyOf<T>, ActionOf<T>>>,
);

/// The writes of a commit, each record once as its last writer wants it, and what each step wants then.
fn grouped<T: Outbound>(steps: Vec<EffectsOf<T>>) -> Grouped<T> {
    let mut writes: Vec<(KeyOf<T>, _)> = Vec::new();
    let mut places: HashMap<KeyOf<T>, usize> = HashMap::new();
    let mut units = Vec::with_capacity(steps.len());
    for step in steps {
        let mut keys = HashSet::new();
        for write in step.writes {
            let key = T::key(&write);
            keys.insert(key.clone());
            match places.get(&key) {
                Some(place) => writes[*place] = (key, write),
                None => {
                    places.insert(key.clone(), writes.len());
                    writes.push((key, write));
                }
            }
        }
        units.push(Unit {
            keys: keys.into_iter().collect(),
            then: step.then,
        });
    }
    (writes, units)
}

/// Resolves when another process is preferred, and has been for a while.
async fn yielded(preference: Preference) {
    loop {
        preference(false).await;
        if timeout(YIELD_AFTER, preference(true)).await.is_err() {
            return;
        }
    }
}
