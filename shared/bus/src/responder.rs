//! Responders: exactly one reply per request, in its encoding.
//!
//! A [`Responder`] that is dropped unanswered replies INTERNAL, so that no requester waits for a deadline because of a
//! defect of ours; or that the request may be sent again, where a drop means that its owner stops leading.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::time::Timestamp;
use quintet_contract::{CONTRACT_VERSION, HEADER_CAUSE, HEADER_CONTRACT};
use serde::Serialize;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::codec::{Encoding, encode};
use crate::endpoint::Endpoint;
use crate::headers::{HEADER_ERROR, HEADER_SERVICE_ERROR, HEADER_SERVICE_ERROR_CODE, Meta};
use crate::metrics;

/// Where the answer goes.
pub(crate) struct ReplyAddress {
    pub(crate) client: Client,
    /// The requester's inbox; without one no answer is wanted.
    pub(crate) inbox: Option<async_nats::Subject>,
    /// The endpoint that keeps count.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    pub(crate) came: Instant,
}

impl ReplyAddress {
    async fn send(self, headers: HeaderMap, body: Bytes, error: Option<&ErrorReply>) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.answered(self.came.elapsed(), error);
        }
        let Some(inbox) = self.inbox else { return };
        if let Err(error) = self.client.publish_with_headers(inbox, headers, body).await {
            warn!(%error, "cannot send an answer");
        }
    }
}

/// The duty to answer one request.
#[must_use = "every request gets an answer"]
pub struct Responder<R> {
    duty: Option<Unanswered>,
    when_dropped: WhenDropped,
    reply: PhantomData<fn(R)>,
}

impl<R> fmt::Debug for Responder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

/// The reply to a request that is dropped unanswered.
#[derive(Clone, Copy)]
enum WhenDropped {
    /// It is a defect.
    Internal,
    /// Its owner stops leading: the next one can process the request.
    Retry,
}

impl WhenDropped {
    fn error(self) -> ErrorReply {
        match self {
            Self::Internal => ErrorReply::new(
                ErrorCode::Internal,
                "the request was dropped without an answer",
            ),
            Self::Retry => ErrorReply::unavailable(
                "the service is changing hands; send the same request again in a moment",
            ),
        }
    }
}

/// A reply that is ready to be sent.
pub(crate) struct Encoded {
    to: ReplyAddress,
    headers: HeaderMap,
    body: Bytes,
    error: Option<ErrorReply>,
}

impl Encoded {
    pub(crate) async fn send(self) {
        self.to
            .send(self.headers, self.body, self.error.as_ref())
            .await;
    }
}

struct Unanswered {
    to: ReplyAddress,
    encoding: Encoding,
    deadline: Option<Timestamp>,
    headers: HeaderMap,
}

impl<R> Responder<R> {
    pub(crate) fn new(to: ReplyAddress, encoding: Encoding, meta: &Meta) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_CONTRACT, CONTRACT_VERSION.to_string());
        if let Some(cause) = meta.message_id {
            headers.insert(HEADER_CAUSE, cause.to_string());
        }
        Self {
            duty: Some(Unanswered {
                to,
                encoding,
                deadline: meta.deadline,
                headers,
            }),
            when_dropped: WhenDropped::Internal,
            reply: PhantomData,
        }
    }

    /// Answers that the request failed.
    pub async fn err(mut self, error: &ErrorReply) {
        if let Some(encoded) = self.duty.take().and_then(|duty| duty.refuse(error)) {
            encoded.send().await;
        }
    }

    /// The same; dropped unanswered, it replies that the request may be sent again.
    pub(crate) fn retried_when_dropped(mut self) -> Self {
        self.when_dropped = WhenDropped::Retry;
        self
    }

    /// The same for another type of reply, which the caller knows to be the right one.
    pub(crate) fn cast<Q>(mut self) -> Responder<Q> {
        Responder {
            duty: self.duty.take(),
            when_dropped: self.when_dropped,
            reply: PhantomData,
        }
    }

    /// Whether the requester has given up waiting for the answer.
    pub fn is_late(&self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|deadline| deadline < now)
    }

    /// After this the requester no longer waits for the answer.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.duty.as_ref().and_then(|duty| duty.deadline)
    }
}

impl<R: Serialize> Responder<R> {
    /// Answers.
    pub async fn ok(self, reply: &R) {
        if let Some(encoded) = self.encode(Ok(reply)) {
            encoded.send().await;
        }
    }

    /// Encodes an answer, which may be that the request failed; none when not even that can be encoded.
    pub(crate) fn encode(mut self, outcome: Result<&R, &ErrorReply>) -> Option<Encoded> {
        let duty = self.duty.take()?;
        let reply = match outcome {
            Ok(reply) => reply,
            Err(error) => return duty.refuse(error),
        };
        match encode(reply, duty.encoding) {
            Ok(body) if body.len() > duty.to.client.max_payload() => {
                warn!(bytes = body.len(), "an answer is larger than the bus takes");
                duty.refuse(&ErrorReply::new(
                    ErrorCode::PayloadTooLarge,
                    "the answer is larger than the bus takes",
                ))
            }
            Ok(body) => Some(Encoded {
                to: duty.to,
                headers: duty.headers,
                body,
                error: None,
            }),
            Err(error) => {
                warn!(%error, "cannot encode an answer");
                duty.refuse(&error.to_reply())
            }
        }
    }
}

impl Unanswered {
    fn refuse(mut self, error: &ErrorReply) -> Option<Encoded> {
        let body = match encode(error, self.encoding) {
            Ok(body) => body,
            Err(failure) => {
                warn!(error = %failure, "cannot encode an error answer");
                return None;
            }
        };
        self.headers.insert(HEADER_ERROR, code_text(error.code));
        self.headers
            .insert(HEADER_SERVICE_ERROR, one_line(&error.error));
        self.headers.insert(
            HEADER_SERVICE_ERROR_CODE,
            error.code.http_status().to_string(),
        );
        Some(Encoded {
            to: self.to,
            headers: self.headers,
            body,
            error: Some(error.clone()),
        })
    }
}

impl<R> Drop for Responder<R> {
    fn drop(&mut self) {
        let Some(duty) = self.duty.take() else { return };
        if let WhenDropped::Internal = self.when_dropped {
            metrics::unanswered();
        }
        // Without a runtime the process is ending and the connection with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        debug!("a request was dropped unanswered");
        if let Some(encoded) = duty.refuse(&self.when_dropped.error()) {
            runtime.spawn(encoded.send());
        }
    }
}

fn code_text(code: ErrorCode) -> String {
    match serde_json::to_value(code) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(_) | Err(_) => "INTERNAL".to_owned(),
    }
}

/// Header values hold no line ends.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(512)
        .collect()
}
