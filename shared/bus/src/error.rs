//! Errors of the bus. Each variant names what was attempted on what; the cause is the source.

use std::time::Duration;

use quintet_contract::error::{ErrorCode, ErrorReply};

/// Why, in the words of whatever lies below.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A message that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A value that the encoding cannot hold.
    #[error("cannot encode a {what}")]
    Encode {
        /// The type.
        what: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// Bytes that are not the message they should be.
    #[error("{}{reason}", place(.path))]
    Malformed {
        /// The field at fault, empty for the message as a whole.
        path: String,
        /// What is wrong, as a phrase for people.
        reason: String,
    },
}

fn place(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("{path}: ")
    }
}

impl CodecError {
    /// The answer to a request that could not be read.
    pub fn to_reply(&self) -> ErrorReply {
        match self {
            Self::Malformed { path, .. } if !path.is_empty() => {
                ErrorReply::new(ErrorCode::BadRequest, self.to_string())
                    .with("field", path.as_str())
            }
            Self::Malformed { .. } => ErrorReply::new(ErrorCode::BadRequest, self.to_string()),
            Self::Encode { .. } => ErrorReply::new(ErrorCode::Internal, self.to_string()),
        }
    }
}

/// A connection that was not made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be read.
    #[error("{url:?} is not a NATS address such as nats://127.0.0.1:4222")]
    Address {
        /// What was configured.
        url: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The credentials file cannot be read.
    #[error("cannot read the credentials file {path}")]
    Credentials {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A client certificate without its key, or the reverse.
    #[error("a TLS client certificate and its key must be given together")]
    IncompleteTls,
    /// The server does not know us: trying again changes nothing.
    #[error(
        "NATS at {url} refuses the credentials of {name:?}: set the user and password, the token or the credentials file that \
         it knows"
    )]
    Refused {
        /// What was configured, without passwords.
        url: String,
        /// The requester: the name of the connection in server tools.
        name: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// No answer came.
    #[error("cannot connect to NATS at {url}")]
    Unreachable {
        /// What was configured, without passwords.
        url: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The server is too old.
    #[error(
        "NATS at {url} is version {found}, but {needed} or newer is needed: install a newer nats-server"
    )]
    ServerTooOld {
        /// What was configured, without passwords.
        url: String,
        /// Its version.
        found: String,
        /// The oldest that works.
        needed: &'static str,
    },
}

/// Something about the connection itself or a read of a stream failed.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// What was written may not have left.
    #[error("cannot flush the connection")]
    Flush {
        /// Why.
        #[source]
        source: Cause,
    },
    /// A stream could not be read.
    #[error("cannot read stream {stream}")]
    Read {
        /// The stream.
        stream: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// There is no such stream.
    #[error("stream {stream} does not exist")]
    NoStream {
        /// The stream.
        stream: String,
    },
}

/// Why a stream cannot be read, before it is known for what.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// There is no such stream.
    NoStream,
    /// Anything else.
    Other(Cause),
}

