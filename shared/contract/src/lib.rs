//! The vocabulary of Quintet: everything that leaves or outlives a process is defined here, and nowhere else.
//!
//! Ids ([`id`]), times ([`time`]), subjects ([`subject`]) and their table ([`table`]), streams and buckets
//! ([`topology`], [`bucket`]), messages and records ([`job`], [`agent`], [`template`], [`api`], [`event`]),
//! the WebSocket envelopes ([`socket`]) and error codes ([`error`]). The crate is pure: no clock, no I/O.
//!
//! ```
//! use quintet_contract::id::{AgentId, PoolName};
//! use quintet_contract::subject::{AgentHeartbeat, Prefix, Subject};
//!
//! // A subject is a type that fixes its message and can be read back.
//! let subject = AgentHeartbeat { agent: AgentId::parse("studio 1")?, pool: PoolName::default() };
//! let text = subject.render(&Prefix::default());
//! assert_eq!(text, "quintet.hb.agent.studio=201");
//! assert_eq!(AgentHeartbeat::parse(&Prefix::default(), &text), Some(subject));
//! # Ok::<(), quintet_contract::id::NameError>(())
//! ```
//!
//! Every message is the same shape in MessagePack (named fields) and JSON, with camelCase field names.
//! Enums carry an `Unknown` variant where a newer peer may send more than this version knows; new fields
//! have defaults, so that an older sender is understood.

pub mod access;
pub mod agent;
pub mod api;
pub mod bucket;
pub mod capability;
pub mod cause;
pub mod display;
pub mod error;
pub mod event;
pub mod frame;
pub mod frame_api;
pub mod id;
pub mod job;
pub mod metadata;
pub mod nesting;
pub mod permission;
pub mod plan;
pub mod reply;
pub mod run;
pub mod run_api;
pub mod schema;
pub mod socket;
pub mod subject;
pub mod table;
pub mod task;
pub mod template;
pub mod time;
pub mod topology;
pub mod worker;

/// Version of the contract; travels in the header [`HEADER_CONTRACT`] and grows with every wire change.
pub const CONTRACT_VERSION: u32 = 1;

/// Header with the sender's [`CONTRACT_VERSION`].
pub const HEADER_CONTRACT: &str = "Quintet-Contract";
/// Header with the id of this message (UUID v7), for logs and de-duplication.
pub const HEADER_MESSAGE_ID: &str = "Quintet-Message-Id";
/// Header with the id of the message that caused this one.
pub const HEADER_CAUSE: &str = "Quintet-Cause";
/// Header with the time, RFC 3339, after which the requester no longer waits for the answer.
pub const HEADER_DEADLINE: &str = "Quintet-Deadline";

/// A JSON object whose fields the contract does not fix, such as an executor's configuration.
pub type JsonObject = serde_json::Map<String, serde_json::Value>;
