//! The inbox of a leader: the endpoints that it serves, and everything that arrives on the bus, as events of its core.

use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use quintet_bus::pending::{InboundRequest, accept};
use quintet_bus::{Bus, Micro};
use quintet_contract::error::ErrorReply;
use quintet_contract::reply::RequestId;
use quintet_contract::subject::Request;

use crate::error::Error;

/// One message.
pub enum Message<E> {
    /// A request, to be answered once.
    Request(InboundRequest<E>),
    /// Something that needs no reply.
    Notice(E),
}

/// Messages as the event loop takes them.
pub type Messages<E> = SelectAll<BoxStream<'static, Message<E>>>;

/// Endpoints and subscriptions of one leader.
pub struct Inbox<E> {
    bus: Bus,
    name: &'static str,
    micros: Vec<Micro>,
    /// What arrives.
    pub messages: Messages<E>,
}

impl<E: Send + 'static> Inbox<E> {
    /// An inbox without endpoints; `name` is the service's, for spans.
    pub fn new(bus: &Bus, name: &'static str) -> Self {
        Self {
            bus: bus.clone(),
            name,
            micros: Vec::new(),
            messages: SelectAll::new(),
        }
    }

    /// The bus.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Opens a micro service; the endpoints that are added next belong to it.
    ///
    /// # Errors
    /// When the bus refuses the subscription.
    pub async fn service(
        &mut self,
        name: &'static str,
        description: &str,
    ) -> Result<&Micro, Error> {
        let micro = self.bus.micro(name, description).await;
        self.micros.push(micro.map_err(Error::subscribing(name))?);
        Ok(self.micro())
    }

    /// The micro service that was opened last.
    pub fn micro(&self) -> &Micro {
        self.micros
            .last()
            .expect("a service is opened before its endpoints")
    }

    /// Opens an endpoint whose requests become events, each in a span of its own. Requests that came too late are dropped.
    ///
    /// # Errors
    /// When the bus refuses the subscription.
    pub async fn endpoint<S>(
        &mut self,
        operation: &'static str,
        subject: &S,
        event: impl Fn(RequestId<S::Reply>, S::Message) -> E + Clone + Send + Sync + 'static,
    ) -> Result<(), Error>
    where
        S: Request,
        S::Reply: 'static,
        S::Message: Send + 'static,
    {
        let requests = self.micro().endpoint(operation, subject).await;
        let requests = requests.map_err(Error::subscribing(operation))?;
        let name = self.name;
        self.messages.push(
            requests
                .filter_map(move |incoming| {
                    let request = accept(incoming, name, operation, event.clone());
                    std::future::ready(request.map(Message::Request))
                })
                .boxed(),
        );
        Ok(())
    }

    /// Adds messages of a subscription.
    pub fn add(&mut self, messages: BoxStream<'static, Message<E>>) {
        self.messages.push(messages);
    }

    /// Takes the endpoints off the bus, and rejects every request that is still waiting.
    pub async fn close(mut self, why: &ErrorReply) {
        for micro in self.micros.drain(..) {
            micro.stop().await;
        }
        while let Some(Some(message)) = self.messages.next().now_or_never() {
            message.reject(why).await;
        }
    }

    /// Parts messages from endpoints, so that they can be taken in chunks; see [`Inbox::join`].
    pub(crate) fn part(self) -> (Self, Messages<E>) {
        let messages = self.messages;
        let rest = Self {
            messages: SelectAll::new(),
            ..self
        };
        (rest, messages)
    }

    pub(crate) fn join(self, messages: Messages<E>) -> Self {
        Self { messages, ..self }
    }
}

impl<E> Message<E> {
    /// Replies to a request that it was not processed, and why.
    pub async fn reject(self, why: &ErrorReply) {
        match self {
            Self::Request(request) => request.reject(why).await,
            Self::Notice(_) => {}
        }
    }
}