/// A message that was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It is larger than the server takes.
    #[error("a message of {bytes} bytes to {subject} is larger than the limit of {limit}")]
    TooLarge {
        /// Where it should have gone.
        subject: String,
        /// Its size without headers.
        bytes: usize,
        /// The server's limit.
        limit: usize,
    },
    /// The newest message of the subject is not the one that was expected.
    #[error("another client wrote to {subject} meanwhile")]
    Conflict {
        /// The subject.
        subject: String,
    },
    /// No stream takes this subject, or the stream is away.
    #[error("no stream takes {subject}")]
    NoStream {
        /// Where it should have gone.
        subject: String,
    },
    /// The server did not confirm it, or has failed itself, such as for want of room: it may or may not be stored.
    #[error("no confirmation for a message to {subject}")]
    Unanswered {
        /// Where it went.
        subject: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The server refused it, or the connection is closed for good.
    #[error("cannot publish to {subject}")]
    Rejected {
        /// Where it should have gone.
        subject: String,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// A subscription that was not made.
#[derive(Debug, thiserror::Error)]
#[error("cannot subscribe to {filter}")]
pub struct SubscribeError {
    /// The subject, filter or service name.
    pub filter: String,
    /// Why.
    #[source]
    pub source: Cause,
}

/// A request without a good answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The subject has no responders now.
    #[error("no responders on {subject}")]
    NoResponders {
        /// The subject.
        subject: String,
    },
    /// No answer came in time; the work may or may not have been done.
    #[error("no answer on {subject} within {} ms", .after.as_millis())]
    Timeout {
        /// The subject.
        subject: String,
        /// How long was waited.
        after: Duration,
    },
    /// The answer is an error.
    #[error(transparent)]
    Refused(ErrorReply),
    /// The connection is away; nothing was sent.
    #[error("no connection to send a request on {subject}")]
    Link {
        /// The subject.
        subject: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The request cannot be encoded, or its answer cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl RequestError {
    /// The same failure as a reply to our own requester.
    pub fn to_reply(&self) -> ErrorReply {
        match self {
            Self::NoResponders { .. } => {
                ErrorReply::unavailable("this has no responders at the moment; try again")
            }
            Self::Link { .. } => {
                ErrorReply::unavailable("the bus is not reachable at the moment; try again")
            }
            Self::Timeout { .. } => ErrorReply::new(ErrorCode::Timeout, self.to_string()),
            Self::Refused(reply) => reply.clone(),
            Self::Codec(error) => ErrorReply::new(ErrorCode::Internal, error.to_string()),
        }
    }

    /// Whether nothing was done and the same request may succeed in a moment.
    pub fn is_worth_retrying(&self) -> bool {
        match self {
            Self::NoResponders { .. } | Self::Link { .. } => true,
            Self::Refused(reply) => reply.retry == quintet_contract::error::Retry::Later,
            Self::Timeout { .. } | Self::Codec(_) => false,
        }
    }
}

/// An operation on a bucket that failed.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The record is not at the expected revision.
    #[error("{key} in {bucket} was changed by another client")]
    Conflict {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// The server did not confirm the write, or has failed itself, such as for want of room: it may or may not be stored;
    /// read before writing again.
    #[error("no confirmation for a write of {key} to {bucket}")]
    Unanswered {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The bucket does not exist, or it has no leader now.
    #[error("bucket {bucket} is not available")]
    NoBucket {
        /// The bucket.
        bucket: String,
    },
    /// The record cannot be encoded or read.
    #[error("record {key} in {bucket}")]
    Codec {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// The server refused the write for another reason, for example its size.
    #[error("cannot write {key} to {bucket}")]
    Rejected {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A read failed.
    #[error("cannot read {bucket}")]
    Read {
        /// The bucket.
        bucket: String,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// A lease that could not even be tried for.
#[derive(Debug, thiserror::Error)]
#[error("cannot try for the lease {lease}")]
pub struct LeaseError {
    /// The lease's key.
    pub lease: String,
    /// Why.
    #[source]
    pub source: KvError,
}

/// A stream or bucket that could not be created or inspected.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// It is missing and cannot be made.
    #[error("cannot create stream {stream}")]
    Create {
        /// The stream.
        stream: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// It cannot be inspected.
    #[error("cannot inspect stream {stream}")]
    Inspect {
        /// The stream.
        stream: String,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// Why a queue of tasks cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} the queue {queue}")]
pub struct QueueError {
    /// What was attempted.
    pub(crate) attempt: &'static str,
    /// The queue.
    pub(crate) queue: String,
    /// Why not.
    #[source]
    pub(crate) source: Cause,
}

/// Why a large value cannot be stored or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} the large value {name}")]
pub struct BlobError {
    /// What was attempted.
    pub(crate) attempt: &'static str,
    /// The value.
    pub(crate) name: String,
    /// Why not.
    #[source]
    pub(crate) source: Cause,
}
