//! Clients of the WebSockets: a plain one, and an agent as an outside author would write it.

use std::fmt;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

use crate::{Api, TIMEOUT};

/// What came on a socket.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A JSON object.
    Json(Value),
    /// The server closed, with a code and a reason.
    Closed(u16, String),
    /// The connection ended without a close.
    Gone,
}

/// A client of a WebSocket.
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

impl Socket {
    /// Connects; the HTTP status when the server refused.
    pub async fn connect(api: &Api, path: &str) -> Result<Self, u16> {
        let url = api.url(path).replacen("http", "ws", 1);
        match connect_async(url).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                Err(response.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends an envelope; whether the connection still took it.
    pub async fn try_send(&mut self, kind: &str, payload: Value) -> bool {
        let envelope = json!({"type": kind, "payload": payload});
        self.0
            .send(Message::text(envelope.to_string()))
            .await
            .is_ok()
    }

    /// Sends a text frame as it is.
    pub async fn send_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// Sends a binary frame as it is.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.send(Message::binary(bytes.to_vec())).await.unwrap();
    }

    /// Sends an envelope and returns its id.
    pub async fn send(&mut self, kind: &str, payload: Value) -> String {
        self.answer(kind, payload, None).await
    }

    /// Sends an envelope that answers another.
    pub async fn answer(&mut self, kind: &str, payload: Value, to: Option<&str>) -> String {
        let id = Uuid::now_v7().to_string();
        let mut envelope = json!({"type": kind, "msgId": id, "ts": "2026-01-01T00:00:00.000Z", "payload": payload});
        if let Some(to) = to {
            envelope["correlationId"] = json!(to);
        }
        self.send_text(&envelope.to_string()).await;
        id
    }

    /// The next frame.
    pub async fn next(&mut self) -> Frame {
        loop {
            let message = timeout(TIMEOUT, self.0.next())
                .await
                .expect("a frame in time");
            match message {
                Some(Ok(Message::Text(text))) => {
                    return Frame::Json(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    return Frame::Closed(close.code.into(), close.reason.to_string());
                }
                Some(Ok(Message::Close(None)) | Err(_)) | None => return Frame::Gone,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The payload of the next envelope of this type; what comes between is skipped.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        self.envelope_of(kind).await["payload"].take()
    }

    /// The next envelope of this type; what comes between is skipped.
    pub async fn envelope_of(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Frame::Json(envelope) if envelope["type"] == kind => return envelope,
                Frame::Json(_) => {}
                end => panic!("waited for {kind}, got {end:?}"),
            }
        }
    }

    /// Waits for the close and returns its code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Frame::Json(_) => {}
                Frame::Closed(code, reason) => return (code, reason),
                Frame::Gone => panic!("the connection ended without a close"),
            }
        }
    }
}

/// An agent on a WebSocket, as the protocol's description shows it.
#[derive(Debug)]
pub struct Agent {
    /// Its connection.
    pub socket: Socket,
    /// The payload of the welcome.
    pub welcome: Value,
}

impl Agent {
    /// A hello with one slot and nothing running.
    pub fn hello(id: &str) -> Value {
        json!({
            "agentId": id, "name": format!("{id} by name"), "version": "1.0.0", "capabilities": {"slots": 1},
            "drain": false, "activeJob": null, "auth": {"token": "dev-shared-token"}
        })
    }

    /// Connects and sends this hello.
    pub async fn join(api: &Api, hello: Value) -> Self {
        let mut socket = Socket::connect(api, "/agent").await.unwrap();
        socket.send("agent.hello", hello).await;
        let welcome = socket.next_of("orchestrator.hello.ok").await;
        Self { socket, welcome }
    }

    /// Waits for an offer and accepts it; returns its payload.
    pub async fn accept(&mut self) -> Value {
        let mut offer = self.socket.envelope_of("orchestrator.assign.start").await;
        let (job, id) = (
            offer["payload"]["jobId"].clone(),
            offer["msgId"].as_str().unwrap().to_owned(),
        );
        let payload = json!({"jobId": job, "accepted": true});
        self.socket
            .answer("agent.assign.ack", payload, Some(&id))
            .await;
        offer["payload"].take()
    }

    /// Reports a status.
    pub async fn update(&mut self, job: &str, status: &str) {
        self.socket
            .send("agent.job.update", json!({"jobId": job, "status": status}))
            .await;
    }

    /// Reports an end.
    pub async fn stopped(&mut self, job: &str, status: &str) {
        self.socket
            .send("agent.job.stopped", json!({"jobId": job, "status": status}))
            .await;
    }
}
