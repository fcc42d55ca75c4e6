//! Receiving: plain subscriptions and requests, decoded and with what travelled beside them.
//!
//! What cannot be read never reaches a service: deliveries are counted and skipped, requests are answered
//! BAD_REQUEST. Both streams end only when the connection closes or the service stops.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_nats::{Client, Subscriber};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::subject::{Prefix, Request, Subject};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Span, debug, info_span};

use crate::codec::{Encoding, decode};
use crate::connect::Bus;
use crate::endpoint::Endpoint;
use crate::error::SubscribeError;
use crate::headers::Meta;
use crate::metrics::{self, DecodeSite};
use crate::responder::{ReplyAddress, Responder};
use crate::trace;

/// A message that came by subscription.
pub struct Delivery<S: Subject> {
    /// The subject with its fields.
    pub subject: S,
    /// The message.
    pub message: S::Message,
    /// What travelled beside it.
    pub meta: Meta,
}

/// A request, with the duty to answer it.
pub struct Incoming<S: Request> {
    /// The subject with its fields.
    pub subject: S,
    /// The request.
    pub message: S::Message,
    /// What travelled beside it.
    pub meta: Meta,
    /// The duty to answer.
    pub responder: Responder<S::Reply>,
}

impl<S: Subject> Delivery<S> {
    /// A span for the handling of this message, a child of the sender's.
    pub fn span(&self, name: &'static str) -> Span {
        span(name, &self.meta)
    }
}

impl<S: Request> Incoming<S> {
    /// A span for the handling of this request, a child of the sender's.
    pub fn span(&self, name: &'static str) -> Span {
        span(name, &self.meta)
    }

    /// The `traceparent` of what this request causes: of its span, else of its sender, else of a trace that begins here.
    pub fn traceparent(&self, span: &Span) -> String {
        let of_span = span.in_scope(trace::current_traceparent);
        of_span
            .or_else(|| self.meta.traceparent.clone())
            .unwrap_or_else(trace::new_traceparent)
    }
}

fn span(name: &'static str, meta: &Meta) -> Span {
    let span = info_span!("bus", otel.name = name, subject = %meta.raw_subject, message_id = tracing::field::Empty);
    if let Some(id) = meta.message_id {
        span.record("message_id", tracing::field::display(id));
    }
    trace::adopt(&span, meta.traceparent.as_deref());
    span
}

/// Messages of one subscription. Cancel-safe to await: a message is taken only when it is returned.
pub struct Deliveries<S> {
    subscriber: Subscriber,
    prefix: Prefix,
    subject: PhantomData<fn() -> S>,
}

impl<S: Subject> Stream for Deliveries<S> {
    type Item = Delivery<S>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(message) = std::task::ready!(self.subscriber.poll_next_unpin(context)) else {
                return Poll::Ready(None);
            };
            let meta = Meta::read(&message.subject, message.headers.as_ref());
            match read::<S>(&self.prefix, &message) {
                Ok((subject, message, _)) => {
                    return Poll::Ready(Some(Delivery {
                        subject,
                        message,
                        meta,
                    }));
                }
                Err(reply) => {
                    metrics::malformed(DecodeSite::Delivery);
                    debug!(subject = %meta.raw_subject, reason = %reply.error, "skipped a malformed message");
                }
            }
        }
    }
}

/// Requests to one endpoint. Cancel-safe to await: a request is taken only when it is returned.
pub struct Requests<S> {
    requests: RequestStream,
    prefix: Prefix,
    subject: PhantomData<fn() -> S>,
}

/// Incoming messages for a responder.
pub(crate) struct RequestStream {
    subscriber: Subscriber,
    client: Client,
    endpoint: Option<Arc<Endpoint>>,
    stop: Stop,
}

/// Whether the service of an endpoint has stopped.
enum Stop {
    /// It has not; the future resolves when it does.
    Awaited(BoxFuture<'static, ()>),
    /// It has, and the subscription must be drained.
    Drain,
    /// Nothing more to do.
    Done,
}

impl<S> Requests<S> {
    pub(crate) fn new(requests: RequestStream, prefix: Prefix) -> Self {
        Self {
            requests,
            prefix,
            subject: PhantomData,
        }
    }
}

impl RequestStream {
    /// Makes this the endpoint of a service: counted, and ended with it.
    pub(crate) fn of_micro(
        mut self,
        endpoint: Arc<Endpoint>,
        mut stop: watch::Receiver<bool>,
    ) -> Self {
        self.endpoint = Some(endpoint);
        self.stop = Stop::Awaited(Box::pin(async move {
            // An error means that the service is gone, which stops it as well.
            let _ = stop.wait_for(|stop| *stop).await;
        }));
        self
    }

