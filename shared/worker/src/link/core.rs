//! The core of a link: pure, synchronous, total. Events in, effects out; time is an argument.
//!
//! One message of reports is in flight at a time, the hello first and alone; heartbeats travel beside them.
//! Only the answer `Current` counts as contact: an owner that asks for a hello may already
//! have begun to count this agent's absence.

mod event;

use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::agent::{
    ActiveJob, AgentReport, AgentReports, AgentSettings, Assignment, Heartbeat, HeartbeatReply,
    Hello, ReportsReply, SessionStatus,
};
use quintet_contract::id::AgentSession;
use quintet_contract::job::JobAttempt;

use super::contact::{Change, Contact};
use super::offers::Offers;
use super::outbox::Outbox;
use super::{AgentIdentity, HeartbeatMode};
use crate::clock::Moment;
pub use event::{Answer, Effect, Event, Leadership, Mark, Notification, Now};

/// First wait before a message is sent again; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest wait before a message is sent again.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Bounds of how often the contact rule is checked.
const CONTACT_WATCH_MIN: Duration = Duration::from_millis(10);
const CONTACT_WATCH_MAX: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SessionPhase {
    /// No session: nothing can be sent yet.
    Opening,
    /// A session that was not welcomed yet.
    Greeting(AgentSession),
    /// The agent's current session.
    Current(AgentSession),
    /// The end.
    Left,
}

/// What kind of message of reports is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    None,
    Hello,
    Reports,
}

/// The state of one link.
#[derive(Debug)]
pub struct Core {
    identity: AgentIdentity,
    mode: HeartbeatMode,
    hello: Hello,
    phase: SessionPhase,
    clock: u64,
    settings: AgentSettings,
    jobs: Vec<ActiveJob>,
    metrics: JsonObject,
    outbox: Outbox,
    flight: Flight,
    retries: u32,
    retry_at: Option<Moment>,
    heartbeat_at: Option<Moment>,
    heartbeat_in_flight: bool,
    lease_in_flight: bool,
    contact: Contact,
    offers: Offers,
    queue_retry: Option<(Moment, u64)>,
    goodbye: Option<Mark>,
    /// Of the current step.
    effects: Vec<Effect>,
}

impl Core {
    /// A link that waits for its first session.
    pub fn new(identity: AgentIdentity, hello: Hello, mode: HeartbeatMode) -> Self {
        Self {
            identity,
            mode,
            jobs: hello.active_jobs.clone(),
            hello,
            phase: SessionPhase::Opening,
            clock: 0,
            settings: AgentSettings::default(),
            metrics: JsonObject::new(),
            outbox: Outbox::new(),
            flight: Flight::None,
            retries: 0,
            retry_at: None,
            heartbeat_at: None,
            heartbeat_in_flight: false,
            lease_in_flight: false,
            contact: Contact::Never,
            offers: Offers::new(),
            queue_retry: None,
            goodbye: None,
            effects: Vec::new(),
        }
    }

    /// Whether more reports may come in.
    pub fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// When restartable jobs must have ended here unless the owner answers before; see [`LinkHandle::fences_at`].
    ///
    /// [`LinkHandle::fences_at`]: crate::LinkHandle::fences_at
    pub fn fences_at(&self) -> Option<Moment> {
        match self.mode {
            HeartbeatMode::Automatic => self.contact.ends_at(self.limit()),
            HeartbeatMode::Forwarded => None,
        }
    }

    /// How long a heartbeat or its answer may take.
    pub fn heartbeat_deadline(&self) -> Duration {
        Duration::from_millis(self.settings.heartbeat_interval_ms.max(1))
    }

    /// When [`Event::Woken`] is due at the latest.
    pub fn wake_at(&self) -> Option<Moment> {
        let queue = self.queue_retry.map(|(at, _)| at);
        let heartbeat = self.heartbeat_at.filter(|_| !self.heartbeat_in_flight);
        [self.retry_at, heartbeat, queue]
            .into_iter()
            .flatten()
            .min()
    }

    /// How often [`Event::Woken`] must come beside that, so that a suspend is noticed soon after it.
    pub fn wake_every(&self) -> Option<Duration> {
        let watches =
            self.mode == HeartbeatMode::Automatic && matches!(self.contact, Contact::Since(_));
        watches.then(|| (self.limit() / 8).clamp(CONTACT_WATCH_MIN, CONTACT_WATCH_MAX))
    }

