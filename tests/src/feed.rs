//! A client of server-sent events.

use std::fmt;

use eventsource_stream::{EventStreamError, Eventsource};
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::time::timeout;

use crate::TIMEOUT;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its name.
    pub event: String,
    /// Where to resume after it.
    pub id: String,
    /// Its data as JSON, or as a string.
    pub data: Value,
}

/// An open stream.
pub struct Feed(
    BoxStream<'static, Result<eventsource_stream::Event, EventStreamError<reqwest::Error>>>,
);

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}

impl Feed {
    pub(crate) async fn open(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        let kind = response.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        Self(response.bytes_stream().eventsource().boxed())
    }

    /// The next event; `None` when the server ended the stream.
    pub async fn next(&mut self) -> Option<Message> {
        let next = timeout(TIMEOUT, self.0.next())
            .await
            .expect("an event or an end in time");
        let event = next?.ok()?;
        let data = serde_json::from_str(&event.data).unwrap_or(Value::String(event.data));
        Some(Message {
            event: event.event,
            id: event.id,
            data,
        })
    }

    /// The next event with this name.
    pub async fn next_of(&mut self, event: &str) -> Option<Message> {
        loop {
            let message = self.next().await?;
            if message.event == event {
                return Some(message);
            }
        }
    }

    /// Everything with this name until the server ends the stream.
    pub async fn rest_of(mut self, event: &str) -> Vec<Message> {
        let mut all = Vec::new();
        while let Some(message) = self.next_of(event).await {
            all.push(message);
        }
        all
    }
}
