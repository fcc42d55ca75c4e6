//! Websockets, over the connections of the HTTP client: with its TLS trust, and its key as a header.

use std::time::Duration;

use anyhow::Context;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use reqwest::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Method, StatusCode};
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::events::Update;
use super::http::Http;

/// Delay before a broken connection is opened again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The text messages of an open websocket.
type Texts = BoxStream<'static, anyhow::Result<String>>;

/// Opens a websocket, and returns the texts that the server sends.
async fn open(http: &Http, path: &str) -> anyhow::Result<Texts> {
    let key = generate_key();
    let request = http
        .request(Method::GET, path)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key);
    let response = http.send(request).await?;
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
    anyhow::ensure!(
        response.status() == StatusCode::SWITCHING_PROTOCOLS
            && accept.is_some_and(|accept| accept == derive_accept_key(key.as_bytes()).as_str()),
        "{} does not open a websocket",
        http.address()
    );
    let connection = response.upgrade().await;
    let connection = connection.context("cannot open the websocket")?;
    let socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
    let texts = socket
        .map_err(anyhow::Error::from)
        .try_filter_map(async |message| {
            Ok(match message {
                Message::Text(text) => Some(text.to_string()),
                _ => None,
            })
        });
    Ok(texts.boxed())
}

/// Follows the texts of a websocket, over any number of connections. Awaiting the next update is cancel-safe: the state
/// is kept by the stream.
///
/// # Errors
/// When the first connection fails; later ones are tried for ever.
pub(crate) fn follow(
    http: &Http,
    path: &'static str,
) -> BoxStream<'static, anyhow::Result<Update<String>>> {
    let start = (http.clone(), path, State::Initial);
    futures::stream::try_unfold(start, async |(http, path, state)| {
        let (update, state) = match state {
            State::Initial => (Update::Connected, State::Open(open(&http, path).await?)),
            State::Open(mut texts) => match texts.next().await {
                Some(Ok(text)) => (Update::Message(text), State::Open(texts)),
                Some(Err(_)) | None => (Update::Disconnected, State::Lost),
            },
            State::Lost => loop {
                sleep(RETRY_DELAY).await;
                if let Ok(texts) = open(&http, path).await {
                    break (Update::Connected, State::Open(texts));
                }
            },
        };
        Ok(Some((update, (http, path, state))))
    })
    .boxed()
}

enum State {
    Initial,
    Open(Texts),
    Lost,
}

#[cfg(test)]
mod tests {
    use futures::SinkExt;
    use tokio::net::TcpListener;
    use tokio_tungstenite::accept_hdr_async;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

    use super::*;

    /// Accepts a websocket, sends one text and closes; returns the address and the key of the request.
    #[expect(
        clippy::result_large_err,
        reason = "the handshake of tungstenite wants it so"
    )]
    async fn serve_once(listener: &TcpListener, text: &str) -> (String, String) {
        let (stream, _) = listener.accept().await.unwrap();
        let mut seen = (String::new(), String::new());
        let look = |request: &Request, response: Response| {
            let key = request.headers().get("authorization");
            let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
            seen = (request.uri().to_string(), key.to_owned());
            Ok(response)
        };
        let mut socket = accept_hdr_async(stream, look).await.unwrap();
        socket.send(Message::text(text)).await.unwrap();
        socket.close(None).await.unwrap();
        seen
    }

    #[tokio::test]
    async fn a_broken_socket_is_opened_again_with_the_key_in_a_header() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let http = Http::new(&base, Some("secret".to_owned())).unwrap();
        let mut updates = follow(&http, "/ui");
        for text in ["one", "two"] {
            let received = async {
                assert!(matches!(updates.next().await, Some(Ok(Update::Connected))));
                let Some(Ok(Update::Message(received))) = updates.next().await else {
                    panic!("no message");
                };
                let ended = updates.next().await;
                assert!(matches!(ended, Some(Ok(Update::Disconnected))), "{ended:?}");
                received
            };
            let (seen, received) = tokio::join!(serve_once(&listener, text), received);
            assert_eq!(seen, ("/ui".to_owned(), "Bearer secret".to_owned()));
            assert_eq!(received, text);
        }
    }

    #[tokio::test]
    async fn a_refusal_of_a_server_is_reported_with_its_reason() {
        let http = Http::new("http://127.0.0.1:1", None).unwrap();
        let first = follow(&http, "/ui").next().await;
        let error = first.unwrap().unwrap_err().to_string();
        assert!(error.contains("cannot reach http://127.0.0.1:1"), "{error}");
    }
}
