//! The link of one agent to the bus.
//!
//! ```text
//!   open ──subscribe──▶ greeting ──welcome──▶ current ──goodbye──▶ left
//!                          ▲                     │ │
//!                          └──hello required─────┘ └──replaced──▶ left
//! ```
//!
//! [`core`] decides what is sent when; [`driver`] does the input and output. The author of an agent sees a
//! [`LinkHandle`] to send and a channel of [`LinkEvent`]s to receive. Neither direction waits for
//! the other: events that are not taken are kept while reports continue being acknowledged.

mod contact;
pub mod core;
mod driver;
mod handle;
mod offers;
mod outbox;
mod requests;

use quintet_bus::{Bus, Meta, Responder};
use quintet_contract::agent::{
    AgentCommand, AgentReport, AgentSettings, Assignment, CommandReply, Hello,
};
use quintet_contract::error::ErrorReply;
use quintet_contract::id::{AgentId, PoolName};
use quintet_contract::job::JobAttempt;
use tokio::sync::mpsc;

pub use handle::{LinkError, LinkHandle, ReportSlot};

/// Events that wait for the agent; when full, the link keeps a bounded backlog of its own.
const EVENT_CAPACITY: usize = 256;

/// The agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The agent.
    pub agent: AgentId,
    /// The pool whose scheduler owns it.
    pub pool: PoolName,
}

/// Where heartbeats come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeartbeatMode {
    /// The link sends them itself, and notifies the agent to fence itself when they are not answered.
    #[default]
    Automatic,
    /// Only when [`LinkHandle::heartbeat`] is called: for agents behind a gateway, whose own heartbeats
    /// are passed on. Such agents are not notified to fence themselves.
    Forwarded,
}

/// How a link behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkOptions {
    /// Where heartbeats come from.
    pub heartbeat: HeartbeatMode,
}

/// Events of a link, for its agent.
#[non_exhaustive]
pub enum LinkEvent {
    /// A hello was accepted; also after every later hello.
    Welcome(AgentSettings),
    /// A job is offered: answer with [`AgentReport::AssignAck`], start nothing yet. Each placement comes once.
    Assigned {
        /// The offer.
        assignment: Assignment,
        /// What travelled beside it.
        meta: Meta,
    },
    /// The acceptance of this placement is stored: the agent may start it, if the acceptance was sent less
    /// than the heartbeat timeout ago.
    Confirmed(JobAttempt),
    /// This placement is no longer wanted here: kill it without a report.
    Kill(JobAttempt),
    /// A command, with the duty to answer it.
    Command {
        /// The command.
        command: AgentCommand,
        /// What travelled beside it.
        meta: Meta,
        /// The duty.
        responder: Responder<CommandReply>,
    },
    /// The owner has stored these reports.
    Stored(Vec<AgentReport>),
    /// The owner will never take this report, which is dropped; a refused hello is tried again.
    Refused {
        /// What was refused.
        report: Box<AgentReport>,
        /// Why.
        error: ErrorReply,
    },
    /// The owner has not seen this agent for the heartbeat timeout and may give its jobs away: the agent
    /// must kill those that are restartable, now.
    Fence,
    /// The owner sees this agent again after a [`LinkEvent::Fence`].
    Contact,
    /// A newer session took over: stop everything and leave. The link has ended.
    Replaced,
    /// The link has ended, because of a goodbye or because the connection was closed.
    Closed,
}

/// One agent's life on the bus; see [`AgentLink::open`].
#[derive(Debug)]
pub struct AgentLink;

impl AgentLink {
    /// Subscribes to the agent's offers and commands, sends hello, and repeats it until it is welcome.
    ///
    /// The link runs in a task of its own until [`LinkHandle::goodbye`] is called, it is replaced, or every handle or
    /// the receiver of events is dropped. Must be called within a Tokio runtime.
    pub fn open(
        bus: Bus,
        identity: AgentIdentity,
        hello: Hello,
        options: LinkOptions,
    ) -> (LinkHandle, mpsc::Receiver<LinkEvent>) {
        let (events, receiver) = mpsc::channel(EVENT_CAPACITY);
        let (handle, ends) = handle::channel(hello.active_jobs.clone());
        let core = core::Core::new(identity.clone(), hello, options.heartbeat);
        // The task ends by itself, with its handles; no owner above a link would stop it.
        tokio::spawn(driver::run(bus, identity, core, ends, events));
        (handle, receiver)
    }
}
