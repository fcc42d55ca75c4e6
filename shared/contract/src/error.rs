//! Error replies: a machine code, one sentence for people, and whether to retry.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::JsonObject;

/// Machine codes of failed requests, the same on the bus and over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The request could not be read: not JSON, not MessagePack, wrong shape.
    BadRequest,
    /// Missing or wrong credentials.
    Unauthorized,
    /// Known caller, not allowed.
    Forbidden,
    /// No such route, job, agent or template.
    NotFound,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// The body is larger than the limit.
    PayloadTooLarge,
    /// The address is longer than the limit.
    UriTooLong,
    /// The body's media type is not JSON.
    UnsupportedMediaType,
    /// Readable, but a field has a wrong type or value.
    ValidationFailed,
    /// The job has no agent, or its agent is offline.
    AgentNotAvailable,
    /// An online agent cannot be forgotten.
    AgentOnline,
    /// The idempotency key belongs to a different request.
    IdempotencyMismatch,
    /// The running job does not know this command.
    UnknownCommand,
    /// The agent or executor answered that it could not do it.
    CommandFailed,
    /// A record changed meanwhile; read again.
    Conflict,
    /// Too many requests.
    RateLimited,
    /// This pool has no leader at the moment, or the bus does not answer.
    Unavailable,
    /// No answer within the deadline.
    Timeout,
    /// A defect of ours.
    Internal,
    /// A code of a newer version.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The HTTP status that stands for this code.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::AgentNotAvailable
            | Self::AgentOnline
            | Self::IdempotencyMismatch
            | Self::CommandFailed
            | Self::Conflict => 409,
            Self::PayloadTooLarge => 413,
            Self::UriTooLong => 414,
            Self::UnsupportedMediaType => 415,
            Self::ValidationFailed | Self::UnknownCommand => 422,
            Self::RateLimited => 429,
            Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::Internal | Self::Unknown => 500,
        }
    }
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Retry {
    /// The same request will fail again.
    Never,
    /// Nothing was done; the same request may succeed in a moment.
    Later,
}

/// Further field of a refusal because nothing can be stored: the bucket that takes no writes.
const UNWRITABLE: &str = "notStoring";

/// The answer to a request that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{error}")]
#[serde(rename_all = "camelCase")]
pub struct ErrorReply {
    /// One sentence for people, with what to do next.
    pub error: String,
    /// The machine code.
    pub code: ErrorCode,
    /// Whether to try again.
    pub retry: Retry,
    /// Further fields that help, for example `field` or `commands`.
    #[serde(default, skip_serializing_if = "JsonObject::is_empty")]
    pub details: JsonObject,
}

impl ErrorReply {
    /// A failure that the same request will meet again.
    pub fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            code,
            retry: Retry::Never,
            details: JsonObject::new(),
        }
    }

    /// A temporary failure: no leader, or no connection to the bus.
    pub fn unavailable(error: impl Into<String>) -> Self {
        Self {
            retry: Retry::Later,
            ..Self::new(ErrorCode::Unavailable, error)
        }
    }

    /// A failure that lasts until an operator repairs NATS: it confirms no write to a bucket.
    pub fn unwritable(bucket: &str) -> Self {
        let text = format!(
            "NATS confirms nothing that is written to {bucket}: its disk is full (make room, then restart that nats-server) or \
             most of its cluster is away; then send the same request again"
        );
        Self::unavailable(text).with(UNWRITABLE, bucket)
    }

    /// Whether it is [`ErrorReply::unwritable`]: an immediate retry is futile.
    pub fn is_unwritable(&self) -> bool {
        self.details.contains_key(UNWRITABLE)
    }

    /// The plain "no such thing" of the HTTP interface.
    pub fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "Not Found")
    }

    /// A field that has a wrong type or value.
    pub fn invalid(field: &str, error: impl Into<String>) -> Self {
        Self::new(ErrorCode::ValidationFailed, error).with("field", field)
    }

    /// Adds a field that helps.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}
