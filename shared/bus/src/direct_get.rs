//! Reading stored messages without a consumer: one by subject, or several in one request.
//!
//! Direct gets are answered by any server that has a copy; a batch answer is a sequence of messages that ends
//! with a status message.

use std::time::Duration;

use async_nats::StatusCode;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use futures::StreamExt;
use quintet_contract::time::Timestamp;
use serde::Serialize;
use tokio::time::timeout;

use crate::connect::{API_TIMEOUT, Bus};
use crate::error::ReadError;
use crate::stored::{Stored, is_marker};

/// Messages of one batch request; bounds what a slow reader holds.
const BATCH: usize = 1_000;
/// Most bytes that are asked for at once; the server reads the number as a signed one.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// How long the next message of a batch may take.
const NEXT_TIMEOUT: Duration = API_TIMEOUT;
/// Header of a batched message: how many more match.
const HEADER_PENDING: &str = "Nats-Num-Pending";
/// The end of a batch.
const END_OF_BATCH: u16 = 204;
/// No such message.
const NOT_FOUND: u16 = 404;

/// Subjects of one request for their newest messages; the server takes a few more.
const SUBJECTS: usize = 1_000;

#[derive(Serialize)]
struct BatchRequest<'s> {
    seq: u64,
    batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<usize>,
    next_by_subj: &'s str,
}

#[derive(Serialize)]
struct OneRequest {
    seq: u64,
}

#[derive(Serialize)]
struct LastRequest<'s> {
    multi_last: &'s [String],
}

/// A sequence of messages and how many more of the subject follow in the stream.
pub(crate) struct Batch {
    pub(crate) messages: Vec<Stored>,
    pub(crate) remaining: u64,
}

/// Up to `limit` messages of one subject from a sequence on, in as many requests as it takes.
pub(crate) async fn read(
    bus: &Bus,
    stream: &str,
    subject: &str,
    from: u64,
    limit: usize,
) -> Result<Batch, ReadError> {
    let mut all = Batch {
        messages: Vec::new(),
        remaining: 0,
    };
    let mut from = from.max(1);
    while all.messages.len() < limit {
        let wanted = (limit - all.messages.len()).min(BATCH);
        let mut part = read_once(
            bus,
            stream,
            subject,
            from,
            PageLimit {
                messages: wanted,
                bytes: None,
            },
        )
        .await?;
        all.remaining = part.remaining;
        let Some(last) = part.messages.last() else {
            break;
        };
        from = last.sequence + 1;
        all.messages.append(&mut part.messages);
        if all.remaining == 0 {
            break;
        }
    }
    Ok(all)
}

/// How much one read returns at most, but at least one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit {
    /// Messages.
    pub messages: usize,
    /// Bytes of their bodies, as the server counts them: it stops once so many are reached.
    pub bytes: Option<usize>,
}

/// Messages of one subject from a sequence on, in one request.
pub(crate) async fn read_once(
    bus: &Bus,
    stream: &str,
    subject: &str,
    seq: u64,
    limit: PageLimit,
) -> Result<Batch, ReadError> {
    let request = BatchRequest {
        seq: seq.max(1),
        batch: limit.messages.min(BATCH),
        max_bytes: limit.bytes.map(|bytes| bytes.min(MAX_BYTES)),
        next_by_subj: subject,
    };
    send_direct_get(bus, stream, &request).await
}

/// The newest message of each subject that has one, in no particular order.
pub(crate) async fn last_for_subjects(
    bus: &Bus,
    stream: &str,
    subjects: &[String],
) -> Result<Vec<Stored>, ReadError> {
    let mut newest = Vec::with_capacity(subjects.len());
    for part in subjects.chunks(SUBJECTS) {
        let request = LastRequest { multi_last: part };
        newest.append(&mut send_direct_get(bus, stream, &request).await?.messages);
    }
    Ok(newest)
}

/// Whether the message with a sequence is there.
pub(crate) async fn is_stored(bus: &Bus, stream: &str, sequence: u64) -> Result<bool, ReadError> {
    let request = OneRequest { seq: sequence };
    let body = serde_json::to_vec(&request).map_err(|error| ReadError::Other(error.into()))?;
    let sent = bus
        .client()
        .request(format!("$JS.API.DIRECT.GET.{stream}"), body.into())
        .await;
    let message = sent.map_err(|error| ReadError::Other(error.into()))?;
    match message.status.map(|status| status.as_u16()) {
        None => Ok(true),
        Some(NOT_FOUND) => Ok(false),
        Some(status) => {
            let reason = message.description.unwrap_or_default();
            Err(ReadError::Other(
                format!("the server answered {status} {reason}").into(),
            ))
        }
    }
}

