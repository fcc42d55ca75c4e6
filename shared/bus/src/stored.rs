//! A stored message of a stream, and the metadata in its headers.

use async_nats::HeaderMap;
use async_nats::header::{NATS_MARKER_REASON, NATS_SEQUENCE, NATS_SUBJECT};
use bytes::Bytes;
use quintet_contract::time::Timestamp;

use crate::headers::HEADER_KV_OPERATION;

/// Header with the time of storage, on direct gets.
const HEADER_TIME: &str = "Nats-Time-Stamp";
/// Nanoseconds of a millisecond.
const NANOS_PER_MILLI: i64 = 1_000_000;

/// One stored message.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    pub(crate) at: Timestamp,
    /// A deletion, purge or expiry, not a value.
    pub(crate) is_marker: bool,
    pub(crate) body: Bytes,
}

impl Stored {
    /// Reads an answer to a direct get; `None` when the server left out what every such answer has.
    pub(crate) fn from_direct_get(message: async_nats::Message) -> Option<Self> {
        let headers = message.headers.as_ref()?;
        let text =
            |value: Option<&async_nats::HeaderValue>| value.map(|value| value.as_str().to_owned());
        Some(Self {
            subject: text(headers.get_last(NATS_SUBJECT))?,
            sequence: text(headers.get_last(NATS_SEQUENCE))?.parse().ok()?,
            at: text(headers.get_last(HEADER_TIME))?.parse().ok()?,
            is_marker: is_marker(Some(headers)),
            body: message.payload,
        })
    }

    /// Reads a delivery to a consumer; `None` for anything else.
    pub(crate) fn from_delivery(message: async_nats::Message) -> Option<(Self, Position)> {
        let position = Position::read(message.reply.as_deref()?)?;
        let stored = Self {
            subject: message.subject.to_string(),
            sequence: position.stream,
            at: position.at,
            is_marker: is_marker(message.headers.as_ref()),
            body: message.payload,
        };
        Some((stored, position))
    }
}

pub(crate) fn is_marker(headers: Option<&HeaderMap>) -> bool {
    let Some(headers) = headers else { return false };
    let deleted = headers
        .get(HEADER_KV_OPERATION)
        .is_some_and(|value| matches!(value.as_str(), "DEL" | "PURGE"));
    deleted || headers.get(NATS_MARKER_REASON).is_some()
}

/// The position of a delivery, by its reply subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) stream: u64,
    pub(crate) consumer: u64,
    /// How often this message was delivered, from 1.
    pub(crate) delivered: u64,
    pub(crate) at: Timestamp,
    /// How many more the consumer has for us.
    pub(crate) pending: u64,
}

impl Position {
    /// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<nanoseconds>.<pending>`, or the
    /// longer form with domain and account before the stream and a random token at the end.
    pub(crate) fn read(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let skipped = match tokens.len() {
            7 => 0,
            9.. => 2,
            _ => return None,
        };
        let number = |index: usize| tokens.get(skipped + index)?.parse::<u64>().ok();
        let nanos = i64::try_from(number(5)?).ok()?;
        Some(Self {
            stream: number(3)?,
            consumer: number(4)?,
            delivered: number(2)?,
            at: Timestamp::from_millis(nanos / NANOS_PER_MILLI),
            pending: number(6)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_reply_subjects_are_read() {
        let position = Position {
            stream: 12,
            consumer: 7,
            delivered: 1,
            at: Timestamp::from_millis(1_700_000_000_001),
            pending: 3,
        };
        assert_eq!(
            Position::read("$JS.ACK.KV_x.abc.1.12.7.1700000000001999999.3"),
            Some(position)
        );
        assert_eq!(
            Position::read("$JS.ACK.hub.A1B2.KV_x.abc.1.12.7.1700000000001999999.3.rand"),
            Some(position)
        );
        for other in ["", "$JS.ACK.a", "_INBOX.x", "$JS.ACK.KV_x.abc.1.x.7.1.3"] {
            assert_eq!(Position::read(other), None, "{other}");
        }
    }
}
