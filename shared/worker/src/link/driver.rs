//! The input and output of a link: subscriptions, requests, timers; and its only `select!`.
//!
//! Requests run beside the loop and come back as events. What the agent does not take yet waits in a
//! backlog; when that is full the link stops taking offers and commands, but continues with heartbeats and
//! acknowledgements, so that a slow agent is slow and not lost.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use quintet_bus::{
    Bus, Deliveries, Delivery, Incoming, LinkState, Meta, Requests, ServerFailover, SubscribeError,
};
use quintet_contract::agent::{AgentCommand, AgentReport};
use quintet_contract::id::JobId;
use quintet_contract::subject::{Assigned, CommandAgent, Subject};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Span, info, warn};

use super::core::{Core, Effect, Event, Mark, Notification, Now};
use super::handle::{HandleEnd, Order};
use super::outbox::job_of;
use super::{AgentIdentity, LinkEvent};
use crate::clock::moment;
use crate::metrics;

/// Events that wait for the agent; when full, no offers and commands are taken.
const BACKLOG: usize = 4096;
/// Longest sleep of a link with nothing to do.
const IDLE: Duration = Duration::from_secs(3600);
/// Wait before subscribing again.
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(500);

pub(super) struct Driver {
    pub(super) bus: Bus,
    pub(super) identity: AgentIdentity,
    pub(super) core: Core,
    /// Requests under way.
    pub(super) work: FuturesUnordered<BoxFuture<'static, Event>>,
    backlog: VecDeque<LinkEvent>,
    waiters: HashMap<Mark, oneshot::Sender<()>>,
    next_mark: Mark,
    /// The trace that each job's reports belong to, while it has any.
    pub(super) spans: HashMap<JobId, Span>,
    left: bool,
    /// Held while there is no contact: the server may be the one that lacks it.
    search: Option<ServerFailover>,
}

/// Runs a link.
pub(super) async fn run(
    bus: Bus,
    identity: AgentIdentity,
    core: Core,
    ends: HandleEnd,
    events: mpsc::Sender<LinkEvent>,
) {
    let end = ends.end.clone();
    let subscribed = tokio::select! {
        biased;
        () = end.cancelled() => None,
        subscribed = subscribe(&bus, &identity) => Some(subscribed),
    };
    let mut driver = Driver {
        bus,
        identity,
        core,
        work: FuturesUnordered::new(),
        backlog: VecDeque::new(),
        waiters: HashMap::new(),
        next_mark: 0,
        spans: HashMap::new(),
        left: false,
        search: None,
    };
    if let Some((offers, requests)) = subscribed {
        driver.live(offers, requests, ends, &events).await;
    }
    driver.backlog.push_back(LinkEvent::Closed);
    for event in driver.backlog {
        // Fails when the receiver is gone, which is no error.
        if events.send(event).await.is_err() {
            return;
        }
    }
}

type Subscriptions = (Deliveries<Assigned>, Requests<CommandAgent>);

/// Before the first hello, so that nothing sent because of it is missed.
async fn subscribe(bus: &Bus, identity: &AgentIdentity) -> Subscriptions {
    loop {
        match try_subscribe(bus, identity).await {
            Ok(subscriptions) => return subscriptions,
            Err(error) => warn!(%error, "cannot subscribe, trying again"),
        }
        tokio::time::sleep(SUBSCRIBE_RETRY).await;
    }
}

async fn try_subscribe(
    bus: &Bus,
    identity: &AgentIdentity,
) -> Result<Subscriptions, SubscribeError> {
    let agent = Some(&identity.agent);
    let offers = bus.subscribe(Assigned::filter(bus.prefix(), agent)).await?;
    let filter = CommandAgent::filter(bus.prefix(), agent, None);
    let requests = bus.serve(filter, None).await?;
    Ok((offers, requests))
}

enum Happened {
    Ended,
    Took,
    Event(Event),
    Link(LinkState),
    Command(Incoming<CommandAgent>),
    Offer(Delivery<Assigned>),
    Order(Order),
}

