//! The worker SDK: announce a worker, take work, report, leave.
//!
//! Workers of every kind but agents are known by their heartbeats, which [`Announce`] publishes. [`Slots`] limit how
//! much a worker does at once; [`task`] has what it reports of tasks of runs ([`TaskReporter`](task::TaskReporter)) and
//! which of them are in flight ([`InFlight`](task::InFlight)).
//!
//! For agents that is [`AgentLink`]: one agent's life on the bus. It owns the session, the heartbeats, the
//! order and repetition of reports, and the rule by which an agent that has lost the bus must stop what may
//! be started elsewhere. What a job *is* stays with the agent.
//!
//! Workers that start programs use [`process`], which ties them to their worker's life, and [`output`], which reads
//! what they print; [`program`] is the contract with the programs of runs.
//!
//! A whole agent, which takes one job at a time and "runs" it by ending it at once:
//!
//! ```no_run
//! use quintet_bus::Bus;
//! use quintet_contract::agent::{AgentReport, Assignment, Hello};
//! use quintet_contract::capability::Capabilities;
//! use quintet_contract::id::{AgentId, PoolName};
//! use quintet_contract::job::{JobAttempt, JobStatus};
//! use quintet_worker::{AgentIdentity, AgentLink, LinkEvent, LinkOptions};
//!
//! async fn agent(bus: Bus) -> Result<(), Box<dyn std::error::Error>> {
//!     let identity = AgentIdentity { agent: AgentId::parse("hello-agent")?, pool: PoolName::default() };
//!     let capabilities = Capabilities { slots: 1, self_fence: true, ..Capabilities::default() };
//!     let hello = Hello {
//!         name: "hello".to_owned(),
//!         version: "1".to_owned(),
//!         capabilities: capabilities.to_object(),
//!         drain: false,
//!         active_jobs: Vec::new(),
//!         meta: Default::default(),
//!     };
//!     let (link, mut events) = AgentLink::open(bus, identity, hello, LinkOptions::default());
//!     while let Some(event) = events.recv().await {
//!         match event {
//!             LinkEvent::Assigned { assignment: Assignment { job_id, attempt, .. }, .. } => {
//!                 let attempt = Some(attempt);
//!                 link.report(AgentReport::AssignAck { job_id, attempt, accepted: true, reason: None }).await?;
//!             }
//!             // Only now may the work begin.
//!             LinkEvent::Confirmed(JobAttempt { job_id, attempt }) => {
//!                 let (id, attempt) = (job_id.clone(), Some(attempt));
//!                 link.report(AgentReport::JobUpdate { job_id: id, attempt, status: JobStatus::Running }).await?;
//!                 println!("hello from {job_id}");
//!                 let status = JobStatus::Stopped;
//!                 link.report(AgentReport::JobStopped { job_id, attempt, status, error: None }).await?;
//!             }
//!             LinkEvent::Command { responder, .. } => responder.ok(&Default::default()).await,
//!             LinkEvent::Replaced | LinkEvent::Closed => break,
//!             _ => {}
//!         }
//!     }
//!     link.goodbye("done").await?;
//!     Ok(())
//! }
//! ```

mod announce;
mod clock;
mod link;
pub mod metrics;
pub mod output;
pub mod process;
pub mod program;
mod recent;
mod slots;
pub mod task;

pub use announce::{Announce, host, this_program};
pub use clock::{Moment, moment};
pub use link::core;
pub use link::{
    AgentIdentity, AgentLink, HeartbeatMode, LinkError, LinkEvent, LinkHandle, LinkOptions,
    ReportSlot,
};
pub use recent::Recent;
pub use slots::{Slot, Slots};
