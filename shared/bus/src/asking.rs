//! Between requests on the bus and a core that knows nothing of the bus: whoever asks waits under a number until the core
//! has an answer.
//!
//! A service names its kinds of answers with [`waiting!`](crate::waiting), says how each is given ([`Answering`]), and keeps
//! [`Askers`]. Everybody is answered: by the core, or turned away.

use std::collections::HashMap;
use std::hash::Hash;

use quintet_contract::error::ErrorCode;
use quintet_contract::subject::Request;
use serde::Serialize;
use tracing::Span;

#[doc(hidden)]
pub use quintet_contract::error::ErrorReply;

use crate::clock::now;
#[doc(hidden)]
pub use crate::responder::Responder;
use crate::serve::Incoming;

/// Defines `Waiting`, the duty to answer, with a variant for every kind of answer.
#[macro_export]
macro_rules! waiting {
    ($($variant:ident($reply:ty)),* $(,)?) => {
        /// The duty to answer, by kind of answer.
        pub(crate) enum Waiting {
            $(
                #[doc = concat!("`", stringify!($reply), "`.")]
                $variant($crate::asking::Responder<$reply>)
            ),*
        }

        impl $crate::asking::Refusing for Waiting {
            async fn refuse(self, error: &$crate::asking::ErrorReply) {
                match self {
                    $(Self::$variant(responder) => responder.err(error).await),*
                }
            }
        }

        $(impl From<$crate::asking::Responder<$reply>> for Waiting {
            fn from(responder: $crate::asking::Responder<$reply>) -> Self {
                Self::$variant(responder)
            }
        })*
    };
}

/// A duty to answer that can be met by saying no.
pub trait Refusing: Sized + Send {
    /// Says no.
    fn refuse(self, error: &ErrorReply) -> impl Future<Output = ()> + Send;
}

/// A duty to answer that can be met by what a core says.
pub trait Answering: Refusing {
    /// What a core says.
    type Answer: Send;

    /// Gives it.
    fn answer(self, answer: Self::Answer) -> impl Future<Output = ()> + Send;
}

/// Says that a core answered something else than was asked, which is a defect of ours.
pub async fn misfit(waiting: impl Refusing, service: &str) {
    tracing::error!(service, "the core answered something else than was asked");
    let text = format!("the {service} answered something else than was asked; this is a defect");
    let error = ErrorReply::new(ErrorCode::Internal, text);
    waiting.refuse(&error).await;
}

/// Somebody who waits for an answer, and the span in which it is given.
#[derive(Debug)]
pub struct Asker<W> {
    waiting: W,
    span: Span,
}

impl<W> Asker<W> {
    /// Somebody who waits.
    pub fn new(waiting: impl Into<W>, span: Span) -> Self {
        Self {
            waiting: waiting.into(),
            span,
        }
    }
}

impl<W: Refusing> Asker<W> {
    /// Says that it was not done, and why.
    pub async fn turn_away(self, why: &ErrorReply) {
        let _given_in = self.span;
        self.waiting.refuse(why).await;
    }
}

impl<W: Answering> Asker<W> {
    /// Gives the core's answer.
    pub async fn answer(self, answer: W::Answer) {
        let _given_in = self.span;
        self.waiting.answer(answer).await;
    }
}

/// One message: what to tell the core once it has a number, and who waits.
pub struct Inbound<I, W, E> {
    make: Box<dyn FnOnce(I) -> E + Send>,
    asker: Asker<W>,
}

impl<I, W, E> Inbound<I, W, E> {
    /// A message of somebody who waits.
    pub fn new(asker: Asker<W>, make: impl FnOnce(I) -> E + Send + 'static) -> Self {
        Self {
            make: Box::new(make),
            asker,
        }
    }
}

impl<I, W: Refusing, E> Inbound<I, W, E> {
    /// Says that it was not even looked at, and why.
    pub async fn turn_away(self, why: &ErrorReply) {
        self.asker.turn_away(why).await;
    }
}

/// Those who wait, by the number that the core knows them by.
#[derive(Debug)]
pub struct Askers<I, W> {
    waiting: HashMap<I, Asker<W>>,
    next: u64,
}

impl<I, W> Default for Askers<I, W> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            next: 0,
        }
    }
}

impl<I: From<u64> + Copy + Eq + Hash, W: Refusing> Askers<I, W> {
    /// Takes a message in; the event is for the core.
    pub fn enter<E>(&mut self, inbound: Inbound<I, W, E>) -> E {
        let id = I::from(self.next);
        self.next += 1;
        self.waiting.insert(id, inbound.asker);
        (inbound.make)(id)
    }

    /// Whoever waits under a number; nobody does after that.
    pub fn take(&mut self, id: I) -> Option<Asker<W>> {
        self.waiting.remove(&id)
    }

    /// Says to everybody that it was not done, and why.
    pub async fn turn_all_away(&mut self, why: &ErrorReply) {
        for (_, asker) in self.waiting.drain() {
            asker.turn_away(why).await;
        }
    }
}

/// Whether nobody waits for a request any more: then it is dropped, which answers it too.
pub fn is_late<S: Request>(incoming: &Incoming<S>) -> bool
where
    S::Reply: Serialize,
{
    incoming.responder.is_late(now())
}

/// Takes a request to an operation of a service in, unless nobody waits for it any more.
pub fn asked<S, I, W, E>(
    incoming: Incoming<S>,
    service: &'static str,
    operation: &'static str,
    event: impl FnOnce(I, S::Message) -> E + Send + 'static,
) -> Option<Inbound<I, W, E>>
where
    S: Request,
    S::Reply: Serialize,
    W: From<Responder<S::Reply>>,
{
    if is_late(&incoming) {
        return None;
    }
    let span = incoming.span(service);
    tracing::debug!(parent: &span, operation, "asked");
    let message = incoming.message;
    let asker = Asker::new(incoming.responder, span);
    Some(Inbound::new(asker, move |id| event(id, message)))
}
