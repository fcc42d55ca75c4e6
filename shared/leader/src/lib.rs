//! Leader: what services share that own state, one process at a time.
//!
//! It owns election and server failover, loading, write-health gating, batching, group commit, hand-over, and the one
//! clock. A service brings its [`Core`], how that is loaded ([`Owner`]) and how its effects are done ([`Outbound`]); it
//! calls [`lead`].
//!
//! A write fails in one of three ways. *Conflict* and *indeterminate* mean that this process does not know what is
//! stored: it reloads. *Rejected* (too large, not allowed) comes back to the core as an event that concerns those records
//! alone ([`Rejection`]).
//!
//! The lease only prevents wasted work: what keeps two leaders from doing the same is compare and swap on every record.

mod clock;
mod commits;
mod effects;
mod election;
mod error;
mod event_loop;
mod inbox;
mod lead;
mod owner;

pub use clock::{Clock, Moment};
pub use commits::{CommitId, Commits, Done, Order, Unit};
pub use effects::{Core, Effects, Rejection};
pub use election::{CandidateStatus, Election};
pub use error::{Error, ReloadReason, StopReason, WriteError};
pub use inbox::{Inbox, Message, Messages};
pub use lead::{lead, with_parts};
pub use owner::{
    ActionOf, Confirmation, CoreOf, EffectsOf, EventOf, InboxOf, Outbound, Owner, Policy,
    Preference, Signal, Status, Term, TimeOf, WhenUnwritable, WriteOf,
};