async fn send_direct_get(
    bus: &Bus,
    stream: &str,
    request: &impl Serialize,
) -> Result<Batch, ReadError> {
    let inbox = bus.client().new_inbox();
    let mut answers = bus
        .client()
        .subscribe(inbox.clone())
        .await
        .map_err(|error| ReadError::Other(error.into()))?;
    let body = serde_json::to_vec(request).map_err(|error| ReadError::Other(error.into()))?;
    bus.client()
        .publish_with_reply(format!("$JS.API.DIRECT.GET.{stream}"), inbox, body.into())
        .await
        .map_err(|error| ReadError::Other(error.into()))?;
    let mut read = Batch {
        messages: Vec::new(),
        remaining: 0,
    };
    loop {
        let next = timeout(NEXT_TIMEOUT, answers.next()).await;
        let message = match next {
            Ok(Some(message)) => message,
            Ok(None) => return Err(ReadError::Other("the connection was closed".into())),
            Err(elapsed) => return Err(ReadError::Other(elapsed.into())),
        };
        let pending = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get_last(HEADER_PENDING));
        if let Some(pending) = pending.and_then(|value| value.as_str().parse().ok()) {
            read.remaining = pending;
        }
        match message.status.map(|status| status.as_u16()) {
            None => read.messages.extend(Stored::from_direct_get(message)),
            Some(END_OF_BATCH | NOT_FOUND) => return Ok(read),
            Some(_) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                return Err(ReadError::NoStream);
            }
            Some(status) => {
                let reason = message.description.unwrap_or_default();
                return Err(ReadError::Other(
                    format!("the server answered {status} {reason}").into(),
                ));
            }
        }
    }
}

/// The newest message of a subject from any server that has a copy.
pub(crate) async fn last_for_subject(
    bus: &Bus,
    stream: &str,
    subject: &str,
) -> Result<Option<Stored>, ReadError> {
    let request = format!("$JS.API.DIRECT.GET.{stream}.{subject}");
    let sent = bus.client().request(request, Bytes::new()).await;
    let message = sent.map_err(|error| match error.kind() {
        async_nats::RequestErrorKind::NoResponders => ReadError::NoStream,
        async_nats::RequestErrorKind::TimedOut
        | async_nats::RequestErrorKind::InvalidSubject
        | async_nats::RequestErrorKind::MaxPayloadExceeded
        | async_nats::RequestErrorKind::Other => ReadError::Other(error.into()),
    })?;
    match message.status.map(|status| status.as_u16()) {
        None => match Stored::from_direct_get(message) {
            Some(stored) => Ok(Some(stored)),
            None => Err(ReadError::Other(
                "the answer to a direct get lacks its headers".into(),
            )),
        },
        Some(NOT_FOUND) => Ok(None),
        Some(status) => {
            let reason = message.description.unwrap_or_default();
            Err(ReadError::Other(
                format!("the server answered {status} {reason}").into(),
            ))
        }
    }
}

/// The newest message of a subject from the leader of the stream, which has every confirmed write.
pub(crate) async fn last_from_leader(
    bus: &Bus,
    stream: &str,
    subject: &str,
) -> Result<Option<Stored>, ReadError> {
    let stream = bus
        .jetstream()
        .get_stream_no_info(stream)
        .await
        .map_err(|error| ReadError::Other(error.into()))?;
    let message = match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => message,
        Err(error) => {
            return match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(reason)
                    if reason.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Err(ReadError::NoStream)
                }
                LastRawMessageErrorKind::InvalidSubject
                | LastRawMessageErrorKind::JetStream(_)
                | LastRawMessageErrorKind::Other => Err(ReadError::Other(error.into())),
            };
        }
    };
    let millis = message.time.unix_timestamp_nanos() / 1_000_000;
    Ok(Some(Stored {
        subject: message.subject.to_string(),
        sequence: message.sequence,
        at: Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)),
        is_marker: is_marker(Some(&message.headers)),
        body: message.payload,
    }))
}
