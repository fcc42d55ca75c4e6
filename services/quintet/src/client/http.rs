//! The client's side of HTTP: JSON in and out, failures as sentences with the exit code they deserve.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use eventsource_stream::Eventsource;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use reqwest::header::{ETAG, IF_NONE_MATCH};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::cli::exit::{self, Failure};
use crate::cli::global::Global;

/// A client of one edge.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
    base: String,
    token: Option<String>,
}

/// One server-sent event.
#[derive(Clone, Debug)]
pub struct Message {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

/// A stream of events.
pub struct Sse {
    events: BoxStream<'static, anyhow::Result<Message>>,
    retry: Arc<AtomicU64>,
}

impl Http {
    pub fn new(base: &str, token: Option<String>) -> anyhow::Result<Self> {
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

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; an answer that says no is a failure.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        Self::checked(response).await
    }

    /// Gets bytes with the tag that names them; nothing when they are still those of a tag.
    pub(crate) async fn get_unless(
        &self,
        path: &str,
        tag: Option<&str>,
    ) -> anyhow::Result<Option<(Vec<u8>, Option<String>)>> {
        let mut request = self.request(Method::GET, path);
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let sent = request.send().await;
        let response = sent.map_err(|error| self.unreachable(&error))?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let response = Self::checked(response).await?;
        let tag = response.headers().get(ETAG);
        let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let bytes = response.bytes().await.context("the answer broke off")?;
        Ok(Some((bytes.to_vec(), tag)))
    }

    async fn checked(response: Response) -> anyhow::Result<Response> {
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
        let (transition, problems) = (transition(&body), problems(&body));
        Err(Failure::new(code, format!("{sentence}{transition}{id}{problems}")).into())
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

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.json(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    pub async fn post_empty(&self, path: &str) -> anyhow::Result<Value> {
        self.json(self.request(Method::POST, path)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(self.request(Method::PUT, path).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.json(self.request(Method::DELETE, path)).await
    }

    /// Opens a stream of events, after an id if one is given.
    pub async fn events(&self, path: &str, after: Option<&str>) -> anyhow::Result<Sse> {
        let mut request = self
            .request(Method::GET, path)
            .header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = self.send(request).await?;
        let retry = Arc::new(AtomicU64::new(0));
        let mut field = RetryField::default();
        let found = retry.clone();
        let bytes = response.bytes_stream().inspect_ok(move |bytes| {
            if let Some(wait) = field.feed(bytes) {
                found.store(wait, Ordering::Relaxed);
            }
        });
        let events = bytes.eventsource().map(|event| {
            let event = event.context("the stream of events broke")?;
            let data = serde_json::from_str(&event.data).unwrap_or(Value::String(event.data));
            Ok(Message {
                event: event.event,
                id: event.id,
                data,
            })
        });
        Ok(Sse {
            events: events.boxed(),
            retry,
        })
    }
}

impl Sse {
    /// The next event; none when the server has ended the stream. Cancel-safe.
    pub async fn next(&mut self) -> anyhow::Result<Option<Message>> {
        self.events.next().await.transpose()
    }

    /// How long the server wants a client to wait before it comes back, if it has said so.
    pub(crate) fn retry(&self) -> Option<Duration> {
        match self.retry.load(Ordering::Relaxed) {
            0 => None,
            wait => Some(Duration::from_millis(wait)),
        }
    }
}

/// Finds `retry:` lines in a stream of events; those that come without an event are dropped by its parser.
#[derive(Debug, Default)]
struct RetryField {
    /// The line up to here, as long as it can be such a line.
    line: Vec<u8>,
    is_other: bool,
}

impl RetryField {
    /// The wait of the last such line that has ended, in milliseconds.
    fn feed(&mut self, bytes: &[u8]) -> Option<u64> {
        const NAME: &[u8] = b"retry:";
        let mut found = None;
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                let value = self.line.strip_prefix(NAME);
                let value = value.and_then(|value| std::str::from_utf8(value).ok());
                found = value.and_then(|value| value.trim().parse().ok()).or(found);
                (self.line, self.is_other) = (Vec::new(), false);
            } else if !self.is_other {
                self.line.push(*byte);
                let length = self.line.len().min(NAME.len());
                self.is_other = self.line[..length] != NAME[..length] || self.line.len() > 32;
            }
        }
        found
    }
}

/// Which transition was refused, where the answer names it.
fn transition(body: &Value) -> String {
    match (body["from"].as_str(), body["to"].as_str()) {
        (Some(from), Some(to)) => format!(": what is {from} cannot become {to}"),
        _ => String::new(),
    }
}

/// All that is wrong with what was sent, a line each, where the answer names it.
fn problems(body: &Value) -> String {
    let lists = [&body["problems"], &body["details"]];
    let problems = lists.into_iter().filter_map(Value::as_array).flatten();
    problems
        .map(|problem| {
            let path = problem["path"].as_str().unwrap_or_default();
            let colon = if path.is_empty() { "" } else { ": " };
            let message = problem["message"].as_str().unwrap_or_default();
            format!("\n  {path}{colon}{message}")
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_wait_that_a_server_asks_for_is_heard_wherever_a_read_ends() {
        let text = b"retry: 2500\n\nevent: hello\ndata: retry: 1\n\n: retry: 2\n";
        for cut in 0..text.len() {
            let mut field = RetryField::default();
            let found = [field.feed(&text[..cut]), field.feed(&text[cut..])];
            assert_eq!(
                found.into_iter().flatten().collect::<Vec<_>>(),
                [2500],
                "{cut}"
            );
        }
    }

    #[test]
    fn every_problem_has_a_line_with_its_path() {
        let body = json!({"problems": [
            {"path": "nodes[1].needs[0]", "code": "danglingEdge", "message": "there is no node x"},
            {"path": "", "code": "limit", "message": "the plan is too large"},
        ]});
        let expected = "\n  nodes[1].needs[0]: there is no node x\n  the plan is too large";
        assert_eq!(problems(&body), expected);
        assert_eq!(problems(&json!({})), "");
    }
}