impl Driver {
    async fn live(
        &mut self,
        mut offers: Deliveries<Assigned>,
        mut requests: Requests<CommandAgent>,
        mut ends: HandleEnd,
        events: &mpsc::Sender<LinkEvent>,
    ) {
        let mut link = self.bus.link();
        let mut connected = *link.borrow_and_update() == LinkState::Connected;
        self.step(Event::SessionOpened(quintet_bus::new_session()), &mut ends);
        while !self.left {
            let room = self.backlog.len() < BACKLOG;
            let sleep = self.sleep();
            // Every branch is cancel-safe: a permit is returned, a stream, channel or watch keeps what it
            // has, and work in progress stays in its set.
            let happened = tokio::select! {
                biased;
                () = ends.end.cancelled() => Happened::Ended,
                permit = events.reserve(), if !self.backlog.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(event) = self.backlog.pop_front() {
                            permit.send(event);
                        }
                        Happened::Took
                    }
                    Err(_) => Happened::Ended,
                },
                () = events.closed() => Happened::Ended,
                Some(event) = self.work.next() => Happened::Event(event),
                () = tokio::time::sleep(sleep) => Happened::Event(Event::Woken),
                changed = link.changed() => match changed {
                    Ok(()) => Happened::Link(*link.borrow_and_update()),
                    Err(_) => Happened::Ended,
                },
                command = requests.next(), if room => command.map_or(Happened::Ended, Happened::Command),
                offer = offers.next(), if room => offer.map_or(Happened::Ended, Happened::Offer),
                order = ends.orders.recv(), if self.core.has_room() => {
                    order.map_or(Happened::Ended, Happened::Order)
                }
            };
            match happened {
                Happened::Ended => self.left = true,
                Happened::Took => {}
                Happened::Event(event) => self.step(event, &mut ends),
                Happened::Link(state) => {
                    let again = state == LinkState::Connected && !connected;
                    connected = state == LinkState::Connected;
                    if again {
                        self.step(Event::Reconnected, &mut ends);
                    }
                }
                Happened::Command(incoming) => self.command(incoming, &mut ends),
                Happened::Offer(delivery) => self.offered(delivery, &mut ends),
                Happened::Order(order) => self.ordered(order, &mut ends),
            }
            let fences_at = self.core.fences_at();
            ends.fences_at
                .send_if_modified(|before| std::mem::replace(before, fences_at) != fences_at);
        }
    }

    fn sleep(&self) -> Duration {
        let now = moment();
        let due = self.core.wake_at().map_or(IDLE, |at| at.since(now));
        due.min(self.core.wake_every().unwrap_or(IDLE))
    }

    /// Steps the core, after passing it the values of the agent's watches: a hello or heartbeat must list the jobs
    /// as they are now.
    fn step(&mut self, event: Event, ends: &mut HandleEnd) {
        if let Some(jobs) = newest(&mut ends.jobs) {
            self.decide(Event::JobsChanged(jobs));
        }
        if let Some(metrics) = newest(&mut ends.metrics) {
            self.decide(Event::MetricsChanged(metrics));
        }
        self.decide(event);
    }

    fn decide(&mut self, event: Event) {
        self.decide_with(event, None);
    }

    fn decide_with(&mut self, event: Event, mut meta: Option<Meta>) {
        let mut pending = VecDeque::from([event]);
        while let Some(event) = pending.pop_front() {
            let now = Now {
                moment: moment(),
                wall: quintet_bus::now(),
            };
            for effect in self.core.step(event, now) {
                match effect {
                    Effect::OpenSession => {
                        pending.push_back(Event::SessionOpened(quintet_bus::new_session()));
                    }
                    other => self.perform(other, &mut meta),
                }
            }
        }
    }

    fn perform(&mut self, effect: Effect, meta: &mut Option<Meta>) {
        match effect {
            Effect::OpenSession => {}
            Effect::SendReports(reports) => self.send_reports(reports),
            Effect::SendHeartbeat(heartbeat) => self.send_heartbeat(heartbeat),
            Effect::ReadLease => self.read_lease(),
            Effect::ReadQueue(from) => self.read_queue(from),
            Effect::Offer(assignment, sequence) => {
                let live = meta.take();
                metrics::offer(if live.is_some() { "live" } else { "queue" });
                let meta = live.unwrap_or_else(|| Meta {
                    sequence,
                    raw_subject: self.queue().render(self.bus.prefix()),
                    ..Meta::default()
                });
                let assignment = *assignment;
                self.backlog
                    .push_back(LinkEvent::Assigned { assignment, meta });
            }
            Effect::Notify(notification) => self.notify(notification),
            Effect::Flushed(mark) => {
                if let Some(waiter) = self.waiters.remove(&mark) {
                    // Fails when the flush met its deadline; then the caller is gone.
                    let _ = waiter.send(());
                }
            }
            Effect::Leave => self.left = true,
        }
    }

    fn notify(&mut self, notification: Notification) {
        let agent = &self.identity.agent;
        let event = match notification {
            Notification::Welcome(settings) => {
                info!(%agent, "registered with the scheduler");
                LinkEvent::Welcome(settings)
            }
            Notification::Confirmed(job) => LinkEvent::Confirmed(job),
            Notification::Kill(job) => LinkEvent::Kill(job),
            Notification::Stored(reports) => {
                metrics::reports(reports.len());
                self.forget_spans(&reports);
                LinkEvent::Stored(reports)
            }
            Notification::Refused(report, error) => {
                warn!(%agent, %error, "a report was refused");
                self.forget_spans(std::slice::from_ref(&*report));
                LinkEvent::Refused { report, error }
            }
            Notification::Fence => {
                warn!(%agent, "no contact with the scheduler, fencing");
                metrics::fenced();
                self.search = Some(self.bus.server_failover());
                LinkEvent::Fence
            }
            Notification::Contact => {
                info!(%agent, "contact with the scheduler restored");
                self.search = None;
                LinkEvent::Contact
            }
            Notification::Replaced => {
                warn!(%agent, "another session took over");
                LinkEvent::Replaced
            }
        };
        self.backlog.push_back(event);
    }

    fn forget_spans(&mut self, reports: &[AgentReport]) {
        for report in reports {
            if let AgentReport::JobStopped { job_id, .. } = report {
                self.spans.remove(job_id);
            }
        }
    }

    fn command(&mut self, incoming: Incoming<CommandAgent>, ends: &mut HandleEnd) {
        if let AgentCommand::Replaced { current } = incoming.message {
            self.step(Event::ReplacedBy(current), ends);
            let responder = incoming.responder;
            tokio::spawn(async move { responder.ok(&Default::default()).await });
            return;
        }
        self.backlog.push_back(LinkEvent::Command {
            command: incoming.message,
            meta: incoming.meta,
            responder: incoming.responder,
        });
    }

    fn offered(&mut self, delivery: Delivery<Assigned>, ends: &mut HandleEnd) {
        let event = Event::Offered {
            assignment: Box::new(delivery.message),
            sequence: delivery.meta.sequence,
            previous: delivery.meta.last_sequence,
        };
        // The jobs are brought up to date by an event of their own, since this one carries the meta.
        self.step(Event::Woken, ends);
        self.decide_with(event, Some(delivery.meta));
    }

    fn ordered(&mut self, order: Order, ends: &mut HandleEnd) {
        let event = match order {
            Order::Reports(reports) => {
                let reports = reports.into_iter().map(|(report, span)| {
                    if let Some(job) = job_of(&report)
                        && !span.is_none()
                    {
                        self.spans.insert(job.clone(), span);
                    }
                    report
                });
                Event::Reported(reports.collect())
            }
            Order::Heartbeat(metrics) => Event::HeartbeatAsked(metrics),
            Order::Flush(done) => Event::FlushAsked(self.mark(done)),
            Order::Goodbye(reason, done) => {
                let mark = self.mark(done);
                Event::GoodbyeAsked(reason, mark)
            }
        };
        self.step(event, ends);
    }

    fn mark(&mut self, done: oneshot::Sender<()>) -> Mark {
        self.next_mark += 1;
        self.waiters.insert(self.next_mark, done);
        self.next_mark
    }
}

fn newest<T: Clone>(watch: &mut watch::Receiver<T>) -> Option<T> {
    // An error means that every handle is gone; the loop learns of that from the orders.
    match watch.has_changed() {
        Ok(true) => Some(watch.borrow_and_update().clone()),
        Ok(false) | Err(_) => None,
    }
}
