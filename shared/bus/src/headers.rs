//! Headers of a message: ids, deadline, contract version, trace context, stream positions.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_LAST_SEQUENCE, NATS_MESSAGE_TTL, NATS_SEQUENCE};
use quintet_contract::cause::is_traceparent;
use quintet_contract::id::MessageId;
use quintet_contract::time::Timestamp;
use quintet_contract::{
    CONTRACT_VERSION, HEADER_CAUSE, HEADER_CONTRACT, HEADER_DEADLINE, HEADER_MESSAGE_ID,
};

use crate::clock::new_message_id;
use crate::trace::{HEADER_TRACEPARENT, inject};

/// Header of an answer that is an error; its value is the code.
pub(crate) const HEADER_ERROR: &str = "Quintet-Error";
/// The same for tools that know NATS micro services: a phrase.
pub(crate) const HEADER_SERVICE_ERROR: &str = "Nats-Service-Error";
/// The same for tools that know NATS micro services: a number.
pub(crate) const HEADER_SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
/// Marks a bucket entry that is a deletion.
pub(crate) const HEADER_KV_OPERATION: &str = "KV-Operation";

/// How long a deletion stays visible; longer than any interruption that a watch should survive.
pub(crate) const DELETION_TTL: Duration = Duration::from_secs(60);

/// What a message carried beside its body.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    /// Its id.
    pub message_id: Option<MessageId>,
    /// The message that caused it.
    pub cause: Option<MessageId>,
    /// After this the requester no longer waits for the answer.
    pub deadline: Option<Timestamp>,
    /// Trace context of the sender.
    pub traceparent: Option<String>,
    /// Its sequence in the stream, when it was republished from one.
    pub sequence: Option<u64>,
    /// The sequence of the message before it on the same subject of that stream; zero for the first.
    pub last_sequence: Option<u64>,
    /// The subject as it came.
    pub raw_subject: String,
}

impl Meta {
    pub(crate) fn read(subject: &str, headers: Option<&HeaderMap>) -> Self {
        let raw_subject = subject.to_owned();
        let Some(headers) = headers else {
            return Self {
                raw_subject,
                ..Self::default()
            };
        };
        let text = |name: &str| headers.get(name).map(|value| value.as_str());
        Self {
            message_id: text(HEADER_MESSAGE_ID).and_then(|value| value.parse().ok()),
            cause: text(HEADER_CAUSE).and_then(|value| value.parse().ok()),
            deadline: text(HEADER_DEADLINE).and_then(|value| value.parse().ok()),
            traceparent: text(HEADER_TRACEPARENT)
                .filter(|text| is_traceparent(text))
                .map(str::to_owned),
            sequence: headers
                .get(NATS_SEQUENCE)
                .and_then(|value| value.as_str().parse().ok()),
            last_sequence: headers
                .get(NATS_LAST_SEQUENCE)
                .and_then(|value| value.as_str().parse().ok()),
            raw_subject,
        }
    }
}

/// The headers that every message of ours carries.
pub(crate) fn outgoing(cause: Option<MessageId>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER_MESSAGE_ID, new_message_id().to_string());
    headers.insert(HEADER_CONTRACT, CONTRACT_VERSION.to_string());
    if let Some(cause) = cause {
        headers.insert(HEADER_CAUSE, cause.to_string());
    }
    for (name, value) in inject() {
        headers.insert(name.as_str(), value.as_str());
    }
    headers
}

/// Those headers and a deadline.
pub(crate) fn outgoing_request(cause: Option<MessageId>, deadline: Timestamp) -> HeaderMap {
    let mut headers = outgoing(cause);
    headers.insert(HEADER_DEADLINE, deadline.to_string());
    headers
}

/// The headers of a deletion, whose marker stays for a while.
pub(crate) fn delete_headers(cause: Option<MessageId>) -> HeaderMap {
    let mut headers = outgoing(cause);
    headers.insert(HEADER_KV_OPERATION, "DEL");
    headers.insert(NATS_MESSAGE_TTL, ttl_text(DELETION_TTL));
    headers
}

/// A time to live as the server reads it: whole seconds, at least one.
pub(crate) fn ttl_text(ttl: Duration) -> String {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    seconds.max(1).to_string()
}
