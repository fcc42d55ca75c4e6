//! Publishing without a reply: at most once ([`Bus::publish`]) or stored ([`Bus::store`]).

use std::error::Error as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use async_nats::jetstream::context::{PublishError as AckError, PublishErrorKind as AckErrorKind};
use async_nats::jetstream::{Error as JetStreamError, ErrorCode};
use futures::future::BoxFuture;
use quintet_contract::subject::Subject;

use crate::codec::{Encoding, encode};
use crate::connect::Bus;
use crate::error::PublishError;
use crate::headers;

/// A message in flight into a stream; resolves to its sequence. Dropping it does not take the message back.
#[must_use = "await it to know whether the message is stored"]
pub struct PendingStore(BoxFuture<'static, Result<u64, PublishError>>);

impl Future for PendingStore {
    type Output = Result<u64, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl Bus {
    /// Publishes at most once: present subscribers get it.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`] and [`PublishError::Codec`] for a message that cannot be sent, [`PublishError::Rejected`] when
    /// the connection is closed.
    pub async fn publish<S: Subject>(
        &self,
        subject: &S,
        message: &S::Message,
    ) -> Result<(), PublishError> {
        let subject = subject.render(self.prefix());
        let body = encode(message, Encoding::MessagePack)?;
        self.check_size(&subject, body.len())?;
        let headers = headers::outgoing(self.cause());
        self.client()
            .publish_with_headers(subject.clone(), headers, body)
            .await
            .map_err(|error| PublishError::Rejected {
                subject,
                source: error.into(),
            })
    }

    /// Publishes into a stream, with a time to live where given. Returns once the message is in flight, so
    /// that several can be pipelined; they are stored in the order of the calls.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`] and [`PublishError::Codec`] for a message that cannot be sent. What it resolves to:
    /// [`PublishError::Unanswered`] when it may or may not be stored, [`PublishError::NoStream`] when no stream takes it.
    pub async fn store<S: Subject>(
        &self,
        subject: &S,
        message: &S::Message,
        ttl: Option<Duration>,
    ) -> Result<PendingStore, PublishError> {
        let mut headers = headers::outgoing(self.cause());
        if let Some(ttl) = ttl {
            headers.insert(NATS_MESSAGE_TTL, headers::ttl_text(ttl));
        }
        self.send_to_stream(subject, message, Encoding::MessagePack, headers)
            .await
    }

    /// Publishes into a stream as JSON, for readers that are not ours. Otherwise like [`Bus::store`].
    ///
    /// # Errors
    /// As [`Bus::store`].
    pub async fn store_json<S: Subject>(
        &self,
        subject: &S,
        message: &S::Message,
    ) -> Result<PendingStore, PublishError> {
        let headers = headers::outgoing(self.cause());
        self.send_to_stream(subject, message, Encoding::Json, headers)
            .await
    }

    /// Publishes into a stream if the newest message of the subject there has the sequence `last`, zero for none; else
    /// it resolves to [`PublishError::Conflict`].
    ///
    /// # Errors
    /// As [`Bus::store`]; it resolves to [`PublishError::Conflict`] when another message is the newest of the subject.
    pub async fn append<S: Subject>(
        &self,
        subject: &S,
        message: &S::Message,
        last: u64,
    ) -> Result<PendingStore, PublishError> {
        let mut headers = headers::outgoing(self.cause());
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string());
        self.send_to_stream(subject, message, Encoding::MessagePack, headers)
            .await
    }

    async fn send_to_stream<S: Subject>(
        &self,
        subject: &S,
        message: &S::Message,
        encoding: Encoding,
        headers: HeaderMap,
    ) -> Result<PendingStore, PublishError> {
        let subject = subject.render(self.prefix());
        let body = encode(message, encoding)?;
        self.check_size(&subject, body.len())?;
        let sent = self
            .jetstream()
            .publish_with_headers(subject.clone(), headers, body)
            .await;
        let confirmation = sent.map_err(|error| failed(subject.clone(), error))?;
        Ok(PendingStore(Box::pin(async move {
            confirmation
                .await
                .map(|stored| stored.sequence)
                .map_err(|error| failed(subject, error))
        })))
    }

    pub(crate) fn check_size(&self, subject: &str, bytes: usize) -> Result<(), PublishError> {
        let limit = self.max_payload();
        if bytes > limit {
            return Err(PublishError::TooLarge {
                subject: subject.to_owned(),
                bytes,
                limit,
            });
        }
        Ok(())
    }
}

/// Whether the server itself has failed, such as for want of room, and the message is not to blame. What the server
/// answers is a status as of HTTP; the limits of an account are a 400, although they concern all of its messages.
pub(crate) fn is_server_failure(error: &AckError) -> bool {
    let answer = error
        .source()
        .and_then(|source| source.downcast_ref::<JetStreamError>());
    answer.is_some_and(|answer| {
        answer.code() >= 500 || answer.error_code() == ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
    })
}

pub(crate) fn failed(subject: String, error: AckError) -> PublishError {
    if is_server_failure(&error) {
        return PublishError::Unanswered {
            subject,
            source: error.into(),
        };
    }
    match error.kind() {
        AckErrorKind::StreamNotFound => PublishError::NoStream { subject },
        AckErrorKind::TimedOut | AckErrorKind::BrokenPipe => PublishError::Unanswered {
            subject,
            source: error.into(),
        },
        AckErrorKind::WrongLastSequence => PublishError::Conflict { subject },
        AckErrorKind::WrongLastMessageId
        | AckErrorKind::MaxAckPending
        | AckErrorKind::MaxPayloadExceeded
        | AckErrorKind::Other => PublishError::Rejected {
            subject,
            source: error.into(),
        },
    }
}
