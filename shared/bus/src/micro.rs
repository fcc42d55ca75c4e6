//! NATS micro services: endpoints that `nats micro ls`, `info` and `stats` show.
//!
//! Each process registers once per service name and adds its endpoints; endpoints of the same service in
//! other processes share the queue group, so that each request reaches one of them. This speaks the
//! protocol itself (`$SRV.PING`, `$SRV.INFO`, `$SRV.STATS`), since async-nats' version drops requests that
//! are in flight when a service stops, and sends errors without a body.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::select_all;
use quintet_contract::frame::RawFrame;
use quintet_contract::subject::Request;
use quintet_contract::time::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::debug;
use uuid::Uuid;

use crate::clock::now;
use crate::connect::Bus;
use crate::endpoint::{Endpoint, QUEUE};
use crate::error::SubscribeError;
use crate::raw::RawRequests;
use crate::serve::{RequestStream, Requests};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A service that is registered until this value is dropped.
pub struct Micro {
    bus: Bus,
    identity: Arc<Identity>,
    stop: watch::Sender<bool>,
    answering: JoinHandle<()>,
}

/// The service's own description.
struct Identity {
    name: String,
    id: String,
    description: String,
    started: Timestamp,
    endpoints: Mutex<Vec<Arc<Endpoint>>>,
}

impl Identity {
    fn answer(&self, verb: Verb) -> Value {
        let endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut answer =
            json!({"name": self.name, "id": self.id, "version": VERSION, "metadata": {}});
        match verb {
            Verb::Ping => answer["type"] = "io.nats.micro.v1.ping_response".into(),
            Verb::Info => {
                answer["type"] = "io.nats.micro.v1.info_response".into();
                answer["description"] = self.description.as_str().into();
                answer["endpoints"] = endpoints.iter().map(|endpoint| endpoint.info()).collect();
            }
            Verb::Stats => {
                answer["type"] = "io.nats.micro.v1.stats_response".into();
                answer["started"] = self.started.to_string().into();
                answer["endpoints"] = endpoints.iter().map(|endpoint| endpoint.stats()).collect();
            }
        }
        answer
    }
}

#[derive(Clone, Copy)]
enum Verb {
    Ping,
    Info,
    Stats,
}

impl Verb {
    const ALL: [(Verb, &'static str); 3] = [
        (Self::Ping, "PING"),
        (Self::Info, "INFO"),
        (Self::Stats, "STATS"),
    ];
}

impl Bus {
    /// Registers a service; one per service name and process. The name holds letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// [`SubscribeError`] when the connection is closed.
    pub async fn micro(&self, name: &str, description: &str) -> Result<Micro, SubscribeError> {
        let identity = Arc::new(Identity {
            name: name.to_owned(),
            id: Uuid::now_v7().simple().to_string(),
            description: description.to_owned(),
            started: now(),
            endpoints: Mutex::default(),
        });
        let mut requests = Vec::new();
        for (verb, text) in Verb::ALL {
            let all_services = format!("$SRV.{text}");
            let namesakes = format!("{all_services}.{name}");
            let only_us = format!("{namesakes}.{}", identity.id);
            for subject in [all_services, namesakes, only_us] {
                let subscribed = self.client().subscribe(subject.clone()).await;
                let subscriber = subscribed.map_err(|error| SubscribeError {
                    filter: subject,
                    source: error.into(),
                })?;
                requests.push(subscriber.map(move |message| (verb, message)));
            }
        }
        let answering = tokio::spawn(answer(
            self.clone(),
            Arc::clone(&identity),
            select_all(requests),
        ));
        Ok(Micro {
            bus: self.clone(),
            identity,
            stop: watch::Sender::new(false),
            answering,
        })
    }
}

async fn answer(
    bus: Bus,
    identity: Arc<Identity>,
    mut requests: impl futures::Stream<Item = (Verb, async_nats::Message)> + Unpin,
) {
    while let Some((verb, request)) = requests.next().await {
        let Some(inbox) = request.reply else {
            continue;
        };
        let answer = identity.answer(verb).to_string();
        if let Err(error) = bus.client().publish(inbox, answer.into()).await {
            debug!(%error, "answering a request about a service failed");
        }
    }
}

impl Micro {
    /// Serves a subject under a name that is unique within the service.
    ///
    /// # Errors
    /// [`SubscribeError`] when the connection is closed.
    pub async fn endpoint<S: Request>(
        &self,
        name: &str,
        subject: &S,
    ) -> Result<Requests<S>, SubscribeError> {
        let requests = self.requests(name, subject).await?;
        Ok(Requests::new(requests, self.bus.prefix().clone()))
    }

    /// Serves a subject whose requests are bytes, like [`Micro::endpoint`].
    ///
    /// # Errors
    /// [`SubscribeError`] when the connection is closed.
    pub async fn raw_endpoint<S: Request<Message = RawFrame>>(
        &self,
        name: &str,
        subject: &S,
    ) -> Result<RawRequests<S>, SubscribeError> {
        let requests = self.requests(name, subject).await?;
        Ok(RawRequests::new(requests, self.bus.prefix().clone()))
    }

    async fn requests<S: Request>(
        &self,
        name: &str,
        subject: &S,
    ) -> Result<RequestStream, SubscribeError> {
        let subject = subject.render(self.bus.prefix());
        let endpoint = Arc::new(Endpoint::new(name, &subject));
        let requests = self.bus.requests(subject, Some(QUEUE)).await?;
        self.identity
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&endpoint));
        Ok(requests.of_micro(endpoint, self.stop.subscribe()))
    }

    /// Takes the service off the bus; its endpoints end after the requests that were in flight, so they
    /// must still be read. Dropping the service does the same.
    pub async fn stop(self) {
        drop(self);
    }
}

impl Drop for Micro {
    fn drop(&mut self) {
        self.answering.abort();
        self.stop.send_replace(true);
    }
}
