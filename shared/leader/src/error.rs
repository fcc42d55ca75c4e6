//! Errors of a leader: failed writes, reasons to reload, the end of a term, and fatal errors.

use quintet_bus::{BusError, Cause, KvError, PublishError, SubscribeError};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_service::tasks::TaskEnd;

/// A write that failed. The first two mean that this process does not know what is stored, so that it reloads; the third
/// concerns one record.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another process wrote the record: it is not at the revision that this one knows.
    #[error("a record was changed by another process")]
    Conflict(#[source] Cause),
    /// The server did not confirm it: it may or may not be stored.
    #[error("a write was not confirmed")]
    Indeterminate(#[source] Cause),
    /// The server refused it, and would again: it is too large, not allowed, or cannot be encoded.
    #[error("a write was rejected")]
    Rejected(#[source] Cause),
}

impl WriteError {
    /// The answer to the request that wanted it.
    pub fn to_reply(&self) -> ErrorReply {
        match self {
            Self::Conflict(_) | Self::Indeterminate(_) => unconfirmed(),
            Self::Rejected(cause) => {
                let cause = innermost(cause.as_ref());
                let text = format!("NATS does not store this: {cause}; send less");
                ErrorReply::new(ErrorCode::PayloadTooLarge, text)
            }
        }
    }
}

/// The answer to a request whose write may or may not be stored.
pub(crate) fn unconfirmed() -> ErrorReply {
    let text =
        "NATS did not confirm that the change is stored; look whether it holds, then send it again";
    ErrorReply::unavailable(text)
}

fn innermost<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .unwrap_or(error)
}

impl From<KvError> for WriteError {
    fn from(error: KvError) -> Self {
        match &error {
            KvError::Conflict { .. } => Self::Conflict(error.into()),
            KvError::Unanswered { .. } | KvError::NoBucket { .. } | KvError::Read { .. } => {
                Self::Indeterminate(error.into())
            }
            KvError::Codec { .. } | KvError::Rejected { .. } => Self::Rejected(error.into()),
        }
    }
}

impl From<PublishError> for WriteError {
    fn from(error: PublishError) -> Self {
        match &error {
            PublishError::Conflict { .. } => Self::Conflict(error.into()),
            PublishError::NoStream { .. } | PublishError::Unanswered { .. } => {
                Self::Indeterminate(error.into())
            }
            PublishError::Codec(_)
            | PublishError::TooLarge { .. }
            | PublishError::Rejected { .. } => Self::Rejected(error.into()),
        }
    }
}

/// Why a leader reloads its state.
#[derive(Debug, thiserror::Error)]
pub enum ReloadReason {
    /// It is not known whether a record is stored.
    #[error("a record may not be stored")]
    Write(#[from] WriteError),
    /// State could not be read.
    #[error("state cannot be read")]
    Read(#[source] Cause),
    /// A watch of records ended.
    #[error("a watch failed")]
    Watch(#[source] Cause),
    /// Another process wrote what this one owns.
    #[error("another process changed what is stored")]
    ChangedElsewhere,
    /// A bucket does not confirm writes, although the server is there.
    #[error("NATS stores nothing")]
    Unwritable,
    /// The lease was lost before the changes were written.
    #[error("the lease was lost before the changes were written")]
    LeaseLost,
}

impl From<KvError> for ReloadReason {
    fn from(error: KvError) -> Self {
        Self::Read(error.into())
    }
}

impl From<BusError> for ReloadReason {
    fn from(error: BusError) -> Self {
        Self::Read(error.into())
    }
}

/// Why a process stopped leading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It was asked to end.
    Shutdown,
    /// Another process may lead now.
    LeaseLost,
    /// Another process is preferred, and gets the lease.
    Yielded,
}

/// What ends a service that leads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bus refused a subscription that the service cannot work without.
    #[error("subscribing to {what}")]
    Subscribe {
        /// What was to be received.
        what: &'static str,
        /// Why not.
        #[source]
        source: SubscribeError,
    },
    /// A part without which the service cannot work has ended.
    #[error("a part of the service ended")]
    Part(#[from] TaskEnd),
}

impl Error {
    /// For `map_err` on a subscription to this.
    pub fn subscribing(what: &'static str) -> impl FnOnce(SubscribeError) -> Self {
        move |source| Self::Subscribe { what, source }
    }
}
