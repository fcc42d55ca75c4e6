//! The client's side of HTTP: JSON in and out, failures as sentences with the exit code they deserve.

use anyhow::Context;
use eventsource_stream::Eventsource;
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;

use crate::args::Global;
use crate::exit::{self, Failure};

/// A client of one edge.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: Client,
    base: String,
    token: Option<String>,
}

/// One server-sent event.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

/// A stream of events.
pub(crate) struct Sse(BoxStream<'static, anyhow::Result<Message>>);

impl Http {
    pub(crate) fn new(base: &str, token: Option<String>) -> anyhow::Result<Self> {
        let base = base.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            let text = format!("{base:?} is no address of an edge, such as http://127.0.0.1:8080");
            return Err(Failure::new(exit::USAGE, text).into());
        }
        Ok(Self {
            client: Client::builder().build().context("cannot set up HTTP")?,
            base,
            token,
        })
    }

    pub(crate) fn of(global: &Global) -> anyhow::Result<Self> {
        Self::new(&global.url, global.token.clone())
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; an answer that says no is a failure.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap_or_default();
        let sentence = body["error"]
            .as_str()
            .unwrap_or("the server gave no reason");
        let code = if status == 404 {
            exit::NOT_FOUND
        } else {
            exit::REFUSED
        };
        let id = body["requestId"]
            .as_str()
            .map(|id| format!(" (status {status}, request {id})"))
            .unwrap_or_default();
        Err(Failure::new(code, format!("{sentence}{id}")).into())
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let text = format!(
            "cannot reach {}; is it running (`quintet up`), and is --url right? {}",
            self.base,
            quintet_service::telemetry::chain(error)
        );
        Failure::new(exit::UNREACHABLE, text).into()
    }

    async fn json(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = self.send(request).await?;
        response.json().await.context("the answer is not JSON")
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.json(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn order(&self, path: &str) -> anyhow::Result<Value> {
        self.json(self.request(Method::POST, path)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(self.request(Method::PUT, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.json(self.request(Method::DELETE, path)).await
    }

    /// Opens a stream of events, after an id if one is given.
    pub(crate) async fn events(&self, path: &str, after: Option<&str>) -> anyhow::Result<Sse> {
        let mut request = self
            .request(Method::GET, path)
            .header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = self.send(request).await?;
        let events = response.bytes_stream().eventsource().map(|event| {
            let event = event.context("the stream of events broke")?;
            let data = serde_json::from_str(&event.data).unwrap_or(Value::String(event.data));
            Ok(Message {
                event: event.event,
                id: event.id,
                data,
            })
        });
        Ok(Sse(events.boxed()))
    }
}

impl Sse {
    /// The next event; none when the server has ended the stream. Cancel-safe.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Message>> {
        self.0.next().await.transpose()
    }
}

/// A name as it stands in a path.
pub(crate) fn path_of(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
