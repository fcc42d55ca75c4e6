//! The bus: the only crate that names async-nats.
//!
//! A [`Bus`] is one connection. Over it go typed messages ([`Bus::publish`], [`Bus::store`], [`Bus::subscribe`]),
//! typed requests ([`Bus::request`], [`Bus::serve`], [`Bus::micro`]), records under compare and swap
//! ([`Bus::bucket`]), leases ([`Bus::lease`]) and replays of streams ([`Bus::replay`]). Every message goes
//! through one codec ([`encode`], [`decode`]) and carries the same headers. What must exist on the server is
//! data in the contract; [`Bus::ensure_topology`] makes and checks it.
//!
//! Nothing here knows what a job or an agent is.

mod batch;
mod clock;
mod codec;
mod connect;
mod error;
mod feed;
mod headers;
mod kv;
mod lease;
pub mod metrics;
mod micro;
mod publish;
mod replay;
mod request;
mod responder;
mod serve;
mod stored;
mod tap;
mod topology;
mod trace;
mod watch;

pub use clock::{new_job_id, new_message_id, new_session, now};
pub use codec::{Encoding, decode, encode, to_json_text};
pub use connect::{Bus, BusConfig, Credentials, LinkState, Secret, TlsFiles};
pub use error::{
    BusError, Cause, CodecError, ConnectError, KvError, LeaseError, PublishError, RequestError,
    SubscribeError, TopologyError,
};
pub use headers::Meta;
pub use kv::{BucketHandle, Loaded, PendingWrite, Revision, Versioned};
pub use lease::{HeldLease, LeaseCandidate, LeaseTerms};
pub use micro::Micro;
pub use publish::PendingStore;
pub use replay::Replay;
pub use responder::Responder;
pub use serve::{Deliveries, Delivery, Incoming, Requests};
pub use tap::Tapped;
pub use topology::{Condition, StreamReport, TopologyReport};
pub use trace::{HeaderLookup, TraceHooks, current_traceparent, set_trace_hooks};
pub use watch::{Change, Watch, WatchFrom};
