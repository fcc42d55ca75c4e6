//! The bus: the only crate that names async-nats.
//!
//! A [`Bus`] is one connection. Over it go typed messages ([`Bus::publish`], [`Bus::store`], [`Bus::subscribe`]),
//! typed requests ([`Bus::request`], [`Bus::serve`], [`Bus::micro`]), records under compare and swap
//! ([`Bus::bucket`]), leases ([`Bus::lease`]) and replays of streams ([`Bus::replay`]). Every message goes
//! through one codec ([`encode`], [`decode`]) and carries the same headers. What must exist on the server is
//! data in the contract; [`Bus::ensure_topology`] makes and checks it. Queues of tasks ([`Bus::pull`]) are shared by
//! their workers.
//!
//! Nothing here knows what a job, an agent or a run is.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use quintet_bus::{Bus, BusConfig};
//! use quintet_contract::api::ListJobs;
//! use quintet_contract::id::PoolName;
//! use quintet_contract::subject::ListJobsOf;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = Bus::connect(BusConfig::open("nats://127.0.0.1:4222", "example")).await?;
//! // Tried until a scheduler answers, or until the deadline.
//! let subject = ListJobsOf { pool: PoolName::default() };
//! let page = bus.request_until(&subject, &ListJobs::default(), Duration::from_secs(5)).await?;
//! println!("{} jobs", page.jobs.len());
//! # Ok(())
//! # }
//! ```

mod blob;
mod clock;
mod codec;
mod connect;
mod counter;
mod direct_get;
mod endpoint;
mod error;
mod headers;
mod kv;
mod lease;
mod load;
pub mod metrics;
mod micro;
mod ordered_consumer;
pub mod pending;
mod probe;
mod publish;
mod queue;
mod raw;
mod replay;
mod request;
mod responder;
mod serve;
mod server_failover;
mod stored;
mod tap;
mod topology;
mod trace;
mod watch;
mod write_health;

pub use clock::{
    new_checkpoint_id, new_job_id, new_message_id, new_run_id, new_run_id_in, new_session, now,
};
pub use codec::{Encoding, decode, encode, to_json_text};
pub use connect::{Bus, BusConfig, Credentials, LinkState, Secret, TlsFiles, redact_url};
pub use direct_get::PageLimit;
pub use error::{
    BlobError, BusError, Cause, CodecError, ConnectError, KvError, LeaseError, PublishError,
    QueueError, RequestError, SubscribeError, TopologyError,
};
pub use headers::Meta;
pub use kv::{BucketHandle, PendingWrite, Revision, Versioned};
pub use lease::{HeldLease, LeaseCandidate, LeaseTerms};
pub use load::{Loaded, run_blocking};
pub use micro::Micro;
pub use publish::PendingStore;
pub use queue::{AckHandle, Pull, Pulled, QueueState};
pub use raw::{RawIncoming, RawRequests};
pub use replay::Replay;
pub use responder::Responder;
pub use serve::{Deliveries, Delivery, Incoming, Requests};
pub use server_failover::ServerFailover;
pub use tap::Tapped;
pub use topology::{Condition, StreamReport, TopologyReport};
pub use trace::{
    HeaderLookup, TraceHooks, current_traceparent, new_traceparent, set_trace_hooks,
    with_traceparent,
};
pub use watch::{Change, Watch, WatchFrom};
