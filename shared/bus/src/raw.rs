//! Raw messages: bodies that are bytes and nothing else: frames and sound, where neither codec nor headers are worth
//! their time.
//!
//! Answers are JSON: a body without an encoding does not show which one its sender reads.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use quintet_contract::frame::RawFrame;
use quintet_contract::subject::{Prefix, Request, Subject};
use tracing::debug;

use crate::codec::{Encoding, encode};
use crate::connect::Bus;
use crate::error::{PublishError, RequestError, SubscribeError};
use crate::headers::Meta;
use crate::metrics::{self, DecodeSite};
use crate::responder::Responder;
use crate::serve::RequestStream;

/// Bytes from any client.
pub struct RawIncoming<S: Request> {
    /// The subject with its fields.
    pub subject: S,
    /// The bytes.
    pub body: Bytes,
    /// The duty to answer, where an answer is wanted.
    pub responder: Option<Responder<S::Reply>>,
}

/// Bytes that come to one subject or endpoint. Cancel-safe to await: they are taken only when they are returned.
pub struct RawRequests<S> {
    requests: RequestStream,
    prefix: Prefix,
    subject: PhantomData<fn() -> S>,
}

impl<S> RawRequests<S> {
    pub(crate) fn new(requests: RequestStream, prefix: Prefix) -> Self {
        Self {
            requests,
            prefix,
            subject: PhantomData,
        }
    }
}

impl<S: Request<Message = RawFrame>> Stream for RawRequests<S> {
    type Item = RawIncoming<S>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some((message, to)) = std::task::ready!(self.requests.poll_message(context)) else {
                return Poll::Ready(None);
            };
            let Some(subject) = S::parse(&self.prefix, &message.subject) else {
                metrics::malformed(DecodeSite::Delivery);
                debug!(subject = %message.subject, "skipped a message whose subject cannot be read");
                continue;
            };
            let responder = message.reply.is_some().then(|| {
                // Read only here: frames without a requester carry nothing that matters.
                let meta = Meta::read(&message.subject, message.headers.as_ref());
                Responder::new(to, Encoding::Json, &meta)
            });
            return Poll::Ready(Some(RawIncoming {
                subject,
                body: message.payload,
                responder,
            }));
        }
    }
}

impl Bus {
    /// Subscribes to bytes: every subscriber gets all of them.
    ///
    /// # Errors
    /// [`SubscribeError`] when the connection is closed.
    pub async fn serve_raw<S: Request<Message = RawFrame>>(
        &self,
        filter: String,
    ) -> Result<RawRequests<S>, SubscribeError> {
        let requests = self.requests(filter, None).await?;
        Ok(RawRequests::new(requests, self.prefix().clone()))
    }

    /// Publishes bytes at most once, without headers.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`] for too many bytes, [`PublishError::Rejected`] when the connection is closed.
    pub async fn publish_raw<S: Subject<Message = RawFrame>>(
        &self,
        subject: &S,
        body: Bytes,
    ) -> Result<(), PublishError> {
        self.send(subject.render(self.prefix()), body).await
    }

    /// Publishes at most once as JSON and without headers, for readers that are not ours.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_json<S: Subject>(
        &self,
        subject: &S,
        message: &S::Message,
    ) -> Result<(), PublishError> {
        let body = encode(message, Encoding::Json)?;
        self.send(subject.render(self.prefix()), body).await
    }

    async fn send(&self, subject: String, body: Bytes) -> Result<(), PublishError> {
        self.check_size(&subject, body.len())?;
        let sent = self.client().publish(subject.clone(), body).await;
        sent.map_err(|error| PublishError::Rejected {
            subject,
            source: error.into(),
        })
    }

    /// Sends bytes and waits for the answer. Asks once, like [`Bus::request`].
    ///
    /// # Errors
    /// As [`Bus::request`].
    pub async fn request_raw<S: Request<Message = RawFrame>>(
        &self,
        subject: &S,
        body: Bytes,
        deadline: Duration,
    ) -> Result<S::Reply, RequestError> {
        self.send_request::<S>(subject.render(self.prefix()), body, deadline)
            .await
    }
}