    /// The next message, and where its answer goes.
    pub(crate) fn poll_message(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<(async_nats::Message, ReplyAddress)>> {
        self.poll_stop(context);
        let message = std::task::ready!(self.subscriber.poll_next_unpin(context));
        Poll::Ready(message.map(|message| {
            let to = ReplyAddress {
                client: self.client.clone(),
                inbox: message.reply.clone(),
                endpoint: self.endpoint.clone(),
                came: Instant::now(),
            };
            (message, to)
        }))
    }

    fn poll_stop(&mut self, context: &mut Context<'_>) {
        if let Stop::Awaited(stop) = &mut self.stop
            && stop.as_mut().poll(context).is_ready()
        {
            self.stop = Stop::Drain;
        }
        if let Stop::Drain = self.stop {
            // The order is only queued here; when the queue is full it is tried again at once.
            match self.subscriber.drain().now_or_never() {
                Some(_) => self.stop = Stop::Done,
                None => context.waker().wake_by_ref(),
            }
        }
    }
}

impl<S: Request> Stream for Requests<S> {
    type Item = Incoming<S>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some((message, to)) = std::task::ready!(self.requests.poll_message(context)) else {
                return Poll::Ready(None);
            };
            let meta = Meta::read(&message.subject, message.headers.as_ref());
            match read::<S>(&self.prefix, &message) {
                Ok((subject, message, encoding)) => {
                    let responder = Responder::new(to, encoding, &meta);
                    return Poll::Ready(Some(Incoming {
                        subject,
                        message,
                        meta,
                        responder,
                    }));
                }
                Err(reply) => {
                    metrics::malformed(DecodeSite::Request);
                    debug!(subject = %meta.raw_subject, reason = %reply.error, "refused a malformed request");
                    let encoding = Encoding::of(&message.payload);
                    let responder = Responder::<S::Reply>::new(to, encoding, &meta);
                    tokio::spawn(async move { responder.err(&reply).await });
                }
            }
        }
    }
}

fn read<S: Subject>(
    prefix: &Prefix,
    message: &async_nats::Message,
) -> Result<(S, S::Message, Encoding), ErrorReply> {
    let subject = S::parse(prefix, &message.subject).ok_or_else(|| {
        ErrorReply::new(
            ErrorCode::BadRequest,
            format!("{} does not fit {}", message.subject, S::PATTERN),
        )
    })?;
    let (body, encoding) = decode(&message.payload).map_err(|error| error.to_reply())?;
    Ok((subject, body, encoding))
}

impl Bus {
    /// Subscribes: every subscriber gets every message.
    ///
    /// # Errors
    /// [`SubscribeError`] when the connection is closed.
    pub async fn subscribe<S: Subject>(
        &self,
        filter: String,
    ) -> Result<Deliveries<S>, SubscribeError> {
        let subscriber = self
            .client()
            .subscribe(filter.clone())
            .await
            .map_err(|error| SubscribeError {
                filter,
                source: error.into(),
            })?;
        Ok(Deliveries {
            subscriber,
            prefix: self.prefix().clone(),
            subject: PhantomData,
        })
    }

    /// Serves requests; with a queue name each goes to one of the subscribers that share it.
    ///
    /// # Errors
    /// [`SubscribeError`] when the connection is closed.
    pub async fn serve<S: Request>(
        &self,
        filter: String,
        queue: Option<&str>,
    ) -> Result<Requests<S>, SubscribeError> {
        let requests = self.requests(filter, queue).await?;
        Ok(Requests::new(requests, self.prefix().clone()))
    }

    pub(crate) async fn requests(
        &self,
        filter: String,
        queue: Option<&str>,
    ) -> Result<RequestStream, SubscribeError> {
        let subscribed = match queue {
            Some(queue) => {
                self.client()
                    .queue_subscribe(filter.clone(), queue.to_owned())
                    .await
            }
            None => self.client().subscribe(filter.clone()).await,
        };
        let subscriber = subscribed.map_err(|error| SubscribeError {
            filter,
            source: error.into(),
        })?;
        Ok(RequestStream {
            subscriber,
            client: self.client().clone(),
            endpoint: None,
            stop: Stop::Done,
        })
    }
}
