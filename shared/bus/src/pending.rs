//! Pending replies: what connects requests on the bus with a core that knows nothing of the bus.
//!
//! ```text
//!   request ── accept ──▶ InboundRequest ── PendingReplies::enter ──▶ event with a RequestId<R>
//!                               │                                        │ core
//!                             reject                                     ▼
//!   reply  ◀────────────────── PendingReplies::send ◀──────── RequestId<R>::reply(R or error)
//! ```
//!
//! The type of a [`RequestId`] is the reply type of the request's subject, and a [`Reply`] is made only from an id and an
//! outcome of its type: code that gives a request a reply of another type does not compile.
//!
//! Every request gets a reply. One that is dropped here, because its owner stops leading, is rejected as retryable.

use std::collections::HashMap;

use quintet_contract::error::ErrorReply;
use quintet_contract::reply::{AnyReply, Reply, ReplySink, RequestId};
use quintet_contract::subject::Request;
use serde::Serialize;
use tracing::Span;

use crate::clock::now;
use crate::responder::{Encoded, Responder};
use crate::serve::Incoming;

/// A request that waits for its reply of type `R`, and the span in which the reply is sent.
#[derive(Debug)]
#[must_use = "every request gets a reply"]
pub struct PendingReply<R> {
    responder: Responder<R>,
    span: Span,
}

/// The type of a reply that only its [`RequestId`] knows.
#[derive(Debug)]
enum Untyped {}

impl<R> PendingReply<R> {
    /// A request that waits. Dropped, it is rejected as retryable.
    pub fn new(responder: Responder<R>, span: Span) -> Self {
        Self {
            responder: responder.retried_when_dropped(),
            span,
        }
    }

    /// Replies that the request failed.
    pub async fn reject(self, error: &ErrorReply) {
        let _sent_in = self.span;
        self.responder.err(error).await;
    }

    fn cast<Q>(self) -> PendingReply<Q> {
        PendingReply {
            responder: self.responder.cast(),
            span: self.span,
        }
    }
}

impl<R: Serialize> PendingReply<R> {
    /// Sends the reply.
    pub async fn reply(self, outcome: Result<R, ErrorReply>) {
        let _sent_in = self.span;
        match outcome {
            Ok(reply) => self.responder.ok(&reply).await,
            Err(error) => self.responder.err(&error).await,
        }
    }
}

/// A request that waits for a number, and what event it is then.
pub struct InboundRequest<E> {
    make: Box<dyn FnOnce(u64) -> E + Send>,
    pending: PendingReply<Untyped>,
}

impl<E> InboundRequest<E> {
    /// A request that becomes an event once it has an id.
    pub fn new<R: 'static>(
        pending: PendingReply<R>,
        make: impl FnOnce(RequestId<R>) -> E + Send + 'static,
    ) -> Self {
        Self {
            make: Box::new(move |number| make(RequestId::new(number))),
            pending: pending.cast(),
        }
    }

    /// Replies that the request was not processed, and why.
    pub async fn reject(self, error: &ErrorReply) {
        self.pending.reject(error).await;
    }
}

/// The requests that wait for their reply, by number.
#[derive(Debug, Default)]
pub struct PendingReplies {
    pending: HashMap<u64, PendingReply<Untyped>>,
    next: u64,
}

impl PendingReplies {
    /// Gives a request its id; the event is for the core.
    pub fn enter<E>(&mut self, request: InboundRequest<E>) -> E {
        let number = self.next;
        self.next += 1;
        self.pending.insert(number, request.pending);
        (request.make)(number)
    }

    /// Takes a request out, to reply to it elsewhere; none when it has its reply.
    pub fn take<R>(&mut self, id: RequestId<R>) -> Option<PendingReply<R>> {
        // Ids are made by `enter` alone, with the reply type of the request.
        self.pending.remove(&id.number()).map(PendingReply::cast)
    }

    /// Sends a reply of the core.
    pub async fn send<A: AnyReply>(&mut self, reply: Reply<A>) {
        let (to, answer) = reply.into_parts();
        let Some(PendingReply { responder, span }) = self.pending.remove(&to) else {
            return;
        };
        let _sent_in = span;
        if let Some(encoded) = answer.outcome(responder) {
            encoded.send().await;
        }
    }

    /// Replies to all requests that they were not processed, and why.
    pub async fn reject_all(&mut self, error: &ErrorReply) {
        for (_, pending) in self.pending.drain() {
            pending.reject(error).await;
        }
    }
}

impl ReplySink for Responder<Untyped> {
    type Output = Option<Encoded>;

    fn take<R: Serialize>(self, outcome: Result<&R, &ErrorReply>) -> Self::Output {
        self.cast::<R>().encode(outcome)
    }
}

/// Whether the deadline of a request is over: then it is dropped, and its requester does not wait for the reply.
pub fn is_late<S: Request>(incoming: &Incoming<S>) -> bool {
    incoming.responder.is_late(now())
}

/// Accepts a request to an operation of a service, unless its deadline is over.
pub fn accept<S, E>(
    incoming: Incoming<S>,
    service: &'static str,
    operation: &'static str,
    event: impl FnOnce(RequestId<S::Reply>, S::Message) -> E + Send + 'static,
) -> Option<InboundRequest<E>>
where
    S: Request,
    S::Reply: 'static,
    S::Message: Send + 'static,
{
    if is_late(&incoming) {
        return None;
    }
    let span = incoming.span(service);
    tracing::debug!(parent: &span, operation, "accepted a request");
    let message = incoming.message;
    let pending = PendingReply::new(incoming.responder, span);
    Some(InboundRequest::new(pending, move |id| event(id, message)))
}
