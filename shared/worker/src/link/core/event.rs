//! Events and effects of a link.

use quintet_contract::JsonObject;
use quintet_contract::agent::{
    ActiveJob, AgentReport, AgentReports, AgentSettings, Assignment, Heartbeat, HeartbeatReply,
    ReportsReply,
};
use quintet_contract::error::ErrorReply;
use quintet_contract::id::AgentSession;
use quintet_contract::job::JobAttempt;
use quintet_contract::time::Timestamp;

pub use super::super::outbox::Mark;
use crate::clock::Moment;

/// The two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For durations; continues during a suspend.
    pub moment: Moment,
    /// For what is written in offers.
    pub wall: Timestamp,
}

/// How a message to the owner ended.
#[derive(Clone, Debug)]
pub enum Answer<R> {
    /// It was answered.
    Reply(R),
    /// No answer came, or the answer was to try later.
    None,
    /// It will never be taken.
    Refused(ErrorReply),
}

/// The state of the pool by its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// A scheduler leads it.
    Held,
    /// No scheduler does.
    Vacant,
    /// It cannot be determined.
    Unreadable,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The subscriptions stand, or a new session was asked for: here is its id.
    SessionOpened(AgentSession),
    /// The bus reconnected.
    Reconnected,
    /// The agent reports.
    Reported(Vec<AgentReport>),
    /// The agent wants a heartbeat sent.
    HeartbeatAsked(JsonObject),
    /// The agent's jobs changed.
    JobsChanged(Vec<ActiveJob>),
    /// The agent's measurements changed.
    MetricsChanged(JsonObject),
    /// A caller waits for everything before this to be acknowledged.
    FlushAsked(Mark),
    /// The agent leaves.
    GoodbyeAsked(String, Mark),
    /// A message of reports ended.
    ReportsAnswered {
        /// When it was sent.
        sent: Moment,
        /// How it ended.
        answer: Answer<ReportsReply>,
    },
    /// A heartbeat ended.
    HeartbeatAnswered {
        /// When it was sent.
        sent: Moment,
        /// The session that it spoke for.
        session: AgentSession,
        /// How it ended.
        answer: Answer<HeartbeatReply>,
    },
    /// The pool's lease was read.
    LeaseRead {
        /// When the look began.
        requested_at: Moment,
        /// What was found.
        leadership: Leadership,
    },
    /// An offer came live.
    Offered {
        /// The offer.
        assignment: Box<Assignment>,
        /// Its sequence in the stream.
        sequence: Option<u64>,
        /// The sequence before it.
        previous: Option<u64>,
    },
    /// A part of the queue was read.
    QueueRead {
        /// Offers with their sequences, oldest first.
        offers: Vec<(u64, Assignment)>,
        /// Everything up to here was in it.
        last: u64,
        /// How many more there are.
        remaining: u64,
    },
    /// The queue could not be read.
    QueueUnreadable,
    /// A newer session took over, by a command.
    ReplacedBy(AgentSession),
    /// Time passed.
    Woken,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make a session id and come back with [`Event::SessionOpened`].
    OpenSession,
    /// Send reports and come back with [`Event::ReportsAnswered`].
    SendReports(AgentReports),
    /// Send a heartbeat and come back with [`Event::HeartbeatAnswered`].
    SendHeartbeat(Heartbeat),
    /// Look at the pool's lease and come back with [`Event::LeaseRead`].
    ReadLease,
    /// Read the queue from this sequence on and come back.
    ReadQueue(u64),
    /// Hand the offer that this event brought to the agent.
    Offer(Box<Assignment>, Option<u64>),
    /// Notify the agent.
    Notify(Notification),
    /// Everything before this mark is acknowledged.
    Flushed(Mark),
    /// The link ends.
    Leave,
}

/// A notification to the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Notification {
    /// See [`LinkEvent::Welcome`](crate::LinkEvent::Welcome).
    Welcome(AgentSettings),
    /// See [`LinkEvent::Confirmed`](crate::LinkEvent::Confirmed).
    Confirmed(JobAttempt),
    /// See [`LinkEvent::Kill`](crate::LinkEvent::Kill).
    Kill(JobAttempt),
    /// See [`LinkEvent::Stored`](crate::LinkEvent::Stored).
    Stored(Vec<AgentReport>),
    /// See [`LinkEvent::Refused`](crate::LinkEvent::Refused).
    Refused(Box<AgentReport>, ErrorReply),
    /// See [`LinkEvent::Fence`](crate::LinkEvent::Fence).
    Fence,
    /// See [`LinkEvent::Contact`](crate::LinkEvent::Contact).
    Contact,
    /// See [`LinkEvent::Replaced`](crate::LinkEvent::Replaced).
    Replaced,
}
