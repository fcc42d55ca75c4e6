//! The inbox of a leader: the endpoints that it serves, and everything that arrives on the bus, as events of its core.

use std::convert::Infallible;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use quintet_bus::pending::{InboundRequest, accept};
use quintet_bus::{Bus, Micro};
use quintet_contract::error::ErrorReply;
use quintet_contract::reply::RequestId;
use quintet_contract::subject::Request;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::error::Error;

/// An endpoint closes when no request has come for so long: a client of NATS that drains a subscription loses what is on its
/// way to it.
const QUIET: Duration = Duration::from_millis(50);
/// An endpoint that is always busy closes after so long.
const QUIET_TIMEOUT: Duration = Duration::from_millis(300);
/// How long requests that are in flight to an endpoint that closes may take to arrive.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// Each endpoint holds a clone until it has ended.
    open: mpsc::Sender<Infallible>,
    /// Ends when every endpoint has.
    closed: mpsc::Receiver<Infallible>,
    /// What arrives.
    pub messages: Messages<E>,
}

impl<E: Send + 'static> Inbox<E> {
    /// An inbox without endpoints; `name` is the service's, for spans.
    pub fn new(bus: &Bus, name: &'static str) -> Self {
        let (open, closed) = mpsc::channel(1);
        Self {
            bus: bus.clone(),
            name,
            micros: Vec::new(),
            open,
            closed,
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
        self.add_endpoint(
            requests
                .filter_map(move |incoming| {
                    let request = accept(incoming, name, operation, event.clone());
                    std::future::ready(request.map(Message::Request))
                })
                .boxed(),
        );
        Ok(())
    }

    /// Adds requests of an endpoint of [`Inbox::micro`], which end with it.
    pub fn add_endpoint(&mut self, requests: BoxStream<'static, Message<E>>) {
        let open = self.open.clone();
        let requests = requests.inspect(move |_| {
            let _held_until_it_ends = &open;
        });
        self.messages.push(requests.boxed());
    }

    /// Adds messages of a subscription, which continues until the inbox is dropped.
    pub fn add(&mut self, messages: BoxStream<'static, Message<E>>) {
        self.messages.push(messages);
    }

    /// Waits until the server has every subscription: a request that is sent as soon as the owner is ready finds it.
    /// Without an answer of the server in time it serves nevertheless; requests come when the connection is back.
    pub(crate) async fn subscribed(&mut self) {
        if timeout(CLOSE_TIMEOUT, self.bus.flush()).await.is_err() {
            debug!("the server does not confirm the subscriptions");
        }
    }

    /// Takes the endpoints off the bus, and rejects every request that is still waiting or in flight.
    pub async fn close(self, why: &ErrorReply) {
        let Self {
            micros,
            open,
            mut closed,
            mut messages,
            bus,
            ..
        } = self;
        let _still_busy = timeout(QUIET_TIMEOUT, reject_until_quiet(&mut messages, why)).await;
        for micro in micros {
            micro.stop().await;
        }
        drop(open);
        let rejecting = async {
            loop {
                tokio::select! {
                    biased;
                    Some(message) = messages.next() => message.reject(why).await,
                    _ = closed.recv() => return,
                }
            }
        };
        if timeout(CLOSE_TIMEOUT, rejecting).await.is_err() {
            debug!("the endpoints did not end in time");
        }
        // The process may end next.
        if timeout(CLOSE_TIMEOUT, bus.flush()).await.is_err() {
            debug!("the last rejections may not be sent");
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

/// Rejects requests until none has come for a while.
async fn reject_until_quiet<E>(messages: &mut Messages<E>, why: &ErrorReply) {
    let mut quiet_at = Instant::now() + QUIET;
    loop {
        tokio::select! {
            biased;
            Some(message) = messages.next() => if let Message::Request(request) = message {
                request.reject(why).await;
                quiet_at = Instant::now() + QUIET;
            },
            () = sleep_until(quiet_at) => return,
        }
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
