//! Server-sent events: one stream, and one that reconnects where it broke.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use eventsource_stream::Eventsource;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::http::Http;
use crate::cli::exit::{self, Failure};

/// Delay before a broken stream is opened again, unless the server asks for another; it doubles up to
/// [`RETRY_DELAY_MAX`].
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Longest such delay.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
/// How long a server may be away.
const OUTAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// One server-sent event.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its type.
    pub event: String,
    /// Its id; empty when it has none.
    pub id: String,
    /// Its data, as JSON or else as text.
    pub data: Value,
}

/// An update of a stream that reconnects.
#[derive(Debug)]
pub(crate) enum Update<T> {
    /// The stream is open, for the first time or again.
    Connected,
    /// A message.
    Message(T),
    /// The stream has ended or broken; it is opened again next.
    Disconnected,
}

/// An open stream of events.
pub struct Sse {
    events: BoxStream<'static, anyhow::Result<Message>>,
    /// Milliseconds; 0 while the server has not asked for any.
    retry: Arc<AtomicU64>,
}

/// Opens a stream of events, after an id if one is given.
pub async fn open(http: &Http, path: &str, after: Option<&str>) -> anyhow::Result<Sse> {
    let mut request = http
        .request(Method::GET, path)
        .header(ACCEPT, "text/event-stream");
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    let response = http.send(request).await?;
    let retry = Arc::new(AtomicU64::new(0));
    let (mut field, retry_delay) = (RetryField::default(), retry.clone());
    let bytes = response.bytes_stream().inspect_ok(move |bytes| {
        if let Some(wait) = field.feed(bytes) {
            retry_delay.store(wait, Ordering::Relaxed);
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

/// Follows a stream of events, from its beginning or after an id, over any number of connections. Awaiting the next
/// update is cancel-safe: the state is kept by the stream.
///
/// The consumer decides when it has seen the last event: a stream that the server ends is opened again.
///
/// # Errors
/// When the first connection fails, when what is followed is gone, or when the server stays away for two minutes.
pub(crate) fn follow(
    http: &Http,
    path: String,
    after: Option<&str>,
) -> BoxStream<'static, anyhow::Result<Update<Message>>> {
    let follower = Follower {
        http: http.clone(),
        path,
        last: after.map(str::to_owned),
        delay: RETRY_DELAY,
        state: State::Initial,
    };
    futures::stream::try_unfold(follower, async |mut follower| {
        let update = follower.next().await?;
        Ok(Some((update, follower)))
    })
    .boxed()
}

struct Follower {
    http: Http,
    path: String,
    /// The id of the last event.
    last: Option<String>,
    delay: Duration,
    state: State,
}

enum State {
    Initial,
    Open(Sse),
    Lost { since: Instant },
}

impl Follower {
    async fn next(&mut self) -> anyhow::Result<Update<Message>> {
        loop {
            match &mut self.state {
                State::Open(stream) => {
                    let message = stream.next().await;
                    self.delay = stream.retry().unwrap_or(RETRY_DELAY);
                    if let Ok(Some(message)) = message {
                        if !message.id.is_empty() {
                            self.last = Some(message.id.clone());
                        }
                        return Ok(Update::Message(message));
                    }
                    let since = Instant::now();
                    self.state = State::Lost { since };
                    return Ok(Update::Disconnected);
                }
                State::Initial => self.open().await?,
                State::Lost { since } => {
                    let since = *since;
                    sleep(self.delay).await;
                    match self.open().await {
                        Ok(()) => {}
                        Err(error) if since.elapsed() > OUTAGE_TIMEOUT || is_final(&error) => {
                            return Err(error);
                        }
                        Err(_) => {
                            self.delay = self.delay.max((self.delay * 2).min(RETRY_DELAY_MAX));
                            continue;
                        }
                    }
                }
            }
            return Ok(Update::Connected);
        }
    }

    async fn open(&mut self) -> anyhow::Result<()> {
        let stream = open(&self.http, &self.path, self.last.as_deref()).await?;
        self.state = State::Open(stream);
        Ok(())
    }
}

/// Whether a failure will not pass: what is followed is gone. An edge or a bus that restarts refuses for a while.
fn is_final(error: &anyhow::Error) -> bool {
    let failure = error.downcast_ref::<Failure>();
    failure.is_some_and(|failure| failure.code() == exit::NOT_FOUND)
}

impl Sse {
    /// The next event; none when the server has ended the stream. Cancel-safe.
    pub async fn next(&mut self) -> anyhow::Result<Option<Message>> {
        self.events.next().await.transpose()
    }

    /// How long the server wants a client to wait before it reconnects, if it sent that.
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request and closes; returns the head of the request.
    async fn answer_once(listener: &TcpListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(head).unwrap().to_lowercase()
    }

    #[tokio::test]
    async fn a_broken_stream_goes_on_after_its_last_event_until_what_is_followed_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let http = Http::new(&base, Some("secret".to_owned())).unwrap();
        let mut updates = follow(&http, "/events".to_owned(), None);
        let open =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let first = format!("{open}retry: 1\n\nid: 7\nevent: a\ndata: {{\"n\": 1}}\n\n");
        let received = async {
            assert!(matches!(updates.next().await, Some(Ok(Update::Connected))));
            let Some(Ok(Update::Message(message))) = updates.next().await else {
                panic!("no message");
            };
            let ended = updates.next().await;
            assert!(matches!(ended, Some(Ok(Update::Disconnected))), "{ended:?}");
            message
        };
        let (head, message) = tokio::join!(answer_once(&listener, &first), received);
        assert!(head.starts_with("get /events http/1.1"), "{head}");
        assert!(head.contains("authorization: bearer secret"), "{head}");
        assert!(!head.contains("last-event-id"), "{head}");
        assert_eq!(
            (message.event.as_str(), &message.data["n"]),
            ("a", &Value::from(1))
        );
        let busy =
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let gone = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let answered = async {
            let head = answer_once(&listener, busy).await;
            assert!(head.contains("last-event-id: 7"), "{head}");
            answer_once(&listener, gone).await
        };
        let (_, update) = tokio::join!(answered, updates.next());
        assert!(update.unwrap().is_err());
    }

    #[test]
    fn the_retry_delay_of_a_server_is_read_wherever_a_read_ends() {
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
}