    /// One step.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        if self.phase == SessionPhase::Left {
            return Vec::new();
        }
        // Before anything else: after a suspend the jobs may run elsewhere already.
        if self.mode == HeartbeatMode::Automatic {
            let change = self.contact.check(now.moment, self.limit());
            self.effects.extend(change.map(contact_changed));
        }
        self.handle(event, now);
        if self.phase != SessionPhase::Left {
            self.send_what_is_due(now);
        }
        std::mem::take(&mut self.effects)
    }

    fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::SessionOpened(session) => self.session_opened(session),
            Event::Reconnected => {
                self.retry_at = None;
                self.heartbeat_at = self.heartbeat_at.map(|_| now.moment);
                self.effects
                    .extend(self.offers.read().map(Effect::ReadQueue));
            }
            Event::Reported(reports) => reports
                .into_iter()
                .for_each(|report| self.outbox.push(report)),
            Event::HeartbeatAsked(metrics) => {
                self.metrics = metrics;
                if let SessionPhase::Current(session) = self.phase {
                    self.send_heartbeat(session, now);
                }
            }
            Event::JobsChanged(jobs) => self.jobs = jobs,
            Event::MetricsChanged(metrics) => self.metrics = metrics,
            Event::FlushAsked(mark) => self.outbox.mark(mark),
            Event::GoodbyeAsked(reason, mark) => {
                self.outbox.push(AgentReport::Goodbye { reason });
                self.outbox.mark(mark);
                self.goodbye = Some(mark);
                self.heartbeat_at = None;
            }
            Event::ReportsAnswered { sent, answer } => {
                self.reports_answered(sent, answer, now);
            }
            Event::HeartbeatAnswered {
                sent,
                session,
                answer,
            } => {
                self.heartbeat_in_flight = false;
                if self.phase == SessionPhase::Current(session) {
                    self.heartbeat_answered(sent, answer, now);
                }
            }
            Event::LeaseRead {
                requested_at,
                leadership,
            } => {
                self.lease_in_flight = false;
                if leadership == Leadership::Vacant {
                    self.record_contact(requested_at, now);
                }
            }
            Event::Offered {
                assignment,
                sequence,
                previous,
            } => {
                let (new, read) = self.offers.live(placement(&assignment), sequence, previous);
                if new {
                    self.effects.push(Effect::Offer(assignment, sequence));
                }
                self.effects.extend(read.map(Effect::ReadQueue));
            }
            Event::QueueRead {
                offers,
                last,
                remaining,
            } => self.queue_read(offers, last, remaining, now),
            Event::QueueUnreadable => {
                let from = self.offers.read_failed();
                self.queue_retry = Some((now.moment.after(RETRY_MAX), from));
            }
            Event::ReplacedBy(current) => {
                let ours = match self.phase {
                    SessionPhase::Greeting(session) | SessionPhase::Current(session) => {
                        Some(session)
                    }
                    SessionPhase::Opening | SessionPhase::Left => None,
                };
                if ours.is_some_and(|session| session != current) {
                    self.replaced();
                }
            }
            Event::Woken => {}
        }
    }

    fn session_opened(&mut self, session: AgentSession) {
        if self.phase == SessionPhase::Opening {
            self.phase = SessionPhase::Greeting(session);
            self.clock = 0;
            self.effects
                .extend(self.offers.read().map(Effect::ReadQueue));
        }
    }

    fn reports_answered(&mut self, sent: Moment, answer: Answer<ReportsReply>, now: Now) {
        let flight = std::mem::replace(&mut self.flight, Flight::None);
        match answer {
            Answer::Reply(reply) => self.reports_replied(flight, sent, reply, now),
            Answer::None => {
                self.outbox.unanswered();
                self.retry_later(now);
                self.read_lease();
            }
            Answer::Refused(error) if flight == Flight::Hello => {
                let report = AgentReport::Hello {
                    hello: self.hello.clone(),
                };
                self.effects.push(Effect::Notify(Notification::Refused(
                    Box::new(report),
                    error,
                )));
                self.retry_later(now);
            }
            Answer::Refused(error) => match self.outbox.refused() {
                Some(report) => {
                    self.effects.push(Effect::Notify(Notification::Refused(
                        Box::new(report),
                        error,
                    )));
                }
                None => self.retry_later(now),
            },
        }
    }

    fn reports_replied(&mut self, flight: Flight, sent: Moment, reply: ReportsReply, now: Now) {
        match reply.status {
            SessionStatus::Replaced => return self.replaced(),
            SessionStatus::HelloRequired => {
                self.outbox.unanswered();
                // A message of the session before does not concern the one that is being opened.
                let of_this_session = match self.phase {
                    SessionPhase::Current(_) => true,
                    SessionPhase::Greeting(_) => flight == Flight::Hello,
                    SessionPhase::Opening | SessionPhase::Left => false,
                };
                if of_this_session {
                    self.reopen(now);
                }
                return;
            }
            SessionStatus::Current => self.retries = 0,
        }
        match (flight, self.phase) {
            (Flight::Hello, SessionPhase::Greeting(session)) => {
                self.welcomed(session, reply.settings, now);
            }
            (Flight::Reports, _) => {
                let stored = self.outbox.acknowledged();
                if !stored.is_empty() {
                    self.effects
                        .push(Effect::Notify(Notification::Stored(stored)));
                }
            }
            (Flight::Hello | Flight::None, _) => {}
        }
        self.record_contact(sent, now);
        self.effects.extend(
            reply
                .start
                .into_iter()
                .map(|job| Effect::Notify(Notification::Confirmed(job))),
        );
        self.effects.extend(
            reply
                .kill
                .into_iter()
                .map(|job| Effect::Notify(Notification::Kill(job))),
        );
    }

    fn welcomed(&mut self, session: AgentSession, settings: Option<AgentSettings>, now: Now) {
        self.phase = SessionPhase::Current(session);
        self.settings = settings.unwrap_or(self.settings);
        if self.mode == HeartbeatMode::Automatic {
            self.heartbeat_at = Some(now.moment.after(self.heartbeat_deadline()));
        }
        self.effects
            .push(Effect::Notify(Notification::Welcome(self.settings)));
    }

    fn heartbeat_answered(&mut self, sent: Moment, answer: Answer<HeartbeatReply>, now: Now) {
        let Answer::Reply(reply) = answer else {
            return self.read_lease();
        };
        match reply.status {
            SessionStatus::Current => {
                self.record_contact(sent, now);
                self.effects.extend(
                    reply
                        .kill
                        .into_iter()
                        .map(|job| Effect::Notify(Notification::Kill(job))),
                );
            }
            SessionStatus::HelloRequired => self.reopen(now),
            SessionStatus::Replaced => self.replaced(),
        }
    }

    fn queue_read(&mut self, offers: Vec<(u64, Assignment)>, last: u64, remaining: u64, now: Now) {
        for (sequence, assignment) in offers {
            // Live offers are not compared with our clock, which may be wrong; old ones must be.
            let is_void = assignment.expires_at < now.wall;
            if self.offers.replayed(placement(&assignment)) && !is_void {
                self.effects
                    .push(Effect::Offer(Box::new(assignment), Some(sequence)));
            }
        }
        self.effects.extend(
            self.offers
                .read_done(last, remaining)
                .map(Effect::ReadQueue),
        );
    }

    /// The owner wants a hello. A message of the old session may still be in flight; its answer is the same.
    fn reopen(&mut self, now: Now) {
        if matches!(
            self.phase,
            SessionPhase::Greeting(_) | SessionPhase::Current(_)
        ) {
            let hello_failed = matches!(self.phase, SessionPhase::Greeting(_));
            self.phase = SessionPhase::Opening;
            self.heartbeat_at = None;
            if hello_failed {
                // An owner that answers a hello with `HelloRequired` is not to be asked in a tight loop.
                self.retry_later(now);
            }
            self.effects.push(Effect::OpenSession);
        }
    }

    fn replaced(&mut self) {
        self.phase = SessionPhase::Left;
        self.effects.push(Effect::Notify(Notification::Replaced));
        self.effects.push(Effect::Leave);
    }

    fn record_contact(&mut self, sent: Moment, now: Now) {
        if self.mode == HeartbeatMode::Automatic {
            let change = self.contact.acknowledged(sent, now.moment, self.limit());
            self.effects.extend(change.map(contact_changed));
        }
    }

    fn read_lease(&mut self) {
        let has_contact_to_lose = !matches!(self.contact, Contact::Never);
        if has_contact_to_lose && !self.lease_in_flight {
            self.lease_in_flight = true;
            self.effects.push(Effect::ReadLease);
        }
    }

    fn retry_later(&mut self, now: Now) {
        let wait = RETRY_MIN * 2_u32.saturating_pow(self.retries.min(10));
        self.retries = self.retries.saturating_add(1);
        self.retry_at = Some(now.moment.after(wait.min(RETRY_MAX).mul_f64(self.jitter())));
    }

    /// Between one half and one, different for every session and retry, so that a thousand agents that lost
    /// the same owner do not come back at the same moment.
    fn jitter(&self) -> f64 {
        let seed = match self.phase {
            SessionPhase::Greeting(session) | SessionPhase::Current(session) => {
                session.uuid().as_u128() as u64
            }
            SessionPhase::Opening | SessionPhase::Left => self.identity.agent.as_str().len() as u64,
        };
        let mixed = (seed ^ u64::from(self.retries)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54;
        0.5 + mixed as f64 / 2048.0
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.settings.heartbeat_timeout_ms)
    }

    fn send_what_is_due(&mut self, now: Now) {
        while let Some(mark) = self.outbox.reached() {
            self.effects.push(Effect::Flushed(mark));
            if self.goodbye == Some(mark) {
                self.phase = SessionPhase::Left;
                self.effects.push(Effect::Leave);
                return;
            }
        }
        if let Some((at, from)) = self.queue_retry
            && at <= now.moment
        {
            self.queue_retry = None;
            self.effects.push(Effect::ReadQueue(from));
        }
        self.retry_at = self.retry_at.filter(|at| *at > now.moment);
        let may_send = self.flight == Flight::None && self.retry_at.is_none();
        match self.phase {
            SessionPhase::Greeting(session) if may_send => {
                self.flight = Flight::Hello;
                self.hello.active_jobs.clone_from(&self.jobs);
                let hello = self.hello.clone();
                let reports = vec![AgentReport::Hello { hello }];
                let message = self.reports(session, reports);
                self.effects.push(message);
            }
            SessionPhase::Current(session) => {
                if may_send {
                    let reports = self.outbox.take();
                    if !reports.is_empty() {
                        self.flight = Flight::Reports;
                        let message = self.reports(session, reports);
                        self.effects.push(message);
                    }
                }
                if self.heartbeat_at.is_some_and(|at| at <= now.moment) {
                    self.send_heartbeat(session, now);
                }
            }
            SessionPhase::Greeting(_) | SessionPhase::Opening | SessionPhase::Left => {}
        }
    }

    fn reports(&mut self, session: AgentSession, reports: Vec<AgentReport>) -> Effect {
        Effect::SendReports(AgentReports {
            session,
            clock: self.tick(),
            reports,
        })
    }

    fn send_heartbeat(&mut self, session: AgentSession, now: Now) {
        if self.heartbeat_in_flight {
            return;
        }
        self.heartbeat_in_flight = true;
        let jobs = match self.mode {
            HeartbeatMode::Automatic => {
                self.heartbeat_at = Some(now.moment.after(self.heartbeat_deadline()));
                Some(self.jobs.clone())
            }
            HeartbeatMode::Forwarded => None,
        };
        let clock = self.tick();
        let metrics = self.metrics.clone();
        self.effects.push(Effect::SendHeartbeat(Heartbeat {
            session,
            clock,
            jobs,
            metrics,
        }));
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

fn placement(assignment: &Assignment) -> JobAttempt {
    JobAttempt {
        job_id: assignment.job_id.clone(),
        attempt: assignment.attempt,
    }
}

fn contact_changed(change: Change) -> Effect {
    Effect::Notify(match change {
        Change::Lost => Notification::Fence,
        Change::Regained => Notification::Contact,
    })
}

#[cfg(test)]
mod tests;
